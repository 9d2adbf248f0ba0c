//! Pages that the program writes, in a real browser: nothing is loaded, nothing complains,
//! and everything can be read on a phone, on a desk, in the dark and on paper.
//!
//! With `EYAS_SCREENSHOTS=FOLDER` each view is kept as a picture for people.

use std::fs;
use std::path::{Path, PathBuf};

use eyas_tests::browser::{Browser, VIEWS};
use eyas_tests::{root, run_ok};
use serde_json::json;

use super::test_session::{TestCell, ids, session};

/// Words about everything that is wrong with a page, by view.
fn faults_of(browser: &mut Browser, page: &Path) -> (Vec<String>, usize) {
    let mut faults = browser.open(page);
    let mut n_plots = usize::MAX;
    for view in VIEWS {
        let found = browser.inspect(view);
        assert!(found.n_texts > 0, "{}: no text at all", page.display());
        n_plots = n_plots.min(found.plots.len());
        for fault in found.faults {
            faults.push(format!("{view}: {}: {}", fault.kind, fault.what));
        }
    }
    (faults, n_plots)
}

/// A page around `body` with nothing wrong in it.
fn page_of(body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>t</title>\
         <style>svg {{ width: 100%; max-width: 320px }} text {{ fill: CanvasText }}</style></head>\
         <body><h1>A page</h1>{body}</body></html>"
    )
}

/// A drawing of 320 x 100 units around `content`.
fn drawing_of(content: &str) -> String {
    page_of(&format!(
        "<svg viewBox=\"0 0 320 100\" role=\"img\" aria-label=\"a plot\">\
         <path d=\"M10 90L300 10\" stroke=\"gray\"/>{content}</svg>"
    ))
}

#[test]
fn what_is_wrong_with_a_page_is_found() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let text = |attributes: &str| format!("<p style=\"{attributes}\">Some words</p>");
    let label = |attributes: &str| format!("<text {attributes}>Some words</text>");
    let good = "<text x=\"40\" y=\"30\" font-size=\"14\">low</text>\
                <text x=\"200\" y=\"30\" font-size=\"14\">high</text>";
    let cases = [
        ("", page_of(&text(""))),
        ("", drawing_of(good)),
        ("console: ", page_of("<script>console.error('no')</script>")),
        ("console: ", page_of("<script>console.warn('no')</script>")),
        (
            "request: ",
            page_of("<img alt=\"a\" src=\"http://127.0.0.1:9/a.png\">"),
        ),
        ("request: ", page_of("<img alt=\"a\" src=\"beside.png\">")),
        ("tiny: ", page_of(&text("font-size: 10px"))),
        (
            "tiny: ",
            drawing_of(&label("x=\"9\" y=\"50\" font-size=\"8\"")),
        ),
        (
            "overflow: ",
            page_of(&text("width: 2000px; background: Canvas")),
        ),
        (
            "overflow: ",
            page_of("<p>W</p>").replace("width=device-width", "width=980"),
        ),
        ("contrast: ", page_of(&text("color: #888"))),
        ("1440-dark: contrast: ", page_of(&text("color: #222"))),
        (
            "contrast: ",
            page_of(&text("color: white; background: #8ac")),
        ),
        ("contrast: ", page_of(&text("opacity: 0.4"))),
        (
            "contrast: ",
            drawing_of(&format!(
                "<rect width=\"320\" height=\"60\" fill=\"gray\"/>{}",
                label("x=\"9\" y=\"50\" font-size=\"14\" style=\"fill: #999\"")
            )),
        ),
        (
            "overlap: ",
            drawing_of(&(good.to_owned() + &label("x=\"45\" y=\"35\" font-size=\"14\""))),
        ),
        (
            "struck: ",
            drawing_of(&format!(
                "<path d=\"M0 45H320\" stroke=\"gray\"/>{}",
                label("x=\"9\" y=\"50\" font-size=\"14\"")
            )),
        ),
        (
            "clipped: ",
            drawing_of(&label("x=\"300\" y=\"50\" font-size=\"14\"")),
        ),
        (
            "clipped: ",
            drawing_of("<circle cx=\"318\" cy=\"50\" r=\"9\"/>"),
        ),
        (
            "clipped: ",
            page_of(&text("width: 30px; overflow: hidden; white-space: nowrap")),
        ),
        (
            "print: clipped: ",
            page_of(&text("width: 30px; overflow: auto; white-space: nowrap")),
        ),
        (
            "clipped: ",
            page_of(&text("position: relative; left: -40px")),
        ),
        (
            "covered: ",
            page_of(
                "<p>Some words</p><p style=\"margin-top: -3em; position: relative; background: red\">.<br>.</p>",
            ),
        ),
        (
            "empty: ",
            page_of("<svg width=\"200\" height=\"90\"><title>t</title></svg>"),
        ),
        ("unnamed: ", drawing_of(good).replace("aria-label", "class")),
        ("unnamed: ", page_of("<img src=\"data:,\">")),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (case_idx, (expected, html)) in cases.iter().enumerate() {
        let path = folder.path().join(format!("{case_idx}.html"));
        fs::write(&path, html).unwrap();
        let (faults, _) = faults_of(&mut browser, &path);
        let is_as_expected = if expected.is_empty() {
            faults.is_empty()
        } else {
            faults.iter().any(|fault| fault.contains(expected))
        };
        assert!(
            is_as_expected,
            "expected `{expected}` of {html}\nfound {faults:#?}"
        );
    }
}

