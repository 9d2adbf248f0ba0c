//! Galleries that come as a delta to one that is here.
//!
//! A delta is a file like any other until [`apply_delta`](Slots::apply_delta) makes a staged
//! gallery of it, which is then installed as if it had been sent whole: with its own hash,
//! its own signature, its own trial. So nobody has to trust that the two files that it was
//! made of go together.

use std::path::PathBuf;

use eyas_shared::fingerprint::Fingerprint;

use super::fs::{Disk, Fs};
use super::pointer::Pointer;
use super::staging::{Names, STAGED};
use super::{Role, Slots, SlotsError};
use crate::update::{self, UpdateError};

/// What a delta led to, until it has its name: its hash is known last.
const UPDATED: &str = "updated";

/// A gallery that a delta led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The gallery, staged; or the one that the delta was to be applied to, if that holds
    /// what the delta leads to.
    pub gallery: Fingerprint,
    /// Its length.
    pub bytes: u64,
}

impl Slots<Disk> {
    /// Makes a staged gallery of the gallery `base` and a staged delta, which is not needed
    /// any more then. Where files need signatures, the delta's holds before it is read, and
    /// the gallery's before it is installed.
    ///
    /// # Errors
    /// If the delta is not trusted, damaged, or begins from another gallery; then it is
    /// dropped. If room is short or the system refuses.
    pub fn apply_delta(
        &self,
        delta: Fingerprint,
        base: Fingerprint,
    ) -> Result<Applied, SlotsError> {
        let _lock = self.lock("installing")?;
        let pointer = Pointer::read_surely(&self.fs, &self.root)?;
        let outcome = self.apply_locked(delta, base, &pointer);
        if outcome
            .as_ref()
            .map_or_else(SlotsError::is_refusal, |_| true)
        {
            // It takes room, no more.
            let _ = self.forget(delta);
        }
        outcome
    }

    fn apply_locked(
        &self,
        delta: Fingerprint,
        base: Fingerprint,
        pointer: &Pointer,
    ) -> Result<Applied, SlotsError> {
        self.verify(Role::Delta, delta, pointer, false)?;
        let delta_path = self.find(Role::Delta, delta)?;
        let base_path = self.find(Role::Gallery, base)?;
        let length = |path: &PathBuf| {
            let bytes = self.fs.len(path);
            bytes.map_err(SlotsError::because("read", path))
        };
        let before = length(&base_path)?;
        self.check_space(before.saturating_add(length(&delta_path)?))?;
        let out = self.root.join(STAGED).join(UPDATED);
        match update::apply(&base_path, &delta_path, &out, false) {
            Ok(_) => {}
            Err(err) if err.is_already_applied() => {
                return Ok(Applied {
                    gallery: base,
                    bytes: before,
                });
            }
            Err(err) => return Err(err.into()),
        }
        let (gallery, bytes) = (self.read_through(&out, None)?, length(&out)?);
        let limit = self.settings()?.max_file_bytes;
        if bytes > limit {
            self.remove_if_there(&out)?;
            return Err(SlotsError::Length { bytes, limit });
        }
        if self.locate(gallery)?.is_some() {
            self.remove_if_there(&out)?;
        } else {
            let whole = Names::of(&self.root, gallery).whole;
            let renamed = self.fs.rename(&out, &whole);
            renamed.map_err(SlotsError::because("rename", &out))?;
            self.sync_folder(STAGED)?;
        }
        Ok(Applied { gallery, bytes })
    }
}

/// Whether a name in the folder of staged files is what somebody who was killed while
/// applying a delta left behind.
pub(super) fn is_leftover(name: &str) -> bool {
    name == UPDATED || name.starts_with(&format!(".{UPDATED}."))
}

impl From<UpdateError> for SlotsError {
    fn from(err: UpdateError) -> Self {
        match err {
            // Nothing is wrong with the delta.
            UpdateError::File(err) => Self::Io {
                action: err.action,
                path: err.path,
                source: err.source,
            },
            err => Self::Update(err),
        }
    }
}
