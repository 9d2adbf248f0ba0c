//! Scores: a student's queries against a gallery, through the device's own encoder and
//! matcher.
//!
//! [`metrics`] and [`clustering`] define the numbers, [`protocols`] and [`revisited`] who
//! asks what, [`baseline`] what has to be beaten; [`paired`] what one way
//! of answering loses beside another; [`golden`] computes what published
//! implementations were recorded to give. [`ranks`] keeps memory bounded. Nothing here measures time, and nothing knows how a student was trained.

pub mod baseline;
pub mod clustering;
pub mod golden;
pub mod landmarks;
pub mod metrics;
pub mod nested;
pub mod paired;
pub mod protocols;
pub mod ranks;
pub mod revisited;

use eyas_device::matcher::Matcher;
use eyas_shared::embedding::Embeddings;
use eyas_shared::gallery::{Codes, Gallery, GalleryError};
use thiserror::Error;

pub use protocols::{
    Queries, QueryOutcome, Retrieval, RetrievalError, Scores, retrieval, watched_retrieval,
};

use crate::data::manifest::{Manifest, Role, Selection};
use crate::embeddings::EmbeddedImages;
use crate::gallery::{self, BuildError};

/// Why nothing can be scored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// No gallery can be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The gallery can not be read.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// Queries and gallery do not fit together.
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// More components than there are.
    #[error("{dim} components are asked for, embeddings have {whole}")]
    Prefix {
        /// How many are wanted.
        dim: usize,
        /// How many there are.
        whole: usize,
    },
    /// Nothing asks.
    #[error("no image is selected as a query: {hint}")]
    NoQueries {
        /// What to do.
        hint: &'static str,
    },
}

/// The images of `split`, or those with the query role if none is named.
///
/// # Errors
/// If there are none.
pub fn select_queries(manifest: &Manifest, split: Option<&str>) -> Result<Manifest, EvaluateError> {
    let selected = manifest.select(&Selection {
        split: split.map(str::to_owned),
        role: split.is_none().then_some(Role::Query),
    });
    if selected.images.is_empty() {
        let hint = if split.is_some() {
            "the data has no image of that split"
        } else {
            "name a split, or mark images with is_query in the list"
        };
        return Err(EvaluateError::NoQueries { hint });
    }
    Ok(selected)
}

/// The images of `manifest` that were embedded, as queries. A line that repeats an image
/// asks again.
#[must_use]
pub fn queries_of(manifest: &Manifest, embedded: &EmbeddedImages) -> Queries {
    let mut kept = manifest.clone();
    kept.images
        .retain(|image| embedded.get(&image.id).is_some());
    let mut rows = Embeddings::new(embedded.dim());
    for row in kept
        .images
        .iter()
        .filter_map(|image| embedded.get(&image.id))
    {
        rows.push(row);
    }
    Queries::new(&kept, rows)
}

/// Scores queries against the images of `gallery_images`, both embedded by one model: the
/// symmetric case, with a gallery in memory. `done` is told how many queries more have been
/// scored.
///
/// # Errors
/// If a gallery image has no embedding, or queries and gallery do not fit together.
pub fn against_images(
    queries: &Queries,
    gallery_images: &gallery::Selected,
    embedded: &EmbeddedImages,
    codes: Codes,
    done: impl Fn(usize),
) -> Result<Retrieval, EvaluateError> {
    let built = gallery::build(gallery_images, embedded, "", codes)?;
    let matcher = Matcher::new(Gallery::open(&built.bytes)?);
    Ok(watched_retrieval(queries, &matcher, done)?)
}
