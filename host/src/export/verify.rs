//! The check that stands between a trained student and a bundle: the device encoder, fed
//! with the bundle's final bytes, must give the embeddings that libtorch gave.
//!
//! A [`Verified`] can only come from verification, and only a [`Verified`] can be saved.

use std::path::Path;

use eyas_device::encoder::{EncodeError, Encoder};
use eyas_device::selftest::{self, ProbeHasher};
use eyas_shared::bundle::{Bundle, BundleHeader, Precision, Verification};
use eyas_shared::embedding::{self, Embeddings};
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use eyas_shared::preprocess::{self, Pixels};

use super::ExportError;
use crate::memory;
use crate::student::TrainedStudent;

/// Smallest cosine between libtorch and the device encoder for weights in f32: the two
/// only add in different orders, which costs about 1e-7 a layer. A wrong padding, a
/// swapped axis or a forgotten bias costs more than 1e-3.
pub const F32_MIN_COSINE: f32 = 0.999_99;

/// The same for weights in f16: each is off by up to 2^-11 of itself, independently, so
/// embeddings turn by about that (cosine 1 - 1e-7 to 1e-5); deep networks with badly
/// scaled weights more.
pub const F16_MIN_COSINE: f32 = 0.999;

/// The same for int8 with a scale per channel: a weight is off by up to 1/254 of the
/// largest in its channel, ten times as much as f16.
pub const INT8_MIN_COSINE: f32 = 0.99;

/// Smallest cosine that a bundle of this precision must reach.
#[must_use]
pub fn min_cosine(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => F32_MIN_COSINE,
        Precision::F16 => F16_MIN_COSINE,
        Precision::Int8 => INT8_MIN_COSINE,
    }
}

/// What a declared number of bytes is rounded up to.
const MEMORY_STEP: u64 = 64 << 10;

/// A bundle whose bytes the device encoder has reproduced.
#[derive(Debug)]
pub struct Verified {
    bytes: Vec<u8>,
    header: BundleHeader,
    worst: String,
    memory_bytes: Option<u64>,
}

impl Verified {
    /// Lets the bundle say what memory it takes to load and run it, as this program's
    /// allocator counts it. The number is right where nothing else runs in this program.
    ///
    /// # Errors
    /// If the encoder fails, which it did not when it was verified.
    pub fn with_declared_memory(self) -> Result<Self, ExportError> {
        let mut bundle = Bundle::read(&self.bytes)?;
        let probes: Vec<Pixels> = selftest::probe_pixels(&bundle.header.preprocess, 1).collect();
        let (outcome, peak) = memory::peak_of(|| -> Result<(), EncodeError> {
            let encoder = Encoder::load(&bundle)?;
            probes
                .iter()
                .try_for_each(|pixels| encoder.encode(pixels).map(drop))
        });
        outcome?;
        let memory_bytes = Some(peak.max(1).next_multiple_of(MEMORY_STEP));
        bundle.memory_bytes = memory_bytes;
        let bytes = bundle.to_bytes();
        Ok(Self {
            bytes,
            memory_bytes,
            ..self
        })
    }

    /// What [`with_declared_memory`](Self::with_declared_memory) found.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    /// Writes the bundle, replacing what lay there.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        files::replace(path, &self.bytes)
    }

    /// The bundle's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The network alone, an ONNX file.
    #[must_use]
    pub fn onnx(&self) -> &[u8] {
        let bundle = Bundle::read(&self.bytes);
        bundle
            .expect("these bytes were read when they were verified")
            .onnx
    }

    /// What the bundle says of its student.
    #[must_use]
    pub fn header(&self) -> &BundleHeader {
        &self.header
    }

    /// Name of the image with the smallest cosine.
    #[must_use]
    pub fn worst_image(&self) -> &str {
        &self.worst
    }
}

/// Pixels of everything that libtorch embedded, with libtorch's embeddings.
pub struct Reference {
    images: Vec<ReferenceImage>,
    probe_pixels: Fingerprint,
    n_probes: usize,
}

struct ReferenceImage {
    name: String,
    pixels: Pixels,
    expected: Vec<f32>,
}

