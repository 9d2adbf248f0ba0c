//! The gallery: embeddings that are searched, with the names and labels of their images.
//!
//! A [`Gallery`] borrows its rows from the file's bytes, usually a memory map, and is
//! searched as it lies. [`Gallery::open`] takes the same time for every size;
//! [`Gallery::verify`] reads everything once and belongs before the first use of a file
//! that came from elsewhere.

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::container::{self, Container, ContainerError, Kind, Tag};
use crate::embedding::{Embeddings, MAX_DIM};
use crate::fingerprint::{Fingerprint, ImageId, SpaceId};
use crate::quant;

/// The newest gallery version, and the one that is written.
pub const VERSION: u16 = 1;

const ROWS: Tag = *b"ROWS";
const IDS: Tag = *b"IDS ";
const LABEL_OF_ROW: Tag = *b"LROW";
const LABELS: Tag = *b"LABL";
const NAMES: Tag = *b"NAME";

/// How gallery rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowEncoding {
    /// 4 bytes a component.
    F32,
    /// 2 bytes a component, rounded to the nearest.
    F16,
}

impl RowEncoding {
    /// Bytes of one component.
    #[must_use]
    pub fn component_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl std::fmt::Display for RowEncoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

/// What a gallery says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GalleryHeader {
    /// The teacher's space that its rows live in.
    pub space: SpaceId,
    /// Components of a row.
    pub dim: u32,
    /// Number of rows.
    pub n_rows: u32,
    /// Number of different labels.
    pub n_labels: u32,
    /// How rows are stored.
    pub encoding: RowEncoding,
    /// Name of the teacher that embedded them.
    pub teacher: String,
    /// Fingerprint of the manifest that lists the images.
    pub manifest: Fingerprint,
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

/// `n` strings: `n + 1` little-endian u32 offsets, then UTF-8 text.
#[derive(Clone, Copy)]
struct Strings<'a> {
    offsets: &'a [[u8; 4]],
    text: &'a [u8],
}

impl<'a> Strings<'a> {
    fn open(section: &'static str, bytes: &'a [u8], n: u32) -> Result<Self, GalleryError> {
        let table = 4 * (u64::from(n) + 1);
        let too_short = GalleryError::SectionLength {
            section,
            expected: table,
            found: bytes.len() as u64,
        };
        let split = usize::try_from(table)
            .ok()
            .and_then(|table| bytes.split_at_checked(table));
        let (offsets, text) = split.ok_or(too_short)?;
        Ok(Self {
            offsets: offsets.as_chunks().0,
            text,
        })
    }

    fn get(&self, idx: u32) -> Option<&'a str> {
        let idx = idx as usize;
        let start = u32::from_le_bytes(*self.offsets.get(idx)?) as usize;
        let end = u32::from_le_bytes(*self.offsets.get(idx + 1)?) as usize;
        std::str::from_utf8(self.text.get(start..end)?).ok()
    }

    fn write<'s>(strings: impl Iterator<Item = &'s str>) -> Vec<u8> {
        let mut offsets = vec![0; 4];
        let mut text = Vec::new();
        for string in strings {
            text.extend_from_slice(string.as_bytes());
            let end = u32::try_from(text.len()).expect("less than 4 GiB of names");
            offsets.extend_from_slice(&end.to_le_bytes());
        }
        offsets.extend_from_slice(&text);
        offsets
    }
}

/// A gallery whose frame was checked, borrowing from its bytes.
pub struct Gallery<'a> {
    /// What the gallery says of itself.
    pub header: GalleryHeader,
    container: Container<'a>,
    rows: &'a [u8],
    ids: &'a [[u8; 16]],
    label_of_row: &'a [[u8; 4]],
    labels: Strings<'a>,
    names: Strings<'a>,
}

