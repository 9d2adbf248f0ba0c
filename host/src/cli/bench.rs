//! `eyas bench`: students on a board, measured over the link.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;

use super::board::BoardArgs;
use super::{Answer, Progress, note, say};
use crate::bench::plan::Plan;
use crate::bench::results::{Cell, RESULTS_FILE, Results};
use crate::bench::run::{self, Event, Start};
use crate::bench::{energy, session};

/// Measure students on a board: how quick, how often right, how much memory.
///
/// The plan names the board, the images that ask, students, galleries and numbers of threads;
/// each combination is a cell. Every window runs in a process of its own on the board, the
/// cells in another random order in each round. What the board says is kept in a session's
/// folder, from which the results can be computed again at any time.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas bench board.toml
  eyas bench board.toml --students small,large --port /dev/ttyUSB0
  eyas bench board.toml --resume sessions/20261121_202824
  eyas bench --replay sessions/20261121_202824 --readings meter.csv

A plan:
  name = \"pi4\"
  board = { port = \"/dev/ttyUSB0\" }        # or stdio_command = \"ssh pi4 eyas-device serve --stdio\"
  queries = { manifest = \"photos\", split = \"query\" }
  threads = [1, 4]
  [students]
  small = [\"small-f16.bundle\", \"small-int8.bundle\"]
  [galleries]
  shop = \"shop.gallery\"

Left out, these are: mode = \"both\", seed = 0, top_k = 10, profile = false, and
  [performance]
  windows = 5          # of each cell
  at_least_s = 10.0    # each, and
  at_least = 10        # queries
  warm_up_s = 1.0
  images = 16          # asked in turn
  retries = 2          # of a window that was disturbed

Ends with 0, with 1 if something failed or a replay gives other results, else with 2.")]
pub(super) struct Args {
    /// What to measure.
    #[arg(required_unless_present = "replay")]
    plan: Option<PathBuf>,
    /// Only these students of the plan.
    #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',')]
    students: Vec<String>,
    /// Folder that the session's folder is made in.
    #[arg(long, value_name = "DIR", default_value = "sessions")]
    out: PathBuf,
    /// Go on with a session that was interrupted, or measure again what failed in it.
    #[arg(long, value_name = "SESSION")]
    resume: Option<PathBuf>,
    /// Measure nothing: compute the results of a session again from what the board said.
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["plan", "resume", "students"])]
    replay: Option<PathBuf>,
    /// Readings of a power meter for --replay: a CSV file with the columns unix_s and watts.
    #[arg(long, value_name = "FILE", requires = "replay")]
    readings: Option<PathBuf>,
    #[command(flatten)]
    board: BoardArgs,
    /// Print one JSON object instead of text: where the session is, and its results without
    /// single answers.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    if let Some(session) = &args.replay {
        return replay(session, args);
    }
    let path = args.plan.as_ref().context("no plan is given")?;
    let (mut plan, mut text) = Plan::read(path)?;
    choose(&mut plan, &args.students)?;
    if !args.students.is_empty() {
        text.push_str(&format!("# students: {}\n", args.students.join(",")));
    }
    let (address, options) = args.board.or(|| plan.address(), plan.options())?;
    let new = args.out.join(session::name_now());
    let folder = args.resume.as_ref().unwrap_or(&new);
    let mut progress: Option<Progress> = None;
    let mut tell = |event: Event<'_>| match event {
        Event::Note(text) => note(&format!("note: {text}")),
        Event::Begin(work, n) => {
            progress = None;
            progress = Some(Progress::new(work, n));
        }
        Event::Step => {
            if let Some(progress) = &progress {
                progress.step();
            }
        }
    };
    let start = Start {
        plan: &plan,
        text: &text,
        address: &address,
        options: &options,
        folder,
        resumes: args.resume.is_some(),
    };
    let outcome = run::run(&start, &mut tell);
    drop(progress);
    let results = outcome.inspect_err(|_| {
        if folder.join("catalog.json").exists() {
            let plan = path.display();
            let folder = folder.display();
            note(&format!(
                "note: what was measured is kept; go on with `eyas bench {plan} --resume {folder}`"
            ));
        }
    })?;
    show(folder, &results, args.json);
    Ok(answer(&results))
}

