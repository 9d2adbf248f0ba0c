//! Where a network that was exported wrongly goes wrong.
//!
//! The exported file hands out what lies between its layers, and every layer of the
//! trained network is computed the plain way from the very inputs that its exported
//! counterpart had: what a layer is off by then is its own fault, whatever came before it.

use std::collections::BTreeMap;

use eyas_device::encoder::{EncodeError, Layers};
use eyas_shared::bundle::{Bundle, Precision};
use eyas_shared::embedding::{dot, l2_normalize};
use eyas_shared::preprocess::Pixels;

use super::ExportError;
use super::activations::Classes;
use super::onnx;
use super::reference::{self, Tensor};
use super::verify::{self, Sample};
use crate::weights::Weights;
use crate::zoo::{Network, NodeIdx, Op};

/// What a file should compute: a network with exact weights, and the network as the file
/// has it.
///
/// For weights in f32 that is the network as libtorch trained it, batch norm not folded.
/// Once those are verified it is the folded network, whose channels may be scaled.
#[derive(Clone, Copy)]
pub(super) struct Trained<'a> {
    pub(super) network: &'a Network,
    pub(super) weights: &'a Weights,
    pub(super) folded: &'a Network,
}

/// Why an exported network gives other embeddings than libtorch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// The first layer that computes another function than the trained one.
    Layer {
        /// Its name in the ONNX file.
        name: String,
        /// Length of the difference, relative to that of the right output.
        error: f32,
    },
    /// Every layer computes what the stored weights say, and their plain computation
    /// disagrees with libtorch as well.
    NotTheTrained,
    /// No layer is wrong, but what they are off by adds up.
    Rounding {
        /// The layer that is off the most.
        worst: String,
        /// Length of its own difference, relative to that of the right output.
        error: f32,
    },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layer { name, error } => {
                write!(
                    f,
                    "the first layer that differs is `{name}`, by {error:.1e} of its output"
                )
            }
            Self::NotTheTrained => f.write_str(
                "every layer computes what the stored weights say, so the weights or the \
                 preprocessing are not those that libtorch had: train again, or restore the \
                 run's files from one backup",
            ),
            Self::Rounding { worst, error } => write!(
                f,
                "no layer is wrong, but rounding adds up; `{worst}` is off the most, by \
                 {error:.1e} of its output"
            ),
        }
    }
}

/// What a layer may be off by: the difference to the plain computation from the same
/// inputs, relative to its output's length. Sums in f32 are off by 1e-6; rounding weights
/// to f16 by 3e-4, to int8 by 1e-2, and more where a channel's weights are few; activations
/// on u8 grids by 1e-2 too, and more where few are large.
fn limit(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-3,
        Precision::F16 => 5e-3,
        Precision::Int8 => 0.1,
        Precision::FullInt8 => 0.2,
    }
}

/// NaN exceeds everything.
fn exceeds(error: f64, limit: f64) -> bool {
    error.is_nan() || error > limit
}

/// Why a draft does not give the sample's embedding; `None` if no reason is found.
///
/// # Errors
/// If the device encoder fails.
pub(super) fn cause(
    trained: Trained<'_>,
    draft: &Bundle<'_>,
    sample: &Sample<'_>,
) -> Result<Option<Cause>, ExportError> {
    let precision = draft.header.precision;
    let errors = own_errors(trained, draft, sample.pixels)?;
    let is_wrong = |(_, error): &&(String, f64)| exceeds(*error, limit(precision));
    if let Some((name, error)) = errors.iter().find(is_wrong) {
        let (name, error) = (name.clone(), *error as f32);
        return Ok(Some(Cause::Layer { name, error }));
    }
    let image = image(sample.pixels);
    let plain = reference::outputs(trained.network, trained.weights, &image);
    if !is_expected(plain.last(), sample.expected) {
        return Ok(Some(Cause::NotTheTrained));
    }
    if precision == Precision::F32 {
        return Ok(fused_layer(trained, draft.onnx, sample.pixels, &plain)?);
    }
    let worst = errors.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    Ok(worst.map(|(worst, error)| Cause::Rounding {
        worst,
        error: error as f32,
    }))
}

/// The pixels as the interpreter reads them.
pub(super) fn image(pixels: &Pixels) -> Tensor {
    Tensor::of_image(&pixels.values_chw, pixels.side as usize)
}

