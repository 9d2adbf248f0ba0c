//! Retrieval metrics of one query, each by its convention's name.
//!
//! All read a [`Ranking`]: which of the ranked gallery items are relevant, best first, with
//! the query itself already left out. A query with nothing to find has no value (`None`)
//! and is counted apart, never as 0 or 1.

/// The ranked gallery of one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// Whether the item at this rank is relevant, best first. May end early, but not
    /// before rank `n_relevant`, nor before the largest k that is asked for.
    pub is_relevant: Vec<bool>,
    /// Relevant items in the whole gallery (R), the query left out.
    pub n_relevant: usize,
}

/// 1 if one of the first `k` items is relevant, else 0: the metric-learning Recall@K.
#[must_use]
pub fn recall_at_k(ranking: &Ranking, k: usize) -> Option<f64> {
    (ranking.n_relevant > 0).then(|| {
        let found = ranking.is_relevant.iter().take(k).any(|hit| *hit);
        f64::from(u8::from(found))
    })
}

/// (1/R) times the sum of the precision at each relevant rank up to R (Musgrave et al.,
/// ECCV 2020).
#[must_use]
pub fn mean_average_precision_at_r(ranking: &Ranking) -> Option<f64> {
    average_precision(ranking, ranking.n_relevant)
}

/// (1/R) times the sum of the precision at each relevant rank: full average precision as a
/// step function, without interpolation. Reads the whole ranking.
#[must_use]
pub fn average_precision_step(ranking: &Ranking) -> Option<f64> {
    average_precision(ranking, ranking.is_relevant.len())
}

/// Share of relevant items among the first R.
#[must_use]
pub fn r_precision(ranking: &Ranking) -> Option<f64> {
    let r = ranking.n_relevant;
    let hits = ranking.is_relevant.iter().take(r).filter(|hit| **hit);
    (r > 0).then(|| hits.count() as f64 / r as f64)
}

fn average_precision(ranking: &Ranking, n_ranks: usize) -> Option<f64> {
    if ranking.n_relevant == 0 {
        return None;
    }
    let mut n_found = 0;
    let mut sum = 0.0;
    for (rank, hit) in (1..).zip(ranking.is_relevant.iter().take(n_ranks)) {
        if *hit {
            n_found += 1;
            sum += f64::from(n_found) / f64::from(rank);
        }
    }
    Some(sum / ranking.n_relevant as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(pattern: &str, n_relevant: usize) -> Ranking {
        Ranking {
            is_relevant: pattern.chars().map(|c| c == '+').collect(),
            n_relevant,
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
        // Relevant at ranks 2, 3 and 5, R = 3.
        let example = ranking("-++-+", 3);
        close(recall_at_k(&example, 1), 0.0);
        close(recall_at_k(&example, 2), 1.0);
        close(
            mean_average_precision_at_r(&example),
            (1.0 / 2.0 + 2.0 / 3.0) / 3.0,
        );
        let full = (1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0;
        close(average_precision_step(&example), full);
        close(r_precision(&example), 2.0 / 3.0);
    }

    #[test]
    fn a_perfect_ranking_scores_one_and_a_hopeless_one_zero() {
        let perfect = ranking("++--", 2);
        let hopeless = ranking("--", 2);
        for metric in [
            mean_average_precision_at_r,
            average_precision_step,
            r_precision,
        ] {
            close(metric(&perfect), 1.0);
            close(metric(&hopeless), 0.0);
        }
    }

    #[test]
    fn a_query_with_nothing_to_find_has_no_value() {
        let nothing = ranking("---", 0);
        assert_eq!(recall_at_k(&nothing, 1), None);
        assert_eq!(mean_average_precision_at_r(&nothing), None);
        assert_eq!(average_precision_step(&nothing), None);
        assert_eq!(r_precision(&nothing), None);
    }
}