/// Leaves only some students in the plan.
fn choose(plan: &mut Plan, students: &[String]) -> anyhow::Result<()> {
    for name in students {
        if !plan.students.contains_key(name) {
            let known: Vec<&str> = plan.students.keys().map(String::as_str).collect();
            bail!(
                "the plan has no student `{name}`; it has {}",
                known.join(", ")
            );
        }
    }
    if !students.is_empty() {
        plan.students.retain(|name, _| students.contains(name));
    }
    Ok(())
}

fn answer(results: &Results) -> Answer {
    match results.has_failures() {
        true => Answer::No,
        false => Answer::Yes,
    }
}

fn replay(folder: &Path, args: &Args) -> anyhow::Result<Answer> {
    if let Some(readings) = &args.readings {
        energy::keep(readings, folder)?;
    }
    // As text: what is read from it may differ in the last bit of a number.
    let before = std::fs::read_to_string(folder.join(RESULTS_FILE));
    let results = session::write_results(folder)?;
    show(folder, &results, args.json);
    match before {
        Ok(before) if before != results.to_json() && args.readings.is_none() => {
            note("note: the results are not those that the session had");
            Ok(Answer::No)
        }
        _ => Ok(answer(&results)),
    }
}

fn show(folder: &Path, results: &Results, is_json: bool) {
    if is_json {
        say(&as_json(folder, results).to_string());
        return;
    }
    let width = { results.cells.iter() }
        .map(|cell| cell.key.len())
        .max()
        .unwrap_or(0);
    say(&format!(
        "{:width$}  recall_at_1             median       p95      q/s     memory     bundle  windows",
        "student/precision/threads/gallery"
    ));
    for cell in &results.cells {
        say(&line(cell, width));
        for failure in &cell.failures {
            say(&format!("{:width$}  failed: {failure}", ""));
        }
    }
    for incident in &results.incidents {
        say(&format!("incident  {incident}"));
    }
    let failed: usize = { results.cells.iter() }
        .filter_map(|cell| cell.accuracy.as_ref())
        .map(|accuracy| accuracy.failed.len())
        .sum();
    if failed > 0 {
        say(&format!("{failed} queries were not answered"));
    }
    say(&format!("session  {}", folder.display()));
}

fn line(cell: &Cell, width: usize) -> String {
    let accuracy = cell.accuracy.as_ref().map_or_else(
        || "-".to_owned(),
        |it| {
            let [low, high] = it.recall_at_1_interval;
            format!("{:.3} ({low:.3}-{high:.3})", it.recall_at_1)
        },
    );
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let performance = cell.performance.as_ref().map_or_else(
        || "-".to_owned(),
        |it| {
            let n = it.windows.len();
            format!(
                "{:7.2} ms {:6.2} ms {:8.1} {:7.1} MB {:7.2} MB  {} of {n} clean",
                it.median_ms,
                it.p95_ms,
                it.queries_per_second,
                megabytes(it.peak_bytes),
                megabytes(cell.bundle.bytes),
                it.n_clean,
            )
        },
    );
    format!("{:width$}  {accuracy:19}  {performance}", cell.key)
}

fn as_json(folder: &Path, results: &Results) -> serde_json::Value {
    let cells: Vec<_> = { results.cells.iter() }
        .map(|cell| {
            let performance = cell.performance.as_ref();
            let accuracy = cell.accuracy.as_ref();
            json!({
                "key": cell.key,
                "recall_at_1": accuracy.map(|it| it.recall_at_1),
                "recall_at_1_interval": accuracy.map(|it| it.recall_at_1_interval),
                "n": accuracy.map(|it| it.n),
                "n_failed": accuracy.map(|it| it.failed.len()),
                "min_cosine": accuracy.map(|it| it.agreement.min_cosine),
                "median_ms": performance.map(|it| it.median_ms),
                "p95_ms": performance.map(|it| it.p95_ms),
                "queries_per_second": performance.map(|it| it.queries_per_second),
                "peak_bytes": performance.map(|it| it.peak_bytes),
                "joules_per_query": performance.and_then(|it| it.joules_per_query),
                "n_windows": performance.map(|it| it.windows.len()),
                "n_clean": performance.map(|it| it.n_clean),
                "bundle_bytes": cell.bundle.bytes,
                "failures": cell.failures,
            })
        })
        .collect();
    json!({
        "schema": "eyas.bench/1",
        "session": folder.display().to_string(),
        "board": results.board,
        "cells": cells,
        "incidents": results.incidents,
    })
}
