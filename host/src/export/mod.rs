//! From a trained student to the bundle that a board runs: batch norm folded, weights
//! stored in the wished precision, written as ONNX, and held against libtorch's embeddings
//! by the device's own encoder.
//!
//! Deliberately not here: anything of libtorch. What it computed arrives as numbers in
//! [`crate::student::TrainedStudent`].

pub mod activations;
pub mod bias;
mod diagnose;
pub mod equalize;
pub mod explain;
pub mod fold;
pub mod grid;
mod metadata;
pub mod onnx;
pub mod recall;
mod rounding;
pub mod stored;
pub mod verify;

pub(crate) mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

use eyas_device::encoder::EncodeError;
use eyas_shared::bundle::{Bundle, BundleError, BundleHeader, Precision, Provenance, Verification};
use eyas_shared::embedding::Embeddings;
use eyas_shared::files::FileError;
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use eyas_shared::preprocess::DecodeError;
use thiserror::Error;

pub use diagnose::Cause;
pub use metadata::rounding_json;
pub use rounding::Tried;
pub use stored::{Rounding, ScaleRule};
pub use verify::{Agreement, Bounds, Reference, Verified};

use crate::evaluate::RetrievalError;
use crate::student::TrainedStudent;
use crate::weights::{Weights, WeightsError};
use crate::zoo::{Network, SideFault};
use diagnose::Trained;
use rounding::{Choice, Rounded};
use stored::StoredWeights;
use verify::Sample;

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
    /// Full-int8 of a network in which nothing would be multiplied in integers.
    #[error(
        "{architecture} has no dense convolution behind another layer, so full-int8 would multiply nothing in integers: take int8"
    )]
    NothingInteger {
        /// Name of the network.
        architecture: String,
    },
    /// Full-int8 without images to calibrate on.
    #[error("full-int8 rounds activations, whose ranges have to be calibrated on images")]
    NotCalibrated,
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
    /// An image that was added to the reference, and is none.
    #[error("image `{}` can not be used: {why}", path.display())]
    Added {
        /// Which file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The reference belongs to another student.
    #[error("the reference images were prepared for another student's preprocessing")]
    OtherReference,
    /// The device encoder computes something else than libtorch did.
    #[error("{}", disagreement(.precision, .agreement, .needed, .cause))]
    Disagreement {
        /// How the weights are stored.
        precision: Precision,
        /// The cosines found.
        agreement: Agreement,
        /// The smallest that are allowed.
        needed: Bounds,
        /// Where it goes wrong, if that was found.
        cause: Option<Cause>,
    },
    /// The network's output is no unit vector, as its file promises.
    #[error(
        "the network's embedding of `{image}` has length {length}, not 1: it is not normalized in the graph"
    )]
    NotUnit {
        /// Which image.
        image: String,
        /// Length of its embedding.
        length: f32,
    },
    /// Rounded weights answer worse than is allowed.
    #[error(
        "with weights in {precision} recall_at_1 is {found:.4}, {drop:.4} less than in f32 on the same {n_queries} queries; at most {allowed} is allowed"
    )]
    RecallDrop {
        /// How the weights are stored.
        precision: Precision,
        /// Its recall at 1.
        found: f64,
        /// How much less than in f32.
        drop: f64,
        /// What is allowed.
        allowed: f64,
        /// Queries that both answered.
        n_queries: usize,
    },
    /// A query that can not be encoded.
    #[error("a query can not be used: {fault}")]
    Query {
        /// Which, and why.
        fault: String,
    },
    /// A gallery of another teacher.
    #[error(
        "the student speaks space {student}, the gallery is space {gallery}: give a gallery of the student's teacher"
    )]
    OtherSpace {
        /// Short name of the student's space.
        student: String,
        /// Short name of the gallery's.
        gallery: String,
    },
    /// Queries and gallery do not fit together.
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// Queries whose labels the gallery does not hold.
    #[error("no query has an image of its label in the gallery, so recall can not be compared")]
    NothingToFind,
    /// The device encoder does not repeat itself.
    #[error("the device encoder gave other embeddings for the same images the second time")]
    Unsteady,
}

