//! int8 codes as galleries hold them: each in two halves, so that a scan reads one of them.
//!
//! A code plus 128 is a byte, `16 high + low`. High halves are read of every row; they lie in
//! blocks of [`INT8_BLOCK`] rows, `columns` units of 64 bytes each: 4 bytes for each of the 16
//! rows, byte `j` of unit `u` with the halves of components `8 u + j` and, in its upper bits,
//! `8 u + 4 + j`. Low halves are read of few rows, so they lie row by row: `4 columns` bytes,
//! byte `j` with those of components `j` and, in its upper bits, `4 columns + j`.

use std::ops::Range;

use super::codes::INT8_BLOCK;
use super::reader::sized;
use super::{GalleryError, INT8, INT8_LOW, INT8_SCALES, VERSION_OF_WHOLE_INT8};
use crate::container::Container;

/// What a low half is compared with: a code is `16 high + low - 128`, about
/// `16 high + 8 - 128`.
pub const MIDDLE: i32 = 8;

/// Units of 8 components in a row of halves.
#[must_use]
pub fn int8_columns(dim: usize) -> usize {
    dim.div_ceil(8)
}

fn high(code: i8) -> u8 {
    (code.cast_unsigned() ^ 0x80) >> 4
}

fn low(code: i8) -> u8 {
    code.cast_unsigned() & 15
}

/// High halves of one row as its parts of the units of a block, one after the other; missing
/// ones are 0.
pub(super) fn high_row(codes: &[i8]) -> Vec<u8> {
    let units = codes.chunks(8);
    units.flat_map(|codes| paired(codes, 4, high)).collect()
}

/// Low halves of one row as they lie; missing ones are 0.
pub(super) fn low_row(codes: &[i8]) -> impl Iterator<Item = u8> {
    paired(codes, 4 * int8_columns(codes.len()), low)
}

/// Halves of up to `2 n` codes in `n` bytes: those of the first `n` in the lower bits.
fn paired(codes: &[i8], n: usize, half: fn(i8) -> u8) -> impl Iterator<Item = u8> {
    let at = move |i: usize| codes.get(i).map_or(0, |code| half(*code));
    (0..n).map(move |j| at(j) | at(n + j) << 4)
}

/// int8 codes of a gallery.
#[derive(Clone, Copy)]
pub struct Int8Codes<'a> {
    /// One little-endian f32 a row, padded to whole blocks with 0.
    pub scales: &'a [[u8; 4]],
    /// Units of high halves in a block: 8 components each.
    columns: usize,
    layout: Layout<'a>,
}

#[derive(Clone, Copy)]
enum Layout<'a> {
    Halves {
        high: &'a [u8],
        low: &'a [u8],
    },
    /// Before version 4: blocks of `columns` units of 4 components, a byte each.
    Whole {
        codes: &'a [u8],
        columns: usize,
    },
}

impl<'a> Int8Codes<'a> {
    pub(super) fn open(
        container: &Container<'a>,
        dim: usize,
        n_rows: u64,
    ) -> Result<Self, GalleryError> {
        let columns = int8_columns(dim);
        let n_padded = n_rows.next_multiple_of(INT8_BLOCK as u64);
        let sized = |section, tag, n_bytes| sized(container, section, tag, n_bytes);
        let layout = if container.version <= VERSION_OF_WHOLE_INT8 {
            let columns = dim.div_ceil(4);
            Layout::Whole {
                codes: sized("int8 codes", INT8, n_padded * 4 * columns as u64)?,
                columns,
            }
        } else {
            let row_bytes = 4 * columns as u64;
            Layout::Halves {
                high: sized("int8 codes", INT8, n_padded * row_bytes)?,
                low: sized("low halves", INT8_LOW, n_rows * row_bytes)?,
            }
        };
        Ok(Self {
            scales: sized("int8 scales", INT8_SCALES, n_padded * 4)?
                .as_chunks()
                .0,
            columns,
            layout,
        })
    }

