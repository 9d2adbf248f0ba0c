//! From the samples of the channels to pixels: chroma that was stored more coarsely is
//! interpolated, then YCbCr becomes RGB. Whole numbers only.

use super::header::Colors;

/// The samples of one channel, in whole blocks.
#[derive(Default)]
pub(super) struct Plane {
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) samples: Vec<u8>,
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.stride]
    }
}

/// Makes rows of pixels, in memory that it keeps.
#[derive(Default)]
pub(super) struct Painter {
    /// A row of each chroma between two stored ones.
    between: [Vec<u8>; 2],
    /// A row of each chroma in the width of the image.
    wide: [Vec<u8>; 2],
}

impl Painter {
    /// Row `y` of the image. The first plane has `across` x `down` samples for one of the
    /// others.
    #[inline(always)]
    pub(super) fn paint(
        &mut self,
        planes: &[Plane; 3],
        colors: Colors,
        (across, down): (usize, usize),
        y: usize,
        rgb: &mut [u8],
    ) {
        let first = planes[0].row(y);
        if colors == Colors::Gray {
            return interleave(first, first, first, rgb);
        }
        let Self { between, wide } = self;
        let mut chroma = [&[][..]; 2];
        let memory = between.iter_mut().zip(wide);
        for ((row, plane), (between, wide)) in chroma.iter_mut().zip(&planes[1..]).zip(memory) {
            *row = plane.row(y / down);
            if down == 2 {
                let other = if y % 2 == 0 {
                    (y / 2).saturating_sub(1)
                } else {
                    (y / 2 + 1).min(plane.rows - 1)
                };
                between.resize(plane.stride, 0);
                between_rows(row, plane.row(other), between);
                *row = between;
            }
            if across == 2 {
                wide.resize(2 * plane.stride, 0);
                between_columns(row, wide);
                *row = wide;
            }
        }
        let [second, third] = chroma;
        match colors {
            Colors::YCbCr => to_rgb(first, second, third, rgb),
            _ => interleave(first, second, third, rgb),
        }
    }
}

/// Three parts of the nearer row, one of the other one, rounded.
#[inline(always)]
fn between_rows(near: &[u8], far: &[u8], row: &mut [u8]) {
    for ((out, near), far) in row.iter_mut().zip(near).zip(far) {
        *out = nearer(*near, *far);
    }
}

#[inline(always)]
fn nearer(near: u8, far: u8) -> u8 {
    ((3 * u16::from(near) + u16::from(far) + 2) >> 2) as u8
}

/// Twice as many columns: each sample becomes two, each nearer to one of its neighbors. The
/// outermost ones stay. `wide` is twice as long as `row`, which has at least 2 samples.
#[inline(always)]
fn between_columns(row: &[u8], wide: &mut [u8]) {
    let len = row.len();
    let wide = &mut wide.as_chunks_mut::<2>().0[..len];
    wide[0] = [row[0], nearer(row[0], row[1])];
    wide[len - 1] = [nearer(row[len - 1], row[len - 2]), row[len - 1]];
    let inner = &mut wide[1..len - 1];
    let (left, middle, right) = (&row[..len - 2], &row[1..len - 1], &row[2..]);
    for (((out, left), middle), right) in inner.iter_mut().zip(left).zip(middle).zip(right) {
        *out = [nearer(*middle, *left), nearer(*middle, *right)];
    }
}

/// Fractional bits of the color matrix (ITU-T T.871).
const SHIFT: i32 = 14;
/// A tie goes down.
const HALF: i32 = (1 << (SHIFT - 1)) - 1;
const RED_OF_CR: i32 = 22970;
const GREEN_OF_CR: i32 = -11700;
const GREEN_OF_CB: i32 = -5638;
const BLUE_OF_CB: i32 = 29032;

/// One row of pixels, as many as `rgb` takes.
#[inline(always)]
fn to_rgb(y: &[u8], cb: &[u8], cr: &[u8], rgb: &mut [u8]) {
    let pixels = rgb.as_chunks_mut::<3>().0;
    for (((pixel, y), cb), cr) in pixels.iter_mut().zip(y).zip(cb).zip(cr) {
        let y = i32::from(*y);
        let (cb, cr) = (i32::from(*cb) - 128, i32::from(*cr) - 128);
        let sample = |sum: i32| {
            y.wrapping_add(sum.wrapping_add(HALF) >> SHIFT)
                .clamp(0, 255) as u8
        };
        *pixel = [
            sample(cr.wrapping_mul(RED_OF_CR)),
            sample(
                cr.wrapping_mul(GREEN_OF_CR)
                    .wrapping_add(cb.wrapping_mul(GREEN_OF_CB)),
            ),
            sample(cb.wrapping_mul(BLUE_OF_CB)),
        ];
    }
}

/// One row of pixels from channels that are R, G and B.
#[inline(always)]
fn interleave(r: &[u8], g: &[u8], b: &[u8], rgb: &mut [u8]) {
    let pixels = rgb.as_chunks_mut::<3>().0;
    for (((pixel, r), g), b) in pixels.iter_mut().zip(r).zip(g).zip(b) {
        *pixel = [*r, *g, *b];
    }
}
