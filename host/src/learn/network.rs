//! A zoo network with gradients.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Device, Kind, Tensor};

use crate::weights::{Weight, Weights, WeightsError};
use crate::zoo::{self, BATCH_NORM_EPSILON, Op};

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
pub(super) struct InTraining {
    /// Kind of the convolutions and of what flows between them.
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
                Op::Input => images.shallow_clone(),
                Op::Conv {
                    stride,
                    padding,
                    bias,
                    ..
                } => {
                    let (stride, padding) = ([stride as i64; 2], [padding as i64; 2]);
                    let bias = bias.then(|| rounded(weight("bias")));
                    rounded(input()).conv2d(
                        &rounded(weight("weight")),
                        bias,
                        stride,
                        padding,
                        [1, 1],
                        1,
                    )
                }
                Op::BatchNorm { .. } => input().batch_norm(
                    Some(weight("weight")),
                    Some(weight("bias")),
                    Some(weight("running_mean")),
                    Some(weight("running_var")),
                    mode == Mode::Train && !self.training.frozen_statistics.contains(&node.name),
                    BATCH_NORM_MOMENTUM,
                    BATCH_NORM_EPSILON,
                    false,
                ),
                Op::Relu => input().relu(),
                Op::MaxPool {
                    kernel,
                    stride,
                    ceil,
                } => {
                    let (kernel, stride) = ([kernel as i64; 2], [stride as i64; 2]);
                    input().max_pool2d(kernel, stride, [0, 0], [1, 1], ceil)
                }
                Op::Add => input() + &outputs[node.inputs[1]],
                Op::Concat => {
                    let parts: Vec<&Tensor> = node.inputs.iter().map(|&i| &outputs[i]).collect();
                    Tensor::cat(&parts, 1)
                }
                Op::GlobalAveragePool => input().mean_dim([2, 3].as_slice(), false, Kind::Float),
                Op::Linear { .. } => input()
                    .to_kind(Kind::Float)
                    .linear(weight("weight"), Some(weight("bias"))),
                Op::L2Normalize => break,
            };
            outputs.push(output);
        }
        outputs.pop().expect("a network has nodes")
    }
}
