//! What galleries are made of: fresh embeddings, or records of galleries that exist.

use std::io;

use thiserror::Error;

use super::{Codes, EncodedRow, Entry, Gallery};
use crate::embedding::{Embeddings, MIN_NORM, l2_normalize};

/// Embeddings that are read a row at a time, wherever they lie.
pub trait Rows {
    /// Components of a row.
    fn dim(&self) -> usize;
    /// Number of rows.
    fn n_rows(&self) -> usize;
    /// Writes one row, which need not have length 1.
    ///
    /// # Errors
    /// If it lies somewhere that can not be read.
    fn read(&self, row_idx: usize, row: &mut [f32]) -> io::Result<()>;
}

impl Rows for Embeddings {
    fn dim(&self) -> usize {
        self.dim()
    }

    fn n_rows(&self) -> usize {
        self.n_rows()
    }

    fn read(&self, row_idx: usize, row: &mut [f32]) -> io::Result<()> {
        row.copy_from_slice(self.row(row_idx));
        Ok(())
    }
}

/// Rows of a gallery that exists, from the most exact of its codes.
impl Rows for Gallery<'_> {
    fn dim(&self) -> usize {
        self.dim()
    }

    fn n_rows(&self) -> usize {
        self.n_rows() as usize
    }

    fn read(&self, row_idx: usize, row: &mut [f32]) -> io::Result<()> {
        self.row_into(row_idx as u32, row);
        Ok(())
    }
}

/// Why a record has no row.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowFault {
    /// It is no unit vector and can not be made one.
    #[error("the embedding has no direction (all zero, or not finite)")]
    NoDirection,
    /// It lies somewhere that can not be read.
    #[error("the embedding can not be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// What a gallery is made of. Everything is asked for several times, in order, and must be
/// the same each time.
pub trait Records {
    /// Components of a row.
    fn dim(&self) -> usize;
    /// Number of records.
    fn n_records(&self) -> usize;
    /// The image of a record; `None` if its strings are damaged.
    fn entry(&self, idx: usize) -> Option<Entry<'_>>;
    /// A small picture, empty if there is none.
    fn thumbnail(&self, idx: usize) -> &[u8];
    /// The row of a gallery with these codes. Only the codes in `part` are asked for; the
    /// others may stay empty.
    ///
    /// # Errors
    /// If there is no such row.
    fn encoded(&self, idx: usize, codes: Codes, part: Codes) -> Result<EncodedRow, RowFault>;
}

/// Embeddings that are encoded as they are asked for. Row `i` belongs to `entries[i]`; rows
/// are scaled to length 1.
pub struct Fresh<'r, R> {
    /// The embeddings.
    pub rows: &'r R,
    /// Their images.
    pub entries: &'r [Entry<'r>],
    /// Their pictures; none, or one for each.
    pub thumbnails: &'r [Vec<u8>],
}

impl<R: Rows> Records for Fresh<'_, R> {
    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn n_records(&self) -> usize {
        self.entries.len()
    }

    fn entry(&self, idx: usize) -> Option<Entry<'_>> {
        Some(self.entries[idx])
    }

    fn thumbnail(&self, idx: usize) -> &[u8] {
        self.thumbnails.get(idx).map_or(&[], Vec::as_slice)
    }

    fn encoded(&self, idx: usize, _: Codes, part: Codes) -> Result<EncodedRow, RowFault> {
        encode(self.rows, idx, part)
    }
}

/// Reads one of these rows, scales it to length 1 and encodes it.
///
/// # Errors
/// If it can not be read or has no direction.
pub fn encode(rows: &impl Rows, idx: usize, part: Codes) -> Result<EncodedRow, RowFault> {
    let mut row = vec![0.0; rows.dim()];
    rows.read(idx, &mut row)?;
    if !row.iter().all(|x| x.is_finite()) || row.iter().all(|x| x.abs() < MIN_NORM) {
        return Err(RowFault::NoDirection);
    }
    l2_normalize(&mut row);
    Ok(EncodedRow::of(&row, part))
}

/// Records of galleries that exist. In the same codes their stored bytes are kept; in other
/// codes they are encoded from the most exact one that there is.
pub struct Picked<'p, 'a> {
    galleries: Vec<&'p Gallery<'a>>,
    /// Gallery and row of each record.
    rows: Vec<(u32, u32)>,
}

impl<'p, 'a> Picked<'p, 'a> {
    /// Every row of one gallery, those that were removed included.
    #[must_use]
    pub fn all(gallery: &'p Gallery<'a>) -> Self {
        Self {
            galleries: vec![gallery],
            rows: (0..gallery.n_rows()).map(|row| (0, row)).collect(),
        }
    }

    /// The rows of several galleries of one dimension that were not removed and that `keep`
    /// wants, asked with the gallery's number and the row.
    ///
    /// # Panics
    /// If the galleries differ in dimension, or there are none.
    #[must_use]
    pub fn of(galleries: Vec<&'p Gallery<'a>>, keep: impl Fn(usize, u32) -> bool) -> Self {
        let dims: Vec<usize> = galleries.iter().map(|gallery| gallery.dim()).collect();
        assert!(
            dims.windows(2).all(|dims| dims[0] == dims[1]),
            "galleries of {dims:?} components"
        );
        let mut rows = Vec::new();
        for (number, gallery) in galleries.iter().enumerate() {
            let kept =
                (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row) && keep(number, *row));
            rows.extend(kept.map(|row| (number as u32, row)));
        }
        Self { galleries, rows }
    }

    /// Appends the rows of `other`, which must have the same dimension.
    #[must_use]
    pub fn chain(mut self, other: Self) -> Self {
        let shift = self.galleries.len() as u32;
        self.galleries.extend(other.galleries);
        let shifted = other
            .rows
            .into_iter()
            .map(|(gallery, row)| (gallery + shift, row));
        self.rows.extend(shifted);
        self
    }

    fn place(&self, idx: usize) -> (&'p Gallery<'a>, u32) {
        let (gallery, row) = self.rows[idx];
        (self.galleries[gallery as usize], row)
    }
}

impl Records for Picked<'_, '_> {
    fn dim(&self) -> usize {
        self.galleries[0].dim()
    }

    fn n_records(&self) -> usize {
        self.rows.len()
    }

    fn entry(&self, idx: usize) -> Option<Entry<'_>> {
        let (gallery, row) = self.place(idx);
        gallery.entry(row)
    }

    fn thumbnail(&self, idx: usize) -> &[u8] {
        let (gallery, row) = self.place(idx);
        gallery.thumbnail(row).unwrap_or_default()
    }

    fn encoded(&self, idx: usize, codes: Codes, part: Codes) -> Result<EncodedRow, RowFault> {
        let (gallery, row_idx) = self.place(idx);
        if gallery.codes() == codes {
            return Ok(gallery.stored_row(row_idx, part));
        }
        encode(gallery, row_idx as usize, part)
    }
}
