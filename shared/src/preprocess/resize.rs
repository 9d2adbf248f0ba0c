//! The antialiased resize, in fixed point on 8-bit samples.
//!
//! A separable resampling: columns first, then rows, each pass rounded to u8. The filter
//! is widened by the reduction, so that every source pixel under an output pixel counts.
//! Weights are computed in f64 with additions, multiplications and divisions only, then
//! rounded to 22 fractional bits: everything after that is integer arithmetic, and every
//! CPU gives the same bits. The result equals Pillow's `Image.resize` bit for bit.

use std::ops::Range;

use super::{Filter, PreprocessSpec, RgbImage};

/// Fractional bits of a weight: i32 less 8 bits of the sample, the sign, and one bit for
/// what the negative lobes of a cubic add to the sum.
const FRACTION_BITS: u32 = 32 - 8 - 2;

/// The part of an image that a resize reads, in pixels: columns `left..right`, rows
/// `top..bottom`. Sides need not be whole numbers; pixel `i` covers `i..i + 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceBox {
    /// Left side, at least 0.
    pub left: f64,
    /// Top side, at least 0.
    pub top: f64,
    /// Right side, at most the width.
    pub right: f64,
    /// Bottom side, at most the height.
    pub bottom: f64,
}

impl SourceBox {
    /// All of an image.
    #[must_use]
    pub fn whole(image: &RgbImage) -> Self {
        Self {
            left: 0.0,
            top: 0.0,
            right: f64::from(image.width),
            bottom: f64::from(image.height),
        }
    }

    /// Whether the box is not empty and lies inside of the image.
    #[must_use]
    pub fn fits(&self, image: &RgbImage) -> bool {
        0.0 <= self.left
            && self.left < self.right
            && self.right <= f64::from(image.width)
            && 0.0 <= self.top
            && self.top < self.bottom
            && self.bottom <= f64::from(image.height)
    }
}

/// Resizes the part `source` of an image to `width` x `height` pixels.
///
/// Pixels around the box, but not around the image, contribute to its borders as far as
/// the filter reaches. The sides of the box are rounded to f32 first.
///
/// # Panics
///
/// If the box does not [fit](SourceBox::fits) the image, or a side of the result is zero.
#[must_use]
pub fn resize(
    image: &RgbImage,
    source: SourceBox,
    width: u32,
    height: u32,
    filter: Filter,
) -> RgbImage {
    assert!(source.fits(image), "{source:?} lies outside of {image:?}");
    assert!(width > 0 && height > 0, "a side of the result is zero");
    let columns = Axis {
        len: image.width,
        start: source.left as f32,
        end: source.right as f32,
        resized: u64::from(width),
    };
    let rows = Axis {
        len: image.height,
        start: source.top as f32,
        end: source.bottom as f32,
        resized: u64::from(height),
    };
    let plan = Plan {
        columns: (columns, 0..u64::from(width)),
        rows: (rows, 0..u64::from(height)),
        filter,
    };
    Resizer::default().image(image, &plan)
}

/// Brings the shorter side of an image to `resize_shorter` pixels and keeps the centred
/// square of `crop` pixels.
///
/// The longer side becomes `resize_shorter * longer / shorter`, rounded down. The square
/// starts at half of what is left over, rounded to the even neighbor if that is no whole
/// number.
///
/// # Panics
///
/// If the spec has a [fault](PreprocessSpec::fault).
#[must_use]
pub fn resize_and_crop(image: &RgbImage, spec: &PreprocessSpec) -> RgbImage {
    Resizer::default().image(image, &Plan::of(image, spec))
}

/// Half of `n`, a tie to the even neighbor.
fn half_to_even(n: u64) -> u64 {
    let half = n / 2;
    half + (n % 2) * (half % 2)
}

/// One direction of a resize: `start..end` of `len` pixels become `resized` pixels.
#[derive(Clone, Copy, PartialEq)]
struct Axis {
    len: u32,
    start: f32,
    end: f32,
    resized: u64,
}

