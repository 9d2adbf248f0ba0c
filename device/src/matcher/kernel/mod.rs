//! Estimated scores of blocks of codes, and bounds of them, for the instructions that this
//! CPU has.
//!
//! Sums are integers that can not overflow, and what follows is one conversion and a few
//! operations in one order, so every kernel gives the same bits as [`scalar`], which says
//! what they are. This module and its children hold the device's vector code: loads, stores
//! and prefetches are the only `unsafe` operations in it, each of an array of the right size,
//! and calls of functions whose CPU features were found at run time. Inner loops have no closures:
//! where one is not inlined, it is compiled without these features and called with all registers
//! saved.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod hits;
mod int8;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};
use half::f16;

use hits::GROUP;
pub(super) use hits::{Hits, Seen};
use int8::Int8Blocks;
pub(super) use int8::Int8Query;

/// 8 components of each row of a block, in one plane.
type Int2Unit = [u8; INT2_BLOCK];

/// Queries that share one reading of the codes; as many sums fit a CPU's registers.
pub(super) const MAX_QUERIES: usize = 8;

/// Columns whose table entries, two of at most 120 each, can be added up in 16 bits.
const MAX_U16_COLUMNS: usize = 256;

/// A way to compute, by the instructions that it needs. Only [`available`](Self::available)
/// names one of those that not every CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// Plain Rust.
    Scalar,
    /// x86-64 with AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Avx2,
    /// x86-64 with AVX-512 VNNI and BW, POPCNT, and what [`Avx2`](Self::Avx2) needs.
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Avx512,
    /// 64-bit Arm.
    #[cfg(target_arch = "aarch64")]
    #[non_exhaustive]
    Neon,
    /// 64-bit Arm with the dot product of Armv8.2.
    #[cfg(target_arch = "aarch64")]
    #[non_exhaustive]
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
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                kernels.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("popcnt")
                && kernels.contains(&Self::Avx2)
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

    /// A look at the high halves of some blocks of int8 codes for up to [`MAX_QUERIES`]
    /// queries: the rows whose bound reaches the threshold, with the sums that give it.
    /// What is found for query `q` is added to `hits[q]`. `high` is whole blocks of as many
    /// units as a query has columns; each row has a little-endian f32 scale.
    ///
    /// # Panics
    /// If lengths do not fit, or there are more queries than fit.
    pub(super) fn int8_high(
        self,
        high: &[u8],
        scales: &[[u8; 4]],
        queries: &[Int8Query],
        hits: &mut [Hits],
    ) {
        assert!(queries.len() <= MAX_QUERIES && queries.len() == hits.len());
        let Some(columns) = queries.first().map(|query| query.words.len()) else {
            return;
        };
        assert!(queries.iter().all(|query| query.words.len() == columns));
        let (units, rest) = high.as_chunks();
        assert!(rest.is_empty() && units.len().is_multiple_of(columns));
        let n_rows = units.len() / columns * INT8_BLOCK;
        assert_eq!(scales.len(), n_rows, "scales");
        let blocks = Int8Blocks {
            columns,
            units,
            scales: scales.as_chunks().0,
        };
        hits.iter_mut().for_each(|hits| hits.make_room(n_rows));
        match self {
            Self::Scalar => scalar::int8_high(&blocks, queries, hits),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::int8_high(&blocks, queries, hits) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::int8_high(&blocks, queries, hits) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon => unsafe { neon::int8_high(&blocks, queries, hits) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::NeonDot => unsafe { neon::int8_high_dot(&blocks, queries, hits) },
        }
    }

    /// What the low halves of a row add to its product with a query.
    ///
    /// # Panics
    /// If there are not four bytes for each column of the query.
    pub(super) fn int8_low(self, row: &[u8], query: &Int8Query) -> i32 {
        assert_eq!(row.len(), 4 * query.words.len(), "low halves of a row");
        let (lower, upper) = { query.words.as_flattened() }
            .as_flattened()
            .split_at(row.len());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::int8_low(row, lower, upper) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::int8_low(row, lower, upper) },
            _ => scalar::int8_low(row, lower, upper),
        }
    }

    /// The products of a query with rows of f32 components, one after the other, to the bit
    /// what [`eyas_shared::embedding::dot`] gives.
    ///
    /// # Panics
    /// If `rows` does not hold as many rows as there are scores.
    pub fn dots(self, query: &[f32], rows: &[f32], scores: &mut [f32]) {
        assert_eq!(rows.len(), query.len() * scores.len(), "rows and scores");
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::dots(query, rows, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::dots(query, rows, scores) },
            _ => scalar::dots(query, rows, scores),
        }
    }

    /// The product of a query and a row of little-endian f16 components, to the bit what
    /// [`eyas_shared::embedding::dot`] makes of the widened row.
    ///
    /// # Panics
    /// If their lengths differ.
    pub(super) fn dot_f16(self, query: &[f32], row: &[[u8; 2]]) -> f32 {
        assert_eq!(query.len(), row.len(), "row of another dimension");
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::dot_f16(query, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::dot_f16(query, row) },
            _ => scalar::dot_f16(query, row),
        }
    }

    /// A look at the high bits of some blocks of 2-bit codes: the rows whose bound reaches the
    /// threshold, with the sums of their table entries, are added to `hits`.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub(super) fn int2_high(
        self,
        plane: &[u8],
        factors: &[[u8; 2]],
        query: &Int2Query,
        hits: &mut Hits,
    ) {
        let (units, rest) = plane.as_chunks();
        let (factors, rest_factors) = factors.as_chunks();
        assert!(rest.is_empty() && rest_factors.is_empty());
        assert_eq!(units.len(), query.tables.len() * factors.len());
        hits.make_room(factors.len() * INT2_BLOCK);
        match self {
            Self::Scalar => scalar::int2_high(units, factors, query, hits),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx2 => unsafe { avx2::int2_high(units, factors, query, hits) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::int2_high(units, factors, query, hits) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Self::Neon | Self::NeonDot => unsafe { neon::int2_high(units, factors, query, hits) },
        }
    }

    /// A look at the low bits of some rows: the lower of the bounds of the high bits alone and
    /// of both planes, for each. `low_rows` holds, for each place, a byte a column and the
    /// factor of both planes.
    ///
    /// # Panics
    /// If a place is not there.
    pub(super) fn int2_low(
        self,
        low_rows: &[u8],
        seen: &[Seen],
        query: &Int2Query,
        bounds: &mut Vec<f32>,
    ) {
        bounds.clear();
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only named where its features were found.
            Self::Avx512 => unsafe { avx512::int2_low(low_rows, seen, query, bounds) },
            _ => scalar::int2_low(low_rows, seen, query, bounds),
        }
    }
}

