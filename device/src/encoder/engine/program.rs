//! Layers with their weights packed and their values placed: what is run.

use super::epilogue::Activation;
use super::lanes::{Isa, LANES};
use super::lines::Lines;
use super::lower::{Convolution, IMAGE, Kind, Layer, Lowered, Value};
use super::memory::{self, Need};
use super::place::Place;
use super::point::{Channels, Combination, Global, Image, Normalize, Pointwise};
use super::product::{Matrix, OUTSIDE, Product, Rows};
use super::window::{self, Group, Reduction, Window};
use super::winograd::{Form, Gather, Scatter};

/// A network as steps over one piece of memory.
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    isa: Isa,
    side: usize,
    /// f32 values that a run needs.
    len: usize,
    /// Values of the zeros at the start of the memory, and of the lowest numbers after them.
    constants: usize,
    /// Places of what is read outside.
    pub(super) outputs: Vec<Place>,
    pub(super) multiply_adds: u64,
}

/// A part of a layer whose parts can be computed side by side, once the step before is done.
pub(super) struct Step {
    /// The layer's name.
    pub(super) name: String,
    pub(super) activation: Activation,
    residual: Option<Place>,
    task: Task,
    n_parts: usize,
}

enum Task {
    Image {
        before: [usize; 2],
        width: usize,
        at: usize,
    },
    Product {
        input: usize,
        rows: Rows,
        channels: usize,
        matrix: Matrix,
        bias: Lines,
        output: Place,
    },
    Scatter {
        form: Form,
        input: Place,
        squares: Rows,
        at: usize,
    },
    Products {
        from: usize,
        rows: Rows,
        matrices: Vec<Matrix>,
        at: usize,
    },
    Gather {
        form: Form,
        from: usize,
        bias: Lines,
        output: Place,
    },
    Window {
        input: Place,
        rows: Rows,
        groups: Vec<Group>,
        reduction: Reduced,
        output: Place,
    },
    Pointwise {
        combination: Combination,
        inputs: [Place; 2],
        output: Place,
    },
    Global {
        input: Place,
        max: bool,
        output: Place,
    },
    Channels {
        sources: Vec<(Place, usize)>,
        output: Place,
    },
    Normalize {
        input: Place,
        smallest: f32,
        output: Place,
    },
}

enum Reduced {
    Weighted { taps: Lines, bias: Lines },
    Max,
    Mean { divisors: Vec<f32> },
}

impl Step {
    /// What it computes, in words.
    pub(super) fn kind(&self) -> String {
        let kind = match &self.task {
            Task::Image { .. } => "image",
            Task::Product { rows, .. } if rows.n_rows() == 1 => "linear",
            Task::Product { rows, .. } if rows.n_taps() == 1 => "pointwise convolution",
            Task::Product { .. } => "convolution",
            Task::Scatter { .. } => "Winograd input",
            Task::Products { .. } => "Winograd products",
            Task::Gather { .. } => "Winograd output",
            Task::Window { reduction, .. } => match reduction {
                Reduced::Weighted { .. } => "depthwise convolution",
                Reduced::Max => "maximum pool",
                Reduced::Mean { .. } => "mean pool",
            },
            Task::Pointwise { combination, .. } => match combination {
                Combination::Sum => "sum",
                Combination::Scale => "scale",
                Combination::First => "activation",
            },
            Task::Global { max: true, .. } => "global maximum",
            Task::Global { .. } => "global mean",
            Task::Channels { .. } => "channels",
            Task::Normalize { .. } => "normalize",
        };
        let sum = if self.residual.is_some() {
            " + sum"
        } else {
            ""
        };
        format!("{kind}{sum}{}", self.activation.suffix())
    }

    pub(super) fn n_parts(&self) -> usize {
        self.n_parts
    }
}

/// The memory of a run.
pub(super) struct Memory(Lines);

impl Program {
    pub(super) fn new(lowered: &Lowered, side: usize, isa: Isa) -> Self {
        let mut building = Building::new(lowered, isa);
        for layer in &lowered.layers {
            building.layer(layer);
        }
        building.finish(side)
    }

    pub(super) fn memory(&self) -> Memory {
        let mut lines = Lines::zeros(self.len);
        lines.as_mut_slice()[self.constants..2 * self.constants].fill(f32::NEG_INFINITY);
        Memory(lines)
    }

