//! Eigenvectors of symmetric matrices, in f64: what fitting a projection needs.
//!
//! [`symmetric_eigen`] finds all pairs (Householder reflections to tridiagonal form, then
//! implicit QL). [`largest_eigenpairs`] finds the first few of a large matrix in a block
//! Krylov space with full orthogonalization, and stops only when the residuals say that it
//! is done. Both give the same bits on every run; no general matrix library is meant.

mod factor;

use eyas_shared::random::Random;
use thiserror::Error;

pub use factor::{cholesky, lower_triangular_inverse, times_transposed};

/// Residual `|A v - w v|` relative to the largest eigenvalue at which a pair is accepted.
const MAX_RESIDUAL: f64 = 1e-10;
/// Matrices up to this side are solved completely: cheaper than a Krylov space.
const FULL_SIDE: usize = 384;
/// Vectors that grow the Krylov space together; an eigenvalue may be that often repeated.
const BLOCK: usize = 8;
/// QL needs two or three rounds for an eigenvalue.
const MAX_QL_ROUNDS: usize = 100;
/// A vector that keeps less than this of its length lies in the span of the others.
const DEPENDENT: f64 = 1e-10;

/// Row-major f64 matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    n_cols: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// A matrix of zeros.
    #[must_use]
    pub fn zeros(n_rows: usize, n_cols: usize) -> Self {
        Self {
            n_cols,
            values: vec![0.0; n_rows * n_cols],
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.values.len().checked_div(self.n_cols).unwrap_or(0)
    }

    /// Number of columns.
    #[must_use]
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// One row.
    #[must_use]
    pub fn row(&self, row_idx: usize) -> &[f64] {
        &self.values[row_idx * self.n_cols..][..self.n_cols]
    }

    /// One row, to change.
    pub fn row_mut(&mut self, row_idx: usize) -> &mut [f64] {
        &mut self.values[row_idx * self.n_cols..][..self.n_cols]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.n_cols)
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.n_cols, self.n_rows());
        let n_rows = self.n_rows();
        for (row_idx, row) in self.rows().enumerate() {
            for (col_idx, x) in row.iter().enumerate() {
                out.values[col_idx * n_rows + row_idx] = *x;
            }
        }
        out
    }

    fn push(&mut self, row: &[f64]) {
        debug_assert_eq!(row.len(), self.n_cols, "row of another length");
        self.values.extend_from_slice(row);
    }

    /// Two different rows, to change, the first one first.
    fn two_rows_mut(&mut self, first: usize) -> (&mut [f64], &mut [f64]) {
        self.values[first * self.n_cols..][..2 * self.n_cols].split_at_mut(self.n_cols)
    }
}

/// Eigenvalues from the largest down, and their unit eigenvectors as rows.
#[derive(Clone, Debug)]
pub struct Eigenpairs {
    /// Descending.
    pub values: Vec<f64>,
    /// Row `i` belongs to `values[i]`.
    pub vectors: Matrix,
}

/// The matrix holds a value that is not finite.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the eigenvalues of a {side} x {side} matrix were not found: it holds values that are not finite"
)]
pub struct NoEigenvalues {
    /// Side of the matrix.
    pub side: usize,
}

/// Dot product with eight partial sums, so that it is vectorized, always in one order.
#[must_use]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (b_blocks, b_rest) = b.as_chunks::<8>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