fn is_expected(output: Option<&Tensor>, expected: &[f32]) -> bool {
    let Some(output) = output else {
        return false;
    };
    let mut embedding: Vec<f32> = output.values.iter().map(|&x| x as f32).collect();
    l2_normalize(&mut embedding);
    dot(&embedding, expected) >= verify::bounds(Precision::F32).min
}

/// For every node of the trained network that one of the file computes too, what the file
/// calls its value. Folded away is a convolution that batch norm follows: the file's
/// convolution computes both.
pub(super) fn counterparts<'a>(trained: Trained<'a>) -> BTreeMap<NodeIdx, &'a str> {
    let folded = trained.folded;
    let position = |name: &str| folded.nodes.iter().position(|node| node.name == name);
    let mut counterparts = BTreeMap::new();
    for (node_idx, node) in trained.network.nodes.iter().enumerate() {
        let mut name = &node.name;
        if let Op::BatchNorm { .. } = node.op {
            let from = node.inputs[0];
            let Op::Conv { .. } = trained.network.nodes[from].op else {
                // A branch that is folded into the convolution beside it.
                continue;
            };
            counterparts.remove(&from);
            name = &trained.network.nodes[from].name;
        }
        if let (false, Some(at)) = (node.op == Op::Input, position(name)) {
            counterparts.insert(node_idx, onnx::value_name(folded, at));
        }
    }
    counterparts
}

/// Names of a file's values as the next layers read them: rounded where they are.
pub(super) fn read_names<'v>(
    folded: &Network,
    precision: Precision,
    values: impl Iterator<Item = &'v str>,
) -> Vec<String> {
    let classes = (precision == Precision::FullInt8).then(|| Classes::of(folded));
    let is_rounded = |value: &str| {
        let node_idx = folded.nodes.iter().position(|node| node.name == value);
        let first = node_idx.and_then(|idx| classes.as_ref()?.first(idx));
        first.is_some()
    };
    values
        .map(|value| match is_rounded(value) {
            true => onnx::rounded_name(value),
            false => value.to_owned(),
        })
        .collect()
}

/// What every layer of a file is off by on its own, in order.
fn own_errors(
    trained: Trained<'_>,
    draft: &Bundle<'_>,
    pixels: &Pixels,
) -> Result<Vec<(String, f64)>, EncodeError> {
    let counterparts = counterparts(trained);
    let values = counterparts.values().copied();
    let names = read_names(trained.folded, draft.header.precision, values);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = Layers::load(draft.onnx, pixels.side, &names)?.run(pixels)?;
    let mut found: BTreeMap<NodeIdx, Vec<f32>> = counterparts.keys().copied().zip(found).collect();
    let mut outputs: Vec<Tensor> = Vec::new();
    let mut errors = Vec::new();
    for (node_idx, node) in trained.network.nodes.iter().enumerate() {
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&idx| &outputs[idx]).collect();
        let mut output = match inputs.first() {
            None => image(pixels),
            Some(_) => reference::evaluate(node, trained.weights, &inputs),
        };
        if let (Some(found), Some(name)) = (found.remove(&node_idx), counterparts.get(&node_idx)) {
            errors.push(((*name).to_owned(), relative_error(&found, &output.values)));
            if found.len() == output.values.len() {
                output = Tensor::of(&found, output.places);
            }
        }
        outputs.push(output);
    }
    Ok(errors)
}

/// Length of the difference over the length of the right values; infinite where the two
/// have no shape in common.
pub(super) fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let (mut difference, mut length) = (0.0, 0.0);
    for (&found, &expected) in found.iter().zip(expected) {
        difference += (f64::from(found) - expected).powi(2);
        length += expected.powi(2);
    }
    // A layer of zeros that is a layer of zeros is right.
    if difference == 0.0 {
        0.0
    } else {
        (difference / length).sqrt()
    }
}

/// Where layers are right when each is asked, but not when they are fused: the first layer
/// behind which the cut-off network differs.
fn fused_layer(
    trained: Trained<'_>,
    file: &[u8],
    pixels: &Pixels,
    plain: &[Tensor],
) -> Result<Option<Cause>, EncodeError> {
    for (node_idx, name) in counterparts(trained) {
        let found = Layers::load(file, pixels.side, &[name])?.run(pixels)?;
        let error = relative_error(&found[0], &plain[node_idx].values);
        if exceeds(error, limit(Precision::F32)) {
            return Ok(Some(Cause::Layer {
                name: name.to_owned(),
                error: error as f32,
            }));
        }
    }
    Ok(None)
}
