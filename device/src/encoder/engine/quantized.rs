//! Dense layers whose maps and weights are bytes.
//!
//! The products of `product` with integer sums: a row's bytes with signed codes of every
//! column (Jacob et al., "Quantization and training of neural networks for efficient
//! integer-arithmetic-only inference", CVPR 2018). Sums are exact; what they stand for is
//! computed in f32, one fused multiply-add a sum.

use super::dots::{DotWork, Dots, UNIT};
use super::epilogue::Activation;
use super::lanes::{Isa, LANES, Lanes};
use super::lines::Lines;
use super::product::{Meaning, Output, Rows, Tiling, by_size, store_tile};
use super::quantization::{self, Quantization};

/// Bytes of a unit's codes for one panel.
const PANEL_UNIT: usize = UNIT * LANES;

/// Most terms of a sum: so many products of bytes fit into 32 bits.
pub(super) const MAX_TERMS: usize = 1 << 16;

/// Signed codes with columns in panels of [`LANES`], packed in the order in which tiles read
/// them, and what makes values of sums.
#[derive(Clone, Debug)]
pub(super) struct CodeMatrix {
    codes: Lines,
    /// Units of a column: those of one tap after those of another.
    n_units: usize,
    tiling: Tiling,
    /// Sums to begin with, `i32` in the bits of f32: they take off what the byte of 0, and
    /// the shift of bytes, add to a column's sum.
    starts: Lines,
    scales: Lines,
    biases: Lines,
}

/// Columns of codes and their meaning.
pub(super) struct Columns<'a> {
    /// `[column][input channel][tap]`.
    pub(super) codes: &'a [i8],
    /// One a column.
    pub(super) scales: &'a [f32],
    pub(super) biases: &'a [f32],
    pub(super) n_taps: usize,
}

impl CodeMatrix {
    /// Packs columns for products with `n_rows` rows of bytes.
    pub(super) fn pack(
        isa: Isa,
        n_rows: usize,
        columns: &Columns<'_>,
        input: Quantization,
    ) -> Self {
        let n_columns = columns.biases.len();
        let n_panels = n_columns.div_ceil(LANES);
        let depth = columns.codes.len() / n_columns;
        let channels = depth / columns.n_taps;
        let units_of_tap = channels.div_ceil(UNIT);
        let n_units = columns.n_taps * units_of_tap;
        let tiling = Tiling::new(isa.dot_tiles(), n_rows, n_panels);
        let bytes_of = |n_panels: usize| n_units * n_panels * PANEL_UNIT;
        let mut codes = Lines::zeros(bytes_of(n_panels) / size_of::<f32>());
        for group in &tiling.groups {
            let packed = &mut codes.as_mut_bytes()[bytes_of(group.first_panel)..];
            for panel in 0..group.n_panels {
                let first = (group.first_panel + panel) * LANES;
                for column in 0..LANES.min(n_columns - first) {
                    let of_column = &columns.codes[(first + column) * depth..][..depth];
                    for (at, &code) in of_column.iter().enumerate() {
                        let (channel, tap) = (at / columns.n_taps, at % columns.n_taps);
                        let unit = tap * units_of_tap + channel / UNIT;
                        let block = (unit * group.n_panels + panel) * PANEL_UNIT;
                        let within = isa.code_at(column, channel % UNIT);
                        packed[block + within] = code.cast_unsigned();
                    }
                }
            }
        }
        let off = isa.byte_shift() - i32::from(input.zero);
        let mut starts = Lines::zeros(n_columns);
        let each = starts.as_mut_slice().iter_mut();
        for (start, codes) in each.zip(columns.codes.chunks_exact(depth)) {
            let sum: i32 = codes.iter().map(|&code| i32::from(code)).sum();
            *start = f32::from_bits((sum * off).cast_unsigned());
        }
        let mut scales = Lines::zeros(n_columns);
        let each = scales.as_mut_slice().iter_mut().zip(columns.scales);
        each.for_each(|(scale, of_codes)| *scale = of_codes * input.scale);
        let mut biases = Lines::zeros(n_columns);
        biases.as_mut_slice()[..n_columns].copy_from_slice(columns.biases);
        Self {
            codes,
            n_units,
            tiling,
            starts,
            scales,
            biases,
        }
    }

    pub(super) fn n_units(&self) -> usize {
        self.n_units
    }

