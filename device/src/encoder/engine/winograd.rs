//! 3x3 convolutions of stride 1 with a quarter of the multiplications: Winograd's
//! F(4x4, 3x3) (Lavin and Gray, CVPR 2016).
//!
//! Squares of 6x6 input pixels, four apart, are transformed; each of their 36 places is a
//! product of squares with a matrix of channels; and each 36 sums become 4x4 output pixels.
//! The transforms multiply by up to 8 and divide by up to 24, which costs about two decimal
//! digits of a sum.

use super::epilogue::Activation;
use super::lanes::{Isa, LANES, Lanes, Work};
use super::lines::Lines;
use super::place::Place;
use super::product::{OUTSIDE, Rows};

/// Height and width of a transformed square.
const SQUARE: usize = 6;

/// Height and width of the output pixels that one square gives.
const STEP: usize = 4;

/// Places in a square.
pub(super) const PLACES: usize = SQUARE * SQUARE;

/// Squares that cover an output of so many pixels.
pub(super) fn n_squares([height, width]: [usize; 2]) -> usize {
    height.div_ceil(STEP) * width.div_ceil(STEP)
}

/// Where the places of every square lie in the input: a row a square, a tap a place.
pub(super) fn squares(input: Place, [top, left]: [usize; 2], output: [usize; 2]) -> Rows {
    let mut offsets = Vec::with_capacity(PLACES * n_squares(output));
    for (y, x) in (0..SQUARE).flat_map(|y| (0..SQUARE).map(move |x| (y, x))) {
        for row in (0..output[0]).step_by(STEP) {
            for column in (0..output[1]).step_by(STEP) {
                let at = [(row + y).checked_sub(top), (column + x).checked_sub(left)];
                offsets.push(match at {
                    [Some(y), Some(x)] if y < input.height && x < input.width => {
                        ((y * input.width + x) * input.stride) as u32
                    }
                    _ => OUTSIDE,
                });
            }
        }
    }
    Rows::new(offsets, PLACES, input.channels)
}

/// The transformed kernel, `G g G^T`, of one 3x3 kernel `g`.
pub(super) fn kernel(weights: &[f32]) -> [f32; PLACES] {
    const G: [[f64; 3]; SQUARE] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    let mut rows = [[0.0; 3]; SQUARE];
    for (row, g) in rows.iter_mut().zip(&G) {
        for (x, value) in row.iter_mut().enumerate() {
            *value = (0..3).map(|y| g[y] * f64::from(weights[y * 3 + x])).sum();
        }
    }
    std::array::from_fn(|place| {
        let (row, g) = (rows[place / SQUARE], G[place % SQUARE]);
        (row[0] * g[0] + row[1] * g[1] + row[2] * g[2]) as f32
    })
}

/// Transforms squares of the input: `B^T d B`.
pub(super) struct Scatter<'a> {
    pub(super) input: *const f32,
    pub(super) squares: &'a Rows,
    /// As many zeros as the input has channels, filled up to whole lanes.
    pub(super) zeros: *const f32,
    /// Channels in lanes.
    pub(super) n_blocks: usize,
    /// `[place][square][channel]`.
    pub(super) output: *mut f32,
    /// Which squares.
    pub(super) parts: std::ops::Range<usize>,
}

/// One transform of a row or column of a square.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn input_transform<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; SQUARE]) -> [L; SQUARE] {
    // SAFETY: the caller's promise.
    unsafe {
        let (two, four, five) = (L::splat(2.0), L::splat(-4.0), L::splat(-5.0));
        let even = d2.mul_add(four, d4);
        let odd = d1.mul_add(four, d3);
        let near = d4.sub(d2);
        let far = d3.sub(d1).mul(two);
        [
            d2.mul_add(five, d0.mul_add(L::splat(4.0), d4)),
            even.add(odd),
            even.sub(odd),
            near.add(far),
            near.sub(far),
            d3.mul_add(five, d1.mul_add(L::splat(4.0), d5)),
        ]
    }
}

