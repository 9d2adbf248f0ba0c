//! Layers that look at every pixel on its own, or at all of them at once.

use super::epilogue::Activation;
use super::lanes::{LANES, Lanes, Work};
use super::place::Place;

/// What is made of a pixel of one value and one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combination {
    /// Their sum.
    Sum,
    /// Their product; the second value is a vector, the same for all pixels.
    Scale,
    /// The first alone.
    First,
}

/// Combines values pixel by pixel.
pub(super) struct Pointwise {
    pub(super) combination: Combination,
    pub(super) inputs: [(*const f32, usize); 2],
    pub(super) n_blocks: usize,
    pub(super) activation: Activation,
    pub(super) output: (*mut f32, usize),
    /// Which pixels.
    pub(super) parts: std::ops::Range<usize>,
}

impl Work for Pointwise {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let [(first, first_stride), (second, second_stride)] = self.inputs;
        let (output, output_stride) = self.output;
        for pixel in self.parts.clone() {
            for channel in (0..self.n_blocks * LANES).step_by(LANES) {
                // SAFETY: pixels lie in inputs and output, as the caller of `perform`
                // promised.
                unsafe {
                    let mut value = L::load(first.add(pixel * first_stride + channel));
                    match self.combination {
                        Combination::Sum => {
                            let other = second.add(pixel * second_stride + channel);
                            value = value.add(L::load(other));
                        }
                        Combination::Scale => value = value.mul(L::load(second.add(channel))),
                        Combination::First => {}
                    }
                    let value = self.activation.apply(value);
                    value.store(output.add(pixel * output_stride + channel));
                }
            }
        }
    }
}

/// The mean or maximum over all pixels.
pub(super) struct Global {
    pub(super) input: *const f32,
    pub(super) place: Place,
    /// The maximum instead of the mean.
    pub(super) max: bool,
    pub(super) output: *mut f32,
    /// Which sixteen channels.
    pub(super) parts: std::ops::Range<usize>,
}

impl Work for Global {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let n_pixels = self.place.n_pixels();
        for block in self.parts.clone() {
            // SAFETY: pixels lie in the input, blocks in the output, as the caller of
            // `perform` promised.
            unsafe {
                let at = |pixel: usize| {
                    L::load(self.input.add(pixel * self.place.stride + block * LANES))
                };
                let value = if self.max {
                    (0..n_pixels).fold(L::splat(f32::NEG_INFINITY), |most, pixel| {
                        at(pixel).max(most)
                    })
                } else {
                    // Four sums, so that an addition need not wait for the one before.
                    let mut sums = [L::splat(0.0); 4];
                    let whole = n_pixels / 4 * 4;
                    for pixel in (0..whole).step_by(4) {
                        for (offset, sum) in sums.iter_mut().enumerate() {
                            *sum = sum.add(at(pixel + offset));
                        }
                    }
                    for pixel in whole..n_pixels {
                        sums[0] = sums[0].add(at(pixel));
                    }
                    let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
                    sum.div(L::splat(n_pixels as f32))
                };
                value.store(self.output.add(block * LANES));
            }
        }
    }
}

/// x / max(|x|, `smallest`) of one vector.
pub(super) struct Normalize {
    pub(super) input: *const f32,
    pub(super) n: usize,
    pub(super) smallest: f32,
    pub(super) output: *mut f32,
}

impl Normalize {
    /// # Safety
    /// `n` values can be read and written.
    pub(super) unsafe fn compute(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [0.0_f32; LANES];
            for at in 0..self.n {
                let x = *self.input.add(at);
                sums[at % LANES] = x.mul_add(x, sums[at % LANES]);
            }
            let norm = sums.iter().sum::<f32>().sqrt();
            let divisor = if norm > self.smallest {
                norm
            } else {
                self.smallest
            };
            for at in 0..self.n {
                *self.output.add(at) = *self.input.add(at) / divisor;
            }
        }
    }
}

/// Some channels of several values beside each other.
pub(super) struct Channels<'a> {
    pub(super) memory: *const f32,
    /// Where the first pixel of each output channel lies, and how far the next is.
    pub(super) sources: &'a [(usize, usize)],
    pub(super) output: (*mut f32, usize),
    /// Which pixels.
    pub(super) parts: std::ops::Range<usize>,
}

impl Channels<'_> {
    /// # Safety
    /// Pixels and channels lie in sources and output.
    pub(super) unsafe fn compute(&self) {
        for pixel in self.parts.clone() {
            for (channel, &(at, stride)) in self.sources.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    *self.output.0.add(pixel * self.output.1 + channel) =
                        *self.memory.add(at + pixel * stride);
                }
            }
        }
    }
}

/// The image with its three colors beside each other and zeros around it.
pub(super) struct Image<'a> {
    /// 3 x `side` x `side`.
    pub(super) colors: &'a [f32],
    pub(super) side: usize,
    /// Rows above and columns to the left.
    pub(super) before: [usize; 2],
    /// Width with zeros.
    pub(super) width: usize,
    pub(super) output: *mut f32,
    /// Which rows of the output.
    pub(super) parts: std::ops::Range<usize>,
}

impl Image<'_> {
    /// # Safety
    /// Rows lie in the output.
    pub(super) unsafe fn compute(&self) {
        let [top, left] = self.before;
        let area = self.side * self.side;
        for row in self.parts.clone() {
            // SAFETY: the caller's promise; no other part has this row.
            let row_out = unsafe {
                std::slice::from_raw_parts_mut(
                    self.output.add(row * self.width * 3),
                    self.width * 3,
                )
            };
            let inside = row.checked_sub(top).filter(|y| *y < self.side);
            let Some(y) = inside else {
                row_out.fill(0.0);
                continue;
            };
            row_out[..left * 3].fill(0.0);
            row_out[(left + self.side) * 3..].fill(0.0);
            let color = |color: usize| &self.colors[color * area + y * self.side..][..self.side];
            let pixels = row_out[left * 3..].as_chunks_mut::<3>().0;
            let colors = color(0).iter().zip(color(1)).zip(color(2));
            for (pixel, ((red, green), blue)) in pixels.iter_mut().zip(colors) {
                *pixel = [*red, *green, *blue];
            }
        }
    }
}
