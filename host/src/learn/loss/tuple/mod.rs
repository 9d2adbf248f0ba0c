//! Losses over tuples of a query, its positives and its negatives (Budnik and Avrithis,
//! CVPR 2021, AML): the formulas. [`TupleTerm`] mines the tuples.

mod mining;

pub(in crate::learn) use mining::TupleTerm;

use tch::{Kind, Tensor};

use super::log1p_sum_exp;
use crate::recipe::loss::{TupleContrastive, TupleMultiSimilarity, TupleTriplet};

/// AML adds this to every component of a difference, and to lengths it divides by.
pub(in crate::learn) const EPSILON: f64 = 1e-6;

/// N tuples of unit vectors. All tuples have the same number of places; some may be empty.
pub(in crate::learn) struct TupleRows {
    /// N x 1 x D.
    query: Tensor,
    /// N x S x D: positives, then negatives.
    others: Tensor,
    /// Marks of filled places of positives, N x S.
    positive: Tensor,
    /// Marks of filled places of negatives, N x S.
    negative: Tensor,
}

impl TupleRows {
    /// The authors' form: D x (N * (1 + P + K)), tuples side by side, each a query, `n_positives`
    /// positives and negatives.
    pub(in crate::learn) fn from_columns(
        columns: &Tensor,
        n_tuples: i64,
        n_positives: i64,
    ) -> Self {
        let rows = columns.transpose(0, 1);
        let rows = rows.reshape([n_tuples, -1, rows.size()[1]]);
        let n_others = rows.size()[1] - 1;
        let places = Tensor::arange(n_others, (Kind::Int64, rows.device()));
        let places = places.unsqueeze(0).expand([n_tuples, -1], false);
        Self {
            query: rows.narrow(1, 0, 1),
            others: rows.narrow(1, 1, n_others),
            positive: places.lt(n_positives),
            negative: places.ge(n_positives),
        }
    }

    /// N x S.
    fn cosines(&self) -> Tensor {
        let kind = self.query.kind();
        (&self.query * &self.others).sum_dim_intlist([2].as_slice(), false, kind)
    }

    /// |q - x + 1e-6|, N x S.
    fn distances(&self) -> Tensor {
        let difference = &self.query - &self.others + EPSILON;
        let squared = difference
            .square()
            .sum_dim_intlist([2].as_slice(), false, self.query.kind());
        // Above the square of no difference at all only where vectors are short.
        squared.clamp_min(EPSILON * EPSILON).sqrt()
    }
}

fn of_places(values: &Tensor, marks: &Tensor) -> Tensor {
    let kept = values.masked_fill(&marks.logical_not(), 0.0);
    kept.sum_dim_intlist([1].as_slice(), false, values.kind())
}

/// Half the squares of the positives' distances and of what negatives lack to the margin,
/// summed over each tuple, N.
pub(in crate::learn) fn tuple_contrastive(
    tuples: &TupleRows,
    settings: &TupleContrastive,
) -> Tensor {
    let distances = tuples.distances();
    let lacking = (settings.margin - &distances).clamp_min(0.0);
    let pulled = of_places(&distances.square(), &tuples.positive);
    (pulled + of_places(&lacking.square(), &tuples.negative)) * 0.5
}

/// As [`tuple_contrastive`] without a margin: each place is regressed to its distance in
/// `wanted` (S), positives to 0; N.
pub(in crate::learn) fn tuple_distance_regression(tuples: &TupleRows, wanted: &Tensor) -> Tensor {
    let distances = tuples.distances();
    let off = wanted.unsqueeze(0) - &distances;
    let pulled = of_places(&distances.square(), &tuples.positive);
    (pulled + of_places(&off.square(), &tuples.negative)) * 0.5
}

/// [|q - p|^2 - |q - n|^2 + margin]+ summed over positives and negatives of each tuple, N.
pub(in crate::learn) fn tuple_triplet(tuples: &TupleRows, settings: &TupleTriplet) -> Tensor {
    let kind = tuples.query.kind();
    let difference = &tuples.query - &tuples.others;
    let squared = difference
        .square()
        .sum_dim_intlist([2].as_slice(), false, kind);
    let gaps = squared.unsqueeze(2) - squared.unsqueeze(1) + settings.margin;
    let marks = tuples
        .positive
        .unsqueeze(2)
        .logical_and(&tuples.negative.unsqueeze(1));
    let kept = gaps.clamp_min(0.0).masked_fill(&marks.logical_not(), 0.0);
    kept.sum_dim_intlist([1, 2].as_slice(), false, kind)
}

/// Multi-similarity with the query as the only anchor, N.
pub(in crate::learn) fn tuple_multi_similarity(
    tuples: &TupleRows,
    settings: &TupleMultiSimilarity,
) -> Tensor {
    let above = tuples.cosines() - settings.base;
    let pulled = log1p_sum_exp(&(&above * -settings.alpha), &tuples.positive, 1);
    let pushed = log1p_sum_exp(&(&above * settings.beta), &tuples.negative, 1);
    pulled / settings.alpha + pushed / settings.beta
}

/// AML's normalization: rows (N x D) divided by their length plus 1e-6.
pub(in crate::learn) fn shifted_normalize(rows: &Tensor) -> Tensor {
    rows / (rows.norm_scalaropt_dim(2.0, [1].as_slice(), true) + EPSILON)
}
