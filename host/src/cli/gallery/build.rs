//! `eyas gallery build`: images in, a gallery out.

use std::path::PathBuf;

use eyas_shared::gallery::{Codes, Fresh, GallerySource, Plan};

use super::embed::EmbedArgs;
use super::report::Report;
use super::{Answer, CodesArgs, write_plan};
use crate::gallery;

/// Embed images and lay them out as a gallery.
///
/// Without --for and --codes, rows are stored as int8 codes, which are scanned, and f16, which
/// score what the scan found. The recall that is told compares the written file with exact f32
/// scores: some of its own images ask, and are left out of the answer.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas gallery build --teacher photos.teacher --data photos --cache cache --out photos.gallery
  eyas gallery build --teacher photos.teacher --data photos --for serial --out board.gallery
  eyas gallery build --bundle student.bundle --data photos --thumbnails 96 --out own.gallery")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    embed: EmbedArgs,
    #[command(flatten)]
    codes: CodesArgs,
    /// Gallery file to write.
    #[arg(long)]
    out: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let embedded = args.embed.embed()?;
    let entries = gallery::entries_of(&embedded.manifest);
    let source = GallerySource {
        space: embedded.space,
        teacher: embedded.embedder.clone(),
        manifest: embedded.manifest.fingerprint(),
        codes: args.codes.chosen().unwrap_or(Codes::INT8_F16),
    };
    let records = Fresh {
        rows: &embedded.rows,
        entries: &entries,
        thumbnails: &embedded.thumbnails,
    };
    write_plan(&Plan::new(&source, &records)?, &args.out)?;
    Report::measured(&args.out, &embedded.rows)?.show(args.json);
    embedded.complain()?;
    Ok(Answer::Yes)
}
