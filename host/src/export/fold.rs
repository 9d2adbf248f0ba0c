//! Batch norm and parallel branches folded into one convolution.
//!
//! With fixed statistics batch norm is a scale and a shift per channel, so it becomes part
//! of the convolution's weights and bias. A sum of convolutions of one input, of their
//! batch norms, and of the input itself is linear too, and becomes one convolution with
//! the largest of their kernels (Ding et al., CVPR 2021). Fewer nodes, the same function.
//! Computed in f64 and rounded once.

use super::ExportError;
use crate::weights::{Weight, Weights, WeightsError};
use crate::zoo::{Network, Node, NodeIdx, Op};

/// The same function without batch norm and without sums of branches: every convolution
/// that takes one in has a bias. A sum of branches leaves its name to the convolution.
///
/// Weights that the network does not name are left out of the result.
///
/// # Errors
/// If a weight is missing or of another shape, or a batch norm reads anything but a
/// convolution that nothing else reads and is no branch of a sum either.
pub fn fold(network: &Network, weights: &Weights) -> Result<(Network, Weights), ExportError> {
    let plan = Plan::new(network);
    let mut folded = Network {
        name: network.name.clone(),
        nodes: Vec::with_capacity(network.nodes.len()),
    };
    let mut folded_weights = Weights::default();
    let mut new_idx: Vec<NodeIdx> = Vec::with_capacity(network.nodes.len());
    for (node_idx, node) in network.nodes.iter().enumerate() {
        new_idx.push(folded.nodes.len());
        if plan.is_absorbed[node_idx] {
            continue;
        }
        let (mut node, inputs) = match &plan.linear[node_idx] {
            Some(linear) if linear.needs_folding() => {
                let conv = linear.convolution(network, node_idx)?;
                linear.fold_weights(network, weights, &conv, &mut folded_weights)?;
                (conv, vec![linear.from])
            }
            _ => {
                for weight in node.weights() {
                    let kept = weights.get(&weight.name, &weight.shape)?.clone();
                    folded_weights.0.insert(weight.name, kept);
                }
                (node.clone(), node.inputs.clone())
            }
        };
        node.inputs = inputs.iter().map(|&input| new_idx[input]).collect();
        folded.nodes.push(node);
    }
    Ok((folded, folded_weights))
}

/// What becomes of every node.
pub(super) struct Plan {
    /// What a node computes, where that is linear in one node's output.
    pub(super) linear: Vec<Option<Linear>>,
    /// Whether the node's work is done by a later one's convolution.
    pub(super) is_absorbed: Vec<bool>,
}

/// A sum of branches that read one node.
#[derive(Clone)]
pub(super) struct Linear {
    from: NodeIdx,
    pub(super) branches: Vec<Branch>,
}

/// A convolution, or none, and a batch norm behind it, or none.
#[derive(Clone, Copy)]
pub(super) struct Branch {
    pub(super) conv: Option<NodeIdx>,
    pub(super) norm: Option<NodeIdx>,
}

impl Plan {
    pub(super) fn new(network: &Network) -> Self {
        let mut n_readers = vec![0; network.nodes.len()];
        for &input in network.nodes.iter().flat_map(|node| &node.inputs) {
            n_readers[input] += 1;
        }
        let mut plan = Self {
            linear: Vec::with_capacity(network.nodes.len()),
            is_absorbed: vec![false; network.nodes.len()],
        };
        for (node_idx, node) in network.nodes.iter().enumerate() {
            let linear = match node.op {
                Op::Conv { .. } => Some(Linear {
                    from: node.inputs[0],
                    branches: vec![Branch {
                        conv: Some(node_idx),
                        norm: None,
                    }],
                }),
                Op::BatchNorm { .. } => Some(plan.normalized(network, &n_readers, node_idx)),
                Op::Add => plan.sum(network, &n_readers, &node.inputs),
                _ => None,
            };
            plan.linear.push(linear);
        }
        plan
    }

