//! Batch norm folded into the convolution before it.
//!
//! With fixed statistics batch norm is a scale and a shift per channel, so it becomes part
//! of the convolution's weights and bias: fewer nodes, the same function. Computed in f64
//! and rounded once.

use super::ExportError;
use crate::weights::{Weight, Weights};
use crate::zoo::{Network, Node, NodeIdx, Op};

/// The same function without batch norm: every convolution that one followed has a bias.
///
/// Weights that the network does not name are left out of the result.
///
/// # Errors
/// If a weight is missing or of another shape, or a batch norm reads anything but a
/// convolution that nothing else reads.
pub fn fold(network: &Network, weights: &Weights) -> Result<(Network, Weights), ExportError> {
    let mut folded = Network {
        name: network.name.clone(),
        nodes: Vec::with_capacity(network.nodes.len()),
    };
    let mut folded_weights = Weights::default();
    let mut new_idx: Vec<NodeIdx> = Vec::with_capacity(network.nodes.len());
    for (node_idx, node) in network.nodes.iter().enumerate() {
        if let Op::BatchNorm { channels, epsilon } = node.op {
            let conv_idx = foldable_input(network, node_idx)?;
            let conv = &mut folded.nodes[new_idx[conv_idx]];
            let norm = Norm {
                node,
                channels,
                epsilon,
            };
            fold_into(conv, &norm, weights, &mut folded_weights)?;
            new_idx.push(new_idx[conv_idx]);
            continue;
        }
        for weight in node.weights() {
            let kept = weights.get(&weight.name, &weight.shape)?.clone();
            folded_weights.0.insert(weight.name, kept);
        }
        new_idx.push(folded.nodes.len());
        folded.nodes.push(Node {
            inputs: node.inputs.iter().map(|&input| new_idx[input]).collect(),
            ..node.clone()
        });
    }
    Ok((folded, folded_weights))
}

/// The convolution that a batch norm alone reads.
fn foldable_input(network: &Network, norm_idx: NodeIdx) -> Result<NodeIdx, ExportError> {
    let norm = &network.nodes[norm_idx];
    let input_idx = norm.inputs[0];
    let input = &network.nodes[input_idx];
    let all_inputs = network.nodes.iter().flat_map(|node| &node.inputs);
    let n_readers = all_inputs.filter(|&&idx| idx == input_idx).count();
    if matches!(input.op, Op::Conv { .. }) && n_readers == 1 {
        return Ok(input_idx);
    }
    Err(ExportError::Unfoldable {
        norm: norm.name.clone(),
        input: input.name.clone(),
    })
}

/// A batch norm to be folded.
struct Norm<'n> {
    node: &'n Node,
    channels: usize,
    epsilon: f64,
}

/// w' = w g / sqrt(v + e) and b' = (b - m) g / sqrt(v + e) + s, for a batch norm with
/// weight g, bias s, running mean m, running variance v and epsilon e.
fn fold_into(
    conv: &mut Node,
    norm: &Norm<'_>,
    weights: &Weights,
    folded: &mut Weights,
) -> Result<(), ExportError> {
    let channels = norm.channels;
    let of_norm = |suffix: &str| weights.get(&format!("{}.{suffix}", norm.node.name), &[channels]);
    let (gain, shift) = (of_norm("weight")?, of_norm("bias")?);
    let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
    let scales: Vec<f64> = gain
        .values
        .iter()
        .zip(&variance.values)
        .map(|(&gain, &variance)| f64::from(gain) / (f64::from(variance) + norm.epsilon).sqrt())
        .collect();

    let kernel = folded
        .0
        .get_mut(&format!("{}.weight", conv.name))
        .expect("the convolution's weights were kept when its node was");
    let per_channel = kernel.values.len() / channels;
    for (filter, scale) in kernel.values.chunks_exact_mut(per_channel).zip(&scales) {
        for value in filter {
            *value = (f64::from(*value) * scale) as f32;
        }
    }
    let bias_name = format!("{}.bias", conv.name);
    let old_bias = folded.0.remove(&bias_name);
    let bias_of = |channel: usize| {
        let bias = old_bias.as_ref().map_or(0.0, |bias| bias.values[channel]);
        let centered = f64::from(bias) - f64::from(mean.values[channel]);
        (centered * scales[channel] + f64::from(shift.values[channel])) as f32
    };
    let bias = Weight {
        shape: vec![channels],
        values: (0..channels).map(bias_of).collect(),
    };
    folded.0.insert(bias_name, bias);
    if let Op::Conv { bias, .. } = &mut conv.op {
        *bias = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;
    use crate::zoo::{ARCHITECTURES, Activation, by_name};
    use eyas_shared::random::Random;

    /// Folding rounds every weight once more, so sums differ in their last bits.
    const ROUNDING: f32 = 2e-6;

    #[test]
    fn a_folded_network_computes_the_same() {
        for (name, _) in ARCHITECTURES {
            let network = by_name(name, 16).unwrap();
            let weights = reference::random_weights(&network, 5);
            let (folded, folded_weights) = fold(&network, &weights).unwrap();
            assert!(
                !folded
                    .nodes
                    .iter()
                    .any(|node| matches!(node.op, Op::BatchNorm { .. }))
            );
            let shapes = folded.weights();
            assert_eq!(folded_weights.0.len(), shapes.len(), "{name}");
            for weight in shapes {
                folded_weights.get(&weight.name, &weight.shape).unwrap();
            }
            let pixels = reference::random_pixels(32, &mut Random::new(9));
            let before = reference::embed(&network, &weights, &pixels, 32);
            let after = reference::embed(&folded, &folded_weights, &pixels, 32);
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() < ROUNDING, "{name}: {a} and {b}");
            }
        }
    }

    #[test]
    fn batch_norm_without_a_convolution_of_its_own_is_refused() {
        let mut network = by_name("eyas-xs", 16).unwrap();
        let weights = reference::random_weights(&network, 5);
        // A second reader of the first convolution.
        let conv = network
            .nodes
            .iter()
            .position(|node| matches!(node.op, Op::Conv { .. }))
            .unwrap();
        network.nodes.push(Node {
            name: "second".to_owned(),
            op: Op::Activation(Activation::Relu),
            inputs: vec![conv],
        });
        let message = fold(&network, &weights).unwrap_err().to_string();
        assert!(
            message.contains("`stem.norm`") && message.contains("`stem.conv`"),
            "{message}"
        );
        network.nodes.pop();
        let norm = network
            .nodes
            .iter_mut()
            .find(|node| node.name == "stem.norm");
        norm.unwrap().inputs = vec![0];
        let message = fold(&network, &weights).unwrap_err().to_string();
        assert!(message.contains("`image`"), "{message}");
    }
}
