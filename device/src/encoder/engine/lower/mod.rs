//! From the nodes of an ONNX graph to layers: what is fused with what, and how far the
//! engine goes.
//!
//! Nodes are taken as long as they are known here and read nothing that is not; tract is
//! given the rest. So a network with one foreign operator still runs its convolutions here.

mod attributes;
mod constants;
mod nodes;
mod quantized;

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use super::epilogue::Activation;
use super::quantization::Quantization;
use constants::Constants;

/// Most values of one map, and most entries of all tables of taps: layers beyond are left to
/// tract and its limits.
const MAX_VALUES: usize = 1 << 26;

/// Most channels that are named one by one: concatenations of concatenations double them.
const MAX_CHANNELS: usize = 1 << 16;

/// A value of the network: height, width, channels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) shape: [usize; 3],
    /// The value whose channels, from one on, it is.
    pub(super) part_of: Option<(usize, usize)>,
    /// How it is stored, if not in f32.
    pub(super) quantization: Option<Quantization>,
}

/// The image's position among the values.
pub(super) const IMAGE: usize = 0;

/// A layer.
pub(super) struct Layer {
    /// Of the node that does most of it.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) inputs: Vec<usize>,
    /// What is added before the activation.
    pub(super) residual: Option<usize>,
    pub(super) activation: Activation,
    pub(super) output: usize,
}

/// What a layer computes.
pub(super) enum Kind {
    Dense(Convolution),
    Depthwise(Convolution),
    /// A dense convolution over a quantized map.
    Quantized(QuantizedConvolution),
    MaxPool(Window),
    AveragePool {
        window: Window,
        /// Whether zeros around the map count.
        with_padding: bool,
    },
    GlobalMean,
    GlobalMax,
    /// Sum of two maps.
    Sum,
    /// A map whose channels are scaled by a vector.
    Scale,
    /// The activation alone.
    Activation,
    /// A map of values becomes one of bytes.
    Quantize,
    /// And back.
    Dequantize,
    /// Channels of the inputs: which input, which channel.
    Channels(Vec<(usize, usize)>),
    /// x / max(|x|, `smallest`).
    Normalize {
        smallest: f32,
    },
}

impl Kind {
    /// Whether an activation behind it can be a part of it.
    fn ends_in_activation(&self) -> bool {
        !matches!(
            self,
            Self::Channels(_)
                | Self::GlobalMean
                | Self::GlobalMax
                | Self::Normalize { .. }
                | Self::Quantize
                | Self::Dequantize
        )
    }
}

/// A window that slides over a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    /// Top, left, bottom, right.
    pub(super) pads: [usize; 4],
}

impl Window {
    /// Height and width of what it gives.
    fn output(self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let [top, left, bottom, right] = self.pads;
        let across = |size: usize, axis: usize| {
            let room = size.checked_sub(self.kernel[axis])?;
            Some(room / self.stride[axis] + 1)
        };
        Some([
            across(height + top + bottom, 0)?,
            across(width + left + right, 1)?,
        ])
    }
}

