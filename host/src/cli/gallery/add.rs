//! `eyas gallery add`: more images into a gallery.

use std::collections::HashMap;

use anyhow::bail;
use eyas_device::store::MappedFile;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::{Fresh, Gallery, GallerySource, Picked, Plan};

use super::embed::{EmbedArgs, Embedded};
use super::{Answer, ChangeArgs, note, say};
use crate::gallery::{self, merge};

/// Embed images and put them into a gallery.
///
/// The gallery is replaced by the larger one; --out writes it elsewhere, --delta also keeps
/// what changed, for the boards. Images that are already there with the same label stay as
/// they are. The teacher, or student, must be the one that embedded the gallery.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas gallery add shop.gallery --teacher photos.teacher --data new --delta week-47.delta
  eyas gallery add shop.gallery --teacher photos.teacher --data corrected --replace")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    embed: EmbedArgs,
    /// Images that are there with another label get the new one.
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.change.gallery)?;
    let old = file.verified_gallery()?;
    let mut embedded = args.embed.embed()?;
    check_space(args, &old, &embedded)?;
    if old.has_thumbnails() && !args.embed.wants_thumbnails() {
        note("the gallery has thumbnails, the new images get none: --thumbnails makes them");
    }
    let replaced = leave_out_known(&old, &mut embedded, args.replace)?;
    if embedded.manifest.images.is_empty() {
        say("nothing to add: every image is in the gallery");
        embedded.complain()?;
        return Ok(Answer::Yes);
    }
    let entries = gallery::entries_of(&embedded.manifest);
    let source = GallerySource {
        manifest: merge::manifest_of([old.header.manifest, embedded.manifest.fingerprint()]),
        ..GallerySource::of(&old)
    };
    let fresh = Fresh {
        rows: &embedded.rows,
        entries: &entries,
        thumbnails: &embedded.thumbnails,
    };
    let fresh = Plan::new(&source, &fresh)?.to_bytes();
    let fresh = Gallery::open(&fresh)?;
    let kept = Picked::of(vec![&old], |_, row| !replaced.contains(&row));
    let records = kept.chain(Picked::all(&fresh));
    args.change.write(&old, &Plan::new(&source, &records)?)?;
    embedded.complain()?;
    Ok(Answer::Yes)
}

fn check_space(args: &Args, old: &Gallery<'_>, embedded: &Embedded) -> anyhow::Result<()> {
    if embedded.space == old.header.space && embedded.rows.dim() == old.dim() {
        return Ok(());
    }
    bail!(
        "`{}` was embedded by `{}` (space {}), the new images by `{}` (space {})",
        args.change.gallery.display(),
        old.header.teacher,
        old.header.space,
        embedded.embedder,
        embedded.space
    )
}

/// Leaves out images that the gallery holds already; gives the rows that are replaced.
fn leave_out_known(
    old: &Gallery<'_>,
    embedded: &mut Embedded,
    replace: bool,
) -> anyhow::Result<Vec<u32>> {
    let live = (0..old.n_rows()).filter(|row| !old.is_removed(*row));
    let row_of: HashMap<ImageId, u32> = live.map(|row| (old.id(row), row)).collect();
    let mut replaced = Vec::new();
    let mut is_new = Vec::new();
    for image in &embedded.manifest.images {
        let known = row_of.get(&image.id).copied();
        let label = known
            .and_then(|row| old.entry(row))
            .map(|entry| entry.label);
        is_new.push(match (known, label) {
            (Some(_), Some(label)) if label == image.label => {
                note(&format!("already in the gallery: `{}`", image.path));
                false
            }
            (Some(row), _) if replace => {
                replaced.push(row);
                true
            }
            (Some(_), label) => bail!(
                "`{}` is in the gallery with the label `{}`, not `{}`; --replace gives it the \
                 new one",
                image.path,
                label.unwrap_or_default(),
                image.label
            ),
            (None, _) => true,
        });
    }
    keep(embedded, &is_new);
    Ok(replaced)
}

fn keep(embedded: &mut Embedded, is_kept: &[bool]) {
    let mut kept = is_kept.iter();
    embedded
        .manifest
        .images
        .retain(|_| kept.next() == Some(&true));
    if !embedded.thumbnails.is_empty() {
        let mut kept = is_kept.iter();
        embedded.thumbnails.retain(|_| kept.next() == Some(&true));
    }
    let mut rows = eyas_shared::embedding::Embeddings::new(embedded.rows.dim());
    for (row, is_kept) in embedded.rows.rows().zip(is_kept) {
        if *is_kept {
            rows.push(row);
        }
    }
    embedded.rows = rows;
}
