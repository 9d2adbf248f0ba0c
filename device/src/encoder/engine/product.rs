//! Dense layers: convolutions without copies of their input, and products of matrices.
//!
//! A layer is a product of rows (output pixels) with a matrix (output channels). A row is
//! not stored: it is so many pieces of the input, one a tap of the kernel, and a table says
//! where each begins (Dukhan, "The indirect convolution algorithm", 2019). Sums go over taps
//! and channels in order, one fused multiply-add a term, so their bits depend neither on
//! tiles nor on threads.

use super::epilogue::Activation;
use super::lanes::{Isa, LANES, Lanes, Tile, Work};
use super::lines::Lines;
use super::quantization::Quantizer;

/// Where the rows of a product begin, in values from the input's start; of maps in bytes, in
/// bytes from the memory's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// `[tap][row]`; [`OUTSIDE`] for a tap in the padding, which of maps in bytes lies in the
    /// memory.
    offsets: Vec<u32>,
    n_rows: usize,
}

/// A tap that reads zeros.
pub(super) const OUTSIDE: u32 = u32::MAX;

impl Rows {
    /// From the offsets of every tap and row.
    pub(super) fn new(offsets: Vec<u32>, n_taps: usize) -> Self {
        Self {
            n_rows: offsets.len() / n_taps,
            offsets,
        }
    }

    /// Rows of one tap, one after the other at equal distances.
    pub(super) fn even(n_rows: usize, stride: usize) -> Self {
        let offsets = (0..n_rows).map(|row| (row * stride) as u32).collect();
        Self::new(offsets, 1)
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// All offsets, tap by tap.
    pub(super) fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    pub(super) fn n_taps(&self) -> usize {
        self.offsets.len() / self.n_rows.max(1)
    }

    /// The largest offset.
    pub(super) fn end(&self) -> usize {
        let inside = self.offsets.iter().filter(|offset| **offset != OUTSIDE);
        inside.max().map_or(0, |last| *last as usize)
    }

    /// Whether no tap lies in the padding.
    pub(super) fn is_inside(&self) -> bool {
        !self.offsets.contains(&OUTSIDE)
    }

    /// Where a tap of a row begins.
    pub(super) fn offset(&self, tap: usize, row: usize) -> u32 {
        self.offsets[tap * self.n_rows + row]
    }
}

/// A matrix with `depth` rows and columns in panels of [`LANES`], packed in the order in
/// which tiles read it.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    values: Lines,
    depth: usize,
    tiling: Tiling,
}

/// Panels that are computed together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) first_panel: usize,
    pub(super) n_panels: usize,
}

/// How a product is cut into tiles, each a part that can be computed on its own.
#[derive(Clone, Debug)]
pub(super) struct Tiling {
    pub(super) groups: Vec<Group>,
    tile_rows: usize,
}

impl Tiling {
    /// For `n_rows` rows and so many panels, with the best of some tiles.
    pub(super) fn new(tiles: &[Tile], n_rows: usize, n_panels: usize) -> Self {
        let tile = best_tile(tiles, n_rows, n_panels);
        Self {
            groups: groups(n_panels, tile.1),
            tile_rows: tile.0,
        }
    }

    pub(super) fn n_panels(&self) -> usize {
        self.groups.iter().map(|group| group.n_panels).sum()
    }

    /// Parts for so many rows.
    pub(super) fn n_parts(&self, n_rows: usize) -> usize {
        self.groups.len() * n_rows.div_ceil(self.tile_rows)
    }

