//! A folded network written as an ONNX file.
//!
//! The graph has one input, `image` `[1, 3, side, side]`, and one output, `embedding`
//! `[1, dim]` of unit length. [`Precision`] says how the weights of convolutions and linear
//! layers lie in the file:
//!
//! | precision | in the file | in the graph |
//! |---|---|---|
//! | f32 | f32 | |
//! | f16 | f16 | `Cast` to f32 |
//! | int8, full-int8 | int8 and an f32 scale per output channel | `DequantizeLinear` on axis 0 |
//!
//! [`StoredWeights`] says it weight by weight: a file of int8 may keep some in f16. Biases
//! and what is added to tokens stay f32: they are a hundredth of the bytes.
//!
//! Everything is computed in f32, but in full-int8. There a value `v` on a grid (see
//! [`Activations`]) goes through `QuantizeLinear` to `v.quantized` and through
//! `DequantizeLinear` to `v.grid`, which is what all read that would have read `v`; scale and
//! zero point, `w.scale` and `w.zero_point`, have the name of the first value `w` on that
//! grid. Biases that go with such values are int32 with scales of their own,
//! `DequantizeLinear` on axis 0. A runtime that knows no integers reads this as f32 with
//! rounding; others find products of u8 and int8 in it. Equal arguments give equal bytes.
//! Reading ONNX is the device encoder's business, not done here.

use eyas_shared::bundle::Precision;
use eyas_shared::preprocess::Pixels;
use eyas_shared::quant;
use prost::Message;
use tract_onnx::pb;

mod channels;
mod pool;
#[cfg(test)]
mod sabotage;
mod tokens;

use super::ExportError;
use super::activations::{Activations, ByteGrid, Ranges};
use super::stored::{Data, Rounding, ScaleRule, StoredWeight, StoredWeights};
use crate::weights::Weights;
use crate::zoo::{Activation, Network, Node, NodeIdx, Op, Places, WeightShape};
use pb::attribute_proto::AttributeType;
use pb::tensor_proto::DataType;

/// Name of the graph's input.
pub const INPUT: &str = "image";

/// Name of the graph's output.
pub const OUTPUT: &str = "embedding";

/// 13 brought `DequantizeLinear` with an axis; tract reads 9 to 18. From 18 on `ReduceL2`
/// takes its axes another way.
const OPSET: i64 = 13;

/// The file version that came with opset 13 (ONNX 1.8).
const IR_VERSION: i64 = 7;

/// Name of the constant below which a vector counts as having no direction.
const MIN_NORM_NAME: &str = "min_norm";

/// The ONNX file of a network without batch norm, for images of `side` x `side`, with
/// weights rounded the plain way.
///
/// `metadata` becomes `metadata_props`, in this order.
///
/// # Errors
/// If the network holds batch norm, a weight is missing, of another shape or can not be
/// held in the wished precision, or the network can not read images of that side; and for
/// full-int8, which takes [`write_full_int8()`].
pub fn write(
    network: &Network,
    weights: &Weights,
    side: u32,
    precision: Precision,
    metadata: &[(String, String)],
) -> Result<Vec<u8>, ExportError> {
    if precision == Precision::FullInt8 {
        return Err(ExportError::NotCalibrated);
    }
    let stored = StoredWeights::of(network, weights, precision, &Rounding::default())?;
    write_stored(network, &stored, None, side, metadata)
}

/// The full-int8 ONNX file of a network, with weights rounded the plain way and activations
/// in the range that they have on these images; else as [`write()`].
///
/// # Errors
/// As [`write()`]; and if nothing would be multiplied in integers, or the device encoder
/// can not run the network.
pub fn write_full_int8(
    network: &Network,
    weights: &Weights,
    side: u32,
    images: &[&Pixels],
    metadata: &[(String, String)],
) -> Result<Vec<u8>, ExportError> {
    if images.is_empty() {
        return Err(ExportError::NotCalibrated);
    }
    let exact = write(network, weights, side, Precision::F32, &[])?;
    let activations = Ranges::measure(network, &exact, side, images)?.grids(ScaleRule::MinMax);
    let rounding = Rounding::default();
    let mut stored = StoredWeights::of(network, weights, Precision::FullInt8, &rounding)?;
    activations.round_biases(network, &mut stored);
    write_stored(network, &stored, Some(&activations), side, metadata)
}