/// Rows whose low bits are asked of the memory ahead of the one that is looked at.
const PREFETCH_LOW_ROWS: usize = 24;

/// The low bits at some places, each with the factor of both planes, in the order of `seen`;
/// the memory is asked ahead.
fn low_rows_of<'r>(
    low_rows: &'r [u8],
    seen: &'r [Seen],
    columns: usize,
) -> impl Iterator<Item = (Seen, &'r [u8], [u8; 2])> {
    let at = move |seen: &Seen| &low_rows[seen.place as usize * (columns + 2)..][..columns + 2];
    seen.iter().enumerate().map(move |(i, one)| {
        if let Some(soon) = seen.get(i + PREFETCH_LOW_ROWS) {
            prefetch(at(soon));
        }
        let (bits, factor) = at(one).split_at(columns);
        (*one, bits, [factor[0], factor[1]])
    })
}

/// Asks the memory for what is read soon, into the second cache: it waits for more lines at a
/// time than the first. 20,000 rows of 18 bytes, of a million, take a quarter less of the time so
/// on a Zen 4.
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // A row may begin within a line of memory and end in another.
    for line in bytes
        .chunks(64)
        .chain(bytes.last().map(std::slice::from_ref))
    {
        use std::arch::x86_64::_mm_prefetch;
        // SAFETY: the address is that of a slice, and nothing is read.
        unsafe { _mm_prefetch::<SECOND_CACHE>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// How far ahead of a scan the memory is asked: across the end of a page, where the hardware
/// of some CPUs stops guessing.
#[cfg(target_arch = "x86_64")]
const PREFETCH_BYTES: usize = 8192;

/// Caches that memory can be asked into.
#[cfg(target_arch = "x86_64")]
const FIRST_CACHE: i32 = std::arch::x86_64::_MM_HINT_T0;
/// It waits for more lines at a time than the first.
#[cfg(target_arch = "x86_64")]
const SECOND_CACHE: i32 = std::arch::x86_64::_MM_HINT_T1;

/// Asks for what a scan reads [`PREFETCH_BYTES`] after these bytes, if anything is there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_ahead<const CACHE: i32>(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        let ahead = line.as_ptr().wrapping_add(PREFETCH_BYTES);
        // SAFETY: nothing is read, and an address that is not mapped is no fault.
        unsafe { std::arch::x86_64::_mm_prefetch::<CACHE>(ahead.cast()) };
    }
}

