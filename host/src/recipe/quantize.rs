//! Training that sees its weights as the board will hold them.

use serde::{Deserialize, Serialize};

use super::{Precision, Recipe, Trainee};

/// Rounded weights in training, for students that lose too much when they are only rounded
/// afterwards (Jacob et al., CVPR 2018, for weights alone).
///
/// Rounded steps compute with what an int8 file would hold of the weights: every
/// convolution folded with its batch norm (by running statistics) and its branches, then
/// rounded by each channel's largest magnitude. Gradients pass as if nothing were rounded,
/// to weights that are not; batch norm goes on as `stabilize` says. The result is rounded:
/// its f32 file and its int8 file compute the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Quantize {
    /// Weights in int8, a scale per channel.
    Int8 {
        /// Epochs at the end whose steps are rounded: 1 to all of them. `keep = "best"`
        /// chooses among these.
        last_epochs: usize,
    },
}

impl Recipe {
    /// The first epoch, from 0, whose steps see rounded weights.
    #[must_use]
    pub fn first_rounded_epoch(&self) -> Option<usize> {
        let Quantize::Int8 { last_epochs } = self.quantize?;
        Some(self.epochs.saturating_sub(last_epochs))
    }

    /// What is wrong with `quantize`.
    pub(super) fn quantize_fault(&self, trainee: Trainee) -> Option<&'static str> {
        let Quantize::Int8 { last_epochs } = self.quantize?;
        if trainee == Trainee::Teacher {
            return Some("quantize: a teacher is not rounded; only a student ships in int8");
        }
        if !(1..=self.epochs).contains(&last_epochs) {
            return Some("quantize.last_epochs is not in 1 to epochs");
        }
        // Products of 16 bits would round the rounded weights once more.
        (self.precision != Precision::F32)
            .then_some("quantize: weights in int8 are trained with precision f32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::example;

    #[test]
    fn only_a_student_is_rounded_in_f32_and_within_its_epochs() {
        let mut recipe = example();
        assert_eq!(recipe.first_rounded_epoch(), None);
        assert_eq!(recipe.quantize_fault(Trainee::Teacher), None);
        assert_eq!(recipe.epochs, 2);
        for (last_epochs, first) in [(1, Some(1)), (2, Some(0)), (0, None), (3, None)] {
            recipe.quantize = Some(Quantize::Int8 { last_epochs });
            let fault = recipe.quantize_fault(Trainee::Student);
            match first {
                Some(_) => assert_eq!((fault, recipe.first_rounded_epoch()), (None, first)),
                None => assert!(fault.unwrap().contains("last_epochs"), "{last_epochs}"),
            }
        }
        recipe.quantize = Some(Quantize::Int8 { last_epochs: 1 });
        let fault = recipe.quantize_fault(Trainee::Teacher).unwrap();
        assert!(fault.contains("teacher"), "{fault}");
        recipe.precision = Precision::Bf16;
        let fault = recipe.quantize_fault(Trainee::Student).unwrap();
        assert!(fault.contains("f32"), "{fault}");
    }
}
