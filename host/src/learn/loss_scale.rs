//! Dynamic scaling of the loss, so that gradients fit into half precision (Micikevicius et
//! al., ICLR 2018).

use serde::{Deserialize, Serialize};

use crate::recipe::Precision;

/// Exponent of the first scale: 65536.
const FIRST: i32 = 16;

/// Good steps after which the scale is doubled.
const GROWTH_STEPS: u32 = 2000;

/// Below it gradients overflow for another reason than their scale.
const SMALLEST: i32 = -16;

/// Beyond it no gradient of use is left to save.
const LARGEST: i32 = 24;

/// Factor of the loss before its backward pass; always a power of two, so that dividing
/// by it is exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LossScale {
    exponent: i32,
    good_steps: u32,
    /// Whether it changes: only half precision needs it.
    dynamic: bool,
}

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its gradients are finite.
    Take,
    /// They overflowed: the next step has a smaller scale.
    Skip,
    /// They are not finite, and no scale helps.
    Stop,
}

impl LossScale {
    pub(super) fn new(precision: Precision) -> Self {
        let dynamic = precision == Precision::F16;
        Self {
            exponent: if dynamic { FIRST } else { 0 },
            good_steps: 0,
            dynamic,
        }
    }

    /// 2^exponent, as if so many steps had led there.
    #[cfg(test)]
    pub(super) fn at(exponent: i32) -> Self {
        Self {
            exponent,
            ..Self::new(Precision::F16)
        }
    }

    /// Factor of the loss; 1 in other precisions.
    pub(super) fn scale(&self) -> f64 {
        2.0_f64.powi(self.exponent)
    }

    /// Judges a step by whether its gradients are finite, and sets the next scale.
    pub(super) fn judge(&mut self, is_finite: bool) -> Verdict {
        if !self.dynamic {
            return if is_finite {
                Verdict::Take
            } else {
                Verdict::Stop
            };
        }
        if !is_finite {
            self.good_steps = 0;
            self.exponent -= 1;
            return if self.exponent < SMALLEST {
                Verdict::Stop
            } else {
                Verdict::Skip
            };
        }
        self.good_steps += 1;
        if self.good_steps == GROWTH_STEPS {
            self.good_steps = 0;
            self.exponent = (self.exponent + 1).min(LARGEST);
        }
        Verdict::Take
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_half_precision_scales() {
        for precision in [Precision::F32, Precision::Bf16] {
            let mut scale = LossScale::new(precision);
            assert_eq!(scale.scale(), 1.0);
            assert_eq!(scale.judge(true), Verdict::Take);
            assert_eq!(scale.judge(false), Verdict::Stop);
        }
    }

    #[test]
    fn an_overflow_halves_and_many_good_steps_double() {
        let mut scale = LossScale::new(Precision::F16);
        assert_eq!(scale.judge(false), Verdict::Skip);
        assert_eq!(scale.scale(), 32768.0);
        for _ in 1..GROWTH_STEPS {
            assert_eq!(scale.judge(true), Verdict::Take);
        }
        assert_eq!(scale.scale(), 32768.0);
        assert_eq!(scale.judge(true), Verdict::Take);
        assert_eq!(scale.scale(), 65536.0);
        // An overflow begins the count anew.
        for _ in 1..GROWTH_STEPS {
            scale.judge(true);
        }
        scale.judge(false);
        scale.judge(true);
        assert_eq!(scale.scale(), 32768.0);
    }

    #[test]
    fn gradients_that_no_scale_makes_finite_stop_the_run() {
        let mut scale = LossScale::new(Precision::F16);
        let skipped = (0..100).take_while(|_| scale.judge(false) == Verdict::Skip);
        assert_eq!(skipped.count(), 32);
    }

    #[test]
    fn the_scale_does_not_grow_without_end() {
        let mut scale = LossScale::new(Precision::F16);
        for _ in 0..100 * GROWTH_STEPS {
            scale.judge(true);
        }
        assert_eq!(scale.scale(), 16_777_216.0);
    }
}
