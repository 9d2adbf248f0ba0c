//! `eyas gallery compact`: removed rows vanish.

use std::path::PathBuf;

use eyas_device::store::MappedFile;
use eyas_device::update;

use super::report::Report;
use super::{Answer, say};

/// Drop the rows that deltas removed.
///
/// The gallery holds the same afterwards, so the next delta still applies. A gallery of an
/// older format version is written in the newest.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas gallery compact shop.gallery")]
pub(in crate::cli) struct Args {
    /// Gallery file.
    gallery: PathBuf,
    /// Write the new gallery here and leave the old one.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let before = file.bytes().len();
    let out = args.out.as_ref().unwrap_or(&args.gallery);
    if args.out.is_some() || !update::is_compact(&file.gallery()?) {
        update::compact(&args.gallery, out)?;
    }
    let report = Report::of_file(out)?.with("bytes_before", before);
    if !args.json {
        say(&format!("{before} bytes before"));
    }
    report.show(args.json);
    Ok(Answer::Yes)
}
