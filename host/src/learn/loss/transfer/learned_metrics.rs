//! Learning metrics from teachers (Yu et al., CVPR 2019).

use tch::Tensor;

use crate::learn::distance::self_distances;

/// Added to every component of a difference, as the authors' framework does.
const DIFFERENCE_EPSILON: f64 = 1e-6;

/// Absolute: Euclidean distance of a row from its teacher's, mean over rows; not squared.
pub(in crate::learn) fn absolute_teacher(student: &Tensor, teacher: &Tensor) -> Tensor {
    let difference = student - teacher + DIFFERENCE_EPSILON;
    let distances = difference.norm_scalaropt_dim(2.0, [1].as_slice(), false);
    distances.mean(student.kind())
}

/// Relative: Frobenius norm of the difference of the two distance matrices. It is not
/// divided: it grows with the number of rows.
pub(in crate::learn) fn relative_teacher(student: &Tensor, teacher: &Tensor) -> Tensor {
    (self_distances(student) - self_distances(teacher)).norm()
}