impl ExportError {
    /// Whether the work was done and the answer is no: the student was compared and failed.
    #[must_use]
    pub fn is_disagreement(&self) -> bool {
        matches!(
            self,
            Self::Disagreement { .. } | Self::NotUnit { .. } | Self::RecallDrop { .. }
        )
    }
}

fn disagreement(
    precision: &Precision,
    found: &Agreement,
    needed: &Bounds,
    cause: &Option<Cause>,
) -> String {
    let mut text = format!(
        "with weights in {precision} the student disagrees with libtorch: cosine {} on `{}` and \
         {} on the mean of {} images, needed {} and {}",
        found.min_cosine,
        found.worst_image,
        found.mean_cosine,
        found.n_images,
        needed.min,
        needed.mean
    );
    if let Some(cause) = cause {
        text += &format!("; {cause}");
    }
    text
}

/// A student whose f32 network the device encoder has reproduced, ready to be stored in any
/// precision.
///
/// What rounding may cost must not hide a wrong network: nothing is rounded before.
pub struct Exporter<'a> {
    student: &'a TrainedStudent,
    reference: &'a Reference,
    folded: Network,
    weights: Weights,
    exact: Verified,
    of_added: Vec<Vec<f32>>,
}

impl<'a> Exporter<'a> {
    /// Folds the student and holds its f32 network against libtorch.
    ///
    /// # Errors
    /// [`ExportError`] says what can not be written, or where the device encoder disagrees.
    pub fn new(student: &'a TrainedStudent, reference: &'a Reference) -> Result<Self, ExportError> {
        if !reference.is_for(student) {
            return Err(ExportError::OtherReference);
        }
        let (folded, weights) = fold::fold(&student.network, &student.weights)?;
        let stored = StoredWeights::of(&folded, &weights, Precision::F32, &Rounding::default())?;
        let writer = Writer {
            student,
            reference,
            folded: &folded,
        };
        let trained = Trained {
            network: &student.network,
            weights: &student.weights,
            folded: &folded,
        };
        let rounded = Rounded {
            stored,
            activations: None,
            rounding: Rounding::default(),
        };
        let exact = writer.verified(Precision::F32, rounded, trained, &reference.samples())?;
        let of_added = verify::embed_added(&exact, reference)?;
        Ok(Self {
            student,
            reference,
            folded,
            weights,
            exact,
            of_added,
        })
    }

    /// The bundle in f32.
    #[must_use]
    pub fn exact(&self) -> &Verified {
        &self.exact
    }

    /// The student's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.student.name
    }

    /// The bundle of a precision. Of several ways of rounding the one with the largest mean
    /// cosine on some of the reference images is taken.
    ///
    /// # Errors
    /// [`ExportError`] says what can not be written, or where the device encoder disagrees.
    pub fn bundle(&self, precision: Precision) -> Result<Verified, ExportError> {
        if precision == Precision::F32 {
            return Ok(self.exact.clone());
        }
        self.verified(&self.candidate(precision)?)
    }

    /// The weights of a precision, rounded in the best way, right or not.
    ///
    /// # Errors
    /// If the precision can not hold them, or the device encoder fails.
    pub(crate) fn candidate(&self, precision: Precision) -> Result<Candidate, ExportError> {
        let writer = self.writer();
        let subject = rounding::Subject {
            writer: &writer,
            weights: &self.weights,
            precision,
        };
        let choice = rounding::choose(&subject, &self.samples())?;
        Ok(Candidate { precision, choice })
    }

    /// Holds a candidate against the reference.
    ///
    /// # Errors
    /// As [`bundle`](Self::bundle).
    pub(crate) fn verified(&self, candidate: &Candidate) -> Result<Verified, ExportError> {
        let trained = Trained {
            network: &self.folded,
            weights: &candidate.choice.weights,
            folded: &self.folded,
        };
        let Candidate { precision, choice } = candidate;
        let rounded = choice.rounded.clone();
        self.writer()
            .verified(*precision, rounded, trained, &self.samples())
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            student: self.student,
            reference: self.reference,
            folded: &self.folded,
        }
    }

    /// What libtorch embedded, and what the verified f32 network did of the added images.
    fn samples(&self) -> Vec<Sample<'_>> {
        let added = self.reference.added().iter().zip(&self.of_added);
        let added = added.map(|((name, pixels), expected)| Sample {
            name,
            pixels,
            expected,
        });
        self.reference.samples().into_iter().chain(added).collect()
    }
}

