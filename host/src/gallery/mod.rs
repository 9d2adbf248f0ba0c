//! From embeddings to a gallery: which images go in, and what is refused; galleries of
//! parts of others, of several, and of embeddings on disk.

pub mod choose;
pub mod merge;
pub mod on_disk;
pub mod recall;

use std::collections::HashMap;

use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::{Codes, Entry, Fresh, GalleryError, GallerySource, Plan};
use thiserror::Error;

use crate::data::manifest::{Image, Manifest, Role, Selection};
use crate::embeddings::{EmbeddedImages, MissingImage};

/// Why no gallery can be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Nothing is selected.
    #[error("no image is selected for the gallery: {hint}")]
    NoImages {
        /// What to do.
        hint: &'static str,
    },
    /// One content with two labels.
    #[error(
        "`{first}` and `{second}` are the same image, but labelled `{first_label}` and `{second_label}`; remove one"
    )]
    OtherLabel {
        /// Path of one.
        first: String,
        /// Its label.
        first_label: String,
        /// Path of the other.
        second: String,
        /// Its label.
        second_label: String,
    },
    /// An image without embedding.
    #[error(transparent)]
    Missing(#[from] MissingImage),
    /// Rows that no gallery can hold.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
}

/// Images for a gallery, each content once.
#[derive(Clone, Debug)]
pub struct Selected {
    /// What goes in.
    pub manifest: Manifest,
    /// Path of an image that is left out, and of the one that is the same.
    pub repeated: Vec<(String, String)>,
}

/// A finished gallery.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file's content.
    pub bytes: Vec<u8>,
    /// Number of rows.
    pub n_rows: usize,
}

/// The images of `split`, or those with the gallery role if none is named, each content
/// once.
///
/// # Errors
/// If there are none, or one content has two labels.
pub fn select(manifest: &Manifest, split: Option<&str>) -> Result<Selected, BuildError> {
    let selection = Selection {
        split: split.map(str::to_owned),
        role: split.is_none().then_some(Role::Gallery),
    };
    let mut chosen = manifest.select(&selection);
    if chosen.images.is_empty() {
        let hint = if split.is_some() {
            "the data has no image of that split"
        } else {
            "name a split, or mark images with is_gallery in the list"
        };
        return Err(BuildError::NoImages { hint });
    }
    let mut repeated = Vec::new();
    let mut first_of: HashMap<ImageId, Image> = HashMap::new();
    let mut kept = Vec::with_capacity(chosen.images.len());
    for image in chosen.images {
        match first_of.get(&image.id) {
            None => {
                first_of.insert(image.id, image.clone());
                kept.push(image);
            }
            Some(first) if first.label == image.label => {
                repeated.push((image.path, first.path.clone()));
            }
            Some(first) => {
                return Err(BuildError::OtherLabel {
                    first: first.path.clone(),
                    first_label: first.label.clone(),
                    second: image.path,
                    second_label: image.label,
                });
            }
        }
    }
    chosen.images = kept;
    Ok(Selected {
        manifest: chosen,
        repeated,
    })
}

/// What a gallery says of the images of a manifest.
#[must_use]
pub fn entries_of(manifest: &Manifest) -> Vec<Entry<'_>> {
    fn entry(image: &Image) -> Entry<'_> {
        Entry {
            id: image.id,
            label: &image.label,
            name: &image.path,
        }
    }
    manifest.images.iter().map(entry).collect()
}

