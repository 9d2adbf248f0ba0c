//! A zoo network with gradients.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Device, Kind, Tensor};

use crate::weights::{Weight, Weights, WeightsError};
use crate::zoo::{self, Activation, GEM_MIN, Op, Pooling};

/// Share of the batch's statistics in the running ones.
const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Whether batch norm uses and updates statistics of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Train,
    Evaluate,
}

/// A network whose weights are libtorch tensors.
pub(super) struct TorchNetwork {
    pub(super) description: zoo::Network,
    /// By full name, such as `head.bias`.
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// How it computes in training.
    pub(super) training: InTraining,
}

/// How a network computes in training; evaluation is always f32 with running statistics.
#[derive(Clone)]
pub(super) struct InTraining {
    /// Kind of the convolutions, of tokens' linear layers and attentions, and of what flows
    /// between them.
    pub(super) kind: Kind,
    /// Names of the batch norm layers that use and keep their running statistics.
    pub(super) frozen_statistics: BTreeSet<String>,
}

impl Default for InTraining {
    fn default() -> Self {
        Self {
            kind: Kind::Float,
            frozen_statistics: BTreeSet::new(),
        }
    }
}

/// A tensor of plain numbers.
pub(super) fn tensor_of(weight: &Weight, device: Device) -> Tensor {
    let shape: Vec<i64> = weight.shape.iter().map(|&extent| extent as i64).collect();
    Tensor::from_slice(&weight.values)
        .view(shape.as_slice())
        .to_device(device)
}

/// Plain numbers of an f32 tensor.
pub(super) fn weight_of(tensor: &Tensor) -> Weight {
    let shape = tensor
        .size()
        .iter()
        .map(|&extent| extent as usize)
        .collect();
    Weight {
        shape,
        values: values_of(tensor),
    }
}

/// Row-major values of a tensor.
pub(super) fn values_of(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor
        .detach()
        .to_kind(Kind::Float)
        .to_device(Device::Cpu)
        .contiguous()
        .view(-1);
    Vec::try_from(flat).expect("a flat f32 tensor on the CPU")
}

/// Height and width of N x C x H x W.
const PLANE: [i64; 2] = [2, 3];

/// How maps lie in memory: in another order libtorch adds in another order.
pub(super) const LAYOUT: &str = "channels last";

/// The same N x C x H x W with the channels of a pixel side by side in memory. What is computed
/// from it lies so as well, which is how libtorch pools and convolves fastest on a CPU, and
/// convolves in 16 bits on a GPU.
fn channels_last(images: &Tensor) -> Tensor {
    let pixels = images.permute([0, 2, 3, 1]).contiguous();
    pixels.permute([0, 3, 1, 2])
}

fn activate(activation: Activation, input: &Tensor) -> Tensor {
    match activation {
        Activation::Relu => input.relu(),
        Activation::Relu6 => input.relu6(),
        Activation::HardSwish => input.hardswish(),
        Activation::HardSigmoid => input.hardsigmoid(),
        Activation::Silu => input.silu(),
        Activation::Sigmoid => input.sigmoid(),
        Activation::Gelu => input.gelu("none"),
    }
}

/// softmax(q k^T / sqrt(d)) v in every head: N x T x 3 C to N x T x C. The softmax is f32.
fn attention(qkv: &Tensor, heads: usize) -> Tensor {
    let heads = heads as i64;
    let (n, tokens, channels) = (qkv.size()[0], qkv.size()[1], qkv.size()[2] / 3);
    let depth = channels / heads;
    let parts = qkv.view([n, tokens, 3, heads, depth]);
    let parts = parts.permute([2, 0, 3, 1, 4]);
    let [q, k, v] = [0, 1, 2].map(|part| parts.select(0, part));
    let scores = (q / (depth as f64).sqrt()).matmul(&k.transpose(-2, -1));
    let shares = scores.softmax(-1, Kind::Float).to_kind(v.kind());
    let heads = shares.matmul(&v).transpose(1, 2);
    heads.reshape([n, tokens, channels])
}

