//! From layers to a program: which value lies where, weights in the order of their use, and
//! tables of where windows read.

use std::collections::HashMap;

use super::{Program, Reduced, Step, Task};
use crate::encoder::engine::epilogue::Activation;
use crate::encoder::engine::lanes::{Isa, LANES};
use crate::encoder::engine::lines::Lines;
use crate::encoder::engine::lower::{self, Convolution, IMAGE, Kind, Layer, Lowered, Value};
use crate::encoder::engine::memory::{self, Need};
use crate::encoder::engine::place::Place;
use crate::encoder::engine::point::Combination;
use crate::encoder::engine::product::{Matrix, OUTSIDE, Rows};
use crate::encoder::engine::quantization::Quantization;
use crate::encoder::engine::window;
use crate::encoder::engine::winograd::Form;

/// Something that needs memory while some layers run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Room {
    Value(usize),
    /// The packed image, or transformed squares, of a layer.
    Before(usize),
    /// Products of squares of a layer.
    Between(usize),
}

/// A program that grows layer by layer.
pub(super) struct Building<'a> {
    values: &'a [Value],
    outputs: Vec<usize>,
    isa: Isa,
    /// Values of memory that constants take: zeros, lowest numbers, and each padding.
    constants: usize,
    pub(super) paddings: Vec<u8>,
    rooms: HashMap<Room, usize>,
    len: usize,
    steps: Vec<Step>,
    pub(super) multiply_adds: u64,
    n_layers: usize,
}

/// The value that a value is part of, and the channel at which it begins there.
fn whole(values: &[Value], value: usize) -> (usize, usize) {
    let (mut at, mut first) = (value, 0);
    while let Some((parent, channel)) = values[at].part_of {
        at = parent;
        first += channel;
    }
    (at, first)
}

/// The form in which a convolution is computed through Winograd's transforms, if it is.
fn winograd_form(convolution: &Convolution, input: usize, [from, to]: [&Value; 2]) -> Option<Form> {
    let window = convolution.window;
    let fits = window.kernel == [3, 3] && window.stride == [1, 1] && input != IMAGE;
    let output = [to.shape[0], to.shape[1]];
    let channels = [from.shape[2], to.shape[2]];
    fits.then(|| Form::best(output, channels)).flatten()
}

