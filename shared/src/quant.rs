//! Numbers in fewer bits: f16 and symmetric int8, for weights and embeddings.
//!
//! Activations are not quantized here: what the device encoder does with them, the host sees
//! only by running it.

use half::f16;

/// Rounds to the nearest f16, ties to even; beyond 65504 it becomes infinite.
#[must_use]
pub fn to_f16(values: &[f32]) -> Vec<f16> {
    values.iter().map(|&x| f16::from_f32(x)).collect()
}

/// Bytes of f16 values, little-endian.
#[must_use]
pub fn f16_bytes(values: &[f16]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|x| x.to_bits().to_le_bytes())
        .collect()
}

/// Bytes of f32 values, little-endian.
#[must_use]
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// f32 values from little-endian bytes; a rest of less than four bytes is left out.
#[must_use]
pub fn f32_from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// Quantizes one component: `x / scale`, ties to even, clamped to -127..=127.
///
/// -128 is left out so that `-q` always fits. Ties go to even, as ONNX defines
/// `QuantizeLinear`. NaN becomes 0: a broken component must not win a match.
#[must_use]
pub fn to_i8(x: f32, scale: f32) -> i8 {
    debug_assert!(0.0 < scale, "scale {scale} is not positive");
    (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

/// The scale that maps the largest magnitude to 127; 1 for all zeros.
#[must_use]
pub fn symmetric_scale(values: &[f32]) -> f32 {
    let largest = values
        .iter()
        .fold(0.0_f32, |largest, x| largest.max(x.abs()));
    // Below the smallest normal number the quotient would lose its meaning.
    if largest < 127.0 * f32::MIN_POSITIVE {
        1.0
    } else {
        largest / 127.0
    }
}

/// The scale that maps to 127 the magnitude which a share of all magnitudes does not
/// exceed; the rest saturates. As [`symmetric_scale`] for a share of 1 or few values.
#[must_use]
pub fn percentile_scale(values: &[f32], share: f64) -> f32 {
    let mut magnitudes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    magnitudes.sort_unstable_by(f32::total_cmp);
    let n_kept = (magnitudes.len() as f64 * share).ceil() as usize;
    match n_kept.checked_sub(1).and_then(|idx| magnitudes.get(idx)) {
        // Where most values are zero, the few others carry everything.
        Some(&largest) if largest > 0.0 => symmetric_scale(&[largest]),
        _ => symmetric_scale(values),
    }
}

/// Candidates between [`symmetric_scale`] and [`LEAST_SHARE`] of it.
const N_CANDIDATES: u32 = 64;

/// Below this share of the largest magnitude, clipping costs more than finer steps save for
/// any distribution met in weights.
const LEAST_SHARE: f64 = 0.3;

/// The scale with the least squared error of rounding and saturation, among
/// [`symmetric_scale`] and smaller ones on a grid.
#[must_use]
pub fn least_squares_scale(values: &[f32]) -> f32 {
    let widest = symmetric_scale(values);
    let error = |scale: f32| squared_error(values, scale);
    let mut best = (error(widest), widest);
    for step in 1..=N_CANDIDATES {
        let share = 1.0 - (1.0 - LEAST_SHARE) * f64::from(step) / f64::from(N_CANDIDATES);
        let scale = (f64::from(widest) * share) as f32;
        let found = error(scale);
        if scale > 0.0 && found < best.0 {
            best = (found, scale);
        }
    }
    best.1
}

/// Adding and subtracting this rounds a small f32 to the nearest integer, ties to even, in
/// two instructions that every CPU has.
const ROUNDER: f32 = 12_582_912.0;

/// Sum of squared errors of [`to_i8`], eight values at a time.
fn squared_error(values: &[f32], scale: f32) -> f32 {
    let inverse = scale.recip();
    let error = |x: f32| {
        let code = (x * inverse).clamp(-127.0, 127.0);
        let error = (code + ROUNDER - ROUNDER) * scale - x;
        error * error
    };
    let mut sums = [0.0; 8];
    let (eights, rest) = values.as_chunks::<8>();
    for eight in eights {
        for (sum, &x) in sums.iter_mut().zip(eight) {
            *sum += error(x);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&x| error(x)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_that_clip_keep_the_many_and_give_up_the_few() {
        let mut values: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) / 500.0).collect();
        values.push(40.0);
        let widest = symmetric_scale(&values);
        let least = least_squares_scale(&values);
        let percentile = percentile_scale(&values, 0.999);
        assert_eq!(percentile, symmetric_scale(&values[..1000]));
        assert!(least < widest, "{least} and {widest}");
        let error = |scale: f32| -> f32 {
            let error = |&x: &f32| f32::from(to_i8(x, scale)) * scale - x;
            values.iter().map(error).map(|error| error * error).sum()
        };
        assert!(error(least) < error(widest) && error(least) <= error(percentile));
        // Nothing to clip.
        let two = [1.27, -1.27];
        assert_eq!(least_squares_scale(&two), symmetric_scale(&two));
        assert_eq!(percentile_scale(&two, 0.999), symmetric_scale(&two));
        for empty in [&[][..], &[0.0, 0.0]] {
            assert_eq!(least_squares_scale(empty), 1.0);
            assert_eq!(percentile_scale(empty, 0.999), 1.0);
        }
        let mut sparse = [0.0; 1000];
        sparse[3] = 2.0;
        assert_eq!(percentile_scale(&sparse, 0.9), symmetric_scale(&sparse));
    }

    #[test]
    fn ties_round_to_even_on_both_sides_of_zero() {
        let cases = [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-2.5, -2),
            (1e9, 127),
            (f32::NAN, 0),
        ];
        for (x, expected) in cases {
            assert_eq!(to_i8(x, 1.0), expected, "x = {x}");
        }
    }

    #[test]
    fn scale_reaches_both_ends_and_survives_zeros() {
        let values = [0.5, -2.0, 1.0];
        let scale = symmetric_scale(&values);
        assert_eq!(values.map(|x| to_i8(x, scale)), [32, -127, 64]);
        assert_eq!(symmetric_scale(&[0.0, 0.0]), 1.0);
        assert_eq!(symmetric_scale(&[]), 1.0);
    }

    #[test]
    fn f16_rounds_ties_to_even() {
        // Between 1 and 1 + 2^-10 lies the tie 1 + 2^-11.
        let tie = 1.0 + 2.0_f32.powi(-11);
        assert_eq!(to_f16(&[tie])[0].to_bits(), 0x3c00);
        assert_eq!(to_f16(&[tie + 2.0_f32.powi(-10)])[0].to_bits(), 0x3c02);
        assert!(to_f16(&[70000.0])[0].is_infinite());
    }

    #[test]
    fn bytes_are_little_endian_and_come_back() {
        assert_eq!(f16_bytes(&to_f16(&[1.0])), [0x00, 0x3c]);
        assert_eq!(f32_from_bytes(&f32_bytes(&[1.5, -2.0])), [1.5, -2.0]);
    }
}