impl<'a> Gallery<'a> {
    /// Checks the frame, the header and the length of every section; independent of the
    /// number of rows.
    ///
    /// # Errors
    /// [`GalleryError`] says what does not fit.
    pub fn open(bytes: &'a [u8]) -> Result<Self, GalleryError> {
        let container = Container::read(bytes, Kind::Gallery, VERSION)?;
        let header: GalleryHeader = container::read_header(&container)?;
        if !(1..=MAX_DIM).contains(&(header.dim as usize)) {
            let what = format!("dimension {} is not in 1..={MAX_DIM}", header.dim);
            return Err(GalleryError::Header { what });
        }
        if header.n_rows == 0 || header.n_labels == 0 || header.n_labels > header.n_rows {
            let what = format!("{} rows with {} labels", header.n_rows, header.n_labels);
            return Err(GalleryError::Header { what });
        }
        let sized = |section: &'static str, tag: Tag, row_bytes: u64| {
            let data = container.section(tag)?;
            let expected = u64::from(header.n_rows) * row_bytes;
            if data.len() as u64 == expected {
                Ok(data)
            } else {
                let found = data.len() as u64;
                Err(GalleryError::SectionLength {
                    section,
                    expected,
                    found,
                })
            }
        };
        let row_bytes = u64::from(header.dim) * header.encoding.component_bytes() as u64;
        Ok(Self {
            rows: sized("rows", ROWS, row_bytes)?,
            ids: sized("ids", IDS, 16)?.as_chunks().0,
            label_of_row: sized("label of row", LABEL_OF_ROW, 4)?.as_chunks().0,
            labels: Strings::open("labels", container.section(LABELS)?, header.n_labels)?,
            names: Strings::open("names", container.section(NAMES)?, header.n_rows)?,
            header,
            container,
        })
    }

    /// Reads everything once: checksums, strings, label numbers, and that every row is a
    /// unit vector.
    ///
    /// # Errors
    /// [`GalleryError`] names the first section or row that does not fit.
    pub fn verify(&self) -> Result<(), GalleryError> {
        self.container.verify()?;
        for label_idx in 0..self.header.n_labels {
            if self.labels.get(label_idx).is_none() {
                let what = format!("label {label_idx} is not text");
                return Err(GalleryError::Header { what });
            }
        }
        let mut row = vec![0.0; self.dim()];
        for row_idx in 0..self.header.n_rows {
            let fault = |what| Err(GalleryError::Row { row_idx, what });
            if self.entry(row_idx).is_none() {
                return fault("its name or label is missing");
            }
            self.row_into(row_idx, &mut row);
            let norm: f32 = row.iter().map(|x| x * x).sum();
            // f16 rounding moves the squared length by less than 2^-10.
            if norm.is_nan() || (norm - 1.0).abs() > 2e-3 {
                return fault("it is not a unit vector");
            }
        }
        Ok(())
    }

    /// Components of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.header.dim as usize
    }

    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> u32 {
        self.header.n_rows
    }

    /// Writes one row, as f32, to `row`.
    ///
    /// # Panics
    /// If there is no such row or `row` is not `dim` long.
    pub fn row_into(&self, row_idx: u32, row: &mut [f32]) {
        assert_eq!(row.len(), self.dim(), "buffer of another dimension");
        self.rows_into(row_idx, row);
    }

    /// Writes as many rows as `rows` holds, as f32, starting with `first_row`.
    ///
    /// # Panics
    /// If the gallery ends before that.
    pub fn rows_into(&self, first_row: u32, rows: &mut [f32]) {
        let component_bytes = self.header.encoding.component_bytes();
        let start = first_row as usize * self.dim() * component_bytes;
        let bytes = &self.rows[start..][..rows.len() * component_bytes];
        match self.header.encoding {
            RowEncoding::F32 => {
                for (x, bytes) in rows.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
            RowEncoding::F16 => {
                // In pieces, so that the hardware conversion sees slices.
                let mut halves = [f16::ZERO; 64];
                for (out, bytes) in rows.chunks_mut(64).zip(bytes.chunks(128)) {
                    let halves = &mut halves[..out.len()];
                    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *half = f16::from_bits(u16::from_le_bytes(*bytes));
                    }
                    halves.convert_to_f32_slice(out);
                }
            }
        }
    }

    /// Identity of a row's image.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn id(&self, row_idx: u32) -> ImageId {
        ImageId(self.ids[row_idx as usize])
    }

    /// Number of a row's label, from 0 to `n_labels`; not checked against it.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn label_idx(&self, row_idx: u32) -> u32 {
        u32::from_le_bytes(self.label_of_row[row_idx as usize])
    }

    /// Text of a label; `None` if the number or the file is bad.
    #[must_use]
    pub fn label(&self, label_idx: u32) -> Option<&'a str> {
        self.labels.get(label_idx)
    }

    /// A row's image; `None` if there is no such row or its strings are damaged.
    #[must_use]
    pub fn entry(&self, row_idx: u32) -> Option<Entry<'a>> {
        if row_idx >= self.header.n_rows {
            return None;
        }
        let label = self.label(self.label_idx(row_idx))?;
        Some(Entry {
            id: self.id(row_idx),
            label,
            name: self.names.get(row_idx)?,
        })
    }

    /// Name and bytes of every section.
    pub fn sections(&self) -> impl Iterator<Item = (String, usize)> {
        self.container
            .sections()
            .map(|(name, data)| (name, data.len()))
    }
}

/// What goes into a new gallery beside its rows and entries.
#[derive(Clone, Debug)]
pub struct GallerySource {
    /// The space of the embeddings.
    pub space: SpaceId,
    /// Name of the teacher.
    pub teacher: String,
    /// Fingerprint of the manifest.
    pub manifest: Fingerprint,
    /// How rows are to be stored.
    pub encoding: RowEncoding,
}

