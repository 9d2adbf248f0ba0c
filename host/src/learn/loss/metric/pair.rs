//! Losses over pairs.

use eyas_shared::random::Random;
use tch::{Kind, Reduction, Tensor};

use super::miner::mine;
use super::reducer::{reduce, reduce_all};
use super::{Comparison, log1p_exp, masked_logsumexp, no_loss};
use crate::learn::loss::log1p_sum_exp;
use crate::recipe::loss::{
    Circle, Contrastive, CosineContrastive, Distance, MultiSimilarity, NPair, NtXent, OneSided,
    Pairs, Similarity, TupletMargin,
};

/// Cosines from here on are those of an embedding with itself.
const OWN_COSINE: f64 = 1.0 - 1e-5;

/// Squared sines below this count as this, so that the root has a gradient.
const MIN_SQUARED_SINE: f64 = 1e-12;

/// The mined positives and negatives, N x M, by cosine distance.
fn mined_by_cosine(
    comparison: &Comparison,
    pairs: &Pairs,
    random: &mut Random,
) -> (Tensor, Tensor) {
    mine(pairs.miner, comparison, Distance::Cosine, random).pairs()
}

/// [x - positive_margin]+ of positives and [negative_margin - x]+ of negatives, each
/// reduced, added.
pub(in crate::learn) fn contrastive(
    comparison: &Comparison,
    settings: &Contrastive,
    random: &mut Random,
) -> Tensor {
    let Contrastive {
        distance, pairs, ..
    } = settings;
    let (positive, negative) = mine(pairs.miner, comparison, *distance, random).pairs();
    let distances = comparison.distances(*distance);
    let pulled = (&distances - settings.positive_margin).clamp_min(0.0);
    let pushed = (settings.negative_margin - &distances).clamp_min(0.0);
    reduce(pairs.reducer, &pulled, &positive) + reduce(pairs.reducer, &pushed, &negative)
}

/// 1 - c of positives and c of negatives above the margin, summed, divided by the number
/// of anchors. Positives of a cosine of 1 are the anchor itself and left out.
pub(in crate::learn) fn cosine_contrastive(
    comparison: &Comparison,
    settings: &CosineContrastive,
) -> Tensor {
    let cosines = comparison.cosines();
    let positive = comparison.positive.logical_and(&cosines.lt(OWN_COSINE));
    let negative = comparison
        .negative
        .logical_and(&cosines.gt(settings.margin));
    let kind = cosines.kind();
    let pulled: Tensor = (1.0 - &cosines) * positive.to_kind(kind);
    let pushed = &cosines * negative.to_kind(kind);
    (pulled + pushed).sum(kind) / cosines.size()[0] as f64
}

/// Each anchor is one value: soft maxima over its positives and over its negatives, the
/// anchor's margin `base` between them.
pub(in crate::learn) fn multi_similarity(
    comparison: &mut Comparison,
    settings: &MultiSimilarity,
    random: &mut Random,
) -> Tensor {
    let cosines = comparison.cosines();
    let left_out = settings.one_sided == OneSided::LeftOut;
    if left_out {
        let others = cosines.lt(OWN_COSINE);
        comparison.positive = comparison.positive.logical_and(&others);
    }
    let (positive, negative) = mined_by_cosine(comparison, &settings.pairs, random);
    let above = &cosines - settings.base;
    let pulled = log1p_sum_exp(&(&above * -settings.alpha), &positive, 1) / settings.alpha;
    let pushed = log1p_sum_exp(&(&above * settings.beta), &negative, 1) / settings.beta;
    let mut values = pulled + pushed;
    if left_out {
        let whole = positive
            .any_dim(1, false)
            .logical_and(&negative.any_dim(1, false));
        values = values.masked_fill(&whole.logical_not(), 0.0);
    }
    reduce_all(settings.pairs.reducer, &values)
}

