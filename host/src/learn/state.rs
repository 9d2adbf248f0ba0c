//! Everything that a training step changes, and that a checkpoint therefore holds.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::average::MovingAverage;
use super::loss_scale::LossScale;
use super::network::TorchNetwork;
use super::objective::Objective;
use super::optimizer::{Counts, Optimizer, is_finite};

/// A network in training with all that learns beside it.
pub(super) struct State<'a> {
    pub(super) network: &'a TorchNetwork,
    pub(super) objective: Objective,
    pub(super) optimizer: Optimizer,
    pub(super) average: Option<MovingAverage>,
    /// The tuples of the epoch, if batches are made of tuples: see [`super::tuples`].
    pub(super) tuples: Option<Tensor>,
    pub(super) progress: Progress,
}

/// What is known of a run besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Finished steps.
    pub(super) step: usize,
    pub(super) optimizer: Counts,
    pub(super) loss_scale: LossScale,
    /// Of the epoch that is not finished.
    pub(super) epoch_loss: Mean,
    /// The best epoch so far by recall on the held-out part.
    pub(super) best: Option<Best>,
}

/// A mean that is being summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mean {
    #[serde(with = "bits")]
    sum: f64,
    count: u32,
}

/// The best epoch so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    /// From 1.
    pub(super) epoch: usize,
    #[serde(with = "bits")]
    pub(super) recall_at_1: f64,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// The mean of what was added; 0 of nothing.
    pub(super) fn value(&self) -> f64 {
        self.sum / f64::from(self.count.max(1))
    }
}

/// Floats as their bits: a number that was stored comes back exactly.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

impl State<'_> {
    /// The first tensor that holds a number that is not finite.
    pub(super) fn first_broken(&self) -> Option<String> {
        let mut tensors = self.tensors().into_iter();
        let broken = tensors.find(|(_, tensor)| !is_finite(tensor));
        broken.map(|(name, _)| name)
    }

    /// Every tensor with the name that it has in a checkpoint.
    pub(super) fn tensors(&self) -> Vec<(String, &Tensor)> {
        let mut tensors = Vec::new();
        for (name, tensor) in &self.network.tensors {
            tensors.push((format!("value/{name}"), tensor));
        }
        for (name, tensor) in self.objective.tensors() {
            tensors.push((format!("value/{name}"), tensor));
        }
        for (name, parameter) in &self.optimizer.parameters {
            for (kind, tensor) in &parameter.state {
                tensors.push((format!("{kind}/{name}"), tensor));
            }
        }
        for (name, tensor) in self.average.iter().flat_map(|average| &average.tensors) {
            tensors.push((format!("average/{name}"), tensor));
        }
        tensors.extend(
            self.tuples
                .iter()
                .map(|tuples| ("tuples".to_owned(), tuples)),
        );
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Precision;

    #[test]
    fn progress_comes_back_exactly_from_its_text() {
        let mut epoch_loss = Mean::default();
        for value in [0.1, 0.2, 1.0 / 3.0] {
            epoch_loss.add(value);
        }
        let progress = Progress {
            step: 7,
            optimizer: Counts {
                of_head: 7,
                of_rest: 5,
            },
            loss_scale: LossScale::new(Precision::F16),
            epoch_loss,
            best: Some(Best {
                epoch: 2,
                recall_at_1: 2.0 / 3.0,
            }),
        };
        let text = serde_json::to_string(&progress).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
    }
}
