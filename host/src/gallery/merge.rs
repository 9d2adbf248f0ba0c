//! Several galleries of one space as one.

use std::collections::HashMap;

use eyas_shared::fingerprint::{Fingerprint, Fingerprinter, ImageId, SpaceId};
use eyas_shared::gallery::{Codes, Gallery, Picked, RowFault, encode};
use thiserror::Error;

/// Why galleries can not become one. Galleries are numbered in the order that they were
/// given.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Embeddings of two teachers.
    #[error("they come from different teachers: space `{first_space}` and `{space}`")]
    OtherSpace {
        /// Number of the gallery that differs from the first.
        gallery: usize,
        /// Space of the first.
        first_space: SpaceId,
        /// Space of the other.
        space: SpaceId,
    },
    /// Rows of two lengths.
    #[error("their rows have {first_dim} and {dim} components")]
    OtherDim {
        /// Number of the gallery that differs from the first.
        gallery: usize,
        /// Components in the first.
        first_dim: usize,
        /// Components in the other.
        dim: usize,
    },
    /// One image with two records.
    #[error(
        "both hold the image `{name}` ({id}), with different {what}; remove it from one of them"
    )]
    Conflict {
        /// Number of the gallery that has it first.
        first: usize,
        /// Number of the other.
        gallery: usize,
        /// The image.
        id: ImageId,
        /// Its name in the first.
        name: String,
        /// In what the records differ.
        what: &'static str,
    },
    /// A record that can not be read.
    #[error("a record is damaged: {0}")]
    Row(#[from] RowFault),
}

impl MergeError {
    /// Numbers of the two galleries that do not fit together.
    #[must_use]
    pub fn galleries(&self) -> Option<(usize, usize)> {
        match self {
            Self::OtherSpace { gallery, .. } | Self::OtherDim { gallery, .. } => {
                Some((0, *gallery))
            }
            Self::Conflict { first, gallery, .. } => Some((*first, *gallery)),
            Self::Row(_) => None,
        }
    }
}

/// The records of all galleries in their order, each image once.
///
/// # Errors
/// If the galleries differ in space or dimension, or hold one image with different records.
pub fn merge<'p, 'a>(
    galleries: &'p [Gallery<'a>],
    codes: Codes,
) -> Result<Picked<'p, 'a>, MergeError> {
    let first = &galleries[0];
    for (number, gallery) in galleries.iter().enumerate() {
        if gallery.header.space != first.header.space {
            return Err(MergeError::OtherSpace {
                gallery: number,
                first_space: first.header.space,
                space: gallery.header.space,
            });
        }
        if gallery.dim() != first.dim() {
            return Err(MergeError::OtherDim {
                gallery: number,
                first_dim: first.dim(),
                dim: gallery.dim(),
            });
        }
    }
    let mut first_of: HashMap<ImageId, (usize, u32)> = HashMap::new();
    let mut is_kept: Vec<Vec<bool>> = Vec::with_capacity(galleries.len());
    for (number, gallery) in galleries.iter().enumerate() {
        let mut kept = vec![false; gallery.n_rows() as usize];
        for row in (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row)) {
            let id = gallery.id(row);
            match first_of.get(&id) {
                None => {
                    first_of.insert(id, (number, row));
                    kept[row as usize] = true;
                }
                Some((first, first_row)) => {
                    let pair = [(&galleries[*first], *first_row), (gallery, row)];
                    if let Some(what) = difference(pair, codes)? {
                        let entry = galleries[*first].entry(*first_row);
                        return Err(MergeError::Conflict {
                            first: *first,
                            gallery: number,
                            id,
                            name: entry.map_or("", |entry| entry.name).to_owned(),
                            what,
                        });
                    }
                }
            }
        }
        is_kept.push(kept);
    }
    let all = galleries.iter().collect();
    Ok(Picked::of(all, |number, row| is_kept[number][row as usize]))
}

/// In what two records differ.
fn difference(
    pair: [(&Gallery<'_>, u32); 2],
    codes: Codes,
) -> Result<Option<&'static str>, RowFault> {
    let [a, b] = pair.map(|(gallery, row)| gallery.entry(row));
    if a.map(|entry| entry.label) != b.map(|entry| entry.label) {
        return Ok(Some("labels"));
    }
    if a.map(|entry| entry.name) != b.map(|entry| entry.name) {
        return Ok(Some("names"));
    }
    let [a, b] = pair.map(|(gallery, row)| gallery.thumbnail(row));
    if a != b {
        return Ok(Some("thumbnails"));
    }
    let [a, b] = pair.map(|(gallery, row)| {
        if gallery.codes() == codes {
            Ok(gallery.encoded_row(row))
        } else {
            encode(gallery, row as usize, codes)
        }
    });
    Ok((a? != b?).then_some("embeddings"))
}

/// Names the images of several manifests together.
#[must_use]
pub fn manifest_of(manifests: impl IntoIterator<Item = Fingerprint>) -> Fingerprint {
    let mut print = Fingerprinter::new("eyas manifests 1");
    for manifest in manifests {
        print = print.field("manifest", &manifest.0);
    }
    print.finish()
}

#[cfg(test)]
mod tests {
    use eyas_shared::gallery::Records;

    use super::*;
    use crate::gallery::tests::small_gallery;

    #[test]
    fn equal_records_are_kept_once_and_different_ones_named() {
        let one = small_gallery(&[("a.jpg", "tea"), ("b.jpg", "milk")]);
        let two = small_gallery(&[("c.jpg", "tea"), ("b.jpg", "milk")]);
        let other = small_gallery(&[("b.jpg", "water")]);
        let [one, two, other] = [&one, &two, &other].map(|bytes| Gallery::open(bytes).unwrap());
        let codes = one.codes();
        let all = [one.clone(), two];
        let merged = merge(&all, codes).unwrap();
        let names: Vec<&str> = (0..3).map(|idx| merged.entry(idx).unwrap().name).collect();
        assert_eq!(
            (merged.n_records(), &names[..]),
            (3, &["a.jpg", "b.jpg", "c.jpg"][..])
        );
        let all = [one, other];
        let err = merge(&all, codes).err().unwrap();
        assert_eq!(err.galleries(), Some((0, 1)));
        let message = err.to_string();
        assert!(
            message.contains("`b.jpg`") && message.contains("labels"),
            "{message}"
        );
    }
}
