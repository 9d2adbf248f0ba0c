//! Learned whitening of descriptors: from pairs of images that show the same, or from
//! principal components alone (Mikolajczyk and Matas, ICCV 2007; Radenović et al., TPAMI
//! 2019), in f64.
//!
//! A map is learned on the teacher's descriptors and applied to both sides. The sign of
//! each component is arbitrary; no score depends on it.

use thiserror::Error;

use crate::linear_algebra::{self, Matrix, dot};

/// Added to the norm before dividing by it, as the published descriptors were made.
const NORM_OFFSET: f64 = 1e-6;
/// First addition to the diagonal of a covariance that has no Cholesky factor.
const FIRST_JITTER: f64 = 1e-10;
/// Jitter grows tenfold up to this share of the largest variance; beyond it the data is at
/// fault, not rounding.
const MAX_JITTER_SHARE: f64 = 1e-2;

/// `matrix (x - mean)`, rows by falling variance; [`Whitening::apply`] scales to length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    /// Subtracted first.
    pub mean: Vec<f64>,
    /// One row for each component of the result.
    pub matrix: Matrix,
}

/// Why no whitening can be learned.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum WhiteningError {
    /// Nothing to learn from.
    #[error("whitening is learned from at least one {what}, none is given")]
    Nothing {
        /// `pair` or `descriptor`.
        what: &'static str,
    },
    /// A pair names a row that is not there.
    #[error("pair {pair_idx} names descriptor {row_idx}, there are {n_rows}")]
    NoSuchRow {
        /// Which pair, from 0.
        pair_idx: usize,
        /// Which row.
        row_idx: usize,
        /// Rows there are.
        n_rows: usize,
    },
    /// The differences within pairs leave directions without any variation.
    #[error(
        "the covariance of {n_rows} {what} in {dim} dimensions can not be inverted; give more or other ones"
    )]
    Singular {
        /// `pairs` or `descriptors`.
        what: &'static str,
        /// How many.
        n_rows: usize,
        /// Dimensions.
        dim: usize,
    },
    /// Descriptors that are not numbers.
    #[error(transparent)]
    NotFinite(#[from] linear_algebra::NoEigenvalues),
}

/// Whitening from pairs that show the same: differences within pairs become white, then the
/// rest is turned to its principal axes.
///
/// `descriptors` has one row for each image, `pairs` names rows: query, match. The mean is
/// that of the query rows, one for each pair. Where the covariance of the differences has no
/// Cholesky factor, 1e-10, 1e-9, ... is added to its diagonal.
///
/// # Errors
/// If there are no pairs, a row is missing, or the differences leave out whole directions.
pub fn learn_from_pairs(
    descriptors: &Matrix,
    pairs: &[(usize, usize)],
) -> Result<Whitening, WhiteningError> {
    let (n_rows, dim) = (descriptors.n_rows(), descriptors.n_cols());
    if pairs.is_empty() {
        return Err(WhiteningError::Nothing { what: "pair" });
    }
    for (pair_idx, &(query, matched)) in pairs.iter().enumerate() {
        if let Some(row_idx) = [query, matched].into_iter().find(|row| *row >= n_rows) {
            return Err(WhiteningError::NoSuchRow {
                pair_idx,
                row_idx,
                n_rows,
            });
        }
    }
    let queries = pairs.iter().map(|pair| descriptors.row(pair.0));
    let mean = mean_of(queries, pairs.len(), dim);
    let mut differences = Matrix::zeros(pairs.len(), dim);
    for (pair_idx, &(query, matched)) in pairs.iter().enumerate() {
        let (query, matched) = (descriptors.row(query), descriptors.row(matched));
        let out = differences.row_mut(pair_idx);
        for ((out, q), p) in out.iter_mut().zip(query).zip(matched) {
            *out = q - p;
        }
    }
    let singular = WhiteningError::Singular {
        what: "pairs",
        n_rows: pairs.len(),
        dim,
    };
    let factor = jittered_cholesky(&covariance(&differences)).ok_or(singular)?;
    let inverse = linear_algebra::lower_triangular_inverse(&factor);
    let white = linear_algebra::times_transposed(&centered(descriptors, &mean), &inverse);
    let scatter = linear_algebra::gram(&white.transposed());
    let axes = linear_algebra::symmetric_eigen(scatter)?.vectors;
    let matrix = linear_algebra::times_transposed(&axes, &inverse.transposed());
    Ok(Whitening { mean, matrix })
}

/// Whitening by principal components: the covariance of the result is the identity.
///
/// # Errors
/// If there are no descriptors, or fewer directions of variation than dimensions.
pub fn learn_from_components(descriptors: &Matrix) -> Result<Whitening, WhiteningError> {
    let (n_rows, dim) = (descriptors.n_rows(), descriptors.n_cols());
    if n_rows == 0 {
        return Err(WhiteningError::Nothing { what: "descriptor" });
    }
    let mean = mean_of(descriptors.rows(), n_rows, dim);
    let pairs = linear_algebra::symmetric_eigen(covariance(&centered(descriptors, &mean)))?;
    let mut matrix = pairs.vectors;
    for (component_idx, variance) in pairs.values.iter().enumerate() {
        // Below this the direction is rounding noise.
        if *variance <= pairs.values[0] * f64::EPSILON * dim as f64 {
            return Err(WhiteningError::Singular {
                what: "descriptors",
                n_rows,
                dim,
            });
        }
        let scale = variance.sqrt().recip();
        let row = matrix.row_mut(component_idx);
        row.iter_mut().for_each(|x| *x *= scale);
    }
    Ok(Whitening { mean, matrix })
}

