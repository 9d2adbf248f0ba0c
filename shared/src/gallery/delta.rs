//! What turns one gallery into another: the images that go, and the records that come.
//!
//! A [`Delta`] is made where both galleries are, and applied where only the first is. It
//! begins from a content, whatever the order of the rows that hold it, and leads to a
//! content; both are named in its header, and what it leads to is computed from the records
//! themselves before anything is written. So a delta that is applied twice, out of order, to
//! another gallery, or to a damaged one, ends with an error.
//!
//! A record that changed goes and comes. The records that come are a whole gallery inside
//! the delta, so their stored bytes are those that a new build of everything would hold.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::content::Summarized;
use super::{Codes, Gallery, GalleryError, GallerySource, Picked, Plan, Records};
use crate::container::{self, Container, ContainerError, Kind, Tag};
use crate::embedding::MAX_DIM;
use crate::fingerprint::{Fingerprint, ImageId, SpaceId};

/// The newest version of deltas, and the one that is written.
pub const VERSION: u16 = 1;

/// Begins the header: the first bytes of the SHA-256 of [`SCHEMA`].
const SCHEMA_KEY: [u8; 8] = [136, 45, 210, 230, 151, 211, 68, 47];

/// The fields of [`DeltaHeader`] as they are stored.
#[cfg(test)]
const SCHEMA: &str = "eyas gallery delta 1: space [u8; 32], dim u32, codes { int2 bool, \
    int8 bool, rows option { f32, f16 } }, base [u8; 32], result [u8; 32], n_removed u32, \
    n_added u32, n_images u32, teacher string, manifest [u8; 32]";

const REMOVED: Tag = *b"GONE";
const ADDED: Tag = *b"NEW ";

/// What a delta says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaHeader {
    /// The teacher's space of both galleries.
    pub space: SpaceId,
    /// Components of a row in both.
    pub dim: u32,
    /// How both store rows.
    pub codes: Codes,
    /// Content that it begins from.
    pub base: Fingerprint,
    /// Content that it leads to.
    pub result: Fingerprint,
    /// Images whose records go, those that are replaced included.
    pub n_removed: u32,
    /// Records that come, those that replace others included.
    pub n_added: u32,
    /// Images of the gallery that it leads to.
    pub n_images: u32,
    /// Name of the teacher of the gallery that it leads to.
    pub teacher: String,
    /// Fingerprint of the manifest of the gallery that it leads to.
    pub manifest: Fingerprint,
}

/// Why a delta can not be made, read or applied.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeltaError {
    /// The file is not whole, or not a delta.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its parts contradict each other.
    #[error("the delta makes no sense: {what}")]
    Malformed {
        /// How.
        what: String,
    },
    /// The records that come are damaged.
    #[error("the records that the delta adds: {0}")]
    Added(#[source] GalleryError),
    /// The gallery that it is applied to is damaged.
    #[error("the gallery: {0}")]
    Gallery(#[source] GalleryError),
    /// Embeddings of two teachers.
    #[error("the delta is of space {delta}, the gallery of space {gallery}")]
    OtherSpace {
        /// Of the delta.
        delta: SpaceId,
        /// Of the gallery.
        gallery: SpaceId,
    },
    /// Rows of two lengths.
    #[error("the delta is of {delta} components, the gallery of {gallery}")]
    OtherDim {
        /// Components in the delta.
        delta: u32,
        /// Components in the gallery.
        gallery: u32,
    },
    /// Rows that are stored differently.
    #[error("the delta is of codes `{delta}`, the gallery of `{gallery}`")]
    OtherCodes {
        /// Codes of the delta.
        delta: Codes,
        /// Codes of the gallery.
        gallery: Codes,
    },
    /// The gallery is what the delta leads to.
    #[error("already applied: the gallery holds content {result}, which the delta leads to")]
    AlreadyApplied {
        /// Short fingerprint.
        result: String,
    },
    /// The delta belongs to another state.
    #[error("the delta begins from content {begins}, the gallery holds {holds}")]
    OtherBase {
        /// Short fingerprint of what it begins from.
        begins: String,
        /// Short fingerprint of what the gallery holds.
        holds: String,
    },
    /// An image goes that is not there.
    #[error("the delta removes image {id}, which the gallery does not hold")]
    NotThere {
        /// Its identity.
        id: ImageId,
    },
    /// The records are not those that the header promises.
    #[error(
        "the delta leads to content {found}, not to {expected} as it says: \
         the delta or the gallery is damaged"
    )]
    OtherResult {
        /// Short fingerprint in the header.
        expected: String,
        /// Short fingerprint of the records.
        found: String,
    },
    /// Both galleries hold the same.
    #[error("the galleries hold the same: content {content}")]
    NoDifference {
        /// Short fingerprint.
        content: String,
    },
}

#[derive(Serialize)]
struct StoredHeader<'h> {
    schema_key: [u8; 8],
    fields: &'h DeltaHeader,
}

