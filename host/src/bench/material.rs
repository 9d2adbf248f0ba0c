//! What a session needs at hand while it runs: files, images that ask, and what the host
//! itself makes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use eyas_device::matcher::Matcher;
use eyas_device::store::{GalleryCheck, MappedFile, Store, load_student};
use eyas_shared::calibration::{GalleryIdentity, NO_SCORE};
use eyas_shared::files;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::preprocess::Limits;

use super::catalog::{CatalogCell, CatalogGallery};
use super::map::Plane;
use super::plan::Plan;
use super::results::{BundleFacts, GalleryFacts, QueryImage, ReliabilityBin};
use crate::data::{self, manifest::Manifest};
use crate::embeddings::images;
use crate::evaluate;
use crate::link::push::Source;

/// A gallery of the plan.
pub(super) struct GalleryMaterial {
    pub(super) path: PathBuf,
    pub(super) source: Source,
    pub(super) plane: Plane,
}

/// A bundle of the plan.
pub(super) struct BundleMaterial {
    pub(super) path: PathBuf,
    pub(super) source: Source,
    /// What the host encodes the queries to; none for a query that it can not encode.
    embeddings: Option<Vec<Option<Vec<f32>>>>,
}

/// Everything of a plan.
pub(super) struct Material {
    pub(super) manifest: Manifest,
    /// The images that ask, of the manifest.
    pub(super) asking: Manifest,
    pub(super) galleries: BTreeMap<String, GalleryMaterial>,
    /// By student and precision.
    pub(super) bundles: BTreeMap<(String, String), BundleMaterial>,
}

/// What a catalog holds of it.
pub(super) struct Listed {
    pub(super) queries: Vec<QueryImage>,
    pub(super) galleries: Vec<CatalogGallery>,
    pub(super) cells: Vec<CatalogCell>,
}

impl Material {
    /// Opens everything that a plan names, and checks that it fits together.
    pub(super) fn open(plan: &Plan) -> anyhow::Result<(Self, Listed)> {
        let manifest = data::open(&plan.queries.manifest)?;
        let mut asking = evaluate::select_queries(&manifest, plan.queries.split.as_deref())
            .with_context(|| format!("data `{}`", plan.queries.manifest.display()))?;
        if let Some(limit) = plan.queries.limit {
            asking.images = spread(&asking.images, limit);
        }
        let queries: Vec<QueryImage> = { asking.images.iter() }
            .map(|image| QueryImage {
                id: image.id.to_string(),
                label: image.label.clone(),
                name: image.path.clone(),
            })
            .collect();
        let mut galleries = BTreeMap::new();
        let mut listed_galleries = Vec::new();
        for (name, path) in &plan.galleries {
            let (gallery, listed) = open_gallery(name, path, &asking)?;
            galleries.insert(name.clone(), gallery);
            listed_galleries.push(listed);
        }
        let mut bundles = BTreeMap::new();
        let mut cells = Vec::new();
        for (student, paths) in &plan.students {
            for path in paths {
                let file = MappedFile::open(path)?;
                let bundle = file.bundle()?;
                let precision = bundle.header.precision.to_string();
                // A plan that can not be measured to its end is refused before it begins.
                for (name, gallery) in &galleries {
                    Store::open(path, &gallery.path, GalleryCheck::Whole)
                        .with_context(|| format!("student `{student}` in gallery `{name}`"))?;
                }
                let source = Source::open(path)?;
                let facts = bundle_facts(path, &bundle.header, &source);
                let encoder = load_student(&file, &bundle)?;
                let layers = encoder.network().layers().to_vec();
                for threads in &plan.threads {
                    for (name, gallery) in &galleries {
                        cells.push(CatalogCell {
                            key: format!("{student}/{precision}/{threads}/{name}"),
                            student: student.clone(),
                            precision: precision.clone(),
                            threads: *threads,
                            gallery: name.clone(),
                            bundle: facts.clone(),
                            reliability: reliability(&bundle.calibrations, &gallery.path)?,
                            layers: layers.clone(),
                        });
                    }
                }
                let material = BundleMaterial {
                    path: path.clone(),
                    source,
                    embeddings: None,
                };
                let key = (student.clone(), precision.clone());
                if bundles.insert(key, material).is_some() {
                    bail!(
                        "student `{student}` has two bundles of {precision}; give one of them another name"
                    );
                }
            }
        }
        let listed = Listed {
            queries,
            galleries: listed_galleries,
            cells,
        };
        let material = Self {
            manifest,
            asking,
            galleries,
            bundles,
        };
        Ok((material, listed))
    }

    /// The bytes of an image that asks.
    pub(super) fn image(&self, query: usize) -> anyhow::Result<Vec<u8>> {
        let image = &self.asking.images[query];
        let path = self.asking.path(image);
        let bytes = files::read(&path, Limits::DEFAULT.max_bytes)?;
        ensure!(
            ImageId::of_file(&bytes) == image.id,
            "`{}` has changed since the session began",
            path.display()
        );
        Ok(bytes)
    }

