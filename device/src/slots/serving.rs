//! What serves: starts are counted, trials confirmed or rolled back, leftovers removed.

use std::fs::File;
use std::io;
use std::path::Path;

use eyas_shared::files::FileError;
use eyas_shared::fingerprint::Fingerprint;

use super::delta::is_leftover;
use super::fs::{self, Disk, Fs};
use super::pointer::{GENERATIONS, Generation, Pointer, keep_confirmed, record_name};
use super::staging::{Names, STAGED};
use super::{FILES, SIGNATURES, Slots, SlotsError};
use crate::store::{GalleryCheck, Store, StoreError};

/// How often a generation on trial is started before it is rolled back.
pub const MAX_STARTS: u32 = 3;

/// The generation that is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Which.
    pub generation: Generation,
    /// Which start of a trial this is, from 1; none if the generation is confirmed.
    pub trial_start: Option<u32>,
}

impl Serving {
    fn confirmed(pointer: &Pointer) -> Option<Self> {
        Some(Self {
            generation: pointer.confirmed.clone()?,
            trial_start: None,
        })
    }
}

impl<F: Fs> Slots<F> {
    /// What a process that serves has to serve, to be asked once at each of its starts and
    /// whenever the [pointer](Slots::pointer) names another generation.
    ///
    /// The start of a trial is counted on the disk before this returns; after
    /// [`MAX_STARTS`] of them the trial is rolled back. A start that can not be counted is
    /// none: then the confirmed generation serves.
    ///
    /// # Errors
    /// If nothing is installed, or the pointer can not be read.
    pub fn start(&self) -> Result<Serving, SlotsError> {
        let pointer = Pointer::read(&self.fs, &self.root)?;
        if pointer.trial.is_some() {
            match self.start_trial() {
                Ok(Some(serving)) => return Ok(serving),
                Ok(None) => {}
                Err(err) if pointer.confirmed.is_none() => return Err(err),
                // Whoever installs right now has the lock, or the disk takes no writes.
                Err(_) => return self.confirmed(&pointer),
            }
        }
        self.confirmed(&Pointer::read(&self.fs, &self.root)?)
    }

    fn confirmed(&self, pointer: &Pointer) -> Result<Serving, SlotsError> {
        Serving::confirmed(pointer).ok_or_else(|| SlotsError::Empty {
            path: self.root.clone(),
        })
    }

    /// Counts the start of the trial, or rolls it back; none if there is no trial any more.
    fn start_trial(&self) -> Result<Option<Serving>, SlotsError> {
        let _lock = self.lock("installing")?;
        let mut pointer = Pointer::read_surely(&self.fs, &self.root)?;
        let Some(trial) = &mut pointer.trial else {
            return Ok(None);
        };
        if trial.starts >= MAX_STARTS {
            let reason = format!("it was started {} times and not confirmed", trial.starts);
            self.end_trial(pointer, &reason)?;
            return Ok(None);
        }
        trial.starts += 1;
        let serving = Serving {
            generation: trial.generation.clone(),
            trial_start: Some(trial.starts),
        };
        pointer.write(&self.fs, &self.root)?;
        Ok(Some(serving))
    }

    /// Keeps the generation on trial for good: it has answered.
    ///
    /// # Errors
    /// If another generation or none is on trial, or the disk refuses; then it is on trial
    /// still.
    pub fn confirm(&self, number: u64) -> Result<(), SlotsError> {
        let _lock = self.lock("installing")?;
        let mut pointer = Pointer::read_surely(&self.fs, &self.root)?;
        let generation = match pointer.trial.take() {
            Some(trial) if trial.generation.number == number => trial.generation,
            other => {
                let found = match (other, &pointer.confirmed) {
                    (Some(trial), _) => format!("generation {} is", trial.generation.number),
                    (None, Some(known)) if known.number == number => return Ok(()),
                    (None, Some(known)) => format!("generation {} serves", known.number),
                    (None, None) => "nothing is installed".to_owned(),
                };
                let asked = number;
                return Err(SlotsError::NotOnTrial { asked, found });
            }
        };
        keep_confirmed(&self.fs, &self.root, &generation)?;
        pointer.bundle_floor = pointer.bundle_floor.max(generation.bundle_counter);
        pointer.gallery_floor = pointer.gallery_floor.max(generation.gallery_counter);
        pointer.previous = pointer.confirmed.replace(generation);
        pointer.write(&self.fs, &self.root)?;
        // What is left over costs room, and is looked at again the next time.
        let _ = self.remove_leftovers(&pointer);
        Ok(())
    }

