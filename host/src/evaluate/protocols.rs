//! Who asks what: queries against a gallery, the query itself left out by its identity.
//!
//! Asymmetric or symmetric is decided by who made the embeddings; the protocol is the same.
//! A gallery image is relevant if it has the query's label.

use std::collections::HashMap;

use eyas_device::matcher::{Match, Matcher, Query};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::ImageId;
use thiserror::Error;

use super::metrics::{self, Ranking};
use crate::data::manifest::Manifest;

/// Matches that are kept for each query.
pub const N_KEPT: usize = 10;

/// Queries whose rankings are in memory together.
const BATCH: usize = 64;

/// Labelled queries.
#[derive(Clone, Debug)]
pub struct Queries {
    /// One row for each query, of length 1.
    pub embeddings: Embeddings,
    /// Identity of each query's image.
    pub ids: Vec<ImageId>,
    /// What each shows.
    pub labels: Vec<String>,
}

impl Queries {
    /// The images of `manifest` with `embeddings` row by row.
    ///
    /// # Panics
    /// If their numbers differ.
    #[must_use]
    pub fn new(manifest: &Manifest, embeddings: Embeddings) -> Self {
        assert_eq!(
            embeddings.n_rows(),
            manifest.images.len(),
            "rows and images"
        );
        Self {
            embeddings,
            ids: manifest.images.iter().map(|image| image.id).collect(),
            labels: manifest
                .images
                .iter()
                .map(|image| image.label.clone())
                .collect(),
        }
    }
}

/// What one query found.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryOutcome {
    /// The best matches, best first, at most [`N_KEPT`].
    pub best: Vec<Match>,
    /// Relevant gallery images, the query left out.
    pub n_relevant: usize,
    /// Gallery images that were searched: all but the query itself.
    pub n_searched: usize,
    /// Its metrics; `None` if there is nothing to find.
    pub scores: Option<Scores>,
}

/// Metrics of one query, or their means.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Whether the best match is relevant.
    pub recall_at_1: f64,
    /// Whether one of the best 5 is.
    pub recall_at_5: f64,
    /// Whether one of the best 10 is.
    pub recall_at_10: f64,
    /// See [`metrics::mean_average_precision_at_r`].
    pub mean_average_precision_at_r: f64,
}

/// What all queries found.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrieval {
    /// In the order of the queries.
    pub queries: Vec<QueryOutcome>,
    /// Means over the queries that have something to find; all 0 if none has.
    pub means: Scores,
    /// Queries without a relevant gallery image: in no mean.
    pub n_without_relevant: usize,
}

/// The queries do not fit the gallery.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetrievalError {
    /// Other dimensions.
    #[error("queries have {queries} dimensions, the gallery has {gallery}")]
    OtherDim {
        /// Of the queries.
        queries: usize,
        /// Of the gallery.
        gallery: usize,
    },
    /// A query that points nowhere.
    #[error("query {query_idx} has no direction (all zero, or not finite)")]
    NoDirection {
        /// Which, from 0.
        query_idx: usize,
    },
}

/// Searches the gallery with every query and scores the rankings.
///
/// # Errors
/// If dimensions differ or a query has no direction.
pub fn retrieval(queries: &Queries, matcher: &Matcher<'_>) -> Result<Retrieval, RetrievalError> {
    let gallery = matcher.gallery();
    if queries.embeddings.dim() != gallery.dim() {
        return Err(RetrievalError::OtherDim {
            queries: queries.embeddings.dim(),
            gallery: gallery.dim(),
        });
    }
    if let Some(query_idx) = queries.embeddings.first_unusable_row() {
        return Err(RetrievalError::NoDirection { query_idx });
    }
    let relevant = Relevant::of(queries, matcher);
    let mut outcomes = Vec::with_capacity(queries.ids.len());
    let all: Vec<usize> = (0..queries.ids.len()).collect();
    for batch in all.chunks(BATCH) {
        // A search for more than the most that one of the batch needs costs nothing more.
        let needed = batch.iter().map(|&query_idx| relevant.n_of(query_idx));
        let k = needed.max().unwrap_or(0).max(N_KEPT);
        let asked: Vec<Query<'_>> = batch
            .iter()
            .map(|&query_idx| Query {
                embedding: queries.embeddings.row(query_idx),
                exclude: Some(queries.ids[query_idx]),
            })
            .collect();
        let found = matcher.search_batch(&asked, k);
        for (&query_idx, matches) in batch.iter().zip(found) {
            outcomes.push(relevant.outcome(query_idx, matches, matcher));
        }
    }
    Ok(summarize(outcomes))
}