    /// Images that are asked in turn within windows, spread evenly over those that the host
    /// can read.
    pub(super) fn window_images(&self, n: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..self.asking.images.len()).collect();
        let readable =
            |query: &usize| images::read_image(&self.asking, &self.asking.images[*query]).is_ok();
        spread(&all, n.max(1))
            .into_iter()
            .filter(readable)
            .collect()
    }
}

impl BundleMaterial {
    /// Embeddings of the asking images by this machine's own encoder.
    pub(super) fn embeddings(
        &mut self,
        asking: &Manifest,
        done: impl Fn(),
    ) -> anyhow::Result<&[Option<Vec<f32>>]> {
        if self.embeddings.is_none() {
            let file = MappedFile::open(&self.path)?;
            let bundle = file.bundle()?;
            let encoder = load_student(&file, &bundle)?;
            let (embedded, _) = images::encode_each(&encoder, asking, done);
            let of = |id| embedded.get(id).map(<[f32]>::to_vec);
            let all = asking.images.iter().map(|image| of(&image.id));
            self.embeddings = Some(all.collect());
        }
        Ok(self.embeddings.as_deref().unwrap_or_default())
    }
}

/// The first matches of embeddings in a gallery, by this machine's own matcher; a query's
/// own image is left out.
pub(super) fn first_matches(
    gallery: &Path,
    asking: &Manifest,
    embeddings: &[Option<Vec<f32>>],
) -> anyhow::Result<Vec<String>> {
    let file = MappedFile::open(gallery)?;
    let matcher = Matcher::new(file.gallery()?);
    let first = |(embedding, id): (&Option<Vec<f32>>, ImageId)| {
        let found = embedding
            .as_ref()
            .and_then(|embedding| matcher.search(embedding, 1, Some(id)).into_iter().next());
        found.map_or_else(String::new, |found| found.id.to_string())
    };
    let ids = asking.images.iter().map(|image| image.id);
    Ok(embeddings.iter().zip(ids).map(first).collect())
}

/// At most `n` items, spread evenly.
fn spread<T: Clone>(items: &[T], n: usize) -> Vec<T> {
    let n = n.min(items.len());
    (0..n).map(|i| items[i * items.len() / n].clone()).collect()
}

fn open_gallery(
    name: &str,
    path: &Path,
    asking: &Manifest,
) -> anyhow::Result<(GalleryMaterial, CatalogGallery)> {
    let file = MappedFile::open(path)?;
    let matcher = Matcher::new(file.verified_gallery()?);
    let gallery = matcher.gallery();
    let mut ids_by_label: BTreeMap<&str, Vec<ImageId>> = BTreeMap::new();
    for row in (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row)) {
        let label = gallery.entry(row).map_or("", |entry| entry.label);
        ids_by_label.entry(label).or_default().push(gallery.id(row));
    }
    let n_relevant = asking.images.iter().map(|image| {
        let ids = ids_by_label.get(image.label.as_str());
        ids.map_or(0, |ids| ids.iter().filter(|id| **id != image.id).count())
    });
    let (plane, map) = Plane::of(&matcher);
    let source = Source::open(path)?;
    let header = &gallery.header;
    let facts = GalleryFacts {
        name: name.to_owned(),
        bytes: source.offer.file.bytes,
        hash: source.hash().to_string(),
        n_rows: gallery.n_images() as usize,
        n_labels: header.n_labels as usize,
        codes: header.codes.to_string(),
        teacher: header.teacher.clone(),
        map,
        map_share: plane.share,
    };
    let listed = CatalogGallery {
        facts,
        n_relevant: n_relevant.collect(),
    };
    let material = GalleryMaterial {
        path: path.to_owned(),
        source,
        plane,
    };
    Ok((material, listed))
}

fn bundle_facts(
    path: &Path,
    header: &eyas_shared::bundle::BundleHeader,
    source: &Source,
) -> BundleFacts {
    let file = path.file_name().unwrap_or_default();
    BundleFacts {
        file: file.to_string_lossy().into_owned(),
        bytes: source.offer.file.bytes,
        hash: source.hash().to_string(),
        architecture: header.architecture.clone(),
        n_parameters: header.n_parameters,
        multiply_adds: header.multiply_adds,
        side: header.preprocess.crop,
        dim: header.dim,
    }
}

/// The curve of the calibration that was made for exactly this gallery.
fn reliability(
    calibrations: &[eyas_shared::calibration::Calibration],
    gallery: &Path,
) -> anyhow::Result<Vec<ReliabilityBin>> {
    if calibrations.is_empty() {
        return Ok(Vec::new());
    }
    let file = MappedFile::open(gallery)?;
    let content = GalleryIdentity::of(&file.gallery()?).content;
    let found = calibrations
        .iter()
        .find(|calibration| calibration.gallery.content == content);
    let bins = found.map_or(&[][..], |calibration| &calibration.curve);
    Ok(bins
        .iter()
        .map(|bin| ReliabilityBin {
            from: (bin.from != NO_SCORE).then_some(bin.from),
            probability: [bin.probability, bin.low, bin.high],
            n: bin.n_right + bin.n_wrong + bin.n_unknown,
        })
        .collect())
}

/// Cosine of two embeddings; 0 if they are of two lengths or have none.
#[must_use]
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if a.len() == b.len() && lengths > 0.0 {
        dot(a, b) / lengths
    } else {
        0.0
    }
}
