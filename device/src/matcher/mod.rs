//! Finds the gallery rows nearest to a query: exact, by dot product, best first.
//!
//! [`mod@reference`] says what the answer is, [`dense`] gives the same answer faster, to the
//! last bit of every score. All arithmetic is f32 in the order of
//! [`eyas_shared::embedding::dot`]; f16 rows are widened first, which is exact.
//!
//! Rows are left out by the identity of their image, never by position or score.

pub mod dense;
pub mod reference;

use std::cmp::Ordering;

use eyas_shared::embedding::{Score, by_rank};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Gallery;

/// A gallery row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// Which row.
    pub row: u32,
    /// Identity of its image.
    pub id: ImageId,
    /// Dot product with the query; higher is better.
    pub score: Score,
}

/// Best first, ties as [`by_rank`] breaks them.
fn best_first(a: &Match, b: &Match) -> Ordering {
    by_rank((a.score, a.id, a.row), (b.score, b.id, b.row))
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    /// Unit embedding, as long as the gallery's rows.
    pub embedding: &'q [f32],
    /// An image that must not be found, such as the query itself.
    pub exclude: Option<ImageId>,
}

/// Which implementation searches. Their answers are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The readable one.
    Reference,
    /// The fast one.
    Dense,
}

/// A gallery with the implementation that searches it.
pub struct Matcher<'a> {
    gallery: Gallery<'a>,
    method: Method,
}

impl<'a> Matcher<'a> {
    /// Searches this gallery with the fast implementation.
    #[must_use]
    pub fn new(gallery: Gallery<'a>) -> Self {
        Self::with_method(gallery, Method::Dense)
    }

    /// Searches this gallery with the given implementation.
    #[must_use]
    pub fn with_method(gallery: Gallery<'a>, method: Method) -> Self {
        Self { gallery, method }
    }

    /// The gallery that is searched.
    #[must_use]
    pub fn gallery(&self) -> &Gallery<'a> {
        &self.gallery
    }

    /// The `k` best rows, or all if there are fewer, best first.
    ///
    /// # Panics
    /// If the query is not as long as the gallery's rows.
    #[must_use]
    pub fn search(&self, query: &[f32], k: usize, exclude: Option<ImageId>) -> Vec<Match> {
        match self.method {
            Method::Reference => reference::search(&self.gallery, query, k, exclude),
            Method::Dense => dense::search(&self.gallery, query, k, exclude),
        }
    }

    /// [`search`](Self::search) for several queries, which share the reading of the
    /// gallery; answers in the order of the queries.
    ///
    /// # Panics
    /// If a query is not as long as the gallery's rows.
    #[must_use]
    pub fn search_batch(&self, queries: &[Query<'_>], k: usize) -> Vec<Vec<Match>> {
        match self.method {
            Method::Reference => queries
                .iter()
                .map(|query| reference::search(&self.gallery, query.embedding, k, query.exclude))
                .collect(),
            Method::Dense => dense::search_batch(&self.gallery, queries, k),
        }
    }
}
