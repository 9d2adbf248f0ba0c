//! Retrieval metrics of one query, each by its convention's name.
//!
//! All read a [`Ranking`]: the ranks at which the relevant gallery items stand, the query
//! itself already left out. A query with nothing to find has no value (`None`) and is
//! counted apart, never as 0 or 1.

/// Where one query's relevant items stand among the gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// Ranks of relevant items from 0, ascending. Items that were not retrieved have none.
    pub ranks: Vec<usize>,
    /// Relevant items in the whole gallery (R), the query left out.
    pub n_relevant: usize,
}

impl Ranking {
    /// From whether each ranked item is relevant, best first; all relevant items are there.
    pub fn of_whole(is_relevant: impl IntoIterator<Item = bool>) -> Self {
        let hits = is_relevant.into_iter().enumerate();
        let ranks: Vec<usize> = hits.filter(|hit| hit.1).map(|hit| hit.0).collect();
        Self {
            n_relevant: ranks.len(),
            ranks,
        }
    }

    /// Relevant items among the first `k`.
    fn n_found(&self, k: usize) -> usize {
        self.ranks.partition_point(|rank| *rank < k)
    }

    /// `value`, unless there is nothing to find.
    fn if_any(&self, value: impl FnOnce() -> f64) -> Option<f64> {
        (self.n_relevant > 0).then(value)
    }
}

/// 1 if one of the first `k` items is relevant, else 0: the metric-learning Recall@K.
#[must_use]
pub fn recall_at_k(ranking: &Ranking, k: usize) -> Option<f64> {
    ranking.if_any(|| f64::from(u8::from(ranking.n_found(k) > 0)))
}

/// 1 if the first relevant item stands among the first `k`, else 0: the cumulative matching
/// characteristic, as In-Shop and re-identification report it. One query, one gallery: the
/// same number as [`recall_at_k`].
#[must_use]
pub fn cmc_at_k(ranking: &Ranking, k: usize) -> Option<f64> {
    recall_at_k(ranking, k)
}

/// 1 if the first item is relevant, else 0.
#[must_use]
pub fn precision_at_1(ranking: &Ranking) -> Option<f64> {
    precision_at_k(ranking, 1)
}

/// Share of relevant items among the first `k`; `k` is at least 1. Less than 1 for a
/// perfect ranking of fewer than `k` relevant items.
#[must_use]
pub fn precision_at_k(ranking: &Ranking, k: usize) -> Option<f64> {
    ranking.if_any(|| ranking.n_found(k) as f64 / k as f64)
}

/// [`precision_at_k`], but no rank after the last relevant item counts: the mP@k of the
/// revisited Oxford and Paris protocols. A perfect ranking gives 1 for every `k`.
#[must_use]
pub fn precision_at_k_or_last(ranking: &Ranking, k: usize) -> Option<f64> {
    ranking.if_any(|| {
        let end = ranking.ranks.last().map_or(k, |last| k.min(last + 1));
        ranking.n_found(end) as f64 / end as f64
    })
}

/// Share of relevant items among the first R.
#[must_use]
pub fn r_precision(ranking: &Ranking) -> Option<f64> {
    precision_at_k(ranking, ranking.n_relevant)
}

/// (1/R) times the sum of the precision at each relevant rank up to R (Musgrave et al.,
/// ECCV 2020).
#[must_use]
pub fn mean_average_precision_at_r(ranking: &Ranking) -> Option<f64> {
    let r = ranking.n_relevant;
    ranking.if_any(|| sum_of_precisions(ranking, r) / r as f64)
}

/// (1/R) times the sum of the precision at each relevant rank: full average precision as a
/// step function, without interpolation.
#[must_use]
pub fn average_precision_step(ranking: &Ranking) -> Option<f64> {
    ranking.if_any(|| sum_of_precisions(ranking, usize::MAX) / ranking.n_relevant as f64)
}

/// The sum of the precision at each relevant rank below `k`, divided by the number of
/// relevant items *found* there: 0 if none is. Some libraries call this mean average
/// precision; it does not fall when relevant items are missed.
#[must_use]
pub fn average_precision_of_found(ranking: &Ranking, k: usize) -> Option<f64> {
    let n_found = ranking.n_found(k).max(1);
    ranking.if_any(|| sum_of_precisions(ranking, k) / n_found as f64)
}