    /// A batch norm takes in the convolution that it alone reads; else it is a branch
    /// without one.
    fn normalized(&mut self, network: &Network, n_readers: &[usize], norm: NodeIdx) -> Linear {
        let input = network.nodes[norm].inputs[0];
        let reads_conv = matches!(network.nodes[input].op, Op::Conv { .. });
        let conv = (reads_conv && n_readers[input] == 1).then_some(input);
        let from = conv.map_or(input, |conv| {
            self.is_absorbed[conv] = true;
            network.nodes[conv].inputs[0]
        });
        let norm = Some(norm);
        Linear {
            from,
            branches: vec![Branch { conv, norm }],
        }
    }

    /// A sum takes in its terms if one convolution can do their work.
    fn sum(&mut self, network: &Network, n_readers: &[usize], terms: &[NodeIdx]) -> Option<Linear> {
        let own = |&term: &NodeIdx| self.linear[term].as_ref().filter(|_| n_readers[term] == 1);
        let from = terms.iter().find_map(&own)?.from;
        let mut branches = Vec::new();
        for term in terms {
            match own(term) {
                Some(linear) if linear.from == from => branches.extend(&linear.branches),
                _ if *term == from => branches.push(Branch {
                    conv: None,
                    norm: None,
                }),
                _ => return None,
            }
        }
        let linear = Linear { from, branches };
        linear.geometry(network)?;
        for &term in terms.iter().filter(|&&term| term != from) {
            self.is_absorbed[term] = true;
        }
        Some(linear)
    }
}

/// Shape of the convolution that does the work of several.
#[derive(Clone, Copy)]
struct Geometry {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    groups: usize,
}

impl Linear {
    /// Whether it is more than a convolution as it stands.
    fn needs_folding(&self) -> bool {
        !matches!(self.branches[..], [Branch { norm: None, .. }])
    }

    /// The one shape that holds all branches, if there is one.
    fn geometry(&self, network: &Network) -> Option<Geometry> {
        let of_branch = |branch: &Branch| match network.nodes[branch.conv?].op {
            Op::Conv {
                inputs,
                outputs,
                kernel,
                stride,
                padding,
                groups,
                ..
            } => Some(Geometry {
                inputs,
                outputs,
                kernel,
                stride,
                padding,
                groups,
            }),
            _ => None,
        };
        let convolutions = self.branches.iter().filter_map(of_branch);
        let whole = convolutions.clone().max_by_key(|conv| conv.kernel)?;
        let has_identity = self.branches.iter().any(|branch| branch.conv.is_none());
        let identity_fits = whole.inputs == whole.outputs && whole.stride == 1;
        let holds = |kernel: usize, padding: usize| {
            (whole.kernel - kernel).is_multiple_of(2)
                && whole.padding == padding + (whole.kernel - kernel) / 2
        };
        let fits = convolutions.clone().all(|conv| {
            let alike = (conv.inputs, conv.outputs, conv.stride, conv.groups)
                == (whole.inputs, whole.outputs, whole.stride, whole.groups);
            alike && holds(conv.kernel, conv.padding)
        });
        let fits = fits && (!has_identity || identity_fits && holds(1, 0));
        fits.then_some(whole)
    }

    /// The convolution's node, under the name of the convolution if there is one, else of
    /// the sum.
    pub(super) fn convolution(
        &self,
        network: &Network,
        node_idx: NodeIdx,
    ) -> Result<Node, ExportError> {
        let unfoldable = || ExportError::Unfoldable {
            norm: network.nodes[node_idx].name.clone(),
            input: network.nodes[self.from].name.clone(),
        };
        let whole = self.geometry(network).ok_or_else(unfoldable)?;
        let named = match self.branches[..] {
            [Branch { conv, .. }] => conv.unwrap_or(node_idx),
            _ => node_idx,
        };
        Ok(Node {
            name: network.nodes[named].name.clone(),
            op: Op::Conv {
                inputs: whole.inputs,
                outputs: whole.outputs,
                kernel: whole.kernel,
                stride: whole.stride,
                padding: whole.padding,
                groups: whole.groups,
                bias: true,
            },
            inputs: Vec::new(),
        })
    }

