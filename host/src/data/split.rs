//! Class-disjoint splits: classes that training never sees, and a validation part of those
//! that it does.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use eyas_shared::random::Random;
use thiserror::Error;

use super::manifest::{Image, Manifest, Selection};

/// Split of images of unseen classes that ask and are searched.
pub const UNSEEN: &str = "unseen";
/// Split of images of unseen classes that only ask.
pub const UNSEEN_QUERY: &str = "unseen-query";
/// Split of images of unseen classes that are only searched.
pub const UNSEEN_GALLERY: &str = "unseen-gallery";

/// How classes are parted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DisjointSplit {
    /// Share of the classes that training never sees, 0 to 1.
    pub unseen: f64,
    /// Share of each seen class's training images that validate, 0 to 1.
    pub validation: f64,
    /// Another seed draws other classes.
    pub seed: u64,
}

/// Why classes can not be parted.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SplitError {
    /// A share out of range.
    #[error("the share of {what} is {found}; it is a number from 0 to 1")]
    Share {
        /// Of what.
        what: &'static str,
        /// The share.
        found: f64,
    },
    /// Nothing would be left on one side.
    #[error(
        "{n_labels} classes can not be parted into {n_seen} seen and {n_unseen} unseen ones; retrieval needs two on each side"
    )]
    TooFewClasses {
        /// Classes there are.
        n_labels: usize,
        /// Those that would be trained on.
        n_seen: usize,
        /// The others.
        n_unseen: usize,
    },
    /// One content under a seen and an unseen class.
    #[error(
        "`{first}` ({first_label}) and `{second}` ({second_label}) are the same image, but one class is seen and the other is not; `eyas data check` lists such images"
    )]
    SharedImage {
        /// Path of the one.
        first: String,
        /// Its class.
        first_label: String,
        /// Path of the other.
        second: String,
        /// Its class.
        second_label: String,
    },
}

/// Draws the unseen classes and renames splits.
///
/// Images of unseen classes keep their roles and move to [`UNSEEN`] (ask and are searched),
/// [`UNSEEN_QUERY`] or [`UNSEEN_GALLERY`]; those without a role keep their split, as do
/// images of seen classes. Then a share of the images of split `train` moves to `val` and
/// asks. The same seed draws the same classes whatever images they have.
///
/// # Errors
/// If a share is out of range, fewer than two classes would be left on a side, or an image
/// stands under a class of each side.
pub fn disjoint(manifest: &Manifest, how: DisjointSplit) -> Result<Manifest, SplitError> {
    for (what, found) in [
        ("unseen classes", how.unseen),
        ("validation", how.validation),
    ] {
        if !(0.0..=1.0).contains(&found) {
            return Err(SplitError::Share { what, found });
        }
    }
    let unseen = draw(&manifest.labels(), how)?;
    let is_unseen = |image: &Image| unseen.contains(image.label.as_str());
    check_images(manifest, is_unseen)?;
    let mut parted = manifest.clone();
    for image in parted.images.iter_mut().filter(|image| is_unseen(image)) {
        let split = match (image.is_query, image.is_gallery) {
            (true, true) => UNSEEN,
            (true, false) => UNSEEN_QUERY,
            (false, true) => UNSEEN_GALLERY,
            (false, false) => continue,
        };
        image.split = split.to_owned();
    }
    let train = parted.select(&Selection {
        split: Some("train".to_owned()),
        role: None,
    });
    let (_, validation) = train.split_validation(how.validation, how.seed);
    let validates: BTreeSet<&str> = { validation.images.iter() }
        .map(|image| image.path.as_str())
        .collect();
    for image in &mut parted.images {
        if image.split == "train" && validates.contains(image.path.as_str()) {
            image.split = "val".to_owned();
            (image.is_query, image.is_gallery) = (true, false);
        }
    }
    Ok(parted)
}

/// The unseen classes.
fn draw<'m>(labels: &[&'m str], how: DisjointSplit) -> Result<BTreeSet<&'m str>, SplitError> {
    let mut shuffled = labels.to_vec();
    Random::new(how.seed)
        .fork("unseen classes")
        .shuffle(&mut shuffled);
    let n_labels = labels.len();
    let n_unseen = (how.unseen * n_labels as f64).round() as usize;
    let n_seen = n_labels - n_unseen.min(n_labels);
    if n_seen < 2 || n_unseen == 1 {
        return Err(SplitError::TooFewClasses {
            n_labels,
            n_seen,
            n_unseen,
        });
    }
    Ok(shuffled.into_iter().take(n_unseen).collect())
}

/// No image may be on both sides.
fn check_images(manifest: &Manifest, is_unseen: impl Fn(&Image) -> bool) -> Result<(), SplitError> {
    let mut first_of_id = std::collections::BTreeMap::new();
    for image in &manifest.images {
        let first: &&Image = first_of_id.entry(image.id).or_insert(image);
        if is_unseen(first) != is_unseen(image) {
            return Err(SplitError::SharedImage {
                first: first.path.clone(),
                first_label: first.label.clone(),
                second: image.path.clone(),
                second_label: image.label.clone(),
            });
        }
    }
    Ok(())
}

