//! A network of the zoo computed the slow and plain way, in f64: what export is tested
//! against.

use eyas_shared::random::Random;

use crate::weights::Weights;
use crate::zoo::{BATCH_NORM_EPSILON, Network, Node, Op};

#[path = "../../tests/support/random_weights.rs"]
mod weights;
pub(crate) use weights::random_weights;

/// Channels x side x side.
#[derive(Clone)]
struct Tensor {
    side: usize,
    values: Vec<f64>,
}

impl Tensor {
    fn channels(&self) -> usize {
        self.values.len() / (self.side * self.side)
    }
}

/// 3 x side x side values like normalized pixels.
pub(super) fn random_pixels(side: usize, random: &mut Random) -> Vec<f32> {
    (0..3 * side * side)
        .map(|_| random.range(-2.0, 2.0) as f32)
        .collect()
}

/// The network's output for one image.
pub(super) fn embed(
    network: &Network,
    weights: &Weights,
    pixels_chw: &[f32],
    side: usize,
) -> Vec<f32> {
    let mut outputs: Vec<Tensor> = Vec::new();
    for node in &network.nodes {
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&idx| &outputs[idx]).collect();
        let output = match inputs.first() {
            None => Tensor {
                side,
                values: pixels_chw.iter().map(|&x| f64::from(x)).collect(),
            },
            Some(_) => evaluate(node, weights, &inputs),
        };
        outputs.push(output);
    }
    let last = outputs.last().unwrap();
    last.values.iter().map(|&x| x as f32).collect()
}

fn evaluate(node: &Node, weights: &Weights, inputs: &[&Tensor]) -> Tensor {
    let input = inputs[0];
    let weight = |suffix: &str| -> Vec<f64> {
        let values = &weights.0[&format!("{}.{suffix}", node.name)].values;
        values.iter().map(|&x| f64::from(x)).collect()
    };
    let like_input = |values: Vec<f64>| Tensor {
        side: input.side,
        values,
    };
    let flat = |values: Vec<f64>| Tensor { side: 1, values };
    let area = input.side * input.side;
    match node.op {
        Op::Input => unreachable!("the input reads nothing"),
        Op::Conv { bias, .. } => {
            let bias = if bias { weight("bias") } else { Vec::new() };
            convolve(node.op, input, &weight("weight"), &bias)
        }
        Op::BatchNorm { .. } => {
            let (gain, shift) = (weight("weight"), weight("bias"));
            let (mean, variance) = (weight("running_mean"), weight("running_var"));
            let normal = |(i, x): (usize, &f64)| {
                let c = i / area;
                (x - mean[c]) / (variance[c] + BATCH_NORM_EPSILON).sqrt() * gain[c] + shift[c]
            };
            like_input(input.values.iter().enumerate().map(normal).collect())
        }
        Op::Relu => like_input(input.values.iter().map(|x| x.max(0.0)).collect()),
        Op::MaxPool {
            kernel,
            stride,
            ceil,
        } => max_pool(input, kernel, stride, ceil),
        Op::Add => {
            let pairs = input.values.iter().zip(&inputs[1].values);
            like_input(pairs.map(|(a, b)| a + b).collect())
        }
        Op::Concat => like_input(inputs.iter().flat_map(|t| t.values.clone()).collect()),
        Op::GlobalAveragePool => {
            let planes = input.values.chunks_exact(area);
            flat(
                planes
                    .map(|p| p.iter().sum::<f64>() / area as f64)
                    .collect(),
            )
        }
        Op::Linear { inputs: n, .. } => {
            let (rows, bias) = (weight("weight"), weight("bias"));
            let dot = |row: &[f64]| {
                row.iter()
                    .zip(&input.values)
                    .map(|(a, b)| a * b)
                    .sum::<f64>()
            };
            flat(
                rows.chunks_exact(n)
                    .zip(bias)
                    .map(|(row, b)| dot(row) + b)
                    .collect(),
            )
        }
        Op::L2Normalize => {
            let norm = input.values.iter().map(|x| x * x).sum::<f64>().sqrt();
            flat(input.values.iter().map(|x| x / norm.max(1e-12)).collect())
        }
    }
}

fn convolve(op: Op, input: &Tensor, kernels: &[f64], bias: &[f64]) -> Tensor {
    let Op::Conv {
        inputs,
        outputs,
        kernel,
        stride,
        padding,
        ..
    } = op
    else {
        unreachable!("only convolutions come here")
    };
    let side = (input.side + 2 * padding - kernel) / stride + 1;
    let mut values = Vec::with_capacity(outputs * side * side);
    for output in 0..outputs {
        for (y, x) in (0..side * side).map(|at| (at / side, at % side)) {
            let mut sum = bias.get(output).copied().unwrap_or(0.0);
            for (ky, kx) in (0..kernel * kernel).map(|at| (at / kernel, at % kernel)) {
                let row = (y * stride + ky).wrapping_sub(padding);
                let column = (x * stride + kx).wrapping_sub(padding);
                if row >= input.side || column >= input.side {
                    continue;
                }
                for channel in 0..inputs {
                    let weight = ((output * inputs + channel) * kernel + ky) * kernel + kx;
                    let pixel = (channel * input.side + row) * input.side + column;
                    sum += kernels[weight] * input.values[pixel];
                }
            }
            values.push(sum);
        }
    }
    Tensor { side, values }
}

fn max_pool(input: &Tensor, kernel: usize, stride: usize, ceil: bool) -> Tensor {
    let span = input.side - kernel;
    let side = 1 + if ceil {
        span.div_ceil(stride)
    } else {
        span / stride
    };
    let mut values = Vec::new();
    for channel in 0..input.channels() {
        for (y, x) in (0..side * side).map(|at| (at / side, at % side)) {
            let rows = y * stride..(y * stride + kernel).min(input.side);
            let largest = rows
                .flat_map(|row| {
                    let start = (channel * input.side + row) * input.side;
                    let end = (x * stride + kernel).min(input.side);
                    &input.values[start + x * stride..start + end]
                })
                .fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            values.push(largest);
        }
    }
    Tensor { side, values }
}
