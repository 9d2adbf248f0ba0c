//! The engine beside tract and beside plain loops.

use eyas_shared::preprocess::Pixels;
use eyas_shared::random::Random;
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

use super::super::{Layers, Network, Runtime};
use super::lanes::Isa;
use crate::test_data::{float, int, ints, model, node, tensor, value};

/// Sums in another order: a few units in the last place of their largest terms.
const SUMMATION: f32 = 1e-5;

/// The same behind the transforms of Winograd's F(4x4, 3x3), and through several layers.
const TRANSFORMED: f32 = 1e-4;

/// A network that grows.
struct Net {
    graph: pb::GraphProto,
    random: Random,
    side: usize,
    /// Whether weights are int8, and maps are rounded to bytes now and then.
    quantized: bool,
}

/// A map in a network: its name, channels and side.
#[derive(Clone)]
struct Map {
    name: String,
    channels: usize,
    side: usize,
}

impl Net {
    fn new(seed: u64, side: usize) -> (Self, Map) {
        let edge = side as i64;
        let graph = pb::GraphProto {
            name: "test".to_owned(),
            input: vec![value("image", &[1, 3, edge, edge])],
            ..Default::default()
        };
        let random = Random::new(seed);
        let image = Map {
            name: "image".to_owned(),
            channels: 3,
            side,
        };
        (
            Self {
                graph,
                random,
                side,
                quantized: false,
            },
            image,
        )
    }

