//! Sums of products over blocks of codes, for the instructions that this CPU has.
//!
//! Everything is integer arithmetic that can not overflow, so every kernel gives the same
//! sums as [`scalar`], which says what they are. This module and its children hold the
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

/// Bytes of one unit of int8 codes: 4 components of each row of a block.
const INT8_UNIT: usize = 4 * INT8_BLOCK;

/// Queries that share one reading of the codes; as many sums fit a CPU's registers.
pub(super) const MAX_QUERIES: usize = 8;

/// Columns whose table entries, two of at most 120 each, can be added up in 16 bits.
const MAX_U16_COLUMNS: usize = 256;

/// Tables for one column of 2-bit codes, by nibble: what 4 components of the query add to
/// the sum, plus 60. The first is for the low nibble.
pub(super) type Tables = [[u8; 16]; 2];

/// Added to every entry of [`Tables`], so that none is negative: 4 components of at most 15.
pub(super) const TABLE_BIAS: i32 = 60;

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

    /// Products of every row of some blocks of int8 codes with up to [`MAX_QUERIES`]
    /// queries. `codes` is whole blocks of `columns` units; a query is one word of 4 codes
    /// a column, all in -127..=127. Product of query `q` with row `r` of block `b` goes to
    /// `sums[q][b][r]`.
    ///
    /// # Panics
    /// If lengths do not fit, or there are more queries than fit.
    pub(super) fn int8(
        self,
        codes: &[u8],
        columns: usize,
        queries: &[&[[i8; 4]]],
        sums: &mut [Vec<[i32; INT8_BLOCK]>],
    ) {
        assert!(queries.len() <= MAX_QUERIES && queries.len() == sums.len());
        assert!(queries.iter().all(|query| query.len() == columns));
        let (units, rest) = codes.as_chunks::<INT8_UNIT>();
        assert!(rest.is_empty() && units.len().is_multiple_of(columns));
        let n_blocks = units.len() / columns;
        assert!(sums.iter().all(|sums| sums.len() >= n_blocks));
        match self {
            Self::Scalar => scalar::int8(units, columns, queries, sums),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::int8(units, columns, queries, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::int8(units, columns, queries, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon => unsafe { neon::int8(units, columns, queries, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::NeonDot => unsafe { neon::int8_dot(units, columns, queries, sums) },
        }
    }

    /// Sums of table entries over one plane of some blocks of 2-bit codes: entry of the low
    /// nibble and entry of the high nibble of every byte of a row. `codes` is whole blocks
    /// of `tables.len()` units; the sum of row `r` of block `b` goes to `sums[b][r]`.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub(super) fn int2(self, codes: &[u8], tables: &[Tables], sums: &mut [[i32; INT2_BLOCK]]) {
        let (units, rest) = codes.as_chunks::<INT2_BLOCK>();
        assert!(rest.is_empty() && units.len().is_multiple_of(tables.len()));
        assert!(sums.len() >= units.len() / tables.len());
        match self {
            Self::Scalar => scalar::int2(units, tables, sums),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::int2(units, tables, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::int2(units, tables, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon | Self::NeonDot => unsafe { neon::int2(units, tables, sums) },
        }
    }
}

#[cfg(test)]
mod tests;
