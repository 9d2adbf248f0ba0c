//! What all cells of a sweep are scored on: galleries that the teacher embedded once, the
//! images that ask, and the teacher's own score.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use eyas_device::matcher::Matcher;
use eyas_device::store::{MappedFile, StoreError, load_student};
use eyas_shared::bundle::BundleHeader;
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprint, Fingerprinter};
use eyas_shared::gallery::Codes;
use thiserror::Error;

use super::file::GalleryAxis;
use super::record::{Ceiling, Mode, Score};
use crate::data::manifest::Manifest;
use crate::embeddings::EmbeddedImages;
use crate::embeddings::cache::{self, EmbedError, Fault};
use crate::embeddings::images;
use crate::evaluate::{self, EvaluateError, RetrievalError};
use crate::gallery::{self, BuildError, Selected};
use crate::teacher::Teacher;

/// Rows of all galleries, as `eyas gallery build` stores them.
const ROWS: Codes = Codes::F16;

/// Why nothing can be scored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GroundError {
    /// A file can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A bundle or a gallery can not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The teacher can not embed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Queries can not be selected or scored.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Queries and gallery do not fit together.
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// The gallery can not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An image that not all can embed: scores would not compare.
    #[error("{fault}; {n_faults} images can not be embedded: `eyas data check` names all")]
    Images {
        /// The first.
        fault: Fault,
        /// How many.
        n_faults: usize,
    },
}

/// A gallery of the sweep, with those who ask it.
pub struct Ground {
    name: String,
    searched: Selected,
    asked: Manifest,
}

impl Ground {
    /// Selects the images of a gallery and its queries.
    ///
    /// # Errors
    /// If there are none.
    pub fn select(axis: &GalleryAxis, data: &Manifest) -> Result<Self, GroundError> {
        Ok(Self {
            name: axis.name.clone(),
            searched: gallery::select(data, axis.search.as_deref())?,
            asked: evaluate::select_queries(data, axis.ask.as_deref())?,
        })
    }

    /// Name for the tables.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names the images, who is searched and who asks.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprinter::new("eyas sweep gallery 1")
            .field("name", self.name.as_bytes())
            .field("searched", &self.searched.manifest.fingerprint().0)
            .field("asked", &self.asked.fingerprint().0)
            .finish()
    }

    /// Number of images that the teacher has to know.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.searched.manifest.images.len() + self.asked.images.len()
    }

    /// Where the teacher's gallery lies in the sweep's folder.
    #[must_use]
    pub fn gallery_path(&self, out: &Path) -> PathBuf {
        out.join("galleries").join(format!("{}.gallery", self.name))
    }

    /// Embeds gallery and queries with the teacher, writes the gallery, and scores the
    /// teacher: the ceiling. `done` is called for each image.
    ///
    /// # Errors
    /// [`GroundError`]; an image that can not be embedded is one.
    pub fn prepare(
        &self,
        teacher: &Teacher,
        cache: &Path,
        out: &Path,
        done: &(dyn Fn() + Sync),
    ) -> Result<Ceiling, GroundError> {
        let embed = |manifest: &Manifest| {
            let embedded = cache::embed_images(teacher, manifest, Some(cache), done)?;
            whole(embedded.images, embedded.faults)
        };
        let rows = embed(&self.searched.manifest)?;
        let queries = evaluate::queries_of(&self.asked, &embed(&self.asked)?);
        let built = gallery::build(&self.searched, &rows, teacher.name(), ROWS)?;
        let path = self.gallery_path(out);
        if let Some(folder) = path.parent() {
            files::create_folder(folder)?;
        }
        files::replace(&path, &built.bytes)?;
        let file = MappedFile::open(&path)?;
        let found = evaluate::retrieval(&queries, &Matcher::new(file.verified_gallery()?))?;
        Ok(Ceiling {
            gallery: self.name.clone(),
            n_queries: self.asked.images.len(),
            n_gallery: built.n_rows,
            means: found.means.into(),
        })
    }
}

/// Scores a bundle in every gallery, the teacher's and its own; each image is encoded once.
/// `done` is called for each image.
///
/// # Errors
/// [`GroundError`]; an image that can not be encoded is one.
pub fn score_bundle(
    path: &Path,
    grounds: &[Ground],
    out: &Path,
    done: impl Fn(),
) -> Result<(BundleHeader, Vec<Score>), GroundError> {
    let file = MappedFile::open(path)?;
    let bundle = file.bundle()?;
    let encoder = load_student(&file, &bundle)?;
    let (embedded, faults) = images::encode_each(&encoder, &all_images(grounds), done);
    let embedded = whole(embedded, faults)?;
    let header = bundle.header;
    let mut scores = Vec::new();
    for ground in grounds {
        let gallery_path = ground.gallery_path(out);
        let gallery_file = MappedFile::open(&gallery_path)?;
        let gallery = gallery_file.verified_gallery()?;
        if gallery.header.space != header.space {
            return Err(GroundError::Store(StoreError::OtherSpace {
                student: header.space,
                gallery: gallery.header.space,
                bundle_path: path.to_owned(),
                gallery_path,
            }));
        }
        let queries = evaluate::queries_of(&ground.asked, &embedded);
        let of_teacher = evaluate::retrieval(&queries, &Matcher::new(gallery))?;
        let own = evaluate::against_images(&queries, &ground.searched, &embedded, ROWS, |_| ())?;
        let found = [(Mode::Asymmetric, of_teacher), (Mode::Symmetric, own)];
        scores.extend(found.map(|(mode, retrieval)| Score {
            gallery: ground.name.clone(),
            mode,
            precision: header.precision,
            bundle_bytes: file.bytes().len(),
            means: retrieval.means.into(),
        }));
    }
    Ok((header, scores))
}

/// Every image of the grounds once.
#[must_use]
pub fn all_images(grounds: &[Ground]) -> Manifest {
    let mut seen = HashSet::new();
    let lists = grounds
        .iter()
        .flat_map(|ground| [&ground.searched.manifest, &ground.asked]);
    let images = lists
        .flat_map(|list| &list.images)
        .filter(|image| seen.insert(image.id));
    Manifest {
        root: grounds
            .first()
            .map(|ground| ground.asked.root.clone())
            .unwrap_or_default(),
        images: images.cloned().collect(),
    }
}

fn whole(embedded: EmbeddedImages, faults: Vec<Fault>) -> Result<EmbeddedImages, GroundError> {
    let n_faults = faults.len();
    match faults.into_iter().next() {
        None => Ok(embedded),
        Some(fault) => Err(GroundError::Images { fault, n_faults }),
    }
}
