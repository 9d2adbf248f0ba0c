//! Products and triangular factors.

use super::{Matrix, dot};

/// `a b^T`: dot products of the rows of `a` with the rows of `b`.
///
/// # Panics
/// If their rows are not equally long.
#[must_use]
pub fn times_transposed(a: &Matrix, b: &Matrix) -> Matrix {
    assert_eq!(a.n_cols(), b.n_cols(), "rows of another length");
    let mut out = Matrix::zeros(a.n_rows(), b.n_rows());
    for row_idx in 0..a.n_rows() {
        for (out, b_row) in out.row_mut(row_idx).iter_mut().zip(b.rows()) {
            *out = dot(a.row(row_idx), b_row);
        }
    }
    out
}

/// Lower triangular L with `L L^T = matrix`, zero above the diagonal; `None` if the matrix
/// is not positive definite. Reads the lower triangle only.
///
/// # Panics
/// If it is not square.
#[must_use]
pub fn cholesky(matrix: &Matrix) -> Option<Matrix> {
    let side = matrix.n_rows();
    assert_eq!(side, matrix.n_cols(), "a square matrix");
    let mut factor = Matrix::zeros(side, side);
    for i in 0..side {
        for j in 0..=i {
            let rest = matrix.row(i)[j] - dot(&factor.row(i)[..j], &factor.row(j)[..j]);
            factor.row_mut(i)[j] = if i == j {
                // A NaN is not positive either.
                (rest > 0.0).then(|| rest.sqrt())?
            } else {
                rest / factor.row(j)[j]
            };
        }
    }
    Some(factor)
}

/// Inverse of a lower triangular matrix without zeros on its diagonal.
///
/// # Panics
/// If it is not square.
#[must_use]
pub fn lower_triangular_inverse(factor: &Matrix) -> Matrix {
    let side = factor.n_rows();
    assert_eq!(side, factor.n_cols(), "a square matrix");
    // Column by column, each kept as a row so that sums run along memory.
    let mut columns = Matrix::zeros(side, side);
    for column_idx in 0..side {
        let column = columns.row_mut(column_idx);
        for i in column_idx..side {
            let unit = if i == column_idx { 1.0 } else { 0.0 };
            let known = dot(&factor.row(i)[column_idx..i], &column[column_idx..i]);
            column[i] = (unit - known) / factor.row(i)[i];
        }
    }
    columns.transposed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear_algebra::gram;
    use eyas_shared::random::Random;

    /// Sums of a few dozen products of numbers near 1.
    const TOLERANCE: f64 = 1e-10;

    #[test]
    fn a_factor_gives_its_matrix_back_and_its_inverse_undoes_it() {
        let mut random = Random::new(8);
        let mut rows = Matrix::zeros(12, 30);
        for i in 0..12 {
            rows.row_mut(i).fill_with(|| random.normal());
        }
        let matrix = gram(&rows);
        let factor = cholesky(&matrix).unwrap();
        let again = times_transposed(&factor, &factor);
        let inverse = lower_triangular_inverse(&factor);
        let one = times_transposed(&inverse, &factor.transposed());
        for i in 0..12 {
            for j in 0..12 {
                assert!((again.row(i)[j] - matrix.row(i)[j]).abs() < TOLERANCE * 100.0);
                let unit = f64::from(u8::from(i == j));
                assert!((one.row(i)[j] - unit).abs() < TOLERANCE, "{i} {j}");
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_has_no_factor() {
        let mut matrix = Matrix::zeros(2, 2);
        assert_eq!(cholesky(&matrix), None);
        matrix.row_mut(0).copy_from_slice(&[1.0, 2.0]);
        matrix.row_mut(1).copy_from_slice(&[2.0, 1.0]);
        assert_eq!(cholesky(&matrix), None);
        matrix.row_mut(0)[0] = f64::NAN;
        assert_eq!(cholesky(&matrix), None);
    }
}