/// Global pooling without weights: N x C x H x W to N x C.
fn pool(pooling: Pooling, input: &Tensor) -> Tensor {
    let mean = || input.mean_dim(PLANE.as_slice(), false, Kind::Float);
    let max = || input.amax(PLANE, false);
    match pooling {
        Pooling::Max => max(),
        Pooling::AverageMax => mean() + max(),
        Pooling::Average | Pooling::Gem => mean(),
    }
}

/// Generalized mean with exponent `p`: N x C x H x W to N x C. Gradient flows through both.
pub(super) fn gem(input: &Tensor, p: &Tensor) -> Tensor {
    let powers = input.clamp_min(f64::from(GEM_MIN)).pow(p);
    powers
        .mean_dim(PLANE.as_slice(), false, powers.kind())
        .pow(&p.reciprocal())
}

impl TorchNetwork {
    /// Takes over the weights that the network needs.
    pub(super) fn new(
        description: zoo::Network,
        weights: &Weights,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let mut tensors = BTreeMap::new();
        for shape in description.weights() {
            let weight = weights.get(&shape.name, &shape.shape)?;
            let tensor = tensor_of(weight, device).set_requires_grad(shape.trained);
            tensors.insert(shape.name, tensor);
        }
        Ok(Self {
            description,
            tensors,
            training: InTraining::default(),
        })
    }