    /// f32 values that a run needs beside weights.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What a run left at one of its outputs' places, channels first.
    pub(super) fn output(&self, memory: &Memory, at: usize) -> Vec<f32> {
        let place = self.outputs[at];
        let values = &memory.0.as_slice()[place.at..];
        let channel = |channel: usize| {
            (0..place.n_pixels()).map(move |pixel| values[pixel * place.stride + channel])
        };
        (0..place.channels).flat_map(channel).collect()
    }

    /// A pointer to the memory of a run on `image`, 3 x side x side, for [`Run::step`].
    pub(super) fn run<'a>(&'a self, memory: &'a mut Memory, image: &'a [f32]) -> Run<'a> {
        assert_eq!(image.len(), 3 * self.side * self.side, "the image's size");
        let values = memory.0.as_mut_slice();
        assert!(values.len() >= self.len, "memory of another program");
        Run {
            program: self,
            memory: values.as_mut_ptr(),
            image,
        }
    }
}

/// A run of a program: its steps are to be computed one after the other.
pub(super) struct Run<'a> {
    program: &'a Program,
    /// `program.len` values.
    memory: *mut f32,
    image: &'a [f32],
}

// SAFETY: threads write disjoint parts of the memory, which the run alone holds.
unsafe impl Send for Run<'_> {}
// SAFETY: as above.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    /// Computes some parts of a step.
    ///
    /// # Safety
    /// All parts of the steps before are done, and no other thread computes these.
    pub(super) unsafe fn step(&self, at: usize, parts: std::ops::Range<usize>) {
        let step = &self.program.steps[at];
        let isa = self.program.isa;
        let constants = self.program.constants;
        // SAFETY: places were laid out within the memory by `Building`, the CPU has the
        // instructions that it was built for, and tables reach no further than the values
        // that they were made for.
        unsafe {
            let read = |at: usize| self.memory.add(at).cast_const();
            let place = |place: Place| (read(place.at), place.stride);
            let write = |place: Place| (self.memory.add(place.at), place.stride);
            let residual = step.residual.map(place);
            let activation = step.activation;
            let zeros = read(0);
            match &step.task {
                &Task::Image { before, width, at } => Image {
                    colors: self.image,
                    side: self.program.side,
                    before,
                    width,
                    output: self.memory.add(at),
                    parts,
                }
                .compute(),
                Task::Product {
                    input,
                    rows,
                    channels,
                    matrix,
                    bias,
                    output,
                } => Product {
                    input: read(*input),
                    rows,
                    zeros,
                    channels: *channels,
                    matrix,
                    bias: Some(bias),
                    residual,
                    activation,
                    output: write(*output),
                }
                .compute(isa, parts),
                Task::Scatter {
                    form,
                    input,
                    squares,
                    at,
                } => isa.perform(&Scatter {
                    form: *form,
                    input: read(input.at),
                    squares,
                    zeros,
                    n_blocks: input.channels.div_ceil(LANES),
                    output: self.memory.add(*at),
                    parts,
                }),
                Task::Products {
                    from,
                    rows,
                    matrices,
                    at,
                } => self.products([*from, *at], rows, matrices, parts),
                Task::Gather {
                    form,
                    from,
                    bias,
                    output,
                } => isa.perform(&Gather {
                    form: *form,
                    input: read(*from),
                    n_squares: form.n_squares([output.height, output.width]),
                    n_blocks: output.channels.div_ceil(LANES),
                    bias,
                    residual,
                    activation,
                    output: self.memory.add(output.at),
                    place: *output,
                    parts,
                }),
                Task::Window {
                    input,
                    rows,
                    groups,
                    reduction,
                    output,
                } => isa.perform(&Window {
                    input: read(input.at),
                    rows,
                    outside: match reduction {
                        Reduced::Max => read(constants),
                        _ => zeros,
                    },
                    n_blocks: output.channels.div_ceil(LANES),
                    reduction: match reduction {
                        Reduced::Weighted { taps, bias } => Reduction::Weighted { taps, bias },
                        Reduced::Max => Reduction::Max,
                        Reduced::Mean { divisors } => Reduction::Mean { divisors },
                    },
                    residual,
                    activation,
                    output: self.memory.add(output.at),
                    output_stride: output.stride,
                    groups,
                    parts,
                }),
                Task::Pointwise {
                    combination,
                    inputs,
                    output,
                } => isa.perform(&Pointwise {
                    combination: *combination,
                    inputs: inputs.map(place),
                    n_blocks: output.channels.div_ceil(LANES),
                    activation,
                    output: write(*output),
                    parts,
                }),
                Task::Global { input, max, output } => isa.perform(&Global {
                    input: read(input.at),
                    place: *input,
                    max: *max,
                    output: self.memory.add(output.at),
                    parts,
                }),
                Task::Channels { sources, output } => {
                    let sources: Vec<_> = sources
                        .iter()
                        .map(|&(from, channel)| (read(from.at), from.stride, channel))
                        .collect();
                    Channels {
                        sources: &sources,
                        output: write(*output),
                        parts,
                    }
                    .compute();
                }
                Task::Normalize {
                    input,
                    smallest,
                    output,
                } => Normalize {
                    input: read(input.at),
                    n: input.channels,
                    smallest: *smallest,
                    output: self.memory.add(output.at),
                }
                .compute(),
            }
        }
    }

    /// The products of all places of transformed squares.
    ///
    /// # Safety
    /// As [`step`](Self::step).
    unsafe fn products(
        &self,
        [from, at]: [usize; 2],
        rows: &Rows,
        matrices: &[Matrix],
        parts: std::ops::Range<usize>,
    ) {
        let n_squares = rows.n_rows();
        let each = matrices[0].n_parts(n_squares);
        let width = matrices[0].n_panels() * LANES;
        let depth = matrices[0].depth();
        let stride = depth.next_multiple_of(LANES);
        for place in parts.start / each..parts.end.div_ceil(each) {
            let first = parts.start.max(place * each) - place * each;
            let last = parts.end.min((place + 1) * each) - place * each;
            // SAFETY: planes lie one after the other in the memory that was laid out for
            // them; the rest is the caller's promise.
            unsafe {
                Product {
                    input: self.memory.add(from + place * n_squares * stride),
                    rows,
                    zeros: self.memory,
                    channels: depth,
                    matrix: &matrices[place],
                    bias: None,
                    residual: None,
                    activation: Activation::None,
                    output: (self.memory.add(at + place * n_squares * width), width),
                }
                .compute(self.program.isa, first..last);
            }
        }
    }
}

