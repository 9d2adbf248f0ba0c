//! Which pairs and triplets of a [`Comparison`] count. Nothing here has a gradient.

use eyas_shared::random::Random;
use tch::{Kind, Tensor};

use super::{Comparison, NEVER};
use crate::recipe::loss::{Distance, Miner};

/// What a miner chose.
pub(super) struct Selection {
    /// N x M.
    positive: Tensor,
    /// N x M.
    negative: Tensor,
    /// `None`: all that the pairs make.
    triplets: Option<Triplets>,
}

/// K positive pairs, each with negatives of its anchor.
pub(super) struct Triplets {
    /// K rows of anchors.
    anchors: Tensor,
    /// K rows of references.
    positives: Tensor,
    negatives: Negatives,
}

enum Negatives {
    /// K x M marks.
    Marked(Tensor),
    /// K rows of references.
    One(Tensor),
}

/// Distances of triplets: K x 1, K x Q, and which of the K x Q count.
pub(super) struct TripletDistances {
    pub(super) positive: Tensor,
    pub(super) negative: Tensor,
    pub(super) keep: Tensor,
}

impl Selection {
    /// The chosen pairs, each once: positives and negatives, N x M.
    pub(super) fn pairs(&self) -> (Tensor, Tensor) {
        match &self.triplets {
            None => (self.positive.shallow_clone(), self.negative.shallow_clone()),
            Some(triplets) => triplets.pairs(&self.positive),
        }
    }

    pub(super) fn triplets(self) -> Triplets {
        let Self {
            positive,
            negative,
            triplets,
        } = self;
        triplets.unwrap_or_else(|| Triplets::all(&positive, &negative))
    }
}

impl Triplets {
    /// Every positive pair with every negative of its anchor.
    fn all(positive: &Tensor, negative: &Tensor) -> Self {
        let (anchors, positives) = indices_of(positive);
        let negatives = Negatives::Marked(negative.index_select(0, &anchors));
        Self {
            anchors,
            positives,
            negatives,
        }
    }

    /// One negative for each pair; pairs for which `valid` (K) does not hold are dropped.
    fn with_one(anchors: &Tensor, positives: &Tensor, negatives: &Tensor, valid: &Tensor) -> Self {
        let kept = valid.nonzero().squeeze_dim(1);
        Self {
            anchors: anchors.index_select(0, &kept),
            positives: positives.index_select(0, &kept),
            negatives: Negatives::One(negatives.index_select(0, &kept)),
        }
    }

    /// Looks the distances up in an N x M matrix, which gradient flows through.
    pub(super) fn of(&self, distances: &Tensor) -> TripletDistances {
        let of_anchors = distances.index_select(0, &self.anchors);
        let positive = of_anchors.gather(1, &self.positives.unsqueeze(1), false);
        match &self.negatives {
            Negatives::Marked(keep) => TripletDistances {
                positive,
                negative: of_anchors,
                keep: keep.shallow_clone(),
            },
            Negatives::One(rows) => {
                let negative = of_anchors.gather(1, &rows.unsqueeze(1), false);
                let keep = negative.ones_like().to_kind(Kind::Bool);
                TripletDistances {
                    positive,
                    negative,
                    keep,
                }
            }
        }
    }

    fn pairs(&self, like: &Tensor) -> (Tensor, Tensor) {
        let count = like.to_kind(Kind::Float).zeros_like();
        let n_columns = like.size()[1];
        let marks = match &self.negatives {
            Negatives::Marked(marks) => marks.to_kind(Kind::Float),
            Negatives::One(rows) => rows.one_hot(n_columns).to_kind(Kind::Float),
        };
        let used = marks.amax([1].as_slice(), true);
        let own = self.positives.one_hot(n_columns).to_kind(Kind::Float) * used;
        let positive = count.index_add(0, &self.anchors, &own).gt(0.0);
        let negative = count.index_add(0, &self.anchors, &marks).gt(0.0);
        (positive, negative)
    }
}

/// Chooses what counts. `distance` is the loss's.
pub(super) fn mine(
    miner: Miner,
    comparison: &Comparison,
    distance: Distance,
    random: &mut Random,
) -> Selection {
    tch::no_grad(|| choose(miner, comparison, distance, random))
}

