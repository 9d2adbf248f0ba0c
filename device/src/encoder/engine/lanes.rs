//! Sixteen f32 values at a time, in the registers that a CPU has for them.
//!
//! Every operation rounds each lane once and alike, so a layer gives the same bits
//! whatever the instructions: [`Plain`] says what they are, the others are held to it.

/// Values in a [`Lanes`].
pub(super) const LANES: usize = 16;

/// The instructions that a layer is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust.
    Plain,
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with products of bytes (AVX-VNNI).
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// x86-64 with AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with products of bytes (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// 64-bit Arm.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// The same with products of bytes (`sdot`).
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Isa {
    /// Those that this CPU can run, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have plain Rust only")]
        let mut found = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self::Avx2);
                if is_x86_feature_detected!("avxvnni") {
                    found.push(Self::AvxVnni);
                }
                if is_x86_feature_detected!("avx512f") {
                    found.push(Self::Avx512);
                    if is_x86_feature_detected!("avx512vnni") {
                        found.push(Self::Avx512Vnni);
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            found.push(Self::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                found.push(Self::NeonDot);
            }
        }
        found
    }

    /// The fastest of them.
    #[must_use]
    pub fn best() -> Self {
        *Self::available().last().expect("there is plain Rust")
    }

    /// Whether there is an instruction for products of bytes: without one a dense student in
    /// full-int8 is slower than the same in f32.
    #[must_use]
    pub fn multiplies_bytes(self) -> bool {
        match self {
            Self::Plain => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx512 => false,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni | Self::Avx512Vnni => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => false,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => true,
        }
    }

    /// Rows and panels of sixteen columns whose sums the registers hold beside their
    /// factors: the tiles of a product, at least one.
    pub(super) fn tiles(self) -> &'static [Tile] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Vnni => &[Tile(12, 1), Tile(12, 2), Tile(8, 3), Tile(6, 4)],
            _ => &[Tile(6, 1)],
        }
    }

    /// Does some work with these instructions.
    ///
    /// # Safety
    /// The CPU has them, and the work may be done (see its type).
    pub(super) unsafe fn perform<W: Work>(self, work: &W) {
        // SAFETY: as the caller promised, the CPU has the features that the functions name.
        unsafe {
            match self {
                Self::Plain => work.perform::<Plain>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 | Self::AvxVnni => perform_avx2(work),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 | Self::Avx512Vnni => perform_avx512(work),
                #[cfg(target_arch = "aarch64")]
                Self::Neon | Self::NeonDot => perform_neon(work),
            }
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => "AVX2 and AVX-VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "AVX-512 and VNNI",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "NEON",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "NEON and dot products",
        })
    }
}

/// Sums that are computed together: at most so many rows (pixels), and so many panels of
/// [`LANES`] columns (output channels).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile(pub(super) usize, pub(super) usize);

