//! `eyas gallery inspect`: what a gallery or a delta is.

use std::path::PathBuf;

use anyhow::Context;
use eyas_device::store::MappedFile;
use eyas_shared::container::{ContainerError, Kind};
use eyas_shared::gallery::delta::Delta;
use eyas_shared::gallery::{Gallery, GalleryError};
use serde_json::json;

use super::report::{Report, delta_json, delta_line};
use super::{Answer, say};

/// Show what a gallery or a delta is.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas gallery inspect photos.gallery
  eyas gallery inspect photos.gallery --rows --json | jq .rows[0].id
  eyas gallery inspect week-47.delta")]
pub(in crate::cli) struct Args {
    /// Gallery or delta file.
    gallery: PathBuf,
    /// Also list every image, with its identity.
    #[arg(long)]
    rows: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let is_delta = matches!(
        Gallery::open(file.bytes()).err(),
        Some(GalleryError::Container(ContainerError::OtherKind {
            found: Kind::Delta,
            ..
        }))
    );
    if is_delta {
        return inspect_delta(args, &file);
    }
    let gallery = file.gallery()?;
    let report = Report::of_file(&args.gallery)?;
    if args.json {
        let report = if args.rows {
            report.with("rows", rows_of(&gallery))
        } else {
            report
        };
        report.show(true);
        return Ok(Answer::Yes);
    }
    report.show(false);
    for (label, n_images) in images_of_labels(&gallery) {
        say(&format!("  {n_images:6} {label}"));
    }
    if args.rows {
        for row in 0..gallery.n_rows() {
            say(&row_line(&gallery, row));
        }
    }
    Ok(Answer::Yes)
}

fn inspect_delta(args: &Args, file: &MappedFile) -> anyhow::Result<Answer> {
    let path = &args.gallery;
    let delta = Delta::read(file.bytes()).with_context(|| format!("delta `{}`", path.display()))?;
    let added = delta.added().map(rows_of);
    let removed: Vec<String> = delta.removed().map(|id| id.to_string()).collect();
    if args.json {
        let mut object = delta_json(&delta, file.bytes().len() as u64, path);
        if let (true, Some(object)) = (args.rows, object.as_object_mut()) {
            object.insert("removed".to_owned(), json!(removed));
            object.insert("added".to_owned(), json!(added));
        }
        say(&object.to_string());
        return Ok(Answer::Yes);
    }
    say(&delta_line(file.bytes(), path));
    if args.rows {
        removed.iter().for_each(|id| say(&format!("  - {id}")));
        let added = delta.added();
        for row in 0..added.map_or(0, Gallery::n_rows) {
            let line = added.map(|added| row_line(added, row)).unwrap_or_default();
            say(&format!("  +{line}"));
        }
    }
    Ok(Answer::Yes)
}

fn rows_of(gallery: &Gallery<'_>) -> Vec<serde_json::Value> {
    let row = |row: u32| {
        let entry = gallery.entry(row);
        json!({
            "row": row,
            "id": gallery.id(row).to_string(),
            "label": entry.map(|entry| entry.label),
            "name": entry.map(|entry| entry.name),
            "is_removed": gallery.is_removed(row),
            "thumbnail_bytes": gallery.thumbnail(row).map_or(0, <[u8]>::len),
        })
    };
    (0..gallery.n_rows()).map(row).collect()
}

fn row_line(gallery: &Gallery<'_>, row: u32) -> String {
    let removed = if gallery.is_removed(row) {
        " (removed)"
    } else {
        ""
    };
    match gallery.entry(row) {
        None => format!("  row {row}: damaged"),
        Some(entry) => format!("  {} {} {}{removed}", entry.id, entry.label, entry.name),
    }
}

/// How many images that can be found each label has.
fn images_of_labels<'g>(gallery: &Gallery<'g>) -> Vec<(&'g str, usize)> {
    let mut counts = vec![0; gallery.header.n_labels as usize];
    for row in (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row)) {
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