/// `y += factor x`.
fn add_scaled(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

/// Dot products of all pairs of rows, `n_rows` x `n_rows`, on two threads.
#[must_use]
pub fn gram(rows: &Matrix) -> Matrix {
    let n = rows.n_rows();
    let mut out = Matrix::zeros(n, n);
    // Rows of both halves of the triangle cost about the same at 0.7.
    let split = (n as f64 * 0.7) as usize;
    let (upper, lower) = out.values.split_at_mut(split * n);
    let fill = |first: usize, part: &mut [f64]| {
        for (offset, out_row) in part.chunks_exact_mut(n.max(1)).enumerate() {
            let row_idx = first + offset;
            for (col_idx, out) in out_row.iter_mut().enumerate().take(row_idx + 1) {
                *out = dot(rows.row(row_idx), rows.row(col_idx));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| fill(0, upper));
        fill(split, lower);
    });
    for row_idx in 0..n {
        for col_idx in row_idx + 1..n {
            out.values[row_idx * n + col_idx] = out.values[col_idx * n + row_idx];
        }
    }
    out
}

/// All eigenpairs of a symmetric matrix.
///
/// # Errors
/// If it holds a value that is not finite.
///
/// # Panics
/// If it is not square.
pub fn symmetric_eigen(matrix: Matrix) -> Result<Eigenpairs, NoEigenvalues> {
    let side = matrix.n_rows();
    assert_eq!(side, matrix.n_cols(), "a symmetric matrix is square");
    if !matrix.values.iter().all(|x| x.is_finite()) {
        return Err(NoEigenvalues { side });
    }
    let Tridiagonal {
        mut diagonal,
        mut beside,
        reflectors,
    } = tridiagonalize(matrix);
    let mut vectors = Matrix::zeros(side, side);
    for i in 0..side {
        vectors.row_mut(i)[i] = 1.0;
    }
    implicit_ql(&mut diagonal, &mut beside, &mut vectors).ok_or(NoEigenvalues { side })?;
    for row_idx in 0..side {
        for (first, reflector) in reflectors.iter().enumerate().rev() {
            let part = &mut vectors.row_mut(row_idx)[first + 1..];
            let factor = -2.0 * dot(part, reflector);
            add_scaled(part, factor, reflector);
        }
    }
    Ok(sorted(&diagonal, &vectors, side))
}

/// The first `n` pairs by eigenvalue.
fn sorted(values: &[f64], vectors: &Matrix, n: usize) -> Eigenpairs {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(n);
    let mut out = Eigenpairs {
        values: Vec::with_capacity(n),
        vectors: Matrix::zeros(0, vectors.n_cols()),
    };
    for from in order {
        out.values.push(values[from]);
        out.vectors.push(vectors.row(from));
    }
    out
}

struct Tridiagonal {
    diagonal: Vec<f64>,
    /// `beside[i]` couples `i` and `i + 1`.
    beside: Vec<f64>,
    /// Unit vectors; the `k`-th acts on components `k + 1..`. Empty where nothing was to do.
    reflectors: Vec<Vec<f64>>,
}

/// Similarity transform to tridiagonal form, one Householder reflection for each column.
fn tridiagonalize(mut a: Matrix) -> Tridiagonal {
    let n = a.n_rows();
    let mut out = Tridiagonal {
        diagonal: Vec::with_capacity(n),
        beside: vec![0.0; n],
        reflectors: Vec::new(),
    };
    for k in 0..n {
        out.diagonal.push(a.row(k)[k]);
        if k + 1 == n {
            break;
        }
        let mut reflector = a.row(k)[k + 1..].to_vec();
        let length = norm(&reflector);
        if norm(&reflector[1..]) == 0.0 {
            out.beside[k] = reflector[0];
            out.reflectors.push(Vec::new());
            continue;
        }
        // The sign that does not cancel.
        let image = -length.copysign(reflector[0]);
        out.beside[k] = image;
        reflector[0] -= image;
        let scale = 1.0 / norm(&reflector);
        reflector.iter_mut().for_each(|x| *x *= scale);
        // A' = A - v w^T - w v^T with p = 2 A v, w = p - (p.v) v.
        let mut w: Vec<f64> = (k + 1..n)
            .map(|i| 2.0 * dot(&a.row(i)[k + 1..], &reflector))
            .collect();
        let along = dot(&w, &reflector);
        add_scaled(&mut w, -along, &reflector);
        for i in k + 1..n {
            let (v_i, w_i) = (reflector[i - k - 1], w[i - k - 1]);
            let row = &mut a.row_mut(i)[k + 1..];
            for ((x, v), w) in row.iter_mut().zip(&reflector).zip(&w) {
                *x -= v_i * w + w_i * v;
            }
        }
        out.reflectors.push(reflector);
    }
    out
}

/// QL iteration with Wilkinson's shift on a tridiagonal matrix. The rotations are applied
/// to the rows of `vectors`. `None` if an eigenvalue does not settle.
fn implicit_ql(diagonal: &mut [f64], beside: &mut [f64], vectors: &mut Matrix) -> Option<()> {
    let n = diagonal.len();
    for first in 0..n {
        let mut round = 0;
        loop {
            let negligible = |i: &usize| {
                beside[*i].abs() <= f64::EPSILON * (diagonal[*i].abs() + diagonal[*i + 1].abs())
            };
            let last = (first..n - 1).find(negligible).unwrap_or(n - 1);
            if last == first {
                break;
            }
            round += 1;
            if round > MAX_QL_ROUNDS {
                return None;
            }
            chase(diagonal, beside, vectors, first, last);
        }
    }
    Some(())
}

/// One QL sweep over the unreduced block `first..=last`, from its end to its beginning.
fn chase(
    diagonal: &mut [f64],
    beside: &mut [f64],
    vectors: &mut Matrix,
    first: usize,
    last: usize,
) {
    let half_gap = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
    let root = half_gap.hypot(1.0).copysign(half_gap);
    let shift = diagonal[first] - beside[first] / (half_gap + root);
    let mut bulge = diagonal[last] - shift;
    let (mut sin, mut cos, mut carried) = (1.0, 1.0, 0.0);
    for i in (first..last).rev() {
        let (opposite, adjacent) = (sin * beside[i], cos * beside[i]);
        let length = opposite.hypot(bulge);
        beside[i + 1] = length;
        if length == 0.0 {
            // The block falls apart here: the next sweep works on its parts.
            diagonal[i + 1] -= carried;
            beside[last] = 0.0;
            return;
        }
        (sin, cos) = (opposite / length, bulge / length);
        let corner = diagonal[i + 1] - carried;
        let turned = (diagonal[i] - corner) * sin + 2.0 * cos * adjacent;
        carried = sin * turned;
        diagonal[i + 1] = corner + carried;
        bulge = cos * turned - adjacent;
        let (upper, lower) = vectors.two_rows_mut(i);
        for (x, y) in upper.iter_mut().zip(lower) {
            (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
        }
    }
    diagonal[first] -= carried;
    beside[first] = bulge;
    beside[last] = 0.0;
}

/// The `n` largest eigenpairs of a symmetric matrix whose eigenvalues are not negative.
///
/// # Errors
/// If it holds a value that is not finite.
///
/// # Panics
/// If it is not square or smaller than `n`.
pub fn largest_eigenpairs(matrix: &Matrix, n: usize) -> Result<Eigenpairs, NoEigenvalues> {
    let side = matrix.n_rows();
    assert!(n <= side, "{n} eigenpairs of a matrix of side {side}");
    if !matrix.values.iter().all(|x| x.is_finite()) {
        return Err(NoEigenvalues { side });
    }
    if side <= FULL_SIDE.max(4 * n) {
        let all = symmetric_eigen(matrix.clone())?;
        return Ok(sorted(&all.values, &all.vectors, n));
    }
    let mut krylov = Krylov::new(side);
    let mut target = 4 * n + 4 * BLOCK;
    loop {
        while krylov.basis.n_rows() < target.min(side) {
            krylov.grow(matrix);
        }
        let (pairs, residual) = krylov.ritz_pairs(n)?;
        if residual <= MAX_RESIDUAL * pairs.values[0].abs() || krylov.basis.n_rows() == side {
            return Ok(pairs);
        }
        target += n.max(8 * BLOCK);
    }
}

/// An orthonormal basis that grows by the image of its last block.
struct Krylov {
    basis: Matrix,
    /// The matrix times each basis vector.
    images: Matrix,
    random: Random,
}

impl Krylov {
    fn new(side: usize) -> Self {
        Self {
            basis: Matrix::zeros(0, side),
            images: Matrix::zeros(0, side),
            random: Random::new(0).fork("krylov start"),
        }
    }

    fn grow(&mut self, matrix: &Matrix) {
        let side = matrix.n_rows();
        let n_new = BLOCK.min(side - self.basis.n_rows());
        let n_old = self.images.n_rows();
        for i in 0..n_new {
            let mut vector = match (n_old + i).checked_sub(BLOCK) {
                Some(from) => self.images.row(from).to_vec(),
                None => self.random_vector(side),
            };
            while !self.orthogonalize(&mut vector) {
                vector = self.random_vector(side);
            }
            self.basis.push(&vector);
        }
        self.images.values.resize((n_old + n_new) * side, 0.0);
        let fresh = &mut self.images.values[n_old * side..];
        let basis = &self.basis;
        let multiply = |first: usize, part: &mut [f64]| {
            for (offset, image) in part.chunks_exact_mut(side).enumerate() {
                for (out, row) in image.iter_mut().zip(matrix.rows()) {
                    *out = dot(row, basis.row(first + offset));
                }
            }
        };
        let half = n_new / 2;
        let (one, other) = fresh.split_at_mut(half * side);
        std::thread::scope(|scope| {
            scope.spawn(|| multiply(n_old, one));
            multiply(n_old + half, other);
        });
    }

    fn random_vector(&mut self, side: usize) -> Vec<f64> {
        (0..side).map(|_| self.random.normal()).collect()
    }

    /// Makes a unit vector orthogonal to the basis; false if nothing is left of it.
    fn orthogonalize(&self, vector: &mut [f64]) -> bool {
        let before = norm(vector);
        // Twice is enough (Kahan, Parlett): the second pass removes the first one's error.
        for _ in 0..2 {
            for row in self.basis.rows() {
                let along = dot(vector, row);
                add_scaled(vector, -along, row);
            }
        }
        let after = norm(vector);
        if after <= DEPENDENT * before {
            return false;
        }
        vector.iter_mut().for_each(|x| *x /= after);
        true
    }

    /// The best `n` pairs in the space so far, with the largest of their residuals.
    fn ritz_pairs(&self, n: usize) -> Result<(Eigenpairs, f64), NoEigenvalues> {
        let n_basis = self.basis.n_rows();
        let mut projected = Matrix::zeros(n_basis, n_basis);
        for i in 0..n_basis {
            for j in 0..=i {
                let x = dot(self.basis.row(i), self.images.row(j));
                projected.row_mut(i)[j] = x;
                projected.row_mut(j)[i] = x;
            }
        }
        let inner = symmetric_eigen(projected)?;
        let mut pairs = Eigenpairs {
            values: inner.values[..n].to_vec(),
            vectors: Matrix::zeros(n, self.basis.n_cols()),
        };
        let mut worst = 0.0_f64;
        let mut image = vec![0.0; self.basis.n_cols()];
        for (pair_idx, &value) in pairs.values.iter().enumerate() {
            image.fill(0.0);
            let vector = pairs.vectors.row_mut(pair_idx);
            for (basis_idx, &x) in inner.vectors.row(pair_idx).iter().enumerate() {
                add_scaled(vector, x, self.basis.row(basis_idx));
                add_scaled(&mut image, x, self.images.row(basis_idx));
            }
            add_scaled(&mut image, -value, vector);
            worst = worst.max(norm(&image));
        }
        Ok((pairs, worst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounding of sums of a few hundred products of numbers near 1.
    const TOLERANCE: f64 = 1e-9;

    /// `Q diag(values) Q^T` with random orthonormal Q.
    fn with_eigenvalues(values: &[f64], seed: u64) -> Matrix {
        let side = values.len();
        let mut krylov = Krylov::new(side);
        krylov.random = Random::new(seed);
        for _ in 0..side {
            let mut vector = krylov.random_vector(side);
            assert!(krylov.orthogonalize(&mut vector));
            krylov.basis.push(&vector);
        }
        let mut out = Matrix::zeros(side, side);
        for (value, q) in values.iter().zip(krylov.basis.rows()) {
            for i in 0..side {
                add_scaled(out.row_mut(i), value * q[i], q);
            }
        }
        out
    }

    fn check(matrix: &Matrix, pairs: &Eigenpairs, expected: &[f64]) {
        for (i, (found, expected)) in pairs.values.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{i}: {found} {expected}"
            );
            let vector = pairs.vectors.row(i);
            for (row, x) in matrix.rows().zip(vector) {
                assert!((dot(row, vector) - found * x).abs() < TOLERANCE, "pair {i}");
            }
            for j in 0..=i {
                let product = dot(vector, pairs.vectors.row(j));
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < TOLERANCE, "{i} and {j}");
            }
        }
    }

    #[test]
    fn a_known_matrix_has_its_known_eigenvalues() {
        let mut matrix = Matrix::zeros(3, 3);
        matrix.values = vec![2.0, -1.0, 0.0, -1.0, 2.0, -1.0, 0.0, -1.0, 2.0];
        let pairs = symmetric_eigen(matrix.clone()).unwrap();
        let root = 2.0_f64.sqrt();
        check(&matrix, &pairs, &[2.0 + root, 2.0, 2.0 - root]);
    }

    #[test]
    fn all_pairs_are_found_also_repeated_ones_and_zeros() {
        for side in [1, 2, 5, 60] {
            let mut values: Vec<f64> = (0..side).map(|i| (side - i) as f64).collect();
            if side > 10 {
                values[1] = values[0];
                values[2] = values[0];
                values[side - 3..].fill(0.0);
            }
            let matrix = with_eigenvalues(&values, 3);
            check(&matrix, &symmetric_eigen(matrix.clone()).unwrap(), &values);
        }
        let zeros = Matrix::zeros(4, 4);
        check(&zeros, &symmetric_eigen(zeros.clone()).unwrap(), &[0.0; 4]);
    }

    #[test]
    fn the_largest_pairs_of_a_large_matrix_agree_with_its_spectrum() {
        let mut values: Vec<f64> = (0..500).map(|i| 0.97_f64.powi(i)).collect();
        // A repeated one among the wanted.
        values[6] = values[5];
        let matrix = with_eigenvalues(&values, 4);
        let pairs = largest_eigenpairs(&matrix, 20).unwrap();
        check(&matrix, &pairs, &values[..20]);
    }

    #[test]
    fn a_matrix_of_low_rank_ends_in_zeros() {
        let mut values = vec![0.0; 400];
        values[..5].copy_from_slice(&[5.0, 4.0, 3.0, 2.0, 1.0]);
        let matrix = with_eigenvalues(&values, 5);
        check(
            &matrix,
            &largest_eigenpairs(&matrix, 8).unwrap(),
            &values[..8],
        );
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        let mut matrix = Matrix::zeros(2, 2);
        matrix.values[1] = f64::NAN;
        assert_eq!(
            symmetric_eigen(matrix).unwrap_err(),
            NoEigenvalues { side: 2 }
        );
    }
}
