//! A fixed rotation that makes the components of any unit vector alike, so that two bits
//! serve each of them equally well.
//!
//! Random signs and fast Hadamard transforms in turn (Ailon and Chazelle, STOC 2006). A
//! length that is no power of two is covered by two overlapping windows. Only additions,
//! subtractions and one multiplication by a constant, in a fixed order: the same bits on
//! every machine. It costs `O(d log d)` and stores nothing.

use crate::random::Random;

/// Changing this changes every 2-bit code: a new gallery version.
const SEED: u64 = 0x45_59_41_53;
const ROUNDS: usize = 3;

/// Rotates a vector in place; scores between rotated vectors are those between the vectors,
/// but for rounding.
pub fn rotate(vector: &mut [f32]) {
    let Some(log_width) = vector.len().checked_ilog2() else {
        return;
    };
    let width = 1_usize << log_width;
    let last = vector.len() - width;
    let windows = if last == 0 { vec![0] } else { vec![0, last] };
    let mut random = Random::new(SEED);
    for _ in 0..ROUNDS {
        for start in &windows {
            flip_signs(vector, &mut random);
            hadamard(&mut vector[*start..][..width]);
        }
    }
}

fn flip_signs(vector: &mut [f32], random: &mut Random) {
    for components in vector.chunks_mut(64) {
        let signs = random.bits();
        for (i, x) in components.iter_mut().enumerate() {
            if signs >> i & 1 == 1 {
                *x = -*x;
            }
        }
    }
}

/// The orthonormal Hadamard transform of a power of two of components.
fn hadamard(vector: &mut [f32]) {
    let mut half = 1;
    while half < vector.len() {
        for pair in vector.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (vector.len() as f32).sqrt();
    for x in vector {
        *x *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sum of up to 8192 products of rounded f32.
    const TOLERANCE: f32 = 1e-5;

    #[test]
    fn lengths_and_scores_are_kept_and_peaks_are_spread() {
        for dim in [1, 2, 8, 24, 80, 128, 136, 512, 1000] {
            let mut peak = vec![0.0; dim];
            peak[dim / 2] = 1.0;
            let mut flat: Vec<f32> = (0..dim).map(|i| (i as f32 + 1.0).sin()).collect();
            crate::embedding::l2_normalize(&mut flat);
            let before = flat[dim / 2];
            rotate(&mut peak);
            rotate(&mut flat);
            let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!((product(&peak, &peak) - 1.0).abs() < TOLERANCE, "{dim}");
            assert!((product(&flat, &flat) - 1.0).abs() < TOLERANCE, "{dim}");
            assert!((product(&peak, &flat) - before).abs() < TOLERANCE, "{dim}");
            if dim >= 80 {
                let largest = peak.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                assert!(largest < 6.0 / (dim as f32).sqrt(), "{dim}: {largest}");
            }
        }
        rotate(&mut []);
    }
}
