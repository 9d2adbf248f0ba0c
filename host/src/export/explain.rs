//! What a student costs on a board, layer by layer and precision by precision: bytes,
//! multiply-adds, time, and how far rounding moves what each layer puts out.
//!
//! Nothing is written, and a precision that the gate refuses is explained all the more.
//! Times are those of this machine's device encoder.

use eyas_device::encoder::{Encoder, Layers, OperatorTime};
use eyas_shared::bundle::Precision;
use eyas_shared::preprocess::Pixels;

use super::diagnose::{image, read_names, relative_error};
use super::recall::{RecallCheck, RecallLoss};
use super::reference::{self, Tensor};
use super::stored::Rounding;
use super::{Agreement, Candidate, ExportError, Exporter, Tried, onnx, verify};
use crate::bench::compute::layer_of;
use crate::zoo::{Network, NodeIdx, Op};

/// Images whose layers are compared: each takes the plain computation in f64.
const N_IMAGES: usize = 4;

/// Runs of which the median time of an operator is taken.
const N_RUNS: usize = 15;

/// A student's costs.
pub struct Budget {
    /// In order of evaluation.
    pub layers: Vec<LayerBudget>,
    /// As they were asked for.
    pub precisions: Vec<PrecisionBudget>,
    /// Images on which layers were compared.
    pub n_images: usize,
}

/// What one layer costs: an operation with the activation that follows it.
pub struct LayerBudget {
    /// Name of its node in the ONNX file.
    pub name: String,
    /// What it computes, in a few words.
    pub kind: String,
    /// Channels, height and width of its output.
    pub shape: [usize; 3],
    /// Trained weights.
    pub n_parameters: u64,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// Time in the device encoder for one image, in f32. What an operator takes that
    /// computes several layers is the first one's.
    pub milliseconds: f64,
    /// For each precision of the budget.
    pub costs: Vec<LayerCost>,
}

/// What a layer costs in one precision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerCost {
    /// Of its weights in the file.
    pub bytes: usize,
    /// Mean over the images of the cosine between its output and the plain computation's.
    pub cosine: f64,
    /// Mean over the images of the difference's length, relative to the plain output's.
    pub relative_error: f64,
}

/// What a precision costs as a whole.
pub struct PrecisionBudget {
    /// How weights are stored.
    pub precision: Precision,
    /// Of the bundle.
    pub bytes: usize,
    /// Sum over the operators for one image.
    pub milliseconds: f64,
    /// Agreement of embeddings with the reference.
    pub agreement: Agreement,
    /// Whether the gate would let it pass.
    pub passes: bool,
    /// What was done to round it.
    pub rounding: Rounding,
    /// The ways of rounding among which this one was chosen.
    pub tried: Vec<Tried>,
    /// What it loses in retrieval, where queries were given.
    pub recall: Option<RecallLoss>,
}

/// An operation of the folded network and the activation after it, by index.
struct Layer {
    first: NodeIdx,
    last: NodeIdx,
}

/// Measures what a student costs in some precisions.
///
/// # Errors
/// If a precision can not hold the weights, or the device encoder fails.
pub fn explain(
    exporter: &Exporter<'_>,
    precisions: &[Precision],
    check: Option<&RecallCheck<'_>>,
) -> Result<Budget, ExportError> {
    let network = &exporter.folded;
    let layers = layers(network);
    let samples = exporter.samples();
    let n_images = N_IMAGES.min(samples.len());
    let images: Vec<&Pixels> = (0..n_images)
        .map(|at| samples[at * samples.len() / n_images].pixels)
        .collect();
    let exact = exporter.candidate(Precision::F32)?;
    let side = exporter.writer().side() as usize;
    let times = profile(exporter, &exact, images[0])?;
    let mut budgets = plain_budgets(network, &layers, side, &times);
    let mut whole = Vec::new();
    for &precision in precisions {
        let candidate = exporter.candidate(precision)?;
        let errors = compare(exporter, &candidate, &layers, &images)?;
        for ((budget, layer), error) in budgets.iter_mut().zip(&layers).zip(errors) {
            let bytes = bytes_of(network, layer, &candidate);
            budget.costs.push(LayerCost { bytes, ..error });
        }
        whole.push(of_precision(exporter, &candidate, images[0], check)?);
    }
    Ok(Budget {
        layers: budgets,
        precisions: whole,
        n_images,
    })
}

/// Every operation with its activation, if that is all that reads it.
fn layers(network: &Network) -> Vec<Layer> {
    let readers = |idx: NodeIdx| {
        let nodes = network.nodes.iter().enumerate();
        nodes.filter(move |(_, node)| node.inputs.contains(&idx))
    };
    let mut layers: Vec<Layer> = Vec::new();
    for (node_idx, node) in network.nodes.iter().enumerate() {
        let is_alone = matches!(node.op, Op::Activation(_)) && readers(node.inputs[0]).count() == 1;
        let before = layers
            .iter_mut()
            .find(|layer| is_alone && layer.last == node.inputs[0]);
        match before {
            Some(layer) => layer.last = node_idx,
            None if node.op == Op::Input => {}
            None => layers.push(Layer {
                first: node_idx,
                last: node_idx,
            }),
        }
    }
    layers
}

