//! Estimated scores of blocks of codes, for the instructions that this CPU has.
//!
//! Sums are integers that can not overflow, and what follows is one conversion and two
//! multiplications, so every kernel gives the same bits as [`scalar`], which says what they
//! are. This module and its children hold the
//! device's vector code: loads and stores are the only `unsafe` operations in it, each of
//! an array of the right size, and calls of functions whose CPU features were found at run
//! time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};
use eyas_shared::quant;

/// Bytes of one unit of int8 codes: 4 components of each row of a block.
const INT8_UNIT: usize = 4 * INT8_BLOCK;

/// Queries that share one reading of the codes; as many sums fit a CPU's registers.
pub(super) const MAX_QUERIES: usize = 8;

/// Columns whose table entries, two of at most 120 each, can be added up in 16 bits.
const MAX_U16_COLUMNS: usize = 256;

/// A way to compute, by the instructions that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// Plain Rust.
    Scalar,
    /// x86-64 with AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 VNNI and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 64-bit Arm.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// 64-bit Arm with the dot product of Armv8.2.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Kernel {
    /// The kernels that this CPU can run, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have the scalar kernel only")]
        let mut kernels = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx2")
            {
                kernels.push(Self::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("neon") {
                kernels.push(Self::Neon);
                if std::arch::is_aarch64_feature_detected!("dotprod") {
                    kernels.push(Self::NeonDot);
                }
            }
        }
        kernels
    }

    /// The fastest of them.
    #[must_use]
    pub fn best() -> Self {
        *Self::available().last().expect("there is a scalar kernel")
    }

    /// Name as reports write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512 VNNI",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "NEON",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "NEON dot product",
        }
    }

    /// Estimates the scores of every row of some blocks of int8 codes for up to
    /// [`MAX_QUERIES`] queries: product of the codes times both scales. `codes` is whole
    /// blocks of as many units as a query has words; `scales` has one little-endian f32 a
    /// row; the score of query `q` with row `r` of all goes to `scores[q][r]`.
    ///
    /// # Panics
    /// If lengths do not fit, or there are more queries than fit.
    pub(super) fn int8(
        self,
        codes: &[u8],
        scales: &[[u8; 4]],
        queries: &[Int8Query],
        scores: &mut [Vec<f32>],
    ) {
        assert!(queries.len() <= MAX_QUERIES && queries.len() == scores.len());
        let Some(columns) = queries.first().map(|query| query.words.len()) else {
            return;
        };
        assert!(queries.iter().all(|query| query.words.len() == columns));
        let (units, rest) = codes.as_chunks::<INT8_UNIT>();
        assert!(rest.is_empty() && units.len().is_multiple_of(columns));
        let (scales, rest) = scales.as_chunks::<INT8_BLOCK>();
        assert!(rest.is_empty() && scales.len() == units.len() / columns);
        let n_rows = scales.len() * INT8_BLOCK;
        assert!(scores.iter().all(|scores| scores.len() >= n_rows));
        match self {
            Self::Scalar => scalar::int8(units, scales, queries, scores),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::int8(units, scales, queries, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::int8(units, scales, queries, scores) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon => unsafe { neon::int8(units, scales, queries, scores) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::NeonDot => unsafe { neon::int8_dot(units, scales, queries, scores) },
        }
    }

    /// Estimates the scores of every row of some blocks of 2-bit codes: twice the sum of the
    /// table entries over the plane of high bits, and that over the plane of low bits, less
    /// the bias, times the query's scale and the row's factor.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub(super) fn int2(
        self,
        planes: [&[u8]; 2],
        factors: &[f32],
        query: &Int2Query,
        scores: &mut [f32],
    ) {
        let columns = query.tables.len();
        let planes = planes.map(|plane| {
            let (units, rest) = plane.as_chunks::<INT2_BLOCK>();
            assert!(rest.is_empty() && units.len().is_multiple_of(columns));
            units
        });
        let (factors, rest) = factors.as_chunks::<INT2_BLOCK>();
        assert!(rest.is_empty());
        let (scores, _) = scores.as_chunks_mut::<INT2_BLOCK>();
        let n_blocks = factors.len();
        assert!(planes.iter().all(|units| units.len() == columns * n_blocks));
        assert!(scores.len() >= n_blocks);
        match self {
            Self::Scalar => scalar::int2(planes, factors, query, scores),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::int2(planes, factors, query, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::int2(planes, factors, query, scores) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon | Self::NeonDot => unsafe { neon::int2(planes, factors, query, scores) },
        }
    }
}

/// A query in int8.
pub(super) struct Int8Query {
    /// 4 codes for each column, all in -127..=127.
    words: Vec<[i8; 4]>,
    scale: f32,
}

impl Int8Query {
    /// Quantizes an embedding, continued with zeros to `columns` words.
    pub(super) fn new(embedding: &[f32], columns: usize) -> Self {
        let scale = quant::symmetric_scale(embedding);
        let mut codes: Vec<i8> = embedding.iter().map(|x| quant::to_i8(*x, scale)).collect();
        codes.resize(4 * columns, 0);
        Self {
            words: codes.as_chunks::<4>().0.to_vec(),
            scale,
        }
    }

    /// 128 times the sum of the codes: what adding 128 to every code of a row adds to its
    /// product.
    #[cfg(target_arch = "x86_64")]
    fn correction(&self) -> i32 {
        let codes = self.words.as_flattened().iter();
        128 * codes.map(|code| i32::from(*code)).sum::<i32>()
    }
}

/// Tables for one column of 2-bit codes, by nibble: what 4 components of the query add to
/// the sum over one plane, plus [`TABLE_BIAS`]. The first is for the low nibble.
type Tables = [[u8; 16]; 2];

/// Added to every entry of [`Tables`], so that none is negative: 4 components of at most
/// [`MAX_INT2_CODE`].
const TABLE_BIAS: i32 = 60;

/// Largest code of a component of a query for 2-bit codes: two table entries can then be
/// added in 8 bits.
const MAX_INT2_CODE: f32 = 15.0;

/// A rotated query as tables (Andre, Kermarrec and Le Scouarnec, VLDB 2015).
pub(super) struct Int2Query {
    tables: Vec<Tables>,
    /// The tables of two columns at a time, as 64-byte registers hold them: for the low
    /// nibbles and for the high ones, each twice for the 32 rows of either column.
    #[cfg(target_arch = "x86_64")]
    wide_tables: Vec<[[u8; 64]; 2]>,
    scale: f32,
    /// What the bias adds to twice the high sum and the low sum.
    bias: i32,
}

impl Int2Query {
    /// Quantizes a rotated embedding of 8 components a column.
    pub(super) fn new(rotated: &[f32]) -> Self {
        let largest = rotated
            .iter()
            .fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = if largest > f32::MIN_POSITIVE {
            largest / MAX_INT2_CODE
        } else {
            1.0
        };
        let code = |x: &f32| {
            let code = (x / scale).round_ties_even();
            code.clamp(-MAX_INT2_CODE, MAX_INT2_CODE) as i32
        };
        let codes: Vec<i32> = rotated.iter().map(code).collect();
        let nibbles = codes.as_chunks::<4>().0.as_chunks::<2>().0;
        Self::of_tables(nibbles.iter().map(|pair| pair.map(table)).collect(), scale)
    }

    fn of_tables(tables: Vec<Tables>, scale: f32) -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            wide_tables: tables.as_chunks::<2>().0.iter().map(widen).collect(),
            scale,
            bias: 3 * 2 * TABLE_BIAS * tables.len() as i32,
            tables,
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

#[cfg(target_arch = "x86_64")]
fn widen([first, second]: &[Tables; 2]) -> [[u8; 64]; 2] {
    [0, 1].map(|nibble| {
        let mut wide = [0; 64];
        let (lanes, _) = wide.as_chunks_mut::<16>();
        for (lane, tables) in lanes.iter_mut().zip([first, first, second, second]) {
            *lane = tables[nibble];
        }
        wide
    })
}

#[cfg(test)]
mod tests;
