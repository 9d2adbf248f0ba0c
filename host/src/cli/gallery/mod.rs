//! `eyas gallery`: build galleries, change them, and see what they are. One file per
//! subcommand.

mod add;
mod apply;
mod build;
mod compact;
mod cut;
mod diff;
mod embed;
mod import;
mod inspect;
mod merge;
mod remove;
mod report;
mod thumbnail;
mod verify;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use eyas_shared::files::{self, FileError};
use eyas_shared::gallery::{Codes, Gallery, Plan, Records, delta};

use super::{Answer, Progress, note, say};
use crate::gallery::choose::{Choice, parse_id};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Embed images and lay them out as a gallery.
    Build(build::Args),
    /// Make a gallery of embeddings on disk, of any number.
    Import(import::Args),
    /// Embed images and put them into a gallery.
    Add(add::Args),
    /// Take images out of a gallery.
    Remove(remove::Args),
    /// Make the delta that turns one gallery into another.
    Diff(diff::Args),
    /// Apply deltas to a gallery, one after the other.
    Apply(apply::Args),
    /// Drop the rows that deltas removed.
    Compact(compact::Args),
    /// Put several galleries of one teacher together.
    Merge(merge::Args),
    /// Take a part of a gallery, or store it in other codes.
    Cut(cut::Args),
    /// Show what a gallery or a delta is.
    Inspect(inspect::Args),
    /// Write the small picture of an image to a file.
    Thumbnail(thumbnail::Args),
    /// Read every byte of a gallery; exit code 1 if it is damaged.
    Verify(verify::Args),
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Build(args) => build::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Add(args) => add::run(&args),
        Command::Remove(args) => remove::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Apply(args) => apply::run(&args),
        Command::Compact(args) => compact::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Cut(args) => cut::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Thumbnail(args) => thumbnail::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}

/// What a gallery is for.
#[derive(Clone, Copy, ValueEnum)]
enum Purpose {
    /// A serial cable: the smallest that answers alone (int8).
    Serial,
    /// Fast answers among very many rows (int2,f16).
    Speed,
    /// Exact scores (f32).
    Exact,
}

impl Purpose {
    fn codes(self) -> Codes {
        match self {
            Self::Serial => Codes::INT8,
            Self::Speed => Codes::INT2_F16,
            Self::Exact => Codes::F32,
        }
    }
}

/// How rows are stored: chosen by aim or by name.
#[derive(clap::Args)]
struct CodesArgs {
    /// Choose codes by what the gallery is for.
    #[arg(long = "for", value_enum, value_name = "AIM", conflicts_with = "codes")]
    purpose: Option<Purpose>,
    /// How rows are stored: a list of int2, int8, f16, f32.
    #[arg(long, value_name = "CODES", value_parser = Codes::from_str)]
    codes: Option<Codes>,
}

impl CodesArgs {
    fn chosen(&self) -> Option<Codes> {
        self.purpose.map(Purpose::codes).or(self.codes)
    }
}

/// Which images of a gallery are meant.
#[derive(clap::Args)]
struct ChoiceArgs {
    /// Images with this label; may be given several times.
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// The image of this name, as `inspect --rows` shows it; may be given several times.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// The image of this identity; may be given several times.
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Identities, one a line.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

/// Largest list of identities that is read.
const MAX_LIST_BYTES: u64 = 1 << 30;

impl ChoiceArgs {
    fn choice(&self) -> anyhow::Result<Choice> {
        let mut ids = Vec::new();
        for id in &self.id {
            ids.push(parse_id(id).map_err(|problem| anyhow::anyhow!("--id: {problem}"))?);
        }
        if let Some(path) = &self.ids {
            let bytes = files::read(path, MAX_LIST_BYTES)?;
            for (number, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
                if !line.trim().is_empty() {
                    let path = path.display();
                    ids.push(parse_id(line.trim()).map_err(|problem| {
                        anyhow::anyhow!("`{path}`, line {}: {problem}", number + 1)
                    })?);
                }
            }
        }
        Ok(Choice {
            labels: self.label.clone(),
            names: self.name.clone(),
            ids,
        })
    }
}

/// Where a changed gallery goes.
#[derive(clap::Args)]
struct ChangeArgs {
    /// Gallery file; it is replaced when the new one is whole, unless --out is given.
    gallery: PathBuf,
    /// Write the new gallery here and leave the old one.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write the delta that turns the old gallery into the new one, for boards that
    /// hold the old one.
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl ChangeArgs {
    /// Writes what the gallery became; the delta first, so that a gallery that was replaced
    /// always has its delta.
    fn write(&self, old: &Gallery<'_>, plan: &Plan<'_, impl Records>) -> anyhow::Result<()> {
        let out = self.out.as_ref().unwrap_or(&self.gallery);
        let new = plan.to_bytes();
        if let Some(path) = &self.delta {
            let delta = delta::between(old, &Gallery::open(&new)?)?;
            files::replace(path, &delta)?;
            if !self.json {
                say(&report::delta_line(&delta, path));
            }
        }
        files::replace(out, &new)?;
        report::Report::of_file(out)?.show(self.json);
        Ok(())
    }
}

/// Writes a gallery, a section at a time.
fn write_plan(plan: &Plan<'_, impl Records>, out: &Path) -> Result<(), FileError> {
    files::replace_with(out, |file| plan.write(file))
}