impl Axis {
    fn is_identity(&self) -> bool {
        self.start == 0.0 && self.end == self.len as f32 && u64::from(self.len) == self.resized
    }
}

/// What is to be resized, and which pixels of the result are kept.
#[derive(Clone, PartialEq)]
pub(super) struct Plan {
    columns: (Axis, Range<u64>),
    rows: (Axis, Range<u64>),
    filter: Filter,
}

impl Plan {
    /// What [`resize_and_crop`] does, and panics as it says.
    pub(super) fn of(image: &RgbImage, spec: &PreprocessSpec) -> Self {
        if let Some(fault) = spec.fault() {
            panic!("a preprocess spec can not be applied: {fault}");
        }
        let shorter = u64::from(image.width.min(image.height));
        let axis = |len: u32| {
            let axis = Axis {
                len,
                start: 0.0,
                end: len as f32,
                resized: u64::from(spec.resize_shorter) * u64::from(len) / shorter,
            };
            let first = half_to_even(axis.resized - u64::from(spec.crop));
            (axis, first..first + u64::from(spec.crop))
        };
        Self {
            columns: axis(image.width),
            rows: axis(image.height),
            filter: spec.filter,
        }
    }
}

/// The source pixels of one output pixel.
struct Window {
    /// First source pixel.
    first: usize,
    /// Where the weights begin in the table.
    weights: Range<usize>,
}

/// What every output pixel of one direction is made of.
#[derive(Default)]
struct Weights {
    windows: Vec<Window>,
    fixed: Vec<i32>,
    /// The weights of one pixel before they are rounded.
    exact: Vec<f64>,
}

impl Weights {
    /// Computes the weights of the pixels `kept`.
    fn set(&mut self, axis: Axis, kept: Range<u64>, filter: Filter) {
        let scale = f64::from(axis.end - axis.start) / axis.resized as f64;
        let widening = scale.max(1.0);
        let (radius, shape): (f64, fn(f64) -> f64) = match filter {
            Filter::Bilinear => (1.0, triangle),
            Filter::Bicubic => (2.0, cubic),
        };
        let reach = radius * widening;
        let narrowing = 1.0 / widening;
        let Self {
            windows,
            fixed,
            exact,
        } = self;
        windows.clear();
        fixed.clear();
        for output in kept {
            let center = f64::from(axis.start) + (output as f64 + 0.5) * scale;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(axis.len as usize);
            exact.clear();
            exact.extend((first..end).map(|i| shape((i as f64 - center + 0.5) * narrowing)));
            let total: f64 = exact.iter().sum();
            let start = fixed.len();
            fixed.extend(exact.iter().map(|weight| to_fixed(weight / total)));
            windows.push(Window {
                first,
                weights: start..fixed.len(),
            });
        }
    }

    /// Every output pixel: its first source pixel and the weights from there on.
    fn windows(&self) -> impl ExactSizeIterator<Item = (usize, &[i32])> {
        self.windows
            .iter()
            .map(|window| (window.first, &self.fixed[window.weights.clone()]))
    }

    /// The source pixels that any output pixel reads.
    fn source(&self) -> Range<usize> {
        let first = self.windows.first().map_or(0, |window| window.first);
        let end = |window: &Window| window.first + window.weights.len();
        first..self.windows.last().map_or(first, end)
    }
}

fn triangle(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

/// R. Keys, "Cubic convolution interpolation for digital image processing", 1981.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Nearest multiple of 2^-22, a tie away from zero.
fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << FRACTION_BITS);
    if scaled < 0.0 {
        (scaled - 0.5) as i32
    } else {
        (scaled + 0.5) as i32
    }
}

