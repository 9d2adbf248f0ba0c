//! Maps stored in bytes, and how values become bytes.

use super::epilogue::Activation;
use super::lanes::Lanes;

/// How a map is stored in bytes: a value is (byte - `zero`) x `scale` (ONNX
/// `QuantizeLinear` to uint8 with one scale).
///
/// Rounding multiplies with the reciprocal and rounds behind the addition of `zero`, where
/// ONNX divides and adds behind rounding: a value half way between two bytes may become the
/// other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quantization {
    /// Positive, its reciprocal finite.
    pub(super) scale: f32,
    /// The byte that stands for 0.
    pub(super) zero: u8,
}

/// Rounds values to bytes, behind an activation that only clamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantizer {
    inverse: f32,
    zero: f32,
    low: f32,
    high: f32,
}

impl Quantization {
    /// `None` if the parameters are none that a map can be stored with.
    pub(super) fn new(scale: f32, zero: u8) -> Option<Self> {
        let is_usable = scale.is_normal() && scale > 0.0 && scale.recip().is_normal();
        is_usable.then_some(Self { scale, zero })
    }

    /// What rounds the values that an activation lets through; `None` if it does more than
    /// clamp them.
    pub(super) fn quantizer(self, activation: Activation) -> Option<Quantizer> {
        let (low, high) = activation.bounds()?;
        let (inverse, zero) = (self.scale.recip(), f32::from(self.zero));
        // Clamping and rounding are monotone, so bytes may be clamped instead of values.
        let byte = |bound: f32| bound.mul_add(inverse, zero).clamp(0.0, 255.0);
        Some(Quantizer {
            inverse,
            zero,
            low: byte(low),
            high: byte(high),
        })
    }
}

impl Quantizer {
    /// The byte of 0.
    pub(super) fn zero(self) -> u8 {
        self.zero as u8
    }

    /// The bytes of sixteen values, not yet rounded.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`.
    #[inline(always)]
    unsafe fn apply<L: Lanes>(self, values: L) -> L {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = values.mul_add(L::splat(self.inverse), L::splat(self.zero));
            bytes.max(L::splat(self.low)).min(L::splat(self.high))
        }
    }

    /// The bytes of sixteen values, as whole numbers.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn round<L: Lanes>(self, values: L) -> L {
        // Numbers from 2^23 to 2^24 are whole: adding the first rounds what is behind it.
        const WHOLE: f32 = 8_388_608.0;
        // SAFETY: the caller's promise.
        unsafe {
            let whole = L::splat(WHOLE);
            self.apply(values).add(whole).sub(whole)
        }
    }

    /// Stores sixteen values as bytes, rounded to the nearest, the even one of two.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`; sixteen bytes can be written.
    #[inline(always)]
    pub(super) unsafe fn store<L: Lanes>(self, values: L, at: *mut u8) {
        // SAFETY: the caller's promise; what is stored lies between 0 and 255.
        unsafe { self.apply(values).store_bytes(at) }
    }
}

/// Sixteen values of a map that is stored in bytes.
///
/// # Safety
/// The CPU has the instructions of `L`; sixteen bytes can be read.
#[inline(always)]
pub(super) unsafe fn load<L: Lanes>(quantization: Quantization, at: *const u8) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = L::splat(f32::from(quantization.zero));
        L::load_bytes(at)
            .sub(zero)
            .mul(L::splat(quantization.scale))
    }
}
