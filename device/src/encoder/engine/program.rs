//! Layers with their weights packed and their values placed: what is run.

mod bounds;
mod building;
mod quantized;

use super::bytes::{self, Dequantize, MaxPool, Mean, Quantize};
use super::epilogue::Activation;
use super::lanes::{Isa, LANES};
use super::lines::Lines;
use super::lower::Lowered;
use super::place::Place;
use super::point::{Channels, Combination, Global, Image, Normalize, Pointwise};
use super::product::{Matrix, Output, Product, Rows};
use super::quantization::{Quantization, Quantizer};
use super::quantized::{CodeMatrix, CodeProduct, Residual};
use super::window::{Group, Reduction, Window};
use super::winograd::{Form, Gather, Scatter};
use building::Building;

/// A network as steps over one piece of memory.
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    isa: Isa,
    side: usize,
    /// f32 values that a run needs.
    len: usize,
    /// Values of the zeros at the start of the memory, of the lowest numbers after them, and
    /// of each of the paddings after those.
    constants: usize,
    /// Bytes that stand for 0 in maps with padding, where they are not 0 themselves.
    paddings: Vec<u8>,
    /// Places of what is read outside.
    pub(super) outputs: Vec<Place>,
    pub(super) multiply_adds: u64,
}

/// A part of a layer whose parts can be computed side by side, once the step before is done.
pub(super) struct Step {
    /// The layer's name.
    pub(super) name: String,
    pub(super) activation: Activation,
    residual: Option<(Place, Option<Quantization>)>,
    task: Task,
    n_parts: usize,
}

enum Task {
    Image {
        before: [usize; 2],
        width: usize,
        at: usize,
        /// Makes bytes of it, [`PIXEL`](super::bytes::PIXEL) a pixel.
        quantizer: Option<Quantizer>,
    },
    Product {
        input: usize,
        rows: Rows,
        channels: usize,
        matrix: Matrix,
        bias: Lines,
        output: Place,
        /// Rounds what is stored.
        quantizer: Option<Quantizer>,
    },
    CodeProduct {
        /// Offsets count from the memory's start.
        rows: Rows,
        /// Bytes of a tap.
        channels: usize,
        matrix: CodeMatrix,
        output: Place,
        quantizer: Option<Quantizer>,
    },
    BytePool {
        /// As above.
        rows: Rows,
        output: Place,
    },
    ByteMean {
        input: Place,
        quantization: Quantization,
        output: Place,
    },
    Quantize {
        input: Place,
        quantizer: Quantizer,
        output: Place,
    },
    Dequantize {
        input: Place,
        quantization: Quantization,
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
        /// The first value of each channel, and the distance between its pixels.
        sources: Vec<(usize, usize)>,
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
            Task::CodeProduct { rows, .. } if rows.n_taps() == 1 => "int8 pointwise convolution",
            Task::CodeProduct { .. } => "int8 convolution",
            Task::BytePool { .. } => "int8 maximum pool",
            Task::ByteMean { .. } => "int8 global mean",
            Task::Quantize { .. } => "quantize",
            Task::Dequantize { .. } => "dequantize",
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

    /// The value that it completes.
    fn output(&self) -> Option<Place> {
        match self.task {
            Task::Image { .. } | Task::Scatter { .. } | Task::Products { .. } => None,
            Task::Product { output, .. }
            | Task::CodeProduct { output, .. }
            | Task::BytePool { output, .. }
            | Task::ByteMean { output, .. }
            | Task::Quantize { output, .. }
            | Task::Dequantize { output, .. }
            | Task::Gather { output, .. }
            | Task::Window { output, .. }
            | Task::Pointwise { output, .. }
            | Task::Global { output, .. }
            | Task::Channels { output, .. }
            | Task::Normalize { output, .. } => Some(output),
        }
    }
}

/// The memory of a run.
pub(super) struct Memory(Lines);

impl Program {
    /// A program for the layers; `None` if it would need more than `most` values of memory.
    pub(super) fn new(lowered: &Lowered, side: usize, isa: Isa, most: usize) -> Option<Self> {
        let is_computed = lowered.is_computed();
        debug_assert!(is_computed, "a layer reads what no layer computes");
        if !is_computed {
            return None;
        }
        let mut building = Building::new(lowered, isa);
        if building.len() > most {
            return None;
        }
        for layer in &lowered.layers {
            building.layer(layer);
        }
        let program = building.finish(side);
        let memory = [program.len, program.constants];
        let fit = |step: &Step| bounds::fits(step, side, memory);
        let all_fit = program.steps.iter().all(fit);
        debug_assert!(all_fit, "a step reaches beyond its memory");
        all_fit.then_some(program)
    }