/// A student's weights as they would be stored.
pub(crate) struct Candidate {
    precision: Precision,
    choice: Choice,
}

/// Turns a student into a verified bundle: one precision of an [`Exporter`].
///
/// # Errors
/// [`ExportError`] says what can not be written, or where the device encoder disagrees.
pub fn export(
    student: &TrainedStudent,
    reference: &Reference,
    precision: Precision,
) -> Result<Verified, ExportError> {
    Exporter::new(student, reference)?.bundle(precision)
}

/// What every file of a student has in common.
struct Writer<'a> {
    student: &'a TrainedStudent,
    reference: &'a Reference,
    folded: &'a Network,
}

impl Writer<'_> {
    fn side(&self) -> u32 {
        self.student.preprocess.crop
    }

    fn onnx(
        &self,
        precision: Precision,
        rounded: &Rounded,
        measured: Option<&Agreement>,
    ) -> Result<Vec<u8>, ExportError> {
        let metadata = metadata::of(self.student, precision, &rounded.rounding, measured);
        let Rounded {
            stored,
            activations,
            ..
        } = rounded;
        onnx::write_stored(
            self.folded,
            stored,
            activations.as_ref(),
            self.side(),
            &metadata,
        )
    }

    /// A bundle around a file that nobody has compared yet.
    fn draft<'o>(&self, onnx: &'o [u8], precision: Precision) -> Bundle<'o> {
        let student = self.student;
        let n_probes = self.reference.n_bundled();
        let mut probe_embeddings = Embeddings::new(self.folded.dim());
        let probes = student.reference.probes.rows().take(n_probes);
        probes.for_each(|row| probe_embeddings.push(row));
        let header = BundleHeader {
            name: student.name.clone(),
            architecture: self.folded.name.clone(),
            precision,
            preprocess: student.preprocess.clone(),
            dim: self.folded.dim() as u32,
            space: student.space,
            n_parameters: self.folded.n_parameters(),
            multiply_adds: self.folded.multiply_adds(self.side() as usize),
            onnx: Fingerprint::of_bytes(onnx),
            probe_pixels: self.reference.probe_pixels(),
            verification: Verification {
                n_images: 0,
                min_cosine: 0.0,
                tolerance: verify::bounds(precision).min,
            },
            provenance: Provenance {
                eyas_version: env!("CARGO_PKG_VERSION").to_owned(),
                recipe: student.recipe,
                seed: student.seed,
                teacher: student.teacher.clone(),
                manifest: student.manifest,
            },
        };
        Bundle {
            header,
            onnx,
            probe_embeddings,
            calibrations: Vec::new(),
            memory_bytes: None,
        }
    }

    fn verified(
        &self,
        precision: Precision,
        rounded: Rounded,
        trained: Trained<'_>,
        samples: &[Sample<'_>],
    ) -> Result<Verified, ExportError> {
        let unmeasured = self.onnx(precision, &rounded, None)?;
        let passed = verify::gate(&self.draft(&unmeasured, precision), samples, trained)?;
        let onnx = self.onnx(precision, &rounded, Some(&passed.1))?;
        let passing = self.draft(&onnx, precision);
        verify::finish(&passing, passed, samples, rounded.rounding)
    }
}