    /// Columns that there are codes, scales and biases for, filled up to whole panels.
    pub(super) fn n_columns(&self) -> usize {
        let n_columns = self.tiling.n_panels() * LANES;
        let lengths = [self.starts.len(), self.scales.len(), self.biases.len()];
        lengths.into_iter().fold(n_columns, usize::min)
    }

    /// Parts that can be computed on their own for so many rows.
    pub(super) fn n_parts(&self, n_rows: usize) -> usize {
        self.tiling.n_parts(n_rows)
    }
}

/// What is added to a layer's values.
#[derive(Clone, Copy)]
pub(super) enum Residual {
    None,
    /// Rows at distances of so many values.
    Values(*const f32, usize),
    /// Rows at distances of so many bytes.
    Bytes(*const u8, usize, Quantization),
}

impl Residual {
    /// The part from a row and a column on.
    ///
    /// # Safety
    /// It lies in what is added.
    unsafe fn from(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::None => Self::None,
                Self::Values(at, stride) => Self::Values(at.add(row * stride + column), stride),
                Self::Bytes(at, stride, quantization) => {
                    Self::Bytes(at.add(row * stride + column), stride, quantization)
                }
            }
        }
    }
}

/// A product of bytes and where it is computed.
pub(super) struct CodeProduct<'a> {
    /// Where offsets count from.
    pub(super) memory: *const u8,
    pub(super) rows: &'a Rows,
    /// Bytes that a tap reads, in units.
    pub(super) units_of_tap: usize,
    pub(super) matrix: &'a CodeMatrix,
    pub(super) residual: Residual,
    pub(super) activation: Activation,
    pub(super) output: Output,
}

impl CodeProduct<'_> {
    /// Computes some parts of [`CodeMatrix::n_parts`].
    ///
    /// # Safety
    /// The CPU has the instructions, and the pointers are good for all rows and panels; what
    /// is written is read by nobody else.
    pub(super) unsafe fn compute(&self, isa: Isa, parts: std::ops::Range<usize>) {
        let matrix = self.matrix;
        let n_rows = self.rows.n_rows();
        for (group, rows) in matrix.tiling.tiles(n_rows, parts) {
            let first = rows.start;
            let column = group.first_panel * LANES;
            let from = |lines: &Lines| lines.as_slice()[column..].as_ptr();
            let codes = matrix.codes.as_bytes();
            // SAFETY: the caller's promise; offsets stay within the memory.
            unsafe {
                Sums {
                    memory: self.memory,
                    offsets: self.rows.offsets()[first..].as_ptr(),
                    offsets_stride: n_rows,
                    n_taps: self.rows.n_taps(),
                    units_of_tap: self.units_of_tap,
                    codes: codes[matrix.n_units * column * UNIT..].as_ptr().cast(),
                    starts: from(&matrix.starts).cast(),
                    scales: from(&matrix.scales),
                    biases: from(&matrix.biases),
                    residual: self.residual.from(first, column),
                    activation: self.activation,
                    output: self.output.from(first, column),
                }
                .compute(isa, rows.len(), group.n_panels);
            }
        }
    }
}

/// The sums of one tile.
struct Sums {
    memory: *const u8,
    offsets: *const u32,
    offsets_stride: usize,
    n_taps: usize,
    units_of_tap: usize,
    codes: *const i8,
    starts: *const i32,
    scales: *const f32,
    biases: *const f32,
    residual: Residual,
    activation: Activation,
    output: Output,
}

struct Rectangle<'a, const ROWS: usize, const PANELS: usize>(&'a Sums);

impl Sums {
    unsafe fn compute(&self, isa: Isa, rows: usize, panels: usize) {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512Vnni {
            return by_size!(Wide, perform, self, rows, panels;
                1: 1 2 3 4 5 6 7 8 9 10 11 12;
                2: 1 2 3 4 5 6 7 8 9 10 11 12;
                3: 1 2 3 4 5 6 7 8;
                4: 1 2 3 4 5 6;
            );
        }
        by_size!(isa, perform_dots, self, rows, panels; 1: 1 2 3 4 5 6;)
    }
}

/// AVX-512 alone has tiles of several panels.
#[cfg(target_arch = "x86_64")]
struct Wide;

