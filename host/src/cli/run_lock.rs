//! One run at a time in one directory.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};
use eyas_shared::files;

/// Holds a run directory until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the directory, which is made if there is none.
    pub(super) fn take(run: &Path) -> anyhow::Result<Self> {
        files::create_folder(run)?;
        let path = run.join(crate::runs::LOCK_FILE);
        // The file stays: what counts is whether a process holds it.
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = opened.with_context(|| format!("can not open `{}`", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!(
                "another process trains in `{}` (it holds `{}`): wait for it or take another folder",
                run.display(),
                path.display()
            ),
            Err(TryLockError::Error(err)) => {
                Err(err).with_context(|| format!("can not lock `{}`", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_in_a_directory_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let first = RunLock::take(&run).unwrap();
        let message = RunLock::take(&run).unwrap_err().to_string();
        assert!(message.contains("another process trains in"), "{message}");
        assert!(message.contains("lock"), "{message}");
        drop(first);
        RunLock::take(&run).unwrap();
    }
}
