//! Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018).

use tch::{Kind, Tensor};

/// Added to lengths and probabilities, as the authors do.
const EPSILON: f64 = 1e-7;

/// Divergence of the student's from the teacher's neighbor probabilities, which are
/// proportional to (cosine + 1) / 2, a row itself included; mean over all N^2 entries.
pub(in crate::learn) fn probabilistic_transfer(student: &Tensor, teacher: &Tensor) -> Tensor {
    let (found, wanted) = (
        neighbor_probabilities(student),
        neighbor_probabilities(teacher),
    );
    let ratio: Tensor = (&wanted + EPSILON) / (found + EPSILON);
    (wanted * ratio.log()).mean(student.kind())
}

fn neighbor_probabilities(rows: &Tensor) -> Tensor {
    let unit = rows / (rows.norm_scalaropt_dim(2.0, [1].as_slice(), true) + EPSILON);
    let similarities: Tensor = (unit.matmul(&unit.transpose(0, 1)) + 1.0) / 2.0;
    let sums = similarities.sum_dim_intlist([1].as_slice(), true, None::<Kind>);
    similarities / sums
}
