//! RAML (Suma and Tolias, WACV 2023): first and second order at once.

use tch::Tensor;

use crate::learn::distance::off_diagonal;
use crate::recipe::loss::SecondOrder;

/// Added to every difference before squaring it, as the authors do.
const DIFFERENCE_EPSILON: f64 = 1e-6;

/// Mean squared 1 - cosine of a row with its teacher's, plus the mean squared error of the
/// similarities between different rows, student to teacher (`student_teacher`) and student
/// to student (`student_student`), against the teacher's own.
///
/// Rows are of unit length on both sides.
pub(in crate::learn) fn second_order(
    student: &Tensor,
    teacher: &Tensor,
    settings: &SecondOrder,
) -> Tensor {
    let kind = student.kind();
    let cosines = (student * teacher).sum_dim_intlist([1].as_slice(), false, kind);
    let distances: Tensor = 1.0 - cosines;
    let own = (distances + DIFFERENCE_EPSILON).square().mean(kind);
    let wanted = teacher.matmul(&teacher.transpose(0, 1));
    let n = student.size()[0];
    let others = off_diagonal(n, student);
    let error = |found: &Tensor| {
        let squares: Tensor = (found - &wanted + DIFFERENCE_EPSILON).square() * &others;
        squares.sum(kind) / (n * (n - 1)).max(1) as f64
    };
    let asymmetric = error(&student.matmul(&teacher.transpose(0, 1)));
    let symmetric = error(&student.matmul(&student.transpose(0, 1)));
    own + asymmetric * settings.student_teacher + symmetric * settings.student_student
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_student_equal_to_its_teacher_has_no_loss_left() {
        let rows = Tensor::eye(4, (tch::Kind::Double, tch::Device::Cpu));
        let settings = SecondOrder {
            student_teacher: 0.7,
            student_student: 0.7,
        };
        assert!(second_order(&rows, &rows, &settings).double_value(&[]) < 1e-10);
    }
}