fn choose(
    miner: Miner,
    comparison: &Comparison,
    distance: Distance,
    random: &mut Random,
) -> Selection {
    let (mut positive, mut negative) = (
        comparison.positive.shallow_clone(),
        comparison.negative.shallow_clone(),
    );
    let distances = || comparison.distances(distance);
    let triplets = match miner {
        Miner::All => None,
        Miner::MultiSimilarity { epsilon } => {
            (positive, negative) = informative(comparison, epsilon);
            None
        }
        Miner::SemiHard { margin } => Some(semi_hard(&distances(), &positive, &negative, margin)),
        Miner::BatchHard => Some(batch_hard(&distances(), &positive, &negative)),
        Miner::NearestNegative => Some(nearest_negative(&distances(), &positive, &negative)),
        Miner::NextNegative => Some(next_negative(&distances(), &positive, &negative)),
        Miner::DistanceWeighted { nearest, farthest } => {
            let euclidean = comparison.distances(Distance::Euclidean);
            let dim = comparison.anchors.size()[1] as f64;
            let weights = inverse_density(&euclidean, &negative, dim, nearest, farthest);
            Some(draw_negatives(&weights, &positive, &negative, random))
        }
        Miner::RandomNegative => {
            let weights = negative.to_kind(Kind::Double);
            Some(draw_negatives(&weights, &positive, &negative, random))
        }
    };
    Selection {
        positive,
        negative,
        triplets,
    }
}

/// Anchors and references of the marked pairs, row by row.
fn indices_of(marks: &Tensor) -> (Tensor, Tensor) {
    let pairs = marks.nonzero();
    (pairs.select(1, 0), pairs.select(1, 1))
}

/// Negatives with c + epsilon above the lowest positive, positives with c - epsilon below
/// the highest negative.
fn informative(comparison: &Comparison, epsilon: f64) -> (Tensor, Tensor) {
    let cosines = comparison.cosines();
    let of = |marks: &Tensor, filling: f64| cosines.masked_fill(&marks.logical_not(), filling);
    let lowest = of(&comparison.positive, f64::INFINITY).amin([1].as_slice(), true);
    let highest = of(&comparison.negative, f64::NEG_INFINITY).amax([1].as_slice(), true);
    let positive = (&cosines - epsilon).lt_tensor(&highest);
    let negative = (&cosines + epsilon).gt_tensor(&lowest);
    (
        positive.logical_and(&comparison.positive),
        negative.logical_and(&comparison.negative),
    )
}

fn semi_hard(distances: &Tensor, positive: &Tensor, negative: &Tensor, margin: f64) -> Triplets {
    let mut triplets = Triplets::all(positive, negative);
    let of = triplets.of(distances);
    let gap = of.negative - of.positive;
    let wanted = gap.gt(0.0).logical_and(&gap.le(margin));
    triplets.negatives = Negatives::Marked(of.keep.logical_and(&wanted));
    triplets
}

/// The nearest negative of each anchor, N, and whether there is one.
fn nearest_of_anchors(distances: &Tensor, negative: &Tensor) -> (Tensor, Tensor) {
    let negatives = distances.masked_fill(&negative.logical_not(), f64::INFINITY);
    (negatives.argmin(1, false), negative.any_dim(1, false))
}

fn batch_hard(distances: &Tensor, positive: &Tensor, negative: &Tensor) -> Triplets {
    let positives = distances.masked_fill(&positive.logical_not(), f64::NEG_INFINITY);
    let (nearest, has_negative) = nearest_of_anchors(distances, negative);
    let valid = has_negative.logical_and(&positive.any_dim(1, false));
    let anchors = Tensor::arange(distances.size()[0], (Kind::Int64, distances.device()));
    Triplets::with_one(&anchors, &positives.argmax(1, false), &nearest, &valid)
}

fn nearest_negative(distances: &Tensor, positive: &Tensor, negative: &Tensor) -> Triplets {
    let (anchors, positives) = indices_of(positive);
    let (nearest, has_negative) = nearest_of_anchors(distances, negative);
    let of_pairs = |of_anchors: &Tensor| of_anchors.index_select(0, &anchors);
    let (negatives, valid) = (of_pairs(&nearest), of_pairs(&has_negative));
    Triplets::with_one(&anchors, &positives, &negatives, &valid)
}

