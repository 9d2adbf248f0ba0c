//! What keeps training steady: clipping, averaging, frozen parts.

use serde::{Deserialize, Serialize};

use super::is_positive;
use super::loss::first_fault;

/// What keeps training steady.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stabilize {
    /// Limit of the gradients.
    pub clip: Clip,
    /// Which weights are validated and exported.
    pub average: Average,
    /// What batch norm learns.
    pub batch_norm: BatchNorm,
    /// Layers that keep their first weights: all whose names begin so, such as `features.0`
    /// (whole components: `features.1` does not freeze `features.10`).
    pub freeze: Vec<String>,
    /// Steps at the start in which only the head and the losses' own tensors move.
    pub head_steps: usize,
}

/// Limit of the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clip {
    /// None.
    None,
    /// All gradients together are scaled down to this Euclidean norm.
    Norm(f64),
    /// Every number of a gradient is cut to plus or minus this.
    Value(f64),
}

/// Which weights are validated and exported.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Average {
    /// Those of the step.
    None,
    /// An exponential moving average of all steps' weights and running statistics, which
    /// keeps this share of itself in a step. The first steps keep less,
    /// (1 + step) / (10 + step), so that the start is forgotten.
    Ema(f64),
}

/// What batch norm learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorm {
    /// It normalizes by the batch, and learns running statistics, scale and shift.
    Train,
    /// It normalizes by the statistics that the start brought; scale and shift learn.
    FrozenStatistics,
    /// It normalizes by the statistics that the start brought; nothing learns.
    Frozen,
}

impl Stabilize {
    pub(super) fn fault(&self) -> Option<&'static str> {
        let clips = match self.clip {
            Clip::None => true,
            Clip::Norm(limit) | Clip::Value(limit) => is_positive(limit),
        };
        let averages = match self.average {
            Average::None => true,
            Average::Ema(kept) => (0.0..1.0).contains(&kept),
        };
        first_fault(&[
            (clips, "stabilize.clip is not positive"),
            (averages, "stabilize.average is not in 0..1"),
            (
                !self.freeze.iter().any(String::is_empty),
                "stabilize.freeze holds an empty name, which would freeze everything",
            ),
        ])
    }

    /// Whether a layer or weight of this name keeps its first values.
    #[must_use]
    pub fn freezes(&self, name: &str) -> bool {
        self.freeze.iter().any(|frozen| {
            let rest = name.strip_prefix(&**frozen);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_components_of_a_name_are_frozen() {
        let stabilize = Stabilize {
            clip: Clip::None,
            average: Average::None,
            batch_norm: BatchNorm::Train,
            freeze: vec!["features.1".to_owned()],
            head_steps: 0,
        };
        let frozen = |name| stabilize.freezes(name);
        assert!(frozen("features.1") && frozen("features.1.weight"));
        assert!(!frozen("features.10.weight") && !frozen("head.weight"));
    }
}