const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// The sample that a sum stands for; sums start at one half.
fn to_sample(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Lanes that are summed up at once: enough to fill vector registers.
const BAND: usize = 32;

/// Fills `out` (at most [`BAND`] samples) with weighted sums: weight `k` goes with
/// `source[k * stride..]`.
///
/// No sum leaves i32: the absolute values of the weights of one output pixel add up to less
/// than 2 (in units of 2^22). Wrapping arithmetic keeps the overflow checks of a build out
/// of the innermost loop.
#[inline(always)]
fn blend(out: &mut [u8], source: &[u8], stride: usize, weights: &[i32]) {
    let mut sums = [HALF; BAND];
    let sums = &mut sums[..out.len()];
    for (k, weight) in weights.iter().enumerate() {
        let samples = &source[k * stride..][..sums.len()];
        for (sum, sample) in sums.iter_mut().zip(samples) {
            *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(*weight));
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = to_sample(*sum);
    }
}

/// Rows that the column pass works on at once.
const TILE: usize = 8;

/// Resizes one image after the other, in memory that it keeps.
#[derive(Default)]
pub(super) struct Resizer {
    /// What the weights were computed for.
    plan: Option<Plan>,
    columns: Weights,
    rows: Weights,
    /// The samples of [`TILE`] rows, one column after the other.
    tile: Vec<[u8; BAND]>,
    /// What the column pass made.
    narrowed: Vec<u8>,
    /// One row of the result.
    row: Vec<u8>,
}

/// Rows of samples, with anything in between.
#[derive(Clone, Copy)]
struct Rows<'a> {
    samples: &'a [u8],
    stride: usize,
}

impl Resizer {
    fn image(&mut self, image: &RgbImage, plan: &Plan) -> RgbImage {
        let side = |kept: &Range<u64>| (kept.end - kept.start) as u32;
        let (width, height) = (side(&plan.columns.1), side(&plan.rows.1));
        let mut samples = Vec::with_capacity(3 * width as usize * height as usize);
        self.resize(image, plan, |row| samples.extend_from_slice(row));
        RgbImage {
            width,
            height,
            samples,
        }
    }

    /// Computes the weights, unless they are there.
    fn set_plan(&mut self, plan: &Plan) {
        if self.plan.as_ref() != Some(plan) {
            let (axis, kept) = plan.columns.clone();
            self.columns.set(axis, kept, plan.filter);
            let (axis, kept) = plan.rows.clone();
            self.rows.set(axis, kept, plan.filter);
            self.plan = Some(plan.clone());
        }
    }

    /// Gives the rows of the result to `keep`, from top to bottom.
    pub(super) fn resize(&mut self, image: &RgbImage, plan: &Plan, keep: impl FnMut(&[u8])) {
        self.set_plan(plan);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was found.
            return unsafe { self.resize_avx2(image, plan, keep) };
        }
        self.resize_by(image, plan, keep);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn resize_avx2(&mut self, image: &RgbImage, plan: &Plan, keep: impl FnMut(&[u8])) {
        self.resize_by(image, plan, keep);
    }

    /// Both passes, to be compiled for the features of its caller.
    #[inline(always)]
    fn resize_by(&mut self, image: &RgbImage, plan: &Plan, mut keep: impl FnMut(&[u8])) {
        let (columns, kept_columns) = &plan.columns;
        let (rows, kept_rows) = &plan.rows;
        let row_len = 3 * (kept_columns.end - kept_columns.start) as usize;
        // The row pass reads only these rows, so the column pass makes no others.
        let read = match rows.is_identity() {
            true => kept_rows.start as usize..kept_rows.end as usize,
            false => self.rows.source(),
        };
        let source_len = 3 * image.width as usize;
        let source = &image.samples[read.start * source_len..read.end * source_len];
        let narrowed = if columns.is_identity() {
            Rows {
                samples: &source[3 * kept_columns.start as usize..],
                stride: source_len,
            }
        } else {
            resample_columns(
                source,
                source_len,
                &self.columns,
                &mut self.tile,
                &mut self.narrowed,
            )
        };
        if rows.is_identity() {
            for y in 0..read.len() {
                keep(&narrowed.samples[y * narrowed.stride..][..row_len]);
            }
            return;
        }
        self.row.resize(row_len, 0);
        for (first, weights) in self.rows.windows() {
            let source = &narrowed.samples[(first - read.start) * narrowed.stride..];
            let (bands, rest) = self.row.as_chunks_mut::<BAND>();
            let mut at = 0;
            for band in bands {
                blend(band, &source[at..], narrowed.stride, weights);
                at += BAND;
            }
            blend(rest, &source[at..], narrowed.stride, weights);
            keep(&self.row);
        }
    }
}

