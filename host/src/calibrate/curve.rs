//! The reliability curve: how often the first label is right at a score.
//!
//! Scores are cut into bins of about equally many queries, and bins where the share falls
//! are joined (pool adjacent violators: Ayer et al., 1955). Bins carry their counts and an
//! interval; a curve through every single score, as isotonic regression alone gives, would
//! show steps of one query as if they were known.

use eyas_shared::calibration::{CurveBin, NO_SCORE};
use eyas_shared::embedding::Score;

use super::intervals::wilson;

/// Fewest queries in a bin: an interval of at most 0.4 around one half.
const MIN_BIN: usize = 25;

/// Most bins: more are not told apart by eye.
const MAX_BINS: usize = 12;

/// What became of a query's first label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A known query, and it is its label.
    Right,
    /// A known query, and it is another.
    Wrong,
    /// An unknown query.
    Unknown,
}

/// The curve of some scored outcomes, if the share `unknown_share` of queries is unknown.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn curve(outcomes: &[(Score, Outcome)], unknown_share: f64) -> Vec<CurveBin> {
    let mut outcomes = outcomes.to_vec();
    outcomes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n_unknown = { outcomes.iter() }
        .filter(|(_, outcome)| *outcome == Outcome::Unknown)
        .count();
    let weights = Weights {
        known: (1.0 - unknown_share) / (outcomes.len() - n_unknown).max(1) as f64,
        unknown: unknown_share / n_unknown.max(1) as f64,
    };
    let mut bins: Vec<CurveBin> = Vec::new();
    for bin in equal_bins(&outcomes) {
        let mut bin = weights.estimate(bin);
        // Joined with those before it as long as they promise more.
        while let Some(before) = bins.pop_if(|before| before.probability > bin.probability) {
            bin = weights.estimate(CurveBin {
                from: before.from,
                n_right: before.n_right + bin.n_right,
                n_wrong: before.n_wrong + bin.n_wrong,
                n_unknown: before.n_unknown + bin.n_unknown,
                ..bin
            });
        }
        bins.push(bin);
    }
    bins[0].from = NO_SCORE;
    bins
}

/// Bins of about equally many queries; equal scores share one.
fn equal_bins(outcomes: &[(Score, Outcome)]) -> Vec<CurveBin> {
    let n_bins = (outcomes.len() / MIN_BIN).clamp(1, MAX_BINS);
    let size = outcomes.len().div_ceil(n_bins);
    let mut bins: Vec<CurveBin> = Vec::new();
    let mut n_in_bin = 0;
    for (idx, &(score, outcome)) in outcomes.iter().enumerate() {
        let is_new_score = idx == 0 || outcomes[idx - 1].0 < score;
        if bins.is_empty() || (n_in_bin >= size && is_new_score) {
            bins.push(CurveBin {
                from: score,
                probability: 0.0,
                low: 0.0,
                high: 1.0,
                n_right: 0,
                n_wrong: 0,
                n_unknown: 0,
            });
            n_in_bin = 0;
        }
        n_in_bin += 1;
        if let Some(bin) = bins.last_mut() {
            match outcome {
                Outcome::Right => bin.n_right += 1,
                Outcome::Wrong => bin.n_wrong += 1,
                Outcome::Unknown => bin.n_unknown += 1,
            }
        }
    }
    bins
}

/// What a query of either kind counts, so that unknown ones have the wanted share.
struct Weights {
    known: f64,
    unknown: f64,
}

impl Weights {
    /// The bin with its probability and interval, for as many queries as have the same
    /// variance unweighted (Kish).
    fn estimate(&self, bin: CurveBin) -> CurveBin {
        let count = f64::from;
        let (right, wrong, unknown) = (
            count(bin.n_right) * self.known,
            count(bin.n_wrong) * self.known,
            count(bin.n_unknown) * self.unknown,
        );
        let total = right + wrong + unknown;
        let squares = (right + wrong) * self.known + unknown * self.unknown;
        let share = if total > 0.0 { right / total } else { 0.0 };
        let n = if squares > 0.0 {
            total * total / squares
        } else {
            0.0
        };
        let (low, high) = wilson(share, n);
        let probability = share as f32;
        CurveBin {
            probability,
            low: (low as f32).min(probability),
            high: (high as f32).max(probability),
            ..bin
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(code: u8) -> Outcome {
        [Outcome::Right, Outcome::Wrong, Outcome::Unknown][usize::from(code % 3)]
    }

    proptest! {
        #[test]
        fn a_curve_rises_and_counts_everything_in_any_order(
            cases in proptest::collection::vec((-20_i8..=20, 0_u8..3), 1..600),
            share in 0.0_f64..=1.0,
            seed: u64,
        ) {
            let mut outcomes: Vec<(Score, Outcome)> = cases
                .iter()
                .map(|&(score, code)| (f32::from(score) / 20.0, outcome(code)))
                .collect();
            let bins = curve(&outcomes, share);
            prop_assert_eq!(bins[0].from, NO_SCORE);
            for pair in bins.windows(2) {
                prop_assert!(pair[0].from < pair[1].from);
                prop_assert!(pair[0].probability <= pair[1].probability);
            }
            let n: u32 = bins.iter().map(|b| b.n_right + b.n_wrong + b.n_unknown).sum();
            prop_assert_eq!(n as usize, outcomes.len());
            for bin in &bins {
                prop_assert!(0.0 <= bin.low && bin.low <= bin.probability);
                prop_assert!(bin.probability <= bin.high && bin.high <= 1.0);
            }
            eyas_shared::random::Random::new(seed).shuffle(&mut outcomes);
            prop_assert_eq!(curve(&outcomes, share), bins);
        }
    }

    #[test]
    fn the_assumed_share_of_unknown_queries_moves_the_curve() {
        let mut outcomes = vec![(0.9, Outcome::Right); 60];
        outcomes.extend([(0.9, Outcome::Unknown); 20]);
        let at = |share| curve(&outcomes, share)[0].probability;
        assert_eq!((at(0.0), at(0.5), at(1.0)), (1.0, 0.5, 0.0));
    }
}
