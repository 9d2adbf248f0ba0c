//! Images and what embeds them: a teacher, or a student.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::store::{MappedFile, load_student};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::SpaceId;

use super::{Progress, note};
use crate::data::manifest::Manifest;
use crate::data::{self, parallel};
use crate::embeddings::{EmbeddedImages, cache, images};
use crate::gallery::{self, Selected};
use crate::report::Thumbnail;
use crate::teacher::Teacher;

#[derive(clap::Args)]
pub(super) struct EmbedArgs {
    /// Teacher that embeds the images.
    #[arg(long, required_unless_present = "bundle", conflicts_with = "bundle")]
    teacher: Option<PathBuf>,
    /// Student that embeds the images instead: a symmetric gallery.
    #[arg(long)]
    bundle: Option<PathBuf>,
    /// Folder or CSV list of images.
    #[arg(long)]
    data: PathBuf,
    /// Images of this split; those with the gallery role if not given.
    #[arg(long)]
    split: Option<String>,
    /// Folder that keeps what the teacher's networks computed.
    #[arg(long, conflicts_with = "bundle")]
    cache: Option<PathBuf>,
    /// Store a small JPEG of each image, its longer side of so many pixels at most.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=512))]
    thumbnails: Option<u32>,
}

/// Embedded images, each content once.
pub(super) struct Embedded {
    pub(super) space: SpaceId,
    /// Name of what embedded them.
    pub(super) embedder: String,
    pub(super) manifest: Manifest,
    /// Row by row the images of the manifest.
    pub(super) rows: Embeddings,
    /// None, or one for each image.
    pub(super) thumbnails: Vec<Vec<u8>>,
    /// Images that could not be embedded.
    pub(super) n_faults: usize,
}

impl Embedded {
    /// Fails if an image is missing, once everything else is done.
    pub(super) fn complain(&self) -> anyhow::Result<()> {
        if self.n_faults == 0 {
            return Ok(());
        }
        let n_listed = self.n_faults + self.manifest.images.len();
        bail!(
            "{} of {n_listed} images are not in the gallery",
            self.n_faults
        )
    }
}

impl EmbedArgs {
    pub(super) fn wants_thumbnails(&self) -> bool {
        self.thumbnails.is_some()
    }

    /// Embeds the images; those that can not be embedded are named and left out.
    pub(super) fn embed(&self) -> anyhow::Result<Embedded> {
        let Selected {
            mut manifest,
            repeated,
        } = gallery::select(&data::open(&self.data)?, self.split.as_deref())
            .with_context(|| format!("data `{}`", self.data.display()))?;
        for (path, same) in &repeated {
            note(&format!("left out: `{path}` is the same image as `{same}`"));
        }
        let (embedder, embedded, faults) = match (&self.teacher, &self.bundle) {
            (Some(teacher), _) => with_teacher(teacher, self.cache.as_deref(), &manifest)?,
            (None, Some(bundle)) => with_student(bundle, &manifest)?,
            (None, None) => bail!("neither --teacher nor --bundle is given"),
        };
        for fault in &faults {
            note(&format!("not in the gallery: {fault}"));
        }
        manifest
            .images
            .retain(|image| embedded.get(&image.id).is_some());
        let thumbnails = match self.thumbnails {
            None => Vec::new(),
            Some(pixels) => thumbnails_of(&manifest, pixels)?,
        };
        Ok(Embedded {
            space: embedded.space(),
            embedder,
            rows: embedded.matrix_for(&manifest)?,
            manifest,
            thumbnails,
            n_faults: faults.len(),
        })
    }
}

/// Name of the embedder, embeddings, images that could not be embedded.
type EmbeddedBy = (String, EmbeddedImages, Vec<cache::Fault>);

fn with_teacher(
    path: &Path,
    cache: Option<&Path>,
    manifest: &Manifest,
) -> anyhow::Result<EmbeddedBy> {
    let teacher = Teacher::open(path)?;
    let progress = Progress::of_images("embedding", manifest.images.len());
    let embedded = cache::embed_images(&teacher, manifest, cache, &|| progress.step())?;
    Ok((teacher.name().to_owned(), embedded.images, embedded.faults))
}

fn with_student(path: &Path, manifest: &Manifest) -> anyhow::Result<EmbeddedBy> {
    let file = MappedFile::open(path)?;
    let bundle = file.bundle()?;
    let encoder = load_student(&file, &bundle)?;
    let progress = Progress::of_images("encoding", manifest.images.len());
    let (embedded, faults) = images::encode_each(&encoder, manifest, || progress.step());
    Ok((format!("student {}", bundle.header.name), embedded, faults))
}

fn thumbnails_of(manifest: &Manifest, pixels: u32) -> anyhow::Result<Vec<Vec<u8>>> {
    let progress = Progress::of_images("reducing", manifest.images.len());
    let job = |i: usize| {
        let image = &manifest.images[i];
        let read = images::read_image(manifest, image).map_err(anyhow::Error::msg);
        read.and_then(|pixel_rows| Ok(Thumbnail::of_side(&pixel_rows, pixels)?.into_jpeg()))
            .with_context(|| format!("thumbnail of `{}`", image.path))
    };
    let all = parallel::map(manifest.images.len(), job, || progress.step());
    all.into_iter().collect()
}
