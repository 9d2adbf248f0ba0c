//! Fetches files from a board, and goes on where a broken link or a killed program left off.
//!
//! What has come lies beside the file that it is to become, under a name with the hash of
//! the whole: whoever continues reads it again. Nothing that is read there is believed but
//! the hash of everything at the end; if that does not fit, the file is fetched anew.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::ContentHasher;
use eyas_shared::link::message::{Ask, FileId, FileKind, Reply};

use super::push::Pusher;
use super::{Client, ClientError};

/// Bytes that are hashed at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What fetching a file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Which file.
    pub file: FileId,
    /// Bytes that lay here before.
    pub had: u64,
    /// How often the link broke on the way.
    pub n_breaks: u32,
}

/// Asks which bundle or gallery serves.
///
/// # Errors
/// If none does, or the link breaks.
pub fn find(client: &mut Client, kind: FileKind) -> Result<FileId, ClientError> {
    let asked = "which file serves";
    match client.ask(asked, Ask::Find { kind })? {
        Reply::File(file) => Ok(file),
        _ => Err(ClientError::Answer { asked }),
    }
}

/// Fetches a file that the board serves to `out`, which is replaced once all is there.
/// `progress` is told the bytes that are here; `noted` what broke.
///
/// # Errors
/// If the board serves it no more, the disk refuses, or as [`Pusher::persist`]. What has
/// come stays for the next try.
pub fn pull(
    link: &mut Pusher,
    file: FileId,
    out: &Path,
    mut progress: impl FnMut(u64),
    mut noted: impl FnMut(&ClientError),
) -> Result<Pulled, ClientError> {
    let reached = Cell::new(0);
    let mut part = Part::open(out, file)?;
    let had = part.at;
    let mut n_breaks = 0;
    loop {
        let began_at = part.at;
        let fetch = |client: &mut Client| {
            part.fetch(client, |at| {
                reached.set(at.max(reached.get()));
                progress(at);
            })
        };
        let ((), n) = link.persist(fetch, &reached, &mut noted)?;
        n_breaks += n;
        if part.is_right() {
            break;
        }
        part.restart()?;
        // What lay here was to blame, unless nothing did.
        if began_at == 0 {
            return Err(ClientError::Content { file });
        }
    }
    part.become_file(out)?;
    Ok(Pulled {
        file,
        had,
        n_breaks,
    })
}

/// A file of which the beginning is here.
struct Part {
    file: FileId,
    path: PathBuf,
    target: File,
    /// Of everything up to `at`.
    hasher: ContentHasher,
    at: u64,
}

impl Part {
    /// Continues what lies beside `out`, or begins.
    fn open(out: &Path, file: FileId) -> Result<Self, ClientError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(out.file_name().unwrap_or_default());
        name.push(format!(".{}.part", file.fingerprint()));
        let path = files::folder_of(out).join(name);
        let target = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::because("write", &path))?;
        if let Err(std::fs::TryLockError::WouldBlock) = target.try_lock() {
            let source = io::Error::other("another program is fetching it");
            return Err(FileError::because("write", &path)(source).into());
        }
        let mut part = Self {
            file,
            path,
            target,
            hasher: ContentHasher::new(),
            at: 0,
        };
        part.read_again()?;
        Ok(part)
    }

    /// Hashes what is there. What is too long is of no use.
    fn read_again(&mut self) -> Result<(), ClientError> {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let n_read = self.target.read(&mut buffer);
            match n_read.map_err(FileError::because("read", &self.path))? {
                0 => break,
                n => {
                    self.hasher.update(&buffer[..n]);
                    self.at += n as u64;
                }
            }
        }
        if self.at > self.file.bytes {
            self.restart()?;
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), ClientError> {
        let emptied = self.target.set_len(0);
        emptied
            .and_then(|()| self.target.seek(SeekFrom::Start(0)))
            .map_err(FileError::because("write", &self.path))?;
        self.hasher = ContentHasher::new();
        self.at = 0;
        Ok(())
    }

    /// Fetches what is missing over one session.
    fn fetch(
        &mut self,
        client: &mut Client,
        mut progress: impl FnMut(u64),
    ) -> Result<(), ClientError> {
        let asked = "a file";
        let (hash, offset) = (self.file.hash, self.at);
        client.ask_for_many(asked, Ask::Read { hash, offset }, |reply| match reply {
            Reply::Chunk { offset, data } if self.continues(offset, &data) => {
                let written = self.target.write_all(&data);
                written.map_err(FileError::because("write", &self.path))?;
                self.hasher.update(&data);
                self.at += data.len() as u64;
                progress(self.at);
                Ok(true)
            }
            Reply::Done if self.at == self.file.bytes => Ok(false),
            _ => Err(ClientError::Answer { asked }),
        })
    }

    fn continues(&self, offset: u64, data: &[u8]) -> bool {
        offset == self.at && self.at + data.len() as u64 <= self.file.bytes
    }

    fn is_right(&self) -> bool {
        self.hasher.clone().finish() == self.file.fingerprint()
    }

    fn become_file(self, out: &Path) -> Result<(), ClientError> {
        Ok(files::adopt(&self.path, out)?)
    }
}