/// Opens what the program wrote and wants it flawless, with at least so many plots.
fn check(browser: &mut Browser, name: &str, page: &Path, at_least_plots: usize) {
    if let Some(folder) = std::env::var_os("EYAS_SCREENSHOTS") {
        browser.open(page);
        for view in VIEWS {
            let file = PathBuf::from(&folder).join(format!("{name}-{view}.png"));
            browser.screenshot(view, &file);
        }
    }
    let (faults, n_plots) = faults_of(browser, page);
    assert!(faults.is_empty(), "{name}: {faults:#?}");
    assert!(n_plots >= at_least_plots, "{name}: {n_plots} plots");
}

const N_QUERIES: usize = 48;

/// Six students at three precisions on a board, with a picture of every image. Each is wrong
/// where the one before it is, and `shift` queries on.
fn write_session(folder: &Path, shift: usize) {
    let students = [
        "eyas-xs",
        "eyas-s",
        "squeezenet-112",
        "mobilenet-v3-small",
        "eyas-m",
        "resnet18",
    ];
    let precisions = [("f32", 4, 1.0), ("f16", 2, 1.04), ("int8", 1, 0.93)];
    let mut cells = Vec::new();
    for (student_idx, student) in students.iter().enumerate() {
        for (precision_idx, (precision, bytes_each, pace)) in precisions.into_iter().enumerate() {
            let key = format!("{student}/{precision}/1/shelf");
            let n_wrong = 14 - 2 * student_idx + precision_idx % 2;
            let wrong: Vec<usize> = (0..n_wrong)
                .map(|idx| (3 * idx + shift) % N_QUERIES)
                .collect();
            let median_ms = 4.0 * pace * 1.6_f64.powi(student_idx as i32);
            let n_bytes = 310_000 * bytes_each * 2_u64.pow(student_idx as u32);
            cells.push((key, median_ms, n_bytes, wrong));
        }
    }
    let cells: Vec<TestCell<'_>> = { cells.iter() }
        .map(|(key, median_ms, bytes, wrong)| TestCell {
            key,
            median_ms: *median_ms,
            bytes: *bytes,
            wrong,
        })
        .collect();
    let pictures = folder.join("pictures");
    fs::create_dir_all(&pictures).unwrap();
    let results = session(0, N_QUERIES, &cells).to_string();
    fs::write(folder.join("results.json"), results).unwrap();
    for id in ids(N_QUERIES) {
        let picture = root().join("tests/golden/pixels/420.jpg");
        fs::copy(picture, pictures.join(format!("{id}.jpg"))).unwrap();
    }
}

