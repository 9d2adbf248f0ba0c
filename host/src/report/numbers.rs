//! A report's numbers for programs: `report.json` and `report.csv`. `REPORTS.md` describes
//! both; fields and columns are added, never renamed or given another unit.

use serde_json::{Map, Value, json};

use super::compose::{runs, sessions, sweeps};
use super::input::{Input, Session, Training};
use super::select::{self, Limit};
use super::session::front_over;
use super::{Report, pareto, sweep};
use crate::bench::measures::Measure;
use crate::bench::results::Cell;
use crate::sweep::StoredSweep;

/// Name of the schema of `report.json`.
pub const SCHEMA: &str = "eyas.report/1";

/// Costs over which fronts are told.
const COSTS: [&str; 4] = ["p95_ms", "rss_mb", "bundle_mb", "joules_per_query"];

/// `report.json`.
#[must_use]
pub fn json(inputs: &[Input], report: &Report, limits: &[Limit]) -> Value {
    let sessions = sessions(inputs);
    json!({
        "schema": SCHEMA,
        "title": report.title,
        "summary": report.summary,
        "warnings": report.warnings,
        "limits": limits.iter().map(Limit::to_string).collect::<Vec<_>>(),
        "best": best(&sessions, limits).map(|(session, cell)| best_json(session, cell)),
        "sessions": sessions.iter().map(|session| session_json(session)).collect::<Vec<_>>(),
        "runs": runs(inputs).iter().map(run_json).collect::<Vec<_>>(),
        "sweeps": sweeps(inputs).iter().map(|sweep| sweep_json(sweep)).collect::<Vec<_>>(),
    })
}

/// The best cell of all sessions, with its session.
#[must_use]
pub fn best<'a>(sessions: &[&'a Session], limits: &[Limit]) -> Option<(&'a Session, &'a Cell)> {
    let cells = sessions.iter().flat_map(|session| &session.results.cells);
    let best = select::best(cells, limits)?;
    let holds = |session: &&&Session| {
        session
            .results
            .cells
            .iter()
            .any(|cell| std::ptr::eq(cell, best))
    };
    Some((sessions.iter().find(holds)?, best))
}

/// A cell with its measures; with the session's name, for answers.
#[must_use]
pub fn best_json(session: &Session, cell: &Cell) -> Value {
    json!({
        "session": session.results.name,
        "folder": session.folder.display().to_string(),
        "cell": cell.key,
        "student": cell.student,
        "precision": cell.precision,
        "threads": cell.threads,
        "gallery": cell.gallery,
        "bundle": cell.bundle.file,
        "measures": measures(cell),
    })
}

fn measures(cell: &Cell) -> Map<String, Value> {
    let read = |measure: &Measure| (measure.name.to_owned(), json!(measure.read(cell)));
    Measure::ALL.iter().map(read).collect()
}

fn session_json(session: &Session) -> Value {
    let results = &session.results;
    let fronts: Vec<(&str, Vec<bool>)> = { COSTS.iter() }
        .map(|cost| (*cost, front_over(&results.cells, cost)))
        .collect();
    let cells = results.cells.iter().enumerate().map(|(idx, cell)| {
        let on: Vec<&str> = { fronts.iter() }
            .filter(|(_, front)| front[idx])
            .map(|(cost, _)| *cost)
            .collect();
        let accuracy = cell.accuracy.as_ref();
        let windows = cell
            .performance
            .as_ref()
            .map(|performance| &performance.windows);
        json!({
            "cell": cell.key,
            "student": cell.student,
            "precision": cell.precision,
            "threads": cell.threads,
            "gallery": cell.gallery,
            "bundle": cell.bundle,
            "measures": measures(cell),
            "recall_at_1_interval": accuracy.map(|found| found.recall_at_1_interval),
            "n_queries": accuracy.map(|found| found.n),
            "n_windows": windows.map(Vec::len),
            "n_clean_windows": cell.performance.as_ref().map(|performance| performance.n_clean),
            "on_fronts": on,
            "not_eligible": select::why_not(cell),
            "failures": cell.failures,
            "n_unanswered": accuracy.map(|found| found.failed.len()),
        })
    });
    json!({
        "folder": session.folder.display().to_string(),
        "name": results.name,
        "plan": results.plan,
        "began": results.began,
        "host": results.host,
        "board": results.board,
        "protocol": results.protocol,
        "incidents": results.incidents,
        "cells": cells.collect::<Vec<_>>(),
    })
}

fn run_json(training: &Training) -> Value {
    let run = &training.run;
    json!({
        "folder": run.folder.display().to_string(),
        "name": run.name(),
        "loss": run.loss(),
        "state": run.state.to_string(),
        "seed": run.seed(),
        "facts": run.facts,
        "epochs": run.epochs,
    })
}