impl<'a> Building<'a> {
    pub(super) fn new(lowered: &'a Lowered, isa: Isa) -> Self {
        let values = &lowered.values[..];
        let outputs: Vec<usize> = lowered.outputs.iter().map(|output| output.value).collect();
        let widest = values.iter().map(|value| value.shape[2]).max().unwrap_or(0);
        let mut needs: Vec<(Room, Need)> = Vec::new();
        let mut lives: HashMap<usize, [usize; 2]> = Default::default();
        for (at, layer) in lowered.layers.iter().enumerate() {
            let read = layer.inputs.iter().chain(&layer.residual);
            for value in read.chain([&layer.output]) {
                let life = lives.entry(whole(values, *value).0).or_insert([at, at]);
                life[1] = at;
            }
            let [from, to] = [layer.inputs[0], layer.output].map(|value| &values[value]);
            let steps = [at, at];
            let mut need = |room: Room, len: usize| needs.push((room, Need { len, steps }));
            if let Kind::Quantized(convolution) = &layer.kind
                && layer.inputs[0] == IMAGE
            {
                // A pixel takes as many bytes as one value.
                let [height, width] = padded(convolution.window, from.shape);
                need(Room::Before(at), height * width);
            }
            if let Kind::Dense(convolution) = &layer.kind {
                if layer.inputs[0] == IMAGE {
                    let [height, width] = padded(convolution.window, from.shape);
                    need(Room::Before(at), height * width * 3);
                } else if let Some(form) = winograd_form(convolution, layer.inputs[0], [from, to]) {
                    let n = form.n_places() * form.n_squares([to.shape[0], to.shape[1]]);
                    need(Room::Before(at), n * from.shape[2].next_multiple_of(LANES));
                    need(Room::Between(at), n * to.shape[2].next_multiple_of(LANES));
                }
            }
        }
        for value in &outputs {
            if let Some(life) = lives.get_mut(&whole(values, *value).0) {
                life[1] = lowered.layers.len();
            }
        }
        for (value, steps) in lives {
            if value != IMAGE {
                let [height, width, channels] = values[value].shape;
                let len = height * width * channels.next_multiple_of(LANES);
                let len = match values[value].quantization {
                    Some(_) => len.div_ceil(size_of::<f32>()),
                    None => len,
                };
                needs.push((Room::Value(value), Need { len, steps }));
            }
        }
        needs.sort_by_key(|(room, need)| (need.steps, need.len, order(*room)));
        let constants = widest.next_multiple_of(LANES);
        let paddings = paddings(lowered);
        let before = (2 + paddings.len()) * constants;
        let (places, len) = memory::plan(&needs.iter().map(|(_, need)| *need).collect::<Vec<_>>());
        let rooms = needs.iter().zip(places);
        Self {
            values,
            outputs,
            isa,
            constants,
            paddings,
            rooms: rooms.map(|((room, _), at)| (*room, at + before)).collect(),
            len: len + before,
            steps: Vec::new(),
            multiply_adds: 0,
            n_layers: 0,
        }
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// f32 values that a run needs.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn place(&self, value: usize) -> Place {
        let (parent, first) = whole(self.values, value);
        let [height, width, channels] = self.values[value].shape;
        let elements = match self.quantization(value) {
            Some(_) => size_of::<f32>(),
            None => 1,
        };
        Place {
            at: self.rooms[&Room::Value(parent)] * elements + first,
            height,
            width,
            channels,
            stride: self.values[parent].shape[2].next_multiple_of(LANES),
        }
    }

    /// How a value is stored, if not in f32.
    pub(super) fn quantization(&self, value: usize) -> Option<Quantization> {
        self.values[value].quantization
    }

    /// Where the bytes of a padding begin, in bytes.
    pub(super) fn padding(&self, byte: u8) -> usize {
        let at = self.paddings.iter().position(|padding| *padding == byte);
        at.map_or(0, |at| (2 + at) * self.constants * size_of::<f32>())
    }

    pub(super) fn layer(&mut self, layer: &Layer) {
        let at = self.n_layers;
        self.n_layers += 1;
        let output = self.place(layer.output);
        let n_pixels = output.n_pixels();
        let n_blocks = output.channels.div_ceil(LANES);
        let input = |this: &Self, at: usize| this.place(layer.inputs[at]);
        let stored = self.quantization(layer.inputs[0]);
        let (task, n_parts) = match &layer.kind {
            Kind::Dense(convolution) => return self.dense(at, layer, convolution),
            Kind::Quantized(convolution) => self.quantized(at, layer, convolution),
            Kind::Quantize | Kind::Dequantize => self.converted(layer),
            Kind::MaxPool(window) if stored.is_some() => self.byte_pool(layer, *window),
            Kind::GlobalMean if stored.is_some() => self.byte_mean(layer),
            Kind::Depthwise(convolution) => {
                self.multiply_adds += (n_pixels * convolution.weights.len()) as u64;
                let reduction = depthwise(convolution, output.channels);
                slide(convolution.window, input(self, 0), output, |_| reduction)
            }
            Kind::MaxPool(window) => slide(*window, input(self, 0), output, |_| Reduced::Max),
            Kind::AveragePool {
                window,
                with_padding,
            } => slide(*window, input(self, 0), output, |rows| Reduced::Mean {
                divisors: divisors(rows, *with_padding),
            }),
            Kind::GlobalMean | Kind::GlobalMax => {
                let task = Task::Global {
                    input: input(self, 0),
                    max: matches!(layer.kind, Kind::GlobalMax),
                    output,
                };
                (task, n_blocks)
            }
            Kind::Sum | Kind::Scale | Kind::Activation => {
                let combination = match layer.kind {
                    Kind::Sum => Combination::Sum,
                    Kind::Scale => Combination::Scale,
                    _ => Combination::First,
                };
                let last = layer.inputs.len() - 1;
                let task = Task::Pointwise {
                    combination,
                    inputs: [input(self, 0), input(self, last)],
                    output,
                };
                (task, n_pixels)
            }
            Kind::Channels(sources) => {
                let place = |&(at, channel): &(usize, usize)| {
                    let from = input(self, at);
                    (from.at + channel, from.stride)
                };
                let sources = sources.iter();
                let task = Task::Channels {
                    sources: sources.map(place).collect(),
                    output,
                };
                (task, n_pixels)
            }
            Kind::Normalize { smallest } => {
                let task = Task::Normalize {
                    input: input(self, 0),
                    smallest: *smallest,
                    output,
                };
                (task, 1)
            }
        };
        self.push(layer, task, n_parts);
    }