    /// Goes back: from a trial to what is confirmed, else to the generation before.
    ///
    /// # Errors
    /// If there is nothing to go back to, or the disk refuses.
    pub fn rollback(&self, reason: &str) -> Result<Option<Generation>, SlotsError> {
        let _lock = self.lock("installing")?;
        let pointer = Pointer::read_surely(&self.fs, &self.root)?;
        if pointer.trial.is_some() {
            return Ok(self.end_trial(pointer, reason)?.confirmed);
        }
        Ok(self.go_back(pointer, reason, true)?.confirmed)
    }

    fn end_trial(&self, mut pointer: Pointer, reason: &str) -> Result<Pointer, SlotsError> {
        if let Some(trial) = pointer.trial.take() {
            let generation = trial.generation;
            pointer.refuse(Some(generation.bundle), Some(generation.gallery), reason);
        }
        pointer.write(&self.fs, &self.root)?;
        let _ = self.remove_leftovers(&pointer);
        Ok(pointer)
    }

    /// To the generation before, under a new number, so that the newest number is always
    /// the one that holds. What is left may be gone back to, if it is `kept`.
    fn go_back(
        &self,
        mut pointer: Pointer,
        reason: &str,
        kept: bool,
    ) -> Result<Pointer, SlotsError> {
        let before = pointer.previous.take().ok_or(SlotsError::NothingBefore)?;
        let generation = Generation {
            number: pointer.next_number,
            ..before
        };
        pointer.next_number += 1;
        keep_confirmed(&self.fs, &self.root, &generation)?;
        let left = pointer.confirmed.replace(generation);
        if let Some(left) = &left {
            pointer.refuse(Some(left.bundle), Some(left.gallery), reason);
        }
        pointer.previous = left.filter(|_| kept);
        pointer.write(&self.fs, &self.root)?;
        let _ = self.remove_leftovers(&pointer);
        Ok(pointer)
    }

    /// Removes files that no generation needs and nobody reads. Staged files stay.
    ///
    /// # Errors
    /// If the store is being changed, or the system refuses.
    pub fn clean(&self) -> Result<usize, SlotsError> {
        let _lock = self.lock("installing")?;
        let pointer = Pointer::read_surely(&self.fs, &self.root)?;
        self.remove_leftovers(&pointer)
    }

    /// Only after `pointer` is known to be on the disk.
    fn remove_leftovers(&self, pointer: &Pointer) -> Result<usize, SlotsError> {
        let needed: Vec<Fingerprint> = pointer
            .generations()
            .flat_map(|generation| [generation.bundle, generation.gallery])
            .collect();
        let mut n_removed = 0;
        for folder in [FILES, SIGNATURES] {
            let folder_path = self.root.join(folder);
            let names = self.fs.list(&folder_path);
            for name in names.map_err(SlotsError::because("read", &folder_path))? {
                let path = folder_path.join(&name);
                let is_needed = Fingerprint::from_hex(&name)
                    .is_some_and(|hash| needed.contains(&hash) || self.is_expected(folder, hash));
                // Whoever has it open may keep it, on a disk that removes at once.
                let is_read = || self.fs.is_shared(&path).unwrap_or(true);
                if !is_needed && !is_read() {
                    self.remove_if_there(&path)?;
                    n_removed += 1;
                }
            }
        }
        n_removed += self.remove_orphans()?;
        let kept = [&pointer.confirmed, &pointer.previous]
            .into_iter()
            .flatten();
        let kept: Vec<String> = kept.map(|known| record_name(known.number)).collect();
        let folder = self.root.join(GENERATIONS);
        let names = self.fs.list(&folder);
        for name in names.map_err(SlotsError::because("read", &folder))? {
            if !kept.contains(&name) {
                self.remove_if_there(&folder.join(name))?;
            }
        }
        self.sync_folder(GENERATIONS)?;
        Ok(n_removed)
    }

    /// Removes what a cut left beside staged files that are whole, in place, or gone.
    fn remove_orphans(&self) -> Result<usize, SlotsError> {
        let folder = self.root.join(STAGED);
        let names = self.fs.list(&folder);
        let names = names.map_err(SlotsError::because("read", &folder))?;
        let mut n_removed = 0;
        // Whoever applies a delta has the lock that this is called with.
        for name in names.iter().filter(|name| is_leftover(name)) {
            self.remove_if_there(&folder.join(name))?;
            n_removed += 1;
        }
        let hash_of = |name: &String| Fingerprint::from_hex(name.split('.').next()?);
        let mut hashes: Vec<Fingerprint> = names.iter().filter_map(hash_of).collect();
        hashes.dedup();
        for hash in hashes {
            let at = Names::of(&self.root, hash);
            let mut leftovers = Vec::new();
            let is_there = |path: &Path| self.fs.len(path).is_ok();
            if is_there(&self.file_path(hash)) {
                leftovers.extend([&at.whole, &at.part]);
            } else if is_there(&at.whole) {
                leftovers.push(&at.part);
            } else if is_there(&at.part) {
                continue;
            }
            leftovers.extend([&at.log, &at.lock]);
            leftovers.retain(|path| is_there(path));
            // Whoever receives the file has the lock.
            if leftovers.is_empty() || self.lock_staged(hash).is_err() {
                continue;
            }
            for path in leftovers {
                self.remove_if_there(path)?;
                n_removed += 1;
            }
            self.remove_if_there(&at.lock)?;
        }
        Ok(n_removed)
    }

