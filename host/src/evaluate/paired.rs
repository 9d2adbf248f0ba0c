//! What one way of answering loses beside another, query by query.
//!
//! Queries are answered by the matcher as a board answers them, so what a scan of codes
//! misses counts. Both ways answer the same queries, and the interval of the mean
//! difference is that of a paired bootstrap: queries that are hard for both cancel.

use eyas_device::matcher::{Matcher, Query};
use eyas_shared::random::Random;

use super::metrics::{self, Ranking};
use super::protocols::{Queries, Relevant, RetrievalError, check_queries};
use crate::data::parallel;

/// Resamples of a bootstrap: the ends of a 95 % interval then vary by a percent of its width.
const N_RESAMPLES: usize = 10_000;

/// Queries that share one reading of the gallery.
const BATCH: usize = 8;

/// Metrics of one query that look no further than its R best matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopScores {
    /// See [`metrics::recall_at_k`].
    pub recall_at_1: f64,
    /// See [`metrics::mean_average_precision_at_r`].
    pub mean_average_precision_at_r: f64,
}

/// Scores each query by what the matcher answers; `None` where there is nothing to find.
///
/// # Errors
/// If dimensions differ or a query has no direction.
pub fn answered(
    queries: &Queries,
    matcher: &Matcher<'_>,
) -> Result<Vec<Option<TopScores>>, RetrievalError> {
    check_queries(queries, matcher)?;
    let relevant = Relevant::of(queries, matcher);
    let n_queries = queries.ids.len();
    let score = |batch_idx: usize| {
        let batch = batch_idx * BATCH..n_queries.min((batch_idx + 1) * BATCH);
        let wanted: Vec<Vec<u32>> = batch
            .clone()
            .map(|query_idx| relevant.rows_of(query_idx, queries, matcher))
            .collect();
        let asked: Vec<Query<'_>> = batch
            .map(|query_idx| Query {
                exclude: Some(queries.ids[query_idx]),
                ..Query::new(queries.embeddings.row(query_idx))
            })
            .collect();
        let k = wanted.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let answers = matcher.search_batch(&asked, k);
        let scored = answers.iter().zip(&wanted).map(|(answer, wanted)| {
            let hits = answer.iter().enumerate();
            let ranks = hits.filter(|(_, found)| wanted.binary_search(&found.row).is_ok());
            let ranking = Ranking {
                ranks: ranks.map(|(rank, _)| rank).collect(),
                n_relevant: wanted.len(),
            };
            Some(TopScores {
                recall_at_1: metrics::recall_at_k(&ranking, 1)?,
                mean_average_precision_at_r: metrics::mean_average_precision_at_r(&ranking)?,
            })
        });
        scored.collect::<Vec<_>>()
    };
    let scored = parallel::map(n_queries.div_ceil(BATCH), score, || {});
    Ok(scored.into_iter().flatten().collect())
}

/// A mean difference and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean of one side less the mean of the other.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Pairs.
    pub n: usize,
}

impl Difference {
    /// `new` less `old`, pair by pair: percentile bootstrap (Efron, 1979). The same pairs
    /// give the same interval. All 0 without pairs.
    ///
    /// # Panics
    /// If their numbers differ.
    #[must_use]
    pub fn of(old: &[f64], new: &[f64]) -> Self {
        assert_eq!(old.len(), new.len(), "values that are no pairs");
        let n = old.len();
        if n == 0 {
            return Self {
                mean: 0.0,
                low: 0.0,
                high: 0.0,
                n,
            };
        }
        let differences: Vec<f64> = new.iter().zip(old).map(|(new, old)| new - old).collect();
        let mut random = Random::new(0);
        let mut means: Vec<f64> = (0..N_RESAMPLES)
            .map(|_| {
                let sum: f64 = (0..n).map(|_| differences[random.below(n)]).sum();
                sum / n as f64
            })
            .collect();
        means.sort_unstable_by(f64::total_cmp);
        Self {
            mean: differences.iter().sum::<f64>() / n as f64,
            low: means[N_RESAMPLES / 40],
            high: means[N_RESAMPLES - 1 - N_RESAMPLES / 40],
            n,
        }
    }
}

/// Probability that two equally good sides differ by as much, either way: the exact sign
/// test over the queries on which they disagree (McNemar 1947), of which `n_lost` are right
/// on the first side alone and `n_won` on the second.
#[must_use]
pub fn sign_test(n_lost: usize, n_won: usize) -> f64 {
    let n = n_lost + n_won;
    // In logarithms, because 2^-n leaves the range of f64 soon.
    let mut ln_choose = 0.0;
    let mut tail = 0.0;
    for i in 0..=n_lost.min(n_won) {
        if i > 0 {
            ln_choose += ((n - i + 1) as f64 / i as f64).ln();
        }
        tail += (ln_choose - n as f64 * std::f64::consts::LN_2).exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_test_has_the_values_of_the_binomial() {
        // 2 * (1 + 10) / 2^10 and 2 / 2^5.
        for (lost, won, expected) in [(9, 1, 22.0 / 1024.0), (0, 5, 2.0 / 32.0), (0, 0, 1.0)] {
            assert!((sign_test(lost, won) - expected).abs() < 1e-12);
        }
        assert!(sign_test(2000, 10) < 1e-300);
    }

    #[test]
    fn equal_sides_differ_by_nothing() {
        let values = [0.0, 1.0, 1.0, 0.0];
        let difference = Difference::of(&values, &values);
        assert_eq!(
            (difference.mean, difference.low, difference.high),
            (0.0, 0.0, 0.0)
        );
        assert_eq!(Difference::of(&[], &[]).n, 0);
    }

    #[test]
    fn the_interval_covers_the_true_difference_about_as_often_as_it_says() {
        let mut random = Random::new(9);
        let n_covered = (0..200)
            .filter(|_| {
                let old: Vec<f64> = (0..60).map(|_| random.normal()).collect();
                let new: Vec<f64> = old.iter().map(|x| x + 0.3 + random.normal()).collect();
                let difference = Difference::of(&old, &new);
                assert!(difference.low <= difference.mean && difference.mean <= difference.high);
                difference.low <= 0.3 && 0.3 <= difference.high
            })
            .count();
        // 95 % of 200, and three standard deviations of the count.
        assert!((180..=199).contains(&n_covered), "{n_covered} of 200");
    }
}
