//! Who asks what: queries against a gallery, the query itself left out by its identity.
//!
//! Asymmetric or symmetric is decided by who made the embeddings; the protocol is the same.
//! A gallery image is relevant if it has the query's label. Ranks are counted, so memory
//! grows with queries and relevant images and not with their product with the gallery.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use eyas_device::matcher::{Match, Matcher};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::ImageId;
use thiserror::Error;

use super::metrics::{self, Ranking};
use super::ranks::{Asked, Found, ranks};
use crate::data::manifest::Manifest;
use crate::data::parallel;

/// Matches that are kept for each query.
pub const N_KEPT: usize = 10;

/// Queries that share one reading of the gallery.
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
    /// Rank of the best relevant image from 0; `None` if there is nothing to find.
    pub first_rank: Option<usize>,
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
    /// See [`metrics::average_precision_step`].
    pub mean_average_precision: f64,
    /// See [`metrics::r_precision`].
    pub r_precision: f64,
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
    watched_retrieval(queries, matcher, |_| ())
}

/// [`retrieval`], with `done` being told how many queries more have been scored.
///
/// # Errors
/// As [`retrieval`].
pub fn watched_retrieval(
    queries: &Queries,
    matcher: &Matcher<'_>,
    done: impl Fn(usize),
) -> Result<Retrieval, RetrievalError> {
    check_queries(queries, matcher)?;
    let gallery = matcher.gallery();
    let relevant = Relevant::of(queries, matcher);
    let n_queries = queries.ids.len();
    // As many blocks as keep every core busy, none larger than a batch.
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let block = n_queries.div_ceil(n_cores).clamp(1, BATCH);
    let score = |block_idx: usize| -> Vec<QueryOutcome> {
        let first = block_idx * block;
        let asked: Vec<Asked<'_>> = (first..n_queries.min(first + block))
            .map(|query_idx| Asked {
                embedding: queries.embeddings.row(query_idx),
                exclude: Some(queries.ids[query_idx]),
                rows: relevant.rows_of(query_idx, queries, matcher),
            })
            .collect();
        let found = ranks(gallery, &asked, N_KEPT);
        let outcome = |(query_idx, found)| relevant.outcome(query_idx, found);
        (first..).zip(found).map(outcome).collect()
    };
    // Blocks end in any order, and the last one may be smaller.
    let n_left = Cell::new(n_queries);
    let outcomes = parallel::map(n_queries.div_ceil(block), score, || {
        let n_done = block.min(n_left.get());
        n_left.set(n_left.get() - n_done);
        done(n_done);
    });
    Ok(summarize(outcomes.into_iter().flatten().collect()))
}

/// Whether queries fit a gallery.
pub(super) fn check_queries(
    queries: &Queries,
    matcher: &Matcher<'_>,
) -> Result<(), RetrievalError> {
    let gallery = matcher.gallery();
    if queries.embeddings.dim() != gallery.dim() {
        return Err(RetrievalError::OtherDim {
            queries: queries.embeddings.dim(),
            gallery: gallery.dim(),
        });
    }
    match queries.embeddings.first_unusable_row() {
        Some(query_idx) => Err(RetrievalError::NoDirection { query_idx }),
        None => Ok(()),
    }
}

impl Retrieval {
    /// Share of the queries that have something to find whose best relevant image is among
    /// the first `k`: recall_at_k of metric learning, and cmc_at_k. 0 if there are none.
    #[must_use]
    pub fn recall_at(&self, k: usize) -> f64 {
        let first_ranks = || self.queries.iter().filter_map(|query| query.first_rank);
        let n_found = first_ranks().filter(|rank| *rank < k).count();
        n_found as f64 / first_ranks().count().max(1) as f64
    }

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

/// The gallery's rows by label, as far as queries ask for them.
pub(super) struct Relevant {
    /// Rows of each label of a query, ascending.
    rows_of_label: HashMap<u32, Vec<u32>>,
    /// Label number of each query in the gallery, if it has that label.
    label_of_query: Vec<Option<u32>>,
    /// Rows that each query searches, itself left out.
    n_searched: Vec<usize>,
}

impl Relevant {
    pub(super) fn of(queries: &Queries, matcher: &Matcher<'_>) -> Self {
        let gallery = matcher.gallery();
        let number_of: HashMap<&str, u32> = (0..gallery.header.n_labels)
            .filter_map(|label_idx| Some((gallery.label(label_idx)?, label_idx)))
            .collect();
        let label_of_query: Vec<Option<u32>> = queries
            .labels
            .iter()
            .map(|label| number_of.get(label.as_str()).copied())
            .collect();
        let mut rows_of_label: HashMap<u32, Vec<u32>> = { label_of_query.iter().flatten() }
            .map(|label| (*label, Vec::new()))
            .collect();
        let asking: HashSet<ImageId> = queries.ids.iter().copied().collect();
        let mut n_rows_of: HashMap<ImageId, usize> = HashMap::new();
        for row in (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row)) {
            if let Some(rows) = rows_of_label.get_mut(&gallery.label_idx(row)) {
                rows.push(row);
            }
            let id = gallery.id(row);
            if asking.contains(&id) {
                *n_rows_of.entry(id).or_default() += 1;
            }
        }
        let n_searched = |id: &ImageId| {
            let n_itself = n_rows_of.get(id).copied().unwrap_or(0);
            gallery.n_images() as usize - n_itself
        };
        Self {
            n_searched: queries.ids.iter().map(n_searched).collect(),
            rows_of_label,
            label_of_query,
        }
    }

    /// Rows of the query's label that do not hold the query itself.
    pub(super) fn rows_of(
        &self,
        query_idx: usize,
        queries: &Queries,
        matcher: &Matcher<'_>,
    ) -> Vec<u32> {
        let label = self.label_of_query[query_idx];
        let rows = label.and_then(|label| self.rows_of_label.get(&label));
        let id = queries.ids[query_idx];
        let is_other = |row: &u32| matcher.gallery().id(*row) != id;
        rows.into_iter()
            .flatten()
            .copied()
            .filter(is_other)
            .collect()
    }

    fn outcome(&self, query_idx: usize, found: Found) -> QueryOutcome {
        let mut ranks = found.ranks;
        ranks.sort_unstable();
        let ranking = Ranking {
            n_relevant: ranks.len(),
            ranks,
        };
        QueryOutcome {
            best: found.best,
            n_relevant: ranking.n_relevant,
            n_searched: self.n_searched[query_idx],
            first_rank: ranking.ranks.first().copied(),
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
        mean_average_precision: metrics::average_precision_step(ranking)?,
        r_precision: metrics::r_precision(ranking)?,
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
            mean_average_precision: mean(|scores| scores.mean_average_precision),
            r_precision: mean(|scores| scores.r_precision),
        },
        n_without_relevant: queries.len() - scored.len(),
        queries,
    }
}
