//! Channels scaled between layers, so that the rows that share a step are alike (Nagel et
//! al., ICCV 2019).
//!
//! A positive factor passes through ReLU: a channel may leave one convolution s times as
//! large when the next take it in with weights 1/s as large. Factors are powers of two, so
//! the scaled network computes the same numbers to the bit. Other activations do not let a
//! factor through and are left alone; through ReLU6 it moves the bound, which cost
//! MobileNetV2 more than int8 itself did.

use crate::weights::Weights;
use crate::zoo::{Activation, Network, NodeIdx, Op};

/// Largest power of two of a factor: beyond, one of the two layers would decide alone.
const MAX_LOG2: f32 = 6.0;

/// A convolution and all that read it.
struct Joint {
    from: NodeIdx,
    to: Vec<NodeIdx>,
}

/// The same function with channels scaled between layers; `None` if the network has no two
/// layers that a factor passes between, or all factors are 1.
#[must_use]
pub fn equalized(network: &Network, weights: &Weights) -> Option<Weights> {
    let mut scaled = weights.clone();
    let mut has_changed = false;
    for joint in joints(network) {
        has_changed |= equalize(network, &mut scaled, &joint);
    }
    has_changed.then_some(scaled)
}

fn joints(network: &Network) -> Vec<Joint> {
    let readers = |idx: NodeIdx| -> Vec<NodeIdx> {
        let nodes = network.nodes.iter().enumerate();
        let reads = nodes.filter(|(_, node)| node.inputs.contains(&idx));
        reads.map(|(reader_idx, _)| reader_idx).collect()
    };
    let is_conv = |idx: &NodeIdx| matches!(network.nodes[*idx].op, Op::Conv { .. });
    let joint = |from: NodeIdx| {
        let mut to = readers(from);
        if let [only] = to[..]
            && network.nodes[only].op == Op::Activation(Activation::Relu)
        {
            to = readers(only);
        }
        (!to.is_empty() && to.iter().all(is_conv)).then_some(Joint { from, to })
    };
    (0..network.nodes.len())
        .filter(is_conv)
        .filter_map(joint)
        .collect()
}