/// Weights `[outputs, inputs, height, width]` (inputs 1 if depthwise) and a bias.
pub(super) struct Convolution {
    pub(super) window: Window,
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Weights in the same order, as codes.
pub(super) struct QuantizedConvolution {
    pub(super) window: Window,
    pub(super) codes: Vec<i8>,
    /// One an output channel.
    pub(super) scales: Vec<f32>,
    pub(super) bias: Vec<f32>,
    /// How its input is stored; the image is rounded for it.
    pub(super) input: Quantization,
}

/// Layers, and what is left.
pub(super) struct Lowered {
    pub(super) values: Vec<Value>,
    pub(super) layers: Vec<Layer>,
    /// What somebody outside reads: the graph's outputs, or what its rest reads.
    pub(super) outputs: Vec<Output>,
    /// The graph from those values on, if one of its outputs is not among them.
    pub(super) rest: Option<pb::GraphProto>,
}

impl Lowered {
    /// Whether every layer, and whoever is outside, reads what a layer before has computed as
    /// a whole. Lowering sees to it; memory is laid out for nothing else.
    pub(super) fn is_computed(&self) -> bool {
        let mut parts: HashMap<usize, Vec<usize>> = HashMap::new();
        for (value, stored) in self.values.iter().enumerate() {
            if let Some((whole, _)) = stored.part_of {
                parts.entry(whole).or_default().push(value);
            }
        }
        let mut computed = HashSet::from([IMAGE]);
        let is_there = |computed: &HashSet<usize>, value: usize| {
            let mut asked = vec![value];
            while let Some(value) = asked.pop() {
                match parts.get(&value) {
                    _ if computed.contains(&value) => {}
                    Some(parts) => asked.extend(parts),
                    None => return false,
                }
            }
            true
        };
        for layer in &self.layers {
            let mut read = layer.inputs.iter().chain(&layer.residual);
            if !read.all(|value| is_there(&computed, *value)) {
                return false;
            }
            computed.insert(layer.output);
        }
        let mut outputs = self.outputs.iter();
        outputs.all(|output| is_there(&computed, output.value))
    }
}

/// A value that is read outside.
pub(super) struct Output {
    pub(super) name: String,
    pub(super) value: usize,
    /// Whether it is 1 x C for its readers, and not 1 x C x H x W.
    pub(super) is_flat: bool,
}

/// Layers for a graph over an image of `side` x `side`; `None` if not even
/// its first node is known.
pub(super) fn lower(graph: &pb::GraphProto, side: usize) -> Option<Lowered> {
    let constants = Constants::new(graph);
    let image = graph
        .input
        .iter()
        .find(|input| !constants.contains(&input.name))?;
    let mut lowering = Lowering {
        consumers: consumers(graph),
        constants,
        values: vec![Value {
            shape: [side, side, 3],
            part_of: None,
            quantization: None,
        }],
        layers: Vec::new(),
        bound: HashMap::from([(image.name.as_str(), Bound::Value(IMAGE))]),
        flat: HashSet::new(),
        shared: HashSet::new(),
        dequantized: HashMap::new(),
        index_left: MAX_VALUES,
        weights_left: MAX_VALUES,
        done: vec![false; graph.node.len()],
        graph,
    };
    for (at, node) in graph.node.iter().enumerate() {
        if !lowering.done[at] && lowering.node(at, node).is_some() {
            lowering.done[at] = true;
        }
    }
    lowering.finish()
}

/// Which nodes read each value; the graph's output counts as read by a node after all.
fn consumers(graph: &pb::GraphProto) -> HashMap<&str, Vec<usize>> {
    let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        for input in &node.input {
            consumers.entry(input).or_default().push(at);
        }
    }
    for output in &graph.output {
        consumers
            .entry(&output.name)
            .or_default()
            .push(graph.node.len());
    }
    consumers
}

/// What a name stands for.
#[derive(Clone)]
enum Bound {
    Value(usize),
    /// The bytes of a value that is stored in bytes, as whole numbers.
    Codes(usize),
    /// The image in bytes, as whole numbers, and as the values that they stand for.
    ImageCodes(Quantization),
    RoundedImage(Quantization),
    /// Channels of values, not yet beside each other.
    Channels(Vec<(usize, usize)>),
}

struct Lowering<'p> {
    graph: &'p pb::GraphProto,
    consumers: HashMap<&'p str, Vec<usize>>,
    constants: Constants<'p>,
    values: Vec<Value>,
    layers: Vec<Layer>,
    bound: HashMap<&'p str, Bound>,
    /// Names of vectors whose height and width were dropped.
    flat: HashSet<&'p str>,
    /// Values that are read under two names.
    shared: HashSet<usize>,
    /// For values that are stored in bytes, the same in f32, where a layer needs them so.
    dequantized: HashMap<usize, usize>,
    /// Entries that tables of taps may still have.
    index_left: usize,
    /// Values that weights may still have: nodes may share a stored tensor, layers do not.
    weights_left: usize,
    done: Vec<bool>,
}

impl<'p> Lowering<'p> {
    /// The only node that reads a value.
    fn only_consumer(&self, name: &str) -> Option<(usize, &'p pb::NodeProto)> {
        match self.consumers.get(name)?[..] {
            [at] => Some((at, self.graph.node.get(at)?)),
            _ => None,
        }
    }

    fn is_read_once(&self, name: &str) -> bool {
        self.consumers
            .get(name)
            .is_some_and(|nodes| nodes.len() == 1)
    }

    /// A value that layers can read, stored as it is; channels that are elsewhere are brought
    /// together.
    fn value(&mut self, name: &str) -> Option<usize> {
        match self.bound.get(name)?.clone() {
            Bound::Value(value) => Some(value),
            Bound::Codes(_) | Bound::ImageCodes(_) | Bound::RoundedImage(_) => None,
            Bound::Channels(channels) => {
                let value = self.gather(name, channels)?;
                let name = *self.bound.get_key_value(name)?.0;
                self.bound.insert(name, Bound::Value(value));
                Some(value)
            }
        }
    }

