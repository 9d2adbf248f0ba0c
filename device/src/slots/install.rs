//! From staged files to a generation on trial, in the order of trust.
//!
//! Length and hash; then the signature and its counter; only then is a byte interpreted, and
//! that in a child process with limits; then the files are moved to their place, and last
//! the pointer is written. Whatever fails on the way, the pointer is as it was, except that
//! it keeps the reason.

use eyas_shared::fingerprint::{ContentHasher, Fingerprint};
use eyas_shared::signature::{Check, Detached};

use super::fs::Fs;
use super::pointer::{Generation, OnTrial, Pointer};
use super::trial::{Trial, TrialReport};
use super::{FILES, Role, Slots, SlotsError, staging};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What is to be installed. The half that is not named stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The student's bundle.
    pub bundle: Option<Fingerprint>,
    /// The gallery.
    pub gallery: Option<Fingerprint>,
    /// Takes files whose counter is lower than what was confirmed. For people who stand
    /// before the board, never for what comes over a cable.
    pub allow_downgrade: bool,
}

/// What an installation came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Installed {
    /// The pair is served, or on trial, already.
    Already(Generation),
    /// The pair is on trial from now on, and has shown this in its child process.
    OnTrial(Generation, TrialReport),
}

impl<F: Fs> Slots<F> {
    /// Installs a bundle, a gallery or both: the pair is verified and tried, and then on
    /// trial until it is [confirmed](Slots::confirm).
    ///
    /// # Errors
    /// [`SlotsError`] says why not; what was served before is served still.
    pub fn install(&self, choice: &Choice, trial: &dyn Trial) -> Result<Installed, SlotsError> {
        let _lock = self.lock("installing")?;
        let mut pointer = Pointer::read_surely(&self.fs, &self.root)?;
        let outcome = self.install_locked(choice, trial, &mut pointer);
        if let Err(err) = &outcome
            && err.is_refusal()
        {
            let reason = crate::hints::chain_of(err);
            pointer.refuse(choice.bundle, choice.gallery, &reason);
            // The refusal itself is what matters; that it is not remembered is no news.
            let _ = pointer.write(&self.fs, &self.root);
        }
        outcome
    }

    fn install_locked(
        &self,
        choice: &Choice,
        trial: &dyn Trial,
        pointer: &mut Pointer,
    ) -> Result<Installed, SlotsError> {
        let current = pointer.confirmed.as_ref();
        let half = |named: Option<Fingerprint>, current: Option<Fingerprint>, role| {
            named.or(current).ok_or(SlotsError::NoPartner { role })
        };
        let bundle = half(choice.bundle, current.map(|g| g.bundle), Role::Bundle)?;
        let gallery = half(choice.gallery, current.map(|g| g.gallery), Role::Gallery)?;
        let verify = |role, hash| self.verify(role, hash, pointer, choice.allow_downgrade);
        let generation = Generation {
            number: pointer.next_number,
            bundle,
            gallery,
            bundle_counter: verify(Role::Bundle, bundle)?,
            gallery_counter: verify(Role::Gallery, gallery)?,
        };
        let serving = pointer.trial.as_ref().map(|trial| &trial.generation);
        let is_in_place = |hash| self.fs.len(&self.file_path(hash)).is_ok();
        if let Some(known) = serving.or(current)
            && (known.bundle, known.gallery) == (bundle, gallery)
            && is_in_place(bundle)
            && is_in_place(gallery)
        {
            return Ok(Installed::Already(known.clone()));
        }
        let bundle_path = self.find(Role::Bundle, bundle)?;
        let gallery_path = self.find(Role::Gallery, gallery)?;
        let report = trial.run(&bundle_path, &gallery_path);
        let report = report.inspect_err(|fault| self.forget_refused(choice, fault.blames()))?;
        self.move_into_place(&[bundle, gallery])?;
        pointer.next_number += 1;
        pointer.trial = Some(OnTrial {
            generation: generation.clone(),
            starts: 0,
        });
        pointer.refusal = None;
        pointer.write(&self.fs, &self.root)?;
        Ok(Installed::OnTrial(generation, report))
    }

