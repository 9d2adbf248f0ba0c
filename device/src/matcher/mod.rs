//! Finds the gallery rows nearest to a query: by dot product, best first.
//!
//! [`mod@reference`] says what the answer is. [`dense`] reads every row and gives the same
//! answer, to the last bit of every score. [`scan`] reads small codes instead and scores
//! only what they let through: its scores are the same, but a row that the codes rank far
//! too low can be missed.
//!
//! All scores are f32 in the order of [`eyas_shared::embedding::dot`]; stored rows are
//! widened first, which is exact. Rows are left out by the identity of their image, never
//! by position or score.

mod best;
pub mod dense;
mod kernel;
pub mod reference;
pub mod scan;

use std::cmp::Ordering;
use std::collections::HashSet;

use eyas_shared::embedding::{Score, by_rank};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Gallery;

pub use kernel::Kernel;
pub use scan::Scan;

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
    /// Which rows may be found; all if there is none.
    pub filter: Option<&'q Filter>,
}

impl<'q> Query<'q> {
    /// Looks for this embedding among all rows.
    #[must_use]
    pub fn new(embedding: &'q [f32]) -> Self {
        Self {
            embedding,
            exclude: None,
            filter: None,
        }
    }

    /// Whether a row may be an answer.
    fn accepts(&self, gallery: &Gallery<'_>, row: u32) -> bool {
        !gallery.is_removed(row)
            && self.exclude.is_none_or(|id| id != gallery.id(row))
            && self
                .filter
                .is_none_or(|filter| filter.accepts(gallery, row))
    }
}

/// Rows that may be found: those with one of the labels and one of the identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// By number of the label; any label if there is no set.
    label_idxs: Option<HashSet<u32>>,
    /// Any image if there is no set.
    ids: Option<HashSet<ImageId>>,
}

impl Filter {
    /// Only rows with one of these labels. A label that the gallery does not have accepts
    /// nothing.
    #[must_use]
    pub fn labels<'l>(
        mut self,
        gallery: &Gallery<'_>,
        labels: impl IntoIterator<Item = &'l str>,
    ) -> Self {
        let wanted: HashSet<&str> = labels.into_iter().collect();
        let known = (0..gallery.header.n_labels).filter(|idx| {
            gallery
                .label(*idx)
                .is_some_and(|label| wanted.contains(label))
        });
        self.label_idxs = Some(known.collect());
        self
    }

    /// Only rows of these images.
    #[must_use]
    pub fn ids(mut self, ids: impl IntoIterator<Item = ImageId>) -> Self {
        self.ids = Some(ids.into_iter().collect());
        self
    }

    fn accepts(&self, gallery: &Gallery<'_>, row: u32) -> bool {
        let label = |labels: &HashSet<u32>| labels.contains(&gallery.label_idx(row));
        let id = |ids: &HashSet<ImageId>| ids.contains(&gallery.id(row));
        self.label_idxs.as_ref().is_none_or(label) && self.ids.as_ref().is_none_or(id)
    }
}

/// Which implementation searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every row, readable.
    Reference,
    /// Every row, fast; answers are equal to the reference's.
    Dense,
    /// Codes first, then the rows that they let through.
    Scan(Scan),
}

/// A gallery with the implementation that searches it.
pub struct Matcher<'a> {
    gallery: Gallery<'a>,
    method: Method,
    /// Which rows may be found; a query's own filter goes before it.
    filter: Option<Filter>,
}

impl<'a> Matcher<'a> {
    /// Searches this gallery in the fastest way that its codes allow.
    #[must_use]
    pub fn new(gallery: Gallery<'a>) -> Self {
        let method = Scan::of(&gallery).map_or(Method::Dense, Method::Scan);
        Self::with_method(gallery, method)
    }

    /// Searches this gallery with the given implementation.
    #[must_use]
    pub fn with_method(gallery: Gallery<'a>, method: Method) -> Self {
        Self {
            gallery,
            method,
            filter: None,
        }
    }

    /// Only finds what the filter lets through.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self {
            filter: Some(filter),
            ..self
        }
    }

    /// Scans on so many threads, if it scans. Pays for galleries whose scan takes
    /// milliseconds.
    #[must_use]
    pub fn with_threads(self, n_threads: usize) -> Self {
        let method = match self.method {
            Method::Scan(scan) => Method::Scan(scan.with_threads(n_threads)),
            method => method,
        };
        Self { method, ..self }
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
        let query = Query {
            exclude,
            ..Query::new(query)
        };
        self.search_batch(&[query], k).swap_remove(0)
    }

    /// [`search`](Self::search) for several queries, which share the reading of the
    /// gallery; answers in the order of the queries.
    ///
    /// # Panics
    /// If a query is not as long as the gallery's rows.
    #[must_use]
    pub fn search_batch(&self, queries: &[Query<'_>], k: usize) -> Vec<Vec<Match>> {
        let restricted: Vec<Query<'_>> = queries
            .iter()
            .map(|query| Query {
                filter: query.filter.or(self.filter.as_ref()),
                ..*query
            })
            .collect();
        let queries = &restricted;
        match self.method {
            Method::Reference => queries
                .iter()
                .map(|query| reference::search(&self.gallery, query, k))
                .collect(),
            Method::Dense => dense::search_batch(&self.gallery, queries, k),
            Method::Scan(scan) => scan.search_batch(&self.gallery, queries, k),
        }
    }
}