    fn weights(&mut self, shape: &[usize], scale: f32) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n)
            .map(|_| self.random.normal() as f32 * scale)
            .collect();
        let dims: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
        self.graph.initializer.push(tensor(&name, &dims, &values));
        name
    }

    /// Stores bytes of a type under a new name.
    fn bytes(&mut self, kind: DataType, shape: &[usize], bytes: Vec<u8>) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        self.graph.initializer.push(pb::TensorProto {
            name: name.clone(),
            dims: shape.iter().map(|&extent| extent as i64).collect(),
            data_type: kind as i32,
            raw_data: bytes,
            ..Default::default()
        });
        name
    }

    fn number(&mut self, value: f32) -> String {
        self.bytes(DataType::Float, &[], value.to_le_bytes().to_vec())
    }

    /// int8 weights with a scale for each output channel, the largest about 1.
    fn codes(&mut self, shape: &[usize], scale: f32) -> String {
        let n = shape.iter().product();
        let codes = (0..n).map(|_| (self.random.below(255) as i32 - 127) as u8);
        let codes = codes.collect();
        let codes = self.bytes(DataType::Int8, shape, codes);
        let scales = (0..shape[0]).flat_map(|_| {
            let spread = self.random.range(0.2, 2.0) as f32;
            (spread * scale / 70.0).to_le_bytes()
        });
        let scales = scales.collect();
        let scales = self.bytes(DataType::Float, &shape[..1], scales);
        let zeros = self.bytes(DataType::Int8, &shape[..1], vec![0; shape[0]]);
        let inputs = [&codes[..], &scales, &zeros];
        self.push("DequantizeLinear", &inputs, vec![int("axis", 0)])
    }

    /// The same map, rounded to bytes and back.
    fn rounded(&mut self, from: &Map, scale: f32, zero: u8) -> Map {
        let scale = self.number(scale);
        let zero = self.bytes(DataType::Uint8, &[], vec![zero]);
        let inputs = [&from.name[..], &scale, &zero];
        let codes = self.push("QuantizeLinear", &inputs, vec![]);
        let inputs = [&codes[..], &scale, &zero];
        Map {
            name: self.push("DequantizeLinear", &inputs, vec![]),
            ..from.clone()
        }
    }

    /// The map as it is, or rounded in some way.
    fn perhaps_rounded(&mut self, from: &Map) -> Map {
        if !self.quantized || self.random.below(4) == 0 {
            return from.clone();
        }
        let zero = [0, 0, 31, 128][self.random.below(4)];
        let scale = self.random.range(2.0, 5.0) as f32 / 255.0;
        let rounded = self.rounded(from, scale, zero);
        match self.random.below(4) {
            // Once more alike, which changes nothing.
            0 => self.rounded(&rounded, scale, zero),
            _ => rounded,
        }
    }

    fn push(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<pb::AttributeProto>,
    ) -> String {
        let name = format!("n{}", self.graph.node.len());
        self.graph
            .node
            .push(node(operator, inputs, &name, attributes));
        name
    }

    /// A convolution with a square kernel; depthwise for 0 outputs.
    fn conv(&mut self, from: &Map, outputs: usize, [kernel, stride, padding]: [usize; 3]) -> Map {
        let depthwise = outputs == 0;
        let (channels, per_group) = match depthwise {
            true => (from.channels, 1),
            false => (outputs, from.channels),
        };
        let n_terms = (per_group * kernel * kernel) as f32;
        let (shape, scale) = (
            [channels, per_group, kernel, kernel],
            n_terms.sqrt().recip(),
        );
        let weights = match self.quantized {
            true => self.codes(&shape, scale),
            false => self.weights(&shape, scale),
        };
        let bias = self.weights(&[channels], 0.1);
        let mut attributes = vec![
            ints("kernel_shape", &[kernel as i64; 2]),
            ints("strides", &[stride as i64; 2]),
            ints("pads", &[padding as i64; 4]),
        ];
        if depthwise {
            attributes.push(int("group", channels as i64));
        }
        Map {
            name: self.push("Conv", &[&from.name, &weights, &bias], attributes),
            channels,
            side: (from.side + 2 * padding - kernel) / stride + 1,
        }
    }

    /// The same map after an operator that keeps its shape.
    fn then(&mut self, operator: &str, from: &Map, attributes: Vec<pb::AttributeProto>) -> Map {
        let name = self.push(operator, &[&from.name], attributes);
        Map {
            name,
            ..from.clone()
        }
    }

    fn activated(&mut self, from: &Map) -> Map {
        match self.random.below(7) {
            0 => from.clone(),
            1 | 2 => self.then("Relu", from, vec![]),
            3 => {
                let bounds = [-0.5, 0.75].map(|bound: f32| {
                    let name = format!("w{}", self.graph.initializer.len());
                    self.graph.initializer.push(tensor(&name, &[], &[bound]));
                    name
                });
                let name = self.push("Clip", &[&from.name, &bounds[0], &bounds[1]], vec![]);
                Map {
                    name,
                    ..from.clone()
                }
            }
            4 => {
                let line = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
                self.gated("HardSigmoid", from, line)
            }
            5 => self.gated("Sigmoid", from, vec![]),
            _ => self.then("Sigmoid", from, vec![]),
        }
    }

    fn gated(&mut self, gate: &str, from: &Map, attributes: Vec<pb::AttributeProto>) -> Map {
        let gate = self.then(gate, from, attributes);
        self.join("Mul", from, &gate)
    }

    fn join(&mut self, operator: &str, a: &Map, b: &Map) -> Map {
        let attributes = match operator {
            "Concat" => vec![int("axis", 1)],
            _ => vec![],
        };
        let channels = match operator {
            "Concat" => a.channels + b.channels,
            _ => a.channels,
        };
        let name = self.push(operator, &[&a.name, &b.name], attributes);
        Map {
            name,
            channels,
            side: a.side,
        }
    }

    fn pool(&mut self, from: &Map) -> Map {
        let (kernel, stride) = (2 + self.random.below(2), 1 + self.random.below(2));
        let padding = self.random.below(2);
        let mut attributes = vec![
            ints("kernel_shape", &[kernel as i64; 2]),
            ints("strides", &[stride as i64; 2]),
            ints("pads", &[padding as i64; 4]),
        ];
        let max = self.random.below(2) == 0;
        if !max {
            attributes.push(int("count_include_pad", self.random.below(2) as i64));
        }
        let operator = if max { "MaxPool" } else { "AveragePool" };
        Map {
            name: self.push(operator, &[&from.name], attributes),
            side: (from.side + 2 * padding - kernel) / stride + 1,
            ..from.clone()
        }
    }

    /// Every channel scaled by a number that comes from the mean of all.
    fn excited(&mut self, from: &Map) -> Map {
        let mean = self.then("GlobalAveragePool", from, vec![]);
        let mean = Map { side: 1, ..mean };
        let scale = self.conv(&mean, from.channels, [1, 1, 0]);
        let line = vec![float("alpha", 0.2), float("beta", 0.5)];
        let scale = self.then("HardSigmoid", &scale, line);
        self.join("Mul", from, &scale)
    }

    /// Halves of the channels, one convolved, dealt out alternately.
    fn shuffled(&mut self, from: &Map) -> Map {
        let half = from.channels / 2;
        let channels = half * 2;
        let from = self.conv(from, channels, [1, 1, 0]);
        let name = format!("n{}", self.graph.node.len());
        let mut split = node("Split", &[&from.name], &name, vec![int("axis", 1)]);
        split.output.push(format!("{name}b"));
        self.graph.node.push(split);
        let part = |name: String| Map {
            name,
            channels: half,
            ..from
        };
        let (kept, other) = (part(name.clone()), part(format!("{name}b")));
        let other = self.conv(&other, half, [3, 1, 1]);
        let both = self.join("Concat", &kept, &other);
        let edge = from.side as i64;
        let reshaped = |this: &mut Self, name: &str, shape: &[i64]| {
            let stored = format!("w{}", this.graph.initializer.len());
            this.graph.initializer.push(pb::TensorProto {
                name: stored.clone(),
                dims: vec![shape.len() as i64],
                data_type: pb::tensor_proto::DataType::Int64 as i32,
                int64_data: shape.to_vec(),
                ..Default::default()
            });
            this.push("Reshape", &[name, &stored], vec![])
        };
        let map: &[i64] = match self.random.below(2) {
            0 => &[edge, edge],
            _ => &[edge * edge],
        };
        let order = &[0, 2, 1, 3, 4][..3 + map.len()];
        let table = [&[1, 2, half as i64], map].concat();
        let dealt = reshaped(self, &both.name, &table);
        let dealt = self.push("Transpose", &[&dealt], vec![ints("perm", order)]);
        let name = reshaped(self, &dealt, &[1, channels as i64, edge, edge]);
        Map { name, ..both }
    }

    /// Global pooling, a linear layer, and perhaps unit length.
    fn head(&mut self, from: &Map) -> Map {
        let pool = ["GlobalAveragePool", "GlobalMaxPool"][self.random.below(2)];
        let pooled = self.then(pool, from, vec![]);
        let flat = self.then("Flatten", &pooled, vec![int("axis", 1)]);
        let weights = self.weights(&[9, from.channels], 0.3);
        let bias = self.weights(&[9], 0.1);
        let inputs = [&flat.name[..], &weights, &bias];
        let linear = self.push("Gemm", &inputs, vec![int("transB", 1)]);
        Map {
            name: linear,
            channels: 9,
            side: 1,
        }
    }

    fn finish(mut self, output: &Map) -> Vec<u8> {
        let edge = output.side as i64;
        let shape = [1, output.channels as i64, edge, edge];
        self.graph.output = vec![value(&output.name, &shape)];
        let mut whole = model(5);
        whole.graph = Some(self.graph);
        whole.encode_to_vec()
    }

    fn pixels(&self) -> Pixels {
        let mut random = Random::new(self.side as u64);
        let n = 3 * self.side * self.side;
        Pixels {
            side: self.side as u32,
            values_chw: (0..n).map(|_| random.normal() as f32).collect(),
        }
    }
}