/// Whether a scan of int8 codes gains from [`prefetch_ahead`]. On an Intel Emerald
/// Rapids a scan of whole codes took three quarters of the time of a plain read that does not
/// ask; on a Zen 4 it gains nothing for a query alone whose codes lie in large pages, and costs up
/// to a tenth where they lie in small ones.
#[cfg(target_arch = "x86_64")]
fn asks_ahead() -> bool {
    use std::sync::LazyLock;
    static IS_AMD: LazyLock<bool> = LazyLock::new(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx]
            .map(u32::to_le_bytes)
            .as_flattened()
            == b"AuthenticAMD"
    });
    !*IS_AMD
}

/// Scores rows of `dim` components `N` at a time, and the last ones alone.
#[cfg(target_arch = "x86_64")]
fn rows_together<const N: usize>(
    dim: usize,
    rows: &[f32],
    scores: &mut [f32],
    together: impl Fn(&[f32]) -> [f32; N],
    alone: impl Fn(&[f32]) -> [f32; 1],
) {
    let (groups, last_scores) = scores.as_chunks_mut::<N>();
    let (rows, last_rows) = rows.split_at(groups.len() * N * dim);
    for (scores, rows) in groups.iter_mut().zip(rows.chunks_exact(N * dim)) {
        *scores = together(rows);
    }
    for (score, row) in last_scores.iter_mut().zip(last_rows.chunks_exact(dim)) {
        [*score] = alone(row);
    }
}

