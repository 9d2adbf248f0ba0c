//! Brings gallery files up to date: applies deltas, drops removed rows.
//!
//! A new file takes the old one's name only when it is whole and on disk. Whoever opened the
//! old one keeps it until the file is closed. What an update that was killed left behind, the
//! next one removes.

use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::gallery::delta::{Delta, DeltaError};
use eyas_shared::gallery::{self, Gallery, GalleryError, GallerySource, Picked, Plan, Records};
use thiserror::Error;

use crate::store::{MappedFile, StoreError};

/// Once more than one row in so many would be a removed one, all of them are dropped.
const ROWS_OF_A_REMOVED_ONE: usize = 4;

/// Why a gallery can not be brought up to date. It is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// A file can not be read, or is no gallery.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The delta is damaged, or does not belong to the gallery.
    #[error("can not apply `{}` to `{}`", delta.display(), gallery.display())]
    Delta {
        /// Where the delta is.
        delta: PathBuf,
        /// Where the gallery is.
        gallery: PathBuf,
        /// Why.
        source: DeltaError,
    },
    /// The new file can not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl UpdateError {
    /// Whether nothing is wrong but that the gallery is what the delta leads to.
    #[must_use]
    pub fn is_already_applied(&self) -> bool {
        let Self::Delta { source, .. } = self else {
            return false;
        };
        matches!(source, DeltaError::AlreadyApplied { .. })
    }
}

/// A gallery file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// What it holds.
    pub content: Option<Fingerprint>,
    /// Rows, those that are removed included.
    pub n_rows: u32,
    /// Rows that are removed.
    pub n_removed: u32,
    /// Bytes of the file that it was made of.
    pub bytes_before: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Applies a delta to a gallery and writes what it becomes to `out`, which may be the
/// gallery itself. Removed rows stay, unless `compact` is set or they would be more than a
/// quarter of all.
///
/// # Errors
/// If the delta is damaged, was already applied or begins from another content, or if a
/// file can not be read or written. What `out` was, it then still is.
pub fn apply(
    gallery_path: &Path,
    delta_path: &Path,
    out: &Path,
    compact: bool,
) -> Result<Updated, UpdateError> {
    let file = MappedFile::open(gallery_path)?;
    let base = file.gallery()?;
    let delta_file = MappedFile::open(delta_path)?;
    let fault = |source| UpdateError::Delta {
        delta: delta_path.to_owned(),
        gallery: gallery_path.to_owned(),
        source,
    };
    let delta = Delta::read(delta_file.bytes()).map_err(fault)?;
    let mut applied = delta.apply(&base, compact).map_err(fault)?;
    if applied.n_removed() * ROWS_OF_A_REMOVED_ONE > applied.n_rows() {
        applied = delta.apply(&base, true).map_err(fault)?;
    }
    write(&file, &applied.plan().map_err(fault)?, out)
}

/// Writes a gallery without its removed rows to `out`, which may be the gallery itself. Its
/// content is the same, and its version the newest.
///
/// # Errors
/// If a file can not be read or written, or every row was removed. What `out` was, it then
/// still is.
pub fn compact(gallery_path: &Path, out: &Path) -> Result<Updated, UpdateError> {
    let file = MappedFile::open(gallery_path)?;
    let gallery = file.gallery()?;
    let fault = |source: GalleryError| {
        UpdateError::Store(StoreError::Gallery {
            path: gallery_path.to_owned(),
            source,
        })
    };
    let records = Picked::of(vec![&gallery], |_, _| true);
    let plan = Plan::new(&GallerySource::of(&gallery), &records).map_err(fault)?;
    let (said, found) = (gallery.header.content, plan.header().content);
    if let (Some(said), Some(found)) = (said, found)
        && said != found
    {
        let (expected, found) = (said.short(), found.short());
        return Err(fault(GalleryError::OtherContent { expected, found }));
    }
    write(&file, &plan, out)
}

/// Whether [`compact`] would change a gallery's file.
#[must_use]
pub fn is_compact(gallery: &Gallery<'_>) -> bool {
    gallery.header.n_removed == 0 && gallery.version() == gallery::written_version(gallery.codes())
}

