//! 16 bytes at a time.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vaddq_u8, vaddw_high_u8, vaddw_u8, vandq_u8, vdupq_n_s32,
    vdupq_n_u8, vdupq_n_u16, vget_low_s8, vget_low_u8, vld1q_s8, vld1q_u8, vmull_high_s8, vmull_s8,
    vpadalq_s16, vpaddq_s16, vqtbl1q_u8, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vshrq_n_u8,
    vst1q_s32, vst1q_u16,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::{INT8_UNIT, MAX_U16_COLUMNS, Tables};

#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 bytes are there, and any alignment will do.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn multiply_add(sums: int32x4_t, codes: int8x16_t, query: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(codes), vget_low_s8(query));
    let high = vmull_high_s8(codes, query);
    // 127 * 127 * 2 fits 16 bits.
    vpadalq_s16(sums, vpaddq_s16(low, high))
}

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

macro_rules! int8_kernel {
    ($name:ident, $features:literal, $accumulate:ident) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name(
            units: &[[u8; INT8_UNIT]],
            columns: usize,
            queries: &[&[[i8; 4]]],
            sums: &mut [Vec<[i32; INT8_BLOCK]>],
        ) {
            for (b, block) in units.chunks_exact(columns).enumerate() {
                for (query, sums) in queries.iter().zip(&mut *sums) {
                    let mut totals = [vdupq_n_s32(0); 4];
                    for (unit, word) in block.iter().zip(*query) {
                        let word = i32::from_le_bytes(word.map(i8::cast_unsigned));
                        let word = vreinterpretq_s8_s32(vdupq_n_s32(word));
                        let (quarters, _) = unit.as_chunks::<16>();
                        for (total, codes) in totals.iter_mut().zip(quarters) {
                            let codes = vreinterpretq_s8_u8(load(codes));
                            *total = $accumulate(*total, codes, word);
                        }
                    }
                    let (quarters, _) = sums[b].as_chunks_mut::<4>();
                    for (quarter, total) in quarters.iter_mut().zip(totals) {
                        // SAFETY: 4 sums are there, and any alignment will do.
                        unsafe { vst1q_s32(quarter.as_mut_ptr(), total) };
                    }
                }
            }
        }
    };
}

int8_kernel!(int8, "neon", multiply_add);
int8_kernel!(int8_dot, "neon,dotprod", dot_add);

#[target_feature(enable = "neon")]
pub(super) fn int2(units: &[[u8; INT2_BLOCK]], tables: &[Tables], sums: &mut [[i32; INT2_BLOCK]]) {
    let nibble = vdupq_n_u8(15);
    for (block, sums) in units.chunks_exact(tables.len()).zip(sums) {
        *sums = [0; INT2_BLOCK];
        let pieces = block.chunks(MAX_U16_COLUMNS);
        for (units, tables) in pieces.zip(tables.chunks(MAX_U16_COLUMNS)) {
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
            let (eighths, _) = sums.as_chunks_mut::<8>();
            for (eighth, total) in eighths.iter_mut().zip(totals) {
                let mut gathered = [0_u16; 8];
                // SAFETY: 8 sums are there, and any alignment will do.
                unsafe { vst1q_u16(gathered.as_mut_ptr(), total) };
                for (sum, gathered) in eighth.iter_mut().zip(gathered) {
                    *sum += i32::from(gathered);
                }
            }
        }
    }
}
