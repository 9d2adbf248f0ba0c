//! Losses over triplets.

use eyas_shared::random::Random;
use tch::Tensor;

use super::Comparison;
use super::miner::mine;
use super::reducer::reduce;
use crate::recipe::loss::{Margin, Triplet};

/// [d_ap - d_an + margin]+ of the mined triplets, reduced (Schroff et al., CVPR 2015).
pub(in crate::learn) fn triplet(
    comparison: &Comparison,
    settings: &Triplet,
    random: &mut Random,
) -> Tensor {
    let Triplet {
        distance, pairs, ..
    } = settings;
    let triplets = mine(pairs.miner, comparison, *distance, random).triplets();
    let of = triplets.of(&comparison.distances(*distance));
    let values = (of.positive - of.negative + settings.margin).clamp_min(0.0);
    reduce(pairs.reducer, &values, &of.keep)
}

/// [d_ap - boundary + margin]+ and [boundary - d_an + margin]+ of the mined triplets, their
/// sum divided by the number of those above 0 (Wu et al., ICCV 2017).
pub(in crate::learn) fn margin(
    comparison: &Comparison,
    settings: &Margin,
    random: &mut Random,
) -> Tensor {
    let Margin {
        distance, pairs, ..
    } = settings;
    let triplets = mine(pairs.miner, comparison, *distance, random).triplets();
    let of = triplets.of(&comparison.distances(*distance));
    let kind = of.positive.kind();
    let kept = of.keep.to_kind(kind);
    let pulled = (of.positive - settings.boundary + settings.margin).clamp_min(0.0) * &kept;
    let pushed = (settings.boundary - of.negative + settings.margin).clamp_min(0.0) * &kept;
    let n_above = pulled.gt(0.0).sum(kind) + pushed.gt(0.0).sum(kind);
    (pulled.sum(kind) + pushed.sum(kind)) / n_above.clamp_min(1.0)
}