    /// A step that ends a layer.
    fn push(&mut self, layer: &Layer, task: Task, n_parts: usize) {
        let residual = layer
            .residual
            .map(|value| (self.place(value), self.quantization(value)));
        self.steps.push(Step {
            name: layer.name.clone(),
            activation: layer.activation,
            residual,
            task,
            n_parts,
        });
    }

    /// Height and width of the image with the padding of a window.
    pub(super) fn padded_image(&self, window: lower::Window) -> [usize; 2] {
        padded(window, self.values[IMAGE].shape)
    }

    /// Where what is prepared for a layer lies.
    pub(super) fn room_before(&self, layer: usize) -> usize {
        self.rooms[&Room::Before(layer)]
    }

    /// A step before a layer's last.
    pub(super) fn prepare(&mut self, layer: &Layer, task: Task, n_parts: usize) {
        self.steps.push(Step {
            name: layer.name.clone(),
            activation: Activation::None,
            residual: None,
            task,
            n_parts,
        });
    }

    fn dense(&mut self, at: usize, layer: &Layer, convolution: &Convolution) {
        let output = self.place(layer.output);
        let [_, _, inputs] = self.values[layer.inputs[0]].shape;
        let window = convolution.window;
        let n_taps = window.kernel[0] * window.kernel[1];
        let n_pixels = output.n_pixels();
        self.multiply_adds += (n_pixels * convolution.weights.len()) as u64;
        let bias = lines(&convolution.bias);
        if layer.inputs[0] == IMAGE {
            return self.first(at, layer, convolution, bias);
        }
        let input = self.place(layer.inputs[0]);
        let ends = [layer.inputs[0], layer.output].map(|value| &self.values[value]);
        if let Some(form) = winograd_form(convolution, layer.inputs[0], ends) {
            return self.winograd(at, form, layer, convolution, bias);
        }
        let weights = &convolution.weights;
        let extents = [n_taps * inputs, output.channels];
        let matrix = Matrix::pack(self.isa, n_pixels, extents, |k, first, columns| {
            let (tap, channel) = (k / inputs, k % inputs);
            let of_first = (first * inputs + channel) * n_taps + tap;
            let stored = weights[of_first..].iter().step_by(inputs * n_taps);
            for (column, weight) in columns.iter_mut().zip(stored) {
                *column = *weight;
            }
        });
        let n_parts = matrix.n_parts(n_pixels);
        let task = Task::Product {
            input: input.at,
            rows: window.rows(input, output),
            channels: inputs,
            matrix,
            bias,
            output,
            quantizer: None,
        };
        self.push(layer, task, n_parts);
    }