/// Average precision, trapezoid rule of the Oxford and Paris protocols: the mean over the
/// relevant items of the precision just before and just after each.
///
/// Lower than [`average_precision_step`] for the same ranking (one relevant item at rank 4,
/// from 0: 0.10 against 0.20), so the two never share a column.
#[must_use]
pub fn average_precision_trapezoid(ranking: &Ranking) -> Option<f64> {
    let mut sum = 0.0;
    for (n_before, &rank) in ranking.ranks.iter().enumerate() {
        let before = match rank {
            0 => 1.0,
            _ => n_before as f64 / rank as f64,
        };
        sum += (before + (n_before + 1) as f64 / (rank + 1) as f64) / 2.0;
    }
    ranking.if_any(|| sum / ranking.n_relevant as f64)
}

fn sum_of_precisions(ranking: &Ranking, k: usize) -> f64 {
    let precision = |(n_before, rank): (usize, &usize)| (n_before + 1) as f64 / (rank + 1) as f64;
    let found = &ranking.ranks[..ranking.n_found(k)];
    found.iter().enumerate().map(precision).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(pattern: &str, n_relevant: usize) -> Ranking {
        Ranking {
            n_relevant,
            ..Ranking::of_whole(pattern.chars().map(|c| c == '+'))
        }
    }

    /// Sums of a few fractions.
    const TOLERANCE: f64 = 1e-12;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < TOLERANCE, "{found} {expected}");
    }

    #[test]
    fn hand_worked_rankings() {
        // Relevant at ranks 2, 3 and 5, counted from 1; R = 3.
        let example = ranking("-++-+", 3);
        close(recall_at_k(&example, 1), 0.0);
        close(precision_at_1(&example), 0.0);
        close(cmc_at_k(&example, 2), 1.0);
        close(precision_at_k(&example, 10), 0.3);
        close(precision_at_k_or_last(&example, 10), 0.6);
        close(precision_at_k_or_last(&example, 4), 0.5);
        close(
            mean_average_precision_at_r(&example),
            (1.0 / 2.0 + 2.0 / 3.0) / 3.0,
        );
        let full = (1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0;
        close(average_precision_step(&example), full);
        close(
            average_precision_of_found(&example, 3),
            (1.0 / 2.0 + 2.0 / 3.0) / 2.0,
        );
        close(r_precision(&example), 2.0 / 3.0);
        let before = 0.0 + 1.0 / 2.0 + 2.0 / 4.0;
        let after = 1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 5.0;
        close(
            average_precision_trapezoid(&example),
            (before + after) / 6.0,
        );
        close(average_precision_trapezoid(&ranking("----+", 1)), 0.1);
        close(average_precision_step(&ranking("----+", 1)), 0.2);
    }

    #[test]
    fn a_perfect_ranking_scores_one_and_a_hopeless_one_zero() {
        let perfect = ranking("++--", 2);
        let hopeless = ranking("--", 2);
        for metric in [
            mean_average_precision_at_r,
            average_precision_step,
            average_precision_trapezoid,
            r_precision,
            |ranking: &Ranking| precision_at_k_or_last(ranking, 10),
            |ranking: &Ranking| average_precision_of_found(ranking, 10),
        ] {
            close(metric(&perfect), 1.0);
            close(metric(&hopeless), 0.0);
        }
    }

    #[test]
    fn a_query_with_nothing_to_find_has_no_value() {
        let nothing = ranking("---", 0);
        assert_eq!(recall_at_k(&nothing, 1), None);
        assert_eq!(precision_at_1(&nothing), None);
        assert_eq!(precision_at_k_or_last(&nothing, 1), None);
        assert_eq!(mean_average_precision_at_r(&nothing), None);
        assert_eq!(average_precision_step(&nothing), None);
        assert_eq!(average_precision_trapezoid(&nothing), None);
        assert_eq!(r_precision(&nothing), None);
    }
}
