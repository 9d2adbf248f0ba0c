//! The revisited Oxford and Paris protocols (Radenović et al., CVPR 2018).
//!
//! For each query the gallery's images are easy, hard, junk, or none of the three. A
//! [`Level`] says which of them count as relevant; junk is taken out of the ranking before
//! anything is measured. Queries without a relevant image at a level are in no mean.

use super::metrics::{self, Ranking};

/// The images that matter to one query, as positions in the gallery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroundTruth {
    /// Clearly show the query's landmark.
    pub easy: Vec<usize>,
    /// Show it under difficult conditions.
    pub hard: Vec<usize>,
    /// Show too little of it to count either way.
    pub junk: Vec<usize>,
}

/// Which images count as relevant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Easy ones; hard ones are junk.
    Easy,
    /// Easy and hard ones.
    Medium,
    /// Hard ones; easy ones are junk.
    Hard,
}

impl Level {
    /// All levels, the easiest first.
    pub const ALL: [Self; 3] = [Self::Easy, Self::Medium, Self::Hard];

    /// As it stands in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
        }
    }
}

impl GroundTruth {
    /// Relevant and junk images at a level.
    #[must_use]
    pub fn at(&self, level: Level) -> (Vec<usize>, Vec<usize>) {
        let both = |a: &[usize], b: &[usize]| [a, b].concat();
        match level {
            Level::Easy => (self.easy.clone(), both(&self.junk, &self.hard)),
            Level::Medium => (both(&self.easy, &self.hard), self.junk.clone()),
            Level::Hard => (self.hard.clone(), both(&self.junk, &self.easy)),
        }
    }
}

/// The ranking without junk: each relevant item moves up by the junk before it. Both lists
/// are ranks from 0 in any order; a rank that is in both counts as junk.
#[must_use]
pub fn without_junk(relevant: &[usize], junk: &[usize], n_relevant: usize) -> Ranking {
    let sorted = |ranks: &[usize]| {
        let mut ranks = ranks.to_vec();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    };
    let junk = sorted(junk);
    let n_before = |rank: usize| junk.partition_point(|before| *before < rank);
    let kept = sorted(relevant)
        .into_iter()
        .filter(|rank| junk.binary_search(rank).is_err());
    Ranking {
        ranks: kept.map(|rank| rank - n_before(rank)).collect(),
        n_relevant,
    }
}

/// What one level gives.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisitedScores {
    /// Trapezoid average precision of each query; `None` without a relevant image.
    pub average_precision: Vec<Option<f64>>,
    /// Of each query, for each k: see [`metrics::precision_at_k_or_last`].
    pub precision_at_k: Vec<Option<Vec<f64>>>,
    /// Mean of [`average_precision`](Self::average_precision); `None` if no query has one.
    pub mean_average_precision: Option<f64>,
    /// Mean over the queries for each k; empty if no query has any.
    pub mean_precision_at_k: Vec<f64>,
    /// Queries in no mean.
    pub n_without_relevant: usize,
}

/// Scores rankings from which junk was taken out, one for each query.
#[must_use]
pub fn scores(rankings: &[Ranking], ks: &[usize]) -> RevisitedScores {
    let average_precision: Vec<Option<f64>> = rankings
        .iter()
        .map(metrics::average_precision_trapezoid)
        .collect();
    let at_ks = |ranking: &Ranking| -> Option<Vec<f64>> {
        let at_k = |k: &usize| metrics::precision_at_k_or_last(ranking, *k);
        ks.iter().map(at_k).collect()
    };
    let precision_at_k: Vec<Option<Vec<f64>>> = rankings
        .iter()
        .map(|ranking| at_ks(ranking).filter(|_| ranking.n_relevant > 0))
        .collect();
    let found: Vec<f64> = average_precision.iter().flatten().copied().collect();
    let n_scored = found.len() as f64;
    let mean_at = |k_idx: usize| {
        let of_k = precision_at_k.iter().flatten().map(|at| at[k_idx]);
        of_k.sum::<f64>() / n_scored
    };
    let has_any = !found.is_empty();
    RevisitedScores {
        mean_average_precision: has_any.then(|| found.iter().sum::<f64>() / n_scored),
        mean_precision_at_k: (0..ks.len()).filter(|_| has_any).map(mean_at).collect(),
        n_without_relevant: rankings.len() - found.len(),
        average_precision,
        precision_at_k,
    }
}

/// [`scores`] at one level of whole rankings: for each query the gallery positions, best
/// first.
#[must_use]
pub fn scores_of_order(
    order: &[Vec<usize>],
    truths: &[GroundTruth],
    level: Level,
    ks: &[usize],
) -> RevisitedScores {
    let ranking = |(order, truth): (&Vec<usize>, &GroundTruth)| {
        let mut rank_of = std::collections::HashMap::new();
        for (rank, &item) in order.iter().enumerate() {
            rank_of.insert(item, rank);
        }
        let (relevant, junk) = truth.at(level);
        let ranks = |items: &[usize]| -> Vec<usize> {
            let found = items.iter().filter_map(|item| rank_of.get(item));
            found.copied().collect()
        };
        without_junk(&ranks(&relevant), &ranks(&junk), relevant.len())
    };
    let rankings: Vec<Ranking> = order.iter().zip(truths).map(ranking).collect();
    scores(&rankings, ks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_moves_later_items_up_and_never_counts() {
        let ranking = without_junk(&[6, 2], &[0, 3, 4, 9], 3);
        assert_eq!(ranking.ranks, [1, 3]);
        assert_eq!(ranking.n_relevant, 3);
        assert_eq!(without_junk(&[2, 5], &[2], 2).ranks, [4]);
    }

    #[test]
    fn levels_say_what_is_relevant_and_what_is_junk() {
        let truth = GroundTruth {
            easy: vec![1],
            hard: vec![2],
            junk: vec![3],
        };
        assert_eq!(truth.at(Level::Easy), (vec![1], vec![3, 2]));
        assert_eq!(truth.at(Level::Medium), (vec![1, 2], vec![3]));
        assert_eq!(truth.at(Level::Hard), (vec![2], vec![3, 1]));
        let order = vec![vec![3, 2, 0, 1], vec![0, 1, 2, 3]];
        let truths = [truth, GroundTruth::default()];
        let easy = scores_of_order(&order, &truths, Level::Easy, &[1, 2]);
        // Junk gone, item 0 comes before item 1.
        assert_eq!(easy.average_precision, [Some(0.25), None]);
        assert_eq!(easy.mean_average_precision, Some(0.25));
        assert_eq!(easy.mean_precision_at_k, [0.0, 0.5]);
        assert_eq!(easy.n_without_relevant, 1);
        let none = scores_of_order(&order[1..], &truths[1..], Level::Hard, &[1]);
        assert_eq!(none.mean_average_precision, None);
        assert_eq!(none.mean_precision_at_k, Vec::<f64>::new());
    }
}
