//! The scan of int8 codes: each estimate is off by the rounding of a query and of a row.

use eyas_shared::gallery::Int8Codes;
use eyas_shared::gallery::codes::INT8_BLOCK;

use super::{Estimates, Kernel};
use crate::matcher::kernel::{Int8Query, Tile};

/// Estimates scores from int8 codes.
pub(super) struct Int8Scan<'a> {
    codes: Int8Codes<'a>,
    kernel: Kernel,
    queries: Vec<Int8Query>,
}

impl<'a> Int8Scan<'a> {
    pub(super) fn new(codes: Int8Codes<'a>, kernel: Kernel, queries: &[&[f32]]) -> Self {
        let queries = queries.iter();
        Self {
            queries: queries
                .map(|query| Int8Query::new(query, codes.columns))
                .collect(),
            codes,
            kernel,
        }
    }
}

impl Estimates for Int8Scan<'_> {
    fn estimate(&mut self, first_row: usize, n_rows: usize, tiles: &mut [Tile]) {
        let n_rows = n_rows.next_multiple_of(INT8_BLOCK);
        let row_bytes = 4 * self.codes.columns;
        let codes = &self.codes.codes[first_row * row_bytes..][..n_rows * row_bytes];
        let scales = &self.codes.scales[first_row..][..n_rows];
        self.kernel.int8(codes, scales, &self.queries, tiles);
    }
}