/// Every row of `source` in the width that `weights` give it.
#[inline(always)]
fn resample_columns<'a>(
    source: &[u8],
    source_len: usize,
    weights: &Weights,
    tile: &mut Vec<[u8; BAND]>,
    narrowed: &'a mut Vec<u8>,
) -> Rows<'a> {
    // A pixel is copied with the byte behind it, which the next pixel overwrites: the last
    // one of a row needs a place for it.
    let stride = 3 * weights.windows.len() + 1;
    let used = weights.source();
    narrowed.resize(source.len() / source_len * stride, 0);
    tile.resize(used.len(), [0; BAND]);
    for (source, target) in source
        .chunks(TILE * source_len)
        .zip(narrowed.chunks_mut(TILE * stride))
    {
        for (i, row) in source.chunks_exact(source_len).enumerate() {
            fill_tile(&row[3 * used.start..3 * used.end], i, tile);
        }
        for (x, (first, weights)) in weights.windows().enumerate() {
            let mut samples = [0; BAND];
            let columns = tile[first - used.start..].as_flattened();
            blend(&mut samples[..3 * TILE], columns, BAND, weights);
            for (i, row) in target.chunks_exact_mut(stride).enumerate() {
                row[3 * x..3 * x + 4].copy_from_slice(&samples[3 * i..3 * i + 4]);
            }
        }
    }
    Rows {
        samples: narrowed,
        stride,
    }
}

/// Puts the pixels of a row into the columns of a tile, as its `i`-th row.
#[inline(always)]
fn fill_tile(row: &[u8], i: usize, tile: &mut [[u8; BAND]]) {
    // With the byte behind it; a later row of the tile overwrites that.
    let pixels = row.windows(4).step_by(3);
    for (column, pixel) in tile.iter_mut().zip(pixels) {
        column[3 * i..3 * i + 4].copy_from_slice(pixel);
    }
    if let (Some(column), Some(pixel)) = (tile.last_mut(), row.last_chunk::<3>()) {
        column[3 * i..3 * i + 3].copy_from_slice(pixel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{IMAGENET_MEAN, IMAGENET_STD};
    use crate::random::Random;

    #[test]
    fn code_for_any_cpu_gives_the_samples_of_code_for_this_one() {
        let source = Random::new(1).fork("images");
        let (mut any, mut this) = (Resizer::default(), Resizer::default());
        for trial in 0..300 {
            let mut stream = source.at(trial);
            let side = |stream: &mut Random| 1 + stream.below(90) as u32;
            let (width, height) = (side(&mut stream), side(&mut stream));
            let samples = (0..3 * width * height)
                .map(|_| stream.bits() as u8)
                .collect();
            let image = RgbImage::new(width, height, samples).unwrap();
            let resize_shorter = side(&mut stream);
            let spec = PreprocessSpec {
                resize_shorter,
                crop: 1 + stream.below(resize_shorter as usize) as u32,
                filter: [Filter::Bilinear, Filter::Bicubic][stream.below(2)],
                mean: IMAGENET_MEAN,
                std: IMAGENET_STD,
            };
            let plan = Plan::of(&image, &spec);
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            any.set_plan(&plan);
            any.resize_by(&image, &plan, |row| expected.extend_from_slice(row));
            this.resize(&image, &plan, |row| found.extend_from_slice(row));
            assert!(found == expected, "{image:?} by {spec:?}");
        }
    }
}