/// Whether any factor is not 1.
fn equalize(network: &Network, weights: &mut Weights, joint: &Joint) -> bool {
    let name = |idx: NodeIdx, suffix: &str| format!("{}.{suffix}", network.nodes[idx].name);
    let Some(from) = weights.0.get(&name(joint.from, "weight")) else {
        return false;
    };
    let n_channels = from.shape[0];
    let rows = from.values.chunks_exact(from.values.len() / n_channels);
    let of_rows: Vec<f32> = rows.map(largest).collect();
    let mut of_columns = vec![0.0_f32; n_channels];
    for &reader in &joint.to {
        for_each_column(network, weights, reader, |channel, x| {
            of_columns[channel] = of_columns[channel].max(x.abs());
        });
    }
    let factors: Vec<f32> = { of_rows.iter().zip(&of_columns) }
        .map(|(&row, &column)| factor(row, column))
        .collect();
    if factors.iter().all(|&factor| factor == 1.0) {
        return false;
    }
    for suffix in ["weight", "bias"] {
        if let Some(weight) = weights.0.get_mut(&name(joint.from, suffix)) {
            let per_channel = weight.values.len() / n_channels;
            let rows = weight.values.chunks_exact_mut(per_channel);
            for (row, factor) in rows.zip(&factors) {
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
    }
    for &reader in &joint.to {
        for_each_column(network, weights, reader, |channel, x| {
            *x /= factors[channel]
        });
    }
    true
}

/// What makes the largest weights of a channel equal on both sides, rounded to a power of
/// two; 1 where a side is all zeros.
fn factor(row: f32, column: f32) -> f32 {
    let log2 = 0.5 * (column.log2() - row.log2());
    if log2.is_finite() {
        log2.round().clamp(-MAX_LOG2, MAX_LOG2).exp2()
    } else {
        1.0
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Every weight of a convolution with the input channel that it is multiplied with.
fn for_each_column(
    network: &Network,
    weights: &mut Weights,
    conv_idx: NodeIdx,
    mut visit: impl FnMut(usize, &mut f32),
) {
    let node = &network.nodes[conv_idx];
    let Op::Conv {
        inputs,
        outputs,
        kernel,
        groups,
        ..
    } = node.op
    else {
        return;
    };
    let Some(weight) = weights.0.get_mut(&format!("{}.weight", node.name)) else {
        return;
    };
    let (per_group, area) = (inputs / groups, kernel * kernel);
    for (i, x) in weight.values.iter_mut().enumerate() {
        let group = i / (per_group * area) / (outputs / groups);
        visit(group * per_group + i / area % per_group, x);
    }
}

#[cfg(test)]
mod tests {
    use eyas_shared::random::Random;

    use super::super::reference;
    use super::*;
    use crate::zoo::Node;

    /// A ReLU network with a depthwise and two dense layers, channels of very different
    /// range.
    fn chain() -> (Network, Weights) {
        let conv = |inputs, outputs, kernel, groups| Op::Conv {
            inputs,
            outputs,
            kernel,
            stride: 1,
            padding: kernel / 2,
            groups,
            bias: true,
        };
        let node = |name: &str, op, inputs: &[usize]| Node {
            name: name.to_owned(),
            op,
            inputs: inputs.to_vec(),
        };
        let relu = Op::Activation(Activation::Relu);
        let nodes = vec![
            node("image", Op::Input, &[]),
            node("a", conv(3, 8, 3, 1), &[0]),
            node("a.relu", relu, &[1]),
            node("b", conv(8, 8, 3, 8), &[2]),
            node("b.relu", relu, &[3]),
            node("c", conv(8, 6, 1, 1), &[4]),
            node("d", conv(8, 4, 3, 2), &[4]),
            node("join", Op::Concat, &[5, 6]),
        ];
        let network = Network {
            name: "chain".to_owned(),
            nodes,
        };
        let mut weights = reference::random_weights(&network, 3);
        let per_row = 27;
        let stem = &mut weights.0.get_mut("a.weight").unwrap().values;
        for (i, x) in stem.iter_mut().enumerate() {
            *x *= 10.0_f32.powi((i / per_row % 3) as i32 - 1);
        }
        (network, weights)
    }

    #[test]
    fn a_scaled_network_computes_the_same_to_the_bit_and_is_more_even() {
        let (network, weights) = chain();
        let scaled = equalized(&network, &weights).unwrap();
        let image = reference::random_pixels(9, &mut Random::new(1));
        let image = reference::Tensor::of_image(&image, 9);
        let output = |weights| reference::outputs(&network, weights, &image).pop();
        assert_eq!(
            output(&weights).unwrap().values,
            output(&scaled).unwrap().values
        );
        assert_ne!(weights, scaled);
        // Channel by channel the two sides of a joint are alike now.
        let ranges = |weights: &Weights, name: &str, per_row: usize| -> Vec<f32> {
            let rows = weights.0[name].values.chunks_exact(per_row);
            rows.map(largest).collect()
        };
        let apart = |weights: &Weights| {
            let pairs = ranges(weights, "a.weight", 27);
            let pairs = pairs.into_iter().zip(ranges(weights, "b.weight", 9));
            pairs.map(|(a, b)| (a / b).log2().abs()).fold(0.0, f32::max)
        };
        // b is scaled once more on its other side; its factors are at most 4 here.
        assert!(apart(&scaled) < apart(&weights), "{}", apart(&scaled));
    }

    #[test]
    fn what_a_factor_does_not_pass_is_left_alone() {
        let is_left_alone = |network: &Network, weights: &Weights| {
            let scaled = equalized(network, weights);
            scaled.is_none_or(|scaled| scaled.0["a.weight"] == weights.0["a.weight"])
        };
        let (mut network, weights) = chain();
        assert!(!is_left_alone(&network, &weights));
        network.nodes[2].op = Op::Activation(Activation::Relu6);
        assert!(is_left_alone(&network, &weights));
        network.nodes[4].op = Op::Activation(Activation::HardSwish);
        assert_eq!(equalized(&network, &weights), None);
        // A second reader that is no convolution.
        let (mut network, weights) = chain();
        network.nodes[7].inputs.push(2);
        assert!(is_left_alone(&network, &weights));
    }
}
