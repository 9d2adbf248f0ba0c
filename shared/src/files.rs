//! Files are replaced, never edited: whoever reads a path finds the old content or the
//! new one, whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

/// A file operation that failed, with the path it failed on.
#[derive(Debug, Error)]
#[error("could not {action} `{}`: {source}", path.display())]
pub struct FileError {
    /// What was tried, such as `write`.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system answered.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: names what was tried on which path.
    pub fn because(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the disk, a quota or a size limit is exhausted.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}

/// Temporary files that exist right now, for [`remove_unfinished`].
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files of writes in progress; for a handler of Ctrl-C. No write can
/// begin afterwards: the program is expected to end.
pub fn remove_unfinished() {
    let unfinished = unfinished();
    for path in unfinished.iter() {
        // Nobody is left to tell: the program ends.
        let _ = fs::remove_file(path);
    }
    std::mem::forget(unfinished);
}

/// Writes `bytes` to `path` through a temporary file in the same folder, synced to disk
/// before it takes the name.
///
/// # Errors
/// If any step fails; `path` then holds what it held before (or, if only the folder could
/// not be synced, already the new content).
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_with(path, |file| file.write_all(bytes))
}

const TEMPORARY_END: &str = ".tmp";

/// What the names of all temporary files of a path begin with.
fn temporary_prefix(path: &Path) -> std::ffi::OsString {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// Removes what writers of `path` that were killed left behind, as far as that can be told:
/// on the device, a power cut each week must not fill the disk.
pub fn remove_abandoned(path: &Path) {
    let prefix = temporary_prefix(path);
    let Ok(files) = fs::read_dir(folder_of(path)) else {
        return;
    };
    for file in files.filter_map(Result::ok) {
        let name = file.file_name();
        let number = name
            .as_encoded_bytes()
            .strip_prefix(prefix.as_encoded_bytes());
        let number = number.and_then(|rest| rest.strip_suffix(TEMPORARY_END.as_bytes()));
        if !number.is_some_and(|number| number.iter().all(u8::is_ascii_digit)) {
            continue;
        }
        // A writer that lives holds a lock.
        let abandoned = File::open(file.path()).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            // What can not be removed only takes room.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// The folder that a file lies in: `.` for a bare name, whose parent is an empty path that
/// no system call takes.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Like [`replace`], for content that is written piece by piece.
///
/// # Errors
/// If any step fails, or `write` does; `path` then holds what it held before.
pub fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FileError> {
    let folder = folder_of(path);
    let mut name = temporary_prefix(path);
    name.push(format!("{}{TEMPORARY_END}", std::process::id()));
    let temporary = folder.join(name);

    unfinished().insert(temporary.clone());
    let outcome = (|| {
        let mut file = File::create(&temporary)?;
        // Tells `remove_abandoned` that somebody is at work; not every file system can.
        let _ = file.try_lock();
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    unfinished().remove(&temporary);
    outcome.map_err(FileError::because("write", path))
}

/// Gives a file that was written piece by piece, over several runs of a program, its name;
/// both lie in the same folder.
///
/// # Errors
/// If any step fails; `path` then holds what it held before (or, if only the folder could
/// not be synced, already the new content).
pub fn adopt(written: &Path, path: &Path) -> Result<(), FileError> {
    let adopted = (|| {
        File::open(written)?.sync_all()?;
        fs::rename(written, path)?;
        File::open(folder_of(path))?.sync_all()
    })();
    adopted.map_err(FileError::because("write", path))
}

/// Reads a whole file of at most `max_bytes`.
///
/// # Errors
/// If it can not be read or is larger.
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::because("read", path))?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(FileError::because("read", path))?;
    if bytes.len() as u64 > max_bytes {
        let source = io::Error::other(format!("it is larger than {max_bytes} bytes"));
        return Err(FileError {
            action: "read",
            path: path.to_owned(),
            source,
        });
    }
    Ok(bytes)
}

/// Creates a folder and those above it.
///
/// # Errors
/// If the system refuses.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::because("create folder", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_lies_in_the_current_folder() {
        assert_eq!(folder_of(Path::new("list.csv")), Path::new("."));
        assert_eq!(folder_of(Path::new("data/list.csv")), Path::new("data"));
        assert_eq!(folder_of(Path::new("/list.csv")), Path::new("/"));
    }

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("eyas-files-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = scratch("failed");
        let path = folder.join("a");
        replace(&path, b"old").unwrap();
        let failed = replace_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(failed.unwrap_err().is_out_of_space());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_living_ones_are_let_be() {
        let folder = scratch("abandoned");
        let path = folder.join("a");
        for name in [".a.123.tmp", ".a.b.123.tmp", ".ab.123.tmp", "a.123.tmp"] {
            fs::write(folder.join(name), b"half").unwrap();
        }
        replace_with(&path, |file| {
            remove_abandoned(&path);
            file.write_all(b"new")
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(!folder.join(".a.123.tmp").exists());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn reading_is_bounded_and_names_the_path() {
        let folder = scratch("bounded");
        let path = folder.join("a");
        replace(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let message = read(&path, 4).unwrap_err().to_string();
        assert!(
            message.contains("larger than 4 bytes") && message.contains("a`"),
            "{message}"
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