    /// A convolution over the image: a row of its kernel is one tap, whose colors and
    /// columns lie one after the other.
    fn first(&mut self, at: usize, layer: &Layer, convolution: &Convolution, bias: Lines) {
        let output = self.place(layer.output);
        let window = convolution.window;
        let [rows, columns] = window.kernel;
        let [height, width] = self.padded_image(window);
        let image = self.room_before(at);
        let [top, left, ..] = window.pads;
        let task = Task::Image {
            before: [top, left],
            width,
            at: image,
            quantizer: None,
        };
        self.prepare(layer, task, height);
        let mut offsets = Vec::with_capacity(rows * output.n_pixels());
        for tap in 0..rows {
            for y in 0..output.height {
                let row = y * window.stride[0] + tap;
                let across = (0..output.width).map(|x| (row * width + x * window.stride[1]) * 3);
                offsets.extend(across.map(|offset| offset as u32));
            }
        }
        let channels = columns * 3;
        let weights = &convolution.weights;
        let extents = [rows * channels, output.channels];
        let matrix = Matrix::pack(self.isa, output.n_pixels(), extents, |k, first, into| {
            let (row, across, color) = (k / channels, k % channels / 3, k % 3);
            let of_first = ((first * 3 + color) * rows + row) * columns + across;
            let stored = weights[of_first..].iter().step_by(3 * rows * columns);
            for (column, weight) in into.iter_mut().zip(stored) {
                *column = *weight;
            }
        });
        let n_parts = matrix.n_parts(output.n_pixels());
        let task = Task::Product {
            input: image,
            rows: Rows::new(offsets, rows),
            channels,
            matrix,
            bias,
            output,
            quantizer: self.quantizer(layer),
        };
        self.push(layer, task, n_parts);
    }

    fn winograd(
        &mut self,
        at: usize,
        form: Form,
        layer: &Layer,
        convolution: &Convolution,
        bias: Lines,
    ) {
        let [input, output] = [layer.inputs[0], layer.output].map(|value| self.place(value));
        let extents = [output.height, output.width];
        let n_squares = form.n_squares(extents);
        let [top, left, ..] = convolution.window.pads;
        let squares = form.squares(input, [top, left], extents);
        let [from, to] = [Room::Before(at), Room::Between(at)].map(|room| self.rooms[&room]);
        let task = Task::Scatter {
            form,
            input,
            squares,
            at: from,
        };
        self.prepare(layer, task, n_squares);
        let matrices = transformed(self.isa, form, n_squares, convolution, input.channels);
        let n_parts = form.n_places() * matrices[0].n_parts(n_squares);
        let stride = input.channels.next_multiple_of(LANES);
        let task = Task::Products {
            from,
            rows: Rows::even(n_squares, stride),
            matrices,
            at: to,
        };
        self.prepare(layer, task, n_parts);
        let task = Task::Gather {
            form,
            from: to,
            bias,
            output,
        };
        self.push(layer, task, n_squares);
    }

    pub(super) fn finish(self, side: usize) -> Program {
        let outputs = self
            .outputs
            .iter()
            .map(|value| self.place(*value))
            .collect();
        Program {
            isa: self.isa,
            side,
            len: self.len,
            constants: self.constants,
            paddings: self.paddings,
            outputs,
            multiply_adds: self.multiply_adds,
            steps: self.steps,
        }
    }
}

/// Bytes other than 0 that stand for 0 where windows look beyond a quantized map.
fn paddings(lowered: &Lowered) -> Vec<u8> {
    let mut paddings: Vec<u8> = lowered
        .layers
        .iter()
        .filter_map(|layer| match &layer.kind {
            Kind::Quantized(convolution) => Some(convolution.input.zero),
            _ => None,
        })
        .filter(|zero| *zero != 0)
        .collect();
    paddings.sort_unstable();
    paddings.dedup();
    paddings
}

/// An order among needs of the same steps and size, so that plans repeat.
fn order(room: Room) -> (usize, usize) {
    match room {
        Room::Value(value) => (0, value),
        Room::Before(layer) => (1, layer),
        Room::Between(layer) => (2, layer),
    }
}

/// Values filled up to whole lanes.
fn lines(values: &[f32]) -> Lines {
    let mut lines = Lines::zeros(values.len());
    lines.as_mut_slice()[..values.len()].copy_from_slice(values);
    lines
}

