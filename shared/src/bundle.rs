//! The student's file: everything a board needs to encode a query image.
//!
//! A bundle holds the network as ONNX, the [`PreprocessSpec`] of the pixels it reads, the
//! space its embeddings live in, and the embeddings of a few probe images
//! ([`probe_image`]), so that any machine can check that it computes what the host
//! verified. It may carry a [`Calibration`] for each gallery that it serves, and say what
//! memory the student takes. It does not hold images or the teacher.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::calibration::{Calibration, MAX_CALIBRATIONS};
use crate::container::{self, Container, ContainerError, Kind, Tag};
use crate::embedding::{Embeddings, MAX_DIM};
use crate::fingerprint::{Fingerprint, SpaceId};
use crate::preprocess::{PreprocessSpec, RgbImage};
use crate::quant;
use crate::random::Random;

/// The newest bundle version: the first that declares its memory; version 2 was the first
/// with calibrations. A bundle is written as the oldest version that holds what it says, so
/// that older programs read it too.
pub const VERSION: u16 = 3;

const ONNX: Tag = *b"ONNX";
const PROBES: Tag = *b"PRBE";
const CALIBRATION: Tag = *b"CALB";
const MEMORY: Tag = *b"MEMO";

/// How a student's weights are stored. Computation is in f32 for all but
/// [`FullInt8`](Self::FullInt8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they were trained.
    F32,
    /// Rounded to f16 (ONNX `Cast`).
    F16,
    /// Symmetric int8 with a scale per output channel (ONNX `DequantizeLinear`).
    Int8,
    /// The same weights, and what dense convolutions read rounded to u8 (ONNX
    /// `QuantizeLinear`), so that their products are of integers.
    #[serde(rename = "full-int8")]
    FullInt8,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::FullInt8 => "full-int8",
        })
    }
}

/// What a bundle says of its student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BundleHeader {
    /// Name of the student, for people.
    pub name: String,
    /// Name of its architecture in the host's zoo.
    pub architecture: String,
    /// How its weights are stored.
    pub precision: Precision,
    /// The pixels it reads.
    pub preprocess: PreprocessSpec,
    /// Components of its embeddings.
    pub dim: u32,
    /// The teacher's space that its embeddings live in.
    pub space: SpaceId,
    /// Trained weights, batch norm folded.
    pub n_parameters: u64,
    /// Multiply-adds of one encoding.
    pub multiply_adds: u64,
    /// SHA-256 of the ONNX section: tract parses it only if it fits.
    pub onnx: Fingerprint,
    /// Fingerprint of the preprocessed probe images (f32 values, little-endian, in order).
    pub probe_pixels: Fingerprint,
    /// What the host found when it compared the device encoder with the trained network.
    pub verification: Verification,
    /// Where the student comes from.
    pub provenance: Provenance,
}

/// Outcome of the comparison that precedes every export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Images that were encoded by both.
    pub n_images: u32,
    /// Smallest cosine between the two embeddings of one image.
    pub min_cosine: f32,
    /// Smallest cosine that was allowed.
    pub tolerance: f32,
}

/// Where a student comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the host program.
    pub eyas_version: String,
    /// SHA-256 of the resolved recipe.
    pub recipe: Fingerprint,
    /// The recipe's seed.
    pub seed: u64,
    /// Name of the teacher.
    pub teacher: String,
    /// Fingerprint of the manifest that it was trained on.
    pub manifest: Fingerprint,
}

/// Why a bundle can not be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BundleError {
    /// The file is not whole, or not a bundle.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The ONNX bytes are not the ones that the header names.
    #[error(
        "the network is not the one that the bundle's header names: expected {expected}, found {found}"
    )]
    OtherNetwork {
        /// Short fingerprint in the header.
        expected: String,
        /// Short fingerprint of the section.
        found: String,
    },
    /// Fields that contradict each other.
    #[error("the bundle contradicts itself: {what}")]
    Contradiction {
        /// How.
        what: String,
    },
}

/// A checked bundle, borrowing the network from the file's bytes.
pub struct Bundle<'a> {
    /// What the bundle says of its student.
    pub header: BundleHeader,
    /// The network, an ONNX file.
    pub onnx: &'a [u8],
    /// Embeddings of the probe images, row `i` of [`probe_image`]`(i, ..)`.
    pub probe_embeddings: Embeddings,
    /// What scores mean, by gallery; each gallery once.
    pub calibrations: Vec<Calibration>,
    /// Bytes of memory that it takes to load the student and to encode one image on one
    /// thread, beside the mapped file; more than 0. None if nobody has measured it.
    pub memory_bytes: Option<u64>,
}

impl<'a> Bundle<'a> {
    /// Reads a bundle and checks all of it: lengths, checksums, hash of the network, fields.
    ///
    /// # Errors
    /// [`BundleError`] says what does not fit.
    pub fn read(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let container = Container::read(bytes, Kind::Bundle, VERSION)?;
        container.verify()?;
        let header: BundleHeader = container::read_header(&container)?;
        let onnx = container.section(ONNX)?;
        let found = Fingerprint::of_bytes(onnx);
        if found != header.onnx {
            let (expected, found) = (header.onnx.short(), found.short());
            return Err(BundleError::OtherNetwork { expected, found });
        }
        let contradiction = |what: String| Err(BundleError::Contradiction { what });
        let dim = header.dim as usize;
        if !(1..=MAX_DIM).contains(&dim) {
            return contradiction(format!("dimension {dim} is not in 1..={MAX_DIM}"));
        }
        if let Some(fault) = header.preprocess.fault() {
            return contradiction(fault.to_owned());
        }
        let probes = container.section(PROBES)?;
        if probes.is_empty() || !probes.len().is_multiple_of(4 * dim) {
            return contradiction(format!(
                "{} bytes of probes for dimension {dim}",
                probes.len()
            ));
        }
        let probe_embeddings = Embeddings::from_values(dim, quant::f32_from_bytes(probes))
            .expect("a whole number of rows was just checked");
        if let Some(row_idx) = probe_embeddings.first_unusable_row() {
            return contradiction(format!("probe embedding {row_idx} has no direction"));
        }
        let calibrations = read_calibrations(&container, dim, probe_embeddings.n_rows())?;
        Ok(Self {
            memory_bytes: read_memory(&container)?,
            header,
            onnx,
            probe_embeddings,
            calibrations,
        })
    }