/// Something that needs memory while some layers run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Room {
    Value(usize),
    /// The packed image, or transformed squares, of a layer.
    Before(usize),
    /// Products of squares of a layer.
    Between(usize),
}

struct Building<'a> {
    values: &'a [Value],
    outputs: Vec<usize>,
    isa: Isa,
    /// Values of memory that constants take, twice.
    constants: usize,
    rooms: std::collections::HashMap<Room, usize>,
    len: usize,
    steps: Vec<Step>,
    multiply_adds: u64,
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
    fn new(lowered: &'a Lowered, isa: Isa) -> Self {
        let values = &lowered.values[..];
        let outputs: Vec<usize> = lowered.outputs.iter().map(|output| output.value).collect();
        let widest = values.iter().map(|value| value.shape[2]).max().unwrap_or(0);
        let mut needs: Vec<(Room, Need)> = Vec::new();
        let mut lives: std::collections::HashMap<usize, [usize; 2]> = Default::default();
        for (at, layer) in lowered.layers.iter().enumerate() {
            let read = layer.inputs.iter().chain(&layer.residual);
            for value in read.chain([&layer.output]) {
                let life = lives.entry(whole(values, *value).0).or_insert([at, at]);
                life[1] = at;
            }
            let [from, to] = [layer.inputs[0], layer.output].map(|value| &values[value]);
            let steps = [at, at];
            let mut need = |room: Room, len: usize| needs.push((room, Need { len, steps }));
            if let Kind::Dense(convolution) = &layer.kind {
                if layer.inputs[0] == IMAGE {
                    let [height, width] = padded(convolution, from.shape);
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
                needs.push((Room::Value(value), Need { len, steps }));
            }
        }
        needs.sort_by_key(|(room, need)| (need.steps, need.len, order(*room)));
        let constants = widest.next_multiple_of(LANES);
        let (places, len) = memory::plan(&needs.iter().map(|(_, need)| *need).collect::<Vec<_>>());
        let rooms = needs.iter().zip(places);
        Self {
            values,
            outputs,
            isa,
            constants,
            rooms: rooms
                .map(|((room, _), at)| (*room, at + 2 * constants))
                .collect(),
            len: len + 2 * constants,
            steps: Vec::new(),
            multiply_adds: 0,
            n_layers: 0,
        }
    }

    fn place(&self, value: usize) -> Place {
        let (parent, first) = whole(self.values, value);
        let [height, width, channels] = self.values[value].shape;
        Place {
            at: self.rooms[&Room::Value(parent)] + first,
            height,
            width,
            channels,
            stride: self.values[parent].shape[2].next_multiple_of(LANES),
        }
    }

    fn layer(&mut self, layer: &Layer) {
        let at = self.n_layers;
        self.n_layers += 1;
        let output = self.place(layer.output);
        let n_pixels = output.n_pixels();
        let n_blocks = output.channels.div_ceil(LANES);
        let input = |this: &Self, at: usize| this.place(layer.inputs[at]);
        let (task, n_parts) = match &layer.kind {
            Kind::Dense(convolution) => return self.dense(at, layer, convolution),
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
                let sources = sources.iter();
                let task = Task::Channels {
                    sources: sources.map(|&(at, from)| (input(self, at), from)).collect(),
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
        let residual = layer.residual.map(|value| self.place(value));
        self.steps.push(Step {
            name: layer.name.clone(),
            activation: layer.activation,
            residual,
            task,
            n_parts,
        });
    }

    /// A step before a layer's last.
    fn prepare(&mut self, layer: &Layer, task: Task, n_parts: usize) {
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
        let matrix = Matrix::pack(
            self.isa,
            n_pixels,
            [n_taps * inputs, output.channels],
            |k, column| {
                let (tap, channel) = (k / inputs, k % inputs);
                weights[(column * inputs + channel) * n_taps + tap]
            },
        );
        let n_parts = matrix.n_parts(n_pixels);
        let task = Task::Product {
            input: input.at,
            rows: window.rows(input, output),
            channels: inputs,
            matrix,
            bias,
            output,
        };
        self.push(layer, task, n_parts);
    }

    /// A convolution over the image: a row of its kernel is one tap, whose colors and
    /// columns lie one after the other.
    fn first(&mut self, at: usize, layer: &Layer, convolution: &Convolution, bias: Lines) {
        let output = self.place(layer.output);
        let window = convolution.window;
        let [rows, columns] = window.kernel;
        let [height, width] = padded(convolution, self.values[IMAGE].shape);
        let image = self.rooms[&Room::Before(at)];
        let [top, left, ..] = window.pads;
        let task = Task::Image {
            before: [top, left],
            width,
            at: image,
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
        let matrix = Matrix::pack(
            self.isa,
            output.n_pixels(),
            [rows * channels, output.channels],
            |k, column| {
                let (row, across, color) = (k / channels, k % channels / 3, k % 3);
                weights[((column * 3 + color) * rows + row) * columns + across]
            },
        );
        let n_parts = matrix.n_parts(output.n_pixels());
        let task = Task::Product {
            input: image,
            rows: Rows::new(offsets, rows),
            channels,
            matrix,
            bias,
            output,
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

    fn finish(self, side: usize) -> Program {
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
            outputs,
            multiply_adds: self.multiply_adds,
            steps: self.steps,
        }
    }
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

/// Height and width of the image with the padding of a convolution.
fn padded(convolution: &Convolution, [height, width, _]: [usize; 3]) -> [usize; 2] {
    let [top, left, bottom, right] = convolution.window.pads;
    [top + height + bottom, left + width + right]
}

impl super::lower::Window {
    /// Where its taps lie for every output pixel.
    fn rows(self, input: Place, output: Place) -> Rows {
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
    window: super::lower::Window,
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
    let mut places = vec![0.0; form.n_places() * kernels.len()];
    for input in 0..inputs {
        for output in 0..outputs {
            form.kernel(&kernels[output * inputs + input], |place, value| {
                places[place * kernels.len() + input * outputs + output] = value;
            });
        }
    }
    let matrix = |values: &[f32]| {
        Matrix::pack(isa, n_squares, [inputs, outputs], |k, column| {
            values[k * outputs + column]
        })
    };
    places.chunks_exact(kernels.len()).map(matrix).collect()
}
