//! The scan of 2-bit codes by table look-ups: a nibble of codes stands for 4 components of
//! one plane, and what they add to the sum was computed beforehand for the query.

use eyas_shared::gallery::Int2Codes;
use eyas_shared::gallery::codes::INT2_BLOCK;
use eyas_shared::gallery::rotation;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{Estimates, Kernel, TILE_ROWS};
use crate::matcher::kernel::Int2Query;

/// Estimates scores from 2-bit codes.
pub(super) struct Int2Scan<'a> {
    codes: Int2Codes<'a>,
    kernel: Kernel,
    queries: Vec<Int2Query>,
    /// Factors of one tile.
    factors: Vec<f32>,
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
            factors: vec![0.0; TILE_ROWS],
        }
    }
}

impl Estimates for Int2Scan<'_> {
    fn estimate(&mut self, first_row: usize, n_rows: usize, scores: &mut [Vec<f32>]) {
        let n_rows = n_rows.next_multiple_of(INT2_BLOCK);
        let row_bytes = self.codes.columns;
        let planes = { self.codes.planes }
            .map(|plane| &plane[first_row * row_bytes..][..n_rows * row_bytes]);
        let factors = &mut self.factors[..n_rows];
        widen(&self.codes.factors[1][first_row..][..n_rows], factors);
        for (query, scores) in self.queries.iter().zip(scores) {
            self.kernel.int2(planes, factors, query, scores);
        }
    }
}

/// Widens little-endian f16 numbers.
fn widen(factors: &[[u8; 2]], out: &mut [f32]) {
    let mut halves = [f16::ZERO; TILE_ROWS];
    let halves = &mut halves[..factors.len()];
    for (half, bytes) in halves.iter_mut().zip(factors) {
        *half = f16::from_bits(u16::from_le_bytes(*bytes));
    }
    halves.convert_to_f32_slice(out);
}
