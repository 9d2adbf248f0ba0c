//! Weights as they lie in an exported file: each in f32, f16 or int8.

use std::collections::BTreeMap;

use eyas_shared::bundle::Precision;
use eyas_shared::quant;
use half::f16;
use serde::Serialize;

use super::ExportError;
use super::bias::is_layer;
use crate::weights::{Weight, Weights, WeightsError};
use crate::zoo::{Network, WeightShape};

/// Share of the magnitudes of a channel that [`ScaleRule::Percentile`] keeps.
const PERCENTILE: f64 = 0.999;

/// How the int8 scale of a channel is found, or the range of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleRule {
    /// The largest magnitude becomes 127; all activations that were seen are in range.
    #[default]
    MinMax,
    /// The 99.9th percentile of the magnitudes becomes 127; all but one in ten thousand
    /// activations are in range.
    Percentile,
    /// The scale, or range, with the least squared error.
    LeastSquares,
}

impl ScaleRule {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::MinMax, Self::Percentile, Self::LeastSquares];

    /// Its name in text and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::Percentile => "percentile",
            Self::LeastSquares => "least-squares",
        }
    }

    fn scale(self, channel: &[f32]) -> f32 {
        match self {
            Self::MinMax => quant::symmetric_scale(channel),
            Self::Percentile => quant::percentile_scale(channel, PERCENTILE),
            Self::LeastSquares => quant::least_squares_scale(channel),
        }
    }
}

/// What was done so that rounded weights compute nearly what exact ones do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rounding {
    /// How int8 scales were found.
    pub scales: ScaleRule,
    /// Whether channels were scaled between layers before; see [`super::equalize`].
    pub equalized: bool,
    /// Whether biases make up for what rounding shifts; see [`super::bias`].
    pub bias_corrected: bool,
    /// Layers of an int8 file that are kept in f16.
    pub f16_layers: Vec<String>,
    /// How the ranges of activations were found, where those are rounded; see
    /// [`super::activations`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activations: Option<ScaleRule>,
}

/// One weight as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredWeight {
    /// Extents.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Data,
}

/// Values in some number format.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// As they are.
    F32(Vec<f32>),
    /// Each rounded to f16.
    F16(Vec<f16>),
    /// Each a multiple of its channel's scale; channels are the first axis.
    Int8 {
        /// -127 to 127.
        codes: Vec<i8>,
        /// One a channel, positive.
        scales: Vec<f32>,
    },
    /// Biases that are added to sums of integers: each a multiple of a scale of its own.
    Int32 {
        /// Small enough for the sums.
        codes: Vec<i32>,
        /// One a code, positive.
        scales: Vec<f32>,
    },
}

impl StoredWeight {
    /// The f32 values that the device computes with.
    #[must_use]
    pub fn widened(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(values) => values.clone(),
            Data::F16(values) => values.iter().map(|x| x.to_f32()).collect(),
            Data::Int8 { codes, scales } => {
                let per_channel = (codes.len() / scales.len().max(1)).max(1);
                let channels = codes.chunks_exact(per_channel).zip(scales);
                let wide = |(codes, &scale): (&[i8], &f32)| -> Vec<f32> {
                    codes.iter().map(|&code| f32::from(code) * scale).collect()
                };
                channels.flat_map(wide).collect()
            }
            Data::Int32 { codes, scales } => {
                let wide = |(&code, &scale)| code as f32 * scale;
                codes.iter().zip(scales).map(wide).collect()
            }
        }
    }

    /// Bytes in the file, scales and zero points included.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        match &self.data {
            Data::F32(values) => 4 * values.len(),
            Data::F16(values) => 2 * values.len(),
            Data::Int8 { codes, scales } => codes.len() + 5 * scales.len(),
            Data::Int32 { codes, scales } => 4 * codes.len() + 4 * scales.len(),
        }
    }

    pub(super) fn in_f16(weight: &Weight) -> Self {
        Self {
            shape: weight.shape.clone(),
            data: Data::F16(quant::to_f16(&weight.values)),
        }
    }

    fn in_int8(weight: &Weight, rule: ScaleRule) -> Self {
        let channels = weight.shape[0];
        let rows = weight.values.chunks_exact(weight.values.len() / channels);
        let scales: Vec<f32> = rows.clone().map(|row| rule.scale(row)).collect();
        let codes = rows.zip(&scales).flat_map(|(row, &scale)| {
            let code = move |&x: &f32| quant::to_i8(x, scale);
            row.iter().map(code)
        });
        Self {
            shape: weight.shape.clone(),
            data: Data::Int8 {
                codes: codes.collect(),
                scales,
            },
        }
    }
}

/// Stored weights by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredWeights(pub BTreeMap<String, StoredWeight>);

impl StoredWeights {
    /// Rounds a network's weights: those of convolutions and linear layers to the
    /// precision, but for the layers that [`Rounding`] keeps; vectors stay f32, and so does
    /// what is added to tokens. Scales
    /// are found as it says; what else it names has been done to the weights before, or is
    /// done to these after.
    ///
    /// # Errors
    /// If a weight is missing, of another shape, not finite, or beyond the precision.
    pub fn of(
        network: &Network,
        weights: &Weights,
        precision: Precision,
        rounding: &Rounding,
    ) -> Result<Self, ExportError> {
        let mut stored = BTreeMap::new();
        for node in &network.nodes {
            let precision = match precision {
                Precision::Int8 if rounding.f16_layers.contains(&node.name) => Precision::F16,
                other => other,
            };
            for WeightShape { name, shape, .. } in node.weights() {
                let weight = weights.get(&name, &shape)?;
                let is_rounded = shape.len() > 1 && is_layer(node);
                let precision = if is_rounded {
                    precision
                } else {
                    Precision::F32
                };
                check_range(&name, weight, precision)?;
                let weight = match precision {
                    Precision::F32 => StoredWeight {
                        shape,
                        data: Data::F32(weight.values.clone()),
                    },
                    Precision::F16 => StoredWeight::in_f16(weight),
                    Precision::Int8 | Precision::FullInt8 => {
                        StoredWeight::in_int8(weight, rounding.scales)
                    }
                };
                stored.insert(name, weight);
            }
        }
        Ok(Self(stored))
    }