fn plain_budgets(
    network: &Network,
    layers: &[Layer],
    side: usize,
    times: &[OperatorTime],
) -> Vec<LayerBudget> {
    let places = network.output_places(side);
    let channels = network.output_channels();
    let names: Vec<String> = (0..network.nodes.len())
        .map(|idx| onnx::value_name(network, idx).to_owned())
        .collect();
    let owners: Vec<&str> = times.iter().map(|it| layer_of(&it.node, &names)).collect();
    let nanos = |layer: &Layer| -> u64 {
        let is_own = |owner: &str| owner == names[layer.first] || owner == names[layer.last];
        let own = owners.iter().zip(times).filter(|(owner, _)| is_own(owner));
        own.map(|(_, time)| time.nanos).sum()
    };
    let budget = |layer: &Layer| {
        let node = &network.nodes[layer.first];
        let one = Network {
            name: String::new(),
            nodes: vec![node.clone()],
        };
        let [height, width] = places[layer.last].extents();
        LayerBudget {
            name: names[layer.first].clone(),
            kind: kind(network, layer),
            shape: [channels[layer.last], height, width],
            n_parameters: one.n_parameters(),
            multiply_adds: node.op.multiply_adds(places[layer.first].n()) as u64,
            milliseconds: nanos(layer) as f64 / 1e6,
            costs: Vec::new(),
        }
    };
    layers.iter().map(budget).collect()
}

/// Such as `conv 3x3/2 depthwise + relu6`.
fn kind(network: &Network, layer: &Layer) -> String {
    let mut kind = match network.nodes[layer.first].op {
        Op::Conv {
            inputs,
            kernel,
            stride,
            groups,
            ..
        } => {
            let step = if stride == 1 {
                String::new()
            } else {
                format!("/{stride}")
            };
            let grouped = match groups {
                1 => String::new(),
                _ if groups == inputs => " depthwise".to_owned(),
                _ => format!(" in {groups} groups"),
            };
            format!("conv {kernel}x{kernel}{step}{grouped}")
        }
        Op::Linear { .. } => "linear".to_owned(),
        op => operation(op),
    };
    if layer.last != layer.first {
        kind += &format!(" + {}", operation(network.nodes[layer.last].op));
    }
    kind
}

