//! Settings of losses that compare with a teacher.

use serde::{Deserialize, Serialize};

use super::{Settings, first_fault};
use crate::recipe::is_positive;

/// Regression of the teacher's embedding (AML's Reg); it has no settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {}

impl Settings for Regression {
    fn fault(&self) -> Option<&'static str> {
        None
    }

    fn needs_teacher(&self) -> bool {
        true
    }

    fn aligns(&self) -> bool {
        true
    }
}

/// Relaxed contrastive (Kim et al., CVPR 2021).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaxedContrastive {
    /// Softness of the teacher's relation: weight exp(-d^2 / sigma).
    pub sigma: f64,
    /// Margin, in units of the row's mean distance.
    pub delta: f64,
}

impl Settings for RelaxedContrastive {
    fn fault(&self) -> Option<&'static str> {
        first_fault(&[
            (is_positive(self.sigma), "sigma is not positive"),
            (self.delta.is_finite(), "delta is not finite"),
        ])
    }

    fn needs_teacher(&self) -> bool {
        true
    }

    fn aligns(&self) -> bool {
        false
    }
}

/// Neighborhood components of a student's query in the teacher's embeddings of all
/// training images, by label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryContrast {
    /// Cosines are divided by it.
    pub temperature: f64,
}

impl Settings for MemoryContrast {
    fn fault(&self) -> Option<&'static str> {
        first_fault(&[(is_positive(self.temperature), "temperature is not positive")])
    }

    fn needs_teacher(&self) -> bool {
        true
    }

    fn aligns(&self) -> bool {
        true
    }
}