    /// The panels and the rows of some parts.
    pub(super) fn tiles(
        &self,
        n_rows: usize,
        parts: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (Group, std::ops::Range<usize>)> {
        let n_tiles = n_rows.div_ceil(self.tile_rows);
        parts.map(move |part| {
            let tile = part % n_tiles;
            let rows = tile * n_rows / n_tiles..(tile + 1) * n_rows / n_tiles;
            (self.groups[part / n_tiles], rows)
        })
    }
}

impl Matrix {
    /// Packs a matrix for products with `n_rows` rows. `fill(k, first, columns)` is asked
    /// for the columns of row `k` from the first on; those that fill up the last panel stay
    /// zero.
    pub(super) fn pack(
        isa: Isa,
        n_rows: usize,
        [depth, n_columns]: [usize; 2],
        fill: impl Fn(usize, usize, &mut [f32]),
    ) -> Self {
        let n_panels = n_columns.div_ceil(LANES);
        let tiling = Tiling::new(isa.tiles(), n_rows, n_panels);
        let mut values = Lines::zeros(depth * n_panels * LANES);
        for group in &tiling.groups {
            let width = group.n_panels * LANES;
            let first = group.first_panel * LANES;
            let rows = &mut values.as_mut_slice()[depth * first..][..depth * width];
            let n = width.min(n_columns - first);
            for (k, row) in rows.chunks_exact_mut(width).enumerate() {
                fill(k, first, &mut row[..n]);
            }
        }
        Self {
            values,
            depth,
            tiling,
        }
    }

    /// Rows of the matrix: terms of a sum.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn n_panels(&self) -> usize {
        self.tiling.n_panels()
    }

    /// Parts that can be computed on their own for so many rows.
    pub(super) fn n_parts(&self, n_rows: usize) -> usize {
        self.tiling.n_parts(n_rows)
    }
}

/// The tile with which a product needs the fewest steps: those of its own kind and those
/// that wait for weights, which every tile of rows reads anew.
fn best_tile(tiles: &[Tile], n_rows: usize, n_panels: usize) -> Tile {
    let steps = |tile: &Tile| {
        let n_tiles = n_rows.div_ceil(tile.0);
        groups(n_panels, tile.1)
            .iter()
            .map(|group| {
                let sums = n_rows * group.n_panels;
                let loads = n_tiles * group.n_panels + n_rows;
                // A load of weights waits longer than one of a row, which is near.
                8 * sums.max(loads) + 3 * n_tiles * group.n_panels
            })
            .sum::<usize>()
    };
    *tiles
        .iter()
        .min_by_key(|tile| steps(tile))
        .expect("there is a tile")
}

/// Panels in groups of at most `most`, as even as can be.
fn groups(n_panels: usize, most: usize) -> Vec<Group> {
    let n_groups = n_panels.div_ceil(most).max(1);
    let first = |group: usize| group * n_panels / n_groups;
    let group = |at: usize| Group {
        first_panel: first(at),
        n_panels: first(at + 1) - first(at),
    };
    (0..n_groups).map(group).collect()
}

/// A product and where it is computed. Pointers are to values in one allocation or to
/// constants.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// Where offsets count from.
    pub(super) input: *const f32,
    pub(super) rows: &'a Rows,
    /// As many zeros as a tap has channels.
    pub(super) zeros: *const f32,
    /// Values that a tap reads.
    pub(super) channels: usize,
    pub(super) matrix: &'a Matrix,
    /// One value a column, filled up to whole panels.
    pub(super) bias: Option<&'a Lines>,
    /// Added to the sums: rows at distances of the second.
    pub(super) residual: Option<(*const f32, usize)>,
    pub(super) activation: Activation,
    pub(super) output: Output,
}

/// Where a product's rows are stored, each of whole panels.
#[derive(Clone, Copy)]
pub(super) enum Output {
    /// At distances of so many values.
    Values(*mut f32, usize),
    /// Rounded, at distances of so many bytes.
    Bytes(*mut u8, usize, Quantizer),
}

impl Output {
    /// The part from a row and a column on.
    ///
    /// # Safety
    /// It lies in the output.
    pub(super) unsafe fn from(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Values(at, stride) => Self::Values(at.add(row * stride + column), stride),
                Self::Bytes(at, stride, quantizer) => {
                    Self::Bytes(at.add(row * stride + column), stride, quantizer)
                }
            }
        }
    }
}