    /// The weight of that name and shape.
    ///
    /// # Errors
    /// If it is missing or of another shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<&StoredWeight, WeightsError> {
        match self.0.get(name) {
            None => Err(WeightsError::Missing {
                name: name.to_owned(),
            }),
            Some(weight) if weight.shape != shape => Err(WeightsError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: weight.shape.clone(),
            }),
            Some(weight) => Ok(weight),
        }
    }
}

fn check_range(name: &str, weight: &Weight, precision: Precision) -> Result<(), ExportError> {
    let largest = match precision {
        Precision::F16 => f16::MAX.to_f32(),
        Precision::F32 | Precision::Int8 | Precision::FullInt8 => f32::MAX,
    };
    // Written so that NaN is found too.
    let outside = |x: &&f32| !matches!(x.abs().partial_cmp(&largest), Some(order) if order.is_le());
    match weight.values.iter().find(outside) {
        None => Ok(()),
        Some(&value) => Err(ExportError::OutOfRange {
            name: name.to_owned(),
            value,
            precision,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{onnx, reference};
    use super::*;
    use crate::zoo::by_name;
    use eyas_device::encoder::Layers;
    use eyas_shared::preprocess::Pixels;
    use eyas_shared::random::Random;

    const SIDE: u32 = 32;

    /// Rounding to the nearest step is off by half of it.
    const HALF_STEP: f32 = 0.5 * (1.0 + f32::EPSILON);

    #[test]
    fn every_rule_keeps_what_it_does_not_clip_within_half_a_step() {
        let mut random = Random::new(2);
        let weight = Weight {
            shape: vec![5, 7, 3, 3],
            values: (0..315).map(|_| random.normal() as f32).collect(),
        };
        for rule in ScaleRule::ALL {
            let stored = StoredWeight::in_int8(&weight, rule);
            let Data::Int8 { scales, .. } = &stored.data else {
                panic!("{rule:?} stores int8");
            };
            for (i, (a, b)) in weight.values.iter().zip(stored.widened()).enumerate() {
                let scale = scales[i / 63];
                let kept = a.clamp(-127.0 * scale, 127.0 * scale);
                assert!(
                    (kept - b).abs() <= HALF_STEP * scale,
                    "{rule:?}: {a} and {b}"
                );
            }
        }
        assert_eq!(
            StoredWeight::in_int8(&weight, ScaleRule::MinMax).n_bytes(),
            340
        );
    }

    /// Largest error of one sum of products, of what it would be with every error the same
    /// way: half a step of each weight times the input.
    fn worst_sum(scale: f32, inputs: &[f32]) -> f32 {
        scale * HALF_STEP * inputs.iter().map(|x| x.abs()).sum::<f32>()
    }

    #[test]
    fn channels_of_very_different_range_keep_their_own_steps_on_the_device() {
        // Channel c of the first layer is 10^c/2 wide: five orders of magnitude. One scale
        // for all would leave nothing of the narrow ones, and the scale of another channel
        // would be off by a factor.
        let network = by_name("squeezenet1_1", 8).unwrap();
        let mut weights = reference::random_weights(&network, 6);
        let name = "features.0.weight";
        let kernel = weights.0.get_mut(name).unwrap();
        let per_channel = kernel.values.len() / kernel.shape[0];
        let wide = |channel: usize| 10.0_f32.powf((channel % 11) as f32 / 2.0 - 4.0);
        for (channel, row) in kernel.values.chunks_exact_mut(per_channel).enumerate() {
            row.iter_mut().for_each(|x| *x *= wide(channel));
        }
        for value in &mut weights.0.get_mut("features.0.bias").unwrap().values {
            *value = 0.0;
        }
        let pixels = Pixels {
            side: SIDE,
            values_chw: reference::random_pixels(SIDE as usize, &mut Random::new(4)),
        };
        let run = |precision| {
            let file = onnx::write(&network, &weights, SIDE, precision, &[]).unwrap();
            let layers = Layers::load(&file, SIDE, &["features.0"]).unwrap();
            layers.run(&pixels).unwrap().pop().unwrap()
        };
        let (exact, found) = (run(Precision::F32), run(Precision::Int8));
        let kernel = &weights.0[name];
        let n_channels = kernel.shape[0];
        let area = exact.len() / n_channels;
        let mut ranges = [f32::INFINITY, 0.0];
        for channel in 0..n_channels {
            let row = &kernel.values[channel * per_channel..][..per_channel];
            let scale = quant::symmetric_scale(row);
            ranges = [ranges[0].min(scale), ranges[1].max(scale)];
            let at = channel * area..(channel + 1) * area;
            // No input is beyond 2.
            let bound = worst_sum(scale, &vec![2.0; per_channel]);
            let power: f32 = exact[at.clone()].iter().map(|x| x * x).sum();
            let mut error = 0.0;
            for (a, b) in exact[at.clone()].iter().zip(&found[at]) {
                assert!((a - b).abs() <= bound, "channel {channel}: {a} and {b}");
                error += (a - b).powi(2);
            }
            // Each channel keeps two digits of its own, however narrow it is.
            assert!(error.sqrt() < 0.01 * power.sqrt(), "channel {channel}");
        }
        assert!(ranges[1] / ranges[0] > 1e4, "{ranges:?}");
    }
}
