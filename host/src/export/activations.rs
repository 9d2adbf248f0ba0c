//! Activations on u8 grids: what a full-int8 file rounds between its layers, and to what.
//!
//! A range is calibrated: the f32 network runs on images, and a [`ScaleRule`] says how much
//! of what was seen a grid has to reach. The rounding itself is the device's; here are only
//! the numbers that it rounds with.

mod classes;
mod ranges;

use eyas_device::encoder::Layers;
use eyas_shared::preprocess::Pixels;

use super::stored::{Data, ScaleRule, StoredWeights};
use super::{ExportError, onnx};
use crate::zoo::{Network, NodeIdx, Op};
use ranges::{Extent, Histogram};

pub use classes::Classes;

/// Largest code of an activation.
const MAX_CODE: f32 = 255.0;

/// The numbers that a code of eight bits can stand for: `scale` times the code less the
/// zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteGrid {
    /// Between neighbours; positive.
    pub scale: f32,
    /// Code of 0, so that padding and what ReLU leaves out are exact.
    pub zero_point: u8,
}

impl ByteGrid {
    /// The grid that reaches from `low` to `high`, and to 0.
    #[must_use]
    pub fn of_range(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = high / MAX_CODE - low / MAX_CODE;
        // Nothing but zeros was seen, or what a quotient would lose its meaning with.
        if !scale.is_normal() {
            return Self {
                scale: 1.0,
                zero_point: 0,
            };
        }
        let zero_point = (-low / scale).round_ties_even().min(MAX_CODE) as u8;
        Self { scale, zero_point }
    }
}

/// Grids of a network's activations.
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    classes: Classes,
    /// For each node the grid of its class.
    grids: Vec<Option<ByteGrid>>,
}

impl Activations {
    /// The grid of a node's output, and the first node of those that share it; `None` if
    /// the output is not rounded.
    #[must_use]
    pub fn grid(&self, node_idx: NodeIdx) -> Option<(NodeIdx, ByteGrid)> {
        Some((self.classes.first(node_idx)?, self.grids[node_idx]?))
    }

    /// Rounds the biases of convolutions that multiply integers to what a product of two
    /// codes is worth, so that they can be added to sums of such products. Where one is too
    /// large, its layer's stay f32.
    pub(super) fn round_biases(&self, network: &Network, stored: &mut StoredWeights) {
        for node in &network.nodes {
            let (Op::Conv { groups: 1, .. }, Some(&input)) = (node.op, node.inputs.first()) else {
                continue;
            };
            let Some((_, grid)) = self.grid(input) else {
                continue;
            };
            let kernel = stored.0.get(&format!("{}.weight", node.name));
            let Some(Data::Int8 { scales, .. }) = kernel.map(|kernel| &kernel.data) else {
                continue;
            };
            let scales: Vec<f32> = scales.iter().map(|scale| scale * grid.scale).collect();
            if let Some(bias) = stored.0.get_mut(&format!("{}.bias", node.name))
                && let Data::F32(values) = &bias.data
                && let Some(codes) = int32_codes(values, &scales)
            {
                bias.data = Data::Int32 { codes, scales };
            }
        }
    }
}

/// Largest bias, in products of codes: half of what int32 holds, the other half is for the
/// products.
const MAX_BIAS: f64 = (1 << 30) as f64;

/// Multiples of the scales that are nearest to the values, if all are small enough.
fn int32_codes(values: &[f32], scales: &[f32]) -> Option<Vec<i32>> {
    let code = |(&value, &scale): (&f32, &f32)| {
        let code = (f64::from(value) / f64::from(scale)).round_ties_even();
        let fits = scale.is_normal() && code.abs() <= MAX_BIAS;
        fits.then_some(code as i32)
    };
    values.iter().zip(scales).map(code).collect()
}

/// What the activations of a network are like on some images.
pub struct Ranges {
    classes: Classes,
    /// For each node the values of its class, at the first node of that class.
    histograms: Vec<Option<Histogram>>,
}