impl Work for Scatter<'_> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let stride = self.n_blocks * LANES;
        let plane = self.squares.n_rows() * stride;
        for square in self.parts.clone() {
            // SAFETY: offsets lie in the input, places and squares in the output; the
            // caller of `perform` promised both.
            unsafe {
                let pixels: [*const f32; PLACES] = std::array::from_fn(|place| {
                    match self.squares.offset(place, square) {
                        OUTSIDE => self.zeros,
                        offset => self.input.add(offset as usize),
                    }
                });
                for channel in (0..stride).step_by(LANES) {
                    let mut columns = [[L::splat(0.0); SQUARE]; SQUARE];
                    for x in 0..SQUARE {
                        let column = std::array::from_fn(|y| {
                            L::load(pixels[y * SQUARE + x].add(channel))
                        });
                        columns[x] = input_transform(column);
                    }
                    let output = self.output.add(square * stride + channel);
                    for y in 0..SQUARE {
                        let row = input_transform(std::array::from_fn(|x| columns[x][y]));
                        for (x, value) in row.into_iter().enumerate() {
                            value.store(output.add((y * SQUARE + x) * plane));
                        }
                    }
                }
            }
        }
    }
}

/// Turns sums into output pixels: `A^T m A`, and what follows.
pub(super) struct Gather<'a> {
    /// `[place][square][channel]`.
    pub(super) input: *const f32,
    pub(super) n_squares: usize,
    /// Output channels in lanes.
    pub(super) n_blocks: usize,
    pub(super) bias: &'a Lines,
    pub(super) residual: Option<(*const f32, usize)>,
    pub(super) activation: Activation,
    /// The output's first pixel, and how it lies there.
    pub(super) output: *mut f32,
    pub(super) place: Place,
    /// Which squares.
    pub(super) parts: std::ops::Range<usize>,
}

/// One transform of a row or column of sums.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn output_transform<L: Lanes>([m0, m1, m2, m3, m4, m5]: [L; SQUARE]) -> [L; STEP] {
    // SAFETY: the caller's promise.
    unsafe {
        let (near, near_slope) = (m1.add(m2), m1.sub(m2));
        let (far, far_slope) = (m3.add(m4), m3.sub(m4));
        [
            m0.add(near).add(far),
            far_slope.mul_add(L::splat(2.0), near_slope),
            far.mul_add(L::splat(4.0), near),
            far_slope.mul_add(L::splat(8.0), near_slope).add(m5),
        ]
    }
}

impl Work for Gather<'_> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        let stride = self.n_blocks * LANES;
        let plane = self.n_squares * stride;
        let squares_across = self.place.width.div_ceil(STEP);
        let bias = self.bias.as_slice();
        for square in self.parts.clone() {
            let top = square / squares_across * STEP;
            let left = square % squares_across * STEP;
            let height = STEP.min(self.place.height - top);
            let width = STEP.min(self.place.width - left);
            for channel in (0..stride).step_by(LANES) {
                // SAFETY: places and squares lie in the input, pixels in the output and
                // the residual; the caller of `perform` promised all.
                unsafe {
                    let input = self.input.add(square * stride + channel);
                    let mut columns = [[L::splat(0.0); STEP]; SQUARE];
                    for (x, column) in columns.iter_mut().enumerate() {
                        *column = output_transform(std::array::from_fn(|y| {
                            L::load(input.add((y * SQUARE + x) * plane))
                        }));
                    }
                    let bias = L::load(bias[channel..].as_ptr());
                    let mut pixels = [[[0.0_f32; LANES]; STEP]; STEP];
                    for y in 0..STEP {
                        let row = output_transform(std::array::from_fn(|x| columns[x][y]));
                        for x in 0..STEP {
                            row[x].add(bias).store(pixels[y][x].as_mut_ptr());
                        }
                    }
                    for (y, row) in pixels[..height].iter().enumerate() {
                        for (x, pixel) in row[..width].iter().enumerate() {
                            let at = (top + y) * self.place.width + left + x;
                            let mut value = L::load(pixel.as_ptr());
                            if let Some((residual, stride)) = self.residual {
                                value = value.add(L::load(residual.add(at * stride + channel)));
                            }
                            let value = self.activation.apply(value);
                            value.store(self.output.add(at * self.place.stride + channel));
                        }
                    }
                }
            }
        }
    }
}

/// Whether it pays: the steps of both ways, in products of lanes.
pub(super) fn pays(isa: Isa, output: [usize; 2], [inputs, outputs]: [usize; 2]) -> bool {
    if inputs < LANES || isa == Isa::Plain {
        return false;
    }
    let n_squares = n_squares(output);
    let panels = outputs.div_ceil(LANES);
    let direct = output[0] * output[1] * 9 * inputs * panels;
    // Few squares read all weights for little; a transform of sixteen channels of a square
    // is about 150 operations and 40 to 70 loads and stores.
    let products = PLACES * inputs * panels * (n_squares + 2);
    let transforms = n_squares * (150 * inputs.div_ceil(LANES) + 130 * panels);
    products + transforms < direct
}