/// The ONNX file of a network with these weights, and with its activations on these grids;
/// see [`write()`].
///
/// # Errors
/// If the network holds batch norm, a weight is missing or of another shape, or the network
/// can not read images of that side.
pub fn write_stored(
    network: &Network,
    weights: &StoredWeights,
    activations: Option<&Activations>,
    side: u32,
    metadata: &[(String, String)],
) -> Result<Vec<u8>, ExportError> {
    network.check_side(side as usize)?;
    let places = network.output_places(side as usize);
    let mut writer = Writer {
        weights,
        activations,
        nodes: Vec::new(),
        initializers: Vec::new(),
    };
    for (node_idx, node) in network.nodes.iter().enumerate() {
        if node.op != Op::Input {
            let step = writer.step_at(network, &places, node_idx);
            writer.step(step)?;
        }
        writer.round(network, node_idx);
    }
    let graph = pb::GraphProto {
        name: network.name.clone(),
        doc_string: format!(
            "{} as an image encoder: normalized pixels to an embedding of unit length",
            network.name
        ),
        node: writer.nodes,
        initializer: writer.initializers,
        input: vec![value_info(
            INPUT,
            &[1, 3, side.into(), side.into()],
            "R, G, B planes of the preprocessed image",
        )],
        output: vec![value_info(
            OUTPUT,
            &[1, network.dim() as i64],
            "unit vector in the space that space_id names",
        )],
        ..Default::default()
    };
    let model = pb::ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![pb::OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        producer_name: "eyas".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        metadata_props: metadata.iter().map(property).collect(),
        ..Default::default()
    };
    Ok(model.encode_to_vec())
}

fn property((key, value): &(String, String)) -> pb::StringStringEntryProto {
    pb::StringStringEntryProto {
        key: key.clone(),
        value: value.clone(),
    }
}

struct Writer<'a> {
    weights: &'a StoredWeights,
    activations: Option<&'a Activations>,
    nodes: Vec<pb::NodeProto>,
    initializers: Vec<pb::TensorProto>,
}

/// A node of the network with the names of the values around it.
struct Step<'a> {
    node: &'a Node,
    inputs: Vec<String>,
    output: String,
    /// Where the first input and the output lie.
    places: [Places; 2],
}

/// What the file calls the value that a node computes.
#[must_use]
pub fn value_name(network: &Network, node_idx: NodeIdx) -> &str {
    let node = &network.nodes[node_idx];
    if node_idx + 1 == network.nodes.len() {
        OUTPUT
    } else if node.op == Op::Input {
        INPUT
    } else {
        &node.name
    }
}

/// What the file calls a value that was rounded to its grid.
#[must_use]
pub fn rounded_name(value: &str) -> String {
    format!("{value}.grid")
}

