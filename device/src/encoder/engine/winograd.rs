//! 3x3 convolutions of stride 1 with fewer multiplications: Winograd's F(2x2, 3x3) and
//! F(4x4, 3x3) (Lavin and Gray, CVPR 2016).
//!
//! Squares of the input, as far apart as their output pixels, are transformed; each of
//! their places is a product of squares with a matrix of channels; and the sums of all
//! places become output pixels. The transforms of F(4x4) multiply by up to 8 and divide by
//! up to 24, which costs about two decimal digits of a sum; those of F(2x2) add only.

use super::epilogue::Activation;
use super::lanes::{LANES, Lanes, Work};
use super::lines::Lines;
use super::place::Place;
use super::product::{OUTSIDE, Rows};

/// Output pixels a side that one square gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Squares of 4x4 pixels for 2x2: 2.25 times fewer multiplications.
    F2,
    /// Squares of 6x6 pixels for 4x4: 4 times fewer.
    F4,
}

impl Form {
    /// Height and width of the output pixels of a square.
    fn step(self) -> usize {
        match self {
            Self::F2 => 2,
            Self::F4 => 4,
        }
    }

    /// Height and width of a square.
    fn size(self) -> usize {
        self.step() + 2
    }

    /// Places in a square.
    pub(super) fn n_places(self) -> usize {
        self.size() * self.size()
    }

    /// Squares that cover an output of so many pixels.
    pub(super) fn n_squares(self, [height, width]: [usize; 2]) -> usize {
        height.div_ceil(self.step()) * width.div_ceil(self.step())
    }

