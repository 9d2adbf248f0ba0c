//! Layers over maps of bytes that multiply nothing, and the ways into such maps and out.

use super::lanes::{LANES, Lanes, Work};
use super::place::Place;
use super::product::Rows;
use super::quantization::{self, Quantization, Quantizer};

/// The largest byte in every window.
pub(super) struct MaxPool<'a> {
    /// Where offsets count from.
    pub(super) memory: *const u8,
    pub(super) rows: &'a Rows,
    pub(super) n_blocks: usize,
    /// Pixels at distances of the second.
    pub(super) output: (*mut u8, usize),
    /// Which pixels.
    pub(super) parts: std::ops::Range<usize>,
}

/// Channels of a pixel that are pooled together, where there are so many.
const WIDE: usize = 4 * LANES;

impl Work for MaxPool<'_> {
    // Bytes need no lanes; the loops are compiled for the caller's instructions.
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let width = self.n_blocks * LANES;
        for pixel in self.parts.clone() {
            let mut channel = 0;
            // SAFETY: offsets and pixels lie where the caller of `perform` promised.
            unsafe {
                while channel + WIDE <= width {
                    self.pool::<WIDE>(pixel, channel);
                    channel += WIDE;
                }
                while channel < width {
                    self.pool::<LANES>(pixel, channel);
                    channel += LANES;
                }
            }
        }
    }
}

impl MaxPool<'_> {
    #[inline(always)]
    unsafe fn pool<const N: usize>(&self, pixel: usize, channel: usize) {
        // SAFETY: as in `perform`.
        unsafe {
            let mut most = [0; N];
            for tap in 0..self.rows.n_taps() {
                let at = self
                    .memory
                    .add(self.rows.offset(tap, pixel) as usize + channel);
                let bytes = at.cast::<[u8; N]>().read();
                most = std::array::from_fn(|lane| most[lane].max(bytes[lane]));
            }
            let (output, stride) = self.output;
            output
                .add(pixel * stride + channel)
                .cast::<[u8; N]>()
                .write(most);
        }
    }
}

/// The mean over all pixels, as values.
pub(super) struct Mean {
    pub(super) input: *const u8,
    pub(super) place: Place,
    pub(super) quantization: Quantization,
    pub(super) output: *mut f32,
    /// Which sixteen channels.
    pub(super) parts: std::ops::Range<usize>,
}

impl Work for Mean {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let n_pixels = self.place.n_pixels();
        for block in self.parts.clone() {
            // SAFETY: pixels lie in the input, blocks in the output, as the caller of
            // `perform` promised.
            unsafe {
                let at = |pixel: usize| self.input.add(pixel * self.place.stride + block * LANES);
                // Whole numbers below 2^24: exact in whatever order.
                let mut sums = [L::splat(0.0); 4];
                let whole = n_pixels / 4 * 4;
                for pixel in (0..whole).step_by(4) {
                    for (offset, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.add(L::load_bytes(at(pixel + offset)));
                    }
                }
                for pixel in whole..n_pixels {
                    sums[0] = sums[0].add(L::load_bytes(at(pixel)));
                }
                let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
                let zeros = f32::from(self.quantization.zero) * n_pixels as f32;
                let value = sum.sub(L::splat(zeros));
                let value = value.mul(L::splat(self.quantization.scale));
                let value = value.div(L::splat(n_pixels as f32));
                value.store(self.output.add(block * LANES));
            }
        }
    }
}

/// The image in bytes: a pixel's three colors and a zero, and around the image pixels of the
/// byte that stands for 0.
pub(super) struct Image<'a> {
    /// 3 x `side` x `side`.
    pub(super) colors: &'a [f32],
    pub(super) side: usize,
    /// Rows above and columns to the left.
    pub(super) before: [usize; 2],
    /// Width with what is around.
    pub(super) width: usize,
    pub(super) quantizer: Quantizer,
    /// A word a pixel.
    pub(super) output: *mut u32,
    /// Which rows of the output.
    pub(super) parts: std::ops::Range<usize>,
}

/// Bytes of a pixel of the image.
pub(super) const PIXEL: usize = size_of::<u32>();

