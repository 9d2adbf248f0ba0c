//! From a folder or a list on disk to a [`Manifest`] of labelled images.
//!
//! [`open`] recognizes the layout by what is there, and stops at the first fault with its
//! place; [`check()`] goes on and lists every fault. Neither changes a file. Pixels are not
//! kept here: whoever needs them reads the file through `eyas_shared::preprocess`.

pub mod check;
pub mod manifest;
pub mod split;

pub mod label_errors;
pub mod landmarks;
pub mod mat;
pub mod pickle;

mod cars;
mod csv;
mod folder;
mod grocery;
mod text_lists;

mod listing;
pub(crate) mod parallel;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

use eyas_shared::files::FileError;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::preprocess::Limits;
use thiserror::Error;

pub use check::{CheckReport, check, check_and_list};
pub use manifest::{Image, Manifest, Role, Selection};

/// Largest image file that is read, in bytes.
pub const MAX_IMAGE_BYTES: u64 = Limits::DEFAULT.max_bytes;

/// Name of the list that a folder may carry; it wins over the folder's layout.
pub const MANIFEST_NAME: &str = "manifest.csv";

/// Why data can not be listed or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing lies at the path.
    #[error("`{}` does not exist; name a folder of images or a CSV list of them", path.display())]
    Missing {
        /// Where something was looked for.
        path: PathBuf,
    },
    /// A file, but not a list.
    #[error("`{}` is neither a folder nor a CSV list; name the folder that holds the images, or a `.csv` with the columns label and path", path.display())]
    NotAList {
        /// Which file.
        path: PathBuf,
    },
    /// Nothing to work with.
    #[error("`{}` lists no image: {n_other} other files were seen; images end in .jpg, .jpeg, .png or .webp and lie in one folder per label", path.display())]
    NoImages {
        /// Which folder or list.
        path: PathBuf,
        /// Files that are no images by their name.
        n_other: usize,
    },
    /// A name that can not stand in a list.
    #[error("the name of `{}` is not UTF-8; rename it", path.display())]
    NotUtf8 {
        /// Which file or folder, as far as it can be shown.
        path: PathBuf,
    },
    /// A link that leads back, or two links to one folder.
    #[error("folder `{}` is the same as `{}`; remove one of the links", again.display(), first.display())]
    FolderTwice {
        /// Where it was seen the second time.
        again: PathBuf,
        /// Where it was seen first.
        first: PathBuf,
    },
    /// Some folders at the top are splits, others are not.
    #[error("`{}` holds the split folder `{split}` beside `{other}`, which is none; use only train, val, test, query, gallery at the top, or only labels", path.display())]
    MixedSplits {
        /// Which folder.
        path: PathBuf,
        /// A folder that is named like a split.
        split: String,
        /// One that is not.
        other: String,
    },
    /// An image beside label folders.
    #[error("image `{}` lies beside label folders, so it has no label; move it into one", path.display())]
    Unlabeled {
        /// Which image.
        path: PathBuf,
    },
    /// A MATLAB file that is no list of images.
    #[error("`{}`: {source}", path.display())]
    Mat {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: mat::MatFault,
    },
    /// A pickle file that is no list of images.
    #[error("`{}`: {source}", path.display())]
    Pickle {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: pickle::PickleFault,
    },
    /// A list whose content is wrong.
    #[error("`{}`, line {line}: {problem}", path.display())]
    Line {
        /// Which list.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Lists the images of a data set, reads every file once to name it by its content, and
/// gives them labels, splits and roles.
///
/// `path` is one of
///
/// - a CSV file with the columns `label`, `path` and optionally `split`, `is_query`,
///   `is_gallery`, in any order, or a folder with such a file named `manifest.csv`. Paths
///   are relative to its folder; booleans are 0, 1, true, false (empty: false). Without
///   `split` everything is in `train`, asks and is searched; without one of the role
///   columns, that role follows from the split as below;
/// - a folder of the Grocery Store Dataset (`train.txt`, `val.txt`, `test.txt`,
///   `classes.csv`): labels are class names; the iconic images of `classes.csv` are the
///   split `iconic` and have no role;
/// - a benchmark as it is published: CUB-200-2011 (`images.txt`, `image_class_labels.txt`),
///   Cars-196 (`cars_annos.mat`), Stanford Online Products (`Ebay_train.txt`,
///   `Ebay_test.txt`), Omniglot (`images_background`, `images_evaluation`): class-disjoint
///   splits `train` and `test`, whose images ask and are searched; In-Shop
///   (`Eval/list_eval_partition.txt`): `train`, `query`, `gallery`; SfM-120k
///   (`retrieval-SfM-120k.pkl`): `train`, `val`; revisited Oxford and Paris (`gnd_*.pkl`):
///   `query`, `gallery`. Training images of these have no role;
/// - class folders, `DIR/label/IMAGE` or `DIR/split/label/IMAGE` with the splits `train`,
///   `val`, `test`, `query`, `gallery`; deeper folders make labels such as `a/b`. Where
///   images lie in no label folder, the label is the file's name without its extension.
///
/// Images of `query`, `val` and `test` ask, images of `gallery` and `train` are searched.
/// Class folders without splits are all `train`, ask and are searched: evaluation leaves
/// out the query itself by its identity.
///
/// # Errors
/// At the first fault: a missing or unreadable file, a wrong line, an ambiguous layout,
/// no image at all.
pub fn open(path: &Path) -> Result<Manifest, DataError> {
    read_all(listing::list(path, &mut Err)?)
}

/// Names every image of a listing by its content.
fn read_all(listing: listing::Listing) -> Result<Manifest, DataError> {
    let name = |bytes: Vec<u8>| ImageId::of_file(&bytes);
    let read = parallel::map(listing.entries.len(), |i| listing.read(i).map(name), || {});
    let mut images = Vec::with_capacity(read.len());
    for (entry, id) in listing.entries.iter().zip(read) {
        images.push(entry.to_image(id?));
    }
    Ok(Manifest {
        root: listing.root,
        images,
    })
}
