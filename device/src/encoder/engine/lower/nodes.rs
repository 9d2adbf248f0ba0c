//! What each operator becomes.

use tract_onnx::pb;

use super::super::epilogue::Activation;
use super::super::lanes::LANES;
use super::super::window::MAX_TAPS;
use super::attributes::{float, int, ints, window};
use super::{Bound, Convolution, IMAGE, Kind, Lowering, MAX_CHANNELS, MAX_VALUES, Window};

impl<'p> Lowering<'p> {
    /// Takes one node; `None` leaves it to tract.
    pub(super) fn node(&mut self, at: usize, node: &'p pb::NodeProto) -> Option<()> {
        let [output] = &node.output[..] else {
            return self.split(node);
        };
        let bound = match node.op_type.as_str() {
            "Conv" => self.conv(node)?,
            "Gemm" => self.gemm(node)?,
            "MaxPool" | "AveragePool" => self.pool(node)?,
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node)?,
            "ReduceMean" if matches!(ints(node, "axes"), [2, 3] | [-2, -1]) => {
                if int(node, "keepdims", 1) == 0 {
                    self.flat.insert(output);
                }
                self.global_pool(node)?
            }
            "Add" => self.add(node)?,
            "Mul" => self.multiply(node)?,
            "Relu" => self.activation(node, Activation::Relu)?,
            "Sigmoid" => self.activation(node, Activation::Sigmoid)?,
            "HardSwish" => {
                let (slope, offset) = (1.0 / 6.0, 0.5);
                self.activation(node, Activation::HardSwish { slope, offset })?
            }
            "HardSigmoid" => {
                let (slope, offset) = (float(node, "alpha", 0.2), float(node, "beta", 0.5));
                self.activation(node, Activation::HardSigmoid { slope, offset })?
            }
            "Clip" => self.clip(node)?,
            "Flatten" | "Identity" | "Dropout" => self.same(node)?,
            "Concat" => self.concat(node)?,
            "Slice" => self.slice(node)?,
            "QuantizeLinear" => self.quantize(node)?,
            "DequantizeLinear" => self.dequantize(node)?,
            "Reshape" => return self.shuffle(at, node),
            "ReduceL2" => return self.normalize(node),
            _ => return None,
        };
        self.bound.insert(output, bound);
        let reads_flat = node
            .input
            .first()
            .is_some_and(|input| self.flat.contains(input.as_str()));
        if reads_flat || matches!(node.op_type.as_str(), "Flatten" | "Gemm") {
            self.flat.insert(output);
        }
        Some(())
    }

    fn shape(&self, value: usize) -> [usize; 3] {
        self.values[value].shape
    }

    /// The layer that gives a value which only one node reads, if it may still be changed.
    fn fusible(&mut self, name: &str, value: usize) -> Option<usize> {
        let last = self
            .layers
            .iter()
            .rposition(|layer| layer.output == value)?;
        let layer = &self.layers[last];
        let free = layer.activation == Activation::None
            && layer.kind.ends_in_activation()
            && self.values[value].quantization.is_none();
        let own = self.is_read_once(name) && !self.shared.contains(&value);
        (free && own).then_some(last)
    }

    fn conv(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        if let Some(bound) = self.quantized_conv(node) {
            return Some(bound);
        }
        let input = self.value(node.input.first()?)?;
        let input = self.dequantized(input, &node.name)?;
        let stored = node.input.get(1)?;
        let [outputs, per_group, height, width] = self.constants.shape(stored)?[..] else {
            return None;
        };
        let window = window(node, Some([height, width]))?;
        let [rows, columns, channels] = self.shape(input);
        let [rows, columns] = window.output([rows, columns])?;
        let groups = int(node, "group", 1);
        let depthwise = groups != 1;
        let fits = if depthwise {
            groups == channels as i64 && per_group == 1 && outputs == channels && input != IMAGE
        } else {
            per_group == channels
        };
        let n_taps = height.checked_mul(width)?;
        if !fits || (depthwise && n_taps > MAX_TAPS) {
            return None;
        }
        self.index(rows.checked_mul(columns)?, n_taps)?;
        self.take_weights(&[outputs, per_group, n_taps])?;
        let weights = self.constants.floats(stored)?;
        let bias = self.bias(node.input.get(2), outputs)?;
        let convolution = Convolution {
            window,
            weights: weights.values,
            bias,
        };
        let kind = match depthwise {
            true => Kind::Depthwise(convolution),
            false => Kind::Dense(convolution),
        };
        let shape = [rows, columns, outputs];
        self.push(&node.name, kind, vec![input], shape)
            .map(Bound::Value)
    }

    /// Counts the entries of a layer's table of taps; all tables together are bounded.
    pub(super) fn index(&mut self, n_rows: usize, n_taps: usize) -> Option<()> {
        let entries = n_rows.checked_mul(n_taps)?;
        self.index_left = self.index_left.checked_sub(entries)?;
        Some(())
    }

    /// Counts the weights of a layer, before they are read; those of all together are bounded.
    pub(super) fn take_weights(&mut self, extents: &[usize]) -> Option<()> {
        let product = |n: usize, extent: &usize| n.checked_mul(*extent);
        let n_weights = extents.iter().try_fold(1, product)?;
        self.weights_left = self.weights_left.checked_sub(n_weights)?;
        Some(())
    }

    pub(super) fn bias(&self, name: Option<&String>, n: usize) -> Option<Vec<f32>> {
        match name.filter(|name| !name.is_empty()) {
            None => Some(vec![0.0; n]),
            Some(name) => {
                let is_whole = self.constants.shape(name)?.iter().product::<usize>() == n;
                Some(is_whole.then(|| self.constants.floats(name))??.values)
            }
        }
    }

    /// A product of a vector with a matrix: a convolution over one pixel.
    fn gemm(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let input = self.map(node.input.first()?, &node.name)?;
        let plain = float(node, "alpha", 1.0) == 1.0
            && float(node, "beta", 1.0) == 1.0
            && int(node, "transA", 0) == 0;
        let stored = node.input.get(1)?;
        let [first, second] = self.constants.shape(stored)?[..] else {
            return None;
        };
        let transposed = int(node, "transB", 0) != 0;
        let [inputs, outputs] = if transposed {
            [second, first]
        } else {
            [first, second]
        };
        if !plain || self.shape(input) != [1, 1, inputs] {
            return None;
        }
        self.take_weights(&[first, second])?;
        let matrix = self.constants.floats(stored)?;
        let weights = if transposed {
            matrix.values
        } else {
            let column = |o: usize| matrix.values[o..].iter().step_by(outputs).copied();
            (0..outputs).flat_map(column).collect()
        };
        let convolution = Convolution {
            window: POINT,
            weights,
            bias: self.bias(node.input.get(2), outputs)?,
        };
        let (kind, shape) = (Kind::Dense(convolution), [1, 1, outputs]);
        self.push(&node.name, kind, vec![input], shape)
            .map(Bound::Value)
    }

    fn pool(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let name = node.input.first()?;
        let is_max = node.op_type == "MaxPool";
        let input = match is_max {
            true => self.stored_map(name)?,
            false => self.map(name, &node.name)?,
        };
        let window = window(node, None)?;
        let [height, width, channels] = self.shape(input);
        let [rows, columns] = window.output([height, width])?;
        let [top, left, bottom, right] = window.pads;
        let [of_rows, of_columns] = window.kernel;
        // A window wholly in the padding would have no maximum and no mean.
        let sees = top.max(bottom) < of_rows && left.max(right) < of_columns;
        if !sees || of_rows * of_columns > MAX_TAPS {
            return None;
        }
        self.index(rows.checked_mul(columns)?, of_rows * of_columns)?;
        let kind = match is_max {
            true => Kind::MaxPool(window),
            false => Kind::AveragePool {
                window,
                with_padding: int(node, "count_include_pad", 0) != 0,
            },
        };
        let shape = [rows, columns, channels];
        let output = self.push(&node.name, kind, vec![input], shape)?;
        // The largest of some bytes is the byte of the largest.
        self.values[output].quantization = self.values[input].quantization;
        Some(Bound::Value(output))
    }

    fn global_pool(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let name = node.input.first()?;
        let mut input = self.stored_map(name)?;
        let kind = match node.op_type.as_str() {
            "GlobalMaxPool" => Kind::GlobalMax,
            _ => Kind::GlobalMean,
        };
        let [height, width, _] = self.shape(input);
        if matches!(kind, Kind::GlobalMax) || height * width > MAX_SUMMED {
            input = self.dequantized(input, &node.name)?;
        }
        let shape = [1, 1, self.shape(input)[2]];
        self.push(&node.name, kind, vec![input], shape)
            .map(Bound::Value)
    }

    fn add(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let [first, second] = &node.input[..] else {
            return None;
        };
        let (a, b) = (self.stored_map(first)?, self.stored_map(second)?);
        if self.shape(a) != self.shape(b) {
            return None;
        }
        for (name, value, other) in [(second, b, a), (first, a, b)] {
            let Some(layer) = self.fusible(name, value) else {
                continue;
            };
            let before = self.layers[..layer].iter();
            let exists = before.rev().any(|earlier| earlier.output == other);
            let layer = &mut self.layers[layer];
            let adds = match layer.kind {
                Kind::Dense(_) | Kind::Depthwise(_) => self.values[other].quantization.is_none(),
                Kind::Quantized(_) => true,
                _ => false,
            };
            if exists && adds && layer.residual.is_none() && value != other {
                layer.residual = Some(other);
                return Some(Bound::Value(value));
            }
        }
        let (a, b) = (
            self.dequantized(a, &node.name)?,
            self.dequantized(b, &node.name)?,
        );
        let shape = self.shape(a);
        self.push(&node.name, Kind::Sum, vec![a, b], shape)
            .map(Bound::Value)
    }

    /// x times its own gate, or a map times a vector.
    fn multiply(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let [first, second] = &node.input[..] else {
            return None;
        };
        let (a, b) = (self.map(first, &node.name)?, self.map(second, &node.name)?);
        for (x, x_name, gate, gate_name) in [(a, first, b, second), (b, second, a, first)] {
            if let Some(bound) = self.gated([x, gate], [x_name, gate_name]) {
                return Some(bound);
            }
            let [height, width, channels] = self.shape(x);
            if self.shape(gate) == [1, 1, channels] {
                let (kind, shape) = (Kind::Scale, [height, width, channels]);
                let inputs = vec![x, gate];
                return self.push(&node.name, kind, inputs, shape).map(Bound::Value);
            }
        }
        None
    }

    fn gated(&mut self, [x, gate]: [usize; 2], names: [&str; 2]) -> Option<Bound> {
        let layer = self.layers.last()?;
        let own = layer.output == gate && layer.inputs == [x] && !self.shared.contains(&gate);
        if !own || !matches!(layer.kind, Kind::Activation) || !self.is_read_once(names[1]) {
            return None;
        }
        let activation = match layer.activation {
            Activation::HardSigmoid { slope, offset } => Activation::HardSwish { slope, offset },
            Activation::Sigmoid => Activation::Silu,
            _ => return None,
        };
        let source = self.layers.iter().rposition(|layer| layer.output == x);
        let readers = self.consumers.get(names[0]).map_or(0, Vec::len);
        if let Some(source) = source
            && readers == 2
            && !self.shared.contains(&x)
            && self.layers[source].activation == Activation::None
            && self.layers[source].kind.ends_in_activation()
        {
            self.layers.pop();
            self.layers[source].activation = activation;
            return Some(Bound::Value(x));
        }
        self.layers.last_mut()?.activation = activation;
        Some(Bound::Value(gate))
    }

    fn activation(&mut self, node: &pb::NodeProto, activation: Activation) -> Option<Bound> {
        let name = node.input.first()?;
        let input = self.map(name, &node.name)?;
        if let Some(layer) = self.fusible(name, input) {
            self.layers[layer].activation = activation;
            return Some(Bound::Value(input));
        }
        let shape = self.shape(input);
        let output = self.push(&node.name, Kind::Activation, vec![input], shape)?;
        self.layers.last_mut()?.activation = activation;
        Some(Bound::Value(output))
    }

    fn clip(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let bound = |at: usize| match node.input.get(at).filter(|name| !name.is_empty()) {
            None => Some(None),
            Some(name) => self.constants.number(name).map(Some),
        };
        let [low, high] = [bound(1)??, bound(2)??];
        self.activation(node, Activation::Clip { low, high })
    }

    /// Nodes that change the shape of a vector, or nothing.
    fn same(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let name = node.input.first()?;
        let bound = self.bound.get(name.as_str())?.clone();
        if node.op_type == "Flatten" {
            let Bound::Value(value) = bound else {
                return None;
            };
            let [1, 1, _] = self.shape(value) else {
                return None;
            };
            if int(node, "axis", 1) != 1 {
                return None;
            }
        }
        let readers = self.consumers.get(name.as_str()).map_or(0, Vec::len);
        if let (Bound::Value(value), true) = (&bound, readers > 1) {
            // Two names of one value: what reads it under one must not change it.
            self.shared.insert(*value);
        }
        Some(bound)
    }

    fn concat(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        if int(node, "axis", 0) != 1 {
            return None;
        }
        let pieces: Vec<Bound> = node
            .input
            .iter()
            .map(|name| self.bound.get(name.as_str()).cloned())
            .collect::<Option<_>>()?;
        if let Some(whole) = self.beside_each_other(&pieces) {
            return Some(Bound::Value(whole));
        }
        let mut channels = Vec::new();
        for piece in pieces {
            channels.extend(self.channels_of(piece, &node.name)?);
            if channels.len() > MAX_CHANNELS {
                return None;
            }
        }
        let map = |value: usize| [self.shape(value)[0], self.shape(value)[1]];
        let first = map(channels.first()?.0);
        let alike = channels.iter().all(|(value, _)| map(*value) == first);
        alike.then_some(Bound::Channels(channels))
    }

    /// A value whose pieces are computed where they belong in it.
    fn beside_each_other(&mut self, pieces: &[Bound]) -> Option<usize> {
        let mut firsts = Vec::new();
        let mut at = 0;
        for piece in pieces {
            let Bound::Value(value) = *piece else {
                return None;
            };
            let quantization = self.values[value].quantization;
            let free = value != IMAGE
                && self.values[value].part_of.is_none()
                && firsts.iter().all(|(other, _): &(usize, usize)| {
                    self.values[*other].quantization == quantization
                })
                && firsts.iter().all(|(other, _)| *other != value);
            if !free || at % LANES != 0 {
                return None;
            }
            firsts.push((value, at));
            at += self.shape(value)[2];
        }
        let [height, width, _] = self.shape(firsts.first()?.0);
        let alike = |value: usize| self.shape(value)[..2] == [height, width];
        if !firsts.iter().all(|(value, _)| alike(*value)) || height * width * at > MAX_VALUES {
            return None;
        }
        let whole = self.values.len();
        let quantization = self.values[firsts.first()?.0].quantization;
        self.values.push(super::Value {
            shape: [height, width, at],
            part_of: None,
            quantization,
        });
        for (value, first) in firsts {
            self.values[value].part_of = Some((whole, first));
        }
        Some(whole)
    }

    /// The channels of a map in f32, one by one.
    fn channels_of(&mut self, bound: Bound, reader: &str) -> Option<Vec<(usize, usize)>> {
        match bound {
            Bound::Value(IMAGE) | Bound::Codes(_) => None,
            Bound::ImageCodes(_) | Bound::RoundedImage(_) => None,
            Bound::Value(value) => {
                let value = self.dequantized(value, reader)?;
                Some((0..self.shape(value)[2]).map(|at| (value, at)).collect())
            }
            Bound::Channels(channels) => Some(channels),
        }
    }

    /// Some channels of a map.
    fn slice(&mut self, node: &'p pb::NodeProto) -> Option<Bound> {
        let input = |at: usize| self.constants.integers(node.input.get(at)?);
        let (starts, ends, axes) = (input(1)?, input(2)?, input(3)?);
        if (&axes[..], node.input.len() > 4 && input(4)? != [1]) != (&[1], false) {
            return None;
        }
        let channels =
            self.channels_of(self.bound.get(node.input[0].as_str())?.clone(), &node.name)?;
        let at = |value: i64| usize::try_from(value).ok().map(|at| at.min(channels.len()));
        let range = at(*starts.first()?)?..at(*ends.first()?)?;
        Some(Bound::Channels(channels.get(range)?.to_vec()))
    }

    /// All channels of a map, in parts.
    fn split(&mut self, node: &'p pb::NodeProto) -> Option<()> {
        if node.op_type != "Split" || int(node, "axis", 0) != 1 {
            return None;
        }
        let channels =
            self.channels_of(self.bound.get(node.input[0].as_str())?.clone(), &node.name)?;
        let n_outputs = node.output.len();
        let lengths = match node.input.get(1) {
            Some(name) => self.constants.integers(name)?,
            None => vec![(channels.len() / n_outputs.max(1)) as i64; n_outputs],
        };
        let lengths: Vec<usize> = lengths
            .iter()
            .map(|len| usize::try_from(*len).ok())
            .collect::<Option<_>>()?;
        let sum = { lengths.iter() }.try_fold(0_usize, |sum, len| sum.checked_add(*len));
        if lengths.len() != n_outputs || sum != Some(channels.len()) {
            return None;
        }
        let mut rest = &channels[..];
        for (output, len) in node.output.iter().zip(lengths) {
            let (part, after) = rest.split_at(len);
            rest = after;
            self.bound.insert(output, Bound::Channels(part.to_vec()));
        }
        Some(())
    }

    /// Reshape, Transpose, Reshape that deal channels out like cards.
    fn shuffle(&mut self, at: usize, node: &'p pb::NodeProto) -> Option<()> {
        let channels =
            self.channels_of(self.bound.get(node.input[0].as_str())?.clone(), &node.name)?;
        let [height, width, _] = self.shape(channels.first()?.0);
        let table = self.constants.integers(node.input.get(1)?)?;
        let [1, groups, each, ref pixels @ ..] = table[..] else {
            return None;
        };
        let (transposed_at, transpose) = self.only_consumer(&node.output[0])?;
        let (last_at, last) = self.only_consumer(transpose.output.first()?)?;
        let (groups, each) = (usize::try_from(groups).ok()?, usize::try_from(each).ok()?);
        let whole = self.constants.integers(last.input.get(1)?)?;
        let map = [height as i64, width as i64];
        let order = [0, 2, 1, 3, 4];
        let fits = transpose.op_type == "Transpose"
            && last.op_type == "Reshape"
            && (*pixels == map || *pixels == [map[0] * map[1]])
            && ints(transpose, "perm") == &order[..table.len()]
            && groups.checked_mul(each) == Some(channels.len())
            && whole == [1, channels.len() as i64, map[0], map[1]];
        if !fits {
            return None;
        }
        let dealt = (0..channels.len()).map(|at| channels[at % groups * each + at / groups]);
        let dealt = dealt.collect();
        self.bound
            .insert(last.output.first()?, Bound::Channels(dealt));
        for at in [at, transposed_at, last_at] {
            self.done[at] = true;
        }
        Some(())
    }

    /// x / max(|x|, a constant), as three nodes.
    fn normalize(&mut self, node: &'p pb::NodeProto) -> Option<()> {
        let name = node.input.first()?;
        let input = self.map(name, &node.name)?;
        let (max_at, max) = self.only_consumer(&node.output[0])?;
        let (divide_at, divide) = self.only_consumer(max.output.first()?)?;
        let smallest = max.input.iter().find(|name| **name != node.output[0])?;
        let smallest = self.constants.number(smallest)?;
        let fits = max.op_type == "Max"
            && max.input.len() == 2
            && divide.op_type == "Div"
            && divide.input == [name.clone(), max.output[0].clone()]
            && matches!(ints(node, "axes"), [1] | [-1])
            && int(node, "keepdims", 1) == 1;
        let [1, 1, n] = self.shape(input) else {
            return None;
        };
        if !fits {
            return None;
        }
        let (kind, shape) = (Kind::Normalize { smallest }, [1, 1, n]);
        let output = self.push(&divide.name, kind, vec![input], shape)?;
        self.bound
            .insert(divide.output.first()?, Bound::Value(output));
        self.flat.insert(divide.output.first()?);
        self.done[max_at] = true;
        self.done[divide_at] = true;
        Some(())
    }
}

/// Most bytes whose sum f32 holds exactly.
const MAX_SUMMED: usize = 1 << 16;

/// The window of a single pixel.
const POINT: Window = Window {
    kernel: [1, 1],
    stride: [1, 1],
    pads: [0; 4],
};