impl Product<'_> {
    /// Computes some parts of [`Matrix::n_parts`].
    ///
    /// # Safety
    /// The CPU has the instructions, and the pointers are good for all rows and panels; what
    /// is written is read by nobody else.
    pub(super) unsafe fn compute(&self, isa: Isa, parts: std::ops::Range<usize>) {
        for (group, rows) in self.matrix.tiling.tiles(self.rows.n_rows, parts) {
            // SAFETY: the caller's promise.
            unsafe { self.compute_tile(isa, group, rows.start, rows.len()) }
        }
    }

    unsafe fn compute_tile(&self, isa: Isa, group: Group, first: usize, n_rows: usize) {
        let column = group.first_panel * LANES;
        let weights = &self.matrix.values.as_slice()[self.matrix.depth * column..];
        let bias = self.bias.map(|bias| &bias.as_slice()[column..]);
        // SAFETY: offsets stay within what the caller promised.
        let sums = unsafe {
            Sums {
                input: self.input,
                zeros: self.zeros,
                offsets: self.rows.offsets[first..].as_ptr(),
                offsets_stride: self.rows.n_rows,
                n_taps: self.rows.n_taps(),
                channels: self.channels,
                weights: weights.as_ptr(),
                bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
                residual: self.residual.map_or(std::ptr::null(), |(at, stride)| {
                    at.add(first * stride + column)
                }),
                residual_stride: self.residual.map_or(0, |(_, stride)| stride),
                activation: self.activation,
                output: self.output.from(first, column),
            }
        };
        // SAFETY: as above.
        unsafe { sums.compute(isa, n_rows, group.n_panels) }
    }
}

/// The sums of one tile.
struct Sums {
    input: *const f32,
    zeros: *const f32,
    offsets: *const u32,
    offsets_stride: usize,
    n_taps: usize,
    channels: usize,
    weights: *const f32,
    bias: *const f32,
    residual: *const f32,
    residual_stride: usize,
    activation: Activation,
    output: Output,
}

struct Rectangle<'a, const ROWS: usize, const PANELS: usize>(&'a Sums);

/// Calls the function compiled for so many rows and panels of a `Rectangle`.
macro_rules! by_size {
    ($isa:expr, $perform:ident, $sums:expr, $rows:expr, $panels:expr;
     $($p:literal: $($r:literal)*;)*) => {
        match ($panels, $rows) {
            // SAFETY: the caller of the function around this promised it.
            $($(($p, $r) => unsafe { $isa.$perform(&Rectangle::<$r, $p>($sums)) },)*)*
            _ => unreachable!("tiles have the sizes that `Isa` lists"),
        }
    };
}
pub(super) use by_size;

impl Sums {
    unsafe fn compute(&self, isa: Isa, rows: usize, panels: usize) {
        #[cfg(target_arch = "x86_64")]
        if matches!(isa, Isa::Avx512 | Isa::Avx512Vnni) {
            return by_size!(Wide, perform, self, rows, panels;
                1: 1 2 3 4 5 6 7 8 9 10 11 12;
                2: 1 2 3 4 5 6 7 8 9 10 11 12;
                3: 1 2 3 4 5 6 7 8;
                4: 1 2 3 4 5 6;
            );
        }
        by_size!(isa, perform, self, rows, panels; 1: 1 2 3 4 5 6;)
    }
}

/// AVX-512 alone has tiles of several panels.
#[cfg(target_arch = "x86_64")]
struct Wide;

#[cfg(target_arch = "x86_64")]
impl Wide {
    unsafe fn perform<W: Work>(&self, work: &W) {
        // SAFETY: the caller found AVX-512.
        unsafe { super::lanes::perform_avx512(work) }
    }
}