    /// The weights as plain numbers.
    pub(super) fn weights(&self) -> Weights {
        let plain = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), weight_of(tensor)));
        Weights(plain.collect())
    }

    /// Output of the head for N x 3 x side x side images: N x dim, not normalized.
    pub(super) fn head_output(&self, images: &Tensor, mode: Mode) -> Tensor {
        let mut outputs = self.outputs(images, mode);
        outputs.pop().expect("a network has nodes")
    }

    /// Output of the head, and those of some nodes by name, in f32 and in memory as they are
    /// indexed.
    pub(super) fn head_output_and_maps(
        &self,
        images: &Tensor,
        mode: Mode,
        nodes: &[String],
    ) -> (Tensor, BTreeMap<String, Tensor>) {
        let mut outputs = self.outputs(images, mode);
        let named = self.description.nodes.iter().zip(&outputs);
        let maps = named
            .filter(|(node, _)| nodes.contains(&node.name))
            .map(|(node, output)| (node.name.clone(), output.to_kind(Kind::Float).contiguous()))
            .collect();
        (outputs.pop().expect("a network has nodes"), maps)
    }

    /// Outputs of all nodes up to the last scaling.
    fn outputs(&self, images: &Tensor, mode: Mode) -> Vec<Tensor> {
        let kind = match mode {
            Mode::Train => self.training.kind,
            Mode::Evaluate => Kind::Float,
        };
        // Weights and statistics stay f32; only what convolutions read is rounded.
        let rounded = |tensor: &Tensor| tensor.to_kind(kind);
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.description.nodes.len());
        for node in &self.description.nodes {
            let input = || &outputs[node.inputs[0]];
            let weight = |suffix: &str| &self.tensors[&format!("{}.{suffix}", node.name)];
            let output = match node.op {
                Op::Input => channels_last(images),
                Op::Conv {
                    stride,
                    padding,
                    groups,
                    bias,
                    ..
                } => {
                    let (stride, padding) = ([stride as i64; 2], [padding as i64; 2]);
                    let bias = bias.then(|| rounded(weight("bias")));
                    let (weight, groups) = (rounded(weight("weight")), groups as i64);
                    rounded(input()).conv2d(&weight, bias, stride, padding, [1, 1], groups)
                }
                Op::BatchNorm { epsilon, .. } => input().batch_norm(
                    Some(weight("weight")),
                    Some(weight("bias")),
                    Some(weight("running_mean")),
                    Some(weight("running_var")),
                    mode == Mode::Train && !self.training.frozen_statistics.contains(&node.name),
                    BATCH_NORM_MOMENTUM,
                    epsilon,
                    false,
                ),
                Op::Activation(activation) => activate(activation, input()),
                Op::MaxPool {
                    kernel,
                    stride,
                    padding,
                    ceil,
                } => {
                    let [kernel, stride, padding] =
                        [kernel, stride, padding].map(|x| [x as i64; 2]);
                    input().max_pool2d(kernel, stride, padding, [1, 1], ceil)
                }
                Op::AveragePool {
                    kernel,
                    stride,
                    padding,
                } => {
                    let [kernel, stride, padding] =
                        [kernel, stride, padding].map(|x| [x as i64; 2]);
                    input().avg_pool2d(kernel, stride, padding, false, true, None::<i64>)
                }
                Op::Add => input() + &outputs[node.inputs[1]],
                Op::Concat => {
                    let parts: Vec<&Tensor> = node.inputs.iter().map(|&i| &outputs[i]).collect();
                    Tensor::cat(&parts, 1)
                }
                Op::Slice { start, channels } => input().narrow(1, start as i64, channels as i64),
                Op::Shuffle { groups, .. } => input().channel_shuffle(groups as i64),
                Op::SpatialMean => input().mean_dim(PLANE.as_slice(), true, Kind::Float),
                Op::ScaleChannels => input() * &outputs[node.inputs[1]],
                Op::Tokens => input().flatten(2, 3).transpose(1, 2),
                Op::ClassToken { channels } => {
                    let n = input().size()[0];
                    let token = weight("value").to_kind(input().kind());
                    let token = token.expand([n, 1, channels as i64], false);
                    Tensor::cat(&[&token, input()], 1)
                }
                Op::Positions { .. } => input() + weight("value"),
                Op::LayerNorm { channels, epsilon } => input().to_kind(Kind::Float).layer_norm(
                    [channels as i64],
                    Some(weight("weight")),
                    Some(weight("bias")),
                    epsilon,
                    false,
                ),
                Op::Attention { heads, .. } => attention(input(), heads),
                Op::LayerScale { .. } => input() * weight("gamma"),
                Op::FirstToken { .. } => input().select(1, 0).unsqueeze(-1).unsqueeze(-1),
                Op::GlobalPool(Pooling::Gem) => gem(&input().to_kind(Kind::Float), weight("p")),
                Op::GlobalPool(pooling) => pool(pooling, input()),
                // Of tokens as precise as a convolution, of the embedding f32.
                Op::Linear { .. } => {
                    let kind = match input().dim() {
                        3 => kind,
                        _ => Kind::Float,
                    };
                    let [input, weight, bias] = [input(), weight("weight"), weight("bias")]
                        .map(|tensor| tensor.to_kind(kind));
                    input.linear(&weight, Some(&bias))
                }
                Op::L2Normalize => break,
            };
            outputs.push(output);
        }
        outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// f64 on both sides, other orders of addition.
    const SAME_FORMULA: f64 = 1e-9;

    /// f32 in libtorch against f64 sums, on components of a unit vector.
    const SUMMATION: f32 = 2e-5;

    #[test]
    fn gem_agrees_with_the_published_implementation() {
        let beside = "../../shared/golden/aml_a.npz";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(beside);
        if !path.exists() {
            eprintln!("skipped: {beside} does not lie beside the checkout");
            return;
        }
        let stored = Tensor::read_npz(&path).unwrap();
        let golden = |name: &str| {
            let key = format!("gem_p3/{name}");
            let found = stored.iter().find(|(found, _)| *found == key);
            found.unwrap().1.to_kind(Kind::Double)
        };
        let input = golden("in_x").set_requires_grad(true);
        let p = golden("in_p").set_requires_grad(true);
        let pooled = gem(&input, &p);
        (&pooled * golden("in_w").view_as(&pooled))
            .sum(Kind::Double)
            .backward();
        for (name, found) in [
            ("y", pooled),
            ("grad_x", input.grad()),
            ("grad_p", p.grad()),
        ] {
            let expected = golden(name);
            let largest = expected.abs().max().double_value(&[]);
            let apart = (found.view_as(&expected) - expected).abs().max();
            assert!(apart.double_value(&[]) <= SAME_FORMULA * largest, "{name}");
        }
    }

    /// What mixed precision is: 16 bits where the work is, f32 where numbers are summed up
    /// or compared, and weights and gradients in f32.
    #[test]
    fn convolutions_and_attentions_compute_in_16_bits_and_the_rest_in_f32() {
        let side = 28;
        tch::manual_seed(1);
        let images = Tensor::randn([2, 3, side as i64, side as i64], (Kind::Float, Device::Cpu));
        for (name, n_rounded) in [
            ("eyas-xs", 10),
            ("squeezenet1_1", 10),
            ("dinov2_vits14", 40),
        ] {
            let description = zoo::by_name(name, 8).unwrap().for_side(side);
            let weights = zoo::init::random_weights(&description, 5);
            let mut network = TorchNetwork::new(description, &weights, Device::Cpu).unwrap();
            for kind in [Kind::BFloat16, Kind::Half] {
                network.training.kind = kind;
                let outputs = network.outputs(&images, Mode::Train);
                let mut found = 0;
                for (node, output) in network.description.nodes.iter().zip(&outputs) {
                    let expected = match node.op {
                        Op::Conv { .. } | Op::Attention { .. } => kind,
                        Op::Linear { .. } if output.dim() == 3 => kind,
                        Op::Input
                        | Op::LayerNorm { .. }
                        | Op::GlobalPool(_)
                        | Op::Linear { .. } => Kind::Float,
                        _ => continue,
                    };
                    assert_eq!(output.kind(), expected, "{name}: {}", node.name);
                    found += usize::from(expected == kind);
                }
                assert!(found >= n_rounded, "{name}: only {found} nodes in {kind:?}");
                let embedding = outputs.last().unwrap();
                embedding.square().sum(Kind::Float).backward();
                for (name, tensor) in network.tensors.iter_mut() {
                    assert_eq!(tensor.kind(), Kind::Float, "{name}");
                    if tensor.requires_grad() {
                        assert_eq!(tensor.grad().kind(), Kind::Float, "{name}");
                        tensor.zero_grad();
                    }
                }
                for output in network.outputs(&images, Mode::Evaluate) {
                    assert_eq!(output.kind(), Kind::Float, "{name} in evaluation");
                }
            }
        }
    }

    #[test]
    fn every_weight_of_a_transformer_learns_in_either_precision() {
        let side = 28;
        let network = zoo::by_name("dinov2_vits14", 8).unwrap().for_side(side);
        let weights = zoo::init::random_weights(&network, 5);
        tch::manual_seed(1);
        let images = Tensor::randn([2, 3, side as i64, side as i64], (Kind::Float, Device::Cpu));
        for kind in [Kind::Float, Kind::BFloat16] {
            let mut network = TorchNetwork::new(network.clone(), &weights, Device::Cpu).unwrap();
            network.training.kind = kind;
            let output = network.head_output(&images, Mode::Train);
            assert_eq!(output.kind(), Kind::Float);
            output.square().sum(Kind::Float).backward();
            for (name, tensor) in &network.tensors {
                let largest = tensor.grad().abs().max().double_value(&[]);
                assert!(
                    largest > 0.0 && largest.is_finite(),
                    "{kind:?} {name}: {largest}"
                );
            }
        }
    }

    #[test]
    fn libtorch_computes_what_the_network_says() {
        use crate::export::reference;
        use eyas_shared::random::Random;
        let side = 32;
        for name in [
            "mobilenet_v3_small",
            "bninception",
            "mobilenet_v2",
            "shufflenet_v2_x0_5",
            "eyas-xs",
            "dinov2_vits14",
        ] {
            for pooling in Pooling::ALL {
                let network = zoo::by_name(name, 16).unwrap().for_side(side);
                let network = network.with_pooling(pooling);
                let weights = reference::random_weights(&network, 5);
                let pixels = reference::random_pixels(side, &mut Random::new(4));
                let expected = reference::embed(&network, &weights, &pixels, side);
                let network = TorchNetwork::new(network, &weights, Device::Cpu).unwrap();
                let images = Tensor::from_slice(&pixels).view([1, 3, side as i64, side as i64]);
                let output = tch::no_grad(|| network.head_output(&images, Mode::Evaluate));
                let mut found = values_of(&output);
                eyas_shared::embedding::l2_normalize(&mut found);
                for (a, b) in expected.iter().zip(&found) {
                    assert!((a - b).abs() < SUMMATION, "{name} {pooling:?}: {a} and {b}");
                }
            }
        }
    }
}