/// A network with some of all that is known here, in random order.
fn random_network(seed: u64, quantized: bool) -> (Vec<u8>, Pixels) {
    let side = 9 + Random::new(seed).below(24);
    let (mut net, image) = Net::new(seed, side);
    net.quantized = quantized;
    let pixels = net.pixels();
    let first = [[3, 2, 1], [3, 1, 1], [4, 4, 0], [5, 2, 2]][net.random.below(4)];
    let channels = 4 + net.random.below(40);
    let image = match quantized && net.random.below(2) == 0 {
        true => net.rounded(&image, 5.0 / 255.0, 127),
        false => image,
    };
    let mut at = net.conv(&image, channels, first);
    at = net.activated(&at);
    at = net.perhaps_rounded(&at);
    for _ in 0..4 {
        let channels = 1 + net.random.below(50);
        let before = at.clone();
        at = match net.random.below(8) {
            0 => net.conv(&at, channels, [1, 1, 0]),
            1 => net.conv(&at, channels, [3, 1, 1]),
            2 if at.side >= 5 => {
                let (kernel, stride) = (3 + 2 * net.random.below(2), 1 + net.random.below(2));
                net.conv(&at, 0, [kernel, stride, 1])
            }
            3 if at.side >= 3 => net.pool(&at),
            4 => {
                let same = net.conv(&at, at.channels, [3, 1, 1]);
                let pair = if net.random.below(2) == 0 {
                    [&at, &same]
                } else {
                    [&same, &at]
                };
                net.join("Add", pair[0], pair[1])
            }
            5 => {
                let beside = net.conv(&at, channels, [3, 1, 1]);
                let beside = net.activated(&beside);
                net.join("Concat", &beside, &before)
            }
            6 => net.excited(&at),
            7 if at.channels >= 2 => net.shuffled(&at),
            _ => net.conv(&at, channels, [3, 1, 1]),
        };
        at = net.activated(&at);
        at = net.perhaps_rounded(&at);
    }
    if net.random.below(4) > 0 {
        at = net.head(&at);
    }
    (net.finish(&at), pixels)
}