fn next_negative(distances: &Tensor, positive: &Tensor, negative: &Tensor) -> Triplets {
    let all = Triplets::all(positive, negative);
    let of = all.of(distances);
    let farther = of.keep.logical_and(&of.negative.gt_tensor(&of.positive));
    let next = of
        .negative
        .masked_fill(&farther.logical_not(), f64::INFINITY);
    let farthest = of
        .negative
        .masked_fill(&of.keep.logical_not(), f64::NEG_INFINITY);
    let negatives = next
        .argmin(1, false)
        .where_self(&farther.any_dim(1, false), &farthest.argmax(1, false));
    Triplets::with_one(
        &all.anchors,
        &all.positives,
        &negatives,
        &of.keep.any_dim(1, false),
    )
}

/// Weights of negatives (N x M, f64) that make all distances equally likely: the inverse
/// density of distances on a sphere, d^(2 - dim) (1 - d^2 / 4)^(-(dim - 3) / 2). In
/// logarithms, with the maximum of the row taken out: at 512 components the weights span
/// more than f64 holds.
fn inverse_density(
    distances: &Tensor,
    negative: &Tensor,
    dim: f64,
    nearest: f64,
    farthest: f64,
) -> Tensor {
    let eligible = negative.logical_and(&distances.le(farthest));
    // At a distance of 2 the density is 0.
    let distances = distances.to_kind(Kind::Double).clamp(nearest, 2.0 - 1e-6);
    let chord: Tensor = 1.0 - distances.square() * 0.25;
    let logarithm = distances.log() * (2.0 - dim) - chord.log() * ((dim - 3.0) / 2.0);
    let logarithm = logarithm.masked_fill(&eligible.logical_not(), NEVER);
    let weights = (&logarithm - logarithm.amax([1].as_slice(), true)).exp();
    // Rows without an eligible negative: all are equally likely.
    let even = negative.to_kind(Kind::Double);
    let weights = weights * eligible.to_kind(Kind::Double);
    weights.where_self(&eligible.any_dim(1, true), &even)
}

