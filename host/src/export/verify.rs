//! The gate between a trained student and a bundle: the device encoder, fed with the
//! bundle's final bytes, must give the embeddings that libtorch gave.
//!
//! A [`Verified`] can only come from here, and only a [`Verified`] can be saved.

use std::path::Path;

use eyas_device::encoder::{EncodeError, Encoder};
use eyas_device::selftest::{self, ProbeHasher};
use eyas_shared::bundle::{Bundle, BundleHeader, Precision, Verification};
use eyas_shared::embedding::{self, Embeddings};
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use eyas_shared::preprocess::{self, Pixels, PreprocessSpec};

use super::ExportError;
use super::diagnose::{self, Trained};
use super::stored::Rounding;
use crate::data::manifest::Manifest;
use crate::data::parallel;
use crate::embeddings::images;
use crate::memory;
use crate::student::TrainedStudent;

/// Cosines that a bundle must reach between the device encoder and libtorch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Of every image.
    pub min: f32,
    /// On the mean over all images.
    pub mean: f32,
}

/// For weights in f32: the two only add in different orders, which costs about 1e-7 a
/// layer. A wrong padding, a swapped axis or a forgotten bias costs more than 1e-3.
const F32_BOUNDS: Bounds = Bounds {
    min: 0.999_99,
    mean: 0.999_99,
};

/// The same for weights in f16: each is off by up to 2^-11 of itself, independently, so
/// embeddings turn by about that (cosine 1 - 1e-7 to 1e-5); networks with badly scaled
/// weights by more.
const F16_BOUNDS: Bounds = Bounds {
    min: 0.999_9,
    mean: 0.999_9,
};

/// The same for int8 with a scale per channel: a weight is off by up to 1/254 of the
/// largest in its channel, ten times as much as f16. Images far from what a network was
/// trained on have short outputs and turn the most.
const INT8_BOUNDS: Bounds = Bounds {
    min: 0.99,
    mean: 0.999,
};

/// The same with activations on u8 grids: each is off by up to 1/510 of the range of its
/// whole layer, and what lies outside is clipped. Unlike weights, which one image sees as
/// another does, these are off by something else for every image. No layer can be kept in f16
/// here, so weights that int8 alone would refuse pass too: what that costs in answers, the
/// check of recall says.
const FULL_INT8_BOUNDS: Bounds = Bounds {
    min: 0.97,
    mean: 0.99,
};

/// Cosines that a bundle of this precision must reach.
#[must_use]
pub fn bounds(precision: Precision) -> Bounds {
    match precision {
        Precision::F32 => F32_BOUNDS,
        Precision::F16 => F16_BOUNDS,
        Precision::Int8 => INT8_BOUNDS,
        Precision::FullInt8 => FULL_INT8_BOUNDS,
    }
}

/// How far the length of an embedding may be from 1: the ONNX file promises unit vectors
/// to other readers too.
const UNIT_TOLERANCE: f32 = 1e-3;

/// Reference images that a student should be held against; one with fewer is held against
/// all it has.
pub const N_WANTED: usize = 256;

/// Probes of the reference that a bundle carries, so that a board's self-test is short.
pub const N_BUNDLED_PROBES: usize = 8;

/// What a declared number of bytes is rounded up to.
const MEMORY_STEP: u64 = 64 << 10;

/// How well the device encoder agrees with a reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// Images that were compared.
    pub n_images: usize,
    /// Smallest cosine of one image.
    pub min_cosine: f32,
    /// Mean cosine.
    pub mean_cosine: f32,
    /// Name of the image with the smallest.
    pub worst_image: String,
}

impl Agreement {
    /// Whether the cosines are large enough.
    #[must_use]
    pub fn meets(&self, bounds: Bounds) -> bool {
        // NaN does not pass.
        self.min_cosine >= bounds.min && self.mean_cosine >= bounds.mean
    }
}

/// A bundle whose bytes the device encoder has reproduced.
#[derive(Clone, Debug)]
pub struct Verified {
    bytes: Vec<u8>,
    header: BundleHeader,
    agreement: Agreement,
    rounding: Rounding,
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

    /// How well it agrees with libtorch, or, where images were added to the reference, with
    /// the verified f32 student.
    #[must_use]
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// What was done so that its weights could be rounded.
    #[must_use]
    pub fn rounding(&self) -> &Rounding {
        &self.rounding
    }
}