fn run(runtime: Runtime, onnx: &[u8], pixels: &Pixels) -> Vec<f32> {
    let network = Network::load_for(runtime, onnx, pixels.side, None).unwrap();
    network.run(pixels).unwrap()
}

#[track_caller]
fn assert_near(wanted: &[f32], found: &[f32], tolerance: f32, what: &str) {
    assert_eq!(wanted.len(), found.len(), "{what}");
    let largest = wanted.iter().fold(1e-3_f32, |most, x| most.max(x.abs()));
    for (at, (a, b)) in wanted.iter().zip(found).enumerate() {
        let error = (a - b).abs() / largest;
        assert!(error <= tolerance, "{what}: value {at} is {b}, not {a}");
    }
}

#[test]
fn random_networks_give_what_tract_gives_and_the_same_bits_with_all_instructions() {
    let n_networks: u64 = match std::env::var("EYAS_NETWORKS") {
        Ok(n) => n.parse().unwrap(),
        Err(_) => 150,
    };
    let mut whole = 0;
    for seed in 0..n_networks {
        let (onnx, pixels) = random_network(seed, false);
        if Network::load_for(Runtime::Tract, &onnx, pixels.side, None).is_err() {
            // A map of more values than an embedding has.
            continue;
        }
        let wanted = run(Runtime::Tract, &onnx, &pixels);
        let plain = run(Runtime::Engine(Isa::Plain), &onnx, &pixels);
        assert_near(&wanted, &plain, TRANSFORMED, &format!("network {seed}"));
        for isa in Isa::available() {
            let found = run(Runtime::Engine(isa), &onnx, &pixels);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&plain), bits(&found), "network {seed} with {isa:?}");
        }
        let network = Network::load(&onnx, pixels.side, None).unwrap();
        whole += u64::from(network.remainder.is_none());
    }
    assert!(
        2 * whole > n_networks,
        "only {whole} networks run here as a whole"
    );
}

/// What a value may differ by where maps are rounded to bytes: sums in another order fall
/// on the other side of a half now and then, which makes a step of a byte of it.
const STEPS: f32 = 0.1;

/// The same over all values.
const MEAN_STEPS: f32 = 0.01;

#[test]
fn rounded_networks_give_what_tract_gives_and_the_same_bits_with_all_instructions() {
    let mut n_codes = 0;
    for seed in 0..150 {
        let (onnx, pixels) = random_network(seed, true);
        if Network::load_for(Runtime::Tract, &onnx, pixels.side, None).is_err() {
            continue;
        }
        let what = format!("network {seed}");
        let wanted = run(Runtime::Tract, &onnx, &pixels);
        let plain = run(Runtime::Engine(Isa::Plain), &onnx, &pixels);
        assert_near(&wanted, &plain, STEPS, &what);
        let largest = wanted.iter().fold(1e-3_f32, |most, x| most.max(x.abs()));
        let off = wanted.iter().zip(&plain).map(|(a, b)| (a - b).abs());
        let mean = off.sum::<f32>() / wanted.len() as f32;
        assert!(mean <= MEAN_STEPS * largest, "{what}: off by {mean}");
        for isa in Isa::available() {
            let found = run(Runtime::Engine(isa), &onnx, &pixels);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&plain), bits(&found), "{what} with {isa:?}");
        }
        let network = Network::load(&onnx, pixels.side, None).unwrap();
        let steps = network.profile(&pixels, 1).unwrap();
        n_codes += steps
            .iter()
            .filter(|step| step.kind.starts_with("int8"))
            .count();
    }
    assert!(n_codes > 300, "only {n_codes} layers over bytes");
}