impl Reference {
    /// Prepares the probes and reads the real images of a student, whose paths are relative
    /// to `images_root`.
    ///
    /// # Errors
    /// If an image can not be read or decoded, or is another one than was embedded.
    pub fn read(student: &TrainedStudent, images_root: &Path) -> Result<Self, ExportError> {
        let mut images = Vec::new();
        let mut hasher = ProbeHasher::new();
        let probes = &student.reference.probes;
        let pixels_of_probes = selftest::probe_pixels(&student.preprocess, probes.n_rows());
        for (index, (pixels, expected)) in pixels_of_probes.zip(probes.rows()).enumerate() {
            hasher.update(&pixels);
            images.push(ReferenceImage {
                name: format!("probe {index}"),
                pixels,
                expected: expected.to_vec(),
            });
        }
        let n_probes = images.len();
        let listed = student.reference.images.iter();
        for ((id, path), expected) in listed.zip(student.reference.of_images.rows()) {
            let path = images_root.join(path);
            images.push(ReferenceImage {
                pixels: read_image(&path, *id, student)?,
                name: path.display().to_string(),
                expected: expected.to_vec(),
            });
        }
        Ok(Self {
            images,
            probe_pixels: hasher.finish(),
            n_probes,
        })
    }

    /// Fingerprint of the preprocessed probes, as a bundle's header holds it.
    #[must_use]
    pub fn probe_pixels(&self) -> Fingerprint {
        self.probe_pixels
    }

    /// Number of images, probes included.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.images.len()
    }
}

fn read_image(path: &Path, id: ImageId, student: &TrainedStudent) -> Result<Pixels, ExportError> {
    let bytes = files::read(path, preprocess::Limits::DEFAULT.max_bytes)?;
    let found = ImageId::of_file(&bytes);
    if found != id {
        return Err(ExportError::ImageChanged {
            path: path.to_owned(),
            expected: id,
            found,
        });
    }
    preprocess::apply(&bytes, &student.preprocess).map_err(|source| ExportError::Image {
        path: path.to_owned(),
        source,
    })
}

/// Compares the encoder of a drafted bundle with libtorch and, if they agree, completes the
/// bundle: what the device encoder gives for the probes, and how far the two are apart.
///
/// # Errors
/// If the encoder can not be loaded or fails, or is further from libtorch than the
/// precision's tolerance.
pub(super) fn verify(draft: &Bundle<'_>, reference: &Reference) -> Result<Verified, ExportError> {
    let precision = draft.header.precision;
    let tolerance = min_cosine(precision);
    let (found, worst) = compare(&draft.to_bytes(), reference)?;
    let (min_cosine, worst) = worst;
    // Written so that NaN does not pass.
    if !matches!(min_cosine.partial_cmp(&tolerance), Some(order) if order.is_ge()) {
        return Err(ExportError::Disagreement {
            image: worst,
            precision,
            found: min_cosine,
            needed: tolerance,
        });
    }
    let dim = found.dim();
    let of_probes = found.values()[..reference.n_probes * dim].to_vec();
    let header = BundleHeader {
        verification: Verification {
            n_images: reference.n_images() as u32,
            min_cosine,
            tolerance,
        },
        ..draft.header.clone()
    };
    let bytes = Bundle {
        header: header.clone(),
        onnx: draft.onnx,
        probe_embeddings: Embeddings::from_values(dim, of_probes)
            .expect("whole rows were cut from a matrix"),
        calibrations: draft.calibrations.clone(),
        memory_bytes: None,
    }
    .to_bytes();
    // The bytes that are shipped, not those they were made from.
    let (again, _) = compare(&bytes, reference)?;
    if again != found {
        return Err(ExportError::Unsteady);
    }
    Ok(Verified {
        bytes,
        header,
        worst,
        memory_bytes: None,
    })
}

/// Embeddings by the device encoder of these bytes; the smallest cosine to libtorch's and
/// the name of the image that has it.
fn compare(
    bytes: &[u8],
    reference: &Reference,
) -> Result<(Embeddings, (f32, String)), ExportError> {
    let bundle = Bundle::read(bytes)?;
    let encoder = Encoder::load(&bundle)?;
    let mut found = Embeddings::new(bundle.header.dim as usize);
    let mut worst = (f32::INFINITY, String::new());
    for image in &reference.images {
        let embedding = encoder.encode(&image.pixels)?;
        let cosine = embedding::dot(&embedding, &image.expected);
        if cosine.is_nan() || cosine < worst.0 {
            worst = (cosine, image.name.clone());
        }
        found.push(&embedding);
    }
    Ok((found, worst))
}
