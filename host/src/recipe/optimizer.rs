//! How weights move: optimizer, learning rate over the steps, precision of the arithmetic.

use serde::{Deserialize, Serialize};

use super::loss::first_fault;
use super::{is_positive, is_zero_or_more};

/// The rule that turns gradients into steps. `weight_decay` spares biases, the affine part
/// of batch norm, pooling exponents and the tensors of losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// Adam with decay decoupled from the gradient (Loshchilov and Hutter, ICLR 2019).
    #[serde(rename = "adamw")]
    AdamW(Moments),
    /// Adam (Kingma and Ba, ICLR 2015); decay is added to the gradient.
    Adam(Moments),
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the velocity that is kept, 0 to below 1.
        momentum: f64,
        /// Whether the gradient is taken ahead of the velocity (Nesterov).
        nesterov: bool,
        /// Added to the gradient in multiples of the weight.
        weight_decay: f64,
    },
    /// SGD whose rate follows each tensor's norm (You et al., 2017); tensors without
    /// `weight_decay` take plain steps.
    Lars {
        /// Share of the velocity that is kept, 0 to below 1.
        momentum: f64,
        /// Length of a step in multiples of the tensor's norm, at rate 1.
        trust: f64,
        /// Added to the gradient in multiples of the weight.
        weight_decay: f64,
    },
}

/// Settings of Adam and AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Share of the mean gradient that is kept, 0 to below 1.
    pub beta1: f64,
    /// Share of the mean squared gradient that is kept, 0 to below 1.
    pub beta2: f64,
    /// Added to the root of the mean squared gradient.
    pub epsilon: f64,
    /// In multiples of the weight.
    pub weight_decay: f64,
}

impl Optimizer {
    /// In multiples of the weight.
    #[must_use]
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::AdamW(moments) | Self::Adam(moments) => moments.weight_decay,
            Self::Sgd { weight_decay, .. } | Self::Lars { weight_decay, .. } => weight_decay,
        }
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_share = |x: f64| (0.0..1.0).contains(&x);
        let own = match *self {
            Self::AdamW(moments) | Self::Adam(moments) => first_fault(&[
                (is_share(moments.beta1), "optimizer.beta1 is not in 0..1"),
                (is_share(moments.beta2), "optimizer.beta2 is not in 0..1"),
                (
                    is_positive(moments.epsilon),
                    "optimizer.epsilon is not positive",
                ),
            ]),
            Self::Sgd {
                momentum, nesterov, ..
            } => first_fault(&[
                (is_share(momentum), "optimizer.momentum is not in 0..1"),
                (
                    !nesterov || momentum > 0.0,
                    "optimizer.nesterov needs a momentum",
                ),
            ]),
            Self::Lars {
                momentum, trust, ..
            } => first_fault(&[
                (is_share(momentum), "optimizer.momentum is not in 0..1"),
                (is_positive(trust), "optimizer.trust is not positive"),
            ]),
        };
        let decays = is_zero_or_more(self.weight_decay());
        own.or_else(|| first_fault(&[(decays, "optimizer.weight_decay is negative")]))
    }
}

/// Learning rates of some tensors in multiples of the schedule's; a loss states its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateFactors {
    /// The last linear layer.
    pub head: f64,
    /// What pooling learns (GeM's exponent); without effect on networks that learn none.
    pub pool: f64,
}

impl RateFactors {
    pub(super) fn fault(&self) -> Option<&'static str> {
        first_fault(&[
            (is_positive(self.head), "rate_factors.head is not positive"),
            (is_positive(self.pool), "rate_factors.pool is not positive"),
        ])
    }
}

/// Learning rate over the steps: linear from 0 to `peak` over `warmup_steps`, then by kind.
/// Steps count from the end of the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The peak.
    Constant {
        /// Highest rate.
        peak: f64,
        /// Steps of the warm-up.
        warmup_steps: usize,
    },
    /// Half a cosine from the peak down to `end`, which the last step has.
    Cosine {
        /// Highest rate.
        peak: f64,
        /// Rate of the last step.
        end: f64,
        /// Steps of the warm-up.
        warmup_steps: usize,
    },
    /// Half cosines, again and again from the peak (SGDR: Loshchilov and Hutter, ICLR 2017).
    WarmRestarts {
        /// Highest rate, at every restart.
        peak: f64,
        /// Rate towards which every period falls.
        end: f64,
        /// Steps of the warm-up.
        warmup_steps: usize,
        /// Steps of the first period.
        period_steps: usize,
        /// Length of a period in multiples of the one before, 1 or more.
        period_factor: f64,
    },
    /// The peak, multiplied by `factor` every `every_steps`.
    Step {
        /// Highest rate.
        peak: f64,
        /// Steps of the warm-up.
        warmup_steps: usize,
        /// Steps between two changes.
        every_steps: usize,
        /// What the rate is multiplied by, in (0, 1].
        factor: f64,
    },
    /// As step, but smoothly.
    Exponential {
        /// Highest rate.
        peak: f64,
        /// Steps of the warm-up.
        warmup_steps: usize,
        /// Steps over which the rate falls by `factor`.
        every_steps: usize,
        /// What the rate is multiplied by, in (0, 1].
        factor: f64,
    },
}

impl Schedule {
    /// Highest rate.
    #[must_use]
    pub fn peak(&self) -> f64 {
        match *self {
            Self::Constant { peak, .. }
            | Self::Cosine { peak, .. }
            | Self::WarmRestarts { peak, .. }
            | Self::Step { peak, .. }
            | Self::Exponential { peak, .. } => peak,
        }
    }

    /// Steps of the warm-up.
    #[must_use]
    pub fn warmup_steps(&self) -> usize {
        match *self {
            Self::Constant { warmup_steps, .. }
            | Self::Cosine { warmup_steps, .. }
            | Self::WarmRestarts { warmup_steps, .. }
            | Self::Step { warmup_steps, .. }
            | Self::Exponential { warmup_steps, .. } => warmup_steps,
        }
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        if !is_positive(self.peak()) {
            return Some("schedule.peak is not positive");
        }
        match *self {
            Self::Constant { .. } => None,
            Self::Cosine { end, .. } => {
                first_fault(&[(is_zero_or_more(end), "schedule.end is negative")])
            }
            Self::WarmRestarts {
                end,
                period_steps,
                period_factor,
                ..
            } => first_fault(&[
                (is_zero_or_more(end), "schedule.end is negative"),
                (period_steps > 0, "schedule.period_steps is 0"),
                (
                    period_factor.is_finite() && period_factor >= 1.0,
                    "schedule.period_factor is below 1",
                ),
            ]),
            Self::Step {
                every_steps,
                factor,
                ..
            }
            | Self::Exponential {
                every_steps,
                factor,
                ..
            } => first_fault(&[
                (every_steps > 0, "schedule.every_steps is 0"),
                (
                    factor > 0.0 && factor <= 1.0,
                    "schedule.factor is not in (0, 1]",
                ),
            ]),
        }
    }
}

/// Precision of the network's convolutions and products. Weights, statistics, losses and
/// steps are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// Brain float, 16 bits with the exponents of f32.
    Bf16,
    /// Half precision; the loss is scaled so that small gradients do not vanish.
    F16,
}
