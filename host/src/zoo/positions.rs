//! Learned positions of tokens for another side than the one they were trained at.
//!
//! The class token's position is kept. Those of the patches are a square map, which is
//! interpolated as DINOv2 does: bicubic with a = -0.75 (Keys, 1981), centers of pixels on
//! each other, places beyond the edge take the edge's values, no low-pass filter; and the
//! scale is that of a map larger by 0.1, which its authors added against rounding. ViT-B/16
//! is treated alike: torchvision's own helper puts the corners on each other instead.

use crate::weights::Weight;

/// Added to the new side when the scale is computed.
const OFFSET: f64 = 0.1;

/// The steepness of the cubic at its neighbors.
const CUBIC_A: f64 = -0.75;

/// Positions `[1, 1 + m^2, channels]` made of `[1, 1 + n^2, channels]`; `None` if either is no
/// class token before a square.
pub(super) fn resized(trained: &Weight, tokens: usize) -> Option<Weight> {
    let [1, n_trained, channels] = trained.shape[..] else {
        return None;
    };
    let (from, to) = (side_of(n_trained)?, side_of(tokens)?);
    let (class, patches) = trained.values.split_at(channels);
    let taps = taps(from, to);
    let mut values = class.to_vec();
    for rows in &taps {
        for columns in &taps {
            let mut sums = vec![0.0; channels];
            for (row, of_row) in rows {
                for (column, of_column) in columns {
                    let patch = &patches[(row * from + column) * channels..][..channels];
                    for (sum, value) in sums.iter_mut().zip(patch) {
                        *sum += of_row * of_column * f64::from(*value);
                    }
                }
            }
            values.extend(sums.into_iter().map(|sum| sum as f32));
        }
    }
    Some(Weight {
        shape: vec![1, tokens, channels],
        values,
    })
}

/// Side of the square of patches behind a class token.
fn side_of(tokens: usize) -> Option<usize> {
    let n_patches = tokens.checked_sub(1)?;
    let side = n_patches.isqrt();
    (side > 0 && side * side == n_patches).then_some(side)
}

/// For every new row, or column, the four trained ones that it is made of, with their shares.
fn taps(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    let step = from as f64 / (to as f64 + OFFSET);
    let of_new = |new: usize| {
        let at = step * (new as f64 + 0.5) - 0.5;
        let first = at.floor() - 1.0;
        [0.0, 1.0, 2.0, 3.0].map(|tap| {
            let place = (first + tap).clamp(0.0, (from - 1) as f64);
            (place as usize, cubic(at - first - tap))
        })
    };
    (0..to).map(of_new).collect()
}

/// The share of a neighbor at this distance, below 2.
fn cubic(distance: f64) -> f64 {
    let x = distance.abs();
    if x <= 1.0 {
        ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1.0
    } else {
        ((x - 5.0) * x + 8.0) * x * CUBIC_A - 4.0 * CUBIC_A
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_a_place_add_up_to_one() {
        for (from, to) in [(37, 16), (14, 24), (1, 3)] {
            for taps in taps(from, to) {
                let sum: f64 = taps.iter().map(|(_, share)| share).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{from} to {to}: {sum}");
            }
        }
    }

    #[test]
    fn a_class_token_stays_and_constant_patches_stay_constant() {
        let mut values = vec![7.0, -7.0];
        values.extend([0.25, -3.0].repeat(9));
        let trained = Weight {
            shape: vec![1, 10, 2],
            values,
        };
        let found = resized(&trained, 26).unwrap();
        assert_eq!(found.shape, [1, 26, 2]);
        assert_eq!(found.values[..2], [7.0, -7.0]);
        let mut patches = found.values[2..].chunks_exact(2);
        assert!(patches.all(|patch| patch == [0.25, -3.0]));
        // 11 patches are no square, on either side.
        assert_eq!(resized(&trained, 12), None);
    }
}