impl Ranges {
    /// Runs the device encoder on some images: `file` is the network in f32.
    ///
    /// # Errors
    /// If the encoder fails, or if no layer of the network would multiply integers.
    pub fn measure(
        network: &Network,
        file: &[u8],
        side: u32,
        images: &[&Pixels],
    ) -> Result<Self, ExportError> {
        let classes = Classes::of(network);
        if !classes.has_integer_layer(network) {
            return Err(ExportError::NothingInteger {
                architecture: network.name.clone(),
            });
        }
        let members: Vec<(NodeIdx, NodeIdx)> = (0..network.nodes.len())
            .filter_map(|idx| Some((idx, classes.first(idx)?)))
            .collect();
        let computed = members.iter().map(|&(idx, _)| idx);
        let computed = computed.filter(|&idx| network.nodes[idx].op != Op::Input);
        let names: Vec<&str> = computed.map(|idx| onnx::value_name(network, idx)).collect();
        let encoder = Layers::load(file, side, &names)?;
        // The image itself comes first, if it is one of them.
        let run = |image: &Pixels| -> Result<Vec<Vec<f32>>, ExportError> {
            let mut values = encoder.run(image)?;
            if names.len() < members.len() {
                values.insert(0, image.values_chw.clone());
            }
            Ok(values)
        };
        let mut extents = vec![Extent::default(); network.nodes.len()];
        for image in images {
            let values = run(image)?;
            for (&(_, first), values) in members.iter().zip(&values) {
                extents[first].add(values);
            }
        }
        let mut histograms: Vec<Option<Histogram>> = vec![None; network.nodes.len()];
        for &(_, first) in &members {
            histograms[first].get_or_insert_with(|| Histogram::over(extents[first]));
        }
        // A second run costs less than what it would take to keep all values.
        for image in images {
            let values = run(image)?;
            for (&(_, first), values) in members.iter().zip(&values) {
                if let Some(histogram) = &mut histograms[first] {
                    histogram.add(values);
                }
            }
        }
        Ok(Self {
            classes,
            histograms,
        })
    }

    /// The grids that a rule finds.
    #[must_use]
    pub fn grids(&self, rule: ScaleRule) -> Activations {
        let grid = |histogram: &Histogram| {
            let [low, high] = histogram.range(rule);
            ByteGrid::of_range(low, high)
        };
        let of_first: Vec<Option<ByteGrid>> = self
            .histograms
            .iter()
            .map(|it| it.as_ref().map(grid))
            .collect();
        let grids = (0..of_first.len())
            .map(|idx| of_first[self.classes.first(idx)?])
            .collect();
        Activations {
            classes: self.classes.clone(),
            grids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::stored::StoredWeight;

    #[test]
    fn zero_lies_on_every_grid_and_ends_are_reached() {
        for (low, high) in [
            (-1.0, 3.0),
            (-0.3, 0.1),
            (0.0, 7.0),
            (2.0, 5.0),
            (-5.0, -2.0),
            (-1e-3, 1e3),
            (-1e30, 1e30),
        ] {
            let ByteGrid { scale, zero_point } = ByteGrid::of_range(low, high);
            let zero = f32::from(zero_point);
            let ends = [-zero * scale, (MAX_CODE - zero) * scale];
            // A zero point is whole, which moves both ends by at most half a step.
            let half = 0.5 * scale * (1.0 + 4.0 * MAX_CODE * f32::EPSILON);
            assert!((ends[0] - low.min(0.0)).abs() <= half, "{low} {high}");
            assert!((ends[1] - high.max(0.0)).abs() <= half, "{low} {high}");
        }
        let positive = ByteGrid::of_range(0.5, 5.1);
        assert_eq!((positive.zero_point, positive.scale), (0, 5.1 / 255.0));
        let nothing = ByteGrid {
            scale: 1.0,
            zero_point: 0,
        };
        assert_eq!(ByteGrid::of_range(0.0, 0.0), nothing);
        assert_eq!(ByteGrid::of_range(0.0, 1e-40), nothing);
    }

    #[test]
    fn a_bias_is_a_whole_number_of_products_or_stays_as_it_is() {
        let network = crate::zoo::by_name("squeezenet1_1", 8).unwrap();
        let classes = Classes::of(&network);
        let grid = |idx| {
            classes.first(idx).map(|_| ByteGrid {
                scale: 0.25,
                zero_point: 0,
            })
        };
        let activations = Activations {
            grids: (0..network.nodes.len()).map(grid).collect(),
            classes: classes.clone(),
        };
        let weight = |scales: [f32; 2]| StoredWeight {
            shape: vec![2, 1, 1, 1],
            data: Data::Int8 {
                codes: vec![1, 127],
                scales: scales.to_vec(),
            },
        };
        let bias = || StoredWeight {
            shape: vec![2],
            data: Data::F32(vec![1.0, -0.3]),
        };
        let mut stored = StoredWeights::default();
        for (name, scales) in [
            ("features.3.squeeze", [0.5, 0.1]),
            ("features.4.squeeze", [0.5, 1e-11]),
        ] {
            stored.0.insert(format!("{name}.weight"), weight(scales));
            stored.0.insert(format!("{name}.bias"), bias());
        }
        activations.round_biases(&network, &mut stored);
        // What is too large for int32 stays as it is.
        assert_eq!(stored.0["features.4.squeeze.bias"], bias());
        let rounded = &stored.0["features.3.squeeze.bias"];
        let expected = Data::Int32 {
            codes: vec![8, -12],
            scales: vec![0.125, 0.1 * 0.25],
        };
        assert_eq!(rounded.data, expected);
        assert_eq!(rounded.widened(), [1.0, -12.0 * (0.1 * 0.25)]);
        assert_eq!(rounded.n_bytes(), 16);
    }
}
