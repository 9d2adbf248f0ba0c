//! From a trained student to files that a board runs: batch norm folded, weights stored in
//! the wished precision, written as ONNX.
//!
//! Deliberately not here: anything of libtorch. What it computed arrives as numbers in
//! [`crate::student::TrainedStudent`].

pub mod fold;
pub mod onnx;

#[cfg(test)]
pub(crate) mod reference;

use thiserror::Error;

use crate::weights::WeightsError;

/// Why a student can not be exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A weight is missing or has another shape.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Batch norm that does not follow a convolution of its own.
    #[error(
        "batch norm `{norm}` can not be folded: its input `{input}` is not a convolution that only it reads"
    )]
    Unfoldable {
        /// The batch norm's node.
        norm: String,
        /// The node before it.
        input: String,
    },
    /// A network for ONNX that still holds batch norm.
    #[error("`{norm}` is a batch norm: fold the network before it is written")]
    NotFolded {
        /// The batch norm's node.
        norm: String,
    },
    /// A node whose window does not fit into what it reads.
    #[error("`{node}` has a window of {window}, but reads a picture of only {input} pixels a side")]
    ImageTooSmall {
        /// The node.
        node: String,
        /// Side of its window.
        window: usize,
        /// Side of its input with padding.
        input: usize,
    },
    /// A weight that the wished precision can not hold.
    #[error("weight `{name}` holds {value}, which {precision} can not hold")]
    OutOfRange {
        /// Which weight.
        name: String,
        /// Its value.
        value: f32,
        /// The wished precision.
        precision: eyas_shared::bundle::Precision,
    },
}
