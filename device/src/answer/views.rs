//! Several views of one object as one query.
//!
//! The views' embeddings are averaged and not stretched back to length 1, so the score of a
//! row is the mean of the scores that the single views give it. Its meaning stays that of a
//! single view's score: the best mean is never above the mean of the views' best scores, and
//! thresholds that were found with single photographs are not passed more easily.

use eyas_shared::embedding::{MIN_NORM, l2_normalize};
use thiserror::Error;

use super::Asked;

/// Why views are no query.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewError {
    /// Nothing to merge.
    #[error("there is no view to merge")]
    None,
    /// Embeddings of different lengths.
    #[error("views of {expected} and of {found} components can not be merged")]
    OtherDim {
        /// Components of the first view.
        expected: usize,
        /// Components of another.
        found: usize,
    },
    /// They cancel out.
    #[error("the views point in opposite directions: they do not show one object")]
    Opposite,
}

/// Merges the unit embeddings of several views into one query.
///
/// # Errors
/// [`ViewError`] says why they can not be merged.
pub fn merge(views: &[Vec<f32>]) -> Result<Asked, ViewError> {
    let first = views.first().ok_or(ViewError::None)?;
    if views.len() == 1 {
        return Ok(Asked::single(first.clone()));
    }
    let expected = first.len();
    let mut mean = vec![0.0_f32; expected];
    for view in views {
        if view.len() != expected {
            let found = view.len();
            return Err(ViewError::OtherDim { expected, found });
        }
        for (mean, x) in mean.iter_mut().zip(view) {
            *mean += x / views.len() as f32;
        }
    }
    let scale = l2_normalize(&mut mean);
    if scale < MIN_NORM {
        return Err(ViewError::Opposite);
    }
    Ok(Asked {
        embedding: mean,
        scale,
    })
}
