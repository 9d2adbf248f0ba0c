//! Sixteen sums of products of bytes at a time, in the instructions that a CPU has for them.
//!
//! A sum takes in four products at once: of four bytes of a row, which are the same for all
//! sixteen columns, and four codes of each column. Sums are exact modulo 2^32, so they are
//! the same with all instructions; [`Plain`] says what they are.

use super::lanes::{self, Isa, LANES, Lanes, Tile};

/// Bytes of a row, and codes of a column, whose products are added at once.
pub(super) const UNIT: usize = 4;

/// Something to compute with whatever instructions there are for bytes.
pub(super) trait DotWork {
    /// Does it. Implementations are `#[inline(always)]`, so that they are compiled with the
    /// caller's instructions.
    ///
    /// # Safety
    /// The CPU has the instructions of `D`, and pointers in the work are good.
    unsafe fn perform<D: Dots>(&self);
}

impl Isa {
    /// Does some work with these instructions.
    ///
    /// # Safety
    /// The CPU has them, and the work may be done (see its type).
    pub(super) unsafe fn perform_dots<W: DotWork>(self, work: &W) {
        // SAFETY: as the caller promised, the CPU has the features that the functions name.
        unsafe {
            match self {
                Self::Plain => work.perform::<Plain>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 | Self::Avx512 => perform_avx2(work),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => perform_avx_vnni(work),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni => perform_avx512_vnni(work),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => perform_neon(work),
                #[cfg(target_arch = "aarch64")]
                Self::NeonDot => perform_neon_dot(work),
            }
        }
    }

    /// As [`tiles`](Self::tiles), for sums of bytes.
    pub(super) fn dot_tiles(self) -> &'static [Tile] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx2.tiles(),
            // Codes are widened, which takes registers.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => &[Tile(4, 1)],
            _ => self.tiles(),
        }
    }

    /// Where a column's code for the `k`-th byte of a unit lies among a panel's 64.
    pub(super) fn code_at(self, column: usize, k: usize) -> usize {
        match self {
            // Pairs of codes, which become pairs of i16.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx512 => (k / 2 * LANES + column) * 2 + k % 2,
            // All columns' first codes first.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => k * LANES + column,
            _ => column * UNIT + k,
        }
    }

    /// What is taken off every byte before it is multiplied: where both factors must be
    /// signed.
    pub(super) fn byte_shift(self) -> i32 {
        match self {
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => 128,
            _ => 0,
        }
    }
}

/// [`LANES`] sums.
///
/// # Safety
/// Every function needs a CPU with the type's instructions; those with a pointer, that what
/// they name may be read there, at any alignment.
pub(super) trait Dots: Copy {
    /// Values of the same CPU.
    type Lanes: Lanes;
    /// Four bytes of a row.
    type Bytes: Copy;
    /// Four codes of every column.
    type Codes: Copy;
    /// Sixteen sums.
    unsafe fn load(at: *const i32) -> Self;
    /// Four bytes.
    unsafe fn bytes(at: *const u8) -> Self::Bytes;
    /// 64 codes, in the order of [`Isa::code_at`].
    unsafe fn codes(at: *const i8) -> Self::Codes;
    /// Adds four products to every sum.
    unsafe fn add(self, bytes: Self::Bytes, codes: Self::Codes) -> Self;
    /// The sums as f32, rounded where they need more than 24 bits.
    unsafe fn lanes(self) -> Self::Lanes;
}

/// The reference.
#[derive(Clone, Copy)]
pub(super) struct Plain([i32; LANES]);

impl Dots for Plain {
    type Lanes = lanes::Plain;
    type Bytes = [u8; UNIT];
    type Codes = [[i8; UNIT]; LANES];

