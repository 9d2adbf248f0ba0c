//! The scan of int8 codes: each estimate is off by the rounding of a query and of a row, so
//! that the best are among few rows of the highest estimates.

use std::ops::Range;

use eyas_shared::gallery::codes::INT8_BLOCK;
use eyas_shared::gallery::{Gallery, Int8Codes};

pub(super) use super::candidates::Candidates;
use super::{Kernel, Query};
use crate::matcher::kernel::{Int8Query, Tile};

/// Rows whose estimates are computed before they are looked at: their sums and scores stay
/// in the first-level cache.
const TILE_ROWS: usize = 1024;

/// Rows that are scored for an answer of `k`: measured so that about one in a thousand of the
/// ten best is missed (`models/results/search.md`).
pub(super) fn n_candidates(k: usize) -> usize {
    k.saturating_mul(2).saturating_add(12)
}

/// Estimates scores from int8 codes.
pub(super) struct Int8Scan<'a> {
    gallery: &'a Gallery<'a>,
    codes: Int8Codes<'a>,
    kernel: Kernel,
    n_candidates: usize,
}

impl<'a> Int8Scan<'a> {
    pub(super) fn new(
        gallery: &'a Gallery<'a>,
        codes: Int8Codes<'a>,
        kernel: Kernel,
        k: usize,
    ) -> Self {
        Self {
            gallery,
            codes,
            kernel,
            n_candidates: n_candidates(k),
        }
    }

    /// The rows of the highest estimates among some, for each query. The range begins with a
    /// block and ends with one or with the gallery.
    pub(super) fn scan(&self, queries: &[Query<'_>], rows: Range<usize>) -> Vec<Candidates> {
        let quantized = |query: &Query<'_>| Int8Query::new(query.embedding, self.codes.columns);
        let quantized: Vec<Int8Query> = queries.iter().map(quantized).collect();
        let mut best = vec![Candidates::new(self.n_candidates); queries.len()];
        let mut tiles: Vec<Tile> = queries.iter().map(|_| Tile::new()).collect();
        for first_row in rows.clone().step_by(TILE_ROWS) {
            let end = rows.end.min(first_row + TILE_ROWS);
            self.estimate(first_row..end, &quantized, &mut tiles);
            for ((query, best), tile) in queries.iter().zip(&mut best).zip(&mut tiles) {
                tile.for_hits(|row, score| {
                    let row = first_row + row;
                    // What fills the last block is no row.
                    if row < end && query.accepts(self.gallery, row as u32) {
                        best.offer(row as u32, score);
                    }
                });
                tile.threshold = best.threshold();
            }
        }
        best
    }

    fn estimate(&self, rows: Range<usize>, queries: &[Int8Query], tiles: &mut [Tile]) {
        let padded = rows.start..rows.end.next_multiple_of(INT8_BLOCK);
        let row_bytes = 4 * self.codes.columns;
        let codes = &self.codes.codes[padded.start * row_bytes..padded.end * row_bytes];
        self.kernel
            .int8(codes, &self.codes.scales[padded], queries, tiles);
    }
}
