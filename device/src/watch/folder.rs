//! Photographs that appear in a folder.
//!
//! The folder is listed again and again, which works on every file system, also on one that
//! another machine writes to. A file is taken when it looked the same in two looks: a file
//! that is renamed into the folder is whole at once, one that is copied into it is not. The
//! clock of a board is often wrong, so times of files are only compared for being the same.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most files that are kept in mind. Of a fuller folder the rest is looked at once files of
/// it are gone.
pub const MAX_FILES: usize = 1 << 16;

/// How a file looked: another look means other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    bytes: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Look {
    fn of(facts: &Metadata) -> Self {
        Self {
            bytes: facts.len(),
            inode: facts.ino(),
            changed: (facts.mtime(), facts.mtime_nsec()),
        }
    }
}

struct Known {
    look: Look,
    is_taken: bool,
    /// Number of the last look in which it was there.
    seen: u64,
}

/// A folder that is watched.
pub struct Folder {
    path: PathBuf,
    wanted: fn(&Path) -> bool,
    known: HashMap<PathBuf, Known>,
    n_looks: u64,
    is_full: bool,
}

impl Folder {
    /// Watches the files of a folder, not of those below, that are `wanted` by their path.
    #[must_use]
    pub fn new(path: PathBuf, wanted: fn(&Path) -> bool) -> Self {
        Self {
            path,
            wanted,
            known: HashMap::new(),
            n_looks: 0,
            is_full: false,
        }
    }

    /// Takes the files that are there now as known.
    ///
    /// # Errors
    /// If the folder can not be listed.
    pub fn skip_present(&mut self) -> io::Result<()> {
        self.look()?;
        self.known
            .values_mut()
            .for_each(|known| known.is_taken = true);
        Ok(())
    }

    /// Looks at the folder once; gives the files that are new, or new again, and whole, by
    /// name.
    ///
    /// # Errors
    /// If the folder can not be listed.
    pub fn look(&mut self) -> io::Result<Vec<PathBuf>> {
        self.n_looks += 1;
        self.is_full = false;
        let mut whole = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if !(self.wanted)(&path) {
                continue;
            }
            // One that is gone again is none.
            let Ok(facts) = fs::metadata(&path) else {
                continue;
            };
            if facts.is_file() && self.is_new_and_whole(&path, Look::of(&facts)) {
                whole.push(path);
            }
        }
        let n_looks = self.n_looks;
        self.known.retain(|_, known| known.seen == n_looks);
        whole.sort();
        Ok(whole)
    }

    /// Whether the last look found more files than are kept in mind.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    fn is_new_and_whole(&mut self, path: &Path, look: Look) -> bool {
        let (seen, n_known) = (self.n_looks, self.known.len());
        match self.known.get_mut(path) {
            Some(known) => {
                let is_same = known.look == look;
                let is_whole = is_same && !known.is_taken && look.bytes > 0;
                known.is_taken = (is_same && known.is_taken) || is_whole;
                (known.look, known.seen) = (look, seen);
                is_whole
            }
            None if n_known >= MAX_FILES => {
                self.is_full = true;
                false
            }
            None => {
                let known = Known {
                    look,
                    is_taken: false,
                    seen,
                };
                self.known.insert(path.to_owned(), known);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Watched {
        root: tempfile::TempDir,
        folder: Folder,
    }

    impl Watched {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let is_image = |path: &Path| path.extension().is_some_and(|ending| ending == "jpg");
            let folder = Folder::new(root.path().to_owned(), is_image);
            Self { root, folder }
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.root.path().join(name), bytes).unwrap();
        }

        fn look(&mut self) -> Vec<String> {
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            self.folder.look().unwrap().into_iter().map(name).collect()
        }
    }

    #[test]
    fn a_file_is_taken_once_when_it_has_stopped_growing() {
        let mut watched = Watched::new();
        watched.write("a.jpg", b"begin");
        assert_eq!(watched.look(), [""; 0]);
        watched.write("a.jpg", b"begin and more");
        assert_eq!(watched.look(), [""; 0]);
        assert_eq!(watched.look(), ["a.jpg"]);
        assert_eq!(watched.look(), [""; 0]);
        watched.write("a.jpg", b"another one");
        watched.look();
        assert_eq!(watched.look(), ["a.jpg"]);
    }

    #[test]
    fn a_file_of_the_same_name_that_is_renamed_over_it_is_new() {
        let mut watched = Watched::new();
        watched.write("a.jpg", b"one");
        watched.folder.skip_present().unwrap();
        watched.write("a.part", b"two");
        assert_eq!(watched.look(), [""; 0]);
        let at = |name| watched.root.path().join(name);
        fs::rename(at("a.part"), at("a.jpg")).unwrap();
        watched.look();
        assert_eq!(watched.look(), ["a.jpg"]);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_is_empty_or_a_folder_waits() {
        let mut watched = Watched::new();
        watched.write("empty.jpg", b"");
        fs::create_dir(watched.root.path().join("deep.jpg")).unwrap();
        for _ in 0..3 {
            assert_eq!(watched.look(), [""; 0]);
        }
        fs::remove_file(watched.root.path().join("empty.jpg")).unwrap();
        watched.look();
        assert!(watched.folder.known.is_empty());
        fs::remove_dir_all(watched.root.path()).unwrap();
        assert!(watched.folder.look().is_err());
    }
}
