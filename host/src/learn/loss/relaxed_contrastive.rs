//! Relaxed contrastive loss (Kim et al., CVPR 2021).

use tch::Tensor;

use crate::learn::distance::{l2_normalize, row_means, self_distances, squared_distances};
use crate::recipe::loss::RelaxedContrastive;

/// Every ordered pair is pulled or pushed as the teacher sees it; the sum over all pairs is
/// divided by the number of rows.
///
/// `teacher` is normalized here. `student` is not: its distances are divided by the mean
/// of their row (the zero of the diagonal included), through which gradient flows. The
/// diagonal is left out of the sum. The value does not change when the student's space is
/// rotated, shifted or scaled.
pub(in crate::learn) fn relaxed_contrastive(
    student: &Tensor,
    teacher: &Tensor,
    settings: RelaxedContrastive,
) -> Tensor {
    let teacher = l2_normalize(teacher);
    let similarity = (squared_distances(&teacher, &teacher).clamp_min(0.0) / -settings.sigma).exp();
    let distances = self_distances(student);
    let relative = &distances / row_means(&distances);
    let pull: Tensor = &similarity * relative.square();
    let push: Tensor = (1.0 - &similarity) * (settings.delta - &relative).clamp_min(0.0).square();
    let pairs = distances.gt(0.0).to_kind(student.kind());
    let terms: Tensor = (pull + push) * pairs;
    terms.sum(student.kind()) / student.size()[0] as f64
}
