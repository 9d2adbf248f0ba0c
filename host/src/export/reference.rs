//! A network of the zoo computed the slow and plain way, in f64 and as it was trained:
//! what every layer of an exported network is held against.
//!
//! Not for encoding, and not for gradients: one image after the other, a hundred times
//! slower than the device encoder.

use crate::weights::Weights;
use crate::zoo::{Activation, GEM_MIN, Network, Node, Op, Places, Pooling};

mod attention;
mod erf;

#[cfg(test)]
#[path = "../../tests/support/random_weights.rs"]
mod weights;
#[cfg(test)]
pub(crate) use weights::random_weights;

/// Channels x side x side of a map, tokens x channels of tokens.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    /// Where its channels lie.
    pub(crate) places: Places,
    /// In this order.
    pub(crate) values: Vec<f64>,
}

impl Tensor {
    /// Numbers that lie there.
    pub(crate) fn of(values: &[f32], places: Places) -> Self {
        Self {
            places,
            values: values.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// An image's pixels.
    pub(crate) fn of_image(pixels_chw: &[f32], side: usize) -> Self {
        Self::of(pixels_chw, Places::Map { side })
    }

    /// Mean over the places, channel by channel.
    #[cfg(test)]
    pub(crate) fn channel_means(&self) -> Vec<f64> {
        let (n, n_channels) = (self.places.n(), self.values.len() / self.places.n());
        let value = |channel: usize, place: usize| match self.places {
            Places::Map { .. } => self.values[channel * n + place],
            Places::Tokens { .. } => self.values[place * n_channels + channel],
        };
        let sum = |channel| (0..n).map(|place| value(channel, place)).sum::<f64>();
        (0..n_channels)
            .map(|channel| sum(channel) / n as f64)
            .collect()
    }
}

/// 3 x side x side values like normalized pixels.
#[cfg(test)]
pub(crate) fn random_pixels(side: usize, random: &mut eyas_shared::random::Random) -> Vec<f32> {
    (0..3 * side * side)
        .map(|_| random.range(-2.0, 2.0) as f32)
        .collect()
}

/// The network's output for one image.
#[cfg(test)]
pub(crate) fn embed(
    network: &Network,
    weights: &Weights,
    pixels_chw: &[f32],
    side: usize,
) -> Vec<f32> {
    let outputs = outputs(network, weights, &Tensor::of_image(pixels_chw, side));
    let last = outputs.last().unwrap();
    last.values.iter().map(|&x| x as f32).collect()
}

/// What every node puts out for one image.
pub(crate) fn outputs(network: &Network, weights: &Weights, image: &Tensor) -> Vec<Tensor> {
    let mut outputs: Vec<Tensor> = Vec::new();
    for node in &network.nodes {
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&idx| &outputs[idx]).collect();
        let output = match inputs.first() {
            None => image.clone(),
            Some(_) => evaluate(node, weights, &inputs),
        };
        outputs.push(output);
    }
    outputs
}

/// What a node makes of its inputs. The network's weights must be whole, as folding leaves
/// no other behind.
pub(crate) fn evaluate(node: &Node, weights: &Weights, inputs: &[&Tensor]) -> Tensor {
    let input = inputs[0];
    let weight = |suffix: &str| -> Vec<f64> {
        let values = &weights.0[&format!("{}.{suffix}", node.name)].values;
        values.iter().map(|&x| f64::from(x)).collect()
    };
    let like_input = |values: Vec<f64>| Tensor {
        places: input.places,
        values,
    };
    let at = |places: Places, values: Vec<f64>| Tensor { places, values };
    let flat = |values: Vec<f64>| at(Places::Map { side: 1 }, values);
    let area = input.places.n();
    match node.op {
        Op::Input => unreachable!("the input reads nothing"),
        Op::Conv { bias, .. } => {
            let bias = if bias { weight("bias") } else { Vec::new() };
            convolve(node, input, &weight("weight"), &bias)
        }
        Op::BatchNorm { epsilon, .. } => {
            let (gain, shift) = (weight("weight"), weight("bias"));
            let (mean, variance) = (weight("running_mean"), weight("running_var"));
            let normal = |(i, x): (usize, &f64)| {
                let c = i / area;
                (x - mean[c]) / (variance[c] + epsilon).sqrt() * gain[c] + shift[c]
            };
            like_input(input.values.iter().enumerate().map(normal).collect())
        }
        Op::Activation(activation) => like_input(
            input
                .values
                .iter()
                .map(|&x| activate(activation, x))
                .collect(),
        ),
        Op::MaxPool {
            kernel,
            stride,
            padding,
            ..
        } => {
            let max = |window: &[f64]| window.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            slide(input, [kernel, stride, padding], side_of(node, input), max)
        }
        Op::AveragePool {
            kernel,
            stride,
            padding,
        } => {
            let n = (kernel * kernel) as f64;
            let mean = |window: &[f64]| window.iter().sum::<f64>() / n;
            slide(input, [kernel, stride, padding], side_of(node, input), mean)
        }
        Op::Add => {
            let pairs = input.values.iter().zip(&inputs[1].values);
            like_input(pairs.map(|(a, b)| a + b).collect())
        }
        Op::Concat => like_input(inputs.iter().flat_map(|t| t.values.clone()).collect()),
        Op::Slice { start, channels } => {
            like_input(input.values[start * area..][..channels * area].to_vec())
        }
        Op::Shuffle { channels, groups } => {
            let per_group = channels / groups;
            let dealt = (0..channels).map(|c| c % groups * per_group + c / groups);
            like_input(
                dealt
                    .flat_map(|c| input.values[c * area..][..area].to_vec())
                    .collect(),
            )
        }
        Op::SpatialMean => flat(input.values.chunks_exact(area).map(mean).collect()),
        Op::ScaleChannels => {
            let planes = input.values.chunks_exact(area).zip(&inputs[1].values);
            like_input(
                planes
                    .flat_map(|(plane, gate)| plane.iter().map(move |x| x * gate))
                    .collect(),
            )
        }
        Op::GlobalPool(pooling) => {
            let p = match pooling {
                Pooling::Gem => weight("p")[0],
                _ => 1.0,
            };
            let planes = input.values.chunks_exact(area);
            flat(planes.map(|plane| pool(pooling, p, plane)).collect())
        }
        Op::Linear { inputs: n, .. } => {
            let (rows, bias) = (weight("weight"), weight("bias"));
            let of_token = |token: &[f64]| -> Vec<f64> {
                let rows = rows.chunks_exact(n).zip(&bias);
                rows.map(|(row, b)| dot(row, token) + b).collect()
            };
            like_input(input.values.chunks_exact(n).flat_map(of_token).collect())
        }
        Op::Tokens => {
            let n_channels = input.values.len() / area;
            let all = (0..area * n_channels).map(|i| (i / n_channels, i % n_channels));
            let values = all.map(|(place, channel)| input.values[channel * area + place]);
            at(Places::Tokens { n: area }, values.collect())
        }
        Op::ClassToken { .. } => {
            let mut values = weight("value");
            values.extend(&input.values);
            at(Places::Tokens { n: area + 1 }, values)
        }
        Op::Positions { .. } => {
            let positions = weight("value");
            let pairs = input.values.iter().zip(&positions);
            like_input(pairs.map(|(a, b)| a + b).collect())
        }
        Op::LayerNorm { channels, epsilon } => {
            let (gain, shift) = (weight("weight"), weight("bias"));
            let of_token = |token: &[f64]| -> Vec<f64> {
                let center = mean(token);
                let squares: Vec<f64> = token.iter().map(|x| (x - center).powi(2)).collect();
                let deviation = (mean(&squares) + epsilon).sqrt();
                let affine = gain.iter().zip(&shift);
                let values = token.iter().zip(affine);
                let normal = |(x, (gain, shift)): (&f64, (&f64, &f64))| {
                    (x - center) / deviation * gain + shift
                };
                values.map(normal).collect()
            };
            like_input(
                input
                    .values
                    .chunks_exact(channels)
                    .flat_map(of_token)
                    .collect(),
            )
        }
        Op::Attention { channels, heads } => {
            like_input(attention::attend(&input.values, channels, heads))
        }
        Op::LayerScale { channels } => {
            let gamma = weight("gamma");
            let scaled = |(i, x): (usize, &f64)| x * gamma[i % channels];
            like_input(input.values.iter().enumerate().map(scaled).collect())
        }
        Op::FirstToken { channels } => flat(input.values[..channels].to_vec()),
        Op::L2Normalize => {
            let norm = input.values.iter().map(|x| x * x).sum::<f64>().sqrt();
            flat(input.values.iter().map(|x| x / norm.max(1e-12)).collect())
        }
    }
}

fn mean(plane: &[f64]) -> f64 {
    plane.iter().sum::<f64>() / plane.len() as f64
}

fn pool(pooling: Pooling, p: f64, plane: &[f64]) -> f64 {
    let max = plane.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    match pooling {
        Pooling::Average => mean(plane),
        Pooling::Max => max,
        Pooling::AverageMax => mean(plane) + max,
        Pooling::Gem => {
            let power = |x: &f64| x.max(f64::from(GEM_MIN)).powf(p);
            mean(&plane.iter().map(power).collect::<Vec<_>>()).powf(1.0 / p)
        }
    }
}

fn activate(activation: Activation, x: f64) -> f64 {
    let hard_sigmoid = (x + 3.0).clamp(0.0, 6.0) / 6.0;
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::HardSwish => x * hard_sigmoid,
        Activation::HardSigmoid => hard_sigmoid,
        Activation::Silu => x * sigmoid,
        Activation::Sigmoid => sigmoid,
        Activation::Gelu => 0.5 * x * (1.0 + erf::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    }
}

/// Height and width of what a node makes of this input.
fn side_of(node: &Node, input: &Tensor) -> usize {
    let image = Node {
        name: "image".to_owned(),
        op: Op::Input,
        inputs: Vec::new(),
    };
    let node = Node {
        inputs: vec![0],
        ..node.clone()
    };
    let network = Network {
        name: String::new(),
        nodes: vec![image, node],
    };
    network.output_places(input.places.side())[1].side()
}

/// Rows and columns of the input under the window at `at`; none where it is padding.
fn window(
    [kernel, stride, padding]: [usize; 3],
    at: [usize; 2],
    side: usize,
) -> impl Iterator<Item = Option<usize>> {
    (0..kernel * kernel).map(move |k| {
        let row = (at[0] * stride + k / kernel).wrapping_sub(padding);
        let column = (at[1] * stride + k % kernel).wrapping_sub(padding);
        (row < side && column < side).then(|| row * side + column)
    })
}

/// A function of every window, without what is padding.
fn slide(
    input: &Tensor,
    geometry: [usize; 3],
    side: usize,
    of_window: impl Fn(&[f64]) -> f64,
) -> Tensor {
    let mut values = Vec::new();
    for plane in input.values.chunks_exact(input.places.n()) {
        for at in 0..side * side {
            let inside = window(geometry, [at / side, at % side], input.places.side()).flatten();
            let inside: Vec<f64> = inside.map(|idx| plane[idx]).collect();
            values.push(of_window(&inside));
        }
    }
    let places = Places::Map { side };
    Tensor { places, values }
}

/// Every window is copied once and multiplied with all kernels of its group.
fn convolve(node: &Node, input: &Tensor, kernels: &[f64], bias: &[f64]) -> Tensor {
    let Op::Conv {
        inputs,
        outputs,
        kernel,
        stride,
        padding,
        groups,
        ..
    } = node.op
    else {
        unreachable!("only convolutions come here")
    };
    let side = side_of(node, input);
    let area = input.places.n();
    let (n_inputs, n_outputs) = (inputs / groups, outputs / groups);
    let n_taps = n_inputs * kernel * kernel;
    let mut values = vec![0.0; outputs * side * side];
    for at in 0..side * side {
        let taps: Vec<Option<usize>> = window(
            [kernel, stride, padding],
            [at / side, at % side],
            input.places.side(),
        )
        .collect();
        for group in 0..groups {
            let planes = input.values[group * n_inputs * area..].chunks_exact(area);
            let of_plane = |plane: &[f64]| -> Vec<f64> {
                taps.iter()
                    .map(|tap| tap.map_or(0.0, |idx| plane[idx]))
                    .collect()
            };
            let patch: Vec<f64> = planes.take(n_inputs).flat_map(of_plane).collect();
            for output in group * n_outputs..(group + 1) * n_outputs {
                let weights = &kernels[output * n_taps..][..n_taps];
                values[output * side * side + at] =
                    dot(weights, &patch) + bias.get(output).copied().unwrap_or(0.0);
            }
        }
    }
    let places = Places::Map { side };
    Tensor { places, values }
}

/// In four sums side by side, so that the deep networks take no minutes.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    for (a, b) in a.chunks(4).zip(b.chunks(4)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}
