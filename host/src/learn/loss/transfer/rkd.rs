//! Relational knowledge distillation (Park et al., CVPR 2019).

use tch::{Kind, Reduction, Tensor, no_grad};

use crate::learn::distance::self_distances;

/// Floats of one block of normalized differences: 64 MiB in f32.
const BLOCK_FLOATS: i64 = 1 << 24;

/// RKD-D: smooth L1 between the distance matrices, each divided by its mean over all pairs
/// of different rows; mean over all N^2 entries, the diagonal included.
///
/// Nothing is normalized here: published students are raw and teachers of unit length.
pub(in crate::learn) fn rkd_distance(student: &Tensor, teacher: &Tensor) -> Tensor {
    relative_distances(student).smooth_l1_loss(&relative_distances(teacher), Reduction::Mean, 1.0)
}

/// Distances divided by their mean over the pairs that differ by more than rounding.
fn relative_distances(rows: &Tensor) -> Tensor {
    let distances = self_distances(rows);
    let n_pairs = distances.gt(0.0).sum(Kind::Int64).clamp_min(1);
    let mean = distances.sum(rows.kind()) / n_pairs;
    distances / mean.clamp_min(f64::MIN_POSITIVE.sqrt())
}

/// RKD-A: smooth L1 between the cosines of the angles of all triples, at whose corner `i`
/// rows `j` and `k` are seen; mean over all N^3, degenerate triples (angle 0) included.
///
/// Corners are taken in blocks: nothing is larger than the N x N x N cosines and the N x N
/// x D directions. A pair of equal rows has no direction: cosine 0, no gradient.
pub(in crate::learn) fn rkd_angle(student: &Tensor, teacher: &Tensor) -> Tensor {
    let n = student.size()[0];
    let dim = student.size()[1].max(teacher.size()[1]);
    let block = (BLOCK_FLOATS / (n * dim).max(1)).clamp(1, n);
    let mut sum = Tensor::zeros([], (student.kind(), student.device()));
    for start in (0..n).step_by(block as usize) {
        let corners = |rows: &Tensor| rows.narrow(0, start, block.min(n - start));
        let found = angle_cosines(student, &corners(student));
        let wanted = if teacher.requires_grad() {
            angle_cosines(teacher, &corners(teacher))
        } else {
            no_grad(|| angle_cosines(teacher, &corners(teacher)))
        };
        sum += found.smooth_l1_loss(&wanted, Reduction::Sum, 1.0);
    }
    sum / (n * n * n) as f64
}

/// Cosines of the angles at `corners` (B x D) between all `rows` (N x D): B x N x N.
fn angle_cosines(rows: &Tensor, corners: &Tensor) -> Tensor {
    let differences = rows.unsqueeze(0) - corners.unsqueeze(1);
    let lengths = differences.norm_scalaropt_dim(2.0, [2].as_slice(), true);
    let lengths = lengths.masked_fill(&lengths.le(1e-12), f64::INFINITY);
    let directions = differences / lengths;
    directions.bmm(&directions.transpose(1, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_those_of_a_right_triangle() {
        let corners = [0.0_f64, 0.0, 3.0, 0.0, 0.0, 4.0];
        let rows = Tensor::from_slice(&corners).view([3, 2]);
        let cosines = angle_cosines(&rows, &rows);
        let at = |i, j, k| cosines.double_value(&[i, j, k]);
        assert!(at(0, 1, 2).abs() < 1e-12);
        assert!((at(1, 0, 2) - 0.6).abs() < 1e-12);
        assert!((at(2, 0, 1) - 0.8).abs() < 1e-12);
        assert_eq!(at(0, 0, 1), 0.0);
    }

    #[test]
    fn equal_rows_do_not_blow_gradients_up() {
        let student = Tensor::from_slice(&[1.0_f64, 1.0, 1.0, 1.0, 2.0, 0.5])
            .view([3, 2])
            .set_requires_grad(true);
        let teacher = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 1.0, 0.6, 0.8]).view([3, 2]);
        (rkd_angle(&student, &teacher) + rkd_distance(&student, &teacher)).backward();
        assert!(student.grad().abs().max().double_value(&[]) < 10.0);
    }
}