    /// Where a file is that may be tried: one of this content whose signature holds, if
    /// signatures are needed. Its counter does not matter, because it is not to serve.
    ///
    /// # Errors
    /// [`SlotsError`] says why not.
    pub fn admit(&self, role: Role, hash: Fingerprint) -> Result<std::path::PathBuf, SlotsError> {
        let allow_downgrade = true;
        self.verify(role, hash, &Pointer::default(), allow_downgrade)?;
        self.find(role, hash)
    }

    pub(super) fn find(
        &self,
        role: Role,
        hash: Fingerprint,
    ) -> Result<std::path::PathBuf, SlotsError> {
        self.locate(hash)?.ok_or(SlotsError::Absent { role, hash })
    }

    /// Hash, signature and counter of a file; returns the counter.
    pub(super) fn verify(
        &self,
        role: Role,
        hash: Fingerprint,
        pointer: &Pointer,
        allow_downgrade: bool,
    ) -> Result<u64, SlotsError> {
        let path = self.find(role, hash)?;
        let untrusted = |source| SlotsError::Signature { role, hash, source };
        let settings = self.settings()?;
        let text = match settings.needs_signatures() {
            true => Some(
                self.signature_of(hash)?
                    .ok_or(SlotsError::Unsigned { role, hash })?,
            ),
            false => None,
        };
        let detached = text.as_deref().map(Detached::read).transpose();
        let detached = detached.map_err(untrusted)?;
        let check = detached
            .as_ref()
            .map(|detached| detached.check(&settings.keys));
        let mut check = check.transpose().map_err(untrusted)?;
        let found = self.read_through(&path, check.as_mut())?;
        if found != hash {
            // Bits have turned over. Such a file can never be opened again; without it the
            // same content can be sent again.
            self.forget(hash)?;
            self.remove_if_there(&self.file_path(hash))?;
            let expected = hash;
            return Err(SlotsError::OtherContent { expected, found });
        }
        let Some(check) = check else {
            return Ok(0);
        };
        let counter = check.finish().map_err(untrusted)?.counter;
        let floor = match role {
            Role::Bundle => pointer.bundle_floor,
            Role::Gallery | Role::Delta => pointer.gallery_floor,
        };
        if counter < floor && !allow_downgrade {
            let found = counter;
            return Err(SlotsError::Downgrade { role, found, floor });
        }
        Ok(counter)
    }

    /// Reads a file once; gives its hash, and its bytes to the check of its signature.
    pub(super) fn read_through(
        &self,
        path: &std::path::Path,
        mut check: Option<&mut Check<'_>>,
    ) -> Result<Fingerprint, SlotsError> {
        let mut hasher = ContentHasher::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut at = 0;
        loop {
            let n_read = self.fs.read_at(path, at, &mut buffer);
            let n_read = n_read.map_err(SlotsError::because("read", path))?;
            if n_read == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..n_read]);
            if let Some(check) = check.as_deref_mut() {
                check.update(&buffer[..n_read]);
            }
            at += n_read as u64;
        }
    }

    /// Drops staged files that would be refused again. One that is refused only beside its
    /// partner stays.
    fn forget_refused(&self, choice: &Choice, blamed: Option<Role>) {
        let hash = match blamed {
            Some(Role::Bundle) => choice.bundle,
            Some(Role::Gallery) => choice.gallery,
            Some(Role::Delta) | None => None,
        };
        if let Some(hash) = hash {
            // It takes room, no more.
            let _ = self.forget(hash);
        }
    }

    /// Moves staged files among those of generations, safe from a power cut.
    fn move_into_place(&self, hashes: &[Fingerprint]) -> Result<(), SlotsError> {
        for hash in hashes {
            let (from, to) = (self.staged_path(*hash), self.file_path(*hash));
            if self.fs.len(&to).is_ok() {
                continue;
            }
            let renamed = self.fs.rename(&from, &to);
            renamed.map_err(SlotsError::because("rename", &from))?;
        }
        // Also if all lay there: nobody knows whether the names were synced before a cut.
        self.sync_folder(FILES)?;
        self.sync_folder(staging::STAGED)
    }
}
