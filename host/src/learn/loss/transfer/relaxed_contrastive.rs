//! Relaxed contrastive and relaxed multi-similarity losses (Kim et al., CVPR 2021).

use tch::{Kind, Tensor};

use crate::learn::distance::{
    l2_normalize, off_diagonal, row_means, self_distances, squared_distances,
};
use crate::learn::loss::log1p_sum_exp;
use crate::recipe::loss::{RelaxedContrastive, RelaxedMultiSimilarity};

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
    let similarity = relations(teacher, settings.sigma);
    let distances = self_distances(student);
    let relative = &distances / row_means(&distances);
    let pull: Tensor = &similarity * relative.square();
    let push: Tensor = (1.0 - &similarity) * (settings.delta - &relative).clamp_min(0.0).square();
    let pairs = distances.gt(0.0).to_kind(student.kind());
    let terms: Tensor = (pull + push) * pairs;
    terms.sum(student.kind()) / student.size()[0] as f64
}

/// The softened form of [`relaxed_contrastive`]: a row's pulls and pushes go through
/// log(1 + sum exp), sharpened by `alpha` and `beta`; mean over rows.
///
/// Views of one image, that is rows which are a multiple of N / `n_views` apart, are fully
/// related whatever the teacher says.
pub(in crate::learn) fn relaxed_multi_similarity(
    student: &Tensor,
    teacher: &Tensor,
    n_views: usize,
    settings: &RelaxedMultiSimilarity,
) -> Tensor {
    let n = student.size()[0];
    let options = (Kind::Int64, student.device());
    let image = Tensor::arange(n, options).remainder((n / n_views as i64).max(1));
    let same_image = image.unsqueeze(0).eq_tensor(&image.unsqueeze(1));
    let similarity = relations(teacher, settings.sigma).masked_fill(&same_image, 1.0);
    let distances = self_distances(student);
    let relative = &distances / row_means(&distances);
    let others = off_diagonal(n, student).eq(1.0);
    let unrelated: Tensor = 1.0 - &similarity;
    let margins: Tensor = settings.delta - &relative;
    let pull = &relative * settings.alpha + similarity.log();
    let push = margins * settings.beta + unrelated.log();
    let pushed = others.logical_and(&similarity.lt(1.0));
    let rows = log1p_sum_exp(&pull, &others, 1) / settings.alpha
        + log1p_sum_exp(&push, &pushed, 1) / settings.beta;
    rows.mean(student.kind())
}

/// How much the teacher relates each pair of rows: exp(-|t_i - t_j|^2 / sigma) of unit rows.
fn relations(teacher: &Tensor, sigma: f64) -> Tensor {
    let teacher = l2_normalize(teacher);
    (squared_distances(&teacher, &teacher).clamp_min(0.0) / -sigma).exp()
}