/// Something to compute with whatever lanes there are.
pub(super) trait Work {
    /// Does it. Implementations are `#[inline(always)]`, so that they are compiled with the
    /// caller's instructions.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`, and pointers in the work are good.
    unsafe fn perform<L: Lanes>(&self);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn perform_avx2<W: Work>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn perform_avx512<W: Work>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<Avx512>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn perform_neon<W: Work>(work: &W) {
    // SAFETY: the caller's promise.
    unsafe { work.perform::<Neon>() }
}

/// [`LANES`] values.
///
/// # Safety
/// Every function needs a CPU with the type's instructions; those with a pointer, that
/// [`LANES`] values may be read or written there, at any alignment.
pub(super) trait Lanes: Copy {
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn store(self, at: *mut f32);
    /// Widens [`LANES`] bytes.
    unsafe fn load_bytes(at: *const u8) -> Self;
    /// Rounds to bytes, to the even one of two that are as near; values are from 0 to 255.
    unsafe fn store_bytes(self, at: *mut u8);
    /// Stores whole numbers from 0 to 2^24.
    unsafe fn store_words(self, at: *mut u32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `other` where this is not greater.
    unsafe fn max(self, other: Self) -> Self;
    /// `other` where this is not smaller.
    unsafe fn min(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// 2 to the power of this, a whole number from -126 to 127.
    unsafe fn exp2_whole(self) -> Self;
}

/// The reference.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

impl Lanes for Plain {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller lets so many values be read.
        Self(unsafe { at.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller lets so many values be written.
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_bytes(at: *const u8) -> Self {
        // SAFETY: the caller lets so many bytes be read.
        Self(unsafe { at.cast::<[u8; LANES]>().read() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn store_bytes(self, at: *mut u8) {
        let bytes = self.0.map(|x| x.round_ties_even() as u8);
        // SAFETY: the caller lets so many bytes be written.
        unsafe { at.cast::<[u8; LANES]>().write(bytes) }
    }
    #[inline(always)]
    unsafe fn store_words(self, at: *mut u32) {
        // SAFETY: the caller lets so many words be written.
        unsafe {
            at.cast::<[u32; LANES]>()
                .write_unaligned(self.0.map(|x| x as u32));
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            self.0[lane].mul_add(factor.0[lane], term.0[lane])
        }))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        Self(
            self.0
                .map(|n| f32::from_bits(((n as i32 + 127) << 23).cast_unsigned())),
        )
    }
}

/// A type of so many registers, with intrinsics that take and give one.
macro_rules! lanes {
    ($name:ident, $register:ty, $count:literal, $width:literal,
     $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $max:expr, $min:expr, $fma:expr, $exp2:expr, $load_bytes:expr, $store_bytes:expr,
     $store_words:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name([$register; $count]);

        impl $name {
            /// The values of these registers.
            #[inline(always)]
            pub(super) fn of(registers: [$register; $count]) -> Self {
                Self(registers)
            }
        }

        // SAFETY of all: intrinsics of the instructions that the caller promised; pointers
        // stay within the values that it lets be read or written.
        impl Lanes for $name {
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: see above.
                unsafe { Self([$splat(x); $count]) }
            }
            #[inline(always)]
            unsafe fn load(at: *const f32) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|part| $load(at.add(part * $width)))) }
            }
            #[inline(always)]
            unsafe fn store(self, at: *mut f32) {
                for (part, register) in self.0.into_iter().enumerate() {
                    // SAFETY: see above.
                    unsafe { $store(at.add(part * $width), register) }
                }
            }
            #[inline(always)]
            unsafe fn load_bytes(at: *const u8) -> Self {
                // SAFETY: see above.
                unsafe { Self($load_bytes(at)) }
            }
            #[inline(always)]
            unsafe fn store_bytes(self, at: *mut u8) {
                // SAFETY: see above.
                unsafe { $store_bytes(self.0, at) }
            }
            #[inline(always)]
            unsafe fn store_words(self, at: *mut u32) {
                for (part, register) in self.0.into_iter().enumerate() {
                    // SAFETY: see above.
                    unsafe { $store_words(at.add(part * $width), register) }
                }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|i| $add(self.0[i], other.0[i]))) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|i| $sub(self.0[i], other.0[i]))) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|i| $mul(self.0[i], other.0[i]))) }
            }
            #[inline(always)]
            unsafe fn div(self, other: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|i| $div(self.0[i], other.0[i]))) }
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|i| $max(self.0[i], other.0[i]))) }
            }
            #[inline(always)]
            unsafe fn min(self, other: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|i| $min(self.0[i], other.0[i]))) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
                // SAFETY: see above.
                unsafe {
                    Self(std::array::from_fn(|i| {
                        $fma(self.0[i], factor.0[i], term.0[i])
                    }))
                }
            }
            #[inline(always)]
            unsafe fn exp2_whole(self) -> Self {
                // SAFETY: see above.
                unsafe { Self(std::array::from_fn(|i| $exp2(self.0[i]))) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
lanes!(
    Avx2,
    __m256,
    2,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_max_ps,
    _mm256_min_ps,
    _mm256_fmadd_ps,
    |n| {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    },
    |at: *const u8| {
        let bytes = _mm_loadu_si128(at.cast());
        let halves = [bytes, _mm_unpackhi_epi64(bytes, bytes)];
        halves.map(|half| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(half)))
    },
    |values: [__m256; 2], at: *mut u8| {
        let [low, high] = values.map(|half| _mm256_cvtps_epi32(half));
        // Packing goes by halves of registers: the middle quarters are to be swapped.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
        let high = _mm256_extracti128_si256::<1>(words);
        let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), high);
        _mm_storeu_si128(at.cast(), bytes);
    },
    |at: *mut u32, values| _mm256_storeu_si256(at.cast(), _mm256_cvtps_epi32(values))
);

#[cfg(target_arch = "x86_64")]
lanes!(
    Avx512,
    __m512,
    1,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_max_ps,
    _mm512_min_ps,
    _mm512_fmadd_ps,
    |n| {
        let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
    },
    |at: *const u8| {
        let bytes = _mm_loadu_si128(at.cast());
        [_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))]
    },
    |[values]: [__m512; 1], at: *mut u8| {
        let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(values));
        _mm_storeu_si128(at.cast(), bytes);
    },
    |at: *mut u32, values| _mm512_storeu_si512(at.cast(), _mm512_cvtps_epi32(values))
);

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

// Arm's own maximum would pass on NaN, and its fused product takes the term first.
#[cfg(target_arch = "aarch64")]
lanes!(
    Neon,
    float32x4_t,
    4,
    4,
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    vaddq_f32,
    vsubq_f32,
    vmulq_f32,
    vdivq_f32,
    |a, b| vbslq_f32(vcgtq_f32(a, b), a, b),
    |a, b| vbslq_f32(vcltq_f32(a, b), a, b),
    |a, b, c| vfmaq_f32(c, a, b),
    |n| {
        let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
    },
    |at: *const u8| {
        let bytes = vld1q_u8(at);
        let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
        let words = [
            vmovl_u16(vget_low_u16(low)),
            vmovl_high_u16(low),
            vmovl_u16(vget_low_u16(high)),
            vmovl_high_u16(high),
        ];
        words.map(|words| vcvtq_f32_u32(words))
    },
    |values: [float32x4_t; 4], at: *mut u8| {
        let [a, b, c, d] = values.map(|values| vmovn_u32(vcvtnq_u32_f32(values)));
        let (low, high) = (vcombine_u16(a, b), vcombine_u16(c, d));
        vst1q_u8(at, vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
    },
    |at: *mut u32, values| vst1q_u32(at, vcvtnq_u32_f32(values))
);