    /// Adds up the branches' weights.
    fn fold_weights(
        &self,
        network: &Network,
        weights: &Weights,
        conv: &Node,
        folded: &mut Weights,
    ) -> Result<(), WeightsError> {
        let mut sums: Vec<Vec<f64>> = Vec::new();
        let shapes = conv.weights();
        for shape in &shapes {
            sums.push(vec![0.0; shape.shape.iter().product()]);
        }
        let [kernels, biases] = &mut sums[..] else {
            unreachable!("a folded convolution has a kernel and a bias")
        };
        let [outputs, inputs, side, _] = shapes[0].shape[..] else {
            unreachable!("kernels have four extents")
        };
        for branch in &self.branches {
            let (scales, shifts) = affine(network, weights, branch.norm, outputs)?;
            let (small, bias) = kernel_of(network, weights, branch.conv, [outputs, inputs])?;
            let margin = (side - small.side) / 2;
            for output in 0..outputs {
                biases[output] += bias[output] * scales[output] + shifts[output];
                for input in 0..inputs {
                    for (row, column) in
                        (0..small.side * small.side).map(|tap| (tap / small.side, tap % small.side))
                    {
                        let plane = output * inputs + input;
                        let from = (plane * small.side + row) * small.side + column;
                        let to = (plane * side + row + margin) * side + column + margin;
                        kernels[to] += small.values[from] * scales[output];
                    }
                }
            }
        }
        for (shape, sums) in shapes.into_iter().zip(sums) {
            let weight = Weight {
                shape: shape.shape,
                values: sums.into_iter().map(|sum| sum as f32).collect(),
            };
            folded.0.insert(shape.name, weight);
        }
        Ok(())
    }
}

/// Scale and shift of every channel: g / sqrt(v + e) and s - m g / sqrt(v + e) for a batch
/// norm with weight g, bias s, running mean m, running variance v and epsilon e; 1 and 0
/// without one.
pub(super) fn affine(
    network: &Network,
    weights: &Weights,
    norm: Option<NodeIdx>,
    channels: usize,
) -> Result<(Vec<f64>, Vec<f64>), WeightsError> {
    let Some(norm) = norm else {
        return Ok((vec![1.0; channels], vec![0.0; channels]));
    };
    let norm = &network.nodes[norm];
    let epsilon = match norm.op {
        Op::BatchNorm { epsilon, .. } => epsilon,
        _ => 0.0,
    };
    let of_norm = |suffix: &str| weights.get(&format!("{}.{suffix}", norm.name), &[channels]);
    let (gain, bias) = (of_norm("weight")?, of_norm("bias")?);
    let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
    let pair = |channel: usize| {
        let value = |weight: &Weight| f64::from(weight.values[channel]);
        let scale = value(gain) / (value(variance) + epsilon).sqrt();
        (scale, value(bias) - value(mean) * scale)
    };
    Ok((0..channels).map(pair).unzip())
}

/// Kernels `[outputs, inputs, side, side]`.
struct Kernel {
    side: usize,
    values: Vec<f64>,
}