/// What turns one gallery into another, borrowing from a file's bytes.
pub struct Delta<'a> {
    /// What it says of itself.
    pub header: DeltaHeader,
    /// Images that go, sorted.
    removed: &'a [[u8; 16]],
    added: Option<Gallery<'a>>,
}

/// Lays out the delta that leads from `base` to `new`. The same galleries give the same
/// bytes.
///
/// # Errors
/// [`DeltaError::NoDifference`] if there is none; if the galleries differ in space,
/// dimension or codes; if one of them is damaged. `base` stands for the gallery and `new`
/// for the delta in such an error.
pub fn between(base: &Gallery<'_>, new: &Gallery<'_>) -> Result<Vec<u8>, DeltaError> {
    let same_kind = Header {
        space: new.header.space,
        dim: new.header.dim,
        codes: new.codes(),
    };
    same_kind.check(base)?;
    let contents = [base, new].map(Gallery::content);
    let [base_content, result] = contents;
    let (base_content, result) = (
        base_content.map_err(DeltaError::Gallery)?,
        result.map_err(DeltaError::Added)?,
    );
    if base_content == result {
        let content = result.short();
        return Err(DeltaError::NoDifference { content });
    }
    let sorted = |gallery: &Gallery<'_>| gallery.summary().and_then(|summary| summary.sorted());
    let old = sorted(base).map_err(DeltaError::Gallery)?;
    let all = sorted(new).map_err(DeltaError::Added)?;
    let removed: Vec<u8> = missing_in(&all, &old).flat_map(|gone| gone.id.0).collect();
    let mut is_added = vec![false; new.n_rows() as usize];
    let mut n_added = 0;
    for record in missing_in(&old, &all) {
        is_added[record.row_idx as usize] = true;
        n_added += 1;
    }
    let added = if n_added == 0 {
        None
    } else {
        let records = Picked::of(vec![new], |_, row| is_added[row as usize]);
        let plan = Plan::new(&GallerySource::of(new), &records).map_err(DeltaError::Added)?;
        Some(plan.to_bytes())
    };
    let header = DeltaHeader {
        space: new.header.space,
        dim: new.header.dim,
        codes: new.codes(),
        base: base_content,
        result,
        n_removed: (removed.len() / 16) as u32,
        n_added,
        n_images: new.n_images(),
        teacher: new.header.teacher.clone(),
        manifest: new.header.manifest,
    };
    Ok(lay_out(&header, &removed, added.as_deref()))
}

/// Those of `records` that `others`, sorted alike, do not hold with the same content.
fn missing_in<'s>(
    others: &'s [Summarized],
    records: &'s [Summarized],
) -> impl Iterator<Item = &'s Summarized> {
    records.iter().filter(|record| {
        let found = others.binary_search_by_key(&record.id, |other| other.id);
        found.is_err() || found.is_ok_and(|at| others[at].content != record.content)
    })
}

fn lay_out(header: &DeltaHeader, removed: &[u8], added: Option<&[u8]>) -> Vec<u8> {
    let stored = StoredHeader {
        schema_key: SCHEMA_KEY,
        fields: header,
    };
    let sections: Vec<(Tag, &[u8])> = [(REMOVED, removed)]
        .into_iter()
        .chain(added.map(|added| (ADDED, added)))
        .collect();
    container::write(Kind::Delta, VERSION, &stored, &sections)
}

