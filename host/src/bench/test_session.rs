//! Sessions for tests, in the form in which `results.json` holds them: four labels, three
//! gallery images each, and students that are wrong where a test wants.

use serde_json::{Value, json};

/// Labels.
pub(crate) const LABELS: [&str; 4] = ["green tea", "black tea", "coffee", "oat milk"];

/// Gallery images of a label.
const VIEWS: usize = 3;

/// Windows of a cell.
const WINDOWS: usize = 5;

/// A cell, as far as tests differ.
#[derive(Clone, Debug)]
pub(crate) struct TestCell<'a> {
    /// `student/precision/threads/gallery`.
    pub(crate) key: &'a str,
    /// Latency.
    pub(crate) median_ms: f64,
    /// The file's size.
    pub(crate) bytes: u64,
    /// Queries whose first match has another label.
    pub(crate) wrong: &'a [usize],
}

/// Identity of an image: queries count from 0, gallery images from 1000.
pub(crate) fn id(image_idx: usize) -> String {
    format!("{:032x}", image_idx + 0xe7a5)
}
/// Identities of all images of a session with so many queries.
#[allow(dead_code, reason = "tests with pictures are elsewhere")]
pub(crate) fn ids(n_queries: usize) -> Vec<String> {
    let rows = (0..LABELS.len() * VIEWS).map(|row| id(1000 + row));
    (0..n_queries).map(id).chain(rows).collect()
}