fn write(
    file: &MappedFile,
    plan: &Plan<'_, impl Records>,
    out: &Path,
) -> Result<Updated, UpdateError> {
    files::remove_abandoned(out);
    let mut bytes = 0;
    files::replace_with(out, |written| {
        plan.write(written)?;
        bytes = written.metadata()?.len();
        Ok(())
    })?;
    let header = plan.header();
    Ok(Updated {
        content: header.content,
        n_rows: header.n_rows,
        n_removed: header.n_removed,
        bytes_before: file.bytes().len() as u64,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use eyas_shared::gallery::{Codes, delta};

    use super::*;
    use crate::test_data::{embeddings, gallery_of};

    /// Galleries of the first and of the last rows of the same twelve.
    fn galleries(first: u8, last: u8) -> [Vec<u8>; 2] {
        let rows = embeddings(12, 6, 1);
        let ids: Vec<u8> = (0..12).collect();
        let all = gallery_of(&rows, &ids, Codes::INT8_F16);
        let all = Gallery::open(&all).unwrap();
        let source = GallerySource::of(&all);
        [(0, first), (last, 12)].map(|(from, to)| {
            let range = u32::from(from)..u32::from(to);
            let records = Picked::of(vec![&all], |_, row| range.contains(&row));
            Plan::new(&source, &records).unwrap().to_bytes()
        })
    }

    fn open(bytes: &[u8]) -> Gallery<'_> {
        let gallery = Gallery::open(bytes).unwrap();
        gallery.verify().unwrap();
        gallery
    }

    #[test]
    fn many_removed_rows_are_dropped_with_the_delta_and_few_stay() {
        let folder = tempfile::tempdir().unwrap();
        let [path, delta_path, out] = ["a", "d", "out"].map(|name| folder.path().join(name));
        for (from, n_removed) in [(2, 2), (9, 0)] {
            let [old, new] = galleries(10, from);
            fs::write(&path, &old).unwrap();
            let delta = delta::between(&open(&old), &open(&new)).unwrap();
            fs::write(&delta_path, delta).unwrap();
            let updated = apply(&path, &delta_path, &out, false).unwrap();
            assert_eq!(updated.n_removed, n_removed);
            let written = fs::read(&out).unwrap();
            assert_eq!(open(&written).content(), open(&new).content());
            assert_eq!(updated.bytes, written.len() as u64);
            // In place, and dropped afterwards.
            apply(&path, &delta_path, &path, false).unwrap();
            let compacted = compact(&path, &path).unwrap();
            assert_eq!(compacted.n_removed, 0);
            let written = fs::read(&path).unwrap();
            assert!(is_compact(&open(&written)));
            assert_eq!(open(&written).content(), open(&new).content());
        }
    }

    #[test]
    fn a_delta_that_does_not_fit_leaves_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let [path, delta_path] = ["a", "d"].map(|name| folder.path().join(name));
        let [old, new] = galleries(10, 2);
        let delta = delta::between(&open(&old), &open(&new)).unwrap();
        fs::write(&path, &new).unwrap();
        fs::write(&delta_path, &delta).unwrap();
        let again = apply(&path, &delta_path, &path, false).unwrap_err();
        assert!(crate::hints::chain_of(&again).contains("already applied"));
        fs::write(&delta_path, &delta[..delta.len() / 2]).unwrap();
        let cut = apply(&path, &delta_path, &path, false).unwrap_err();
        assert!(crate::hints::chain_of(&cut).contains("cut short"));
        assert_eq!(fs::read(&path).unwrap(), new);
    }

    #[test]
    fn a_damaged_gallery_is_not_carried_on() {
        let folder = tempfile::tempdir().unwrap();
        let [path, delta_path] = ["a", "d"].map(|name| folder.path().join(name));
        let [old, new] = galleries(10, 2);
        fs::write(
            &delta_path,
            delta::between(&open(&old), &open(&new)).unwrap(),
        )
        .unwrap();
        // A bit of the codes of the row that stays.
        let mut damaged = old.clone();
        let codes = open(&old).int8().unwrap().scanned();
        let start = codes.as_ptr().addr() - old.as_ptr().addr();
        damaged[start + 4 * 5] ^= 4;
        fs::write(&path, &damaged).unwrap();
        let err = apply(&path, &delta_path, &path, false).unwrap_err();
        assert!(crate::hints::chain_of(&err).contains("is damaged"));
        let err = compact(&path, &path).unwrap_err();
        assert!(crate::hints::chain_of(&err).contains("content"));
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}