/// Kernel and bias of a branch; the identity's without a convolution.
fn kernel_of(
    network: &Network,
    weights: &Weights,
    conv: Option<NodeIdx>,
    [outputs, inputs]: [usize; 2],
) -> Result<(Kernel, Vec<f64>), WeightsError> {
    let as_f64 = |weight: &Weight| weight.values.iter().map(|&x| f64::from(x)).collect();
    let mut bias = vec![0.0; outputs];
    let Some(conv) = conv else {
        // Groups see only their own inputs, so the diagonal starts anew in each.
        let value = |at: usize| f64::from(u8::from(at / inputs % inputs == at % inputs));
        let values = (0..outputs * inputs).map(value).collect();
        return Ok((Kernel { side: 1, values }, bias));
    };
    let mut kernel = Kernel {
        side: 1,
        values: Vec::new(),
    };
    for shape in network.nodes[conv].weights() {
        let weight = weights.get(&shape.name, &shape.shape)?;
        if let [_, _, side, _] = shape.shape[..] {
            let values = as_f64(weight);
            kernel = Kernel { side, values };
        } else {
            bias = as_f64(weight);
        }
    }
    Ok((kernel, bias))
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
            let network = by_name(name, 16).unwrap().for_side(32);
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
    fn branches_become_a_plain_chain_of_the_stated_size() {
        // Parameters with a head of 128 components, millions of multiply-adds at 160 pixels.
        for (name, parameters, at_160) in [
            ("eyas-xs", 321_000..322_000, 48.0..49.0),
            ("eyas-s", 990_000..1_000_000, 160.0..162.0),
            ("eyas-m", 2_780_000..2_810_000, 384.0..387.0),
        ] {
            let network = by_name(name, 128).unwrap();
            let weights = reference::random_weights(&network, 5);
            let (folded, _) = fold(&network, &weights).unwrap();
            for (node_idx, node) in folded.nodes.iter().enumerate().skip(1) {
                assert_eq!(node.inputs, [node_idx - 1], "{name} {}", node.name);
            }
            let found = folded.n_parameters();
            assert!(parameters.contains(&found), "{name}: {found}");
            let found = folded.multiply_adds(160) as f64 / 1e6;
            assert!(at_160.contains(&found), "{name}: {found}");
            assert!(network.n_parameters() > folded.n_parameters());
        }
    }

    fn conv(name: &str, [kernel, stride, padding]: [usize; 3], from: NodeIdx) -> Node {
        Node {
            name: name.to_owned(),
            op: Op::Conv {
                inputs: 3,
                outputs: 3,
                kernel,
                stride,
                padding,
                groups: 1,
                bias: true,
            },
            inputs: vec![from],
        }
    }

    fn network(nodes: Vec<Node>) -> Network {
        let image = by_name("eyas-xs", 8).unwrap().nodes.remove(0);
        Network {
            name: "test".to_owned(),
            nodes: [vec![image], nodes].concat(),
        }
    }

    fn add(name: &str, terms: [NodeIdx; 2]) -> Node {
        Node {
            name: name.to_owned(),
            op: Op::Add,
            inputs: terms.to_vec(),
        }
    }

    fn n_nodes_folded(network: &Network) -> usize {
        let weights = reference::random_weights(network, 5);
        let (folded, folded_weights) = fold(network, &weights).unwrap();
        let pixels = reference::random_pixels(9, &mut Random::new(9));
        let before = reference::embed(network, &weights, &pixels, 9);
        let after = reference::embed(&folded, &folded_weights, &pixels, 9);
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
        folded.nodes.len()
    }

    #[test]
    fn only_branches_that_one_convolution_can_replace_are_merged() {
        let both = |first, second| {
            n_nodes_folded(&network(vec![
                conv("a", first, 0),
                conv("b", second, 0),
                add("sum", [1, 2]),
            ]))
        };
        assert_eq!(both([3, 1, 1], [1, 1, 0]), 2);
        assert_eq!(both([1, 2, 0], [5, 2, 2]), 2);
        // Windows that are not centered on each other.
        assert_eq!(both([2, 1, 0], [2, 1, 0]), 2);
        assert_eq!(both([3, 1, 0], [3, 1, 0]), 2);
        let shifted = network(vec![conv("a", [3, 2, 1], 0), conv("b", [2, 2, 0], 0)]);
        assert_eq!(n_nodes_folded(&shifted), 3);
        let residual = network(vec![conv("a", [3, 1, 1], 0), add("sum", [1, 0])]);
        assert_eq!(n_nodes_folded(&residual), 2);
        // The second branch reads the first one's output.
        let deep = network(vec![
            conv("a", [3, 1, 1], 0),
            conv("b", [3, 1, 1], 1),
            add("sum", [2, 0]),
        ]);
        assert_eq!(n_nodes_folded(&deep), 4);
        // Something else reads a branch.
        let read = network(vec![
            conv("a", [3, 1, 1], 0),
            add("sum", [1, 0]),
            add("again", [2, 1]),
        ]);
        assert_eq!(n_nodes_folded(&read), 4);
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
