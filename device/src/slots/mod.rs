//! The board's store: what is served, what is on trial, what is on its way.
//!
//! A board hangs on a pole and may lose its power at any instruction. So that it always
//! serves either what it served before or something newer that has proven itself,
//!
//! - files are named by their content and never changed ([`staging`]);
//! - a student and its gallery make a *generation*; which one serves is one small record,
//!   [`mod@pointer`], and writing it is the only switch;
//! - nothing is parsed before its length, hash and signature hold ([`install`]), nothing
//!   goes live before a child process with limits has run it ([`trial`]), and nothing stays
//!   before it has answered: until then it is on trial, for at most [`MAX_STARTS`] starts;
//! - what is not needed any more is removed only once the pointer is safe on the disk and
//!   nobody reads it ([`serving`]).
//!
//! A file goes through these states: *staged* (here, in part or whole), *verified* (within
//! [`Slots::install`]), *on trial* (the pointer names it, starts are counted), *confirmed*.
//!
//! ```text
//! settings.json      trusted keys and limits, and a copy; a store without them takes nothing
//! pointer-a, -b      what serves, written in turn
//! generations/N      what was confirmed, for the case that both pointers are lost
//! files/HASH         bundles and galleries of generations
//! signatures/HASH    who vouches for them
//! staged/HASH...     files on their way, and what deltas led to
//! lock               held by whoever changes the pointer
//! ```
//!
//! Every operation on the disk goes through [`fs::Fs`], so that tests can cut the power
//! between any two of them. Nothing here knows how files arrive.

pub mod delta;
pub mod fs;
pub mod install;
pub mod pointer;
pub mod serving;
pub mod staging;
pub mod trial;

mod error;
mod settings;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::signature::{Detached, MAX_TEXT_BYTES};

pub use delta::Applied;
pub use error::{Role, SlotsError};
pub use fs::{Disk, Fs};
pub use install::{Choice, Installed};
pub use pointer::{Generation, OnTrial, Pointer, Refusal};
pub use serving::{MAX_STARTS, Opened, Serving};
pub use settings::Settings;
pub use staging::{StagedFile, Staging};

/// Twice, because a store without settings takes no more updates.
const SETTINGS: [&str; 2] = ["settings.json", "settings-copy.json"];
const FILES: &str = "files";
const SIGNATURES: &str = "signatures";
const LOCK: &str = "lock";

const MAX_SETTINGS_BYTES: u64 = 64 << 10;

/// A board's store in one folder. Opening it changes nothing; several processes may.
pub struct Slots<F: Fs = Disk> {
    fs: F,
    root: PathBuf,
    /// Or what is wrong with them.
    settings: Result<Settings, String>,
}

impl<F: Fs> Slots<F> {
    /// Sets up a store in a folder, which is created if there is none. What an interrupted
    /// setup left behind is taken over.
    ///
    /// # Errors
    /// If it is set up already, or the system refuses.
    pub fn init(fs: F, root: &Path, settings: Settings) -> Result<Self, SlotsError> {
        let [path, copy] = SETTINGS.map(|name| root.join(name));
        if fs.len(&path).is_ok() {
            let path = root.to_owned();
            return Err(SlotsError::AlreadySetUp { path });
        }
        let create = |folder: &Path| {
            let created = fs.create_folder(folder);
            created.map_err(SlotsError::because("create folder", folder))
        };
        create(root)?;
        for name in [FILES, SIGNATURES, staging::STAGED, pointer::GENERATIONS] {
            create(&root.join(name))?;
        }
        let json = settings.to_json();
        let slots = Self {
            fs,
            root: root.to_owned(),
            settings: Ok(settings),
        };
        let mut empty = Pointer {
            next_number: 1,
            ..Pointer::default()
        };
        // Twice: both records are there from now on, and no later write needs the folder.
        empty.write(&slots.fs, root)?;
        empty.write(&slots.fs, root)?;
        // Last, because a store is set up once these files are there.
        slots.replace(&copy, &json)?;
        slots.replace(&path, &json)?;
        if let Some(parent) = root.parent().filter(|path| !path.as_os_str().is_empty()) {
            let synced = slots.fs.sync_folder(parent);
            synced.map_err(SlotsError::because("sync", parent))?;
        }
        Ok(slots)
    }