impl Whitening {
    /// The first `dim` components of one descriptor, or all if there are fewer, divided by
    /// (their length + 1e-6).
    ///
    /// # Panics
    /// If the descriptor has another length than the mean.
    #[must_use]
    pub fn apply(&self, descriptor: &[f64], dim: usize) -> Vec<f64> {
        assert_eq!(descriptor.len(), self.mean.len(), "another dimension");
        let difference = |(x, mean): (&f64, &f64)| x - mean;
        let centered: Vec<f64> = descriptor.iter().zip(&self.mean).map(difference).collect();
        let along = |row: &[f64]| dot(row, &centered);
        let mut out: Vec<f64> = self.matrix.rows().take(dim).map(along).collect();
        let scale = (dot(&out, &out).sqrt() + NORM_OFFSET).recip();
        out.iter_mut().for_each(|x| *x *= scale);
        out
    }
}

fn mean_of<'a>(rows: impl Iterator<Item = &'a [f64]>, n_rows: usize, dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0; dim];
    for row in rows {
        for (mean, x) in mean.iter_mut().zip(row) {
            *mean += x;
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= n_rows as f64);
    mean
}

fn centered(rows: &Matrix, mean: &[f64]) -> Matrix {
    let mut out = rows.clone();
    for row_idx in 0..out.n_rows() {
        for (x, mean) in out.row_mut(row_idx).iter_mut().zip(mean) {
            *x -= mean;
        }
    }
    out
}

/// Second moments of the columns.
fn covariance(rows: &Matrix) -> Matrix {
    let n_rows = rows.n_rows() as f64;
    let mut out = linear_algebra::gram(&rows.transposed());
    for row_idx in 0..out.n_rows() {
        out.row_mut(row_idx).iter_mut().for_each(|x| *x /= n_rows);
    }
    out
}

/// Cholesky factor of the matrix, with as little added to its diagonal as makes it exist.
fn jittered_cholesky(matrix: &Matrix) -> Option<Matrix> {
    let side = matrix.n_rows();
    let largest = (0..side).map(|i| matrix.row(i)[i]).fold(0.0, f64::max);
    let most = largest * MAX_JITTER_SHARE;
    let mut jitter = 0.0;
    loop {
        let mut moved = matrix.clone();
        for i in 0..side {
            moved.row_mut(i)[i] += jitter;
        }
        if let Some(factor) = linear_algebra::cholesky(&moved) {
            return Some(factor);
        }
        jitter = if jitter == 0.0 {
            FIRST_JITTER
        } else {
            jitter * 10.0
        };
        if jitter > most || !most.is_finite() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::random::Random;

    /// f64 sums of a few hundred products.
    const TOLERANCE: f64 = 1e-9;

    fn descriptors(n_rows: usize, dim: usize) -> Matrix {
        let mut random = Random::new(3);
        let mut out = Matrix::zeros(n_rows, dim);
        for row_idx in 0..n_rows {
            for (i, x) in out.row_mut(row_idx).iter_mut().enumerate() {
                *x = random.normal() * (i + 1) as f64 + 0.5;
            }
        }
        out
    }

    fn mapped(map: &Whitening, rows: &Matrix) -> Matrix {
        linear_algebra::times_transposed(&centered(rows, &map.mean), &map.matrix)
    }

    fn is_identity(matrix: &Matrix) -> bool {
        (0..matrix.n_rows()).all(|i| {
            let row = matrix.row(i).iter().enumerate();
            row.into_iter()
                .all(|(j, x)| (x - f64::from(u8::from(i == j))).abs() < TOLERANCE)
        })
    }

    #[test]
    fn components_become_white() {
        let rows = descriptors(200, 6);
        let map = learn_from_components(&rows).unwrap();
        assert!(is_identity(&covariance(&mapped(&map, &rows))));
        let length = |row: &[f64]| dot(row, row).sqrt();
        assert!((length(&map.apply(rows.row(3), 4)) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn differences_within_pairs_become_white() {
        let rows = descriptors(80, 5);
        let pairs: Vec<(usize, usize)> = (0..40).map(|i| (i, i + 40)).collect();
        let map = learn_from_pairs(&rows, &pairs).unwrap();
        let all = mapped(&map, &rows);
        let mut differences = Matrix::zeros(40, 5);
        for i in 0..40 {
            for (out, (a, b)) in differences
                .row_mut(i)
                .iter_mut()
                .zip(all.row(i).iter().zip(all.row(i + 40)))
            {
                *out = a - b;
            }
        }
        assert!(is_identity(&covariance(&differences)));
    }

    #[test]
    fn what_can_not_be_whitened_is_said() {
        let rows = descriptors(4, 3);
        let said = |pairs: &[(usize, usize)]| {
            let err = learn_from_pairs(&rows, pairs).unwrap_err();
            err.to_string()
        };
        assert!(said(&[]).contains("at least one pair"));
        assert!(said(&[(0, 1), (2, 4)]).contains("pair 1 names descriptor 4"));
        let mut endless = rows.clone();
        endless.row_mut(0)[1] = f64::INFINITY;
        assert!(learn_from_pairs(&endless, &[(0, 1), (2, 3)]).is_err());
        assert!(said(&[(1, 1), (2, 2)]).contains("2 pairs in 3 dimensions"));
        let flat = descriptors(2, 3);
        assert!(learn_from_components(&flat).is_err());
        assert!(learn_from_components(&Matrix::zeros(0, 3)).is_err());
    }
}
