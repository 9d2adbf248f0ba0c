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
    /// Which groups of [`PIXELS`] output pixels.
    pub(super) parts: std::ops::Range<usize>,
}

/// Groups of output pixels in a map.
pub(super) fn n_parts(n_pixels: usize) -> usize {
    n_pixels.div_ceil(PIXELS)
}

impl Work for Window<'_> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let n_taps = self.rows.n_taps();
        let n_pixels = self.rows.n_rows();
        let n_parts = n_parts(n_pixels);
        let mut taps = [[std::ptr::null::<f32>(); PIXELS]; MAX_TAPS];
        for part in self.parts.clone() {
            let first = part * n_pixels / n_parts;
            let n = (part + 1) * n_pixels / n_parts - first;
            // SAFETY: offsets lie in the input, pixels in output and residual; the caller
            // of `perform` promised both.
            unsafe {
                for (tap, pixels) in taps[..n_taps].iter_mut().enumerate() {
                    for (pixel, at) in pixels.iter_mut().enumerate() {
                        *at = match self.rows.offset(tap, first + pixel.min(n - 1)) {
                            OUTSIDE => self.outside,
                            offset => self.input.add(offset as usize),
                        };
                    }
                }
                for channel in (0..self.n_blocks * LANES).step_by(LANES) {
                    let values = self.reduce::<L>(&taps[..n_taps], channel, first);
                    for (pixel, value) in values[..n].iter().enumerate() {
                        let at = first + pixel;
                        let mut value = L::load(value.as_ptr());
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
}

impl Window<'_> {
    /// What the reduction gives for sixteen channels of [`PIXELS`] pixels.
    #[inline(always)]
    unsafe fn reduce<L: Lanes>(
        &self,
        taps: &[[*const f32; PIXELS]],
        channel: usize,
        first: usize,
    ) -> [[f32; LANES]; PIXELS] {
        let mut done = [[0.0; LANES]; PIXELS];
        // SAFETY: as in `perform`.
        unsafe {
            match &self.reduction {
                Reduction::Weighted { taps: weights, bias } => {
                    let mut sums = [L::load(bias.as_slice()[channel..].as_ptr()); PIXELS];
                    let mut weight = weights.as_slice()[channel..].as_ptr();
                    for pixels in taps {
                        let factor = L::load(weight);
                        for (sum, pixel) in sums.iter_mut().zip(pixels) {
                            *sum = L::load(pixel.add(channel)).mul_add(factor, *sum);
                        }
                        weight = weight.wrapping_add(self.n_blocks * LANES);
                    }
                    store(sums, &mut done);
                }
                Reduction::Max => {
                    let mut sums = [L::splat(f32::NEG_INFINITY); PIXELS];
                    for pixels in taps {
                        for (sum, pixel) in sums.iter_mut().zip(pixels) {
                            *sum = L::load(pixel.add(channel)).max(*sum);
                        }
                    }
                    store(sums, &mut done);
                }
                Reduction::Mean { divisors } => {
                    let mut sums = [L::splat(0.0); PIXELS];
                    for pixels in taps {
                        for (sum, pixel) in sums.iter_mut().zip(pixels) {
                            *sum = sum.add(L::load(pixel.add(channel)));
                        }
                    }
                    for (pixel, sum) in sums.iter_mut().enumerate() {
                        let at = (first + pixel).min(divisors.len() - 1);
                        *sum = sum.div(L::splat(divisors[at]));
                    }
                    store(sums, &mut done);
                }
            }
        }
        done
    }
}

#[inline(always)]
unsafe fn store<L: Lanes>(sums: [L; PIXELS], done: &mut [[f32; LANES]; PIXELS]) {
    for (sum, done) in sums.into_iter().zip(done) {
        // SAFETY: an array of all lanes; the caller has the instructions.
        unsafe { sum.store(done.as_mut_ptr()) }
    }
}
