//! Layers that look at every channel on its own: depthwise convolutions and pooling.

use super::epilogue::Activation;
use super::lanes::{LANES, Lanes, Work};
use super::lines::Lines;
use super::product::{OUTSIDE, Rows};

/// Most taps of a window.
pub(super) const MAX_TAPS: usize = 81;

/// Output pixels that are computed together, and share what is read of the kernel.
const PIXELS: usize = 4;

/// What is made of the values in a window.
pub(super) enum Reduction<'a> {
    /// Their sum with weights, `[tap][channel]`, and a bias.
    Weighted { taps: &'a Lines, bias: &'a Lines },
    /// The largest.
    Max,
    /// Their sum divided, by one number for each output pixel.
    Mean { divisors: &'a [f32] },
}

/// A window slid over a map.
pub(super) struct Window<'a> {
    pub(super) input: *const f32,
    pub(super) rows: &'a Rows,
    /// What a tap outside reads: as many values as there are channels.
    pub(super) outside: *const f32,
    pub(super) n_blocks: usize,
    pub(super) reduction: Reduction<'a>,
    pub(super) residual: Option<(*const f32, usize)>,
    pub(super) activation: Activation,
    pub(super) output: *mut f32,
    pub(super) output_stride: usize,
    pub(super) groups: &'a [Group],
    /// Which groups.
    pub(super) parts: std::ops::Range<usize>,
}

/// Neighbors in a row of the output that are computed together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    first: usize,
    n: usize,
    /// The distance of their taps in the input, if all taps of all lie inside.
    step: Option<usize>,
}

/// The output of a window in groups.
pub(super) fn groups(rows: &Rows, width: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    let n_groups = width.div_ceil(PIXELS);
    for row in 0..rows.n_rows() / width {
        for group in 0..n_groups {
            let begin = group * width / n_groups;
            let n = (group + 1) * width / n_groups - begin;
            let first = row * width + begin;
            let step = (n == PIXELS).then(|| even_step(rows, first)).flatten();
            groups.push(Group { first, n, step });
        }
    }
    groups
}

/// The distance between the taps of [`PIXELS`] neighbors, if it is one.
fn even_step(rows: &Rows, first: usize) -> Option<usize> {
    let step = rows
        .offset(0, first + 1)
        .checked_sub(rows.offset(0, first))?;
    let even = |tap: usize| {
        (0..PIXELS as u32).all(|pixel| {
            let offset = rows.offset(tap, first + pixel as usize);
            let wanted = rows.offset(tap, first).checked_add(pixel * step);
            offset != OUTSIDE && wanted == Some(offset)
        })
    };
    (0..rows.n_taps()).all(even).then_some(step as usize)
}

impl Work for Window<'_> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        for group in &self.groups[self.parts.clone()] {
            // SAFETY: offsets lie in the input, pixels in output and residual; the caller
            // of `perform` promised both.
            unsafe {
                match group.step {
                    Some(step) => self.inside::<L>(*group, step),
                    None => self.anywhere::<L>(*group),
                }
            }
        }
    }
}

impl Window<'_> {
    /// A group whose taps lie inside, at equal distances.
    #[inline(always)]
    unsafe fn inside<L: Lanes>(&self, group: Group, step: usize) {
        let n_taps = self.rows.n_taps();
        let mut taps = [std::ptr::null::<f32>(); MAX_TAPS];
        // SAFETY: as in `perform`.
        unsafe {
            for (tap, at) in taps[..n_taps].iter_mut().enumerate() {
                *at = self.input.add(self.rows.offset(tap, group.first) as usize);
            }
            for channel in (0..self.n_blocks * LANES).step_by(LANES) {
                let at = |tap: usize, pixel: usize| taps[tap].add(pixel * step + channel);
                self.reduce::<L>(n_taps, at, channel, group);
            }
        }
    }

    /// Any group.
    #[inline(always)]
    unsafe fn anywhere<L: Lanes>(&self, group: Group) {
        let n_taps = self.rows.n_taps();
        let mut taps = [[std::ptr::null::<f32>(); PIXELS]; MAX_TAPS];
        // SAFETY: as in `perform`.
        unsafe {
            for (tap, pixels) in taps[..n_taps].iter_mut().enumerate() {
                for (pixel, at) in pixels.iter_mut().enumerate() {
                    let pixel = group.first + pixel.min(group.n - 1);
                    *at = match self.rows.offset(tap, pixel) {
                        OUTSIDE => self.outside,
                        offset => self.input.add(offset as usize),
                    };
                }
            }
            for channel in (0..self.n_blocks * LANES).step_by(LANES) {
                let at = |tap: usize, pixel: usize| taps[tap][pixel].add(channel);
                self.reduce::<L>(n_taps, at, channel, group);
            }
        }
    }

    /// Computes sixteen channels of a group; `at(tap, pixel)` is where they lie.
    #[inline(always)]
    unsafe fn reduce<L: Lanes>(
        &self,
        n_taps: usize,
        at: impl Fn(usize, usize) -> *const f32,
        channel: usize,
        group: Group,
    ) {
        // SAFETY: as in `perform`.
        unsafe {
            let sums = match &self.reduction {
                Reduction::Weighted { taps, bias } => {
                    let mut sums = [L::load(bias.as_slice().as_ptr().add(channel)); PIXELS];
                    let mut weight = taps.as_slice().as_ptr().add(channel);
                    for tap in 0..n_taps {
                        let factor = L::load(weight);
                        for (pixel, sum) in sums.iter_mut().enumerate() {
                            *sum = L::load(at(tap, pixel)).mul_add(factor, *sum);
                        }
                        weight = weight.wrapping_add(self.n_blocks * LANES);
                    }
                    sums
                }
                Reduction::Max => {
                    let mut sums = [L::splat(f32::NEG_INFINITY); PIXELS];
                    for tap in 0..n_taps {
                        for (pixel, sum) in sums.iter_mut().enumerate() {
                            *sum = L::load(at(tap, pixel)).max(*sum);
                        }
                    }
                    sums
                }
                Reduction::Mean { divisors } => {
                    let mut sums = [L::splat(0.0); PIXELS];
                    for tap in 0..n_taps {
                        for (pixel, sum) in sums.iter_mut().enumerate() {
                            *sum = sum.add(L::load(at(tap, pixel)));
                        }
                    }
                    for (pixel, sum) in sums.iter_mut().enumerate() {
                        let pixel = group.first + pixel.min(group.n - 1);
                        *sum = sum.div(L::splat(divisors[pixel]));
                    }
                    sums
                }
            };
            self.finish(sums, channel, group);
        }
    }

    /// Adds, activates and stores.
    #[inline(always)]
    unsafe fn finish<L: Lanes>(&self, sums: [L; PIXELS], channel: usize, group: Group) {
        // SAFETY: as in `perform`.
        unsafe {
            for (pixel, sum) in sums.into_iter().enumerate() {
                if pixel < group.n {
                    let at = group.first + pixel;
                    let mut value = sum;
                    if let Some((residual, stride)) = self.residual {
                        value = value.add(L::load(residual.add(at * stride + channel)));
                    }
                    let value = self.activation.apply(value);
                    value.store(self.output.add(at * self.output_stride + channel));
                }
            }
        }
    }
}
