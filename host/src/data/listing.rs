//! Which images a path names, before any of them is read.

use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::ImageId;

use super::manifest::Image;
use super::{
    DataError, MANIFEST_NAME, MAX_IMAGE_BYTES, cars, csv, folder, grocery, landmarks, text_lists,
};

/// Images with their labels and roles; their files may turn out to be missing or damaged.
pub(super) struct Listing {
    pub(super) root: PathBuf,
    pub(super) entries: Vec<Entry>,
    /// Files beside the images that are none by their name. Lists do not count any.
    pub(super) n_other: usize,
    /// Folders and lists that name no image.
    pub(super) empty: Vec<Empty>,
}

/// A part of a data set without images.
pub(super) struct Empty {
    /// Relative to the root.
    pub(super) path: String,
    /// A split, not just a label.
    pub(super) is_split: bool,
}

/// What to do about a fault after which the listing could go on: `Err` stops it.
pub(super) type OnFault<'a> = &'a mut dyn FnMut(DataError) -> Result<(), DataError>;

/// An [`Image`] that was not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) label: String,
    pub(super) split: String,
    pub(super) is_query: bool,
    pub(super) is_gallery: bool,
}

impl Entry {
    pub(super) fn to_image(&self, id: ImageId) -> Image {
        Image {
            path: self.path.clone(),
            label: self.label.clone(),
            split: self.split.clone(),
            is_query: self.is_query,
            is_gallery: self.is_gallery,
            id,
        }
    }
}

impl Listing {
    /// Reads the file of an entry.
    pub(super) fn read(&self, entry_idx: usize) -> Result<Vec<u8>, FileError> {
        let path = self.root.join(&self.entries[entry_idx].path);
        files::read(&path, MAX_IMAGE_BYTES)
    }
}

/// Recognizes the layout at `path` and lists its images. What `on_fault` lets pass is left
/// out of the listing.
pub(super) fn list(path: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    if !path.exists() {
        return Err(DataError::Missing {
            path: path.to_owned(),
        });
    }
    let listing = if path.is_dir() {
        list_folder(path, on_fault)?
    } else if has_extension(path, &["csv"]) {
        csv::list(path, on_fault)?
    } else {
        return Err(DataError::NotAList {
            path: path.to_owned(),
        });
    };
    if listing.entries.is_empty() {
        on_fault(DataError::NoImages {
            path: path.to_owned(),
            n_other: listing.n_other,
        })?;
    }
    Ok(listing)
}

fn list_folder(path: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    if path.join(MANIFEST_NAME).is_file() {
        csv::list(&path.join(MANIFEST_NAME), on_fault)
    } else if path.join("train.txt").is_file() && path.join("classes.csv").is_file() {
        grocery::list(path, on_fault)
    } else if text_lists::is_cub(path) {
        text_lists::cub(path, on_fault)
    } else if path.join(cars::LIST).is_file() {
        cars::list(path)
    } else if text_lists::is_online_products(path) {
        text_lists::online_products(path, on_fault)
    } else if let Some(list) = text_lists::in_shop_list(path) {
        text_lists::in_shop(path, list, on_fault)
    } else if let Some(list) = landmarks::find_sfm(path) {
        landmarks::list_sfm(path, &list)
    } else if let Some(list) = landmarks::find_revisited(path) {
        landmarks::list_revisited(path, &list)
    } else if text_lists::is_omniglot(path) {
        text_lists::omniglot(path, on_fault)
    } else {
        folder::list(path, on_fault)
    }
}

/// Whether the images of a split ask, and whether they are searched.
pub(super) fn roles_of_split(split: &str) -> (bool, bool) {
    (
        matches!(split, "query" | "val" | "test"),
        matches!(split, "gallery" | "train"),
    )
}

/// Whether a file is an image by its name.
pub(super) fn is_image(path: &Path) -> bool {
    has_extension(path, &["jpg", "jpeg", "png", "webp"])
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|found| {
        extensions
            .iter()
            .any(|wanted| found.eq_ignore_ascii_case(wanted))
    })
}