#[cfg(target_arch = "x86_64")]
impl Wide {
    unsafe fn perform<W: DotWork>(&self, work: &W) {
        // SAFETY: the caller found AVX-512 and VNNI.
        unsafe { super::dots::perform_avx512_vnni(work) }
    }
}

impl<const ROWS: usize, const PANELS: usize> DotWork for Rectangle<'_, ROWS, PANELS> {
    #[inline(always)]
    unsafe fn perform<D: Dots>(&self) {
        let this = self.0;
        // SAFETY: pointers and extents are those that `CodeProduct::compute` was promised.
        unsafe {
            let start: [D; PANELS] =
                std::array::from_fn(|panel| D::load(this.starts.add(panel * LANES)));
            let mut sums = [start; ROWS];
            let mut codes = this.codes;
            for tap in 0..this.n_taps {
                let offsets = this.offsets.add(tap * this.offsets_stride);
                let rows: [*const u8; ROWS] =
                    std::array::from_fn(|row| this.memory.add(*offsets.add(row) as usize));
                for unit in 0..this.units_of_tap {
                    let factors: [D::Codes; PANELS] =
                        std::array::from_fn(|panel| D::codes(codes.add(panel * PANEL_UNIT)));
                    for (row, sums) in rows.iter().zip(&mut sums) {
                        let bytes = D::bytes(row.add(unit * UNIT));
                        for (sum, factor) in sums.iter_mut().zip(&factors) {
                            *sum = sum.add(bytes, *factor);
                        }
                    }
                    codes = codes.add(PANELS * PANEL_UNIT);
                }
            }
            let at = |lines: *const f32, panel: usize| D::Lanes::load(lines.add(panel * LANES));
            let scales: [D::Lanes; PANELS] = std::array::from_fn(|panel| at(this.scales, panel));
            let biases: [D::Lanes; PANELS] = std::array::from_fn(|panel| at(this.biases, panel));
            let scaled = Scaled { scales, biases };
            // One loop for each, so that none asks for every sum what is to be added.
            match this.residual {
                Residual::None => store_tile(sums, &scaled, this.activation, this.output),
                Residual::Values(at, stride) => {
                    let meaning = PlusValues(scaled, at, stride);
                    store_tile(sums, &meaning, this.activation, this.output);
                }
                Residual::Bytes(at, stride, quantization) => {
                    let meaning = PlusBytes(scaled, at, stride, quantization);
                    store_tile(sums, &meaning, this.activation, this.output);
                }
            }
        }
    }
}

/// What sums of bytes stand for: a scale and a bias a column.
struct Scaled<L, const PANELS: usize> {
    scales: [L; PANELS],
    biases: [L; PANELS],
}

/// The same and a residual in f32.
struct PlusValues<L, const PANELS: usize>(Scaled<L, PANELS>, *const f32, usize);

/// The same and a residual in bytes.
struct PlusBytes<L, const PANELS: usize>(Scaled<L, PANELS>, *const u8, usize, Quantization);

impl<D: Dots, const PANELS: usize> Meaning<D, D::Lanes> for Scaled<D::Lanes, PANELS> {
    #[inline(always)]
    unsafe fn value(&self, sum: D, _: usize, panel: usize) -> D::Lanes {
        // SAFETY: the caller's promise.
        unsafe { sum.lanes().mul_add(self.scales[panel], self.biases[panel]) }
    }
}

impl<D: Dots, const PANELS: usize> Meaning<D, D::Lanes> for PlusValues<D::Lanes, PANELS> {
    #[inline(always)]
    unsafe fn value(&self, sum: D, row: usize, panel: usize) -> D::Lanes {
        let Self(scaled, at, stride) = self;
        // SAFETY: the caller's promise; the residual has the tile's rows and panels.
        unsafe {
            let added = D::Lanes::load(at.add(row * stride + panel * LANES));
            scaled.value(sum, row, panel).add(added)
        }
    }
}

impl<D: Dots, const PANELS: usize> Meaning<D, D::Lanes> for PlusBytes<D::Lanes, PANELS> {
    #[inline(always)]
    unsafe fn value(&self, sum: D, row: usize, panel: usize) -> D::Lanes {
        let Self(scaled, at, stride, quantization) = self;
        // SAFETY: as above.
        unsafe {
            let at = at.add(row * stride + panel * LANES);
            let added: D::Lanes = quantization::load(*quantization, at);
            scaled.value(sum, row, panel).add(added)
        }
    }
}