/// A training run of some epochs.
fn write_run(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::write(
        folder.join("recipe.toml"),
        super::end_to_end::student_recipe(),
    )
    .unwrap();
    let line = |epoch: u32| {
        let left = 0.7_f64.powi(epoch as i32);
        let epoch = json!({
            "epoch": epoch, "loss": 0.2 + 2.0 * left,
            "validation_recall_at_1": 0.8 - 0.6 * left, "seconds": 11.5,
        });
        format!("{epoch}\n")
    };
    let metrics: String = (1..=8).map(line).collect();
    fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
}

/// Two students with three losses and two seeds.
fn write_sweep(folder: &Path) {
    let mut table = "student,gallery,n_queries,n_gallery,teacher_recall_at_1,\
                     teacher_mean_average_precision_at_r\n"
        .to_owned();
    for (student_idx, student) in ["eyas-s", "eyas-m"].into_iter().enumerate() {
        for (loss_idx, loss) in ["reg", "rc", "relaxed-ms"].into_iter().enumerate() {
            for seed in [1, 2] {
                let recall = 0.6
                    + 0.08 * student_idx as f64
                    + 0.03 * loss_idx as f64
                    + 0.01 * f64::from(seed);
                let score = |precision: &str, bytes: usize, less: f64| {
                    json!({
                        "gallery": "shelf", "mode": "asymmetric", "precision": precision,
                        "bundle_bytes": bytes,
                        "means": {
                            "recall_at_1": recall - less, "recall_at_5": recall + 0.1,
                            "recall_at_10": recall + 0.15,
                            "mean_average_precision_at_r": recall - 0.2,
                        },
                    })
                };
                let record = json!({
                    "schema": "eyas.cell/1", "fingerprint": "", "student": student, "loss": loss,
                    "seed": seed, "n_parameters": 910_000, "multiply_adds": 61_000_000,
                    "failures": [],
                    "scores": [score("f32", 3_600_000, 0.0), score("int8", 950_000, 0.01)],
                });
                let cell = folder.join(format!("cells/{student}/{loss}/seed-{seed}"));
                fs::create_dir_all(&cell).unwrap();
                fs::write(cell.join("cell.json"), record.to_string()).unwrap();
            }
            table += &format!("{student},shelf,200,400,0.86,0.7\n");
        }
    }
    fs::write(folder.join("table.csv"), table).unwrap();
}

#[test]
fn reports_are_legible_everywhere_and_load_nothing() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_session(&at("session"), 0);
    write_run(&at("run"));
    write_sweep(&at("sweep"));
    for (name, at_least_plots) in [("session", 6), ("run", 1), ("sweep", 1)] {
        let out = at(&format!("{name}-report"));
        let (from, to) = (at(name).display().to_string(), out.display().to_string());
        run_ok("eyas", ["report", &from, "--out", &to]);
        check(&mut browser, name, &out.join("report.html"), at_least_plots);
    }
}

#[test]
fn comparisons_are_legible_everywhere_and_load_nothing() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    write_session(&folder.path().join("before"), 0);
    write_session(&folder.path().join("now"), 1);
    let page = folder.path().join("compare.html");
    for (name, part) in [("comparison", "#eyas-s/int8"), ("comparison-of-all", "")] {
        let (a, b) = (at("before") + part, at("now") + part);
        let conditions = ["--fail-if", "recall_at_1 drops 0.5"];
        let out = ["--out", &page.display().to_string()];
        run_ok(
            "eyas",
            [&["compare", &a, &b], &conditions[..], &out].concat(),
        );
        check(&mut browser, name, &page, 0);
    }
}
