//! Reports: from folders of records to files, by the command line.

use std::fs;
use std::path::{Path, PathBuf};

use eyas_tests::{run, run_ok};
use serde_json::{Value, json};

fn figures(ms: f64) -> Value {
    json!({ "n": 20, "min_ms": ms, "mean_ms": ms, "median_ms": ms, "p90_ms": ms, "p95_ms": ms,
            "p99_ms": ms, "max_ms": ms })
}

/// A cell that is right with a share of its queries, in some milliseconds.
fn cell(student: &str, recall: f64, ms: f64) -> Value {
    json!({
        "key": format!("{student}/f32/1/shop"), "student": student, "precision": "f32",
        "threads": 1, "gallery": "shop",
        "bundle": { "file": "b.bundle", "bytes": 1_000_000, "hash": "00", "architecture": "a",
                    "n_parameters": 1, "multiply_adds": 1, "side": 96, "dim": 8 },
        "performance": {
            "windows": [{ "round": 0, "began_unix_us": 1, "seconds": 1.0, "n": 20,
                          "total": figures(ms), "flags": [], "celsius": null, "clock_mhz": null,
                          "others": 0.0, "joules": null }],
            "n_clean": 1,
            "stages": [{ "stage": "total", "figures": figures(ms),
                         "histogram": { "edges_ms": [1.0, 100.0], "counts": [20] } }],
            "median_ms": ms, "p95_ms": ms, "queries_per_second": 1000.0 / ms, "cold_starts": [],
            "peak_bytes": 50_000_000, "own_bytes": 20_000_000, "joules_per_query": null,
        },
        "accuracy": {
            "n": 1, "n_without_relevant": 0, "recall_at_1": recall,
            "recall_at_1_interval": [0.0, 1.0], "recall_at_5": null, "recall_at_10": null,
            "mean_average_precision_at_r": null,
            "agreement": { "min_cosine": 1.0, "mean_cosine": 1.0, "n_other_first": 0 },
            "answers": [{ "query": 0, "n_relevant": 1, "first_right": 0,
                          "matches": [{ "id": "11", "label": "tea", "score": 0.5 }],
                          "verdict": null, "total_ms": ms, "at": [0.0, 0.0] }],
            "failed": [], "reliability": [],
        },
        "operators": [], "failures": [],
    })
}

/// A session with a quick student and one that is right more often.
fn session(root: &Path) -> PathBuf {
    let results = json!({
        "schema": "eyas.session/1", "name": "desk", "plan": "00", "began": "2026-11-21 20:28:24 UTC",
        "host": "eyas 0.1.0",
        "protocol": { "mode": "both", "n_windows": 1, "n_retries": 0, "at_least_s": 1.0,
                      "at_least": 10, "warm_up_s": 0.0, "n_window_images": 1, "top_k": 1, "seed": 0,
                      "energy_offset_s": 0.0 },
        "board": { "model": "a <board>", "cpu": "", "n_cores": 1, "architecture": "", "kernel": "",
                   "memory_bytes": 1, "swap_bytes": 0, "governor": "", "max_clock_mhz": null,
                   "program": "", "program_hash": "", "matcher_kernel": "", "address": "" },
        "queries": [{ "id": "22", "label": "tea", "name": "q.jpg" }],
        "galleries": [],
        "cells": [cell("quick", 0.5, 10.0), cell("good", 0.75, 30.0)],
        "incidents": [],
    });
    let folder = root.join("session");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("results.json"), results.to_string()).unwrap();
    folder
}

fn training(root: &Path) -> PathBuf {
    let folder = root.join("run");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("recipe.toml"),
        "name = \"shelf\"\nseed = 1\nepochs = 2\n",
    )
    .unwrap();
    let line = |epoch| json!({ "epoch": epoch, "loss": 1.0, "validation_recall_at_1": 0.5, "seconds": 1.0 });
    fs::write(
        folder.join("metrics.jsonl"),
        format!("{}\n{}\n", line(1), line(2)),
    )
    .unwrap();
    folder
}

const FILES: [&str; 4] = ["report.html", "report.md", "report.json", "report.csv"];

#[test]
fn folders_of_any_kind_make_one_report_and_the_same_bytes_again() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &Path| path.display().to_string();
    let (session, run_folder) = (session(root.path()), training(root.path()));
    let out = root.path().join("out");
    let words = [
        "report",
        &at(&session),
        &at(&run_folder),
        "--out",
        &at(&out),
    ];
    let said = run_ok("eyas", words);
    assert!(said.contains("report.html"), "{said}");
    let read = || FILES.map(|name| fs::read_to_string(out.join(name)).unwrap());
    let first = read();
    run_ok("eyas", words);
    assert_eq!(read(), first);
    let [html, markdown, json, csv] = first;
    assert!(html.contains("a &lt;board&gt;") && html.contains("Loss"));
    assert!(
        markdown.starts_with("# desk on a \\<board\\>"),
        "{markdown}"
    );
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["schema"], "eyas.report/1");
    assert_eq!(value["best"]["student"], "good");
    assert_eq!(value["runs"][0]["epochs"].as_array().unwrap().len(), 2);
    assert_eq!(csv.lines().count(), 1 + 2 + 2);
}

#[test]
fn the_best_under_limits_is_printed_and_no_is_an_answer() {
    let root = tempfile::tempdir().unwrap();
    let session = session(root.path()).display().to_string();
    let best = |limits: &str| run("eyas", ["report", &session, "--best", limits, "--json"]);
    let student = |limits: &str| {
        let said = best(limits);
        let value: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(value["schema"], "eyas.report-answer/1");
        (said.code.unwrap_or(9), value["best"]["student"].clone())
    };
    assert_eq!(student("p95_ms<50,rss_mb<64"), (0, "good".into()));
    assert_eq!(student("p95_ms<=10"), (0, "quick".into()));
    assert_eq!(student("rss_mb<50"), (1, Value::Null));
    let text = run_ok("eyas", ["report", &session, "--best", "threads<2"]);
    assert!(text.contains("best    good/f32/1/shop of desk"), "{text}");
    assert!(Path::new(&session).join("report/report.html").exists());
}

#[test]
fn what_can_not_be_done_is_said_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let session = session(root.path()).display().to_string();
    let empty = root.path().display().to_string();
    for (words, part) in [
        (
            vec!["report", &session, "--best", "p95ms<50"],
            "did you mean `p95_ms`?",
        ),
        (
            vec!["report", &session, "--best", "p95_ms"],
            "`p95_ms` is no limit",
        ),
        (vec!["report", &empty], "neither a session"),
    ] {
        let said = run("eyas", words);
        assert_eq!(said.code, Some(2));
        assert!(said.err.contains(part), "{}", said.err);
    }
}