impl Retrieval {
    /// Expected recall_at_1 of a random order: the mean over the queries that have something
    /// to find of the share of relevant images among those searched. `None` if none has.
    #[must_use]
    pub fn chance_recall_at_1(&self) -> Option<f64> {
        let asked = self.queries.iter().filter(|query| query.n_relevant > 0);
        let shares = asked.map(|query| query.n_relevant as f64 / query.n_searched as f64);
        let shares: Vec<f64> = shares.collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }
}

/// The gallery's rows by label.
struct Relevant {
    /// Label number of each query in the gallery, if it has that label.
    label_of_query: Vec<Option<u32>>,
    /// Relevant rows of each query, itself left out.
    n_of_query: Vec<usize>,
    /// Rows that each query searches, itself left out.
    n_searched: Vec<usize>,
}

impl Relevant {
    fn of(queries: &Queries, matcher: &Matcher<'_>) -> Self {
        let gallery = matcher.gallery();
        let mut n_of_label: HashMap<u32, usize> = HashMap::new();
        let mut labels_of_id: HashMap<ImageId, Vec<u32>> = HashMap::new();
        for row in 0..gallery.n_rows() {
            let label = gallery.label_idx(row);
            *n_of_label.entry(label).or_default() += 1;
            labels_of_id.entry(gallery.id(row)).or_default().push(label);
        }
        let number_of: HashMap<&str, u32> = (0..gallery.header.n_labels)
            .filter_map(|label_idx| Some((gallery.label(label_idx)?, label_idx)))
            .collect();
        let label_of_query: Vec<Option<u32>> = queries
            .labels
            .iter()
            .map(|label| number_of.get(label.as_str()).copied())
            .collect();
        let n_of = |(label, id): (&Option<u32>, &ImageId)| {
            let Some(label) = label else { return 0 };
            let itself = labels_of_id.get(id).into_iter().flatten();
            let n_itself = itself.filter(|own| *own == label).count();
            n_of_label.get(label).copied().unwrap_or(0) - n_itself
        };
        let n_searched = |id: &ImageId| {
            let n_itself = labels_of_id.get(id).map_or(0, Vec::len);
            gallery.n_rows() as usize - n_itself
        };
        Self {
            n_searched: queries.ids.iter().map(n_searched).collect(),
            n_of_query: label_of_query.iter().zip(&queries.ids).map(n_of).collect(),
            label_of_query,
        }
    }

    fn n_of(&self, query_idx: usize) -> usize {
        self.n_of_query[query_idx]
    }

    fn outcome(
        &self,
        query_idx: usize,
        mut matches: Vec<Match>,
        matcher: &Matcher<'_>,
    ) -> QueryOutcome {
        let label = self.label_of_query[query_idx];
        let gallery = matcher.gallery();
        let is_relevant = |found: &Match| Some(gallery.label_idx(found.row)) == label;
        let ranking = Ranking {
            n_relevant: self.n_of(query_idx),
            ..Ranking::of_whole(matches.iter().map(is_relevant))
        };
        matches.truncate(N_KEPT);
        QueryOutcome {
            best: matches,
            n_relevant: ranking.n_relevant,
            n_searched: self.n_searched[query_idx],
            scores: scores(&ranking),
        }
    }
}

fn scores(ranking: &Ranking) -> Option<Scores> {
    Some(Scores {
        recall_at_1: metrics::recall_at_k(ranking, 1)?,
        recall_at_5: metrics::recall_at_k(ranking, 5)?,
        recall_at_10: metrics::recall_at_k(ranking, 10)?,
        mean_average_precision_at_r: metrics::mean_average_precision_at_r(ranking)?,
    })
}

fn summarize(queries: Vec<QueryOutcome>) -> Retrieval {
    let scored: Vec<Scores> = queries.iter().filter_map(|query| query.scores).collect();
    let mean =
        |of: fn(&Scores) -> f64| scored.iter().map(of).sum::<f64>() / (scored.len().max(1)) as f64;
    Retrieval {
        means: Scores {
            recall_at_1: mean(|scores| scores.recall_at_1),
            recall_at_5: mean(|scores| scores.recall_at_5),
            recall_at_10: mean(|scores| scores.recall_at_10),
            mean_average_precision_at_r: mean(|scores| scores.mean_average_precision_at_r),
        },
        n_without_relevant: queries.len() - scored.len(),
        queries,
    }
}
