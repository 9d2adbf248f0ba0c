//! First weights of a network.

use std::collections::BTreeMap;

use eyas_shared::random::Random;

use super::{GEM_START, Network, Node, Op, POOL, Pooling, WeightShape, positions};
use crate::weights::{Weight, Weights, WeightsError};

/// Standard deviation of class tokens and positions, as in the code of their papers.
const TOKEN_DEVIATION: f64 = 0.02;

/// Random weights, each drawn from a stream of its own name.
///
/// Convolutions: normal with variance 2 / fan-in (He et al., ICCV 2015). Linear: normal
/// with variance 1 / inputs. Batch norm, layer norm and layer scale start as the identity,
/// GeM with exponent 3.
#[must_use]
pub fn random_weights(network: &Network, seed: u64) -> Weights {
    let mut weights = BTreeMap::new();
    for node in &network.nodes {
        for shape in node.weights() {
            let weight = random_weight(node, &shape, seed);
            weights.insert(shape.name, weight);
        }
    }
    Weights(weights)
}

fn random_weight(node: &Node, shape: &WeightShape, seed: u64) -> Weight {
    let n: usize = shape.shape.iter().product();
    let fan_in: usize = shape.shape.iter().skip(1).product();
    let is_matrix = shape.shape.len() > 1;
    let deviation = match node.op {
        Op::Conv { .. } => (2.0 / fan_in as f64).sqrt(),
        Op::ClassToken { .. } | Op::Positions { .. } => TOKEN_DEVIATION,
        _ => (1.0 / fan_in as f64).sqrt(),
    };
    let ones = matches!(node.op, Op::BatchNorm { .. } | Op::LayerNorm { .. })
        && (shape.name.ends_with(".weight") || shape.name.ends_with(".running_var"));
    let constant = match node.op {
        Op::GlobalPool(Pooling::Gem) => GEM_START,
        Op::LayerScale { .. } => 1.0,
        _ if ones => 1.0,
        _ => 0.0,
    };
    let mut random = Random::new(seed).fork("initial weights").fork(&shape.name);
    let mut draw = || match is_matrix {
        true => (random.normal() * deviation) as f32,
        false => constant,
    };
    Weight {
        shape: shape.shape.clone(),
        values: (0..n).map(|_| draw()).collect(),
    }
}

/// The weights that the network needs, taken from `given`; a head or a pooling's exponent
/// that is missing there, or has another shape, starts anew. Positions of another side are
/// interpolated. What the network does not need is left out.
///
/// # Errors
/// If another weight is missing or has another shape, or `given` holds register tokens, which
/// would have changed all others.
pub fn start_from(network: &Network, given: &Weights, seed: u64) -> Result<Weights, WeightsError> {
    if given.0.contains_key(REGISTERS) {
        return Err(WeightsError::Foreign {
            name: REGISTERS.to_owned(),
        });
    }
    let mut weights = BTreeMap::new();
    for node in &network.nodes {
        for shape in node.weights() {
            let weight = match taken_from(given, node, &shape) {
                Err(_) if may_start_anew(&shape.name) => random_weight(node, &shape, seed),
                taken => taken?,
            };
            weights.insert(shape.name, weight);
        }
    }
    Ok(Weights(weights))
}

/// What DINOv2 calls the tokens that some of its checkpoints add to the class token. No
/// network here reads them.
const REGISTERS: &str = "register_tokens";

fn taken_from(given: &Weights, node: &Node, shape: &WeightShape) -> Result<Weight, WeightsError> {
    let name = match given.0.contains_key(&shape.name) {
        true => shape.name.clone(),
        false => name_in_pytorch(&shape.name),
    };
    if let (Op::Positions { tokens, .. }, Some(trained)) = (node.op, given.0.get(&name))
        && trained.shape != shape.shape
        && trained.shape.last() == shape.shape.last()
        && let Some(resized) = positions::resized(trained, tokens)
    {
        return Ok(resized);
    }
    given.get(&name, &shape.shape).cloned()
}

/// The name of a weight in PyTorch's files where that has another form: the parameters of
/// packed projections (`in_proj_weight`), and those that belong to no layer (`cls_token`).
fn name_in_pytorch(name: &str) -> String {
    if let Some(bare) = name.strip_suffix(".value") {
        return bare.to_owned();
    }
    name.replace(".in_proj.", ".in_proj_")
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

    /// The weights of a network under the names that PyTorch gives them.
    fn published(network: &Network) -> Weights {
        let weights = random_weights(network, 1).0.into_iter();
        Weights(
            weights
                .map(|(name, w)| (name_in_pytorch(&name), w))
                .collect(),
        )
    }

    #[test]
    fn published_names_of_transformers_are_read_and_positions_fitted() {
        for (name, positions, packed) in [
            ("dinov2_vits14", "pos_embed", "blocks.0.attn.qkv.weight"),
            (
                "vit_b_16",
                "encoder.pos_embedding",
                "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
            ),
        ] {
            let trained = zoo::by_name(name, 16).unwrap();
            let mut given = published(&trained);
            assert!(given.0.contains_key(packed), "{name}");
            given
                .0
                .insert("mask_token".to_owned(), given.0["head.bias"].clone());
            let own = start_from(&trained, &given, 2).unwrap();
            assert_eq!(own.0[&format!("{positions}.value")], given.0[positions]);
            let network = trained.for_side(64);
            let fitted = start_from(&network, &given, 2).unwrap();
            for shape in network.weights() {
                fitted.get(&shape.name, &shape.shape).unwrap();
            }
            // What was fitted is a start for the same side under its own names.
            assert_eq!(start_from(&network, &fitted, 3).unwrap(), fitted);

            given.0.get_mut(positions).unwrap().shape[1] -= 1;
            let message = start_from(&network, &given, 2).unwrap_err().to_string();
            assert!(message.contains(positions), "{message}");
            given.0.remove(positions);
            let message = start_from(&network, &given, 2).unwrap_err().to_string();
            assert_eq!(message, format!("weight `{positions}` is missing"));
        }
    }

    #[test]
    fn registers_are_refused() {
        let network = zoo::by_name("dinov2_vits14", 16).unwrap();
        let mut given = published(&network);
        given
            .0
            .insert(REGISTERS.to_owned(), given.0["cls_token"].clone());
        let message = start_from(&network, &given, 2).unwrap_err().to_string();
        assert!(message.contains("`register_tokens`"), "{message}");
    }

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
