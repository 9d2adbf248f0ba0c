//! Distances between embeddings, and the one normalization that losses use.

use tch::{Kind, Tensor};

/// Rows scaled to length 1: x / max(|x|, 1e-12), as `eyas_shared::embedding` does.
pub(super) fn l2_normalize(rows: &Tensor) -> Tensor {
    let norms = rows.norm_scalaropt_dim(2.0, [1].as_slice(), true);
    rows / norms.clamp_min(f64::from(eyas_shared::embedding::MIN_NORM))
}

/// Squared Euclidean distances of all rows of `a` to all rows of `b`: |a|^2 + |b|^2 - 2ab.
/// Rounding can bring them slightly below 0.
pub(super) fn squared_distances(a: &Tensor, b: &Tensor) -> Tensor {
    let kind = a.kind();
    let squares = |x: &Tensor| (x * x).sum_dim_intlist([1].as_slice(), true, kind);
    squares(a) + squares(b).transpose(0, 1) - a.matmul(&b.transpose(0, 1)) * 2.0
}

/// Euclidean distances within one set; the diagonal is exactly 0 and has no gradient.
/// Below 1e-6 a distance is 1e-6, so that the root has a gradient.
pub(super) fn self_distances(rows: &Tensor) -> Tensor {
    let distances = squared_distances(rows, rows).clamp_min(1e-12).sqrt();
    distances * off_diagonal(rows.size()[0], rows)
}

/// Ones with zeros on the diagonal, of the kind and device of `like`.
pub(super) fn off_diagonal(n: i64, like: &Tensor) -> Tensor {
    let options = (like.kind(), like.device());
    Tensor::ones([n, n], options) - Tensor::eye(n, options)
}

/// Mean of each row as a column.
pub(super) fn row_means(matrix: &Tensor) -> Tensor {
    matrix.mean_dim([1].as_slice(), true, None::<Kind>)
}