/// A session whose queries have the numbers `first..first + n_queries`.
pub(crate) fn session(first: usize, n_queries: usize, cells: &[TestCell<'_>]) -> Value {
    let queries = (first..first + n_queries).map(|query| {
        let label = LABELS[query % LABELS.len()];
        json!({ "id": id(query), "label": label, "name": format!("{label}/{query}.jpg") })
    });
    let cells = cells.iter().map(|cell| cell_of(cell, first, n_queries));
    json!({
        "schema": "eyas.session/1",
        "name": "shelf on a board",
        "plan": "5d41402abc4b2a76",
        "began": "2026-11-21 20:28:24 UTC",
        "host": "eyas 0.1.0 (commit 0123456)",
        "protocol": {
            "mode": "both", "n_windows": WINDOWS, "n_retries": 1, "at_least_s": 10.0, "at_least": 10,
            "warm_up_s": 1.0, "n_window_images": 8, "top_k": 10, "seed": 1, "energy_offset_s": 0.0,
        },
        "board": {
            "model": "Test Board 4", "cpu": "a processor", "n_cores": 4,
            "architecture": "aarch64", "kernel": "6.1", "memory_bytes": 4_000_000_000_u64,
            "swap_bytes": 0, "governor": "performance", "max_clock_mhz": 1800.0,
            "program": "eyas-device 0.1.0 (commit 0123456)",
            "program_hash": "0123456789abcdef", "matcher_kernel": "neon",
            "address": "/dev/ttyS0 at 115200",
        },
        "queries": queries.collect::<Vec<_>>(),
        "galleries": [{
            "name": "shelf", "bytes": 123_456, "hash": "feedbeeffeedbeef",
            "n_rows": LABELS.len() * VIEWS, "n_labels": LABELS.len(), "codes": "int8",
            "teacher": "0011223344556677", "map": map(), "map_share": 0.61,
        }],
        "cells": cells.collect::<Vec<_>>(),
        "incidents": [],
    })
}

fn map() -> Vec<Value> {
    let point = |row: usize| {
        let (angle, label) = (row as f32 * 0.55, LABELS[row / VIEWS]);
        json!({ "label": label, "x": angle.cos(), "y": angle.sin() })
    };
    (0..LABELS.len() * VIEWS).map(point).collect()
}

fn cell_of(cell: &TestCell<'_>, first: usize, n_queries: usize) -> Value {
    let words: Vec<&str> = cell.key.split('/').collect();
    let [student, precision, threads, gallery] = words[..] else {
        panic!("`{}` is no key", cell.key);
    };
    let operators = ["stem", "block.1", "block.2", "head"].iter().zip(1..);
    json!({
        "key": cell.key, "student": student, "precision": precision,
        "threads": threads.parse::<usize>().expect("a number of threads"), "gallery": gallery,
        "bundle": {
            "file": format!("{student}-{precision}.bundle"), "bytes": cell.bytes,
            "hash": "89abcdef89abcdef", "architecture": "eyas-s", "n_parameters": 912_345,
            "multiply_adds": 61_000_000, "side": 96, "dim": 64,
        },
        "performance": performance(cell),
        "accuracy": accuracy(cell, first, n_queries),
        "operators": operators.map(|(layer, at)| json!({
            "layer": layer, "kind": "Conv", "median_us": 900.0 / f64::from(at),
            "share": 0.48 / f64::from(at),
        })).collect::<Vec<_>>(),
        "failures": [],
    })
}

fn figures(n: usize, median_ms: f64) -> Value {
    json!({
        "n": n, "min_ms": 0.9 * median_ms, "mean_ms": 1.01 * median_ms, "median_ms": median_ms,
        "p90_ms": 1.1 * median_ms, "p95_ms": 1.2 * median_ms, "p99_ms": 1.4 * median_ms,
        "max_ms": 1.7 * median_ms,
    })
}

fn performance(cell: &TestCell<'_>) -> Value {
    let n = (10_000.0 / cell.median_ms) as usize;
    let windows = (0..WINDOWS).map(|round| {
        let median_ms = cell.median_ms * (1.0 + 0.004 * (round as f64 - 2.0));
        json!({
            "round": round, "began_unix_us": 1_795_000_000_000_000_u64 + round as u64,
            "seconds": 10.0, "n": n, "total": figures(n, median_ms), "flags": [],
            "celsius": [48.0, 51.5], "clock_mhz": [1800.0, 1800.0], "others": 0.01,
            "joules": null,
        })
    });
    let stages = ["decode", "preprocess", "encode", "search", "total"];
    let shares = [0.1, 0.05, 0.8, 0.05, 1.0];
    let stages = stages.iter().zip(shares).map(|(stage, share)| {
        let median_ms = share * cell.median_ms;
        let edges: Vec<f64> = (0..=8)
            .map(|edge| median_ms * 0.9 * 1.1_f64.powi(edge))
            .collect();
        json!({
            "stage": stage, "figures": figures(WINDOWS * n, median_ms),
            "histogram": { "edges_ms": edges, "counts": [40, 90, 60, 20, 8, 3, 1, 1] },
        })
    });
    let cold_start = |idx: usize| {
        json!({
            "start_ms": 12.0 + idx as f64, "open_ms": 3.0, "load_ms": 41.0,
            "first_query_ms": 2.0 * cell.median_ms, "is_from_disk": idx < 3,
        })
    };
    json!({
        "windows": windows.collect::<Vec<_>>(), "n_clean": WINDOWS,
        "stages": stages.collect::<Vec<_>>(), "median_ms": cell.median_ms,
        "p95_ms": 1.2 * cell.median_ms, "queries_per_second": n as f64 / 10.0,
        "cold_starts": (0..4).map(cold_start).collect::<Vec<_>>(),
        "peak_bytes": cell.bytes + 21_000_000, "own_bytes": 9_000_000,
        "joules_per_query": null,
    })
}

fn accuracy(cell: &TestCell<'_>, first: usize, n_queries: usize) -> Value {
    let is_right = |query_idx: usize| !cell.wrong.contains(&(first + query_idx));
    let answers = (0..n_queries).map(|query_idx| {
        let right = is_right(query_idx);
        answer(query_idx, first + query_idx, right, cell.median_ms)
    });
    let n_right = (0..n_queries)
        .filter(|query_idx| is_right(*query_idx))
        .count();
    let share = n_right as f64 / n_queries as f64;
    // A wrong query has its three images at ranks 2 to 4.
    let precision_of_wrong = (1.0 / 2.0 + 2.0 / 3.0) / VIEWS as f64;
    let probabilities = [0.2_f32, 0.55, 0.9];
    let reliability = [None, Some(0.4_f32), Some(0.7)]
        .into_iter()
        .zip(probabilities);
    json!({
        "n": n_queries, "n_without_relevant": 0, "recall_at_1": share,
        "recall_at_1_interval": [(share - 0.08).max(0.0), (share + 0.08).min(1.0)],
        "recall_at_5": 1.0, "recall_at_10": 1.0,
        "mean_average_precision_at_r": share + (1.0 - share) * precision_of_wrong,
        "agreement": { "min_cosine": 0.99991, "mean_cosine": 0.99999, "n_other_first": 0 },
        "answers": answers.collect::<Vec<_>>(), "failed": [],
        "reliability": reliability.map(|(from, probability)| json!({
            "from": from, "n": 30,
            "probability": [probability, probability - 0.1, probability + 0.08],
        })).collect::<Vec<_>>(),
    })
}

fn answer(query_idx: usize, query: usize, is_right: bool, median_ms: f64) -> Value {
    let n_rows = LABELS.len() * VIEWS;
    let own = query % LABELS.len();
    let mut rows: Vec<usize> = (0..n_rows).map(|at| (own * VIEWS + at) % n_rows).collect();
    if !is_right {
        rows.rotate_right(1);
    }
    let best = 0.95 - 0.01 * (query % 7) as f32;
    let matches = rows.iter().take(10).zip(0_u8..).map(|(row, rank)| {
        let score = best - 0.06 * f32::from(rank);
        json!({ "id": id(1000 + row), "label": LABELS[row / VIEWS], "score": score })
    });
    let angle = query as f32 * 0.7;
    json!({
        "query": query_idx, "n_relevant": VIEWS,
        "first_right": usize::from(!is_right), "matches": matches.collect::<Vec<_>>(),
        "verdict": if best > 0.92 { "match" } else { "uncertain" },
        "total_ms": median_ms, "at": [0.9 * angle.cos(), 0.9 * angle.sin()],
    })
}
