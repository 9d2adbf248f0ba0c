//! `eyas embed`: embed images with a teacher, once.

use std::path::PathBuf;

use anyhow::bail;
use eyas_shared::files;
use serde_json::json;

use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::Selection;
use crate::embeddings::cache::{self, Embedded};
use crate::teacher::Teacher;

/// Embed images with a teacher, once: what the cache holds is never computed again.
///
/// An interrupted run goes on where it was. Images that can not be embedded are named, the
/// others are kept, and the exit code is 2.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  eyas embed --teacher photos.teacher --data photos --cache cache"
)]
pub(super) struct Args {
    /// Teacher file.
    #[arg(long)]
    teacher: PathBuf,
    /// Folder or CSV list of images.
    #[arg(long)]
    data: PathBuf,
    /// Only this split.
    #[arg(long)]
    split: Option<String>,
    /// Folder that keeps what the networks computed.
    #[arg(long, required_unless_present = "out")]
    cache: Option<PathBuf>,
    /// Embeddings file to write.
    #[arg(long)]
    out: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let teacher = Teacher::open(&args.teacher)?;
    let manifest = data::open(&args.data)?.select(&Selection {
        split: args.split.clone(),
        role: None,
    });
    if manifest.images.is_empty() {
        let split = args.split.as_deref().unwrap_or("any");
        bail!("`{}` has no image in split `{split}`", args.data.display());
    }
    let embedded = {
        let progress = Progress::of_images("embedding", manifest.images.len());
        cache::embed_images(&teacher, &manifest, args.cache.as_deref(), &|| {
            progress.step()
        })?
    };
    if let Some(out) = &args.out {
        files::replace(out, &embedded.images.to_bytes())?;
    }
    for path in &embedded.damaged {
        note(&format!(
            "`{}` was damaged and has been computed again",
            path.display()
        ));
    }
    for fault in &embedded.faults {
        note(&format!("not embedded: {fault}"));
    }
    say(&summary(args, &teacher, manifest.images.len(), &embedded));
    if !embedded.faults.is_empty() {
        bail!(
            "{} of {} images can not be embedded",
            embedded.faults.len(),
            manifest.images.len()
        );
    }
    Ok(Answer::Yes)
}

fn summary(args: &Args, teacher: &Teacher, n_lines: usize, embedded: &Embedded) -> String {
    let n_images = embedded.images.n_images();
    if args.json {
        return json!({
            "schema": "eyas.embed/1",
            "space_id": teacher.space().0.to_string(),
            "dim": teacher.dim(),
            "n_listed": n_lines,
            "n_embedded": n_images,
            "n_run": embedded.n_run,
            "faults": embedded.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
        .to_string();
    }
    format!(
        "{n_images} images embedded into {} dimensions of space {} ({} now, the others from the cache; {n_lines} listed)",
        teacher.dim(),
        teacher.space(),
        embedded.n_run
    )
}
