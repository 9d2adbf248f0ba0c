//! The gallery: embeddings that are searched, with the names and labels of their images.
//!
//! A [`Gallery`] borrows its rows from the file's bytes, usually a memory map, and is
//! searched as it lies. [`Gallery::open`] takes the same time for every size;
//! [`Gallery::verify`] reads everything once and belongs before the first use of a file
//! that came from elsewhere.
//!
//! Records are known by the identity of their image. [`Plan`] lays galleries out, from
//! fresh embeddings or from records of other galleries, whose stored bytes it keeps;
//! [`delta`] is what turns one gallery into another.
//!
//! Nothing is read as a number but through little-endian conversion, so neither the
//! machine's byte order nor the alignment of the bytes matters for what is read.

pub mod codes;
pub mod delta;
pub mod int8;
pub mod rotation;

mod content;
mod reader;
mod records;
mod strings;
mod writer;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use codes::{Codes, EncodedRow, RowEncoding};
pub use int8::Int8Codes;
pub use reader::{Gallery, Int2Codes};
pub use records::{Fresh, Picked, Records, RowFault, Rows, encode};
pub use writer::{GallerySource, Plan, write};

use crate::container::{ContainerError, Tag};
use crate::fingerprint::{Fingerprint, ImageId, SpaceId};

/// The newest gallery version: where halves of int8 codes lie apart. A gallery without such
/// codes is written as an older version, which is the same otherwise.
pub const VERSION: u16 = 4;
/// The newest version whose int8 codes lie whole; since then low bits of `int2` lie row by row.
const VERSION_OF_WHOLE_INT8: u16 = 3;
/// The newest version whose low bits of `int2` lie in blocks.
const VERSION_OF_INT2_BLOCKS: u16 = 2;

/// The version that a gallery of these codes is written as.
#[must_use]
pub fn written_version(codes: Codes) -> u16 {
    match codes {
        Codes { int8: true, .. } => VERSION,
        Codes { int2: true, .. } => VERSION_OF_WHOLE_INT8,
        _ => VERSION_OF_INT2_BLOCKS,
    }
}

/// Begins the header since version 2: the first bytes of the SHA-256 of [`SCHEMA`]. It is
/// compared before anything is decoded, because postcard does not say what it holds.
const SCHEMA_KEY: [u8; 8] = [159, 128, 17, 147, 242, 130, 176, 109];

/// The fields of [`GalleryHeader`] as they are stored.
#[cfg(test)]
const SCHEMA: &str = "eyas gallery 2: space [u8; 32], dim u32, n_rows u32, n_removed u32, \
    n_labels u32, codes { int2 bool, int8 bool, rows option { f32, f16 } }, teacher string, \
    manifest [u8; 32], content option [u8; 32]";

const ROWS: Tag = *b"ROWS";
const INT8: Tag = *b"INT8";
const INT8_SCALES: Tag = *b"SCL8";
const INT8_LOW: Tag = *b"LOW8";
const INT2: Tag = *b"INT2";
const INT2_FACTORS: Tag = *b"FAC2";
const INT2_LOW: Tag = *b"LOW2";
const IDS: Tag = *b"IDS ";
const LABEL_OF_ROW: Tag = *b"LROW";
const LABELS: Tag = *b"LABL";
const NAMES: Tag = *b"NAME";
const THUMBNAILS: Tag = *b"THMB";
const REMOVED: Tag = *b"GONE";

/// What a gallery says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GalleryHeader {
    /// The teacher's space that its rows live in.
    pub space: SpaceId,
    /// Components of a row.
    pub dim: u32,
    /// Number of rows, those that were removed included.
    pub n_rows: u32,
    /// Rows that were removed and wait for compaction; never found.
    pub n_removed: u32,
    /// Number of different labels.
    pub n_labels: u32,
    /// How rows are stored.
    pub codes: Codes,
    /// Name of the teacher that embedded them.
    pub teacher: String,
    /// Fingerprint of the manifest that lists the images.
    pub manifest: Fingerprint,
    /// What the gallery holds, whatever the order of its rows: names the state that a
    /// delta begins from. Missing in version 1.
    pub content: Option<Fingerprint>,
}

/// The header of version 1.
#[derive(Deserialize)]
struct HeaderV1 {
    space: SpaceId,
    dim: u32,
    n_rows: u32,
    n_labels: u32,
    encoding: RowEncoding,
    teacher: String,
    manifest: Fingerprint,
}

impl From<HeaderV1> for GalleryHeader {
    fn from(old: HeaderV1) -> Self {
        Self {
            space: old.space,
            dim: old.dim,
            n_rows: old.n_rows,
            n_removed: 0,
            n_labels: old.n_labels,
            codes: old.encoding.into(),
            teacher: old.teacher,
            manifest: old.manifest,
            content: None,
        }
    }
}

/// Why a gallery can not be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GalleryError {
    /// The file is not whole, or not a gallery.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A section of another length than the header implies.
    #[error("gallery section `{section}` has {found} bytes where {expected} belong")]
    SectionLength {
        /// Its name.
        section: &'static str,
        /// Bytes that the header implies.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The header makes no sense.
    #[error("the gallery's header makes no sense: {what}")]
    Header {
        /// How.
        what: String,
    },
    /// One image in two rows.
    #[error("image {id} occurs twice, in rows {first} and {second}")]
    Twice {
        /// Its identity.
        id: ImageId,
        /// One row.
        first: u32,
        /// The other.
        second: u32,
    },
    /// The header's name of the content does not fit what is there.
    #[error("the gallery's content is {found}, its header says {expected}")]
    OtherContent {
        /// Short fingerprint in the header.
        expected: String,
        /// Short fingerprint of the records.
        found: String,
    },
    /// An embedding that can not be read.
    #[error("gallery row {row_idx}: the embedding can not be read: {why}")]
    Unreadable {
        /// Which row.
        row_idx: u32,
        /// What the system answered.
        why: String,
    },
    /// A row's content makes no sense.
    #[error("gallery row {row_idx}: {what}")]
    Row {
        /// Which row.
        row_idx: u32,
        /// What is wrong.
        what: &'static str,
    },
}

/// One image of a gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Identity of its file's content.
    pub id: ImageId,
    /// What it shows.
    pub label: &'a str,
    /// Where it came from, such as a path relative to the data's folder.
    pub name: &'a str,
}

#[cfg(test)]
mod tests;