fn sweep_json(stored: &StoredSweep) -> Value {
    let groups = sweep::groups(stored);
    let asymmetric = |group: &sweep::Group<'_>| group.mode == crate::sweep::Mode::Asymmetric;
    let points = groups.iter().map(|group| {
        let mean = crate::sweep::table::Spread::of(&group.recalls).map(|spread| spread.mean);
        let known = mean.filter(|_| asymmetric(group));
        known.map_or((f64::NAN, f64::NAN), |mean| {
            (group.bundle_bytes as f64, mean)
        })
    });
    let points: Vec<(f64, f64)> = points.collect();
    let groups = groups
        .iter()
        .zip(pareto::front(&points))
        .map(|(group, is_on_front)| {
            let spread = |values: &[f64]| {
                crate::sweep::table::Spread::of(values)
                    .map(|spread| json!({ "mean": spread.mean, "deviation": spread.deviation }))
            };
            json!({
                "student": group.student,
                "loss": group.loss,
                "gallery": group.gallery,
                "mode": group.mode,
                "precision": group.precision,
                "n_seeds": group.recalls.len(),
                "recall_at_1": spread(&group.recalls),
                "mean_average_precision_at_r": spread(&group.precisions_at_r),
                "bundle_bytes": group.bundle_bytes,
                "n_parameters": group.n_parameters,
                "multiply_adds": group.multiply_adds,
                "is_on_front_of_bytes": is_on_front,
            })
        });
    let teacher = stored.teacher.iter().map(|score| {
        json!({
            "gallery": score.gallery,
            "n_queries": score.n_queries,
            "n_gallery": score.n_gallery,
            "recall_at_1": score.teacher_recall_at_1,
            "mean_average_precision_at_r": score.teacher_mean_average_precision_at_r,
        })
    });
    json!({
        "folder": stored.folder.display().to_string(),
        "teacher": teacher.collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>(),
        "failures": sweep::warnings(stored),
    })
}

/// Columns before the measures: what a line is of.
const NAMES: [&str; 11] = [
    "kind",
    "folder",
    "name",
    "student",
    "loss",
    "precision",
    "threads",
    "gallery",
    "mode",
    "seed",
    "epoch",
];

/// Columns after the measures.
const OTHERS: [&str; 13] = [
    "recall_at_1_low",
    "recall_at_1_high",
    "n_queries",
    "n_windows",
    "n_clean_windows",
    "n_failures",
    "is_on_front",
    "bundle_bytes",
    "n_parameters",
    "multiply_adds",
    "training_loss",
    "validation_recall_at_1",
    "epoch_seconds",
];

/// A line of `report.csv` by columns; those that are not named stay empty.
type Line = Vec<(&'static str, String)>;

/// `report.csv`: a line for each cell of a session, each epoch of a run, each score of a
/// sweep's cells.
#[must_use]
pub fn csv(inputs: &[Input]) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for input in inputs {
        match input {
            Input::Session(session) => lines.extend(session_lines(session)),
            Input::Run(training) => lines.extend(run_lines(training)),
            Input::Sweep(sweep) => lines.extend(sweep_lines(sweep)),
        }
    }
    // `threads` is a measure too.
    let measures = Measure::ALL.iter().map(|measure| measure.name);
    let measures = measures.filter(|name| !NAMES.contains(name));
    let columns: Vec<&str> = NAMES.into_iter().chain(measures).chain(OTHERS).collect();
    let mut text = columns.join(",") + "\n";
    for line in lines {
        let field = |column: &&str| {
            let mut fields = line.iter();
            let found = fields.find(|(name, _)| name == column);
            found.map_or(String::new(), |(_, value)| quoted(value))
        };
        let fields: Vec<String> = columns.iter().map(field).collect();
        text += &fields.join(",");
        text.push('\n');
    }
    text
}

/// A field as RFC 4180 has it.
fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

fn number(value: Option<f64>) -> String {
    let value = value.filter(|value| value.is_finite());
    value.map_or(String::new(), |value| value.to_string())
}

