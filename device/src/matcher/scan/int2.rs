//! The scan of 2-bit codes by table look-ups: a nibble of codes stands for 4 components of
//! one plane, and what they add to the sum was computed beforehand for the query (Andre,
//! Kermarrec and Le Scouarnec, VLDB 2015).

use eyas_shared::gallery::Int2Codes;
use eyas_shared::gallery::codes::INT2_BLOCK;
use eyas_shared::gallery::rotation;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{Estimates, Kernel, TILE_ROWS};
use crate::matcher::kernel::{TABLE_BIAS, Tables};

/// Largest code of a query's component: four of them, and the bias, fit half a byte's range,
/// so that two table entries can be added in 8 bits.
const MAX_CODE: f32 = 15.0;

/// A rotated query as tables.
struct Int2Query {
    tables: Vec<Tables>,
    scale: f32,
    /// What the bias adds to the sum over one plane.
    bias: i32,
}

impl Int2Query {
    fn new(embedding: &[f32], columns: usize) -> Self {
        let mut rotated = embedding.to_vec();
        rotated.resize(8 * columns, 0.0);
        rotation::rotate(&mut rotated);
        let largest = rotated
            .iter()
            .fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = if largest > f32::MIN_POSITIVE {
            largest / MAX_CODE
        } else {
            1.0
        };
        let codes: Vec<i32> = rotated
            .iter()
            .map(|x| (x / scale).round_ties_even().clamp(-MAX_CODE, MAX_CODE) as i32)
            .collect();
        let tables = codes.as_chunks::<4>().0.as_chunks::<2>().0;
        Self {
            tables: tables.iter().map(|nibbles| nibbles.map(table)).collect(),
            scale,
            bias: 2 * TABLE_BIAS * columns as i32,
        }
    }
}

/// For each nibble: the sum of four codes, each with the sign that its bit says.
fn table(codes: [i32; 4]) -> [u8; 16] {
    std::array::from_fn(|nibble| {
        let signed = codes.iter().enumerate();
        let sum: i32 = signed
            .map(|(bit, code)| if nibble >> bit & 1 == 1 { *code } else { -code })
            .sum();
        (sum + TABLE_BIAS) as u8
    })
}

/// Estimates scores from 2-bit codes.
pub(super) struct Int2Scan<'a> {
    codes: Int2Codes<'a>,
    kernel: Kernel,
    queries: Vec<Int2Query>,
    /// Sums over one tile of each plane.
    sums: [Vec<[i32; INT2_BLOCK]>; 2],
    /// Factors of one tile.
    factors: Vec<f32>,
}

impl<'a> Int2Scan<'a> {
    pub(super) fn new(codes: Int2Codes<'a>, kernel: Kernel, queries: &[&[f32]]) -> Self {
        let tile = || vec![[0; INT2_BLOCK]; TILE_ROWS / INT2_BLOCK];
        Self {
            queries: queries
                .iter()
                .map(|query| Int2Query::new(query, codes.columns))
                .collect(),
            codes,
            kernel,
            sums: [tile(), tile()],
            factors: vec![0.0; TILE_ROWS],
        }
    }
}

impl Estimates for Int2Scan<'_> {
    fn estimate(&mut self, first_row: usize, n_rows: usize, scores: &mut [Vec<f32>]) {
        let block_bytes = INT2_BLOCK * self.codes.columns;
        let first_block = first_row / INT2_BLOCK;
        let n_blocks = n_rows.div_ceil(INT2_BLOCK);
        let planes = self
            .codes
            .planes
            .map(|plane| &plane[first_block * block_bytes..][..n_blocks * block_bytes]);
        widen(
            &self.codes.factors[1][first_row..][..n_rows],
            &mut self.factors,
        );
        for (query, scores) in self.queries.iter().zip(scores) {
            for (plane, sums) in planes.iter().zip(&mut self.sums) {
                self.kernel.int2(plane, &query.tables, sums);
            }
            let [high, low] = self.sums.each_ref().map(|sums| sums.as_flattened());
            let sums = high.iter().zip(low).zip(&self.factors);
            for (score, ((high, low), factor)) in scores.iter_mut().zip(sums) {
                let sum = 2 * (high - query.bias) + (low - query.bias);
                *score = sum as f32 * (query.scale * factor);
            }
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
    halves.convert_to_f32_slice(&mut out[..factors.len()]);
}