impl Writer<'_> {
    /// A node behind the input, which reads what was rounded where something was.
    fn step_at<'n>(&self, network: &'n Network, places: &[Places], node_idx: NodeIdx) -> Step<'n> {
        let node = &network.nodes[node_idx];
        let input = |&idx: &NodeIdx| match self.grid(idx) {
            Some(_) => rounded_name(value_name(network, idx)),
            None => value_name(network, idx).to_owned(),
        };
        let from = node.inputs.first().copied().unwrap_or_default();
        Step {
            node,
            inputs: node.inputs.iter().map(input).collect(),
            output: value_name(network, node_idx).to_owned(),
            places: [places[from], places[node_idx]],
        }
    }

    fn grid(&self, node_idx: NodeIdx) -> Option<(NodeIdx, ByteGrid)> {
        self.activations?.grid(node_idx)
    }

    /// Rounds a node's output to its grid, if it has one.
    fn round(&mut self, network: &Network, node_idx: NodeIdx) {
        let Some((first, grid)) = self.grid(node_idx) else {
            return;
        };
        let [value, owner] = [node_idx, first].map(|idx| value_name(network, idx));
        let parameters = ["scale", "zero_point"].map(|part| format!("{owner}.{part}"));
        if node_idx == first {
            let [scale, zero] = parameters.clone();
            let bytes = quant::f32_bytes(&[grid.scale]);
            self.initializer(scale, &[], DataType::Float, bytes);
            self.initializer(zero, &[], DataType::Uint8, vec![grid.zero_point]);
        }
        let codes = format!("{value}.quantized");
        for (op_type, input, output) in [
            ("QuantizeLinear", value, &codes),
            ("DequantizeLinear", &codes, &rounded_name(value)),
        ] {
            let inputs = std::iter::once(input.to_owned()).chain(parameters.clone());
            self.push(op_type, output.clone(), inputs.collect(), Vec::new());
        }
    }

    fn step(&mut self, step: Step<'_>) -> Result<(), ExportError> {
        match step.node.op {
            Op::Input => {}
            Op::BatchNorm { .. } => {
                return Err(ExportError::NotFolded {
                    norm: step.node.name.clone(),
                });
            }
            Op::Conv {
                kernel,
                stride,
                padding,
                groups,
                ..
            } => self.conv(step, [kernel, stride, padding], groups)?,
            Op::Activation(activation) => self.activation(step, activation),
            Op::Add => self.push("Add", step.output, step.inputs, Vec::new()),
            Op::MaxPool {
                kernel,
                stride,
                padding,
                ..
            } => self.max_pool(step, [kernel, stride, padding]),
            Op::AveragePool {
                kernel,
                stride,
                padding,
            } => self.average_pool(step, [kernel, stride, padding]),
            Op::ScaleChannels => self.push("Mul", step.output, step.inputs, Vec::new()),
            Op::SpatialMean => self.push(pool::MEAN, step.output, step.inputs, Vec::new()),
            Op::Concat => self.push("Concat", step.output, step.inputs, vec![int("axis", 1)]),
            Op::Slice { start, channels } => {
                let [input] = &step.inputs[..] else {
                    unreachable!("a slice has one input")
                };
                self.slice(step.output, input, 1, [start, start + channels]);
            }
            Op::Shuffle { channels, groups } => self.shuffle(step, channels, groups),
            Op::Tokens => self.tokens(step),
            Op::ClassToken { .. } => self.class_token(step)?,
            Op::Positions { .. } => self.positions(step)?,
            Op::LayerNorm { epsilon, .. } => self.layer_norm(step, epsilon)?,
            Op::Attention { channels, heads } => self.attention(step, channels, heads),
            Op::LayerScale { .. } => self.layer_scale(step)?,
            Op::FirstToken { channels } => self.first_token(step, channels),
            Op::GlobalPool(pooling) => self.global_pool(step, pooling)?,
            Op::Linear { .. } => self.linear(step)?,
            Op::L2Normalize => self.l2_normalize(step),
        }
        Ok(())
    }

    fn push(
        &mut self,
        op_type: &str,
        output: String,
        input: Vec<String>,
        attribute: Vec<pb::AttributeProto>,
    ) {
        self.nodes.push(pb::NodeProto {
            input,
            name: output.clone(),
            output: vec![output],
            op_type: op_type.to_owned(),
            attribute,
            ..Default::default()
        });
    }

    fn conv(
        &mut self,
        step: Step<'_>,
        [kernel, stride, padding]: [usize; 3],
        groups: usize,
    ) -> Result<(), ExportError> {
        let mut inputs = step.inputs;
        inputs.extend(self.layer_weights(step.node)?);
        let mut attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("pads", &[padding; 4]),
            ints("strides", &[stride; 2]),
        ];
        if groups > 1 {
            attributes.push(int("group", groups as i64));
        }
        self.push("Conv", step.output, inputs, attributes);
        Ok(())
    }

    /// Opset 13 has neither ReLU6 nor hard-swish nor SiLU nor GELU: they are written out.
    fn activation(&mut self, step: Step<'_>, activation: Activation) {
        let Step { output, inputs, .. } = step;
        let sixth = || vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
        match activation {
            Activation::Relu => self.push("Relu", output, inputs, Vec::new()),
            Activation::Sigmoid => self.push("Sigmoid", output, inputs, Vec::new()),
            Activation::HardSigmoid => self.push("HardSigmoid", output, inputs, sixth()),
            Activation::Relu6 => {
                let bounds = [("relu6.min", 0.0), ("relu6.max", 6.0)];
                let bounds = bounds.map(|(name, bound)| self.constant(name, bound, &[]));
                let inputs = inputs.into_iter().chain(bounds).collect();
                self.push("Clip", output, inputs, Vec::new());
            }
            Activation::HardSwish => self.gated("HardSigmoid", output, inputs, sixth()),
            Activation::Silu => self.gated("Sigmoid", output, inputs, Vec::new()),
            Activation::Gelu => self.gelu(output, inputs),
        }
    }

    /// x times a function of x.
    fn gated(
        &mut self,
        function: &str,
        output: String,
        mut inputs: Vec<String>,
        attributes: Vec<pb::AttributeProto>,
    ) {
        let gate = format!("{output}.gate");
        self.push(function, gate.clone(), inputs.clone(), attributes);
        inputs.push(gate);
        self.push("Mul", output, inputs, Vec::new());
    }

    fn linear(&mut self, step: Step<'_>) -> Result<(), ExportError> {
        let mut inputs = step.inputs;
        inputs.extend(self.layer_weights(step.node)?);
        self.push("Gemm", step.output, inputs, vec![int("transB", 1)]);
        Ok(())
    }

    /// x / max(|x|, 1e-12): like `LpNormalization`, but defined for a vector of zeros.
    fn l2_normalize(&mut self, step: Step<'_>) {
        let norm = format!("{}.norm", step.node.name);
        let divisor = format!("{}.divisor", step.node.name);
        let vector = step.inputs[0].clone();
        let attributes = vec![ints("axes", &[1]), int("keepdims", 1)];
        self.push("ReduceL2", norm.clone(), step.inputs, attributes);
        let smallest = eyas_shared::embedding::MIN_NORM;
        let smallest = self.constant(MIN_NORM_NAME, smallest, &[1, 1]);
        let bounded = vec![norm, smallest];
        self.push("Max", divisor.clone(), bounded, Vec::new());
        self.push("Div", step.output, vec![vector, divisor], Vec::new());
    }

    /// Stores the weights of a convolution or linear layer; names of their f32 values.
    fn layer_weights(&mut self, node: &Node) -> Result<Vec<String>, ExportError> {
        let weights = self.weights;
        let stored = |shape: WeightShape| -> Result<String, ExportError> {
            let weight = weights.get(&shape.name, &shape.shape)?;
            Ok(self.stored_weight(shape.name, weight))
        };
        node.weights().into_iter().map(stored).collect()
    }

    fn stored_weight(&mut self, name: String, weight: &StoredWeight) -> String {
        let shape = &weight.shape;
        let wide = format!("{name}.f32");
        match &weight.data {
            Data::F32(values) => {
                let bytes = quant::f32_bytes(values);
                self.initializer(name.clone(), shape, DataType::Float, bytes);
                return name;
            }
            Data::F16(values) => {
                let bytes = quant::f16_bytes(values);
                self.initializer(name.clone(), shape, DataType::Float16, bytes);
                let to = vec![int("to", DataType::Float as i64)];
                self.push("Cast", wide.clone(), vec![name], to);
            }
            Data::Int8 { codes, scales } => {
                let (scale, zero) = (format!("{name}.scale"), format!("{name}.zero_point"));
                let bytes = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
                self.initializer(name.clone(), shape, DataType::Int8, bytes);
                let channels = [scales.len()];
                let bytes = quant::f32_bytes(scales);
                self.initializer(scale.clone(), &channels, DataType::Float, bytes);
                let zeros = vec![0; scales.len()];
                self.initializer(zero.clone(), &channels, DataType::Int8, zeros);
                let inputs = vec![name, scale, zero];
                let axis = vec![int("axis", 0)];
                self.push("DequantizeLinear", wide.clone(), inputs, axis);
            }
            Data::Int32 { codes, scales } => {
                let scale = format!("{name}.scale");
                let bytes = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
                self.initializer(name.clone(), shape, DataType::Int32, bytes);
                let bytes = quant::f32_bytes(scales);
                self.initializer(scale.clone(), shape, DataType::Float, bytes);
                let axis = vec![int("axis", 0)];
                self.push("DequantizeLinear", wide.clone(), vec![name, scale], axis);
            }
        }
        wide
    }

    /// Stores a number of that name once; its name.
    fn constant(&mut self, name: &str, value: f32, shape: &[usize]) -> String {
        if !self.initializers.iter().any(|stored| stored.name == name) {
            let bytes = quant::f32_bytes(&[value]);
            self.initializer(name.to_owned(), shape, DataType::Float, bytes);
        }
        name.to_owned()
    }

    fn initializer(&mut self, name: String, shape: &[usize], kind: DataType, bytes: Vec<u8>) {
        self.initializers.push(pb::TensorProto {
            dims: shape.iter().map(|&extent| extent as i64).collect(),
            data_type: kind as i32,
            name,
            raw_data: bytes,
            ..Default::default()
        });
    }
}