#[test]
fn sums_of_bytes_are_exact() {
    // Kernel, stride, padding; channels and outputs; the byte of 0.
    let cases = [
        ([1, 1, 0], [24, 33], 0),
        ([3, 1, 1], [5, 16], 0),
        ([3, 1, 1], [7, 40], 113),
        ([3, 2, 1], [32, 48], 255),
        ([5, 1, 2], [17, 70], 3),
        ([2, 2, 0], [64, 100], 128),
        // Over the image itself.
        ([3, 2, 1], [3, 40], 100),
        ([4, 2, 0], [3, 16], 77),
        ([7, 1, 3], [3, 33], 200),
    ];
    for (seed, (form, [channels, outputs], zero)) in cases.into_iter().enumerate() {
        for side in [7, 8, 10] {
            let (mut net, image) = Net::new(seed as u64, side);
            net.quantized = true;
            let pixels = net.pixels();
            let scale = 3.0 / 255.0;
            let from = match channels {
                3 => image,
                _ => net.conv(&image, channels, [1, 1, 0]),
            };
            let from = net.rounded(&from, scale, zero);
            let map = net.conv(&from, outputs, form);
            let stored = net.graph.initializer.clone();
            let of = |name: &str| stored.iter().find(|tensor| tensor.name == name).unwrap();
            let conv = net.graph.node.last().unwrap();
            let weights = net
                .graph
                .node
                .iter()
                .find(|node| node.output[0] == conv.input[1]);
            let weights = weights.unwrap().input.clone();
            let codes = of(&weights[0]).raw_data.iter();
            let codes: Vec<f32> = codes.map(|&code| f32::from(code.cast_signed())).collect();
            let scales = eyas_shared::quant::f32_from_bytes(&of(&weights[1]).raw_data);
            let bias = eyas_shared::quant::f32_from_bytes(&of(&conv.input[2]).raw_data);
            let names = [from.name.clone(), map.name.clone()];
            let onnx = net.finish(&map);
            let layers = Layers::load(&onnx, pixels.side, &[&names[0], &names[1]]).unwrap();
            let [input, _] = <[_; 2]>::try_from(layers.run(&pixels).unwrap()).unwrap();
            // Whole numbers whose sums f64 holds exactly.
            let steps: Vec<f32> = input.iter().map(|x| (x / scale).round()).collect();
            let no_bias = vec![0.0; outputs];
            let sums = by_definition(&steps, [channels, side], &codes, &no_bias, form);
            let area = sums.len() / outputs;
            let value = |(at, sum): (usize, &f32)| {
                let channel = at / area;
                sum.mul_add(scales[channel] * scale, bias[channel])
            };
            let wanted: Vec<f32> = sums.iter().enumerate().map(value).collect();
            for isa in Isa::available() {
                let found = run(Runtime::Engine(isa), &onnx, &pixels);
                assert_eq!(wanted, found, "{form:?} to {outputs}, {side}, {isa:?}");
            }
        }
    }
}

/// A convolution by its definition.
fn by_definition(
    input: &[f32],
    [channels, side]: [usize; 2],
    weights: &[f32],
    bias: &[f32],
    [kernel, stride, padding]: [usize; 3],
) -> Vec<f32> {
    let across = (side + 2 * padding - kernel) / stride + 1;
    let per_group = weights.len() / (bias.len() * kernel * kernel);
    let mut output = Vec::new();
    for (o, bias) in bias.iter().enumerate() {
        for (y, x) in (0..across).flat_map(|y| (0..across).map(move |x| (y, x))) {
            let mut sum = f64::from(*bias);
            for i in 0..per_group {
                let channel = if per_group == channels { i } else { o };
                for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                    let (row, column) = (y * stride + ky, x * stride + kx);
                    let inside = padding..side + padding;
                    if inside.contains(&row) && inside.contains(&column) {
                        let at = (channel * side + row - padding) * side + column - padding;
                        let weight = weights[((o * per_group + i) * kernel + ky) * kernel + kx];
                        sum += f64::from(weight) * f64::from(input[at]);
                    }
                }
            }
            output.push(sum as f32);
        }
    }
    output
}

