//! Biases that make up for what rounding shifts on the mean (Nagel et al., ICCV 2019).
//!
//! A rounded weight is off by a fixed amount, so a layer's output is shifted by that amount
//! times its mean input. Mean inputs are measured on images, with the padding as it comes;
//! the shift then goes into the bias. What differs from image to image stays.

use std::collections::{BTreeMap, BTreeSet};

use eyas_device::encoder::{EncodeError, Layers};
use eyas_shared::preprocess::Pixels;

use super::onnx;
use super::stored::{Data, StoredWeights};
use crate::weights::Weights;
use crate::zoo::{Network, Node, Op};

/// For every layer with weights, the mean of what each weight of a row is multiplied with:
/// one number for each input channel and tap, in the order of the weights.
pub struct InputMeans(BTreeMap<String, Vec<f64>>);

impl InputMeans {
    /// Runs the device encoder on some images.
    ///
    /// # Errors
    /// If it fails.
    pub fn measure(
        network: &Network,
        file: &[u8],
        side: u32,
        images: &[&Pixels],
    ) -> Result<Self, EncodeError> {
        let places = network.output_places(side as usize);
        let layers = || network.nodes.iter().filter(|node| is_layer(node));
        let inputs: BTreeSet<&str> = layers().map(|node| input_name(network, node)).collect();
        let names: Vec<&str> = inputs.into_iter().filter(|it| *it != onnx::INPUT).collect();
        let encoder = Layers::load(file, side, &names)?;
        let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for image in images {
            let values = encoder.run(image)?;
            for node in layers() {
                let name = input_name(network, node);
                let input = match names.iter().position(|it| *it == name) {
                    Some(at) => &values[at],
                    None => &image.values_chw,
                };
                let means = means_of_taps(node, input, places[node.inputs[0]].side());
                let sum = sums.entry(node.name.clone()).or_default();
                sum.resize(means.len(), 0.0);
                for (sum, mean) in sum.iter_mut().zip(means) {
                    *sum += mean / images.len() as f64;
                }
            }
        }
        Ok(Self(sums))
    }

    /// Moves the biases of stored weights so that every layer's mean output is that of the
    /// exact weights. Layers without a bias stay as they are.
    pub fn correct(&self, network: &Network, exact: &Weights, stored: &mut StoredWeights) {
        for node in &network.nodes {
            let Some(means) = self.0.get(&node.name) else {
                continue;
            };
            let kernel = format!("{}.weight", node.name);
            let (Some(wide), Some(exact)) = (
                stored.0.get(&kernel).map(|stored| stored.widened()),
                exact.0.get(&kernel),
            ) else {
                continue;
            };
            let bias = stored.0.get_mut(&format!("{}.bias", node.name));
            let Some(Data::F32(bias)) = bias.map(|bias| &mut bias.data) else {
                continue;
            };
            let per_output = (wide.len() / bias.len().max(1)).max(1);
            let n_groups = (means.len() / per_output).max(1);
            let per_group = bias.len().div_ceil(n_groups).max(1);
            let rows = exact.values.chunks_exact(per_output);
            let rows = rows.zip(wide.chunks_exact(per_output));
            for (output, (bias, (exact, wide))) in bias.iter_mut().zip(rows).enumerate() {
                let means = &means[output / per_group * per_output..];
                let taps = exact.iter().zip(wide).zip(means);
                let shift: f64 = taps
                    .map(|((&exact, &wide), mean)| (f64::from(exact) - f64::from(wide)) * mean)
                    .sum();
                *bias = (f64::from(*bias) + shift) as f32;
            }
        }
    }
}

/// Whether a node multiplies with weights that are rounded.
pub(super) fn is_layer(node: &Node) -> bool {
    matches!(node.op, Op::Conv { .. } | Op::Linear { .. })
}

fn input_name<'n>(network: &'n Network, node: &Node) -> &'n str {
    onnx::value_name(network, node.inputs[0])
}

