//! Lifted structure (Song et al., CVPR 2016) and its generalization (Hermans et al., 2017).

use eyas_shared::random::Random;
use tch::Tensor;

use super::miner::mine;
use super::reducer::{reduce, reduce_all};
use super::{Comparison, masked_logsumexp};
use crate::recipe::loss::{GeneralizedLifted, Lifted};

/// Each positive pair against the negatives of both its images: half the square of
/// [log sum exp(negative_margin - d) + d_ij - positive_margin]+.
///
/// A reference that is not of the batch has no negatives of its own; a row's own teacher
/// embedding has the row's.
pub(in crate::learn) fn lifted(
    comparison: &Comparison,
    settings: &Lifted,
    random: &mut Random,
) -> Tensor {
    let Lifted {
        distance, pairs, ..
    } = settings;
    let (positive, negative) = mine(pairs.miner, comparison, *distance, random).pairs();
    let distances = comparison.distances(*distance);
    let pushed = masked_logsumexp(&(settings.negative_margin - &distances), &negative);
    let of_both = if comparison.paired {
        let own = Tensor::eye(positive.size()[0], (tch::Kind::Bool, positive.device()));
        let both = pushed.logaddexp(&pushed.transpose(0, 1));
        pushed.where_self(&own, &both)
    } else {
        pushed
    };
    let values = (of_both + distances - settings.positive_margin).clamp_min(0.0);
    reduce(pairs.reducer, &(values.square() * 0.5), &positive)
}

/// Each anchor is one value: [log sum exp(d_p - positive_margin) + log sum
/// exp(negative_margin - d_n)]+; a side without any counts as 0.
pub(in crate::learn) fn generalized_lifted(
    comparison: &Comparison,
    settings: &GeneralizedLifted,
    random: &mut Random,
) -> Tensor {
    let GeneralizedLifted {
        distance, pairs, ..
    } = settings;
    let (positive, negative) = mine(pairs.miner, comparison, *distance, random).pairs();
    let distances = comparison.distances(*distance);
    let side = |exponents: &Tensor, keep: &Tensor| {
        let none = keep.any_dim(1, true).logical_not();
        masked_logsumexp(exponents, keep).masked_fill(&none, 0.0)
    };
    let pulled = side(&(&distances - settings.positive_margin), &positive);
    let pushed = side(&(settings.negative_margin - &distances), &negative);
    reduce_all(pairs.reducer, &(pulled + pushed).clamp_min(0.0))
}
