//! An exponential moving average of a network's weights (Polyak and Juditsky, 1992, in the
//! form that forgets).

use std::collections::BTreeMap;

use tch::{Tensor, no_grad};

use super::network::{TorchNetwork, weight_of};
use crate::weights::Weights;

/// The average of all weights and running statistics.
pub(super) struct MovingAverage {
    /// Share of itself that it keeps in a late step.
    kept: f64,
    /// By the names of the weights.
    pub(super) tensors: BTreeMap<String, Tensor>,
}

impl MovingAverage {
    /// Starts at the network's weights.
    pub(super) fn new(network: &TorchNetwork, kept: f64) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        Self {
            kept,
            tensors: network.tensors.iter().map(copy).collect(),
        }
    }

    /// Takes in the weights after step number `done`, counted from 1.
    pub(super) fn add(&mut self, network: &TorchNetwork, done: u64) {
        let kept = self.kept.min((1 + done) as f64 / (10 + done) as f64);
        no_grad(|| {
            for (name, average) in &mut self.tensors {
                let _ = average.g_mul_scalar_(kept);
                *average += &network.tensors[name] * (1.0 - kept);
            }
        });
    }

    /// The averaged weights as plain numbers.
    pub(super) fn weights(&self) -> Weights {
        let plain = self.tensors.iter();
        Weights(
            plain
                .map(|(name, tensor)| (name.clone(), weight_of(tensor)))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn the_average_follows_its_formula() {
        let description = crate::zoo::by_name("eyas-xs", 2).unwrap();
        let weights = crate::zoo::init::random_weights(&description, 3);
        let network = TorchNetwork::new(description, &weights, Device::Cpu).unwrap();
        let bias = || network.tensors["head.bias"].shallow_clone();
        let mut average = MovingAverage::new(&network, 0.5);
        let mut expected = f64::from(weights.0["head.bias"].values[0]);
        for (done, value) in [(1_u64, 1.0), (2, -3.0), (20, 2.0)] {
            let _ = no_grad(|| bias().fill_(value));
            average.add(&network, done);
            let kept = (0.5_f64).min((1 + done) as f64 / (10 + done) as f64);
            expected = kept * expected + (1.0 - kept) * value;
        }
        let found = f64::from(average.weights().0["head.bias"].values[0]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        assert_eq!(bias().double_value(&[0]), 2.0);
    }
}