impl Work for Image<'_> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let [top, left] = self.before;
        let area = self.side * self.side;
        let zero = u32::from(self.quantizer.zero());
        let around = zero * (1 + (1 << 8) + (1 << 16));
        for row in self.parts.clone() {
            // SAFETY: rows lie in the output, as the caller of `perform` promised, and no
            // other part has this one.
            let to = unsafe {
                std::slice::from_raw_parts_mut(self.output.add(row * self.width), self.width)
            };
            let Some(y) = row.checked_sub(top).filter(|y| *y < self.side) else {
                to.fill(around);
                continue;
            };
            to[..left].fill(around);
            to[left + self.side..].fill(around);
            let to = &mut to[left..left + self.side];
            let color = |color: usize| &self.colors[color * area + y * self.side..][..self.side];
            let colors = [color(0), color(1), color(2)];
            let whole = self.side / LANES * LANES;
            for x in (0..whole).step_by(LANES) {
                // SAFETY: sixteen pixels are left of row and colors.
                unsafe {
                    let [red, green, blue] = colors;
                    let at = [&red[x..], &green[x..], &blue[x..]];
                    let pixels = self.pixels::<L>([at[0].as_ptr(), at[1].as_ptr(), at[2].as_ptr()]);
                    pixels.store_words(to[x..].as_mut_ptr());
                }
            }
            if whole < self.side {
                let rest = colors.map(|color| {
                    let mut rest = [0.0; LANES];
                    rest[..self.side - whole].copy_from_slice(&color[whole..]);
                    rest
                });
                let mut last = [0; LANES];
                // SAFETY: arrays of sixteen.
                unsafe {
                    let [red, green, blue] = &rest;
                    let at = [red.as_ptr(), green.as_ptr(), blue.as_ptr()];
                    let pixels = self.pixels::<L>(at);
                    pixels.store_words(last.as_mut_ptr());
                }
                to[whole..].copy_from_slice(&last[..self.side - whole]);
            }
        }
    }
}

impl Image<'_> {
    /// Words of sixteen pixels, red in the lowest byte.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`, and sixteen values of each color can be read.
    #[inline(always)]
    unsafe fn pixels<L: Lanes>(&self, colors: [*const f32; 3]) -> L {
        // SAFETY: the caller's promise. Three bytes fit into the 24 bits that f32 holds.
        unsafe {
            // Written out: a closure would be compiled on its own, for lesser instructions.
            let red = self.quantizer.round(L::load(colors[0]));
            let green = self.quantizer.round(L::load(colors[1]));
            let blue = self.quantizer.round(L::load(colors[2]));
            let two = green.mul_add(L::splat(256.0), red);
            blue.mul_add(L::splat(65_536.0), two)
        }
    }
}

/// Rounds a map to bytes.
pub(super) struct Quantize {
    /// Pixels at distances of the second, here and below.
    pub(super) input: (*const f32, usize),
    pub(super) n_blocks: usize,
    pub(super) quantizer: Quantizer,
    pub(super) output: (*mut u8, usize),
    /// Which pixels.
    pub(super) parts: std::ops::Range<usize>,
}

impl Work for Quantize {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        for pixel in self.parts.clone() {
            for channel in (0..self.n_blocks * LANES).step_by(LANES) {
                // SAFETY: pixels lie in input and output, as the caller of `perform`
                // promised.
                unsafe {
                    let value = L::load(self.input.0.add(pixel * self.input.1 + channel));
                    let to = self.output.0.add(pixel * self.output.1 + channel);
                    self.quantizer.store(value, to);
                }
            }
        }
    }
}

/// Makes values of a map of bytes.
pub(super) struct Dequantize {
    pub(super) input: (*const u8, usize),
    pub(super) n_blocks: usize,
    pub(super) quantization: Quantization,
    pub(super) output: (*mut f32, usize),
    /// Which pixels.
    pub(super) parts: std::ops::Range<usize>,
}

impl Work for Dequantize {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        for pixel in self.parts.clone() {
            for channel in (0..self.n_blocks * LANES).step_by(LANES) {
                // SAFETY: as above.
                unsafe {
                    let from = self.input.0.add(pixel * self.input.1 + channel);
                    let value: L = quantization::load(self.quantization, from);
                    value.store(self.output.0.add(pixel * self.output.1 + channel));
                }
            }
        }
    }
}