/// Lays out the gallery of `selected`; every image must be in `embedded`. `teacher` names
/// the model that embedded them.
///
/// # Errors
/// If an image has no embedding or one without direction.
pub fn build(
    selected: &Selected,
    embedded: &EmbeddedImages,
    teacher: &str,
    codes: Codes,
) -> Result<Built, BuildError> {
    let rows = embedded.rows_for(&selected.manifest)?;
    let entries = entries_of(&selected.manifest);
    let source = GallerySource {
        space: embedded.space(),
        teacher: teacher.to_owned(),
        manifest: selected.manifest.fingerprint(),
        codes,
    };
    let records = Fresh {
        rows: &rows,
        entries: &entries,
        thumbnails: &[],
    };
    Ok(Built {
        bytes: Plan::new(&source, &records)?.to_bytes(),
        n_rows: entries.len(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use eyas_shared::embedding::Embeddings;
    use eyas_shared::fingerprint::{Fingerprint, SpaceId};
    use eyas_shared::gallery;

    fn image(path: &str, label: &str, id: u8, split: &str) -> Image {
        Image {
            path: path.to_owned(),
            label: label.to_owned(),
            split: split.to_owned(),
            is_query: split == "val",
            is_gallery: split == "train",
            id: ImageId([id; 16]),
        }
    }

    /// A gallery of images, each with its name and label.
    pub(crate) fn small_gallery(images: &[(&str, &str)]) -> Vec<u8> {
        let entries: Vec<Entry<'_>> = images
            .iter()
            .map(|(name, label)| Entry {
                id: ImageId::of_file(name.as_bytes()),
                label,
                name,
            })
            .collect();
        let mut rows = Embeddings::new(3);
        for (name, _) in images {
            rows.push(&[1.0, f32::from(name.as_bytes()[0]).sin(), 0.5]);
        }
        let source = GallerySource {
            space: SpaceId(Fingerprint([9; 32])),
            teacher: "t".to_owned(),
            manifest: Fingerprint([1; 32]),
            codes: Codes::INT8_F16,
        };
        gallery::write(&source, &rows, &entries).unwrap()
    }

    fn manifest(images: Vec<Image>) -> Manifest {
        Manifest {
            root: "data".into(),
            images,
        }
    }

    #[test]
    fn the_role_or_a_named_split_selects() {
        let manifest = manifest(vec![
            image("a.jpg", "apple", 1, "train"),
            image("b.jpg", "apple", 2, "val"),
            image("c.jpg", "apple", 1, "train"),
        ]);
        let by_role = select(&manifest, None).unwrap();
        assert_eq!(by_role.manifest.images.len(), 1);
        assert_eq!(by_role.repeated, [("c.jpg".into(), "a.jpg".into())]);
        let by_split = select(&manifest, Some("val")).unwrap();
        assert_eq!(by_split.manifest.images[0].path, "b.jpg");
        assert!(select(&manifest, Some("test")).is_err());
    }

    #[test]
    fn one_image_with_two_labels_is_refused_with_both_paths() {
        let manifest = manifest(vec![
            image("a.jpg", "apple", 1, "train"),
            image("b.jpg", "pear", 1, "train"),
        ]);
        let message = select(&manifest, None).unwrap_err().to_string();
        assert!(
            message.contains("`a.jpg` and `b.jpg`") && message.contains("`apple` and `pear`"),
            "{message}"
        );
    }

    #[test]
    fn a_gallery_holds_the_selected_images() {
        let manifest = manifest(vec![
            image("a.jpg", "apple", 1, "train"),
            image("b.jpg", "pear", 2, "train"),
        ]);
        let mut embedded = EmbeddedImages::new(SpaceId(Fingerprint([9; 32])), 2);
        embedded.insert(ImageId([2; 16]), &[0.0, 1.0]);
        let selected = select(&manifest, None).unwrap();
        let build = |embedded: &EmbeddedImages| build(&selected, embedded, "t", Codes::F32);
        let missing = build(&embedded).unwrap_err().to_string();
        assert!(missing.contains("a.jpg"), "{missing}");
        embedded.insert(ImageId([1; 16]), &[1.0, 0.0]);
        let built = build(&embedded).unwrap();
        let gallery = eyas_shared::gallery::Gallery::open(&built.bytes).unwrap();
        gallery.verify().unwrap();
        let entry = gallery.entry(1).unwrap();
        assert_eq!((entry.label, entry.name), ("pear", "b.jpg"));
        assert_eq!(gallery.header.teacher, "t");
    }
}