/// Each positive against the negatives of its anchor: log(1 + sum exp((c_n - c_p) / T)).
pub(in crate::learn) fn nt_xent(
    comparison: &Comparison,
    settings: &NtXent,
    random: &mut Random,
) -> Tensor {
    let (positive, negative) = mined_by_cosine(comparison, &settings.pairs, random);
    let scaled = comparison.cosines() / settings.temperature;
    let values = log1p_exp(&(masked_logsumexp(&scaled, &negative) - &scaled));
    reduce(settings.pairs.reducer, &values, &positive)
}

/// As [`nt_xent`], with a factor for a temperature, and positives judged as if their angle
/// were smaller by the margin.
pub(in crate::learn) fn tuplet_margin(
    comparison: &Comparison,
    settings: &TupletMargin,
    random: &mut Random,
) -> Tensor {
    let (positive, negative) = mined_by_cosine(comparison, &settings.pairs, random);
    let cosines = comparison.cosines();
    let squared: Tensor = 1.0 - cosines.square();
    let sines = squared.clamp_min(MIN_SQUARED_SINE).sqrt();
    let margin = settings.margin_degrees.to_radians();
    // cos(angle - margin)
    let eased = (&cosines * margin.cos() + sines * margin.sin()) * settings.scale;
    let against = masked_logsumexp(&(cosines * settings.scale), &negative);
    reduce(
        settings.pairs.reducer,
        &log1p_exp(&(against - eased)),
        &positive,
    )
}

/// Each anchor with positives and negatives is one value; pairs weigh as much as they are
/// away from 1 + m and -m, weights without gradient.
pub(in crate::learn) fn circle(
    comparison: &Comparison,
    settings: &Circle,
    random: &mut Random,
) -> Tensor {
    let (positive, negative) = mined_by_cosine(comparison, &settings.pairs, random);
    let (m, gamma) = (settings.m, settings.gamma);
    let cosines = comparison.cosines();
    let fixed = cosines.detach();
    let short = (1.0 + m - &fixed).clamp_min(0.0);
    let over = (&fixed + m).clamp_min(0.0);
    let pulled = short * (&cosines - (1.0 - m)) * -gamma;
    let pushed = over * (&cosines - m) * gamma;
    let sum = masked_logsumexp(&pulled, &positive) + masked_logsumexp(&pushed, &negative);
    reduce_all(settings.pairs.reducer, &log1p_exp(&sum))
}

/// The first row of each class that has a positive is its anchor, the first positive of
/// that row its positive; each anchor picks its own among those of all classes.
pub(in crate::learn) fn n_pair(comparison: &Comparison, settings: &NPair) -> Tensor {
    let Comparison {
        labels, positive, ..
    } = comparison;
    let similarities = match settings.similarity {
        Similarity::Cosine => comparison.cosines(),
        Similarity::Dot => comparison.dots(),
    };
    let has_positive = positive.any_dim(1, false);
    let same = labels.unsqueeze(1).eq_tensor(&labels.unsqueeze(0));
    let earlier = same.tril(-1).logical_and(&has_positive.unsqueeze(0));
    let first = has_positive.logical_and(&earlier.any_dim(1, false).logical_not());
    let anchors = first.nonzero().squeeze_dim(1);
    if anchors.numel() == 0 {
        return no_loss(&comparison.anchors);
    }
    let of_anchors = positive.index_select(0, &anchors);
    let columns = Tensor::arange(of_anchors.size()[1], (Kind::Int64, anchors.device()));
    let positives = columns
        .unsqueeze(0)
        .masked_fill(&of_anchors.logical_not(), i64::MAX)
        .amin([1].as_slice(), false);
    let scores = similarities
        .index_select(0, &anchors)
        .index_select(1, &positives);
    let own = Tensor::arange(anchors.numel() as i64, (Kind::Int64, anchors.device()));
    scores.cross_entropy_loss::<Tensor>(&own, None, Reduction::Mean, -100, 0.0)
}