#[test]
fn convolutions_are_what_their_definition_says() {
    // Kernel, stride, padding; outputs, 0 for depthwise.
    let cases = [
        ([1, 1, 0], 33),
        ([3, 1, 1], 16),
        ([3, 1, 1], 40),
        ([3, 1, 0], 21),
        ([3, 2, 1], 30),
        ([5, 1, 2], 17),
        ([2, 2, 0], 48),
        ([7, 3, 2], 5),
        ([3, 1, 1], 0),
        ([3, 2, 1], 0),
        ([5, 1, 2], 0),
        ([5, 2, 1], 0),
    ];
    for (seed, (form, outputs)) in cases.into_iter().enumerate() {
        for side in [7, 8, 13] {
            let (mut net, image) = Net::new(seed as u64, side);
            let pixels = net.pixels();
            let from = net.conv(&image, 24, [1, 1, 0]);
            let map = net.conv(&from, outputs, form);
            let stored = net.graph.initializer.clone();
            let values = |at: usize| match stored[at].float_data.is_empty() {
                true => eyas_shared::quant::f32_from_bytes(&stored[at].raw_data),
                false => stored[at].float_data.clone(),
            };
            let input = by_definition(
                &pixels.values_chw,
                [3, side],
                &values(0),
                &values(1),
                [1, 1, 0],
            );
            let wanted = by_definition(&input, [24, side], &values(2), &values(3), form);
            let found = run(Runtime::Engine(Isa::best()), &net.finish(&map), &pixels);
            let tolerance = if form[..2] == [3, 1] {
                TRANSFORMED
            } else {
                SUMMATION
            };
            assert_near(
                &wanted,
                &found,
                tolerance,
                &format!("{form:?} to {outputs}, {side}"),
            );
        }
    }
}

#[test]
fn what_the_engine_does_not_know_is_left_to_tract() {
    // A generalized mean: powers of a clipped map.
    let (mut net, image) = Net::new(3, 16);
    let pixels = net.pixels();
    let map = net.conv(&image, 20, [3, 2, 1]);
    let map = net.then("Relu", &map, vec![]);
    let kept = net.conv(&map, 20, [3, 1, 1]);
    net.graph
        .initializer
        .push(tensor("three", &[1, 1, 1, 1], &[3.0]));
    let powers = net.push("Pow", &[&map.name, "three"], vec![]);
    let powers = Map {
        name: powers,
        ..map.clone()
    };
    let both = net.join("Add", &powers, &kept);
    let output = net.head(&both);
    let onnx = net.finish(&output);
    let network = Network::load(&onnx, pixels.side, None).unwrap();
    assert!(network.engine.is_some() && network.remainder.is_some());
    let wanted = run(Runtime::Tract, &onnx, &pixels);
    assert_near(
        &wanted,
        &network.run(&pixels).unwrap(),
        SUMMATION,
        "generalized mean",
    );
    let tract = Network::load_for(Runtime::Tract, &onnx, pixels.side, None).unwrap();
    assert_eq!(network.multiply_adds(), tract.multiply_adds());
    assert!(!network.profile(&pixels, 2).unwrap().is_empty());
}

