//! `eyas gallery merge`: several galleries as one.

use std::path::PathBuf;

use anyhow::Context;
use eyas_device::store::MappedFile;
use eyas_shared::gallery::{Gallery, GallerySource, Plan, Records};

use super::report::Report;
use super::{Answer, CodesArgs, note, write_plan};
use crate::gallery::merge::{self, MergeError};

/// Put several galleries of one teacher together.
///
/// An image that several of them hold with equal records is kept once; with different ones it
/// is an error. Galleries of the same codes keep their stored bytes; others are stored in the
/// codes of the first, unless --for or --codes says otherwise.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas gallery merge drinks.gallery sweets.gallery --out shop.gallery")]
pub(in crate::cli) struct Args {
    /// Gallery files.
    #[arg(required = true, num_args = 2.., value_name = "GALLERY")]
    galleries: Vec<PathBuf>,
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
    let mut opened = Vec::new();
    for path in &args.galleries {
        opened.push(MappedFile::open(path)?);
    }
    let mut galleries: Vec<Gallery<'_>> = Vec::new();
    for file in &opened {
        galleries.push(file.verified_gallery()?);
    }
    let codes = args.codes.chosen().unwrap_or(galleries[0].codes());
    let named = |err: MergeError| {
        let both = err.galleries().map_or_else(String::new, |(first, other)| {
            let path = |number: usize| args.galleries[number].display();
            format!("can not merge `{}` and `{}`", path(first), path(other))
        });
        anyhow::Error::from(err).context(both)
    };
    let records = merge::merge(&galleries, codes).map_err(named)?;
    let n_images: u32 = galleries.iter().map(Gallery::n_images).sum();
    let n_repeated = n_images as usize - records.n_records();
    if n_repeated > 0 {
        note(&format!("{n_repeated} records were there already"));
    }
    let manifests = galleries.iter().map(|gallery| gallery.header.manifest);
    let source = GallerySource {
        manifest: merge::manifest_of(manifests),
        codes,
        ..GallerySource::of(&galleries[0])
    };
    let plan = Plan::new(&source, &records).context("merging")?;
    write_plan(&plan, &args.out)?;
    Report::of_file(&args.out)?
        .with("n_repeated", n_repeated)
        .show(args.json);
    Ok(Answer::Yes)
}
