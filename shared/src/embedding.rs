//! What an embedding is, how two are scored, and how scores are ranked.
//!
//! Embeddings are unit vectors, a score is their dot product (the cosine): higher is
//! better. [`dot`] adds in a fixed order, so that every CPU ranks alike.

use std::cmp::Ordering;

use crate::fingerprint::ImageId;

/// Largest embedding dimension that files and programs accept.
pub const MAX_DIM: usize = 8192;

/// A vector whose length is below this points nowhere.
pub const MIN_NORM: f32 = 1e-12;

/// Similarity of two unit embeddings, from -1 to 1; higher is better.
pub type Score = f32;

/// Scales `vector` to length 1 and returns the length it had.
///
/// Follows `x / max(|x|, 1e-12)`: a zero vector stays zero. Callers that can not accept
/// one check the returned length against [`MIN_NORM`].
pub fn l2_normalize(vector: &mut [f32]) -> f32 {
    let sum: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let norm = sum.sqrt();
    let divisor = norm.max(f64::from(MIN_NORM));
    for x in vector {
        *x = (f64::from(*x) / divisor) as f32;
    }
    norm as f32
}

/// Number of partial sums in [`dot`]: two AVX registers, four of NEON.
const LANES: usize = 16;

/// Dot product with 16 partial sums, added pairwise at the end.
///
/// The order of additions is part of the definition: scalar code, autovectorized code and
/// hand-written kernels agree to the last bit. Products are rounded before they are added
/// (no fused multiply-add).
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(
        a.len(),
        b.len(),
        "dot product of vectors of different length"
    );
    let mut sums = [0.0_f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    for (lane, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += x * y;
    }
    add_lanes(sums)
}

/// Adds the partial sums of [`dot`], in its order: halves of the lanes onto each other.
#[inline]
#[must_use]
pub fn add_lanes(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

/// Best first: higher score, then smaller image id, then smaller row.
///
/// The id decides ties so that a gallery built in another order answers alike; the row
/// only matters when one image was stored twice. Scores are never NaN: both stores and
/// encoder refuse such embeddings.
#[inline]
#[must_use]
pub fn by_rank(a: (Score, ImageId, u32), b: (Score, ImageId, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2))
}

/// Row-major matrix of embeddings, `n_rows` x `dim`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    dim: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// An empty matrix to push rows into. `dim` must be in 1..=[`MAX_DIM`].
    #[must_use]
    pub fn new(dim: usize) -> Self {
        debug_assert!((1..=MAX_DIM).contains(&dim), "dimension {dim}");
        Self {
            dim,
            values: Vec::new(),
        }
    }

    /// An empty matrix with room for `n_rows` rows.
    #[must_use]
    pub fn with_capacity(dim: usize, n_rows: usize) -> Self {
        let mut empty = Self::new(dim);
        empty.values.reserve_exact(n_rows * dim);
        empty
    }

    /// Takes over a row-major matrix; `None` if it does not hold whole rows.
    #[must_use]
    pub fn from_values(dim: usize, values: Vec<f32>) -> Option<Self> {
        (dim > 0 && values.len().is_multiple_of(dim)).then_some(Self { dim, values })
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If `row` is not `dim` long.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.dim, "row of another dimension");
        self.values.extend_from_slice(row);
    }

    /// Components of one embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of embeddings.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// One embedding.
    #[must_use]
    pub fn row(&self, row_idx: usize) -> &[f32] {
        &self.values[row_idx * self.dim..][..self.dim]
    }

    /// All embeddings in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }

    /// The matrix, row by row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Scales every row to length 1.
    pub fn normalize_rows(&mut self) {
        self.values.chunks_exact_mut(self.dim).for_each(|row| {
            l2_normalize(row);
        });
    }

    /// First row that holds a NaN, an infinity or no direction.
    #[must_use]
    pub fn first_unusable_row(&self) -> Option<usize> {
        self.rows().position(|row| {
            !row.iter().all(|x| x.is_finite()) || row.iter().all(|x| x.abs() < MIN_NORM)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_vectors_have_length_one_and_zero_stays_zero() {
        let mut vector = [3.0, 4.0];
        assert_eq!(l2_normalize(&mut vector), 5.0);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 5];
        assert_eq!(l2_normalize(&mut zero), 0.0);
        assert_eq!(zero, [0.0; 5]);
        let mut huge = [3e30, 4e30];
        l2_normalize(&mut huge);
        assert!(
            (huge[0] - 0.6).abs() < 1e-6 && (huge[1] - 0.8).abs() < 1e-6,
            "{huge:?}"
        );
    }

    #[test]
    fn dot_agrees_with_f64_at_every_length() {
        let mut random = crate::random::Random::new(3);
        for n in 0..70 {
            let a: Vec<f32> = (0..n).map(|_| random.range(-1.0, 1.0) as f32).collect();
            let b: Vec<f32> = (0..n).map(|_| random.range(-1.0, 1.0) as f32).collect();
            let exact: f64 = a
                .iter()
                .zip(&b)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum();
            assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-5, "n = {n}");
        }
    }

    #[test]
    fn ties_go_to_the_smaller_id_then_the_earlier_row() {
        let id = |byte| ImageId([byte; 16]);
        let mut hits = vec![
            (0.5, id(2), 0),
            (0.9, id(3), 1),
            (0.5, id(1), 7),
            (0.5, id(1), 4),
        ];
        hits.sort_by(|a, b| by_rank(*a, *b));
        assert_eq!(
            hits,
            [
                (0.9, id(3), 1),
                (0.5, id(1), 4),
                (0.5, id(1), 7),
                (0.5, id(2), 0)
            ]
        );
    }

    #[test]
    fn unusable_rows_are_found() {
        let find = |rows: &[f32]| {
            Embeddings::from_values(2, rows.to_vec())
                .unwrap()
                .first_unusable_row()
        };
        assert_eq!(find(&[1.0, 0.0, 0.0, 1.0]), None);
        assert_eq!(find(&[1.0, 0.0, 0.0, 0.0]), Some(1));
        assert_eq!(find(&[f32::NAN, 0.0]), Some(0));
        assert_eq!(find(&[f32::INFINITY, 0.0]), Some(0));
    }
}