impl<'a> Delta<'a> {
    /// Reads a delta and checks all of it.
    ///
    /// # Errors
    /// [`DeltaError`] says what does not fit.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DeltaError> {
        let container = Container::read(bytes, Kind::Delta, VERSION)?;
        container.verify()?;
        let header: DeltaHeader = match container.header.split_first_chunk::<8>() {
            Some((key, fields)) if *key == SCHEMA_KEY => container::decode(fields)?,
            _ => return malformed("its fields are not those of delta version 1"),
        };
        if !(1..=MAX_DIM).contains(&(header.dim as usize)) {
            return malformed(format!("dimension {} is not in 1..={MAX_DIM}", header.dim));
        }
        let (removed, rest) = container.section(REMOVED)?.as_chunks::<16>();
        if removed.len() != header.n_removed as usize || !rest.is_empty() {
            let n_bytes = 16 * removed.len() + rest.len();
            let what = format!(
                "{n_bytes} bytes name the {} images that go",
                header.n_removed
            );
            return malformed(what);
        }
        if !removed.is_sorted_by(|a, b| a < b) {
            return malformed("the images that go are not in order");
        }
        let added = match container.sections_with(ADDED).next() {
            None => None,
            Some(bytes) => Some(Gallery::open(bytes).map_err(DeltaError::Added)?),
        };
        let delta = Self {
            header,
            removed,
            added,
        };
        delta.check_added()?;
        Ok(delta)
    }

    fn check_added(&self) -> Result<(), DeltaError> {
        let Some(added) = &self.added else {
            return match self.header.n_added {
                0 => Ok(()),
                n => malformed(format!("{n} records come, but none is there")),
            };
        };
        let (found, said) = (&added.header, &self.header);
        let fits = found.space == said.space
            && found.dim == said.dim
            && found.codes == said.codes
            && found.n_rows == said.n_added
            && found.n_removed == 0;
        if !fits {
            return malformed("the records that come are of another kind or number");
        }
        added.verify().map_err(DeltaError::Added)
    }

    /// Images whose records go, in the order of their ids.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = ImageId> {
        self.removed.iter().map(|id| ImageId(*id))
    }

    /// The records that come; `None` if some only go.
    #[must_use]
    pub fn added(&self) -> Option<&Gallery<'a>> {
        self.added.as_ref()
    }

    /// The gallery that `base` becomes, not yet laid out. With `compact`, no removed row
    /// stays; otherwise records that go become removed rows, and every other row keeps its
    /// number.
    ///
    /// # Errors
    /// If the delta begins from another content than `base` holds, or was already applied.
    pub fn apply<'p>(
        &'p self,
        base: &'p Gallery<'a>,
        compact: bool,
    ) -> Result<Applied<'p, 'a>, DeltaError> {
        let header = &self.header;
        let same_kind = Header {
            space: header.space,
            dim: header.dim,
            codes: header.codes,
        };
        same_kind.check(base)?;
        let holds = base.content().map_err(DeltaError::Gallery)?;
        if holds == header.result {
            let result = holds.short();
            return Err(DeltaError::AlreadyApplied { result });
        }
        if holds != header.base {
            let (begins, holds) = (header.base.short(), holds.short());
            return Err(DeltaError::OtherBase { begins, holds });
        }
        let is_removed = self.removed_rows(base)?;
        let (mut records, is_removed) = if compact {
            let kept = Picked::of(vec![base], |_, row| !is_removed[row as usize]);
            (kept, Vec::new())
        } else {
            (Picked::all(base), is_removed)
        };
        if let Some(added) = &self.added {
            records = records.chain(Picked::all(added));
        }
        Ok(Applied {
            source: GallerySource {
                space: header.space,
                teacher: header.teacher.clone(),
                manifest: header.manifest,
                codes: header.codes,
            },
            result: header.result,
            records,
            is_removed,
        })
    }

    /// Which rows of `base` are removed once the delta is applied.
    fn removed_rows(&self, base: &Gallery<'_>) -> Result<Vec<bool>, DeltaError> {
        let mut is_there = vec![false; self.removed.len()];
        let mut is_removed = Vec::with_capacity(base.n_rows() as usize);
        for row in 0..base.n_rows() {
            let goes = match self.removed.binary_search(&base.id(row).0) {
                Ok(at) if !base.is_removed(row) => {
                    is_there[at] = true;
                    true
                }
                _ => false,
            };
            is_removed.push(goes || base.is_removed(row));
        }
        match is_there.iter().position(|is_there| !is_there) {
            None => Ok(is_removed),
            Some(at) => Err(DeltaError::NotThere {
                id: ImageId(self.removed[at]),
            }),
        }
    }
}

/// What a delta makes of a gallery.
pub struct Applied<'p, 'a> {
    source: GallerySource,
    result: Fingerprint,
    records: Picked<'p, 'a>,
    /// By record; those beyond its end are not removed.
    is_removed: Vec<bool>,
}

impl<'p, 'a> Applied<'p, 'a> {
    /// Number of rows, those that are removed included.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.records.n_records()
    }

    /// Number of removed rows.
    #[must_use]
    pub fn n_removed(&self) -> usize {
        self.is_removed.iter().filter(|removed| **removed).count()
    }

    /// The new gallery, ready to be written: its content is the one that the delta names.
    ///
    /// # Errors
    /// If it is another, because the delta or the gallery is damaged.
    pub fn plan(&self) -> Result<Plan<'_, Picked<'p, 'a>>, DeltaError> {
        let is_removed = |idx: usize| self.is_removed.get(idx) == Some(&true);
        let plan = Plan::with_removed(&self.source, &self.records, is_removed)
            .map_err(DeltaError::Gallery)?;
        match plan.header().content {
            Some(found) if found == self.result => Ok(plan),
            found => Err(DeltaError::OtherResult {
                expected: self.result.short(),
                found: found.map_or_else(String::new, |found| found.short()),
            }),
        }
    }
}

/// What a gallery must be of.
struct Header {
    space: SpaceId,
    dim: u32,
    codes: Codes,
}

impl Header {
    fn check(&self, gallery: &Gallery<'_>) -> Result<(), DeltaError> {
        let found = &gallery.header;
        if self.space != found.space {
            let (delta, gallery) = (self.space, found.space);
            return Err(DeltaError::OtherSpace { delta, gallery });
        }
        if self.dim != found.dim {
            let (delta, gallery) = (self.dim, found.dim);
            return Err(DeltaError::OtherDim { delta, gallery });
        }
        if self.codes != found.codes {
            let (delta, gallery) = (self.codes, found.codes);
            return Err(DeltaError::OtherCodes { delta, gallery });
        }
        Ok(())
    }
}

fn malformed<T>(what: impl Into<String>) -> Result<T, DeltaError> {
    let what = what.into();
    Err(DeltaError::Malformed { what })
}

#[cfg(test)]
mod tests;