    /// Adds a calibration, in place of one for the same gallery.
    ///
    /// # Errors
    /// If the bundle already serves [`MAX_CALIBRATIONS`] other galleries, or the calibration
    /// has a [fault](Calibration::fault).
    pub fn calibrate(&mut self, calibration: Calibration) -> Result<(), BundleError> {
        let dim = self.header.dim as usize;
        let mut what = calibration.fault(dim, self.probe_embeddings.n_rows());
        let content = calibration.gallery.content;
        let kept = |known: &Calibration| known.gallery.content != content;
        if self.calibrations.iter().filter(|known| kept(known)).count() >= MAX_CALIBRATIONS {
            what = Some(format!("it has {MAX_CALIBRATIONS} calibrations already"));
        }
        if let Some(what) = what {
            return Err(BundleError::Contradiction { what });
        }
        self.calibrations.retain(kept);
        self.calibrations.push(calibration);
        Ok(())
    }

    /// The file's bytes; equal bundles give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let probes = quant::f32_bytes(self.probe_embeddings.values());
        let calibrations: Vec<Vec<u8>> = self
            .calibrations
            .iter()
            .map(Calibration::to_bytes)
            .collect();
        let memory = self.memory_bytes.map(u64::to_le_bytes);
        let version = match (&memory, calibrations.is_empty()) {
            (Some(_), _) => 3,
            (None, false) => 2,
            (None, true) => 1,
        };
        let mut sections = vec![(ONNX, self.onnx), (PROBES, &probes)];
        sections.extend(calibrations.iter().map(|data| (CALIBRATION, &data[..])));
        sections.extend(memory.iter().map(|bytes| (MEMORY, &bytes[..])));
        container::write(Kind::Bundle, version, &self.header, &sections)
    }
}

/// Versions before 3 declare nothing: a section of that name means nothing there.
fn read_memory(container: &Container<'_>) -> Result<Option<u64>, BundleError> {
    if container.version < 3 {
        return Ok(None);
    }
    let bytes: Result<[u8; 8], _> = container.section(MEMORY)?.try_into();
    match bytes.map(u64::from_le_bytes) {
        Ok(bytes) if bytes > 0 => Ok(Some(bytes)),
        _ => Err(BundleError::Contradiction {
            what: "it declares no memory, and is of a version that does".to_owned(),
        }),
    }
}

/// Version 1 has no calibrations: a section of that name means nothing there.
fn read_calibrations(
    container: &Container<'_>,
    dim: usize,
    n_probes: usize,
) -> Result<Vec<Calibration>, BundleError> {
    let mut calibrations: Vec<Calibration> = Vec::new();
    if container.version < 2 {
        return Ok(calibrations);
    }
    let fault = |what: String| BundleError::Contradiction {
        what: format!("calibration {what}"),
    };
    for (idx, data) in container.sections_with(CALIBRATION).enumerate() {
        let found = Calibration::from_bytes(data).map_err(|why| fault(format!("{idx}: {why}")))?;
        if let Some(why) = found.fault(dim, n_probes) {
            return Err(fault(format!("{idx}: {why}")));
        }
        let content = found.gallery.content;
        if calibrations
            .iter()
            .any(|known| known.gallery.content == content)
        {
            return Err(fault(format!("{idx} is for the same gallery as another")));
        }
        if idx >= MAX_CALIBRATIONS {
            return Err(fault(format!("{idx} is one more than a bundle carries")));
        }
        calibrations.push(found);
    }
    Ok(calibrations)
}

/// Side of [`probe_image`] before preprocessing: not a multiple of usual crops, so that
/// the resize is probed too.
const PROBE_WIDTH: u32 = 277;
const PROBE_HEIGHT: u32 = 231;

/// The `index`-th probe: gradients, stripes and noise in colors of its own, made with
/// integer arithmetic, the same on every machine.
#[must_use]
pub fn probe_image(index: u32) -> RgbImage {
    let mut random = Random::new(u64::from(index)).fork("probe image");
    let period = 5 + random.below(40) as u32;
    let colors: [[u32; 3]; 3] =
        std::array::from_fn(|_| std::array::from_fn(|_| random.below(256) as u32));
    let slope = random.below(3) as u32;
    let mut samples = Vec::with_capacity((PROBE_WIDTH * PROBE_HEIGHT * 3) as usize);
    for y in 0..PROBE_HEIGHT {
        for x in 0..PROBE_WIDTH {
            let stripe = (x + slope * y) / period % 2;
            for (from, to) in colors[stripe as usize].iter().zip(colors[2]) {
                let blend = (from * (PROBE_HEIGHT - y) + to * y) / PROBE_HEIGHT;
                let noise = random.bits() as u32 % 17;
                samples.push((blend + noise).saturating_sub(8).min(255) as u8);
            }
        }
    }
    RgbImage {
        width: PROBE_WIDTH,
        height: PROBE_HEIGHT,
        samples,
    }
}
