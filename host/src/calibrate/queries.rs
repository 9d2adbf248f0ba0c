//! Queries, known and unknown, with what a gallery says to them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use eyas_device::answer::{Asked, Nearest};
use eyas_device::encoder::Encoder;
use eyas_device::matcher::Matcher;
use eyas_shared::files;
use eyas_shared::fingerprint::{Fingerprint, ImageId};

use super::CalibrateError;
use super::curve::Outcome;
use crate::data::manifest::Manifest;
use crate::embeddings::cache::Fault;
use crate::embeddings::{EmbeddedImages, EmbeddingsError, images};

/// Encodes images with a student, and keeps what it computed in a folder: calibrations at
/// other rates ask with the same embeddings. `onnx` names the student, weights and pixels.
///
/// # Errors
/// If a file of the folder can not be read or written. An image that can not be encoded is in
/// the second part of the result.
pub fn encode(
    encoder: &Encoder,
    onnx: Fingerprint,
    manifest: &Manifest,
    cache: Option<&Path>,
    done: impl Fn(),
) -> Result<(EmbeddedImages, Vec<Fault>), EmbeddingsError> {
    let Some(folder) = cache else {
        return Ok(images::encode_each(encoder, manifest, done));
    };
    let path = folder.join(format!("student-{}.embeddings", onnx.short()));
    let mut embedded = if path.exists() {
        EmbeddedImages::read(&path)?
    } else {
        EmbeddedImages::new(encoder.space(), encoder.dim())
    };
    let mut missing = manifest.clone();
    missing
        .images
        .retain(|image| embedded.get(&image.id).is_none());
    if missing.images.is_empty() {
        return Ok((embedded, Vec::new()));
    }
    let (new, faults) = images::encode_each(encoder, &missing, done);
    for (id, row) in new.ids().iter().zip(new.embeddings().rows()) {
        embedded.insert(*id, row);
    }
    files::create_folder(folder)?;
    files::replace(&path, &embedded.to_bytes())?;
    Ok((embedded, faults))
}

/// One query with what the gallery says to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Its image.
    pub id: ImageId,
    /// What it shows.
    pub label: String,
    /// Whether the gallery has that label, in another image.
    pub is_known: bool,
    /// Its embedding.
    pub embedding: Vec<f32>,
    /// The nearest labels, the query's own image left out.
    pub nearest: Nearest,
}

impl Observation {
    /// Whether the first label is the query's.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.is_known && self.nearest.label == self.label
    }

    pub(super) fn outcome(&self) -> Outcome {
        match (self.is_known, self.is_right()) {
            (false, _) => Outcome::Unknown,
            (true, true) => Outcome::Right,
            (true, false) => Outcome::Wrong,
        }
    }
}

/// Which labels a gallery has beside a given image.
pub struct Labels {
    n_rows: HashMap<String, usize>,
    of_image: HashMap<(ImageId, String), usize>,
}

impl Labels {
    /// Reads the label of every row.
    #[must_use]
    pub fn of(matcher: &Matcher<'_>) -> Self {
        let (mut n_rows, mut of_image) = (HashMap::new(), HashMap::new());
        let gallery = matcher.gallery();
        let rows = (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row));
        for entry in rows.filter_map(|row| gallery.entry(row)) {
            *n_rows.entry(entry.label.to_owned()).or_insert(0) += 1;
            *of_image
                .entry((entry.id, entry.label.to_owned()))
                .or_insert(0) += 1;
        }
        Self { n_rows, of_image }
    }

    /// Whether a query of this label has something to find; `None` if only itself.
    #[must_use]
    pub fn knows(&self, label: &str, id: ImageId) -> Option<bool> {
        let Some(n_rows) = self.n_rows.get(label) else {
            return Some(false);
        };
        let own = self
            .of_image
            .get(&(id, label.to_owned()))
            .copied()
            .unwrap_or(0);
        (*n_rows > own).then_some(true)
    }

    /// Whether the gallery has this very image under this label.
    #[must_use]
    pub fn has_image(&self, label: &str, id: ImageId) -> bool {
        self.of_image.contains_key(&(id, label.to_owned()))
    }
}

/// Queries with the answers of a gallery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    /// Each image once, by ascending id.
    pub list: Vec<Observation>,
    /// Images that are the only one of their label in the gallery: neither known nor unknown.
    pub n_alone: usize,
    /// Images that are in the gallery: the student has probably been trained on them.
    pub n_in_gallery: usize,
}

/// Asks with every embedded image of `manifest`, and of `unknown`, whose labels must not be
/// in the gallery. Images that were not embedded are left out.
///
/// # Errors
/// If an image of `unknown` has a label of the gallery.
pub fn observe(
    manifest: &Manifest,
    unknown: &[Manifest],
    embedded: &EmbeddedImages,
    matcher: &Matcher<'_>,
) -> Result<Observations, CalibrateError> {
    let labels = Labels::of(matcher);
    for image in unknown.iter().flat_map(|manifest| &manifest.images) {
        if labels.n_rows.contains_key(&image.label) {
            let (path, label) = (image.path.clone(), image.label.clone());
            return Err(CalibrateError::KnownUnknown { path, label });
        }
    }
    let mut observed = Observations::default();
    let mut seen = BTreeSet::new();
    let images = manifest.images.iter();
    for image in images.chain(unknown.iter().flat_map(|manifest| &manifest.images)) {
        let Some(embedding) = embedded.get(&image.id) else {
            continue;
        };
        if !seen.insert(image.id) {
            continue;
        }
        let Some(is_known) = labels.knows(&image.label, image.id) else {
            observed.n_alone += 1;
            continue;
        };
        let asked = Asked::single(embedding.to_vec());
        let Some(nearest) = Nearest::of(matcher, &asked, Some(image.id)) else {
            continue;
        };
        observed.n_in_gallery += usize::from(labels.has_image(&image.label, image.id));
        observed.list.push(Observation {
            id: image.id,
            label: image.label.clone(),
            is_known,
            embedding: asked.embedding,
            nearest,
        });
    }
    observed.list.sort_by_key(|observation| observation.id);
    Ok(observed)
}
