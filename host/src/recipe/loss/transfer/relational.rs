//! Settings of losses that compare relations within the student's space with those within
//! the teacher's: none of them aligns.

use serde::{Deserialize, Serialize};

use super::{settings, without_settings};
use crate::recipe::is_positive;

/// Relaxed contrastive (Kim et al., CVPR 2021).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaxedContrastive {
    /// Softness of the teacher's relation: weight exp(-d^2 / sigma).
    pub sigma: f64,
    /// Margin, in units of the row's mean distance.
    pub delta: f64,
}

settings!(RelaxedContrastive, aligns: false, |loss| [
    (is_positive(loss.sigma), "sigma is not positive"),
    (loss.delta.is_finite(), "delta is not finite"),
]);

/// Relaxed multi-similarity (Kim et al., CVPR 2021).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaxedMultiSimilarity {
    /// Softness of the teacher's relation: weight exp(-d^2 / sigma).
    pub sigma: f64,
    /// Margin, in units of the row's mean distance.
    pub delta: f64,
    /// Sharpness of the pull.
    pub alpha: f64,
    /// Sharpness of the push.
    pub beta: f64,
}

settings!(RelaxedMultiSimilarity, aligns: false, |loss| [
    (is_positive(loss.sigma), "sigma is not positive"),
    (loss.delta.is_finite(), "delta is not finite"),
    (is_positive(loss.alpha), "alpha is not positive"),
    (is_positive(loss.beta), "beta is not positive"),
]);

without_settings!(
    /// RKD-D (Park et al., CVPR 2019).
    RkdDistance, aligns: false
);

without_settings!(
    /// RKD-A (Park et al., CVPR 2019).
    RkdAngle, aligns: false
);

/// Hard DarkRank (Chen et al., AAAI 2018).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DarkRank {
    /// Scale of the scores -alpha d^beta.
    pub alpha: f64,
    /// Power of the distance in a score.
    pub beta: f64,
    /// Nearest rows whose order is learned.
    pub n_ranked: usize,
}

settings!(DarkRank, aligns: false, |loss| [
    (is_positive(loss.alpha), "alpha is not positive"),
    (loss.beta.is_finite() && loss.beta >= 1.0, "beta is below 1"),
    (loss.n_ranked >= 2, "n_ranked is below 2"),
]);

without_settings!(
    /// Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018).
    ProbabilisticTransfer, aligns: false
);

without_settings!(
    /// Relative teacher of "learning metrics from teachers" (Yu et al., CVPR 2019).
    RelativeTeacher, aligns: false
);

without_settings!(
    /// Similarity preserving (Tung and Mori, ICCV 2019).
    SimilarityPreserving, aligns: false
);

/// Correlation congruence (Peng et al., ICCV 2019).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrelationCongruence {
    /// Sharpness of the Gaussian kernel exp(-gamma d^2).
    pub gamma: f64,
    /// Order of the kernel's Taylor series.
    pub order: usize,
}

settings!(CorrelationCongruence, aligns: false, |loss| [
    (is_positive(loss.gamma), "gamma is not positive"),
    ((1..=64).contains(&loss.order), "order is not in 1..=64"),
]);

/// Contrastive representation distillation (Tian et al., ICLR 2020). Both sides are
/// compared through projections of their own, which says nothing of the student's frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastiveRepresentation {
    /// Components of a projection.
    pub features: usize,
    /// Images of other labels that a row is contrasted with.
    pub negatives: usize,
    /// Products of projections are divided by it.
    pub temperature: f64,
    /// Share of a remembered projection that stays in a step, 0 to below 1.
    pub momentum: f64,
    /// The projections' rate in multiples of the network's.
    pub rate_factor: f64,
}

settings!(ContrastiveRepresentation, aligns: false, |loss| [
    ((1..=65_536).contains(&loss.features), "features is not in 1..=65536"),
    ((1..=65_536).contains(&loss.negatives), "negatives is not in 1..=65536"),
    (is_positive(loss.temperature), "temperature is not positive"),
    ((0.0..1.0).contains(&loss.momentum), "momentum is not in 0..1"),
    (is_positive(loss.rate_factor), "rate_factor is not positive"),
]);