fn session_lines(session: &Session) -> Vec<Line> {
    let cells = &session.results.cells;
    let line = |(cell, is_on_front): (&Cell, bool)| {
        let accuracy = cell.accuracy.as_ref();
        let performance = cell.performance.as_ref();
        let interval = accuracy.map(|found| found.recall_at_1_interval);
        let count = |n: Option<usize>| n.map_or(String::new(), |n| n.to_string());
        let unanswered = accuracy.map_or(0, |found| found.failed.len());
        let mut line: Line = vec![
            ("kind", "session".to_owned()),
            ("folder", session.folder.display().to_string()),
            ("name", session.results.name.clone()),
            ("student", cell.student.clone()),
            ("precision", cell.precision.clone()),
            ("threads", cell.threads.to_string()),
            ("gallery", cell.gallery.clone()),
            (
                "recall_at_1_low",
                number(interval.map(|interval| interval[0])),
            ),
            (
                "recall_at_1_high",
                number(interval.map(|interval| interval[1])),
            ),
            ("n_queries", count(accuracy.map(|found| found.n))),
            (
                "n_windows",
                count(performance.map(|found| found.windows.len())),
            ),
            (
                "n_clean_windows",
                count(performance.map(|found| found.n_clean)),
            ),
            ("n_failures", (cell.failures.len() + unanswered).to_string()),
            ("is_on_front", u8::from(is_on_front).to_string()),
            ("bundle_bytes", cell.bundle.bytes.to_string()),
            ("n_parameters", cell.bundle.n_parameters.to_string()),
            ("multiply_adds", cell.bundle.multiply_adds.to_string()),
        ];
        let measures = Measure::ALL
            .iter()
            .filter(|measure| measure.name != "threads");
        line.extend(measures.map(|measure| (measure.name, number(measure.read(cell)))));
        line
    };
    cells
        .iter()
        .zip(front_over(cells, "p95_ms"))
        .map(line)
        .collect()
}

fn run_lines(training: &Training) -> Vec<Line> {
    let run = &training.run;
    let line = |epoch: &crate::runs::EpochMetrics| {
        vec![
            ("kind", "run".to_owned()),
            ("folder", run.folder.display().to_string()),
            ("name", run.name().to_owned()),
            ("loss", run.loss()),
            (
                "seed",
                run.seed().map_or(String::new(), |seed| seed.to_string()),
            ),
            ("epoch", epoch.epoch.to_string()),
            ("training_loss", number(Some(epoch.loss))),
            (
                "validation_recall_at_1",
                number(epoch.validation_recall_at_1),
            ),
            ("epoch_seconds", number(Some(epoch.seconds))),
        ]
    };
    run.epochs.iter().map(line).collect()
}

fn sweep_lines(sweep: &StoredSweep) -> Vec<Line> {
    let mut lines = Vec::new();
    for record in &sweep.records {
        for score in &record.scores {
            let teacher = sweep
                .teacher
                .iter()
                .find(|teacher| teacher.gallery == score.gallery);
            let means = &score.means;
            lines.push(vec![
                ("kind", "sweep".to_owned()),
                ("folder", sweep.folder.display().to_string()),
                ("student", record.student.clone()),
                ("loss", record.loss.clone()),
                ("precision", score.precision.to_string()),
                ("gallery", score.gallery.clone()),
                ("mode", score.mode.to_string()),
                ("seed", record.seed.to_string()),
                ("recall_at_1", number(Some(means.recall_at_1))),
                ("recall_at_5", number(Some(means.recall_at_5))),
                ("recall_at_10", number(Some(means.recall_at_10))),
                (
                    "mean_average_precision_at_r",
                    number(Some(means.mean_average_precision_at_r)),
                ),
                ("bundle_mb", number(Some(score.bundle_bytes as f64 / 1e6))),
                (
                    "n_queries",
                    teacher.map_or(String::new(), |teacher| teacher.n_queries.to_string()),
                ),
                ("bundle_bytes", score.bundle_bytes.to_string()),
                ("n_parameters", record.n_parameters.to_string()),
                ("multiply_adds", record.multiply_adds.to_string()),
            ]);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn input() -> Input {
        let mut results = fixture::session();
        results.name = "shelf, \"north\"".to_owned();
        Input::Session(Session {
            folder: "sessions/1".into(),
            results: Box::new(results),
        })
    }

    #[test]
    fn every_line_has_every_column_and_measures_name_their_unit() {
        let text = csv(&[input()]);
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        let head = reader.headers().unwrap().clone();
        for measure in &Measure::ALL {
            assert_eq!(head.iter().filter(|name| *name == measure.name).count(), 1);
        }
        let lines: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(lines.len(), fixture::session().cells.len());
        assert_eq!(&lines[0][2], "shelf, \"north\"");
    }

    #[test]
    fn json_holds_what_the_page_says() {
        let inputs = [input()];
        let limits = Limit::parse_all("p95_ms<1000").unwrap();
        let value = json(&inputs, &Report::default(), &limits);
        assert_eq!(value["schema"], SCHEMA);
        assert_eq!(value["limits"][0], "p95_ms<1000");
        let cells = value["sessions"][0]["cells"].as_array().unwrap();
        let best = cells
            .iter()
            .find(|cell| cell["cell"] == value["best"]["cell"])
            .unwrap();
        assert!(
            best["on_fronts"]
                .as_array()
                .unwrap()
                .contains(&"p95_ms".into())
        );
        assert!(
            cells
                .iter()
                .any(|cell| cell["not_eligible"] == "something failed")
        );
        let impossible = Limit::parse_all("p95_ms<0").unwrap();
        assert!(json(&inputs, &Report::default(), &impossible)["best"].is_null());
    }
}
