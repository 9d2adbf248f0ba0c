//! Sweeps: killed and gone on with, failures counted, one table.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use eyas_tests::{program, run, run_ok};
use serde_json::Value;

use super::end_to_end::{World, world};

/// Two losses that train, and one whose first step leaves no finite weight.
fn write_sweep(world: &World, name: &str) -> Vec<String> {
    let text = format!(
        r#"
data = "{data}"
split = "train"
teacher = "{teacher}"
cache = "{cache}"
out = "{out}"
seeds = [1, 2]
precisions = ["f32", "int8"]

[[galleries]]
name = "unseen"
search = "gallery"
ask = "query"

[[galleries]]
name = "known"
search = "train"
ask = "train"

[[students]]
name = "small"
recipe = "{recipe}"
set = {{ epochs = 2 }}

[[losses]]
name = "regression"
loss = [{{ kind = "regression", weight = 1.0 }}]
map = {{ kind = "none" }}

[[losses]]
name = "relaxed"
loss = [{{ kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }}]
map = {{ kind = "ridge", penalty = 0.1 }}

[[losses]]
name = "broken"
loss = [{{ kind = "regression", weight = 1.0 }}]
map = {{ kind = "none" }}
set = {{ schedule = {{ kind = "cosine", peak = 1e38, end = 1e38, warmup_steps = 0 }} }}
"#,
        data = world.at("shelves"),
        teacher = world.at("small.teacher"),
        cache = world.at("cache"),
        out = world.at(name),
        recipe = world.at("student.toml"),
    );
    let path = world.path(&format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let compute = ["--compute", "cpu", "--threads", "2"].map(str::to_owned);
    [&["sweep".to_owned(), path][..], &compute].concat()
}

#[test]
fn a_loss_of_maps_is_swept_with_the_network_that_its_axis_names() {
    let world = world();
    let words = write_sweep(world, "maps");
    let file = world.path("maps.toml");
    let text = fs::read_to_string(&file).unwrap();
    let losses = text.find("[[losses]]").unwrap();
    let of_maps = format!(
        r#"
[[losses]]
name = "hint"
loss = [
    {{ kind = "regression", weight = 1.0 }},
    {{ kind = "map-hint", weight = 1.0, student = "body.0.relu", teacher = "body.1.relu", rate_factor = 1.0 }},
]
map = {{ kind = "none" }}
teacher_network = {{ architecture = "eyas-xs", weights = "{}" }}
"#,
        world.at("run/student.safetensors")
    );
    let seeds = text[..losses].replace("seeds = [1, 2]", "seeds = [1]");
    fs::write(&file, seeds.clone() + &of_maps).unwrap();
    run_ok("eyas", &words);
    let cell = world.path("maps/cells/small/hint/seed-1");
    assert!(cell.join("student.json").exists());
    assert!(run_ok("eyas", [&words[..], &["--dry-run".to_owned()]].concat()).contains("done"));

    // Other weights of the network are another experiment.
    let other = of_maps.replace("run/student.safetensors", "again-weights.safetensors");
    let mut weights = fs::read(world.path("run/student.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    fs::write(world.path("again-weights.safetensors"), weights).unwrap();
    fs::write(&file, seeds + &other).unwrap();
    let listed = run_ok("eyas", [&words[..], &["--dry-run".to_owned()]].concat());
    assert!(listed.contains("begun"), "{listed}");
}

fn tables(out: &Path) -> [String; 3] {
    ["table.md", "table.csv", "cells.csv"].map(|name| fs::read_to_string(out.join(name)).unwrap())
}

#[test]
fn a_killed_sweep_goes_on_and_ends_with_the_same_tables() {
    let world = world();
    let words = write_sweep(world, "sweep");
    let listed = run_ok("eyas", [&words[..], &["--dry-run".to_owned()]].concat());
    assert!(listed.contains("6 cells"), "{listed}");
    assert!(!world.path("sweep").exists());

    let whole = run("eyas", &words);
    assert_eq!(whole.code, Some(1), "{whole:?}");
    assert!(whole.err.contains("2 of 6 cells failed"), "{}", whole.err);
    let expected = tables(&world.path("sweep"));
    let [markdown, means, cells] = &expected;
    assert!(
        markdown.contains("4 of 6 cells are done, 2 failed"),
        "{markdown}"
    );
    assert!(markdown.contains("- small broken seed 1: "), "{markdown}");
    // 2 losses x 2 galleries x 2 modes x 2 precisions, and the head.
    assert_eq!(means.lines().count(), 1 + 16, "{means}");
    assert_eq!(cells.lines().count(), 1 + 32, "{cells}");

    let words = write_sweep(world, "cut");
    let out = world.path("cut");
    let mut child = program("eyas")
        .args(&words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // SIGKILL in the second cell.
    let second = out.join("cells/small/relaxed/seed-1/checkpoint.safetensors");
    while !second.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let done = out.join("cells/small/regression/seed-1/cell.json");
    assert!(done.exists());
    assert!(!out.join("cells/small/relaxed/seed-2").exists());

    let resumed = run("eyas", &words);
    assert_eq!(resumed.code, Some(1), "{resumed:?}");
    assert!(!resumed.out.contains("[1/6]"), "{}", resumed.out);
    assert!(resumed.out.contains("[2/6]"), "{}", resumed.out);
    assert_eq!(tables(&out), expected);
}

#[test]
fn a_sweep_scores_as_evaluation_does() {
    let world = world();
    let mut words = write_sweep(world, "scored");
    words.push("--json".to_owned());
    let said = run("eyas", &words);
    assert_eq!(said.code, Some(1), "{said:?}");
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["schema"], "eyas.sweep/1");
    assert_eq!(answer["n_done"], 4);
    assert_eq!(answer["failures"].as_array().unwrap().len(), 2);

    let cell = world.path("scored/cells/small/relaxed/seed-2");
    let record: Value = serde_json::from_slice(&fs::read(cell.join("cell.json")).unwrap()).unwrap();
    let score = |gallery: &str, mode: &str| {
        let scores = record["scores"].as_array().unwrap().iter();
        let mut wanted = scores.filter(|score| {
            score["gallery"] == gallery && score["mode"] == mode && score["precision"] == "int8"
        });
        wanted.next().unwrap()["means"].clone()
    };
    let bundle = cell.join("bundles/small-relaxed-int8.bundle");
    let bundle = bundle.display().to_string();
    let data = world.at("shelves");
    let evaluate = |more: &[&str]| -> Value {
        let words = [
            "evaluate",
            "--bundle",
            &bundle,
            "--manifest",
            &data,
            "--json",
        ];
        serde_json::from_str(&run_ok("eyas", [&words, more].concat())).unwrap()
    };
    let gallery = world.at("scored/galleries/unseen.gallery");
    let asymmetric = evaluate(&["--gallery", &gallery, "--split", "query"]);
    let known = [
        "--symmetric",
        "--gallery-split",
        "train",
        "--split",
        "train",
    ];
    let symmetric = evaluate(&known);
    for (found, expected) in [
        (asymmetric, score("unseen", "asymmetric")),
        (symmetric, score("known", "symmetric")),
    ] {
        for key in ["recall_at_1", "recall_at_10", "mean_average_precision_at_r"] {
            assert_eq!(found[key], expected[key], "{key}");
        }
    }
}
