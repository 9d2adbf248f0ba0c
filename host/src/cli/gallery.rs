//! `eyas gallery`: build, inspect and verify galleries.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use eyas_device::store::{MappedFile, load_student};
use eyas_shared::files;
use eyas_shared::gallery::{Codes, Gallery, GalleryError};
use serde_json::json;

use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::Manifest;
use crate::embeddings::{EmbeddedImages, cache, images};
use crate::gallery;
use crate::teacher::Teacher;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Embed images and lay them out as a gallery.
    Build(BuildArgs),
    /// Show what a gallery is.
    Inspect(InspectArgs),
    /// Read every byte of a gallery; exit code 1 if it is damaged.
    Verify(VerifyArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas gallery build --teacher photos.teacher --data photos --cache cache --out photos.gallery
  eyas gallery build --bundle student.bundle --data photos --out symmetric.gallery")]
pub(super) struct BuildArgs {
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
    /// How rows are stored: a list of int2, int8, f16, f32.
    #[arg(long, value_name = "CODES", default_value = "int8,f16", value_parser = Codes::from_str)]
    codes: Codes,
    /// Folder that keeps what the teacher's networks computed.
    #[arg(long, conflicts_with = "bundle")]
    cache: Option<PathBuf>,
    /// Gallery file to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas gallery inspect photos.gallery")]
pub(super) struct InspectArgs {
    /// Gallery file.
    gallery: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas gallery verify photos.gallery")]
pub(super) struct VerifyArgs {
    /// Gallery file.
    gallery: PathBuf,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Build(args) => build(&args),
        Command::Inspect(args) => inspect(&args),
        Command::Verify(args) => verify(&args),
    }
}

fn build(args: &BuildArgs) -> anyhow::Result<Answer> {
    let mut selected = gallery::select(&data::open(&args.data)?, args.split.as_deref())
        .with_context(|| format!("data `{}`", args.data.display()))?;
    for (path, same) in &selected.repeated {
        note(&format!("left out: `{path}` is the same image as `{same}`"));
    }
    let (embedder, embedded, faults) = match (&args.teacher, &args.bundle) {
        (Some(teacher), _) => with_teacher(teacher, args.cache.as_deref(), &selected.manifest)?,
        (None, Some(bundle)) => with_student(bundle, &selected.manifest)?,
        (None, None) => bail!("neither --teacher nor --bundle is given"),
    };
    for fault in &faults {
        note(&format!("not in the gallery: {fault}"));
    }
    let listed = selected.manifest.images.len();
    selected
        .manifest
        .images
        .retain(|image| embedded.get(&image.id).is_some());
    let built = gallery::build(&selected, &embedded, &embedder, args.codes)?;
    files::replace(&args.out, &built.bytes)?;
    say(&format!(
        "gallery of {} images, {} bytes, space {}, written to {}",
        built.n_rows,
        built.bytes.len(),
        embedded.space(),
        args.out.display()
    ));
    if !faults.is_empty() {
        bail!("{} of {listed} images are not in the gallery", faults.len());
    }
    Ok(Answer::Yes)
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

fn inspect(args: &InspectArgs) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let gallery = file.gallery()?;
    let n_bytes = file.bytes().len();
    let header = &gallery.header;
    if args.json {
        let sections: Vec<_> = gallery
            .sections()
            .map(|(tag, bytes)| json!({ "tag": tag, "bytes": bytes }))
            .collect();
        let object = json!({
            "schema": "eyas.gallery/1",
            "space_id": header.space.0.to_string(),
            "dim": header.dim,
            "n_rows": header.n_rows,
            "n_labels": header.n_labels,
            "codes": header.codes.to_string(),
            "teacher": header.teacher,
            "manifest": header.manifest.to_string(),
            "bytes": n_bytes,
            "sections": sections,
        });
        say(&object.to_string());
        return Ok(Answer::Yes);
    }
    say(&format!(
        "gallery of {} images with {} labels, {} dimensions in {}, space {}",
        header.n_rows, header.n_labels, header.dim, header.codes, header.space
    ));
    say(&format!(
        "  embedded by {}, manifest {}",
        header.teacher,
        header.manifest.short()
    ));
    say(&format!("  {n_bytes} bytes"));
    for (label, n_images) in images_of_labels(&gallery) {
        say(&format!("  {n_images:6} {label}"));
    }
    Ok(Answer::Yes)
}

fn images_of_labels<'g>(gallery: &Gallery<'g>) -> Vec<(&'g str, usize)> {
    let mut counts = vec![0; gallery.header.n_labels as usize];
    for row in 0..gallery.n_rows() {
        // A damaged label number is for `verify` to name.
        if let Some(count) = counts.get_mut(gallery.label_idx(row) as usize) {
            *count += 1;
        }
    }
    (0..)
        .zip(counts)
        .map(|(label_idx, count)| (gallery.label(label_idx).unwrap_or("(damaged)"), count))
        .collect()
}

fn verify(args: &VerifyArgs) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let outcome: Result<u32, GalleryError> =
        Gallery::open(file.bytes()).and_then(|gallery| gallery.verify().map(|()| gallery.n_rows()));
    let path = args.gallery.display();
    match outcome {
        Ok(n_rows) => {
            say(&format!("`{path}` is whole: {n_rows} images"));
            Ok(Answer::Yes)
        }
        Err(err) => {
            note(&format!("`{path}`: {err}"));
            Ok(Answer::No)
        }
    }
}