/// Mean over all positions of what each tap of a layer sees; zeros where it is padding.
/// `side` is that of the map that a convolution reads.
fn means_of_taps(node: &Node, input: &[f32], side: usize) -> Vec<f64> {
    let (kernel, stride, padding) = match node.op {
        Op::Conv {
            kernel,
            stride,
            padding,
            ..
        } => (kernel, stride, padding),
        Op::Linear { inputs, .. } => return means_of_tokens(input, inputs),
        _ => return Vec::new(),
    };
    let outputs = (side + 2 * padding).saturating_sub(kernel) / stride + 1;
    // Rows, or columns, under one tap, of all positions that lie inside.
    let inside = |tap: usize| {
        (0..outputs).filter_map(move |at| {
            let row = (at * stride + tap).checked_sub(padding)?;
            (row < side).then_some(row)
        })
    };
    let mut means = Vec::with_capacity(input.len() / (side * side) * kernel * kernel);
    for plane in input.chunks_exact(side * side) {
        for tap in 0..kernel * kernel {
            let rows = inside(tap / kernel).map(|row| &plane[row * side..][..side]);
            let sum_of_row = |row: &[f32]| -> f64 {
                let columns = inside(tap % kernel);
                columns.map(|column| f64::from(row[column])).sum()
            };
            let sum: f64 = rows.map(sum_of_row).sum();
            means.push(sum / (outputs * outputs) as f64);
        }
    }
    means
}

/// Mean over the tokens of each channel; a vector is one token.
fn means_of_tokens(input: &[f32], channels: usize) -> Vec<f64> {
    let mut means = vec![0.0; channels];
    let n = (input.len() / channels) as f64;
    for token in input.chunks_exact(channels) {
        for (mean, &x) in means.iter_mut().zip(token) {
            *mean += f64::from(x) / n;
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use eyas_shared::bundle::Precision;
    use eyas_shared::random::Random;

    use super::super::stored::{Rounding, StoredWeight};
    use super::super::{fold, reference};
    use super::*;
    use crate::weights::Weight;
    use crate::zoo::by_name;

    const SIDE: u32 = 32;

    /// Means of f32 sums against means of f64 sums.
    const SUMMATION: f64 = 1e-4;

    fn widened(stored: &StoredWeights) -> Weights {
        let wide = |(name, weight): (&String, &StoredWeight)| {
            let (shape, values) = (weight.shape.clone(), weight.widened());
            (name.clone(), Weight { shape, values })
        };
        Weights(stored.0.iter().map(wide).collect())
    }

    #[test]
    fn mean_outputs_are_those_of_the_exact_weights() {
        for name in ["mobilenet_v2", "squeezenet1_1", "dinov2_vits14"] {
            let network = by_name(name, 8).unwrap().for_side(SIDE as usize);
            let weights = reference::random_weights(&network, 3);
            let (network, weights) = fold::fold(&network, &weights).unwrap();
            let mut random = Random::new(8);
            let images: Vec<Pixels> = (0..3)
                .map(|_| Pixels {
                    side: SIDE,
                    values_chw: reference::random_pixels(SIDE as usize, &mut random),
                })
                .collect();
            let images: Vec<&Pixels> = images.iter().collect();
            let file = onnx::write(&network, &weights, SIDE, Precision::F32, &[]).unwrap();
            let means = InputMeans::measure(&network, &file, SIDE, &images).unwrap();
            let rounding = Rounding::default();
            let plain = StoredWeights::of(&network, &weights, Precision::Int8, &rounding).unwrap();
            let mut corrected = plain.clone();
            means.correct(&network, &weights, &mut corrected);

            let outputs: Vec<_> = images
                .iter()
                .map(|image| reference::Tensor::of_image(&image.values_chw, SIDE as usize))
                .map(|image| reference::outputs(&network, &weights, &image))
                .collect();
            // Each layer on the exact inputs, its output averaged over positions and images.
            let mean_output = |node: &Node, weights: &Weights| {
                let mut sums = Vec::new();
                for outputs in &outputs {
                    let output = reference::evaluate(node, weights, &[&outputs[node.inputs[0]]]);
                    let means = output.channel_means();
                    sums.resize(means.len(), 0.0);
                    sums.iter_mut()
                        .zip(means)
                        .for_each(|(sum, mean)| *sum += mean);
                }
                sums
            };
            let [plain, corrected] = [plain, corrected].map(|stored| widened(&stored));
            for node in network.nodes.iter().filter(|node| is_layer(node)).take(12) {
                let expected = mean_output(node, &weights);
                let largest = |weights: &Weights| {
                    let found = mean_output(node, weights);
                    let pairs = expected.iter().zip(&found);
                    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
                };
                let (plain, corrected) = (largest(&plain), largest(&corrected));
                let size = expected.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
                let at = &node.name;
                assert!(corrected < SUMMATION * size, "{name} {at}: {corrected}");
                assert!(plain > 2.0 * corrected, "{name} {at}: {plain} {corrected}");
            }
        }
    }
}
