//! `eyas losses`: what each loss is, and whether it does what its authors' code does.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::loss_cost as cost;
use super::{Answer, say};
use crate::recipe::loss::{CATALOG, Description};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Explain every loss: formula, source, published settings, whether it aligns.
    List(ListArgs),
    /// Run losses and metrics on stored inputs and compare with stored values and
    /// gradients, in f64 and f32; exit code 1 if any differs or has no arrays.
    Check(CheckArgs),
    Cost(cost::Args),
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas losses list
  eyas losses list relaxed-contrastive")]
pub(super) struct ListArgs {
    /// Only this loss.
    kind: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas losses check ../shared/golden")]
pub(super) struct CheckArgs {
    /// Folder with an index.json and the .npz files that it names.
    folder: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::List(args) => list(&args),
        Command::Check(args) => check(&args),
        Command::Cost(args) => cost::run(&args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<Answer> {
    let wanted = |entry: &&Description| args.kind.as_deref().is_none_or(|kind| kind == entry.kind);
    let entries: Vec<&Description> = CATALOG.iter().filter(wanted).collect();
    if entries.is_empty() {
        let kinds: Vec<&str> = CATALOG.iter().map(|entry| entry.kind).collect();
        let asked = args.kind.as_deref().unwrap_or_default();
        bail!("there is no loss `{asked}`; there are {}", kinds.join(", "));
    }
    if args.json {
        let losses: Vec<_> = entries.iter().map(|entry| as_json(entry)).collect();
        say(&json!({ "schema": "eyas.losses/1", "losses": losses }).to_string());
        return Ok(Answer::Yes);
    }
    for (position, entry) in entries.iter().enumerate() {
        if position > 0 {
            say("");
        }
        say(&format!("{}: {}", entry.kind, entry.summary));
        say(&format!("  formula  {}", entry.formula));
        say(&format!("  source   {}", entry.source));
        say(&format!("  recipe   {}", entry.example));
        say(&format!("  aligns   {}", aligns_in_words(entry)));
    }
    Ok(Answer::Yes)
}

fn aligns_in_words(entry: &Description) -> &'static str {
    let loss = entry.term().loss;
    match (loss.settings().needs_teacher(), loss.settings().aligns()) {
        (_, true) => "yes: the student lands in the teacher's space",
        (true, false) => "no: relational; set map to ridge or procrustes, or add one that does",
        (false, false) => "no: learns from labels alone; for teachers, or beside one that does",
    }
}

fn as_json(entry: &Description) -> serde_json::Value {
    let loss = entry.term().loss;
    json!({
        "kind": entry.kind,
        "summary": entry.summary,
        "formula": entry.formula,
        "source": entry.source,
        "example": entry.example,
        "needs_teacher": loss.settings().needs_teacher(),
        "aligns": loss.settings().aligns(),
    })
}

#[cfg(not(feature = "torch"))]
fn check(_args: &CheckArgs) -> anyhow::Result<Answer> {
    bail!("this build has no libtorch; rebuild with the `torch` feature to check losses")
}

#[cfg(feature = "torch")]
fn check(args: &CheckArgs) -> anyhow::Result<Answer> {
    let report = crate::learn::golden::check(&args.folder)?;
    let (n_failed, n_unknown) = (report.failed.len(), report.not_implemented.len());
    if args.json {
        let object = json!({
            "schema": "eyas.losses-check/1",
            "passed": report.n_passed,
            "failed": report.failed,
            "not_implemented": report.not_implemented,
        });
        say(&object.to_string());
    } else {
        for line in report.not_implemented.iter().chain(&report.failed) {
            say(line);
        }
        let n_passed = report.n_passed;
        say(&format!(
            "{n_passed} passed, {n_failed} failed, {n_unknown} not implemented"
        ));
    }
    Ok(if n_failed == 0 {
        Answer::Yes
    } else {
        Answer::No
    })
}
