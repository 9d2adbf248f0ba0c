//! `eyas report`: records to a page and to numbers for programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_shared::files;
use serde_json::json;

use super::{Answer, say};
use crate::bench::measures::Measure;
use crate::report::select::{self, Limit};
use crate::report::{compose, input, numbers, sessions};

/// Write a report of bench sessions, training runs and sweeps.
///
/// What a folder is, is told by the files in it; several of any kinds make one page.
/// Writes `report.html` (one file that needs nothing else), `report.md`, `report.json` and
/// `report.csv`. A report measures nothing: the same records give the same bytes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas report sessions/20261121_202824
  eyas report sessions/20261121_202824 --best 'p95_ms<50,rss_mb<64'
  eyas report runs/shelf sweeps/grocery --out report --title 'Shelf students'

--best takes a list of limits that all have to hold: a measure, `<`, `<=`, `>` or `>=`, and a
number. It prints the cell with the highest recall_at_1 within them, among equals the one with
the lowest p95_ms. Cells that failed, or whose windows are all flagged, can not be chosen. Exit
code 1 says that no cell keeps the limits. Measures: recall_at_1, recall_at_5, recall_at_10,
mean_average_precision_at_r, median_ms, p95_ms, p99_ms, queries_per_second, cold_ms, rss_mb,
own_mb, bundle_mb, joules_per_query, threads; `_mb` are 1,000,000 bytes.")]
pub(super) struct Args {
    /// Folders of sessions, runs or sweeps.
    #[arg(required = true, value_name = "SESSION|RUN|SWEEP")]
    inputs: Vec<PathBuf>,
    /// Where the report is written; `report` in the first folder if not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Heading of the page, instead of the names of what it shows.
    #[arg(long)]
    title: Option<String>,
    /// Limits of which the best cell is sought, such as 'p95_ms<50,rss_mb<64'.
    #[arg(long, value_name = "LIMITS")]
    best: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let limits = Limit::parse_all(args.best.as_deref().unwrap_or_default())
        .context("reading the limits of --best")?;
    let inputs = { args.inputs.iter() }
        .map(|folder| input::read(folder))
        .collect::<Result<Vec<_>, _>>()?;
    if args.best.is_some() && sessions(&inputs).is_empty() {
        bail!("--best chooses among the cells of sessions, and none is given");
    }
    let report = compose(&inputs, args.title.as_deref(), &limits);
    let out = match (&args.out, args.inputs.first()) {
        (Some(out), _) => out.clone(),
        (None, Some(first)) => first.join("report"),
        (None, None) => bail!("no folder is given"),
    };
    files::create_folder(&out)?;
    let numbers_json = numbers::json(&inputs, &report, &limits);
    let written = [
        ("html", report.to_html()),
        ("md", report.to_markdown()),
        ("json", serde_json::to_string_pretty(&numbers_json)? + "\n"),
        ("csv", numbers::csv(&inputs)),
    ];
    for (ending, text) in &written {
        files::replace(&out.join(format!("report.{ending}")), text.as_bytes())?;
    }
    let sessions = sessions(&inputs);
    let best = numbers::best(&sessions, &limits);
    if args.json {
        say(&json!({
            "schema": "eyas.report-answer/1",
            "report": out.join("report.html").display().to_string(),
            "limits": limits.iter().map(Limit::to_string).collect::<Vec<_>>(),
            "best": best.map(|(session, cell)| numbers::best_json(session, cell)),
        })
        .to_string());
    } else {
        if args.best.is_some() {
            say_best(&sessions, &limits);
        }
        say_files(&out);
    }
    Ok(if args.best.is_some() && best.is_none() {
        Answer::No
    } else {
        Answer::Yes
    })
}

fn say_files(out: &Path) {
    say(&format!("report  {}", out.join("report.html").display()));
}

fn say_best(sessions: &[&input::Session], limits: &[Limit]) {
    let Some((session, cell)) = numbers::best(sessions, limits) else {
        say(&format!("best    none: {}", why_none(sessions, limits)));
        return;
    };
    say(&format!("best    {} of {}", cell.key, session.results.name));
    for measure in &Measure::ALL {
        if let Some(value) = measure.read(cell) {
            let line = format!("  {:28} {value:.4} {}", measure.name, measure.unit);
            say(line.trim_end());
        }
    }
}

/// How many cells could have been chosen, and what they lack.
fn why_none(sessions: &[&input::Session], limits: &[Limit]) -> String {
    let cells = || sessions.iter().flat_map(|session| &session.results.cells);
    let n_eligible = cells()
        .filter(|cell| select::why_not(cell).is_none())
        .count();
    let mut parts = vec![format!(
        "{n_eligible} of {} cells can be chosen",
        cells().count()
    )];
    for limit in limits {
        let eligible = cells().filter(|cell| select::why_not(cell).is_none());
        let n = eligible.clone().filter(|cell| limit.holds(cell)).count();
        let unknown = eligible
            .filter(|cell| limit.measure.read(cell).is_none())
            .count();
        let unknown = match unknown {
            0 => String::new(),
            n => format!(" ({n} do not have it)"),
        };
        parts.push(format!("{n} of them keep {limit}{unknown}"));
    }
    parts.join("; ")
}