impl<const ROWS: usize, const PANELS: usize> Work for Rectangle<'_, ROWS, PANELS> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let this = self.0;
        // SAFETY: pointers and extents are those that `Product::compute` was promised.
        unsafe {
            let start: [L; PANELS] = std::array::from_fn(|panel| {
                if this.bias.is_null() {
                    L::splat(0.0)
                } else {
                    L::load(this.bias.add(panel * LANES))
                }
            });
            let mut sums = [start; ROWS];
            let mut weights = this.weights;
            for tap in 0..this.n_taps {
                let offsets = this.offsets.add(tap * this.offsets_stride);
                let rows: [*const f32; ROWS] = std::array::from_fn(|row| {
                    let offset = *offsets.add(row);
                    if offset == OUTSIDE {
                        this.zeros
                    } else {
                        this.input.add(offset as usize)
                    }
                });
                for channel in 0..this.channels {
                    let factors: [L; PANELS] =
                        std::array::from_fn(|panel| L::load(weights.add(panel * LANES)));
                    for (row, sums) in rows.iter().zip(&mut sums) {
                        let x = L::splat(*row.add(channel));
                        for (sum, factor) in sums.iter_mut().zip(&factors) {
                            *sum = x.mul_add(*factor, *sum);
                        }
                    }
                    weights = weights.add(PANELS * LANES);
                }
            }
            if !this.residual.is_null() {
                let mut residual = this.residual;
                for sums in &mut sums {
                    for (panel, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.add(L::load(residual.add(panel * LANES)));
                    }
                    residual = residual.wrapping_add(this.residual_stride);
                }
            }
            store_tile(sums, &Itself, this.activation, this.output);
        }
    }
}

/// What a sum of a tile stands for.
///
/// A trait and no closure: closures are compiled for the instructions that all CPUs have
/// wherever they are not inlined, and these must be.
pub(super) trait Meaning<S, L> {
    /// The value of a sum in a row and a panel of the tile. Implementations are
    /// `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`; the row and the panel lie in the tile.
    unsafe fn value(&self, sum: S, row: usize, panel: usize) -> L;
}

/// Sums that are values.
struct Itself;

impl<L> Meaning<L, L> for Itself {
    #[inline(always)]
    unsafe fn value(&self, sum: L, _: usize, _: usize) -> L {
        sum
    }
}

/// Visits the sums of a tile. Short and of known length, so that it is unrolled: were the
/// sums indexed at run time, they would live in memory, not in registers.
macro_rules! each {
    ($sums:expr, |$sum:ident, $row:ident, $panel:ident| $visit:expr) => {
        for ($row, sums) in $sums.into_iter().enumerate() {
            for ($panel, $sum) in sums.into_iter().enumerate() {
                $visit;
            }
        }
    };
}

/// Stores a tile behind its activation; a quantizer has that in it.
///
/// # Safety
/// The CPU has the instructions of `L`, and the tile lies in the output.
#[inline(always)]
pub(super) unsafe fn store_tile<L: Lanes, S: Copy, const ROWS: usize, const PANELS: usize>(
    sums: [[S; PANELS]; ROWS],
    meaning: &impl Meaning<S, L>,
    activation: Activation,
    output: Output,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (at, stride) = match output {
            Output::Values(at, stride) => (at, stride),
            Output::Bytes(at, stride, quantizer) => {
                each!(sums, |sum, row, panel| quantizer.store(
                    meaning.value(sum, row, panel),
                    at.add(row * stride + panel * LANES),
                ));
                return;
            }
        };
        match activation {
            Activation::None => each!(sums, |sum, row, panel| {
                let at = at.add(row * stride + panel * LANES);
                meaning.value(sum, row, panel).store(at);
            }),
            Activation::Relu => each!(sums, |sum, row, panel| {
                let at = at.add(row * stride + panel * LANES);
                let value = meaning.value(sum, row, panel);
                value.max(L::splat(0.0)).store(at);
            }),
            Activation::Clip { low, high } => {
                let (low, high) = (L::splat(low), L::splat(high));
                each!(sums, |sum, row, panel| {
                    let at = at.add(row * stride + panel * LANES);
                    let value = meaning.value(sum, row, panel);
                    value.max(low).min(high).store(at);
                });
            }
            _ => {
                each!(sums, |sum, row, panel| {
                    let at = at.add(row * stride + panel * LANES);
                    meaning.value(sum, row, panel).store(at);
                });
                for row in 0..ROWS {
                    for panel in 0..PANELS {
                        let at = at.add(row * stride + panel * LANES);
                        activation.apply(L::load(at)).store(at);
                    }
                }
            }
        }
    }
}
