//! What every kernel has of int8 codes: a query, the blocks that are read of every row, and
//! what high halves say of them.

use eyas_shared::gallery::codes::INT8_BLOCK;
use eyas_shared::gallery::int8::MIDDLE;
use eyas_shared::quant;

/// High halves of 8 components of each row of a block.
pub(super) type Int8Unit = [u8; 4 * INT8_BLOCK];

/// How far the bound of a product lies above what high halves say on average, for each unit of
/// the length of the query's codes.
///
/// What low halves add is a sum of query codes times `low - middle`, numbers from -8 to 7 that
/// are about uniform and know nothing of the query: the mean is minus half of the sum of
/// its codes, and the deviation 4.61 for each unit. These are 5 deviations, which one row of three
/// million exceeds. Where low halves are anything but uniform (codes that are 127, -127 and
/// nothing else), rows are ranked by high halves.
pub(super) const INT8_MARGIN: f64 = 23.0;

/// A query in int8, without its scale, which is the same for all rows and changes no order.
///
/// Its product with a row of codes is `16 <q, high> + <q, low> - 128 <q, 1>`. A "sum" is
/// `<q, high>` everywhere here, what high halves give.
pub(in crate::matcher) struct Int8Query {
    /// Codes of the 8 components of each column, all in -127..=127: those whose halves are in
    /// the lower bits, and those whose halves are in the upper ones.
    pub(super) words: Vec<[[i8; 4]; 2]>,
    /// Of the codes.
    total: i32,
    /// What to add to 16 times a sum for the bound of a product.
    pub(super) to_bound: f32,
}

impl Int8Query {
    /// Quantizes an embedding, continued with zeros to whole columns.
    pub(in crate::matcher) fn new(embedding: &[f32]) -> Self {
        let scale = quant::symmetric_scale(embedding);
        let mut codes: Vec<i8> = embedding.iter().map(|x| quant::to_i8(*x, scale)).collect();
        codes.resize(codes.len().next_multiple_of(8), 0);
        Self::of_codes(&codes)
    }

    /// From codes of whole columns.
    pub(super) fn of_codes(codes: &[i8]) -> Self {
        let squares: f64 = codes.iter().map(|code| f64::from(*code).powi(2)).sum();
        let total = codes.iter().map(|code| i32::from(*code)).sum();
        let mean = (f64::from(MIDDLE) - 0.5 - 128.0) * f64::from(total);
        Self {
            words: codes.as_chunks::<4>().0.as_chunks::<2>().0.to_vec(),
            total,
            to_bound: (mean + INT8_MARGIN * squares.sqrt()) as f32,
        }
    }

    /// What the estimate of a row is hardly above, by its sum and scale.
    pub(in crate::matcher) fn bound(&self, sum: i32, scale: f32) -> f32 {
        // 16 times a number is exact: the same bits with one rounding or two.
        (16.0 * sum as f32 + self.to_bound) * scale
    }

    /// The estimate of a row if its low halves were in the middle of what they can be.
    pub(in crate::matcher) fn guess(&self, sum: i32, scale: f32) -> f32 {
        (16 * sum + (MIDDLE - 128) * self.total) as f32 * scale
    }

    /// The estimate of a row, by what high halves and low ones give.
    pub(in crate::matcher) fn estimate(&self, sum: i32, of_low: i32, scale: f32) -> f32 {
        (16 * sum + of_low - 128 * self.total) as f32 * scale
    }
}

/// Four codes as a number whose bytes they are.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
pub(super) fn number([a, b, c, d]: [i8; 4]) -> i32 {
    i32::from_le_bytes([
        a.cast_unsigned(),
        b.cast_unsigned(),
        c.cast_unsigned(),
        d.cast_unsigned(),
    ])
}

/// Some blocks of int8 codes, as far as they are read of every row.
pub(super) struct Int8Blocks<'a> {
    /// Units in a block.
    pub(super) columns: usize,
    pub(super) units: &'a [Int8Unit],
    pub(super) scales: &'a [[[u8; 4]; INT8_BLOCK]],
}

impl<'a> Int8Blocks<'a> {
    /// Units and scales of each block.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'a [Int8Unit], &'a [[u8; 4]; INT8_BLOCK])> {
        self.units.chunks_exact(self.columns).zip(self.scales)
    }
}
