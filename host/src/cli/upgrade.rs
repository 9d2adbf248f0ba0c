//! `eyas upgrade check`: may a new student take an old one's place?

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::store::{GalleryCheck, Store};
use eyas_shared::fingerprint::ImageId;
use serde_json::json;

use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::Manifest;
use crate::embeddings::cache::Fault;
use crate::embeddings::{EmbeddedImages, images};
use crate::evaluate::{self, Retrieval};
use crate::upgrade::Comparison;

/// Lost queries that are shown by name.
const N_SHOWN: usize = 10;

/// Decide about a new student before it goes on boards.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Compare a new student with the old one on the same gallery.
    Check(Args),
}

/// Compare a new student with the old one on the same gallery.
///
/// Both are asked all queries of the data, through the device library. The answer is no (exit
/// code 1) if recall_at_1 falls by more than --max-drop, or more queries than --max-flips
/// allows were right before and are wrong now.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas upgrade check old.bundle new.bundle --gallery shop.gallery --manifest photos.csv")]
pub(super) struct Args {
    /// The student that is on the boards.
    old: PathBuf,
    /// The student that is to take its place.
    new: PathBuf,
    /// The gallery that both search.
    #[arg(long)]
    gallery: PathBuf,
    /// Folder or CSV list of labelled images.
    #[arg(long)]
    manifest: PathBuf,
    /// Images of this split ask; those with the query role if not given.
    #[arg(long)]
    split: Option<String>,
    /// How much recall_at_1 may fall.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    max_drop: f64,
    /// Largest share of queries that may be right before and wrong now; any if not given.
    #[arg(long, value_name = "SHARE")]
    max_flips: Option<f64>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    let Command::Check(args) = command;
    let manifest = data::open(&args.manifest)?;
    let mut asked = evaluate::select_queries(&manifest, args.split.as_deref())
        .with_context(|| format!("data `{}`", args.manifest.display()))?;
    let (old, new) = (
        Asked::open(&args, &args.old)?,
        Asked::open(&args, &args.new)?,
    );
    let (of_old, mut faults) = old.embed("encoding with the old student", &asked);
    let (of_new, more) = new.embed("encoding with the new student", &asked);
    for fault in more {
        if faults.iter().all(|known| known.id != fault.id) {
            faults.push(fault);
        }
    }
    // Only queries that both have embedded can be compared.
    let has_both = |id: &ImageId| of_old.get(id).is_some() && of_new.get(id).is_some();
    asked.images.retain(|image| has_both(&image.id));
    let (old_found, new_found) = (old.score(&asked, &of_old)?, new.score(&asked, &of_new)?);
    let comparison = Comparison::of(&old_found, &new_found);
    if comparison.n_queries == 0 {
        bail!(
            "no query has an image of its label in the gallery `{}`",
            args.gallery.display()
        );
    }
    let is_good = comparison.drop() <= args.max_drop
        && args
            .max_flips
            .is_none_or(|most| comparison.flip_rate() <= most);
    if args.json {
        say(&as_json(&args, &comparison, &asked, is_good).to_string());
    } else {
        describe(&args, &comparison, &asked, is_good);
    }
    for fault in &faults {
        note(&format!("left out: {fault}"));
    }
    if !faults.is_empty() {
        bail!("{} images can not be read or embedded", faults.len());
    }
    Ok(if is_good { Answer::Yes } else { Answer::No })
}

/// A student beside the gallery.
struct Asked(Store);

impl Asked {
    fn open(args: &Args, bundle: &Path) -> anyhow::Result<Self> {
        Ok(Self(Store::open(
            bundle,
            &args.gallery,
            GalleryCheck::Whole,
        )?))
    }

    fn embed(&self, work: &str, asked: &Manifest) -> (EmbeddedImages, Vec<Fault>) {
        let progress = Progress::of_images(work, asked.images.len());
        images::encode_each(self.0.encoder(), asked, || progress.step())
    }

    fn score(&self, asked: &Manifest, embedded: &EmbeddedImages) -> anyhow::Result<Retrieval> {
        let queries = evaluate::queries_of(asked, embedded);
        Ok(evaluate::retrieval(&queries, &self.0.matcher()?)?)
    }
}

fn lost_paths<'a>(comparison: &'a Comparison, asked: &'a Manifest) -> Vec<String> {
    let path = |query_idx: &usize| asked.images[*query_idx].path.clone();
    comparison.lost.iter().map(path).collect()
}

fn as_json(
    args: &Args,
    comparison: &Comparison,
    asked: &Manifest,
    is_good: bool,
) -> serde_json::Value {
    json!({
        "schema": "eyas.upgrade/1",
        "old": args.old.display().to_string(),
        "new": args.new.display().to_string(),
        "gallery": args.gallery.display().to_string(),
        "n_queries": comparison.n_queries,
        "old_recall_at_1": comparison.old_recall_at_1(),
        "new_recall_at_1": comparison.new_recall_at_1(),
        "drop": comparison.drop(),
        "max_drop": args.max_drop,
        "n_lost": comparison.n_lost,
        "n_won": comparison.n_won,
        "flip_rate": comparison.flip_rate(),
        "max_flips": args.max_flips,
        "chance": comparison.chance(),
        "lost": lost_paths(comparison, asked),
        "upgrade": is_good,
    })
}

fn describe(args: &Args, comparison: &Comparison, asked: &Manifest, is_good: bool) {
    let n = comparison.n_queries;
    say(&format!("{n} queries with something to find"));
    say(&format!(
        "old recall_at_1  {:.4}",
        comparison.old_recall_at_1()
    ));
    say(&format!(
        "new recall_at_1  {:.4}",
        comparison.new_recall_at_1()
    ));
    say(&format!(
        "right before, wrong now  {} (flip rate {:.4})",
        comparison.n_lost,
        comparison.flip_rate()
    ));
    say(&format!("wrong before, right now  {}", comparison.n_won));
    say(&format!(
        "two equally good students differ as much with probability {:.3}",
        comparison.chance()
    ));
    let lost = lost_paths(comparison, asked);
    for path in lost.iter().take(N_SHOWN) {
        say(&format!("lost: {path}"));
    }
    if lost.len() > N_SHOWN {
        say(&format!(
            "and {} more; --json lists them",
            lost.len() - N_SHOWN
        ));
    }
    let most = match args.max_flips {
        Some(most) => format!("a drop of {} and a flip rate of {most}", args.max_drop),
        None => format!("a drop of {}", args.max_drop),
    };
    let verdict = if is_good { "may" } else { "may NOT" };
    say(&format!(
        "the new student {verdict} take the old one's place; allowed: {most}"
    ));
}