/// One negative for each positive pair, drawn in proportion to the weights (N x M, f64) of
/// its anchor.
fn draw_negatives(
    weights: &Tensor,
    positive: &Tensor,
    negative: &Tensor,
    random: &mut Random,
) -> Triplets {
    let (anchors, positives) = indices_of(positive);
    let device = weights.device();
    let sums = weights.cumsum(1, Kind::Double);
    let totals = sums.select(1, -1);
    // Draw q of an anchor serves its q-th positive.
    let nth = positive.cumsum(1, Kind::Int64) - 1;
    let n_draws = (nth.max().int64_value(&[]) + 1).max(1);
    let n_rows = weights.size()[0];
    let draws: Vec<f64> = (0..n_rows * n_draws).map(|_| random.unit()).collect();
    let draws = Tensor::from_slice(&draws)
        .view([n_rows, n_draws])
        .to_device(device);
    let targets = draws * totals.unsqueeze(1);
    let (sums, targets) = (sums.contiguous(), targets.contiguous());
    let drawn = targets.searchsorted(&sums, false, true, "right", None::<Tensor>);
    let nth = nth.masked_fill(&positive.logical_not(), 0);
    let of_pairs = drawn.gather(1, &nth, false);
    let flat = &anchors * positive.size()[1] + &positives;
    let negatives = of_pairs.reshape(-1).index_select(0, &flat);
    let negatives = negatives.clamp_max(positive.size()[1] - 1);
    let valid = negative.any_dim(1, false).index_select(0, &anchors);
    Triplets::with_one(&anchors, &positives, &negatives, &valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anchor 0 at distances 1, 2, 3, 4, 5: positives at 2 and 4, negatives at 1, 3, 5;
    /// anchor 1 has no negative.
    fn example() -> (Tensor, Tensor, Tensor) {
        let distances = [1.0_f64, 2.0, 3.0, 4.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let positive = [0_i64, 1, 0, 1, 0, 1, 0, 0, 0, 0];
        let negative = [1_i64, 0, 1, 0, 1, 0, 0, 0, 0, 0];
        let marks = |marks: &[i64]| Tensor::from_slice(marks).view([2, 5]).to_kind(Kind::Bool);
        let distances = Tensor::from_slice(&distances).view([2, 5]);
        (distances, marks(&positive), marks(&negative))
    }

    /// (anchor, positive, negative).
    fn listed(triplets: &Triplets) -> Vec<(i64, i64, i64)> {
        let numbers = |rows: &Tensor| Vec::<i64>::try_from(rows.contiguous()).unwrap();
        let (anchors, positives) = (numbers(&triplets.anchors), numbers(&triplets.positives));
        let place = |k: i64, n: i64| (anchors[k as usize], positives[k as usize], n);
        match &triplets.negatives {
            Negatives::One(rows) => {
                let rows = numbers(rows).into_iter().enumerate();
                rows.map(|(k, n)| place(k as i64, n)).collect()
            }
            Negatives::Marked(marks) => {
                let (k, n) = indices_of(marks);
                let pairs = numbers(&k).into_iter().zip(numbers(&n));
                pairs.map(|(k, n)| place(k, n)).collect()
            }
        }
    }

    #[test]
    fn every_miner_takes_the_triplets_that_it_names() {
        let (distances, positive, negative) = example();
        let all = Triplets::all(&positive, &negative);
        let expected = [
            (0, 1, 0),
            (0, 1, 2),
            (0, 1, 4),
            (0, 3, 0),
            (0, 3, 2),
            (0, 3, 4),
        ];
        assert_eq!(listed(&all), expected);
        let batch_hard = batch_hard(&distances, &positive, &negative);
        assert_eq!(listed(&batch_hard), [(0, 3, 0)]);
        let nearest = nearest_negative(&distances, &positive, &negative);
        assert_eq!(listed(&nearest), [(0, 1, 0), (0, 3, 0)]);
        let next = next_negative(&distances, &positive, &negative);
        assert_eq!(listed(&next), [(0, 1, 2), (0, 3, 4)]);
        let semi_hard = semi_hard(&distances, &positive, &negative, 1.5);
        assert_eq!(listed(&semi_hard), [(0, 1, 2), (0, 3, 4)]);
    }

    #[test]
    fn the_farthest_negative_stands_in_where_none_is_farther_than_the_positive() {
        let distances = Tensor::from_slice(&[9.0_f64, 1.0, 3.0]).view([1, 3]);
        let positive = Tensor::from_slice(&[true, false, false]).view([1, 3]);
        let next = next_negative(&distances, &positive, &positive.logical_not());
        assert_eq!(listed(&next), [(0, 0, 2)]);
    }

    #[test]
    fn pairs_of_triplets_count_once() {
        let (distances, positive, negative) = example();
        let triplets = Some(next_negative(&distances, &positive, &negative));
        let selection = Selection {
            positive: positive.shallow_clone(),
            negative,
            triplets,
        };
        let (positives, negatives) = selection.pairs();
        let columns = |marks: &Tensor| Vec::<i64>::try_from(indices_of(marks).1).unwrap();
        assert_eq!(columns(&positives), [1, 3]);
        assert_eq!(columns(&negatives), [2, 4]);
    }

    #[test]
    fn negatives_are_drawn_in_proportion_to_their_weights() {
        /// Standard deviation of the share is 0.43 / sqrt(4000) = 0.007.
        const TOLERANCE: f64 = 0.035;
        let weights = Tensor::from_slice(&[0.0_f64, 1.0, 0.0, 3.0]).view([1, 4]);
        let positive = Tensor::from_slice(&[true, false, false, false]).view([1, 4]);
        let negative = positive.logical_not();
        let n_draws = 4000;
        let drawn = (0..n_draws).map(|step| {
            let random = &mut Random::new(1).at(step);
            listed(&draw_negatives(&weights, &positive, &negative, random))[0].2
        });
        let drawn: Vec<i64> = drawn.collect();
        assert!(drawn.iter().all(|&column| column == 1 || column == 3));
        let share = drawn.iter().filter(|&&column| column == 3).count() as f64 / n_draws as f64;
        assert!((share - 0.75).abs() < TOLERANCE, "{share}");
    }

    #[test]
    fn distance_weights_are_finite_at_512_components_and_even_without_eligible_negatives() {
        let distances = Tensor::from_slice(&[0.1_f64, 0.6, 1.3, 1.9, 1.5, 1.6, 1.7, 2.0]);
        let negative = Tensor::from_slice(&[true, true, true, true, true, true, true, false]);
        let (distances, negative) = (distances.view([2, 4]), negative.view([2, 4]));
        let weights = inverse_density(&distances, &negative, 512.0, 0.5, 1.4);
        let weights = Vec::<f64>::try_from(weights.view(-1)).unwrap();
        // Nearer than 0.5 counts as 0.5, the likeliest; farther than 1.4 is left out.
        assert_eq!(weights[0], 1.0);
        assert!(0.0 < weights[1] && weights[1] < 1.0, "{weights:?}");
        assert_eq!(weights[3..], [0.0, 1.0, 1.0, 1.0, 0.0]);
    }
}