/// Lays out a gallery. Row `i` of `embeddings` belongs to `entries[i]`; rows are scaled to
/// length 1. Labels are numbered in alphabetical order. The same input gives the same bytes.
///
/// # Errors
/// If a row has no direction, nothing is given, or rows and entries differ in number.
pub fn write(
    source: &GallerySource,
    embeddings: &Embeddings,
    entries: &[Entry<'_>],
) -> Result<Vec<u8>, GalleryError> {
    let n_rows = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    if entries.is_empty() || embeddings.n_rows() != entries.len() || n_rows == u32::MAX {
        let what = format!(
            "{} embeddings for {} images",
            embeddings.n_rows(),
            entries.len()
        );
        return Err(GalleryError::Header { what });
    }
    if let Some(row_idx) = embeddings.first_unusable_row() {
        let what = "the embedding has no direction (all zero, or not finite)";
        return Err(GalleryError::Row {
            row_idx: row_idx as u32,
            what,
        });
    }
    let mut unit = embeddings.clone();
    unit.normalize_rows();
    let rows = match source.encoding {
        RowEncoding::F32 => quant::f32_bytes(unit.values()),
        RowEncoding::F16 => quant::f16_bytes(&quant::to_f16(unit.values())),
    };

    let mut labels: Vec<&str> = entries.iter().map(|entry| entry.label).collect();
    labels.sort_unstable();
    labels.dedup();
    let label_of_row: Vec<u8> = entries
        .iter()
        .flat_map(|entry| {
            let label_idx = labels.binary_search(&entry.label).expect("collected above");
            (label_idx as u32).to_le_bytes()
        })
        .collect();
    let ids: Vec<u8> = entries.iter().flat_map(|entry| entry.id.0).collect();
    let header = GalleryHeader {
        space: source.space,
        dim: embeddings.dim() as u32,
        n_rows,
        n_labels: labels.len() as u32,
        encoding: source.encoding,
        teacher: source.teacher.clone(),
        manifest: source.manifest,
    };
    Ok(container::write(
        Kind::Gallery,
        VERSION,
        &header,
        &[
            (ROWS, &rows),
            (IDS, &ids),
            (LABEL_OF_ROW, &label_of_row),
            (LABELS, &Strings::write(labels.iter().copied())),
            (
                NAMES,
                &Strings::write(entries.iter().map(|entry| entry.name)),
            ),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(encoding: RowEncoding) -> Vec<u8> {
        let embeddings =
            Embeddings::from_values(3, vec![3.0, 4.0, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0, 0.0]).unwrap();
        let names = ["a.jpg", "b.jpg", "c.jpg"];
        let entries: Vec<Entry<'_>> = names
            .iter()
            .zip(["pear", "apple", "pear"])
            .map(|(name, label)| Entry {
                id: ImageId::of_file(name.as_bytes()),
                label,
                name,
            })
            .collect();
        let source = GallerySource {
            space: SpaceId(Fingerprint([7; 32])),
            teacher: "teacher".to_owned(),
            manifest: Fingerprint([1; 32]),
            encoding,
        };
        write(&source, &embeddings, &entries).unwrap()
    }

    #[test]
    fn rows_labels_and_names_come_back() {
        for (encoding, tolerance) in [(RowEncoding::F32, 1e-7), (RowEncoding::F16, 1e-3)] {
            let bytes = example(encoding);
            let gallery = Gallery::open(&bytes).unwrap();
            gallery.verify().unwrap();
            let mut row = [0.0; 3];
            gallery.row_into(0, &mut row);
            assert!((row[0] - 0.6).abs() < tolerance && (row[1] - 0.8).abs() < tolerance);
            assert_eq!(gallery.header.n_labels, 2);
            let entry = gallery.entry(1).unwrap();
            assert_eq!((entry.label, entry.name), ("apple", "b.jpg"));
            assert_eq!(entry.id, ImageId::of_file(b"b.jpg"));
            assert_eq!(gallery.entry(3), None);
        }
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_noticed() {
        let bytes = example(RowEncoding::F16);
        let accepted = |bytes: &[u8]| {
            Gallery::open(bytes)
                .and_then(|gallery| gallery.verify())
                .is_ok()
        };
        assert!(accepted(&bytes));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            assert!(!accepted(&damaged), "byte {at}");
            assert!(!accepted(&bytes[..at]), "first {at} bytes");
        }
    }

    #[test]
    fn embeddings_without_direction_are_refused() {
        let embeddings = Embeddings::from_values(2, vec![1.0, 0.0, 0.0, 0.0]).unwrap();
        let entry = Entry {
            id: ImageId([0; 16]),
            label: "a",
            name: "a",
        };
        let source = GallerySource {
            space: SpaceId(Fingerprint([7; 32])),
            teacher: String::new(),
            manifest: Fingerprint([1; 32]),
            encoding: RowEncoding::F32,
        };
        let message = write(&source, &embeddings, &[entry, entry])
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("gallery row 1:"), "{message}");
    }
}