    /// A signature may lie here before or while its file is on its way.
    fn is_expected(&self, folder: &str, hash: Fingerprint) -> bool {
        folder == SIGNATURES
            && self
                .staged()
                .map_or(true, |staged| staged.iter().any(|file| file.hash == hash))
    }
}

/// A generation that is open, and whose files nobody removes meanwhile.
pub struct Opened {
    /// Which.
    pub serving: Serving,
    /// Its student and gallery.
    pub store: Store,
    _shared: [File; 2],
}

impl Slots<Disk> {
    /// Opens what is to be served, as [`start`](Self::start) says. A trial that can not be
    /// opened is rolled back at once; so is a confirmed generation whose files are damaged.
    ///
    /// # Errors
    /// If nothing that is installed can be opened.
    pub fn open_to_serve(&self) -> Result<Opened, SlotsError> {
        loop {
            let serving = self.start()?;
            // Once for all answers, so that a card that went bad is noticed and rolled back.
            let err = match self.open_generation(serving.clone(), GalleryCheck::Checksums) {
                Ok(opened) => return Ok(opened),
                Err(err) => err,
            };
            if !self.still_names(&serving)? {
                // Replaced and removed between the two looks.
                continue;
            }
            if !is_of_content(&err) {
                return Err(err.into());
            }
            let reason = format!("it can not be opened: {}", crate::hints::chain_of(&err));
            if self.give_up(&serving, &reason).is_err() {
                return Err(err.into());
            }
        }
    }

    /// Opens what is confirmed, or else on trial, without changing the store: for a single
    /// question.
    ///
    /// # Errors
    /// If nothing is installed, or it can not be opened.
    pub fn open_to_read(&self) -> Result<Opened, SlotsError> {
        loop {
            let pointer = self.pointer()?;
            let on_trial = pointer.trial.clone().map(|trial| Serving {
                generation: trial.generation,
                trial_start: Some(trial.starts),
            });
            let serving = match on_trial {
                Some(on_trial) if pointer.confirmed.is_none() => on_trial,
                _ => self.confirmed(&pointer)?,
            };
            match self.open_generation(serving.clone(), GalleryCheck::AtInstall) {
                Ok(opened) => return Ok(opened),
                Err(err) if self.still_names(&serving)? => return Err(err.into()),
                Err(_) => {}
            }
        }
    }

    fn open_generation(&self, serving: Serving, check: GalleryCheck) -> Result<Opened, StoreError> {
        let generation = &serving.generation;
        let bundle = self.file_path(generation.bundle);
        let gallery = self.file_path(generation.gallery);
        let share = |path: &Path| fs::share(path).map_err(FileError::because("read", path));
        Ok(Opened {
            _shared: [share(&bundle)?, share(&gallery)?],
            store: Store::open(&bundle, &gallery, check)?,
            serving,
        })
    }

    fn still_names(&self, serving: &Serving) -> Result<bool, SlotsError> {
        let pointer = self.pointer()?;
        let number = serving.generation.number;
        Ok(pointer.generations().any(|known| known.number == number))
    }

    /// Rolls back what can not be opened.
    fn give_up(&self, serving: &Serving, reason: &str) -> Result<(), SlotsError> {
        let _lock = self.lock("installing")?;
        let pointer = Pointer::read_surely(&self.fs, &self.root)?;
        let number = serving.generation.number;
        if pointer
            .trial
            .as_ref()
            .is_some_and(|trial| trial.generation.number == number)
        {
            self.end_trial(pointer, reason)?;
        } else if pointer
            .confirmed
            .as_ref()
            .is_some_and(|known| known.number == number)
        {
            self.go_back(pointer, reason, false)?;
        }
        Ok(())
    }
}

/// Whether an error would come again with every start: damage, or files that are gone.
fn is_of_content(err: &StoreError) -> bool {
    /// The disk can not read its own sectors.
    const EIO: i32 = 5;
    match err {
        StoreError::File(err) => {
            err.source.kind() == io::ErrorKind::NotFound || err.source.raw_os_error() == Some(EIO)
        }
        _ => true,
    }
}
