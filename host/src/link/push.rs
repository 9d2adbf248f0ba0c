//! Sends files to a board, and goes on where a broken link left off.
//!
//! What the board has is asked for every time, by the file's hash: nothing is remembered on
//! this side, so it does not matter which side was restarted, or that another host begins
//! where this one ended.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eyas_shared::container::{Container, ContainerError, Kind};
use eyas_shared::files::FileError;
use eyas_shared::fingerprint::{ContentHasher, Fingerprint};
use eyas_shared::link::message::{FileId, FileKind, Offer};

use super::{Address, Client, ClientError, Options};

/// How long a broken link is tried again: a board takes its time to start.
pub const RETRY_FOR: Duration = Duration::from_secs(60);

/// Pause between two tries.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Bytes that are hashed at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Enough of a file to tell what it is.
const HEAD_BYTES: u64 = 64;

/// A file that is sent.
#[derive(Debug)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What the board is told of it.
    pub offer: Offer,
    file: File,
}

impl Source {
    /// Opens and hashes a bundle, a gallery or a delta.
    ///
    /// # Errors
    /// If it can not be read, or is something else.
    pub fn open(path: &Path) -> Result<Self, ClientError> {
        let mut head = Vec::new();
        File::open(path)
            .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head))
            .map_err(FileError::because("read", path))?;
        let kind = match Container::read(&head, Kind::Bundle, u16::MAX) {
            Err(ContainerError::OtherKind { found, .. }) => found,
            Err(err @ (ContainerError::NotEyas { .. } | ContainerError::UnknownKind { .. })) => {
                let (path, what) = (path.to_owned(), err.to_string());
                return Err(ClientError::OtherFile { path, what });
            }
            // Cut off after the head: its kind was right.
            _ => Kind::Bundle,
        };
        let kind = match kind {
            Kind::Bundle => FileKind::Bundle,
            Kind::Gallery => FileKind::Gallery,
            Kind::Delta => FileKind::Delta,
            other => {
                let (path, what) = (path.to_owned(), format!("a {other}"));
                return Err(ClientError::OtherFile { path, what });
            }
        };
        Self::open_as(path, kind, [0; 32])
    }

    /// Opens and hashes a file of a given kind; `about` as in [`Offer`].
    ///
    /// # Errors
    /// If it can not be read.
    pub fn open_as(path: &Path, kind: FileKind, about: [u8; 32]) -> Result<Self, ClientError> {
        let because = || FileError::because("read", path);
        let mut file = File::open(path).map_err(because())?;
        let mut hasher = ContentHasher::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer).map_err(because())? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
        let hash = hasher.finish().0;
        let file_id = FileId { hash, bytes };
        Ok(Self {
            path: path.to_owned(),
            offer: Offer {
                kind,
                file: file_id,
                about,
            },
            file,
        })
    }

    /// Its content's name.
    #[must_use]
    pub fn hash(&self) -> Fingerprint {
        self.offer.file.fingerprint()
    }

    /// Sends the file over a session, once.
    ///
    /// # Errors
    /// As [`Client::upload`].
    pub fn send(&self, client: &mut Client) -> Result<(), ClientError> {
        let read = |offset, buffer: &mut [u8]| self.read(offset, buffer);
        client.upload(self.offer, read, |_, _| {})
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ClientError> {
        let read = self.file.read_exact_at(buffer, offset);
        Ok(read.map_err(FileError::because("read", &self.path))?)
    }
}

/// What sending a file came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes that the board had before.
    pub had: u64,
    /// How often the link broke on the way.
    pub n_breaks: u32,
}

/// A board that is connected again when the link breaks.
pub struct Pusher {
    address: Address,
    options: Options,
    client: Option<Client>,
}

impl Pusher {
    /// Goes on with a session.
    #[must_use]
    pub fn new(client: Client, options: &Options) -> Self {
        Self {
            address: client.address().clone(),
            options: options.clone(),
            client: Some(client),
        }
    }

    /// Sends a file. `progress` is told the bytes that the board has; `noted` what broke.
    ///
    /// # Errors
    /// If the board refuses it, or as [`persist`](Self::persist).
    pub fn push(
        &mut self,
        source: &Source,
        mut progress: impl FnMut(u64),
        noted: impl FnMut(&ClientError),
    ) -> Result<Pushed, ClientError> {
        let reached = Cell::new(0);
        let mut had_at_first = None;
        let upload = |client: &mut Client| {
            client.upload(
                source.offer,
                |offset, buffer| source.read(offset, buffer),
                |there, had| {
                    if there > 0 {
                        had_at_first.get_or_insert(had);
                    }
                    reached.set(there.max(reached.get()));
                    progress(there);
                },
            )
        };
        let ((), n_breaks) = self.persist(upload, &reached, noted)?;
        Ok(Pushed {
            had: had_at_first.unwrap_or(0),
            n_breaks,
        })
    }

    /// Does something over as many sessions as it takes; how many broke. `attempt` begins
    /// where the one before ended, and writes to `reached` how far it is; `noted` is told
    /// what broke.
    ///
    /// # Errors
    /// What `attempt` fails with, if the link is not at fault, or can not be brought back
    /// for [`RETRY_FOR`] without `reached` growing in between.
    pub fn persist<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Client) -> Result<T, ClientError>,
        reached: &Cell<u64>,
        mut noted: impl FnMut(&ClientError),
    ) -> Result<(T, u32), ClientError> {
        let mut n_breaks = 0;
        let (mut best, mut moved_at) = (reached.get(), Instant::now());
        loop {
            let outcome = self.connected().and_then(&mut attempt);
            if reached.get() > best {
                (best, moved_at) = (reached.get(), Instant::now());
            }
            match outcome {
                Ok(done) => return Ok((done, n_breaks)),
                Err(err) if may_come_back(&err) && moved_at.elapsed() < RETRY_FOR => {
                    if self.client.take().is_some() {
                        n_breaks += 1;
                        noted(&err);
                    }
                    std::thread::sleep(RETRY_PAUSE);
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// The session, begun anew if it was lost.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connected(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                // One recording holds one session: what follows a break is another one.
                let options = Options {
                    record: None,
                    ..self.options.clone()
                };
                Client::connect(&self.address, &options)?
            }
        };
        Ok(self.client.insert(client))
    }

    /// The session is lost: the next use begins another.
    pub fn lose(&mut self) {
        self.client = None;
    }

    /// Takes leave.
    ///
    /// # Errors
    /// If the link broke before.
    pub fn leave(self) -> Result<(), ClientError> {
        self.client.map_or(Ok(()), Client::leave)
    }
}

/// Whether a link may come back by itself: also its port may be gone for a while.
pub(crate) fn may_come_back(err: &ClientError) -> bool {
    use eyas_device::port::PortError;
    err.is_loss()
        || matches!(
            err,
            ClientError::Port(PortError::Absent { .. } | PortError::Busy { .. })
        )
}
