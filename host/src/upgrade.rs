//! Whether a new student may take an old one's place: both ask the same gallery the same
//! questions.
//!
//! Two students of equal recall can be right on different photographs, and whoever uses the
//! old one sees what the new one gets wrong, not the mean. So besides both recalls the *flip
//! rate* is counted: queries that were answered right and are not any more.

use crate::evaluate::paired::sign_test;
use crate::evaluate::{QueryOutcome, Retrieval};

/// An old student and a new one over the same queries; those without a relevant gallery
/// image are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Queries that count.
    pub n_queries: usize,
    /// Queries that both answer right.
    pub n_right_both: usize,
    /// Right before, wrong now.
    pub n_lost: usize,
    /// Wrong before, right now.
    pub n_won: usize,
    /// Which queries are lost, from 0 in the order in which they were asked.
    pub lost: Vec<usize>,
}

impl Comparison {
    /// Compares what two students found for the same queries in the same order.
    ///
    /// # Panics
    /// If the numbers of queries differ.
    #[must_use]
    pub fn of(old: &Retrieval, new: &Retrieval) -> Self {
        assert_eq!(old.queries.len(), new.queries.len(), "the same queries");
        let is_right = |outcome: &QueryOutcome| outcome.first_rank == Some(0);
        let mut found = Self {
            n_queries: 0,
            n_right_both: 0,
            n_lost: 0,
            n_won: 0,
            lost: Vec::new(),
        };
        for (query_idx, (old, new)) in old.queries.iter().zip(&new.queries).enumerate() {
            if old.n_relevant == 0 {
                continue;
            }
            found.n_queries += 1;
            match (is_right(old), is_right(new)) {
                (true, true) => found.n_right_both += 1,
                (true, false) => {
                    found.n_lost += 1;
                    found.lost.push(query_idx);
                }
                (false, true) => found.n_won += 1,
                (false, false) => {}
            }
        }
        found
    }

    /// recall_at_1 of the old student.
    #[must_use]
    pub fn old_recall_at_1(&self) -> f64 {
        self.share(self.n_right_both + self.n_lost)
    }

    /// recall_at_1 of the new student.
    #[must_use]
    pub fn new_recall_at_1(&self) -> f64 {
        self.share(self.n_right_both + self.n_won)
    }

    /// How much recall_at_1 falls; negative if it rises.
    #[must_use]
    pub fn drop(&self) -> f64 {
        self.old_recall_at_1() - self.new_recall_at_1()
    }

    /// Share of queries that were right before and are wrong now.
    #[must_use]
    pub fn flip_rate(&self) -> f64 {
        self.share(self.n_lost)
    }

    /// See [`sign_test`].
    #[must_use]
    pub fn chance(&self) -> f64 {
        sign_test(self.n_lost, self.n_won)
    }

    fn share(&self, n: usize) -> f64 {
        n as f64 / self.n_queries.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Scores;

    fn retrieval(first_ranks: &[Option<usize>]) -> Retrieval {
        let outcome = |first_rank: &Option<usize>| QueryOutcome {
            best: Vec::new(),
            n_relevant: usize::from(first_rank.is_some()),
            n_searched: 9,
            first_rank: *first_rank,
            scores: None,
        };
        Retrieval {
            queries: first_ranks.iter().map(outcome).collect(),
            means: Scores::default(),
            n_without_relevant: 0,
        }
    }

    #[test]
    fn flips_are_counted_one_by_one_and_not_from_the_means() {
        let old = retrieval(&[Some(0), Some(0), Some(2), None, Some(1)]);
        let new = retrieval(&[Some(0), Some(3), Some(0), None, Some(1)]);
        let found = Comparison::of(&old, &new);
        assert_eq!((found.n_queries, found.n_lost, found.n_won), (4, 1, 1));
        assert_eq!(found.lost, [1]);
        assert_eq!(
            (found.old_recall_at_1(), found.new_recall_at_1()),
            (0.5, 0.5)
        );
        assert_eq!((found.drop(), found.flip_rate()), (0.0, 0.25));
        assert_eq!(found.chance(), 1.0);
    }
}
