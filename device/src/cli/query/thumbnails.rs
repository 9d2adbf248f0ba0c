//! Pictures of what was found, for people who look at a board's answers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::bail;
use eyas_shared::files;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Gallery;

use crate::answer::Answer;
use crate::store::Store;

/// A folder that pictures are written to, each once.
pub(super) struct Thumbnails {
    folder: PathBuf,
    written: BTreeSet<ImageId>,
}

impl Thumbnails {
    /// Writes to `folder`, which is created if there is none.
    ///
    /// # Errors
    /// If the gallery has no pictures, or the system refuses.
    pub(super) fn into_folder(folder: &Path, store: &Store) -> anyhow::Result<Self> {
        if !store.matcher()?.gallery().has_thumbnails() {
            bail!(
                "`{}` has no thumbnails; `eyas gallery build --thumbnails 96` makes them",
                store.gallery_path().display()
            );
        }
        files::create_folder(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            written: BTreeSet::new(),
        })
    }

    /// Writes the pictures of an answer; an image that has none is left out.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn save(&mut self, gallery: &Gallery<'_>, answer: &Answer) -> anyhow::Result<()> {
        for found in &answer.found {
            let picture = gallery.thumbnail(found.best.row).unwrap_or_default();
            if !picture.is_empty() && self.written.insert(found.best.id) {
                let path = self.folder.join(format!("{}.jpg", found.best.id));
                files::replace(&path, picture)?;
            }
        }
        Ok(())
    }
}
