//! What happens to a layer's sums before they are stored: an addition, an activation.

use super::lanes::Lanes;

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    /// x.
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, low), high).
    Clip { low: f32, high: f32 },
    /// min(max(slope x + offset, 0), 1).
    HardSigmoid { slope: f32, offset: f32 },
    /// x times [`HardSigmoid`](Self::HardSigmoid).
    HardSwish { slope: f32, offset: f32 },
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x times [`Sigmoid`](Self::Sigmoid).
    Silu,
}

impl Activation {
    /// The function of sixteen values.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn apply<L: Lanes>(self, x: L) -> L {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::None => x,
                Self::Relu => x.max(L::splat(0.0)),
                Self::Clip { low, high } => x.max(L::splat(low)).min(L::splat(high)),
                Self::HardSigmoid { slope, offset } => hard_sigmoid(x, slope, offset),
                Self::HardSwish { slope, offset } => x.mul(hard_sigmoid(x, slope, offset)),
                Self::Sigmoid => sigmoid(x),
                Self::Silu => x.mul(sigmoid(x)),
            }
        }
    }

    /// What it clamps values between, if that is all it does.
    pub(super) fn bounds(self) -> Option<(f32, f32)> {
        match self {
            Self::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Self::Relu => Some((0.0, f32::INFINITY)),
            Self::Clip { low, high } => Some((low, high)),
            _ => None,
        }
    }

    /// As an ending of a layer's kind.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Relu => " + relu",
            Self::Clip { .. } => " + clip",
            Self::HardSigmoid { .. } => " + hard sigmoid",
            Self::HardSwish { .. } => " + hard swish",
            Self::Sigmoid => " + sigmoid",
            Self::Silu => " + silu",
        }
    }
}

#[inline(always)]
unsafe fn hard_sigmoid<L: Lanes>(x: L, slope: f32, offset: f32) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let line = x.mul_add(L::splat(slope), L::splat(offset));
        line.max(L::splat(0.0)).min(L::splat(1.0))
    }
}

#[inline(always)]
unsafe fn sigmoid<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let one = L::splat(1.0);
        one.div(one.add(exp(L::splat(0.0).sub(x))))
    }
}

/// e^x, the same on every machine, which the system's is not; off by at most 2e-7 of
/// itself. Beyond -87 and 88 it stays at its ends.
#[inline(always)]
unsafe fn exp<L: Lanes>(x: L) -> L {
    // ln 2 in two parts, the first with trailing zeros, so that a multiple of it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5 * 2^23 rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    // Taylor's series to the seventh power: the rest is at most ln 2 / 2.
    const SERIES: [f32; 7] = [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    // SAFETY: the caller's promise.
    unsafe {
        let x = x.min(L::splat(88.0)).max(L::splat(-87.0));
        let round = L::splat(ROUND);
        let n = x
            .mul_add(L::splat(std::f32::consts::LOG2_E), round)
            .sub(round);
        let rest = n.mul_add(L::splat(-LN2_HIGH), x);
        let rest = n.mul_add(L::splat(-LN2_LOW), rest);
        let mut sum = L::splat(1.0 / 5040.0);
        for coefficient in SERIES {
            sum = rest.mul_add(sum, L::splat(coefficient));
        }
        sum.mul(n.exp2_whole())
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{LANES, Plain};
    use super::*;

    fn exp_of(x: f32) -> f32 {
        let mut values = [0.0; LANES];
        // SAFETY: plain Rust runs everywhere, and the array holds all lanes.
        unsafe { exp(Plain::splat(x)).store(values.as_mut_ptr()) };
        values[0]
    }

    #[test]
    fn the_exponential_is_right_to_two_units_in_ten_millions() {
        for step in -8600..8700 {
            let x = step as f32 / 100.0;
            let wanted = f64::from(x).exp();
            let error = (f64::from(exp_of(x)) - wanted).abs() / wanted;
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
        assert!(exp_of(f32::INFINITY).is_finite() && exp_of(f32::NEG_INFINITY) > 0.0);
    }
}
