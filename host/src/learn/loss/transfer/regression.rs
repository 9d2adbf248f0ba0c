//! Regression of the teacher's embedding (AML's Reg).

use tch::Tensor;

use crate::learn::distance::l2_normalize;

/// AML adds this to every component of a difference before squaring it.
const DIFFERENCE_EPSILON: f64 = 1e-6;

/// Half the squared distance of the unit embeddings of each row, mean over rows: 1 - cos,
/// up to [`DIFFERENCE_EPSILON`].
///
/// Both sides are normalized here.
pub(in crate::learn) fn regression(student: &Tensor, teacher: &Tensor) -> Tensor {
    let difference = l2_normalize(student) - l2_normalize(teacher) + DIFFERENCE_EPSILON;
    let kind = student.kind();
    (&difference * &difference)
        .sum_dim_intlist([1].as_slice(), false, kind)
        .mean(kind)
        * 0.5
}