/// One little-endian f16 number.
#[cfg(target_arch = "x86_64")]
fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// Ends a product whose whole blocks of 16 are in `lanes`: the rest goes to the first lanes,
/// and the lanes are added in the order of [`eyas_shared::embedding::dot`].
#[cfg(target_arch = "x86_64")]
fn finish_dot<'r>(mut lanes: [f32; 16], rest: impl Iterator<Item = (&'r f32, f32)>) -> f32 {
    for (lane, (query, row)) in lanes.iter_mut().zip(rest) {
        *lane += query * row;
    }
    eyas_shared::embedding::add_lanes(lanes)
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

/// How far a bound lies above its estimate, for a unit query: this times the row's factor.
///
/// Over the random rotation the error of an estimate is about normal (Gao and Long, SIGMOD
/// 2024, theorem 3.2) with the deviation `sqrt(1 / cos^2 - 1) / sqrt(d)`, cos being that of
/// the angle between a row and its code: 0.60 factors of the high bits, whose cosine is
/// about 0.80, and 0.65 factors of both planes, where it is 0.94. These are 2.75
/// deviations: one row of 300 scores higher than such a bound says, and is missed if nothing
/// lies between it and the last that is found.
const MARGINS: [f32; 2] = [1.65, 1.8];

/// A rotated query as tables (Andre, Kermarrec and Le Scouarnec, VLDB 2015).
pub(super) struct Int2Query {
    tables: Vec<Tables>,
    #[cfg(target_arch = "x86_64")]
    pairs: Vec<avx512::TablePair>,
    /// The codes themselves, continued with zeros, and their sum.
    #[cfg(target_arch = "x86_64")]
    codes: (Vec<[u8; 64]>, i32),
    /// For each column, by byte: what its 8 components add to the product with one plane.
    by_byte: Vec<[i16; 256]>,
    scale: f32,
    /// What [`TABLE_BIAS`] adds to the sum over a plane.
    bias: i32,
    /// What to add to a product for a bound: of the high bits alone, and of both planes.
    margins: [f32; 2],
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
            code.clamp(-MAX_INT2_CODE, MAX_INT2_CODE) as i8
        };
        let codes: Vec<i8> = rotated.iter().map(code).collect();
        let norm = eyas_shared::embedding::dot(rotated, rotated).sqrt();
        Self::of_codes(&codes, scale, MARGINS.map(|margin| margin * norm / scale))
    }

    /// From codes of at most [`MAX_INT2_CODE`], 8 a column.
    fn of_codes(codes: &[i8], scale: f32, margins: [f32; 2]) -> Self {
        let nibbles = codes.as_chunks::<4>().0.as_chunks::<2>().0;
        let tables: Vec<Tables> = nibbles.iter().map(|pair| pair.map(table)).collect();
        Self {
            #[cfg(target_arch = "x86_64")]
            pairs: tables.chunks(2).map(avx512::pair_tables).collect(),
            #[cfg(target_arch = "x86_64")]
            codes: avx512::code_blocks(codes),
            by_byte: tables.iter().map(by_byte).collect(),
            bias: 2 * TABLE_BIAS * tables.len() as i32,
            tables,
            scale,
            margins,
        }
    }

    /// The lower of the bound that the high bits gave and of what both planes say.
    fn lower_bound(&self, seen: Seen, low_bits: &[u8], factor_of_both: [u8; 2]) -> f32 {
        let low: i32 = { low_bits.iter().zip(&self.by_byte) }
            .map(|(bits, products)| i32::from(products[usize::from(*bits)]))
            .sum();
        let high = seen.sum.wrapping_sub(self.bias);
        let of_both = self.bound(1, high.wrapping_mul(2).wrapping_add(low), factor_of_both);
        if of_both < seen.bound {
            of_both
        } else {
            seen.bound
        }
    }

    /// What a score is hardly above, by its product with the high bits (0) or both planes (1).
    fn bound(&self, planes: usize, product: i32, factor: [u8; 2]) -> f32 {
        // The conversion without a look for instructions: it is one of few operations.
        let factor = f16::from_le_bytes(factor).to_f32_const();
        (product as f32 + self.margins[planes]) * (self.scale * factor)
    }
}

/// What both nibbles of a byte add, without the bias.
fn by_byte([low, high]: &Tables) -> [i16; 256] {
    std::array::from_fn(|byte| {
        let sum = i16::from(low[byte & 15]) + i16::from(high[byte >> 4]);
        sum - 2 * TABLE_BIAS as i16
    })
}

/// For each nibble: the sum of four codes, each with the sign that its bit says.
fn table(codes: [i8; 4]) -> [u8; 16] {
    std::array::from_fn(|nibble| {
        let signed = codes.map(i32::from).into_iter().enumerate();
        let sum: i32 = signed
            .map(|(bit, code)| if nibble >> bit & 1 == 1 { code } else { -code })
            .sum();
        (sum + TABLE_BIAS) as u8
    })
}

#[cfg(test)]
mod tests;