    /// Where the places of every square lie in the input: a row a square, a tap a place.
    pub(super) fn squares(self, input: Place, [top, left]: [usize; 2], output: [usize; 2]) -> Rows {
        let (size, step) = (self.size(), self.step());
        let mut offsets = Vec::with_capacity(self.n_places() * self.n_squares(output));
        for (y, x) in (0..size).flat_map(|y| (0..size).map(move |x| (y, x))) {
            for row in (0..output[0]).step_by(step) {
                for column in (0..output[1]).step_by(step) {
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
        Rows::new(offsets, self.n_places())
    }

    /// The transformed kernels, `G g G^T`, of sixteen 3x3 kernels `g`, which lie beside each
    /// other: place after place.
    pub(super) fn kernels(self, g: &[[f32; LANES]; 9], mut put: impl FnMut(usize, [f32; LANES])) {
        let rows: &[[f32; 3]] = match self {
            Self::F2 => &[
                [1.0, 0.0, 0.0],
                [0.5, 0.5, 0.5],
                [0.5, -0.5, 0.5],
                [0.0, 0.0, 1.0],
            ],
            Self::F4 => &[
                [1.0 / 4.0, 0.0, 0.0],
                [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
                [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
                [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
                [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
                [0.0, 0.0, 1.0],
            ],
        };
        let combined = |[a, b, c]: [f32; 3], values: [&[f32; LANES]; 3]| -> [f32; LANES] {
            std::array::from_fn(|lane| {
                a * values[0][lane] + b * values[1][lane] + c * values[2][lane]
            })
        };
        for (y, of_y) in rows.iter().enumerate() {
            let row: [[f32; LANES]; 3] =
                std::array::from_fn(|x| combined(*of_y, [&g[x], &g[3 + x], &g[6 + x]]));
            for (x, of_x) in rows.iter().enumerate() {
                let value = combined(*of_x, [&row[0], &row[1], &row[2]]);
                put(y * rows.len() + x, value);
            }
        }
    }

    /// The form that pays most for a convolution, if one does: by the steps of the
    /// products, and of the weights that have to come for each. It is the same for all
    /// instructions, so that they give the same bits.
    pub(super) fn best(output: [usize; 2], [inputs, outputs]: [usize; 2]) -> Option<Self> {
        if inputs < LANES {
            return None;
        }
        let panels = outputs.div_ceil(LANES);
        // Sixteen weights come in about the time of six products.
        let products = |places: usize, rows: usize| places * (rows + 6) * inputs * panels;
        let direct = products(9, output[0] * output[1]);
        let steps = |form: Self| {
            let n_squares = form.n_squares(output);
            // A transform of sixteen channels of a square takes about five operations,
            // loads and stores a place.
            let transforms = n_squares * form.n_places() * 5 * (inputs.div_ceil(LANES) + panels);
            products(form.n_places(), n_squares) + transforms
        };
        let best = [Self::F2, Self::F4]
            .into_iter()
            .min_by_key(|form| steps(*form));
        best.filter(|form| steps(*form) < direct)
    }
}

/// The transforms of a form, of rows or columns of `SIZE` values and `STEP` results.
///
/// # Safety
/// The CPU has the instructions of `L`.
pub(super) trait Transforms<const SIZE: usize, const STEP: usize> {
    /// `B^T d`.
    unsafe fn input<L: Lanes>(d: [L; SIZE]) -> [L; SIZE];
    /// `A^T m`.
    unsafe fn output<L: Lanes>(m: [L; SIZE]) -> [L; STEP];
}

/// See [`Form::F2`].
pub(super) struct F2;

impl Transforms<4, 2> for F2 {
    #[inline(always)]
    unsafe fn input<L: Lanes>([d0, d1, d2, d3]: [L; 4]) -> [L; 4] {
        // SAFETY: the caller's promise.
        unsafe { [d0.sub(d2), d1.add(d2), d2.sub(d1), d1.sub(d3)] }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([m0, m1, m2, m3]: [L; 4]) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { [m0.add(m1).add(m2), m1.sub(m2).sub(m3)] }
    }
}

/// See [`Form::F4`].
pub(super) struct F4;

impl Transforms<6, 4> for F4 {
    #[inline(always)]
    unsafe fn input<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; 6]) -> [L; 6] {
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

    #[inline(always)]
    unsafe fn output<L: Lanes>([m0, m1, m2, m3, m4, m5]: [L; 6]) -> [L; 4] {
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
}

/// Transforms squares of the input: `B^T d B`.
pub(super) struct Scatter<'a> {
    pub(super) form: Form,
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

impl Work for Scatter<'_> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.form {
                Form::F2 => self.scatter::<L, F2, 4, 2>(),
                Form::F4 => self.scatter::<L, F4, 6, 4>(),
            }
        }
    }
}

impl Scatter<'_> {
    #[expect(clippy::needless_range_loop, reason = "columns are read across")]
    #[inline(always)]
    unsafe fn scatter<L: Lanes, T: Transforms<SIZE, STEP>, const SIZE: usize, const STEP: usize>(
        &self,
    ) {
        let stride = self.n_blocks * LANES;
        let plane = self.squares.n_rows() * stride;
        for square in self.parts.clone() {
            // SAFETY: offsets lie in the input, places and squares in the output; the
            // caller of `perform` promised both.
            unsafe {
                let pixels: [[*const f32; SIZE]; SIZE] = std::array::from_fn(|y| {
                    std::array::from_fn(|x| match self.squares.offset(y * SIZE + x, square) {
                        OUTSIDE => self.zeros,
                        offset => self.input.add(offset as usize),
                    })
                });
                for channel in (0..stride).step_by(LANES) {
                    let mut columns = [[L::splat(0.0); SIZE]; SIZE];
                    for (x, column) in columns.iter_mut().enumerate() {
                        *column =
                            T::input(std::array::from_fn(|y| L::load(pixels[y][x].add(channel))));
                    }
                    let output = self.output.add(square * stride + channel);
                    for y in 0..SIZE {
                        let row = T::input(std::array::from_fn(|x| columns[x][y]));
                        for (x, value) in row.into_iter().enumerate() {
                            value.store(output.add((y * SIZE + x) * plane));
                        }
                    }
                }
            }
        }
    }
}

/// Turns sums into output pixels: `A^T m A`, and what follows.
pub(super) struct Gather<'a> {
    pub(super) form: Form,
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

impl Work for Gather<'_> {
    #[inline(always)]
    unsafe fn perform<L: Lanes>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.form {
                Form::F2 => self.gather::<L, F2, 4, 2>(),
                Form::F4 => self.gather::<L, F4, 6, 4>(),
            }
        }
    }
}

impl Gather<'_> {
    #[inline(always)]
    unsafe fn gather<L: Lanes, T: Transforms<SIZE, STEP>, const SIZE: usize, const STEP: usize>(
        &self,
    ) {
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
                    let mut columns = [[L::splat(0.0); STEP]; SIZE];
                    for (x, column) in columns.iter_mut().enumerate() {
                        *column = T::output(std::array::from_fn(|y| {
                            L::load(input.add((y * SIZE + x) * plane))
                        }));
                    }
                    let bias = L::load(bias[channel..].as_ptr());
                    let mut pixels = [[[0.0_f32; LANES]; STEP]; STEP];
                    for y in 0..STEP {
                        let row = T::output(std::array::from_fn(|x| columns[x][y]));
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