    /// A map, stored as it is; the image is none, its colors lie in another order.
    fn stored_map(&mut self, name: &str) -> Option<usize> {
        self.value(name).filter(|value| *value != IMAGE)
    }

    /// A map in f32, for the node of that name.
    fn map(&mut self, name: &str, reader: &str) -> Option<usize> {
        let value = self.stored_map(name)?;
        self.dequantized(value, reader)
    }

    /// A value in f32: itself, or a copy that the first node to read it makes.
    fn dequantized(&mut self, value: usize, reader: &str) -> Option<usize> {
        if self.values[value].quantization.is_none() {
            return Some(value);
        }
        if let Some(copy) = self.dequantized.get(&value) {
            return Some(*copy);
        }
        let shape = self.values[value].shape;
        let copy = self.push(reader, Kind::Dequantize, vec![value], shape)?;
        self.dequantized.insert(value, copy);
        Some(copy)
    }

    fn gather(&mut self, name: &str, channels: Vec<(usize, usize)>) -> Option<usize> {
        let [height, width, _] = self.values[channels.first()?.0].shape;
        let mut inputs: Vec<usize> = channels.iter().map(|(value, _)| *value).collect();
        inputs.sort_unstable();
        inputs.dedup();
        let of = |value: usize| inputs.binary_search(&value).expect("it is one of them");
        let sources = channels
            .iter()
            .map(|&(value, at)| (of(value), at))
            .collect();
        let shape = [height, width, channels.len()];
        self.push(name, Kind::Channels(sources), inputs.clone(), shape)
    }

    /// A new layer; its output's position among the values.
    fn push(
        &mut self,
        name: &str,
        kind: Kind,
        inputs: Vec<usize>,
        shape: [usize; 3],
    ) -> Option<usize> {
        if shape.iter().product::<usize>() > MAX_VALUES || shape.contains(&0) {
            return None;
        }
        let output = self.values.len();
        self.values.push(Value {
            shape,
            part_of: None,
            quantization: None,
        });
        self.layers.push(Layer {
            name: name.to_owned(),
            kind,
            inputs,
            residual: None,
            activation: Activation::None,
            output,
        });
        Some(output)
    }

    /// Layers, what is read of them, and the rest of the graph.
    fn finish(mut self) -> Option<Lowered> {
        let graph = self.graph;
        let is_constant = |this: &Self, at: usize| {
            let mut outputs = graph.node[at].output.iter();
            outputs.all(|name| this.constants.contains(name))
        };
        let left: Vec<usize> = (0..graph.node.len())
            .filter(|&at| !self.done[at] && !is_constant(&self, at))
            .collect();
        let read_by_rest = left.iter().flat_map(|&at| &graph.node[at].input);
        let is_bound = |name: &&String| self.bound.contains_key(name.as_str());
        let results: Vec<&String> = graph.output.iter().map(|output| &output.name).collect();
        let is_whole = results.iter().all(is_bound);
        let mut names = results;
        if !is_whole {
            names.extend(read_by_rest);
            names.retain(is_bound);
            names.sort();
            names.dedup();
        }
        let mut outputs = Vec::new();
        for name in names {
            outputs.push(Output {
                name: name.clone(),
                value: self.map(name, name)?,
                is_flat: self.flat.contains(name.as_str()),
            });
        }
        let rest = (!is_whole).then(|| self.rest(&left, &outputs));
        Some(Lowered {
            values: self.values,
            layers: self.layers,
            outputs,
            rest,
        })
    }

    /// A graph of the nodes that are left and of all constants, with `outputs` as inputs.
    fn rest(&self, left: &[usize], outputs: &[Output]) -> pb::GraphProto {
        let mut graph = pb::GraphProto {
            initializer: self.graph.initializer.clone(),
            output: self.graph.output.clone(),
            name: self.graph.name.clone(),
            ..Default::default()
        };
        for (at, node) in self.graph.node.iter().enumerate() {
            let constant = node.output.iter().all(|name| self.constants.contains(name));
            if constant || left.contains(&at) {
                graph.node.push(node.clone());
            }
        }
        let tensor = pb::type_proto::Tensor {
            elem_type: pb::tensor_proto::DataType::Float as i32,
            shape: None,
        };
        let inputs = outputs.iter().map(|output| pb::ValueInfoProto {
            name: output.name.clone(),
            r#type: Some(pb::TypeProto {
                value: Some(pb::type_proto::Value::TensorType(tensor.clone())),
                ..Default::default()
            }),
            ..Default::default()
        });
        graph.input = inputs.collect();
        graph
    }
}
