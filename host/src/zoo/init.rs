//! First weights of a network.

use std::collections::BTreeMap;

use eyas_shared::random::Random;

use super::{GEM_START, Network, Op, POOL, Pooling};
use crate::weights::{Weight, Weights, WeightsError};

/// Random weights, each drawn from a stream of its own name.
///
/// Convolutions: normal with variance 2 / fan-in (He et al., ICCV 2015). Linear: normal
/// with variance 1 / inputs. Batch norm starts as the identity, GeM with exponent 3.
#[must_use]
pub fn random_weights(network: &Network, seed: u64) -> Weights {
    let root = Random::new(seed).fork("initial weights");
    let mut weights = BTreeMap::new();
    for node in &network.nodes {
        for shape in node.weights() {
            let n: usize = shape.shape.iter().product();
            let fan_in: usize = shape.shape.iter().skip(1).product();
            let is_matrix = shape.shape.len() > 1;
            let gain = if matches!(node.op, Op::Conv { .. }) {
                2.0
            } else {
                1.0
            };
            let deviation = (gain / fan_in as f64).sqrt();
            let ones = matches!(node.op, Op::BatchNorm { .. })
                && (shape.name.ends_with(".weight") || shape.name.ends_with(".running_var"));
            let constant = match node.op {
                Op::GlobalPool(Pooling::Gem) => GEM_START,
                _ if ones => 1.0,
                _ => 0.0,
            };
            let mut random = root.fork(&shape.name);
            let mut draw = || match is_matrix {
                true => (random.normal() * deviation) as f32,
                false => constant,
            };
            let values = (0..n).map(|_| draw()).collect();
            weights.insert(
                shape.name,
                Weight {
                    shape: shape.shape,
                    values,
                },
            );
        }
    }
    Weights(weights)
}

/// The weights that the network needs, taken from `given`; a head or a pooling's exponent
/// that is missing there, or has another shape, starts anew. What the network does not
/// need is left out.
///
/// # Errors
/// If another weight is missing or has another shape.
pub fn start_from(network: &Network, given: &Weights, seed: u64) -> Result<Weights, WeightsError> {
    let mut weights = random_weights(network, seed);
    for shape in network.weights() {
        match given.get(&shape.name, &shape.shape) {
            Ok(weight) => {
                weights.0.insert(shape.name, weight.clone());
            }
            Err(_) if may_start_anew(&shape.name) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(weights)
}

/// Whether a weight belongs to a part that published backbones lack.
fn may_start_anew(name: &str) -> bool {
    let part = name.split_once('.').map_or(name, |(part, _)| part);
    [super::HEAD, POOL].contains(&part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo;

    #[test]
    fn a_trunk_is_taken_over_and_the_head_drawn() {
        let network = zoo::by_name("squeezenet1_1", 16).unwrap();
        let network = network.with_pooling(Pooling::Gem);
        let mut given = random_weights(&network, 1);
        given.0.retain(|name, _| name.starts_with("features."));
        let weights = start_from(&network, &given, 2).unwrap();
        assert_eq!(weights.0["features.0.weight"], given.0["features.0.weight"]);
        assert_eq!(
            weights.0["head.weight"],
            random_weights(&network, 2).0["head.weight"]
        );
        assert_eq!(weights.0["pool.p"].values, [GEM_START]);
        given.0.remove("features.0.weight");
        let message = start_from(&network, &given, 2).unwrap_err().to_string();
        assert_eq!(message, "weight `features.0.weight` is missing");
    }
}