/// The name of an operation's variant, in lower case: `MaxPool { .. }` is `max pool`.
fn operation(op: Op) -> String {
    let text = match op {
        Op::Activation(activation) => format!("{activation:?}"),
        Op::GlobalPool(pooling) => format!("Global{pooling:?}Pool"),
        op => format!("{op:?}"),
    };
    let mut words = String::new();
    for c in text.chars().take_while(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

fn profile(
    exporter: &Exporter<'_>,
    candidate: &Candidate,
    pixels: &Pixels,
) -> Result<Vec<OperatorTime>, ExportError> {
    let (writer, precision) = (exporter.writer(), candidate.precision);
    let file = writer.onnx(precision, &candidate.choice.rounded, None)?;
    let encoder = Encoder::load(&writer.draft(&file, precision))?;
    Ok(encoder.network().profile(pixels, N_RUNS)?)
}

fn bytes_of(network: &Network, layer: &Layer, candidate: &Candidate) -> usize {
    let weights = network.nodes[layer.first].weights();
    let stored = weights
        .iter()
        .filter_map(|it| candidate.choice.rounded.stored.0.get(&it.name));
    stored.map(|weight| weight.n_bytes()).sum()
}

/// What every layer of a candidate's file puts out, beside the plain computation with the
/// exact weights.
fn compare(
    exporter: &Exporter<'_>,
    candidate: &Candidate,
    layers: &[Layer],
    images: &[&Pixels],
) -> Result<Vec<LayerCost>, ExportError> {
    let (writer, network) = (exporter.writer(), &exporter.folded);
    let file = writer.onnx(candidate.precision, &candidate.choice.rounded, None)?;
    let values = layers.iter();
    let values = values.map(|layer| onnx::value_name(network, layer.last));
    let names = read_names(network, candidate.precision, values);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let device = Layers::load(&file, writer.side(), &names)?;
    let mut costs = vec![LayerCost::default(); layers.len()];
    for pixels in images {
        let expected = reference::outputs(network, &candidate.choice.weights, &image(pixels));
        let found = device.run(pixels)?;
        for ((cost, layer), found) in costs.iter_mut().zip(layers).zip(&found) {
            let expected = &expected[layer.last];
            cost.cosine += cosine(found, expected) / images.len() as f64;
            let error = relative_error(found, &expected.values);
            cost.relative_error += error / images.len() as f64;
        }
    }
    Ok(costs)
}

fn cosine(found: &[f32], expected: &Tensor) -> f64 {
    let (mut product, mut found_square, mut square) = (0.0, 0.0, 0.0);
    for (&found, expected) in found.iter().zip(&expected.values) {
        let found = f64::from(found);
        product += found * expected;
        found_square += found * found;
        square += expected * expected;
    }
    // Two maps of zeros agree.
    if found_square == square {
        return if square == 0.0 { 1.0 } else { product / square };
    }
    product / (found_square * square).sqrt()
}

fn of_precision(
    exporter: &Exporter<'_>,
    candidate: &Candidate,
    pixels: &Pixels,
    check: Option<&RecallCheck<'_>>,
) -> Result<PrecisionBudget, ExportError> {
    let (writer, precision) = (exporter.writer(), candidate.precision);
    let file = writer.onnx(precision, &candidate.choice.rounded, None)?;
    let draft = writer.draft(&file, precision);
    let agreement = verify::agreement_of(&draft, &exporter.samples())?;
    let recall = check.map(|check| check.measure(&draft)).transpose()?;
    let loses_little = recall.as_ref().is_none_or(RecallLoss::is_allowed);
    let times = profile(exporter, candidate, pixels)?;
    let nanos: u64 = times.iter().map(|it| it.nanos).sum();
    Ok(PrecisionBudget {
        precision,
        bytes: draft.to_bytes().len(),
        milliseconds: nanos as f64 / 1e6,
        passes: agreement.meets(verify::bounds(precision)) && loses_little,
        agreement,
        rounding: candidate.choice.rounded.rounding.clone(),
        tried: candidate.choice.tried.clone(),
        recall,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::student;
    use super::super::{Precision, Reference, ScaleRule};
    use super::*;

    #[test]
    fn full_int8_is_explained_where_its_activations_are_rounded() {
        let folder = tempfile::tempdir().unwrap();
        let student = student("eyas-xs", folder.path());
        let reference = Reference::read(&student, folder.path()).unwrap();
        let exporter = Exporter::new(&student, &reference).unwrap();
        let precisions = [Precision::Int8, Precision::FullInt8];
        let budget = explain(&exporter, &precisions, None).unwrap();
        let [int8, full] = &budget.precisions[..] else {
            panic!("two precisions");
        };
        assert!(full.passes, "{:?}", full.agreement);
        assert_eq!(int8.rounding.activations, None);
        let chosen = full.rounding.activations.unwrap();
        let rules: Vec<_> = full
            .tried
            .iter()
            .map(|it| it.rounding.activations)
            .collect();
        assert!(rules.contains(&None) && rules.contains(&Some(chosen)));
        for rule in ScaleRule::ALL {
            assert!(rules.contains(&Some(rule)), "{rule:?}");
        }
        // The last layers are behind all that is rounded.
        let last = &budget.layers.last().unwrap().costs;
        assert!(last[0].relative_error < last[1].relative_error, "{last:?}");
    }

    #[test]
    fn a_budget_adds_up_to_what_the_bundles_say() {
        let folder = tempfile::tempdir().unwrap();
        let student = student("mobilenet_v2", folder.path());
        let reference = Reference::read(&student, folder.path()).unwrap();
        let exporter = Exporter::new(&student, &reference).unwrap();
        let precisions = [Precision::F32, Precision::F16, Precision::Int8];
        let budget = explain(&exporter, &precisions, None).unwrap();

        let header = exporter.exact().header();
        let sum = |of: fn(&LayerBudget) -> u64| budget.layers.iter().map(of).sum::<u64>();
        assert_eq!(sum(|it| it.n_parameters), header.n_parameters);
        assert_eq!(sum(|it| it.multiply_adds), header.multiply_adds);
        assert!(budget.layers.iter().map(|it| it.milliseconds).sum::<f64>() > 0.0);
        assert_eq!(budget.n_images, N_IMAGES);

        let bytes: Vec<usize> = budget.precisions.iter().map(|it| it.bytes).collect();
        assert!(bytes[0] > bytes[1] && bytes[1] > bytes[2], "{bytes:?}");
        assert_eq!(
            budget.precisions[0].agreement,
            *exporter.exact().agreement()
        );
        assert!(budget.precisions[0].passes);
        for layer in &budget.layers {
            let [exact, half, int8] = layer.costs[..] else {
                panic!("three precisions");
            };
            assert!(exact.bytes >= half.bytes && half.bytes >= int8.bytes.min(half.bytes));
            assert!(exact.relative_error < 1e-4, "{}: {exact:?}", layer.name);
            assert!(exact.relative_error < half.relative_error, "{}", layer.name);
            assert!(half.relative_error < int8.relative_error, "{}", layer.name);
            assert!(int8.cosine <= half.cosine && half.cosine <= 1.0 + 1e-9);
        }
        let first = &budget.layers[0];
        assert_eq!(first.kind, "conv 3x3/2 + relu6");
        assert_eq!(
            (first.name.as_str(), first.shape),
            ("features.0.0", [32, 16, 16])
        );
        assert_eq!(budget.layers[1].kind, "conv 3x3 depthwise + relu6");
        let last = budget.layers.last().unwrap();
        assert_eq!(
            (last.kind.as_str(), last.shape),
            ("l2 normalize", [16, 1, 1])
        );
    }
}