    /// Opens a store that was set up.
    ///
    /// A store whose settings are damaged still serves what it has; it takes no files,
    /// because it has forgotten whose.
    ///
    /// # Errors
    /// If it was not set up.
    pub fn open(fs: F, root: &Path) -> Result<Self, SlotsError> {
        let slots = Self {
            settings: read_settings(&fs, root),
            fs,
            root: root.to_owned(),
        };
        let serves = || {
            slots
                .pointer()
                .is_ok_and(|p| p.generations().next().is_some())
        };
        if slots.settings.is_err() && !serves() {
            slots.settings()?;
        }
        Ok(slots)
    }

    /// Trusted keys and limits.
    ///
    /// # Errors
    /// [`SlotsError::NotSetUp`] if they are damaged.
    pub fn settings(&self) -> Result<&Settings, SlotsError> {
        self.settings.as_ref().map_err(|what| SlotsError::NotSetUp {
            path: self.root.clone(),
            what: what.clone(),
        })
    }

    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the store points at right now. Changes nothing and takes no lock.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn pointer(&self) -> Result<Pointer, SlotsError> {
        Pointer::read(&self.fs, &self.root)
    }

    /// Keeps the signature of a file, which may come before or after the file. It is
    /// checked when the file is installed.
    ///
    /// # Errors
    /// If it is no signature, or the system refuses.
    pub fn put_signature(&self, hash: Fingerprint, text: &str) -> Result<(), SlotsError> {
        Detached::read(text).map_err(|source| SlotsError::NoSignature { hash, source })?;
        let path = self.signature_path(hash);
        if self.fs.read(&path, MAX_TEXT_BYTES as u64).ok().as_deref() == Some(text.as_bytes()) {
            return Ok(());
        }
        self.replace(&path, text.as_bytes())
    }

    /// The signature of a file, if there is one.
    ///
    /// # Errors
    /// If it can not be read.
    pub fn signature_of(&self, hash: Fingerprint) -> Result<Option<String>, SlotsError> {
        let path = self.signature_path(hash);
        match self.fs.read(&path, MAX_TEXT_BYTES as u64) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(SlotsError::because("read", &path)(err)),
        }
    }

    /// Where a whole file lies, in use or staged.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn locate(&self, hash: Fingerprint) -> Result<Option<PathBuf>, SlotsError> {
        let places = [self.file_path(hash), self.staged_path(hash)];
        for path in places {
            match self.fs.len(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(SlotsError::because("read", &path)(err)),
            }
        }
        Ok(None)
    }

    /// Where a file of a generation lies.
    #[must_use]
    pub fn file_path(&self, hash: Fingerprint) -> PathBuf {
        self.root.join(FILES).join(hash.to_string())
    }

    fn staged_path(&self, hash: Fingerprint) -> PathBuf {
        staging::Names::of(&self.root, hash).whole
    }

    fn signature_path(&self, hash: Fingerprint) -> PathBuf {
        self.root.join(SIGNATURES).join(hash.to_string())
    }

    /// The lock of those who change the pointer.
    fn lock(&self, doing: &'static str) -> Result<F::Lock, SlotsError> {
        let path = self.root.join(LOCK);
        let lock = self.fs.try_lock(&path);
        let lock = lock.map_err(SlotsError::because("lock", &path))?;
        lock.ok_or(SlotsError::Busy { doing, path })
    }

    fn sync_folder(&self, name: &str) -> Result<(), SlotsError> {
        let path = self.root.join(name);
        let synced = self.fs.sync_folder(&path);
        synced.map_err(SlotsError::because("sync", &path))
    }

    /// A small file, whole or as it was.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), SlotsError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        // What a kill left there may be longer.
        self.remove_if_there(&temporary)?;
        let folder = eyas_shared::files::folder_of(path);
        let written = (|| {
            self.fs.write_at(&temporary, 0, bytes)?;
            self.fs.sync(&temporary)?;
            self.fs.rename(&temporary, path)?;
            self.fs.sync_folder(folder)
        })();
        if written.is_err() {
            // The reason is told; what is left of it is removed with the next one.
            let _ = self.fs.remove(&temporary);
        }
        written.map_err(SlotsError::because("write", path))
    }
}

/// The first of the copies that can be read; else what is wrong with the first.
fn read_settings<F: Fs>(fs: &F, root: &Path) -> Result<Settings, String> {
    let read = |name: &str| {
        let bytes = fs.read(&root.join(name), MAX_SETTINGS_BYTES);
        let bytes = bytes.map_err(|err| format!("`{name}` can not be read: {err}"))?;
        Settings::from_json(&bytes).map_err(|what| format!("`{name}` is damaged: {what}"))
    };
    let [first, copy] = SETTINGS.map(read);
    first.or_else(|what| copy.map_err(|_| what))
}
