//! The scan of int8 codes: 16 products at a time, each off by a query's and a row's rounding.

use eyas_shared::gallery::Int8Codes;
use eyas_shared::gallery::codes::INT8_BLOCK;
use eyas_shared::quant;

use super::{Estimates, Kernel};

/// A query in int8, in words of 4 codes.
struct Int8Query {
    words: Vec<[i8; 4]>,
    scale: f32,
}

impl Int8Query {
    fn new(embedding: &[f32], columns: usize) -> Self {
        let scale = quant::symmetric_scale(embedding);
        let mut codes: Vec<i8> = embedding.iter().map(|x| quant::to_i8(*x, scale)).collect();
        codes.resize(4 * columns, 0);
        Self {
            words: codes.as_chunks::<4>().0.to_vec(),
            scale,
        }
    }
}

/// Estimates scores from int8 codes.
pub(super) struct Int8Scan<'a> {
    codes: Int8Codes<'a>,
    kernel: Kernel,
    queries: Vec<Int8Query>,
    /// Products of one tile, for each query.
    sums: Vec<Vec<[i32; INT8_BLOCK]>>,
}

impl<'a> Int8Scan<'a> {
    pub(super) fn new(codes: Int8Codes<'a>, kernel: Kernel, queries: &[&[f32]]) -> Self {
        let queries: Vec<_> = queries
            .iter()
            .map(|query| Int8Query::new(query, codes.columns))
            .collect();
        let sums = vec![vec![[0; INT8_BLOCK]; super::TILE_ROWS / INT8_BLOCK]; queries.len()];
        Self {
            codes,
            kernel,
            queries,
            sums,
        }
    }
}

impl Estimates for Int8Scan<'_> {
    fn estimate(&mut self, first_row: usize, n_rows: usize, scores: &mut [Vec<f32>]) {
        let block_bytes = 4 * INT8_BLOCK * self.codes.columns;
        let first_block = first_row / INT8_BLOCK;
        let n_blocks = n_rows.div_ceil(INT8_BLOCK);
        let codes = &self.codes.codes[first_block * block_bytes..][..n_blocks * block_bytes];
        let words: Vec<&[[i8; 4]]> = self.queries.iter().map(|query| &query.words[..]).collect();
        self.kernel
            .int8(codes, self.codes.columns, &words, &mut self.sums);
        let scales = &self.codes.scales[first_row..][..n_rows];
        for ((query, sums), scores) in self.queries.iter().zip(&self.sums).zip(scores) {
            let products = sums.as_flattened();
            for ((score, product), scale) in scores.iter_mut().zip(products).zip(scales) {
                *score = *product as f32 * (query.scale * f32::from_le_bytes(*scale));
            }
        }
    }
}
