//! Thresholds that hold wanted rates, for samples of any size and scores of any shape.
//!
//! The upper threshold is an order statistic of the unknown queries' best scores. The next
//! unknown query of the same kind is as likely to fall into each gap between them as into any
//! other, so the rate holds without a model of the scores (the argument of conformal
//! prediction: Vovk, Gammerman and Shafer, 2005).

use eyas_shared::calibration::NO_SCORE;
use eyas_shared::embedding::Score;

use super::intervals::upper_bound;

/// Matches of known queries that have to remain for a margin to be chosen by them.
pub const MIN_MATCHES: usize = 20;

/// How sure the false-match rate has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Guarantee {
    /// It holds on average over calibrations.
    Expected,
    /// Its upper confidence bound holds it.
    Bounded {
        /// Of the bound, such as 0.95.
        confidence: f64,
        /// Queries that weigh as much as one independent one.
        design_effect: f64,
    },
}

/// How many of `n` unknown queries may reach the threshold; `None` if even none is too many to
/// claim the rate.
#[must_use]
pub fn allowed_false_matches(n: usize, rate: f64, guarantee: Guarantee) -> Option<usize> {
    match guarantee {
        // (k + 1) / (n + 1) is the chance that the next query is among the k + 1 best. The
        // small addition keeps 0.01 x 100 from being 0.9999.
        Guarantee::Expected => (((n + 1) as f64 * rate + 1e-9) as usize).checked_sub(1),
        Guarantee::Bounded {
            confidence,
            design_effect,
        } => {
            let holds = |k: usize| {
                let (k, n) = (k as f64 / design_effect, n as f64 / design_effect);
                upper_bound(k, n, confidence) <= rate
            };
            // The bound rises with k: a binary search for the first that does not hold.
            let (mut low, mut high) = (0, n);
            while low < high {
                let middle = low + (high - low) / 2;
                if holds(middle) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low.checked_sub(1)
        }
    }
}

/// Smallest number of unknown queries from which the rate can be claimed.
#[must_use]
pub fn needed_unknown(rate: f64, guarantee: Guarantee) -> usize {
    match guarantee {
        Guarantee::Expected => ((1.0 - 1e-9) / rate - 1.0).ceil() as usize,
        Guarantee::Bounded {
            confidence,
            design_effect,
        } => (design_effect * (1.0 - confidence).ln() / (1.0 - rate).ln()).ceil() as usize,
    }
}

/// The lowest threshold that at most `allowed` of the scores reach.
///
/// # Panics
/// If there are no scores.
#[must_use]
pub fn match_threshold(unknown: &[Score], allowed: usize) -> Score {
    let mut scores = unknown.to_vec();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    scores[allowed.min(scores.len() - 1)].next_up()
}

/// The highest threshold below which the next known query falls with at most this
/// probability, but not above `match_score`; [`NO_SCORE`] if there are too few to say.
#[must_use]
pub fn unknown_threshold(known: &[Score], rate: f64, match_score: Score) -> Score {
    let mut scores = known.to_vec();
    scores.sort_unstable_by(Score::total_cmp);
    let rank = ((scores.len() + 1) as f64 * rate + 1e-9) as usize;
    match rank.checked_sub(1).and_then(|idx| scores.get(idx)) {
        Some(&score) => score.min(match_score),
        None => NO_SCORE,
    }
}

/// The smallest margin at which at most the share `rate` of matches is wrong, among matches
/// given as margin and whether the label is right. `None` if no margin with [`MIN_MATCHES`]
/// left does.
#[must_use]
pub fn margin(matches: &[(Score, bool)], rate: f64) -> Option<Score> {
    let mut matches = matches.to_vec();
    matches.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut n_wrong = matches.iter().filter(|(_, is_right)| !is_right).count();
    let mut smallest: Score = 0.0;
    for (idx, (lead, is_right)) in matches.iter().enumerate() {
        let n_left = matches.len() - idx;
        if n_left < MIN_MATCHES {
            return None;
        }
        // Equal leads pass or fail together.
        let is_first = idx == 0 || matches[idx - 1].0 < *lead;
        if is_first && n_wrong as f64 <= rate * n_left as f64 {
            return Some(smallest);
        }
        n_wrong -= usize::from(!is_right);
        smallest = lead.next_up();
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDED: Guarantee = Guarantee::Bounded {
        confidence: 0.95,
        design_effect: 1.0,
    };

    #[test]
    fn a_rate_needs_as_many_unknown_queries_as_the_textbooks_say() {
        assert_eq!(needed_unknown(0.01, Guarantee::Expected), 99);
        assert_eq!(needed_unknown(0.01, BOUNDED), 299);
        for (guarantee, n) in [(Guarantee::Expected, 99), (BOUNDED, 299)] {
            assert_eq!(allowed_false_matches(n, 0.01, guarantee), Some(0));
            assert_eq!(allowed_false_matches(n - 1, 0.01, guarantee), None);
        }
        assert_eq!(
            allowed_false_matches(652, 0.01, Guarantee::Expected),
            Some(5)
        );
    }

    #[test]
    fn a_margin_shuts_wrong_matches_out_and_is_not_made_up() {
        let mut matches: Vec<(Score, bool)> = (1..=30_u8).map(|i| (f32::from(i), true)).collect();
        assert_eq!(margin(&matches, 0.0), Some(0.0));
        matches.extend([(2.0, false), (2.0, false)]);
        assert_eq!(margin(&matches, 0.0), Some(2.0_f32.next_up()));
        assert_eq!(margin(&matches, 0.07), Some(0.0));
        matches.push((29.0, false));
        assert_eq!(margin(&matches, 0.0), None);
        assert_eq!(margin(&matches[..5], 0.5), None);
    }

    fn scores() -> impl Strategy<Value = Vec<f32>> {
        // A grid, so that ties occur.
        proptest::collection::vec((-20_i8..=20).prop_map(|x| f32::from(x) / 20.0), 1..400)
    }

    proptest! {
        #[test]
        fn a_threshold_holds_its_rate_where_it_was_found(
            unknown in scores(), rate in 0.001_f64..0.6, bounded: bool,
        ) {
            let guarantee = if bounded { BOUNDED } else { Guarantee::Expected };
            let allowed = allowed_false_matches(unknown.len(), rate, guarantee);
            prop_assert_eq!(allowed.is_some(), unknown.len() >= needed_unknown(rate, guarantee));
            if let Some(allowed) = allowed {
                let threshold = match_threshold(&unknown, allowed);
                let n_false = unknown.iter().filter(|&&score| score >= threshold).count();
                prop_assert!(n_false <= allowed);
                prop_assert!(n_false as f64 <= rate * unknown.len() as f64);
                // Not needlessly strict: one step lower lets too many through.
                let lower = unknown.iter().filter(|&&score| score >= threshold.next_down()).count();
                prop_assert!(lower > allowed);
            }
        }

        #[test]
        fn a_higher_rate_never_raises_the_threshold(
            unknown in scores(), a in 0.01_f64..0.5, b in 0.01_f64..0.5,
        ) {
            let at = |rate| {
                let allowed = allowed_false_matches(unknown.len(), rate, Guarantee::Expected)?;
                Some(match_threshold(&unknown, allowed))
            };
            if let (Some(strict), Some(lax)) = (at(a.min(b)), at(a.max(b))) {
                prop_assert!(lax <= strict);
            }
        }

        #[test]
        fn few_known_queries_fall_below_the_lower_threshold(
            known in scores(), rate in 0.0_f64..0.5, match_score in -1.0_f32..1.0,
        ) {
            let threshold = unknown_threshold(&known, rate, match_score);
            let n_below = known.iter().filter(|&&score| score < threshold).count();
            prop_assert!(n_below as f64 <= rate * known.len() as f64 + 1e-6);
            prop_assert!(threshold <= match_score);
        }

        #[test]
        fn order_does_not_matter(unknown in scores(), seed: u64, allowed in 0_usize..9) {
            let mut shuffled = unknown.clone();
            eyas_shared::random::Random::new(seed).shuffle(&mut shuffled);
            prop_assert_eq!(match_threshold(&unknown, allowed), match_threshold(&shuffled, allowed));
            prop_assert_eq!(
                unknown_threshold(&unknown, 0.1, 1.0),
                unknown_threshold(&shuffled, 0.1, 1.0)
            );
        }
    }
}