fn value_info(name: &str, shape: &[i64], doc_string: &str) -> pb::ValueInfoProto {
    let dim = |&extent: &i64| pb::tensor_shape_proto::Dimension {
        denotation: String::new(),
        value: Some(pb::tensor_shape_proto::dimension::Value::DimValue(extent)),
    };
    let tensor = pb::type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(pb::TensorShapeProto {
            dim: shape.iter().map(dim).collect(),
        }),
    };
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto {
            denotation: String::new(),
            value: Some(pb::type_proto::Value::TensorType(tensor)),
        }),
        doc_string: doc_string.to_owned(),
    }
}

fn int(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..Default::default()
    }
}

fn float(name: &str, value: f32) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..Default::default()
    }
}

fn ints(name: &str, values: &[usize]) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.iter().map(|&value| value as i64).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{fold, reference};
    use super::*;
    use crate::zoo::{ARCHITECTURES, Pooling, by_name};
    use eyas_shared::random::Random;

    /// f32 sums against f64 sums, on components of a unit vector.
    const SUMMATION: f32 = 5e-6;

    const SIDE: u32 = 32;

    fn run(onnx: &[u8], pixels: &[f32]) -> Vec<f32> {
        let network = eyas_device::encoder::Network::load(onnx, SIDE, Some(OUTPUT)).unwrap();
        let pixels = Pixels {
            side: SIDE,
            values_chw: pixels.to_vec(),
        };
        network.run(&pixels).unwrap()
    }

    #[test]
    fn tract_computes_what_the_network_says() {
        for (name, _) in ARCHITECTURES {
            let network = by_name(name, 16).unwrap().for_side(SIDE as usize);
            let weights = reference::random_weights(&network, 3);
            let (network, weights) = fold::fold(&network, &weights).unwrap();
            let pixels = reference::random_pixels(SIDE as usize, &mut Random::new(4));
            let onnx = write(&network, &weights, SIDE, Precision::F32, &[]).unwrap();
            let expected = reference::embed(&network, &weights, &pixels, SIDE as usize);
            let found = run(&onnx, &pixels);
            assert_eq!(found.len(), 16);
            for (a, b) in expected.iter().zip(&found) {
                assert!((a - b).abs() < SUMMATION, "{name}: {a} and {b}");
            }
        }
    }

    #[test]
    fn every_pooling_is_written() {
        let pixels = reference::random_pixels(SIDE as usize, &mut Random::new(4));
        for pooling in Pooling::ALL {
            // Hard-swish lets values below zero through to the pooling.
            let network = by_name("mobilenet_v3_small", 16).unwrap();
            let network = network.with_pooling(pooling);
            let weights = reference::random_weights(&network, 3);
            let (network, weights) = fold::fold(&network, &weights).unwrap();
            let onnx = write(&network, &weights, SIDE, Precision::F16, &[]).unwrap();
            assert!(!run(&onnx, &pixels).is_empty());
            let onnx = write(&network, &weights, SIDE, Precision::F32, &[]).unwrap();
            let expected = reference::embed(&network, &weights, &pixels, SIDE as usize);
            for (a, b) in expected.iter().zip(&run(&onnx, &pixels)) {
                assert!((a - b).abs() < SUMMATION, "{pooling:?}: {a} and {b}");
            }
        }
    }

    #[test]
    fn equal_arguments_give_equal_bytes() {
        let network = by_name("squeezenet1_1", 8).unwrap();
        let weights = reference::random_weights(&network, 3);
        let metadata = [("architecture".to_owned(), "squeezenet1_1".to_owned())];
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            let write = || write(&network, &weights, SIDE, precision, &metadata).unwrap();
            assert_eq!(write(), write());
        }
        let missing = write(&network, &weights, SIDE, Precision::FullInt8, &metadata);
        assert!(matches!(missing, Err(ExportError::NotCalibrated)));
        let missing = write_full_int8(&network, &weights, SIDE, &[], &metadata);
        assert!(matches!(missing, Err(ExportError::NotCalibrated)));
    }

    /// A file with u8 activations, calibrated on one picture, and that picture.
    fn full_int8(network: &Network, weights: &Weights) -> (Vec<u8>, Pixels) {
        let pixels = Pixels {
            side: SIDE,
            values_chw: reference::random_pixels(SIDE as usize, &mut Random::new(4)),
        };
        let write = || write_full_int8(network, weights, SIDE, &[&pixels], &[]).unwrap();
        let file = write();
        assert_eq!(file, write());
        (file, pixels)
    }

    #[test]
    fn rounded_activations_are_multiples_of_their_scale_and_padding_stays_zero() {
        for name in ["squeezenet1_1", "mobilenet_v3_small", "resnet-narrow"] {
            let network = by_name(name, 16).unwrap();
            let weights = reference::random_weights(&network, 3);
            let (network, weights) = fold::fold(&network, &weights).unwrap();
            let (file, pixels) = full_int8(&network, &weights);
            let graph = pb::ModelProto::decode(&file[..]).unwrap().graph.unwrap();
            let mut names: Vec<&String> = { graph.node.iter().flat_map(|node| &node.output) }
                .chain(graph.initializer.iter().map(|tensor| &tensor.name))
                .collect();
            let n_names = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), n_names, "{name}: a name is used twice");
            let is_rounded = |it: &&pb::NodeProto| it.output[0].ends_with(".grid");
            let rounded: Vec<&pb::NodeProto> = graph.node.iter().filter(is_rounded).collect();
            let outputs: Vec<&str> = rounded.iter().map(|it| it.output[0].as_str()).collect();
            let layers = eyas_device::encoder::Layers::load(&file, SIDE, &outputs).unwrap();
            let values = layers.run(&pixels).unwrap();
            for (node, values) in rounded.iter().zip(&values) {
                let tensor = |at: usize| {
                    let mut tensors = graph.initializer.iter();
                    let tensor = tensors.find(|tensor| tensor.name == node.input[at]);
                    &tensor.unwrap().raw_data
                };
                let (scale, zero) = (quant::f32_from_bytes(tensor(1))[0], tensor(2)[0]);
                for value in values {
                    let code = value / scale + f32::from(zero);
                    let off = (code - code.round()).abs();
                    assert!(
                        off < 1e-3 && (-0.5..255.5).contains(&code),
                        "{name}: {code}"
                    );
                }
            }
            let found = run(&file, &pixels.values_chw);
            let expected = reference::embed(&network, &weights, &pixels.values_chw, SIDE as usize);
            let cosine = eyas_shared::embedding::dot(&found, &expected);
            assert!(cosine > 0.98, "{name}: {cosine}");
        }
    }

    #[test]
    fn what_can_not_be_written_is_named() {
        let network = by_name("squeezenet1_1", 8).unwrap();
        let mut weights = reference::random_weights(&network, 3);
        let attempt = |weights: &Weights, side, precision| {
            let outcome = write(&network, weights, side, precision, &[]);
            outcome.map(|_| ()).map_err(|err| err.to_string())
        };
        let small = attempt(&weights, 8, Precision::F32).unwrap_err();
        assert!(small.contains("`features.5`"), "{small}");
        weights.0.get_mut("features.0.weight").unwrap().values[5] = 70000.0;
        assert_eq!(attempt(&weights, SIDE, Precision::F32), Ok(()));
        let large = attempt(&weights, SIDE, Precision::F16).unwrap_err();
        assert_eq!(
            large,
            "weight `features.0.weight` holds 70000, which f16 can not hold"
        );
        weights.0.get_mut("head.bias").unwrap().values[0] = f32::NAN;
        assert!(attempt(&weights, SIDE, Precision::F32).is_err());

        let unfolded = by_name("eyas-xs", 8).unwrap();
        let weights = reference::random_weights(&unfolded, 3);
        let message = write(&unfolded, &weights, SIDE, Precision::F32, &[]).unwrap_err();
        assert!(message.to_string().contains("fold"), "{message}");
    }
}
