//! `eyas gallery apply`: bring a gallery up to date as a board does.

use std::path::PathBuf;

use eyas_device::hints::chain_of;
use eyas_device::update;

use super::report::Report;
use super::{Answer, note};

/// Apply deltas to a gallery, one after the other, as a board does.
///
/// The gallery is replaced when the new one is whole and on disk: readers find the old one or
/// the new one. A delta that was already applied, belongs to another gallery or is damaged
/// changes nothing. Exit code 1 if the only fault is that it was already applied.
///
/// Images that go stay in the file as removed rows, which are never found, until more than a
/// quarter of the rows are such.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas gallery apply shop.gallery week-46.delta week-47.delta")]
pub(in crate::cli) struct Args {
    /// Gallery file.
    gallery: PathBuf,
    /// Delta files, the oldest first.
    #[arg(required = true, value_name = "DELTA")]
    deltas: Vec<PathBuf>,
    /// Write the new gallery here and leave the old one.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Drop removed rows at once.
    #[arg(long)]
    compact: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let out = args.out.as_ref().unwrap_or(&args.gallery);
    let mut gallery = &args.gallery;
    for delta in &args.deltas {
        match update::apply(gallery, delta, out, args.compact) {
            Ok(_) => gallery = out,
            Err(err) if err.is_already_applied() => {
                note(&chain_of(&err));
                return Ok(Answer::No);
            }
            Err(err) => return Err(err.into()),
        }
    }
    Report::of_file(out)?.show(args.json);
    Ok(Answer::Yes)
}
