//! Every file operation of the store of slots, behind one trait.
//!
//! The trait is as small as the store needs, and its words are those that a power cut
//! knows: what was written is lost until it is synced, and a name is lost until its folder
//! is. Tests put a simulated disk behind it that cuts the power between any two operations.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the store does to a disk.
pub trait Fs {
    /// Held as long as a lock is.
    type Lock;

    /// At most `max_bytes` of a file, from its beginning.
    ///
    /// # Errors
    /// What the system answers; `InvalidData` if the file is larger.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>>;

    /// Fills `buffer` from `offset` on, up to the file's end; returns the bytes read.
    ///
    /// # Errors
    /// What the system answers.
    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// What the system answers; `NotFound` if there is none.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Names in a folder, sorted.
    ///
    /// # Errors
    /// What the system answers.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Creates a folder in an existing one; one that is there already is fine.
    ///
    /// # Errors
    /// What the system answers.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Writes bytes into a file, which is created if there is none.
    ///
    /// # Errors
    /// What the system answers; a part may have been written.
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Brings a file's content and length to the disk.
    ///
    /// # Errors
    /// What the system answers; nothing is known of the file then.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Brings a folder's names to the disk.
    ///
    /// # Errors
    /// What the system answers.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    /// What the system answers.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system answers.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Bytes that a file in this folder may still take.
    ///
    /// # Errors
    /// What the system answers.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;

    /// Takes a lock on a file, which is created if there is none; `None` if another holds it.
    /// It ends when it is dropped, and with the process.
    ///
    /// # Errors
    /// What the system answers.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;

    /// Whether somebody reads the file: [`share`] was called on it and the answer is held.
    ///
    /// # Errors
    /// What the system answers.
    fn is_shared(&self, path: &Path) -> io::Result<bool>;
}

/// The disk of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Fs for Disk {
    type Lock = File;

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(max_bytes.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            let what = format!("it is larger than {max_bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(bytes)
    }

    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = File::open(path)?;
        let mut n_read = 0;
        while n_read < buffer.len() {
            match file.read_at(&mut buffer[n_read..], offset + n_read as u64) {
                Ok(0) => break,
                Ok(n) => n_read += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(n_read)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?
            .write_all_at(bytes, offset)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        // On Linux this covers what other descriptors wrote.
        File::open(path)?.sync_all()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let facts = rustix::fs::statvfs(folder)?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(err)) => Err(err),
        }
    }

    fn is_shared(&self, path: &Path) -> io::Result<bool> {
        match File::open(path)?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(err)) => Err(err),
        }
    }
}

/// Says that a file is being read, until the answer is dropped or the process ends.
///
/// # Errors
/// What the system answers.
pub fn share(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Only the clean-up holds it exclusively, for as long as it takes to ask.
    file.lock_shared()?;
    Ok(file)
}
