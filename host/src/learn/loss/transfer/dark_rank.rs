//! Hard DarkRank (Chen et al., AAAI 2018).

use tch::Tensor;

use crate::learn::distance::{off_diagonal, self_distances};
use crate::recipe::loss::DarkRank;

/// Minus the logarithm of the probability that the student ranks the teacher's nearest rows
/// as the teacher does (Plackett-Luce over the `n_ranked` nearest alone); mean over rows.
///
/// Scores are -alpha d^beta, on both sides. A row is never its own neighbor, also not among
/// equal rows. A batch with fewer other rows ranks them all.
pub(in crate::learn) fn dark_rank(
    student: &Tensor,
    teacher: &Tensor,
    settings: &DarkRank,
) -> Tensor {
    let n = student.size()[0];
    let n_ranked = (settings.n_ranked as i64).min(n - 1);
    let not_self = off_diagonal(n, teacher).eq(0.0);
    let near = self_distances(teacher).neg();
    let near = near.masked_fill(&not_self, f64::NEG_INFINITY);
    let (_, order) = near.topk(n_ranked, 1, true, true);
    let scores = self_distances(student).pow_tensor_scalar(settings.beta) * -settings.alpha;
    let ranked = scores.gather(1, &order, false);
    // Each place is won against the places from it on.
    let rivals = ranked.flip([1]).logcumsumexp(1).flip([1]);
    (rivals - ranked).sum(student.kind()) / n as f64
}
