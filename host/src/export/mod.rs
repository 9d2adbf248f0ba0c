//! From a trained student to the bundle that a board runs: batch norm folded, weights
//! stored in the wished precision, written as ONNX, and held against libtorch's embeddings
//! by the device's own encoder.
//!
//! Deliberately not here: anything of libtorch. What it computed arrives as numbers in
//! [`crate::student::TrainedStudent`].

pub mod fold;
pub mod onnx;
pub mod verify;

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

use eyas_device::encoder::EncodeError;
use eyas_shared::bundle::{Bundle, BundleError, BundleHeader, Precision, Provenance, Verification};
use eyas_shared::files::FileError;
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use eyas_shared::preprocess::DecodeError;
use thiserror::Error;

pub use verify::{Reference, Verified};

use crate::student::TrainedStudent;
use crate::weights::{Weights, WeightsError};
use crate::zoo::{Network, SideFault};

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
    /// The network can not read images of this side.
    #[error(transparent)]
    Side(#[from] SideFault),
    /// A weight that the wished precision can not hold.
    #[error("weight `{name}` holds {value}, which {precision} can not hold")]
    OutOfRange {
        /// Which weight.
        name: String,
        /// Its value.
        value: f32,
        /// The wished precision.
        precision: Precision,
    },
    /// A file can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A reference image that is no image any more.
    #[error("reference image `{}` can not be decoded: {source}", path.display())]
    Image {
        /// Which file.
        path: PathBuf,
        /// What the decoder found.
        source: DecodeError,
    },
    /// A reference image with another content than in training.
    #[error("reference image `{}` has changed since training: expected {expected}, found {found}", path.display())]
    ImageChanged {
        /// Which file.
        path: PathBuf,
        /// Identity in training.
        expected: ImageId,
        /// Identity now.
        found: ImageId,
    },
    /// The bundle can not be read back.
    #[error("the written bundle can not be read: {0}")]
    Bundle(#[from] BundleError),
    /// The device encoder refuses the network.
    #[error("the device encoder can not run the student: {0}")]
    Encode(#[from] EncodeError),
    /// The device encoder computes something else than libtorch did.
    #[error(
        "with weights in {precision} the student disagrees with libtorch on `{image}`: cosine {found}, needed {needed}"
    )]
    Disagreement {
        /// The image with the smallest cosine.
        image: String,
        /// How the weights are stored.
        precision: Precision,
        /// Its cosine.
        found: f32,
        /// The smallest that is allowed.
        needed: f32,
    },
    /// The device encoder does not repeat itself.
    #[error("the device encoder gave other embeddings for the same images the second time")]
    Unsteady,
}

impl ExportError {
    /// Whether the work was done and the answer is no: the student was compared and failed.
    #[must_use]
    pub fn is_disagreement(&self) -> bool {
        matches!(self, Self::Disagreement { .. })
    }
}

/// Turns a student into a verified bundle.
///
/// Whatever the precision, the network is first held against libtorch with weights in f32:
/// what rounding may cost must not hide a wrong network.
///
/// # Errors
/// [`ExportError`] says what can not be written, or where the device encoder disagrees.
pub fn export(
    student: &TrainedStudent,
    reference: &Reference,
    precision: Precision,
) -> Result<Verified, ExportError> {
    let (network, weights) = fold::fold(&student.network, &student.weights)?;
    if precision != Precision::F32 {
        verified(student, (&network, &weights), reference, Precision::F32)?;
    }
    verified(student, (&network, &weights), reference, precision)
}

fn verified(
    student: &TrainedStudent,
    (network, weights): (&Network, &Weights),
    reference: &Reference,
    precision: Precision,
) -> Result<Verified, ExportError> {
    let side = student.preprocess.crop;
    let metadata = metadata(student, precision);
    let onnx = onnx::write(network, weights, side, precision, &metadata)?;
    let header = BundleHeader {
        name: student.name.clone(),
        architecture: network.name.clone(),
        precision,
        preprocess: student.preprocess.clone(),
        dim: network.dim() as u32,
        space: student.space,
        n_parameters: network.n_parameters(),
        multiply_adds: network.multiply_adds(side as usize),
        onnx: Fingerprint::of_bytes(&onnx),
        probe_pixels: reference.probe_pixels(),
        verification: Verification {
            n_images: 0,
            min_cosine: 0.0,
            tolerance: verify::min_cosine(precision),
        },
        provenance: Provenance {
            eyas_version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: student.recipe,
            seed: student.seed,
            teacher: student.teacher.clone(),
            manifest: student.manifest,
        },
    };
    let draft = Bundle {
        header,
        onnx: &onnx,
        probe_embeddings: student.reference.probes.clone(),
        calibrations: Vec::new(),
        memory_bytes: None,
    };
    verify::verify(&draft, reference)
}

/// What an ONNX file says of itself, for tools that know nothing of bundles.
fn metadata(student: &TrainedStudent, precision: Precision) -> Vec<(String, String)> {
    let preprocess =
        serde_json::to_string(&student.preprocess).expect("numbers and names have a JSON form");
    [
        ("producer", "eyas".to_owned()),
        ("name", student.name.clone()),
        ("architecture", student.network.name.clone()),
        ("precision", precision.to_string()),
        ("dim", student.network.dim().to_string()),
        ("teacher", student.teacher.clone()),
        ("space_id", student.space.0.to_string()),
        ("preprocess", preprocess),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}