/// Pixels of everything that libtorch embedded, with libtorch's embeddings.
pub struct Reference {
    images: Vec<ReferenceImage>,
    added: Vec<(String, Pixels)>,
    preprocess: PreprocessSpec,
    probe_pixels: Fingerprint,
    n_bundled: usize,
}

struct ReferenceImage {
    name: String,
    pixels: Pixels,
    expected: Vec<f32>,
}

/// One image with the embedding that is right for it.
#[derive(Clone, Copy)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) pixels: &'a Pixels,
    pub(super) expected: &'a [f32],
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
        let n_bundled = probes.n_rows().min(N_BUNDLED_PROBES);
        let pixels_of_probes = selftest::probe_pixels(&student.preprocess, probes.n_rows());
        for (index, (pixels, expected)) in pixels_of_probes.zip(probes.rows()).enumerate() {
            if index < n_bundled {
                hasher.update(&pixels);
            }
            images.push(ReferenceImage {
                name: format!("probe {index}"),
                pixels,
                expected: expected.to_vec(),
            });
        }
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
            added: Vec::new(),
            preprocess: student.preprocess.clone(),
            probe_pixels: hasher.finish(),
            n_bundled,
        })
    }

    /// Adds images that libtorch has not embedded, spread over a manifest, until there are
    /// [`N_WANTED`] beside the probes. Rounded weights are held against the f32 student on
    /// them. Returns how many were added.
    ///
    /// # Errors
    /// If an image can not be read or decoded, or has changed.
    pub fn add_images(&mut self, manifest: &Manifest) -> Result<usize, ExportError> {
        let known = |name: &str| self.images.iter().any(|image| image.name == name);
        let name = |image| manifest.path(image).display().to_string();
        let others = manifest.images.iter().map(|image| (image, name(image)));
        let others: Vec<_> = others.filter(|(_, name)| !known(name)).collect();
        let n_wanted = (N_WANTED + self.n_bundled).saturating_sub(self.n_images());
        let n_added = n_wanted.min(others.len());
        for at in 0..n_added {
            let (image, name) = &others[at * others.len() / n_added];
            let decoded =
                images::read_image(manifest, image).map_err(|why| ExportError::Added {
                    path: manifest.path(image),
                    why,
                })?;
            let pixels = preprocess::prepare(&decoded, &self.preprocess);
            self.added.push((name.clone(), pixels));
        }
        Ok(n_added)
    }

    /// Fingerprint of the preprocessed probes, as a bundle's header holds it.
    #[must_use]
    pub fn probe_pixels(&self) -> Fingerprint {
        self.probe_pixels
    }

    /// Number of images, probes included.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.images.len() + self.added.len()
    }

    /// What libtorch embedded.
    pub(super) fn samples(&self) -> Vec<Sample<'_>> {
        let samples = self.images.iter().map(|image| Sample {
            name: &image.name,
            pixels: &image.pixels,
            expected: &image.expected,
        });
        samples.collect()
    }

    /// Whether its pixels are what the student reads.
    pub(super) fn is_for(&self, student: &TrainedStudent) -> bool {
        self.preprocess == student.preprocess
    }

    /// Pixels of the added images, with their names.
    pub(super) fn added(&self) -> &[(String, Pixels)] {
        &self.added
    }

    /// Rows of the probes that a bundle carries, which come first.
    pub(super) fn n_bundled(&self) -> usize {
        self.n_bundled
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

/// What the device encoder of a drafted bundle gives for the samples, if it is right.
///
/// # Errors
/// If the encoder can not be loaded or fails, gives other embeddings than the precision's
/// [`bounds`] allow (the error says where it goes wrong), or vectors that are not of unit
/// length.
pub(super) fn gate(
    draft: &Bundle<'_>,
    samples: &[Sample<'_>],
    trained: Trained<'_>,
) -> Result<(Embeddings, Agreement), ExportError> {
    let encoder = Encoder::load(draft)?;
    let found = embed(&encoder, samples)?;
    let agreement = agreement(&found.unit, samples);
    let precision = draft.header.precision;
    let needed = bounds(precision);
    if agreement.meets(needed) {
        check_lengths(&found, samples)?;
        return Ok((found.unit, agreement));
    }
    let worst = samples.iter().find(|it| it.name == agreement.worst_image);
    let cause = match worst {
        Some(worst) => diagnose::cause(trained, draft, worst)?,
        None => None,
    };
    Err(ExportError::Disagreement {
        precision,
        agreement,
        needed,
        cause,
    })
}

/// What the device encoder computes.
struct Embedded {
    unit: Embeddings,
    lengths: Vec<f32>,
}

fn embed(encoder: &Encoder, samples: &[Sample<'_>]) -> Result<Embedded, EncodeError> {
    let job = |at: usize| encoder.network().run(samples[at].pixels);
    let mut unit = Embeddings::new(encoder.dim());
    let mut lengths = Vec::with_capacity(samples.len());
    for outcome in parallel::map(samples.len(), job, || {}) {
        let mut embedding = outcome?;
        // As the encoder does, which hides it from its callers.
        lengths.push(embedding::l2_normalize(&mut embedding));
        unit.push(&embedding);
    }
    Ok(Embedded { unit, lengths })
}

fn check_lengths(found: &Embedded, samples: &[Sample<'_>]) -> Result<(), ExportError> {
    let off = |length: &f32| (length - 1.0).abs() > UNIT_TOLERANCE;
    match found.lengths.iter().position(off) {
        None => Ok(()),
        Some(at) => Err(ExportError::NotUnit {
            image: samples[at].name.to_owned(),
            length: found.lengths[at],
        }),
    }
}

fn agreement(found: &Embeddings, samples: &[Sample<'_>]) -> Agreement {
    let mut worst = (f32::INFINITY, "");
    let mut sum = 0.0;
    for (found, sample) in found.rows().zip(samples) {
        let cosine = embedding::dot(found, sample.expected);
        sum += f64::from(cosine);
        if cosine.is_nan() || cosine < worst.0 {
            worst = (cosine, sample.name);
        }
    }
    Agreement {
        n_images: samples.len(),
        min_cosine: worst.0,
        mean_cosine: (sum / samples.len() as f64) as f32,
        worst_image: worst.1.to_owned(),
    }
}

/// What a verified bundle's encoder gives for the images that were added to its reference.
///
/// # Errors
/// If it fails.
pub(super) fn embed_added(
    verified: &Verified,
    reference: &Reference,
) -> Result<Vec<Vec<f32>>, ExportError> {
    if reference.added.is_empty() {
        return Ok(Vec::new());
    }
    let encoder = Encoder::load(&Bundle::read(&verified.bytes)?)?;
    let job = |at: usize| encoder.encode(&reference.added[at].1);
    let outcomes = parallel::map(reference.added.len(), job, || {});
    Ok(outcomes.into_iter().collect::<Result<_, _>>()?)
}

/// How well the device encoder of a draft agrees with the samples.
///
/// # Errors
/// If it fails.
pub(super) fn agreement_of(
    draft: &Bundle<'_>,
    samples: &[Sample<'_>],
) -> Result<Agreement, EncodeError> {
    let found = embed(&Encoder::load(draft)?, samples)?;
    Ok(agreement(&found.unit, samples))
}

/// Completes a bundle that has passed the gate: with what the device encoder gives for the
/// probes, and how far it is from the reference.
///
/// # Errors
/// If the encoder of the final bytes does not give what passed the gate.
pub(super) fn finish(
    passed: &Bundle<'_>,
    (found, agreement): (Embeddings, Agreement),
    samples: &[Sample<'_>],
    rounding: Rounding,
) -> Result<Verified, ExportError> {
    let dim = found.dim();
    let n_probes = passed.probe_embeddings.n_rows();
    let of_probes = found.values()[..n_probes * dim].to_vec();
    let header = BundleHeader {
        verification: Verification {
            n_images: agreement.n_images as u32,
            min_cosine: agreement.min_cosine,
            tolerance: bounds(passed.header.precision).min,
        },
        ..passed.header.clone()
    };
    let bytes = Bundle {
        header: header.clone(),
        onnx: passed.onnx,
        probe_embeddings: Embeddings::from_values(dim, of_probes)
            .expect("whole rows were cut from a matrix"),
        calibrations: Vec::new(),
        memory_bytes: None,
    }
    .to_bytes();
    // The bytes that are shipped, not those they were made from.
    let again = embed(&Encoder::load(&Bundle::read(&bytes)?)?, samples)?;
    if again.unit != found {
        return Err(ExportError::Unsteady);
    }
    Ok(Verified {
        bytes,
        header,
        agreement,
        rounding,
        memory_bytes: None,
    })
}
