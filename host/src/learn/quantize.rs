//! Steps that compute with weights as an int8 file holds them.
//!
//! What is rounded, and how, is export's to say ([`grid`]); here it only gets gradients.

use tch::Tensor;

use super::network::{TorchNetwork, tensor_of};
use crate::export::{ExportError, grid};

/// The network with weights on its int8 grid. What is learned through it is learned by the
/// network's own tensors, as if nothing had been rounded (straight-through: Bengio et al.,
/// 2013); batch norm shares its statistics.
///
/// # Errors
/// If a weight is not finite.
pub(super) fn as_int8(network: &TorchNetwork) -> Result<TorchNetwork, ExportError> {
    let exact = network.weights();
    let rounded = grid::on_grid(&network.description, &exact)?;
    let tensor = |(name, tensor): (&String, &Tensor)| {
        let (exact, rounded) = (&exact.0[name], &rounded.0[name]);
        let seen = if exact == rounded {
            tensor.shallow_clone()
        } else {
            // The difference is 0, and carries the gradient.
            (tensor - tensor.detach()) + tensor_of(rounded, tensor.device())
        };
        (name.clone(), seen)
    };
    Ok(TorchNetwork {
        description: network.description.clone(),
        tensors: network.tensors.iter().map(tensor).collect(),
        training: network.training.clone(),
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::export::reference;
    use crate::export::stored::{Rounding, StoredWeights};
    use crate::learn::network::{Mode, values_of};
    use crate::weights::{Weight, Weights};
    use crate::zoo;
    use eyas_shared::bundle::Precision;
    use eyas_shared::random::Random;

    const SIDE: usize = 32;

    /// f32 in libtorch against f64 sums, on components of a unit vector.
    const SUMMATION: f32 = 2e-5;

    fn network(name: &str) -> (TorchNetwork, Weights) {
        let description = zoo::by_name(name, 16).unwrap();
        let weights = reference::random_weights(&description, 5);
        let network = TorchNetwork::new(description, &weights, Device::Cpu).unwrap();
        (network, weights)
    }

    fn images(pixels: &[f32]) -> Tensor {
        Tensor::from_slice(pixels).view([-1, 3, SIDE as i64, SIDE as i64])
    }

    #[test]
    fn the_network_computes_what_the_int8_file_does() {
        for name in ["mobilenet_v2_035", "mobilenet_v3_small", "eyas-xs"] {
            let (network, weights) = network(name);
            let pixels = reference::random_pixels(SIDE, &mut Random::new(4));
            let seen = as_int8(&network).unwrap();
            let output = tch::no_grad(|| seen.head_output(&images(&pixels), Mode::Evaluate));
            let mut found = values_of(&output);
            eyas_shared::embedding::l2_normalize(&mut found);

            let (folded, exact) =
                crate::export::fold::fold(&network.description, &weights).unwrap();
            let rounding = Rounding::default();
            let stored = StoredWeights::of(&folded, &exact, Precision::Int8, &rounding).unwrap();
            let wide = stored.0.iter().map(|(name, stored)| {
                let (shape, values) = (stored.shape.clone(), stored.widened());
                (name.clone(), Weight { shape, values })
            });
            let wide = Weights(wide.collect());
            let expected = reference::embed(&folded, &wide, &pixels, SIDE);
            let exact = reference::embed(&folded, &exact, &pixels, SIDE);
            let apart = |a: &[f32], b: &[f32]| {
                let pairs = a.iter().zip(b);
                pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
            };
            let far = apart(&exact, &found);
            let near = apart(&expected, &found);
            assert!(near < SUMMATION && far > 4.0 * near, "{name}: {near} {far}");
        }
    }

    #[test]
    fn the_networks_own_tensors_get_the_gradients_of_the_rounded_ones() {
        for name in ["mobilenet_v2_035", "squeezenet1_1", "eyas-xs"] {
            let (network, weights) = network(name);
            let rounded = grid::on_grid(&network.description, &weights).unwrap();
            let description = network.description.clone();
            let plain = TorchNetwork::new(description, &rounded, Device::Cpu).unwrap();
            let mut random = Random::new(4);
            let pixels: Vec<f32> = (0..4)
                .flat_map(|_| reference::random_pixels(SIDE, &mut random))
                .collect();
            let learn = |network: &TorchNetwork| {
                let output = network.head_output(&images(&pixels), Mode::Train);
                output.square().sum(Kind::Float).backward();
            };
            learn(&as_int8(&network).unwrap());
            learn(&plain);
            for shape in network.description.weights() {
                let [own, of_rounded] =
                    [&network, &plain].map(|network| network.tensors[&shape.name].grad());
                assert_eq!(own.defined(), shape.trained, "{name} {}", shape.name);
                if shape.trained {
                    assert_eq!(own, of_rounded, "{name} {}", shape.name);
                } else {
                    let [own, of_rounded] = [&network, &plain].map(|it| &it.tensors[&shape.name]);
                    assert_eq!(own, of_rounded, "{name} {}", shape.name);
                    let before = tensor_of(&weights.0[&shape.name], Device::Cpu);
                    assert_ne!(*own, before, "{name} {}", shape.name);
                }
            }
        }
    }
}
