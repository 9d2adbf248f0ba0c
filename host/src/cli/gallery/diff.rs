//! `eyas gallery diff`: what turns one gallery into another.

use std::path::PathBuf;

use anyhow::Context;
use eyas_device::store::MappedFile;
use eyas_shared::files;
use eyas_shared::gallery::delta::{self, Delta, DeltaError};

use super::report::{delta_json, delta_line};
use super::{Answer, note, say};

/// Make the delta that turns one gallery into another.
///
/// It holds the records that are new or changed, and the identities of those that go, whatever
/// the order of rows. Exit code 1, and no file, if the galleries hold the same.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas gallery diff week-46.gallery week-47.gallery --out week-47.delta")]
pub(in crate::cli) struct Args {
    /// Gallery that the boards have.
    old: PathBuf,
    /// Gallery that they are to have.
    new: PathBuf,
    /// Delta file to write.
    #[arg(long)]
    out: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let (old_file, new_file) = (MappedFile::open(&args.old)?, MappedFile::open(&args.new)?);
    let (old, new) = (old_file.verified_gallery()?, new_file.verified_gallery()?);
    let bytes = match delta::between(&old, &new) {
        Ok(bytes) => bytes,
        Err(err @ DeltaError::NoDifference { .. }) => {
            note(&format!("no delta is written: {err}"));
            return Ok(Answer::No);
        }
        Err(err) => {
            let (old, new) = (args.old.display(), args.new.display());
            return Err(err).with_context(|| {
                format!("no delta leads from `{old}` (the gallery) to `{new}` (the delta)")
            });
        }
    };
    files::replace(&args.out, &bytes)?;
    if args.json {
        let delta = Delta::read(&bytes)?;
        say(&delta_json(&delta, bytes.len() as u64, &args.out).to_string());
    } else {
        say(&delta_line(&bytes, &args.out));
    }
    Ok(Answer::Yes)
}