    #[inline(always)]
    unsafe fn load(at: *const i32) -> Self {
        // SAFETY: the caller lets so many be read.
        Self(unsafe { at.cast::<[i32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> Self::Bytes {
        // SAFETY: as above.
        unsafe { at.cast::<[u8; UNIT]>().read() }
    }
    #[inline(always)]
    unsafe fn codes(at: *const i8) -> Self::Codes {
        // SAFETY: as above.
        unsafe { at.cast::<[[i8; UNIT]; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn add(self, bytes: Self::Bytes, codes: Self::Codes) -> Self {
        Self(std::array::from_fn(|column| {
            let products = bytes.iter().zip(codes[column]);
            let sum: i32 = products
                .map(|(&byte, code)| i32::from(byte) * i32::from(code))
                .sum();
            self.0[column].wrapping_add(sum)
        }))
    }
    #[inline(always)]
    unsafe fn lanes(self) -> Self::Lanes {
        let values = self.0.map(|sum| sum as f32);
        // SAFETY: plain Rust runs everywhere.
        unsafe { lanes::Plain::load(values.as_ptr()) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::lanes::{Avx2, Avx512};
    use super::Dots;

    /// # Safety
    /// The CPU has AVX2, and two registers can be read.
    #[inline(always)]
    unsafe fn two(at: *const __m256i) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }

    /// AVX2 has no product of bytes whose sums can not overflow: bytes and codes become i16,
    /// whose products are added in pairs.
    #[derive(Clone, Copy)]
    pub(super) struct Words([__m256i; 2]);

    impl Dots for Words {
        type Lanes = Avx2;
        type Bytes = [__m256i; 2];
        type Codes = [[__m256i; 2]; 2];

        #[inline(always)]
        unsafe fn load(at: *const i32) -> Self {
            // SAFETY: the caller's promise, here and below.
            unsafe { Self(two(at.cast())) }
        }
        #[inline(always)]
        unsafe fn bytes(at: *const u8) -> Self::Bytes {
            // SAFETY: see above.
            unsafe {
                let four = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
                // A byte of 0x80 in the mask puts a zero: bytes become words.
                [
                    _mm256_shuffle_epi8(four, _mm256_set1_epi32(0x8001_8000_u32.cast_signed())),
                    _mm256_shuffle_epi8(four, _mm256_set1_epi32(0x8003_8002_u32.cast_signed())),
                ]
            }
        }
        #[inline(always)]
        unsafe fn codes(at: *const i8) -> Self::Codes {
            // SAFETY: see above.
            unsafe {
                let words = |eighth: usize| {
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(eighth * 16).cast()))
                };
                [[words(0), words(1)], [words(2), words(3)]]
            }
        }
        #[inline(always)]
        unsafe fn add(self, bytes: Self::Bytes, codes: Self::Codes) -> Self {
            // SAFETY: see above.
            unsafe {
                let mut sums = self.0;
                for (pair, codes) in bytes.into_iter().zip(codes) {
                    for (sum, codes) in sums.iter_mut().zip(codes) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, codes));
                    }
                }
                Self(sums)
            }
        }
        #[inline(always)]
        unsafe fn lanes(self) -> Self::Lanes {
            // SAFETY: see above.
            unsafe { Avx2::of(self.0.map(|sums| _mm256_cvtepi32_ps(sums))) }
        }
    }

    /// `vpdpbusd`: 32 products and their sums in one instruction.
    #[derive(Clone, Copy)]
    pub(super) struct AvxVnni([__m256i; 2]);

    impl Dots for AvxVnni {
        type Lanes = Avx2;
        type Bytes = __m256i;
        type Codes = [__m256i; 2];

        #[inline(always)]
        unsafe fn load(at: *const i32) -> Self {
            // SAFETY: the caller's promise, here and below.
            unsafe { Self(two(at.cast())) }
        }
        #[inline(always)]
        unsafe fn bytes(at: *const u8) -> Self::Bytes {
            // SAFETY: see above.
            unsafe { _mm256_set1_epi32(at.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn codes(at: *const i8) -> Self::Codes {
            // SAFETY: see above.
            unsafe { two(at.cast()) }
        }
        #[inline(always)]
        unsafe fn add(self, bytes: Self::Bytes, codes: Self::Codes) -> Self {
            // SAFETY: see above.
            unsafe {
                let [low, high] = self.0;
                Self([
                    _mm256_dpbusd_avx_epi32(low, bytes, codes[0]),
                    _mm256_dpbusd_avx_epi32(high, bytes, codes[1]),
                ])
            }
        }
        #[inline(always)]
        unsafe fn lanes(self) -> Self::Lanes {
            // SAFETY: see above.
            unsafe {
                let [low, high] = self.0;
                Avx2::of([_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)])
            }
        }
    }

    /// The same with 64 products.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512Vnni(__m512i);

    impl Dots for Avx512Vnni {
        type Lanes = Avx512;
        type Bytes = __m512i;
        type Codes = __m512i;

        #[inline(always)]
        unsafe fn load(at: *const i32) -> Self {
            // SAFETY: the caller's promise, here and below.
            unsafe { Self(_mm512_loadu_si512(at.cast())) }
        }
        #[inline(always)]
        unsafe fn bytes(at: *const u8) -> Self::Bytes {
            // SAFETY: see above.
            unsafe { _mm512_set1_epi32(at.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn codes(at: *const i8) -> Self::Codes {
            // SAFETY: see above.
            unsafe { _mm512_loadu_si512(at.cast()) }
        }
        #[inline(always)]
        unsafe fn add(self, bytes: Self::Bytes, codes: Self::Codes) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_dpbusd_epi32(self.0, bytes, codes)) }
        }
        #[inline(always)]
        unsafe fn lanes(self) -> Self::Lanes {
            // SAFETY: see above.
            unsafe { Avx512::of([_mm512_cvtepi32_ps(self.0)]) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn perform_avx2<W: DotWork>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<x86::Words>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma")]
unsafe fn perform_avx_vnni<W: DotWork>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<x86::AvxVnni>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
pub(super) unsafe fn perform_avx512_vnni<W: DotWork>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<x86::Avx512Vnni>() }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::super::lanes::Neon;
    use super::Dots;

    /// Codes become i16 and are multiplied into i32, column by column.
    #[derive(Clone, Copy)]
    pub(super) struct Words([int32x4_t; 4]);

    impl Dots for Words {
        type Lanes = Neon;
        type Bytes = int16x4_t;
        type Codes = [[int16x8_t; 2]; 4];

        #[inline(always)]
        unsafe fn load(at: *const i32) -> Self {
            // SAFETY: the caller's promise, here and below.
            unsafe { Self(std::array::from_fn(|part| vld1q_s32(at.add(4 * part)))) }
        }
        #[inline(always)]
        unsafe fn bytes(at: *const u8) -> Self::Bytes {
            // SAFETY: see above.
            unsafe {
                let four = vcreate_u8(u64::from(at.cast::<u32>().read_unaligned()));
                vreinterpret_s16_u16(vget_low_u16(vmovl_u8(four)))
            }
        }
        #[inline(always)]
        unsafe fn codes(at: *const i8) -> Self::Codes {
            // SAFETY: see above.
            unsafe {
                std::array::from_fn(|k| {
                    let codes = vld1q_s8(at.add(16 * k));
                    [vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes)]
                })
            }
        }
        #[inline(always)]
        unsafe fn add(self, bytes: Self::Bytes, codes: Self::Codes) -> Self {
            // SAFETY: see above.
            unsafe {
                let [a, b, c, d] = codes;
                let sums = add_column::<0>(self.0, bytes, a);
                let sums = add_column::<1>(sums, bytes, b);
                let sums = add_column::<2>(sums, bytes, c);
                Self(add_column::<3>(sums, bytes, d))
            }
        }
        #[inline(always)]
        unsafe fn lanes(self) -> Self::Lanes {
            // SAFETY: see above.
            unsafe { Neon::of(self.0.map(|sums| vcvtq_f32_s32(sums))) }
        }
    }

    /// # Safety
    /// The CPU has NEON.
    #[inline(always)]
    unsafe fn add_column<const K: i32>(
        sums: [int32x4_t; 4],
        bytes: int16x4_t,
        [low, high]: [int16x8_t; 2],
    ) -> [int32x4_t; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            [
                vmlal_lane_s16::<K>(sums[0], vget_low_s16(low), bytes),
                vmlal_high_lane_s16::<K>(sums[1], low, bytes),
                vmlal_lane_s16::<K>(sums[2], vget_low_s16(high), bytes),
                vmlal_high_lane_s16::<K>(sums[3], high, bytes),
            ]
        }
    }

    /// `sdot` of four registers. Both factors are signed: bytes less 128.
    #[derive(Clone, Copy)]
    pub(super) struct Sdot([int32x4_t; 4]);

    impl Dots for Sdot {
        type Lanes = Neon;
        type Bytes = int8x16_t;
        type Codes = [int8x16_t; 4];

        #[inline(always)]
        unsafe fn load(at: *const i32) -> Self {
            // SAFETY: the caller's promise, here and below.
            unsafe { Self(std::array::from_fn(|part| vld1q_s32(at.add(4 * part)))) }
        }
        #[inline(always)]
        unsafe fn bytes(at: *const u8) -> Self::Bytes {
            // SAFETY: see above.
            unsafe {
                let four = vdupq_n_u32(at.cast::<u32>().read_unaligned());
                let shifted = veorq_u32(four, vdupq_n_u32(0x8080_8080));
                vreinterpretq_s8_u32(shifted)
            }
        }
        #[inline(always)]
        unsafe fn codes(at: *const i8) -> Self::Codes {
            // SAFETY: see above.
            unsafe { std::array::from_fn(|part| vld1q_s8(at.add(16 * part))) }
        }
        #[inline(always)]
        unsafe fn add(self, bytes: Self::Bytes, codes: Self::Codes) -> Self {
            // SAFETY: see above.
            unsafe {
                let sum = |part: usize| sdot(self.0[part], codes[part], bytes);
                Self(std::array::from_fn(sum))
            }
        }
        #[inline(always)]
        unsafe fn lanes(self) -> Self::Lanes {
            // SAFETY: see above.
            unsafe { Neon::of(self.0.map(|sums| vcvtq_f32_s32(sums))) }
        }
    }

    // The intrinsic is not stable yet.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    fn sdot(mut sums: int32x4_t, codes: int8x16_t, bytes: int8x16_t) -> int32x4_t {
        // SAFETY: one instruction on registers, which the CPU has.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {codes:v}.16b, {bytes:v}.16b",
                sums = inout(vreg) sums,
                codes = in(vreg) codes,
                bytes = in(vreg) bytes,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn perform_neon<W: DotWork>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<arm::Words>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn perform_neon_dot<W: DotWork>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<arm::Sdot>() }
}
