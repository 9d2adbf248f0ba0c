//! Other orders of the same matches: query expansion, and votes of the nearest rows.
//!
//! Both only order. The scores that are returned are those of the query itself, so what a
//! calibration says of them stays true.

use eyas_shared::embedding::{Score, dot, l2_normalize};

use super::labels::best_labels;
use super::{Asked, Found, Request};
use crate::matcher::{Match, Matcher};

/// How matches are ordered; by the query's own score if nothing is set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rerank {
    /// Search a second time, with a query that its best rows were added to.
    pub expansion: Option<Expansion>,
    /// This many nearest rows vote for their labels: each with its score, 0 if negative. The
    /// label with the largest sum is first; of equal sums the one with the better row.
    pub votes: Option<usize>,
}

/// Alpha query expansion (Radenović, Tolias and Chum, TPAMI 2019): the best rows, each
/// weighted by its score to the power alpha, are added to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expansion {
    /// Rows that are added.
    pub n_rows: usize,
    /// Power of their scores; 0 weights all rows as the query.
    pub alpha: f32,
}

/// The best rows in the order of the request, at least `request.k` if there are so many.
pub(super) fn rows(matcher: &Matcher<'_>, asked: &Asked, request: &Request) -> Vec<Found> {
    let search = Search::new(matcher, asked, request);
    { search.rows(request.k).into_iter() }
        .map(|best| Found {
            best,
            label_idx: matcher.gallery().label_idx(best.row),
            votes: None,
        })
        .collect()
}

/// The best labels in the order of the request.
pub(super) fn labels(matcher: &Matcher<'_>, asked: &Asked, request: &Request) -> Vec<Found> {
    let search = Search::new(matcher, asked, request);
    if let Some(n_voters) = request.rerank.votes {
        return by_votes(matcher, &search.rows(n_voters));
    }
    best_labels(matcher, request.k, |k| search.rows(k))
        .into_iter()
        .map(|found| Found {
            best: found.best,
            label_idx: found.label_idx,
            votes: None,
        })
        .collect()
}

/// A ranking of rows by a query that may have been expanded.
struct Search<'s, 'g> {
    matcher: &'s Matcher<'g>,
    asked: &'s Asked,
    request: &'s Request,
    expanded: Option<Vec<f32>>,
}

impl<'s, 'g> Search<'s, 'g> {
    fn new(matcher: &'s Matcher<'g>, asked: &'s Asked, request: &'s Request) -> Self {
        let expanded = request.rerank.expansion.map(|expansion| {
            let best = matcher.search(&asked.embedding, expansion.n_rows, request.exclude);
            expand(matcher, asked, &best, expansion.alpha)
        });
        Self {
            matcher,
            asked,
            request,
            expanded,
        }
    }

    /// The `k` best rows with the query's own scores.
    fn rows(&self, k: usize) -> Vec<Match> {
        let query = self.expanded.as_ref().unwrap_or(&self.asked.embedding);
        let mut found = self.matcher.search(query, k, self.request.exclude);
        let mut row = vec![0.0; query.len()];
        for found in &mut found {
            if self.expanded.is_some() {
                self.matcher.gallery().row_into(found.row, &mut row);
                found.score = dot(&self.asked.embedding, &row);
            }
            found.score *= self.asked.scale;
        }
        found
    }
}

/// The query plus its best rows, each times its score to the power `alpha`; rows that point
/// away are left out.
fn expand(matcher: &Matcher<'_>, asked: &Asked, best: &[Match], alpha: f32) -> Vec<f32> {
    let mut sum = asked.embedding.clone();
    let mut row = vec![0.0; sum.len()];
    for found in best.iter().filter(|found| found.score > 0.0) {
        matcher.gallery().row_into(found.row, &mut row);
        let weight = found.score.powf(alpha);
        for (sum, x) in sum.iter_mut().zip(&row) {
            *sum += weight * x;
        }
    }
    // All that was added has a positive product with the query: the sum is longer than it.
    l2_normalize(&mut sum);
    sum
}

/// Labels of ranked rows by the sum of their rows' scores.
fn by_votes(matcher: &Matcher<'_>, rows: &[Match]) -> Vec<Found> {
    let mut labels: Vec<Found> = Vec::new();
    for &best in rows {
        let label_idx = matcher.gallery().label_idx(best.row);
        let weight: Score = best.score.max(0.0);
        match labels.iter_mut().find(|found| found.label_idx == label_idx) {
            Some(found) => {
                let (n, sum) = found.votes.unwrap_or_default();
                found.votes = Some((n + 1, sum + weight));
                if best.score > found.best.score {
                    found.best = best;
                }
            }
            None => labels.push(Found {
                best,
                label_idx,
                votes: Some((1, weight)),
            }),
        }
    }
    let sum = |found: &Found| found.votes.map_or(0.0, |(_, sum)| sum);
    // Stable, so labels with equal sums stay in the order of their best rows.
    labels.sort_by(|a, b| sum(b).total_cmp(&sum(a)));
    labels
}
