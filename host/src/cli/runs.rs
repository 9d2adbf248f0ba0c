//! `eyas runs`: what run directories hold, as text or JSON.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};

use super::{Answer, say};
use crate::runs::run::differences;
use crate::runs::{EpochMetrics, Run, find};

/// Most lines of a curve; a longer run shows every n-th epoch.
const CURVE_LINES: usize = 25;

/// Width of a curve's bar, in characters.
const CURVE_WIDTH: usize = 40;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the runs in folders and below.
    List(ListArgs),
    /// Show one run: what was trained, its curve, its files.
    Show(ShowArgs),
    /// Compare two runs: where their recipes differ, and what came of it.
    Compare(CompareArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas runs list runs sweeps/grocery")]
pub(super) struct ListArgs {
    /// Folders to look in.
    #[arg(default_value = "runs")]
    folders: Vec<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas runs show runs/shelf")]
pub(super) struct ShowArgs {
    /// Run directory.
    run: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas runs compare runs/reg runs/rc")]
pub(super) struct CompareArgs {
    /// Run directory.
    a: PathBuf,
    /// Another one.
    b: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::List(args) => list(&args),
        Command::Show(args) => show(&args),
        Command::Compare(args) => compare(&args),
    }
}

fn open(folder: &Path) -> anyhow::Result<Run> {
    match Run::open(folder)? {
        Some(run) => Ok(run),
        None => bail!(
            "`{}` is no run directory: it lacks a readable `recipe.toml` or `metrics.jsonl`",
            folder.display()
        ),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<Answer> {
    let mut runs = Vec::new();
    for folder in &args.folders {
        runs.extend(find(folder)?);
    }
    if args.json {
        let runs: Vec<Value> = runs.iter().map(facts_json).collect();
        say(&json!({ "schema": "eyas.runs/1", "runs": runs }).to_string());
        return Ok(Answer::Yes);
    }
    let header = [
        "state", "epochs", "last", "best", "seed", "recipe", "loss", "run",
    ];
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(runs.iter().map(line));
    for line in aligned(&lines) {
        say(&line);
    }
    say(&format!(
        "{} runs; last and best: recall_at_1 on the held-out part",
        runs.len()
    ));
    Ok(Answer::Yes)
}

fn line(run: &Run) -> [String; 8] {
    let best = run
        .best_epoch()
        .and_then(|best| best.validation_recall_at_1);
    [
        run.state.to_string(),
        epochs(run),
        shown(run.last_recall()),
        shown(best),
        or_dash(run.seed()),
        run.name().to_owned(),
        run.loss(),
        run.folder.display().to_string(),
    ]
}

/// Columns padded to their widest entry; the last one is not.
pub(super) fn aligned<const N: usize>(lines: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let pad = |line: &[String; N]| {
        let cells = line.iter().zip(&widths);
        let text: Vec<String> = cells
            .map(|(text, width)| format!("{text:width$}"))
            .collect();
        text.join("  ").trim_end().to_owned()
    };
    lines.iter().map(pad).collect()
}

fn show(args: &ShowArgs) -> anyhow::Result<Answer> {
    let run = open(&args.run)?;
    let files = files_of(&run.folder)?;
    if args.json {
        let mut object = facts_json(&run);
        object["schema"] = "eyas.run/1".into();
        object["recipe"] = serde_json::to_value(&run.recipe)?;
        object["curve"] = run.epochs.iter().map(|epoch| json!(epoch)).collect();
        let files = files
            .iter()
            .map(|(name, bytes)| json!({ "name": name, "bytes": bytes }));
        object["files"] = files.collect();
        say(&object.to_string());
        return Ok(Answer::Yes);
    }
    say(&format!("{:8} {}", "run", run.folder.display()));
    say(&format!(
        "{:8} {}, {} epochs",
        "state",
        run.state,
        epochs(&run)
    ));
    say(&format!("{:8} {}", "loss", run.loss()));
    for (name, value) in &run.facts {
        say(&format!("{name:8} {value}"));
    }
    for line in curve(&run.epochs) {
        say(&line);
    }
    for (name, bytes) in files {
        say(&format!("{bytes:>12} bytes  {name}"));
    }
    Ok(Answer::Yes)
}

/// Name and size of the files in a run directory, sorted.
fn files_of(folder: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                metadata.len(),
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// Loss by epoch as bars from 0, with the recall on the held-out part.
fn curve(epochs: &[EpochMetrics]) -> Vec<String> {
    let Some(last) = epochs.last() else {
        return Vec::new();
    };
    let every = epochs.len().div_ceil(CURVE_LINES);
    let highest = epochs.iter().map(|epoch| epoch.loss).fold(0.0, f64::max);
    let mut lines = vec![format!(
        "{:>6}  {:>10}  {:>10}",
        "epoch", "loss", "recall_at_1"
    )];
    for epoch in epochs {
        if !epoch.epoch.is_multiple_of(every) && epoch != last {
            continue;
        }
        let share = if highest > 0.0 {
            epoch.loss / highest
        } else {
            0.0
        };
        let length = (share.clamp(0.0, 1.0) * CURVE_WIDTH as f64).round() as usize;
        lines.push(format!(
            "{:>6}  {:>10.5}  {:>11}  {}",
            epoch.epoch,
            epoch.loss,
            shown(epoch.validation_recall_at_1),
            "#".repeat(length)
        ));
    }
    lines
}

fn compare(args: &CompareArgs) -> anyhow::Result<Answer> {
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    let differences = differences(&a.recipe, &b.recipe);
    if args.json {
        let keys: Vec<Value> = differences
            .iter()
            .map(|(key, a, b)| json!({ "key": key, "a": a, "b": b }))
            .collect();
        let object = json!({
            "schema": "eyas.runs-compared/1",
            "a": facts_json(&a),
            "b": facts_json(&b),
            "recipe": keys,
        });
        say(&object.to_string());
        return Ok(Answer::Yes);
    }
    let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![["".to_owned(), "a".to_owned(), "b".to_owned()]];
    let both = |name: &str, of: &dyn Fn(&Run) -> String| [name.to_owned(), of(&a), of(&b)];
    lines.push(both("run", &|run| run.folder.display().to_string()));
    lines.push(both("state", &|run| run.state.to_string()));
    lines.push(both("epochs", &epochs));
    lines.push(both("loss, last", &|run| {
        shown(run.epochs.last().map(|epoch| epoch.loss))
    }));
    lines.push(both("recall_at_1, last", &|run| shown(run.last_recall())));
    lines.push(both("recall_at_1, best", &|run| {
        let best = run.best_epoch();
        best.map_or("-".to_owned(), |best| {
            format!(
                "{} (epoch {})",
                shown(best.validation_recall_at_1),
                best.epoch
            )
        })
    }));
    lines.push(both("seconds", &|run| {
        let seconds: f64 = run.epochs.iter().map(|epoch| epoch.seconds).sum();
        format!("{seconds:.0}")
    }));
    for (key, a, b) in &differences {
        lines.push([key.clone(), dash(a), dash(b)]);
    }
    for line in aligned(&lines) {
        say(&line);
    }
    if differences.is_empty() {
        say("the recipes are the same");
    }
    Ok(Answer::Yes)
}

fn facts_json(run: &Run) -> Value {
    let best = run.best_epoch();
    let facts: serde_json::Map<String, Value> = run
        .facts
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    json!({
        "run": run.folder.display().to_string(),
        "name": run.name(),
        "seed": run.seed(),
        "loss": run.loss(),
        "state": run.state.to_string(),
        "epochs_done": run.epochs.last().map_or(0, |epoch| epoch.epoch),
        "epochs": run.n_epochs(),
        "last_loss": run.epochs.last().map(|epoch| epoch.loss),
        "last_validation_recall_at_1": run.last_recall(),
        "best_validation_recall_at_1": best.and_then(|best| best.validation_recall_at_1),
        "best_epoch": best.map(|best| best.epoch),
        "facts": facts,
    })
}

/// Such as `3/10`.
fn epochs(run: &Run) -> String {
    let done = run.epochs.last().map_or(0, |epoch| epoch.epoch);
    format!("{done}/{}", or_dash(run.n_epochs()))
}

fn shown(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

fn or_dash(value: Option<i64>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
