//! `eyas-device gallery`: keep a board's gallery whole and up to date.

use std::path::PathBuf;

use eyas_shared::gallery::Gallery;
use serde_json::json;

use super::{Answer, human_bytes, print, report_error};
use crate::store::MappedFile;
use crate::update::{self, Updated};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    Apply(ApplyArgs),
    /// Drop the rows that deltas removed.
    Compact(CompactArgs),
    /// Read every byte of a gallery; exit code 1 if it is damaged.
    Verify(VerifyArgs),
}

/// Apply deltas to a gallery, one after the other.
///
/// The gallery is replaced when the new one is whole and on disk: readers find the old one or
/// the new one. A delta that was already applied, belongs to another gallery or is damaged
/// changes nothing. Exit code 1 if the only fault is that it was already applied.
///
/// Images that go stay in the file as removed rows, which are never found, until more than a
/// quarter of the rows are such.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device gallery apply shop.gallery week-47.delta")]
pub(super) struct ApplyArgs {
    /// Gallery file.
    gallery: PathBuf,
    /// Delta files, the oldest first.
    #[arg(required = true, value_name = "DELTA")]
    deltas: Vec<PathBuf>,
    /// Drop removed rows at once.
    #[arg(long)]
    compact: bool,
    /// Print one JSON object per delta and line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device gallery compact shop.gallery")]
pub(super) struct CompactArgs {
    /// Gallery file.
    gallery: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device gallery verify shop.gallery")]
pub(super) struct VerifyArgs {
    /// Gallery file.
    gallery: PathBuf,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Apply(args) => apply(&args),
        Command::Compact(args) => compact(&args),
        Command::Verify(args) => verify(&args),
    }
}

fn apply(args: &ApplyArgs) -> anyhow::Result<Answer> {
    for delta in &args.deltas {
        match update::apply(&args.gallery, delta, &args.gallery, args.compact) {
            Ok(updated) => print(&(text_of(&updated, args.json) + "\n"))?,
            Err(err) if err.is_already_applied() => {
                report_error(&err.into());
                return Ok(Answer::No);
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(Answer::Yes)
}

fn compact(args: &CompactArgs) -> anyhow::Result<Answer> {
    let updated = update::compact(&args.gallery, &args.gallery)?;
    print(&(text_of(&updated, args.json) + "\n"))?;
    Ok(Answer::Yes)
}

fn text_of(updated: &Updated, as_json: bool) -> String {
    let content = updated.content;
    if as_json {
        return json!({
            "schema": "eyas.gallery-update/1",
            "content": content.map(|content| content.to_string()),
            "n_images": updated.n_rows - updated.n_removed,
            "n_removed": updated.n_removed,
            "bytes_before": updated.bytes_before,
            "bytes": updated.bytes,
        })
        .to_string();
    }
    format!(
        "gallery of {} images and {} removed rows, {} (was {}), content {}",
        updated.n_rows - updated.n_removed,
        updated.n_removed,
        human_bytes(updated.bytes),
        human_bytes(updated.bytes_before),
        content.map_or_else(String::new, |content| content.short())
    )
}

fn verify(args: &VerifyArgs) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let path = args.gallery.display();
    match Gallery::open(file.bytes()).and_then(|gallery| gallery.verify().map(|()| gallery)) {
        Ok(gallery) => {
            print(&format!(
                "`{path}` is whole: {} images\n",
                gallery.n_images()
            ))?;
            Ok(Answer::Yes)
        }
        Err(err) => {
            report_error(&anyhow::Error::from(err).context(format!("`{path}`")));
            Ok(Answer::No)
        }
    }
}