    pub(super) fn memory(&self) -> Memory {
        let mut lines = Lines::zeros(self.len);
        let (_, after) = lines.as_mut_slice().split_at_mut(self.constants);
        after[..self.constants].fill(f32::NEG_INFINITY);
        for (at, byte) in self.paddings.iter().enumerate() {
            let words = &mut after[(at + 1) * self.constants..][..self.constants];
            words.fill(f32::from_bits(u32::from(*byte) * 0x0101_0101));
        }
        Memory(lines)
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
            let in_bytes = |place: Place| (self.memory.cast::<u8>().add(place.at), place.stride);
            let read_bytes = |place: Place| (in_bytes(place).0.cast_const(), place.stride);
            let store = |to: Place, quantizer: Option<Quantizer>| match quantizer {
                Some(quantizer) => Output::Bytes(in_bytes(to).0, to.stride, quantizer),
                None => Output::Values(write(to).0, to.stride),
            };
            let residual = match step.residual {
                Some((at, None)) => Some(place(at)),
                _ => None,
            };
            let activation = step.activation;
            let zeros = read(0);
            match &step.task {
                &Task::Image {
                    before,
                    width,
                    at,
                    quantizer: Some(quantizer),
                } => isa.perform(&bytes::Image {
                    colors: self.image,
                    side: self.program.side,
                    before,
                    width,
                    quantizer,
                    output: self.memory.add(at).cast(),
                    parts,
                }),
                &Task::Image {
                    before, width, at, ..
                } => Image {
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
                    quantizer,
                } => Product {
                    input: read(*input),
                    rows,
                    zeros,
                    channels: *channels,
                    matrix,
                    bias: Some(bias),
                    residual,
                    activation,
                    output: store(*output, *quantizer),
                }
                .compute(isa, parts),
                Task::CodeProduct {
                    rows,
                    matrix,
                    output,
                    quantizer,
                    ..
                } => CodeProduct {
                    memory: self.memory.cast::<u8>().cast_const(),
                    rows,
                    units_of_tap: matrix.n_units() / rows.n_taps(),
                    matrix,
                    residual: match step.residual {
                        None => Residual::None,
                        Some((at, None)) => Residual::Values(read(at.at), at.stride),
                        Some((at, Some(quantization))) => {
                            Residual::Bytes(read_bytes(at).0, at.stride, quantization)
                        }
                    },
                    activation,
                    output: store(*output, *quantizer),
                }
                .compute(isa, parts),
                Task::BytePool { rows, output } => isa.perform(&MaxPool {
                    memory: self.memory.cast::<u8>().cast_const(),
                    rows,
                    n_blocks: output.channels.div_ceil(LANES),
                    output: in_bytes(*output),
                    parts,
                }),
                Task::ByteMean {
                    input,
                    quantization,
                    output,
                } => isa.perform(&Mean {
                    input: read_bytes(*input).0,
                    place: *input,
                    quantization: *quantization,
                    output: write(*output).0,
                    parts,
                }),
                Task::Quantize {
                    input,
                    quantizer,
                    output,
                } => isa.perform(&Quantize {
                    input: place(*input),
                    n_blocks: output.channels.div_ceil(LANES),
                    quantizer: *quantizer,
                    output: in_bytes(*output),
                    parts,
                }),
                Task::Dequantize {
                    input,
                    quantization,
                    output,
                } => isa.perform(&Dequantize {
                    input: read_bytes(*input),
                    n_blocks: output.channels.div_ceil(LANES),
                    quantization: *quantization,
                    output: write(*output),
                    parts,
                }),
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
                Task::Channels { sources, output } => Channels {
                    memory: read(0),
                    sources,
                    output: write(*output),
                    parts,
                }
                .compute(),
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
        let places = parts.start / each..parts.end.div_ceil(each);
        for (place, matrix) in matrices
            .iter()
            .enumerate()
            .take(places.end)
            .skip(places.start)
        {
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
                    matrix,
                    bias: None,
                    residual: None,
                    activation: Activation::None,
                    output: Output::Values(self.memory.add(at + place * n_squares * width), width),
                }
                .compute(self.program.isa, first..last);
            }
        }
    }
}