/// The manifest with paths that are right for a list in `folder`: relative where the two
/// share a beginning, absolute otherwise. Both folders must exist.
///
/// # Errors
/// If one of the folders can not be resolved, or a path is not UTF-8.
pub fn relative_to(manifest: &Manifest, folder: &Path) -> std::io::Result<Manifest> {
    let resolve = |path: &Path| match path.as_os_str().is_empty() {
        true => Path::new(".").canonicalize(),
        false => path.canonicalize(),
    };
    let (root, folder) = (resolve(&manifest.root)?, resolve(folder)?);
    let way = way_between(&folder, &root);
    let mut moved = manifest.clone();
    for image in &mut moved.images {
        let path = way.join(&image.path);
        let text = path.to_str().map(|text| text.replace('\\', "/"));
        let not_utf8 = || std::io::Error::other(format!("`{}` is not UTF-8", path.display()));
        image.path = text.ok_or_else(not_utf8)?;
    }
    moved.root = folder;
    Ok(moved)
}

/// How to walk from one resolved folder to another.
fn way_between(from: &Path, to: &Path) -> PathBuf {
    let both = || from.components().zip(to.components());
    let n_shared = both().take_while(|(a, b)| a == b).count();
    let shares_a_folder = { from.components().take(n_shared) }
        .any(|component| matches!(component, Component::Normal(_)));
    if n_shared < from.components().count() && !shares_a_folder {
        return to.to_owned();
    }
    let up = from
        .components()
        .skip(n_shared)
        .map(|_| Component::ParentDir);
    up.chain(to.components().skip(n_shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::super::tests::images;
    use super::*;

    fn how(unseen: f64, validation: f64, seed: u64) -> DisjointSplit {
        DisjointSplit {
            unseen,
            validation,
            seed,
        }
    }

    fn paths(n_labels: usize, n_train: usize, n_val: usize) -> Vec<String> {
        let label = |label: usize| {
            let of = move |split: &str, n: usize| -> Vec<String> {
                (0..n).map(|i| format!("{split}/{label}/{i}.jpg")).collect()
            };
            [of("train", n_train), of("val", n_val)].concat()
        };
        (0..n_labels).flat_map(label).collect()
    }

    fn example() -> (tempfile::TempDir, Manifest) {
        let paths = paths(6, 5, 2);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let folder = images(&paths);
        let manifest = open(folder.path()).unwrap();
        (folder, manifest)
    }

    fn labels_of(manifest: &Manifest, split: &str) -> BTreeSet<String> {
        let images = manifest.images.iter().filter(|image| image.split == split);
        images.map(|image| image.label.clone()).collect()
    }

    #[test]
    fn half_of_the_classes_are_never_trained_on() {
        let (_folder, manifest) = example();
        let parted = disjoint(&manifest, how(0.5, 0.2, 1)).unwrap();
        let [train, val, asked, searched] =
            ["train", "val", UNSEEN_QUERY, UNSEEN_GALLERY].map(|split| labels_of(&parted, split));
        assert_eq!((train.len(), asked.len()), (3, 3));
        assert_eq!(asked, searched);
        assert_eq!(train, val);
        assert!(train.is_disjoint(&asked));
        assert_eq!(parted.images.len(), manifest.images.len());
        let n_of = |split: &str| {
            let images = parted.images.iter().filter(|image| image.split == split);
            images.count()
        };
        assert_eq!((n_of("train"), n_of("val")), (3 * 4, 3 * 2 + 3));
        assert_eq!((n_of(UNSEEN_QUERY), n_of(UNSEEN_GALLERY)), (3 * 2, 3 * 5));
        assert!(
            parted
                .images
                .iter()
                .all(|image| (image.split == "val") <= image.is_query)
        );
        let again = disjoint(&manifest, how(0.5, 0.2, 1)).unwrap();
        assert_eq!(again.images, parted.images);
        let other = (2..9).map(|seed| disjoint(&manifest, how(0.5, 0.2, seed)).unwrap());
        assert!(
            other
                .into_iter()
                .any(|other| labels_of(&other, "train") != train)
        );
    }

    #[test]
    fn a_split_that_leaves_too_little_is_refused() {
        let (_folder, mut manifest) = example();
        let said = |manifest: &Manifest, how| disjoint(manifest, how).unwrap_err().to_string();
        assert!(said(&manifest, how(0.9, 0.0, 1)).contains("into 1 seen and 5 unseen"));
        assert!(said(&manifest, how(0.1, 0.0, 1)).contains("into 5 seen and 1 unseen"));
        assert!(said(&manifest, how(1.5, 0.0, 1)).contains("unseen classes is 1.5"));
        assert!(said(&manifest, how(0.5, f64::NAN, 1)).contains("validation is NaN"));
        assert!(disjoint(&manifest, how(0.0, 0.2, 1)).is_ok());
        for i in 0..manifest.images.len() {
            manifest.images[i].id = manifest.images[0].id;
        }
        assert!(said(&manifest, how(0.5, 0.0, 1)).contains("are the same image"));
    }

    #[test]
    fn a_list_elsewhere_still_finds_the_images() {
        let (folder, manifest) = example();
        let lists = folder.path().join("lists/deep");
        std::fs::create_dir_all(&lists).unwrap();
        let moved = relative_to(&manifest, &lists).unwrap();
        assert!(moved.images[0].path.starts_with("../../train/"));
        std::fs::write(lists.join("split.csv"), moved.to_csv()).unwrap();
        let again = open(&lists.join("split.csv")).unwrap();
        let ids = |manifest: &Manifest| -> Vec<_> {
            manifest.images.iter().map(|image| image.id).collect()
        };
        assert_eq!(ids(&again), ids(&manifest));
        let way = |from: &str, to: &str| way_between(Path::new(from), Path::new(to));
        assert_eq!(way("/a/b", "/a/c/d"), Path::new("../c/d"));
        assert_eq!(way("/a", "/a"), Path::new(""));
        assert_eq!(way("/a", "/b"), Path::new("/b"));
    }
}