    /// What a scan reads of every row, beside scales: high halves, or all that
    /// there is where a file does not hold them apart.
    #[must_use]
    pub fn scanned(&self) -> &'a [u8] {
        match self.layout {
            Layout::Halves { high, .. } => high,
            Layout::Whole { codes, .. } => codes,
        }
    }

    /// High halves of whole blocks, which `room` may hold.
    ///
    /// # Panics
    /// If there are no such rows, or they do not begin and end with a block.
    pub fn high<'r>(&self, rows: Range<usize>, room: &'r mut Vec<u8>) -> &'r [u8]
    where
        'a: 'r,
    {
        assert!(rows.start.is_multiple_of(INT8_BLOCK) && rows.end.is_multiple_of(INT8_BLOCK));
        let bytes = |row_bytes: usize| row_bytes * rows.start..row_bytes * rows.end;
        match self.layout {
            Layout::Halves { high, .. } => &high[bytes(4 * self.columns)],
            Layout::Whole { codes, columns } => {
                room.clear();
                let (units, _) = codes[bytes(4 * columns)].as_chunks::<UNIT>();
                for block in units.chunks_exact(columns) {
                    for pair in block.chunks(2) {
                        let second = pair.get(1).unwrap_or(&NO_CODES);
                        room.extend(
                            pair[0]
                                .iter()
                                .zip(second)
                                .map(|(a, b)| high_of_both(*a, *b)),
                        );
                    }
                }
                room
            }
        }
    }

    /// Low halves of a row; `None` if the file does not hold them together.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn stored_low_row(&self, row_idx: u32) -> Option<&'a [u8]> {
        match self.layout {
            Layout::Halves { low, .. } => Some(self.row_of(low, row_idx)),
            Layout::Whole { .. } => None,
        }
    }

    /// Low halves of a row, which `room` may hold: `4 columns` bytes.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn low_row<'r>(&self, row_idx: u32, room: &'r mut Vec<u8>) -> &'r [u8]
    where
        'a: 'r,
    {
        match self.layout {
            Layout::Halves { low, .. } => self.row_of(low, row_idx),
            Layout::Whole { columns, .. } => {
                let codes: Vec<i8> = self.codes(row_idx as usize, 4 * columns).collect();
                room.clear();
                room.extend(low_row(&codes));
                room
            }
        }
    }

    fn row_of(&self, low: &'a [u8], row_idx: u32) -> &'a [u8] {
        let row_bytes = 4 * self.columns;
        &low[row_idx as usize * row_bytes..][..row_bytes]
    }

    /// The first `n` codes of a row.
    ///
    /// # Panics
    /// If there is no such row, or it has fewer.
    pub(super) fn codes(&self, row: usize, n: usize) -> impl Iterator<Item = i8> {
        let layout = self.layout;
        let columns = self.columns;
        let (block, in_block) = (row / INT8_BLOCK, row % INT8_BLOCK);
        let byte = move |bytes: &[u8], columns: usize, unit: usize, j: usize| {
            bytes[((block * columns + unit) * INT8_BLOCK + in_block) * 4 + j]
        };
        (0..n).map(move |i| match layout {
            Layout::Whole { codes, columns } => byte(codes, columns, i / 4, i % 4).cast_signed(),
            Layout::Halves { high, low } => {
                let high = byte(high, columns, i / 8, i % 4) >> (i % 8 / 4 * 4) & 15;
                let half = 4 * columns;
                let low = low[row * half + i % half] >> (i / half * 4) & 15;
                ((high << 4 | low) ^ 0x80).cast_signed()
            }
        })
    }
}

/// Bytes of a unit of a block, of high halves or of whole codes.
const UNIT: usize = 4 * INT8_BLOCK;

/// A unit whose codes plus 128 are 0.
const NO_CODES: [u8; UNIT] = [0x80; UNIT];

/// High halves of two codes in one byte.
fn high_of_both(first: u8, second: u8) -> u8 {
    high(first.cast_signed()) | high(second.cast_signed()) << 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_lie_where_the_layout_says() {
        // Codes plus 128: 0x8a, 0x01, 0xff, ...; nine of them are two columns.
        let bytes = [0x8a, 0x01, 0xff, 0x70, 0x2b, 0xc4, 0x13, 0x9e, 0x56];
        let codes = bytes.map(|byte: u8| (byte ^ 0x80).cast_signed());
        assert_eq!(
            high_row(&codes),
            [0x28, 0xc0, 0x1f, 0x97, 0x05, 0x00, 0x00, 0x00]
        );
        assert_eq!(
            low_row(&codes).collect::<Vec<_>>(),
            [0x6a, 0x01, 0x0f, 0x00, 0x0b, 0x04, 0x03, 0x0e]
        );
        for first in [3, 0x7f, 0xff] {
            let second = 0xb5;
            let high = high_of_both(first ^ 0x80, second ^ 0x80);
            assert_eq!(high, 0xb0 | first >> 4);
        }
    }
}