/// Height and width of the image with the padding of a window.
fn padded(window: lower::Window, [height, width, _]: [usize; 3]) -> [usize; 2] {
    let [top, left, bottom, right] = window.pads;
    [top + height + bottom, left + width + right]
}

impl lower::Window {
    /// Where its taps lie for every output pixel.
    pub(super) fn rows(self, input: Place, output: Place) -> Rows {
        let [rows, columns] = self.kernel;
        let [top, left, ..] = self.pads;
        let mut offsets = Vec::with_capacity(rows * columns * output.n_pixels());
        for (ky, kx) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
            for y in 0..output.height {
                let y = (y * self.stride[0] + ky).checked_sub(top);
                for x in 0..output.width {
                    let x = (x * self.stride[1] + kx).checked_sub(left);
                    offsets.push(match (y, x) {
                        (Some(y), Some(x)) if y < input.height && x < input.width => {
                            ((y * input.width + x) * input.stride) as u32
                        }
                        _ => OUTSIDE,
                    });
                }
            }
        }
        Rows::new(offsets, rows * columns)
    }
}

/// A window over a map, and its number of parts.
fn slide(
    window: lower::Window,
    input: Place,
    output: Place,
    reduction: impl FnOnce(&Rows) -> Reduced,
) -> (Task, usize) {
    let rows = window.rows(input, output);
    let groups = window::groups(&rows, output.width);
    let n_parts = groups.len();
    let task = Task::Window {
        input,
        reduction: reduction(&rows),
        rows,
        groups,
        output,
    };
    (task, n_parts)
}

/// Weights with the taps first.
fn depthwise(convolution: &Convolution, channels: usize) -> Reduced {
    let n_taps = convolution.weights.len() / channels;
    let width = channels.next_multiple_of(LANES);
    let mut taps = Lines::zeros(n_taps * width);
    for (tap, row) in taps.as_mut_slice().chunks_exact_mut(width).enumerate() {
        for (channel, weight) in row[..channels].iter_mut().enumerate() {
            *weight = convolution.weights[channel * n_taps + tap];
        }
    }
    Reduced::Weighted {
        taps,
        bias: lines(&convolution.bias),
    }
}

/// What sums over windows are divided by.
fn divisors(rows: &Rows, with_padding: bool) -> Vec<f32> {
    let taps = |row: usize| {
        let taps = (0..rows.n_taps()).map(move |tap| rows.offset(tap, row));
        taps.filter(|offset| with_padding || *offset != OUTSIDE)
            .count()
    };
    (0..rows.n_rows()).map(|row| taps(row) as f32).collect()
}

/// The kernels of a 3x3 convolution, transformed: a matrix a place.
fn transformed(
    isa: Isa,
    form: Form,
    n_squares: usize,
    convolution: &Convolution,
    inputs: usize,
) -> Vec<Matrix> {
    let kernels = convolution.weights.as_chunks::<9>().0;
    let outputs = kernels.len() / inputs;
    let width = outputs.next_multiple_of(LANES);
    let mut places = vec![0.0; form.n_places() * inputs * width];
    for first in (0..outputs).step_by(LANES) {
        for input in 0..inputs {
            let mut beside = [[0.0; LANES]; 9];
            for lane in 0..LANES.min(outputs - first) {
                for (tap, weight) in kernels[(first + lane) * inputs + input].iter().enumerate() {
                    beside[tap][lane] = *weight;
                }
            }
            form.kernels(&beside, |place, values| {
                let at = (place * inputs + input) * width + first;
                places[at..at + LANES].copy_from_slice(&values);
            });
        }
    }
    let matrix = |values: &[f32]| {
        Matrix::pack(isa, n_squares, [inputs, outputs], |k, first, columns| {
            columns.copy_from_slice(&values[k * width + first..][..columns.len()]);
        })
    };
    places.chunks_exact(inputs * width).map(matrix).collect()
}
