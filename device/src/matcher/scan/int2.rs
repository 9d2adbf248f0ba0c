//! The scan of 2-bit codes by table look-ups: a nibble of codes stands for 4 components of
//! one plane, and what they add to the sum was computed beforehand for the query.

use eyas_shared::gallery::Int2Codes;
use eyas_shared::gallery::codes::INT2_BLOCK;
use eyas_shared::gallery::rotation;

use super::{Estimates, Kernel};
use crate::matcher::kernel::{Int2Query, Tile};

/// Estimates scores from 2-bit codes.
pub(super) struct Int2Scan<'a> {
    codes: Int2Codes<'a>,
    kernel: Kernel,
    queries: Vec<Int2Query>,
}

impl<'a> Int2Scan<'a> {
    pub(super) fn new(codes: Int2Codes<'a>, kernel: Kernel, queries: &[&[f32]]) -> Self {
        let rotated = |query: &&[f32]| {
            let mut rotated = query.to_vec();
            rotated.resize(8 * codes.columns, 0.0);
            rotation::rotate(&mut rotated);
            Int2Query::new(&rotated)
        };
        Self {
            codes,
            kernel,
            queries: queries.iter().map(rotated).collect(),
        }
    }
}

impl Estimates for Int2Scan<'_> {
    fn estimate(&mut self, first_row: usize, n_rows: usize, tiles: &mut [Tile]) {
        let n_rows = n_rows.next_multiple_of(INT2_BLOCK);
        let row_bytes = self.codes.columns;
        let planes = { self.codes.planes }
            .map(|plane| &plane[first_row * row_bytes..][..n_rows * row_bytes]);
        let factors = &self.codes.factors[1][first_row..][..n_rows];
        for (query, tile) in self.queries.iter().zip(tiles) {
            self.kernel.int2(planes, factors, query, tile);
        }
    }
}
