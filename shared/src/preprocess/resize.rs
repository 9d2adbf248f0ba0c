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
    resample(
        image,
        (columns, 0..u64::from(width)),
        (rows, 0..u64::from(height)),
        filter,
    )
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
        let kept = first..first + u64::from(spec.crop);
        (axis, kept)
    };
    // Only the pixels of the square are computed: they do not depend on the others.
    resample(image, axis(image.width), axis(image.height), spec.filter)
}

/// Half of `n`, a tie to the even neighbor.
fn half_to_even(n: u64) -> u64 {
    let half = n / 2;
    half + (n % 2) * (half % 2)
}

/// One direction of a resize: `start..end` of `len` pixels become `resized` pixels.
#[derive(Clone, Copy)]
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

/// The source pixels of one output pixel.
struct Window {
    /// First source pixel.
    first: usize,
    /// Where the weights begin in the table.
    weights: Range<usize>,
}

/// What every output pixel of one direction is made of.
struct Weights {
    windows: Vec<Window>,
    fixed: Vec<i32>,
}

impl Weights {
    fn new(axis: Axis, kept: Range<u64>, filter: Filter) -> Self {
        let scale = f64::from(axis.end - axis.start) / axis.resized as f64;
        let widening = scale.max(1.0);
        let (radius, shape): (f64, fn(f64) -> f64) = match filter {
            Filter::Bilinear => (1.0, triangle),
            Filter::Bicubic => (2.0, cubic),
        };
        let reach = radius * widening;
        let narrowing = 1.0 / widening;
        let mut weights = Self {
            windows: Vec::with_capacity((kept.end - kept.start) as usize),
            fixed: Vec::new(),
        };
        let mut exact = Vec::new();
        for output in kept {
            let center = f64::from(axis.start) + (output as f64 + 0.5) * scale;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(axis.len as usize);
            exact.clear();
            exact.extend((first..end).map(|i| shape((i as f64 - center + 0.5) * narrowing)));
            let total: f64 = exact.iter().sum();
            let start = weights.fixed.len();
            weights
                .fixed
                .extend(exact.iter().map(|weight| to_fixed(weight / total)));
            weights.windows.push(Window {
                first,
                weights: start..weights.fixed.len(),
            });
        }
        weights
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

/// Adds weighted samples to their sums.
///
/// No sum leaves i32: the absolute values of the weights of one output pixel add up to less
/// than 2 (in units of 2^22). Wrapping arithmetic keeps the overflow checks of a build out
/// of the innermost loop.
#[inline]
fn add_weighted(sums: &mut [i32], samples: &[u8], weight: i32) {
    for (sum, sample) in sums.iter_mut().zip(samples) {
        *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(weight));
    }
}

fn resample(
    image: &RgbImage,
    (columns, kept_columns): (Axis, Range<u64>),
    (rows, kept_rows): (Axis, Range<u64>),
    filter: Filter,
) -> RgbImage {
    let width = (kept_columns.end - kept_columns.start) as u32;
    let height = (kept_rows.end - kept_rows.start) as u32;
    let row_weights = Weights::new(rows, kept_rows.clone(), filter);
    // The row pass reads only these rows, so the column pass makes no others.
    let read = if rows.is_identity() {
        kept_rows.start as usize..kept_rows.end as usize
    } else {
        row_weights.source()
    };
    let narrowed = if columns.is_identity() {
        keep_columns(image, read.clone(), kept_columns)
    } else {
        let weights = Weights::new(columns, kept_columns, filter);
        resample_columns(image, read.clone(), &weights)
    };
    let samples = if rows.is_identity() {
        narrowed
    } else {
        resample_rows(&narrowed, 3 * width as usize, read.start, &row_weights)
    };
    RgbImage {
        width,
        height,
        samples,
    }
}

fn keep_columns(image: &RgbImage, rows: Range<usize>, kept: Range<u64>) -> Vec<u8> {
    let kept = 3 * kept.start as usize..3 * kept.end as usize;
    image
        .rows()
        .skip(rows.start)
        .take(rows.len())
        .flat_map(|row| &row[kept.clone()])
        .copied()
        .collect()
}

/// Rows that the column pass works on at once: enough lanes to fill vector registers.
const TILE: usize = 8;

fn resample_columns(image: &RgbImage, rows: Range<usize>, weights: &Weights) -> Vec<u8> {
    let row_len = 3 * weights.windows.len();
    let mut resampled = vec![0; rows.len() * row_len];
    // One column of the tile after the other: the samples of 8 rows lie side by side.
    let used = weights.source();
    let mut columns = vec![[0_u8; 3 * TILE]; used.len()];
    let source_len = 3 * image.width as usize;
    let source = &image.samples[rows.start * source_len..rows.end * source_len];
    for (source, target) in source
        .chunks(TILE * source_len)
        .zip(resampled.chunks_mut(TILE * row_len))
    {
        for (i, row) in source.chunks_exact(source_len).enumerate() {
            for (column, pixel) in columns
                .iter_mut()
                .zip(row[3 * used.start..].as_chunks::<3>().0)
            {
                column[3 * i..3 * i + 3].copy_from_slice(pixel);
            }
        }
        for (x, (first, weights)) in weights.windows().enumerate() {
            let mut sums = [HALF; 3 * TILE];
            for (column, weight) in columns[first - used.start..].iter().zip(weights) {
                add_weighted(&mut sums, column, *weight);
            }
            let samples = sums.map(to_sample);
            for (row, pixel) in target
                .chunks_exact_mut(row_len)
                .zip(samples.as_chunks::<3>().0)
            {
                row[3 * x..3 * x + 3].copy_from_slice(pixel);
            }
        }
    }
    resampled
}

/// `samples` holds rows of `row_len` samples from row `first_row` of the image on.
fn resample_rows(samples: &[u8], row_len: usize, first_row: usize, weights: &Weights) -> Vec<u8> {
    let mut resampled = Vec::with_capacity(row_len * weights.windows.len());
    let mut sums = vec![HALF; row_len];
    for (first, weights) in weights.windows() {
        sums.fill(HALF);
        let start = (first - first_row) * row_len;
        for (row, weight) in samples[start..].chunks_exact(row_len).zip(weights) {
            add_weighted(&mut sums, row, *weight);
        }
        resampled.extend(sums.iter().map(|sum| to_sample(*sum)));
    }
    resampled
}