#[test]
fn a_gate_that_others_read_too_and_one_behind_a_pool_are_what_tract_computes() {
    let same = |what: &str, build: &dyn Fn(&mut Net, &Map) -> Map| {
        let (mut net, image) = Net::new(7, 6);
        let pixels = net.pixels();
        let map = net.conv(&image, 20, [3, 1, 1]);
        let output = build(&mut net, &map);
        let onnx = net.finish(&output);
        let network = Network::load(&onnx, pixels.side, None).unwrap();
        assert!(network.engine.is_some(), "{what}");
        let wanted = run(Runtime::Tract, &onnx, &pixels);
        assert_near(&wanted, &network.run(&pixels).unwrap(), TRANSFORMED, what);
    };
    // The same gate under two names, one of them the output's.
    same("output", &|net, map| {
        let gate = net.then("Sigmoid", map, vec![]);
        let other = net.then("Identity", &gate, vec![]);
        net.join("Mul", map, &other);
        gate
    });
    same("sum", &|net, map| {
        let gate = net.then("Sigmoid", map, vec![]);
        let other = net.then("Identity", &gate, vec![]);
        let product = net.join("Mul", map, &other);
        net.join("Add", &product, &gate)
    });
    for pool in ["GlobalAveragePool", "GlobalMaxPool"] {
        same(pool, &|net, map| {
            let pooled = net.then(pool, map, vec![]);
            let pooled = Map { side: 1, ..pooled };
            let gate = net.then("Sigmoid", &pooled, vec![]);
            net.join("Mul", &pooled, &gate)
        });
        same(pool, &|net, map| {
            let rounded = net.rounded(map, 4.0 / 255.0, 100);
            let pooled = net.then(pool, &rounded, vec![]);
            let pooled = Map { side: 1, ..pooled };
            let gate = net.then("Sigmoid", &pooled, vec![]);
            net.join("Mul", &pooled, &gate)
        });
    }
}

#[test]
fn damaged_files_of_rounded_networks_are_survived() {
    for seed in 0..6 {
        let (whole, pixels) = random_network(seed, true);
        let mut random = Random::new(seed);
        for _ in 0..2000 {
            let mut damaged = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(damaged.len());
                damaged[at] = random.bits() as u8;
            }
            let network = Network::load(&damaged, pixels.side, None);
            let _ = network.map(|network| network.run(&pixels));
        }
    }
}

#[test]
fn threads_share_every_layer_and_change_no_bit() {
    for seed in 0..20 {
        let (onnx, pixels) = random_network(seed, seed % 2 == 1);
        let Ok(mut network) = Network::load(&onnx, pixels.side, None) else {
            continue;
        };
        let alone = network.run(&pixels).unwrap();
        network.set_threads(3).unwrap();
        assert_eq!(alone, network.run(&pixels).unwrap(), "network {seed}");
    }
}

#[test]
fn multiply_adds_are_those_of_the_definition() {
    let (mut net, image) = Net::new(1, 16);
    let pixels = net.pixels();
    let map = net.conv(&image, 32, [3, 2, 1]);
    let map = net.conv(&map, 48, [3, 1, 1]);
    let map = net.conv(&map, 0, [3, 1, 1]);
    let output = net.head(&map);
    let network = Network::load(&net.finish(&output), pixels.side, None).unwrap();
    let wanted = 64 * (27 * 32 + 9 * 32 * 48 + 9 * 48) + 9 * 48;
    assert_eq!(network.multiply_adds(), wanted);
}

#[test]
fn channels_and_lengths_beyond_reason_are_left_to_tract() {
    let (mut net, image) = Net::new(1, 8);
    let pixels = net.pixels();
    let mut map = net.conv(&image, 20, [1, 1, 0]);
    for _ in 0..40 {
        map = net.join("Concat", &map.clone(), &map);
        map.channels %= 1 << 20;
    }
    let onnx = net.finish(&map);
    assert!(Network::load(&onnx, pixels.side, None).is_err());

    let (mut net, image) = Net::new(1, 8);
    let map = net.conv(&image, 20, [1, 1, 0]);
    net.graph.initializer.push(pb::TensorProto {
        name: "lengths".to_owned(),
        dims: vec![3],
        data_type: pb::tensor_proto::DataType::Int64 as i32,
        int64_data: vec![i64::MAX; 3],
        ..Default::default()
    });
    let inputs = [&map.name[..], "lengths"];
    let mut split = node("Split", &inputs, "a", vec![int("axis", 1)]);
    split.output.extend(["b".to_owned(), "c".to_owned()]);
    net.graph.node.push(split);
    let part = Map {
        name: "a".to_owned(),
        ..map
    };
    let onnx = net.finish(&part);
    assert!(Network::load(&onnx, pixels.side, None).is_err());
}
