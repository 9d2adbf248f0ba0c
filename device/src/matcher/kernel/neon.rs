//! 16 bytes at a time.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vaddq_u8, vaddw_high_u8, vaddw_u8, vandq_u8, vdupq_n_s32,
    vdupq_n_u8, vdupq_n_u16, vget_low_s8, vget_low_u8, vld1q_u8, vmull_high_s8, vmull_s8,
    vpadalq_s16, vpaddq_s16, vqtbl1q_u8, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vshrq_n_u8,
    vst1q_s32, vst1q_u16,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::int8::number;
use super::{Hits, Int2Query, Int2Unit, Int8Blocks, Int8Query, MAX_U16_COLUMNS, Tables, scalar};

#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 bytes are there, and any alignment will do.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// Adds to four sums the products of 4 codes each.
#[target_feature(enable = "neon")]
fn multiply_add(sums: int32x4_t, codes: int8x16_t, query: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(codes), vget_low_s8(query));
    let high = vmull_high_s8(codes, query);
    // 127 * 15 * 2 fits 16 bits.
    vpadalq_s16(sums, vpaddq_s16(low, high))
}

/// The same in one instruction.
#[target_feature(enable = "neon,dotprod")]
fn dot_add(mut sums: int32x4_t, codes: int8x16_t, query: int8x16_t) -> int32x4_t {
    // The intrinsic for this instruction is not stable yet.
    // SAFETY: it reads and writes these registers only, and the feature was found.
    unsafe {
        std::arch::asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {query:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            query = in(vreg) query,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The kernel around either of them: a function for each, because what is inlined must be
/// compiled for the same features.
macro_rules! int8_kernel {
    ($name:ident, $features:literal, $accumulate:ident) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name(blocks: &Int8Blocks<'_>, queries: &[Int8Query], hits: &mut [Hits]) {
            let nibble = vdupq_n_u8(15);
            for (b, (block, scales)) in blocks.each().enumerate() {
                for (query, hits) in queries.iter().zip(&mut *hits) {
                    let mut totals = [vdupq_n_s32(0); 4];
                    for (unit, words) in block.iter().zip(&query.words) {
                        let [lower, upper] =
                            words.map(|word| vreinterpretq_s8_s32(vdupq_n_s32(number(word))));
                        let (quarters, _) = unit.as_chunks::<16>();
                        for (total, halves) in totals.iter_mut().zip(quarters) {
                            let halves = load(halves);
                            let low = vreinterpretq_s8_u8(vandq_u8(halves, nibble));
                            let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(halves));
                            *total = $accumulate(*total, low, lower);
                            *total = $accumulate(*total, high, upper);
                        }
                    }
                    let mut sums = [0; INT8_BLOCK];
                    let (quarters, _) = sums.as_chunks_mut::<4>();
                    for (quarter, total) in quarters.iter_mut().zip(totals) {
                        // SAFETY: 4 sums are there, and any alignment will do.
                        unsafe { vst1q_s32(quarter.as_mut_ptr(), total) };
                    }
                    scalar::int8_hits(sums, scales, query, b, hits);
                }
            }
        }
    };
}

int8_kernel!(int8_high, "neon", multiply_add);
int8_kernel!(int8_high_dot, "neon,dotprod", dot_add);

#[target_feature(enable = "neon")]
pub(super) fn int2_high(
    units: &[Int2Unit],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    hits: &mut Hits,
) {
    let blocks = units.chunks_exact(query.tables.len()).zip(factors);
    for (b, (block, factors)) in blocks.enumerate() {
        let sums = int2_totals(block, query);
        scalar::int2_hits(sums, factors, query, b, hits);
    }
}

/// Sums of the table entries of one plane of a block, of any number of columns.
#[target_feature(enable = "neon")]
fn int2_totals(block: &[Int2Unit], query: &Int2Query) -> [i32; INT2_BLOCK] {
    let mut totals = [0_i32; INT2_BLOCK];
    let chunks = block.chunks(MAX_U16_COLUMNS);
    for (units, tables) in chunks.zip(query.tables.chunks(MAX_U16_COLUMNS)) {
        for (total, sum) in totals.iter_mut().zip(int2_sums(units, tables)) {
            *total = total.wrapping_add(i32::from(sum));
        }
    }
    totals
}

/// Sums of the table entries of 32 rows, in order.
#[target_feature(enable = "neon")]
fn int2_sums(units: &[Int2Unit], tables: &[Tables]) -> [u16; INT2_BLOCK] {
    let nibble = vdupq_n_u8(15);
    let mut totals = [vdupq_n_u16(0); 4];
    for (unit, [low, high]) in units.iter().zip(tables) {
        let (low, high) = (load(low), load(high));
        let (halves, _) = unit.as_chunks::<16>();
        for (half, totals) in halves.iter().zip(totals.as_chunks_mut::<2>().0) {
            let codes = load(half);
            let entries = vaddq_u8(
                vqtbl1q_u8(low, vandq_u8(codes, nibble)),
                vqtbl1q_u8(high, vshrq_n_u8::<4>(codes)),
            );
            totals[0] = vaddw_u8(totals[0], vget_low_u8(entries));
            totals[1] = vaddw_high_u8(totals[1], entries);
        }
    }
    let mut sums = [0; INT2_BLOCK];
    let (eighths, _) = sums.as_chunks_mut::<8>();
    for (eighth, total) in eighths.iter_mut().zip(totals) {
        // SAFETY: 8 sums are there, and any alignment will do.
        unsafe { vst1q_u16(eighth.as_mut_ptr(), total) };
    }
    sums
}
