//! Every way to train that a recipe can ask for trains a student to its end.

use std::fs;

use eyas_tests::{run, run_ok};
use serde_json::Value;

use super::end_to_end::{TEACHER, student_recipe, world};

const ADAMW: &str = r#"kind = "adamw", beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8,"#;

/// Trains with some of the recipe's text replaced, and returns the run's name.
#[track_caller]
fn trains_with(name: &str, changes: &[(&str, &str)]) -> String {
    let world = world();
    let mut recipe = student_recipe().replace("epochs = 8", "epochs = 2");
    for (from, to) in changes {
        assert!(recipe.contains(from), "{from}");
        recipe = recipe.replace(from, to);
    }
    let file = format!("{name}.toml");
    fs::write(world.path(&file), recipe).unwrap();
    let run = format!("trained-{name}");
    run_ok("eyas", world.train_words_of(&file, &run));
    run
}

#[test]
fn on_views_that_the_teacher_embeds_while_training() {
    let online = [(r#"teacher_views = "cached""#, r#"teacher_views = "online""#)];
    let run = trains_with("online", &online);
    // Other targets than the whole images' embeddings give another student.
    let cached = trains_with("cached", &[]);
    let weights = |run: &str| fs::read(world().path(run).join("student.safetensors")).unwrap();
    assert_ne!(weights(&run), weights(&cached));
}

#[test]
fn from_the_weights_that_its_teacher_ended_with() {
    let world = world();
    let recipe = student_recipe().replace("epochs = 8", "epochs = 1");
    let from = recipe.replace(r#"start = "scratch""#, r#"start = "weights""#);
    fs::write(world.path("tuned-start.toml"), from).unwrap();
    let start = [
        "--start".to_owned(),
        world.at("teacher/teacher.safetensors"),
    ];
    let words = world.train_words_of("tuned-start.toml", "tuned-start");
    run_ok("eyas", [&words[..], &start].concat());
    assert!(world.path("tuned-start/student.json").exists());
}

#[test]
fn in_bfloat16() {
    trains_with("bf16", &[(r#""f32""#, r#""bf16""#)]);
}

#[test]
fn in_half_precision_with_a_scaled_loss() {
    trains_with("f16", &[(r#""f32""#, r#""f16""#)]);
}

/// Where there is a GPU, the first of them trains; elsewhere every command says what is missing
/// before it has written anything.
#[test]
fn a_gpu_that_is_not_there_is_an_error() {
    let world = world();
    fs::write(world.path("gpu.toml"), student_recipe()).unwrap();
    fs::write(world.path("gpu-teacher.toml"), TEACHER).unwrap();
    let (data, run_folder) = (world.at("shelves"), world.at("gpu-run"));
    let (student, teacher) = (world.at("gpu.toml"), world.at("gpu-teacher.toml"));
    let (with, out) = (world.at("small.teacher"), world.at("gpu.teacher"));
    let commands: [(&[&str], &[&str]); 4] = [
        (
            &["train", &student, "--data", &data],
            &["--teacher", &with, "--out", &run_folder],
        ),
        (
            &["teacher", "train", &teacher, "--data", &data],
            &["--run", &run_folder, "--out", &out],
        ),
        (
            &["bench-training", &student, "--data", &data],
            &["--precision", "bf16"],
        ),
        (&["losses", "cost"], &[]),
    ];
    for (words, more) in commands {
        let said = run("eyas", [words, more, &["--compute", "gpu"]].concat());
        if said.code == Some(0) {
            eprintln!("skipped: a GPU is there");
            return;
        }
        assert_eq!(said.code, Some(2), "{words:?}: {said:?}");
        assert!(
            said.err.contains("error: a GPU is asked for, but"),
            "{}",
            said.err
        );
        assert!(
            said.err.contains("hint: leave --compute away"),
            "{}",
            said.err
        );
        assert_eq!(said.out, "", "{words:?}");
    }
    assert!(!world.path("gpu-run").exists() && !world.path("gpu.teacher").exists());
}

#[test]
fn speed_is_measured_in_any_precision() {
    let world = world();
    fs::write(world.path("speed.toml"), student_recipe()).unwrap();
    for precision in ["f32", "bf16", "f16"] {
        let recipe = world.at("speed.toml");
        let words = [
            "bench-training",
            &recipe,
            "--data",
            &world.at("shelves"),
            "--json",
        ];
        let rest = ["--steps", "2", "--compute", "cpu", "--precision", precision];
        let said = run_ok("eyas", [&words[..], &rest].concat());
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["precision"], precision);
        let number = |key: &str| said[key].as_f64().unwrap();
        let window = |key: &str| -> [f64; 2] { serde_json::from_value(said[key].clone()).unwrap() };
        for part in ["training", "together"] {
            let [since, until] = window(&format!("{part}_window"));
            let rows = 2.0 * number("rows_per_step");
            let seconds = rows / number(&format!("{part}_per_second"));
            // Clocks of two kinds, and the time between reading them.
            assert!((until - since - seconds).abs() < 0.1, "{said}");
        }
        assert!(
            window("training_window")[1] <= window("together_window")[0],
            "{said}"
        );
    }
}

#[test]
fn with_every_optimizer_schedule_and_sampler() {
    let cosine = r#"kind = "cosine", peak = 1e-3, end = 0.0,"#;
    let shuffled = r#"kind = "shuffled", images = 8"#;
    trains_with(
        "sgd",
        &[
            (ADAMW, r#"kind = "sgd", momentum = 0.9, nesterov = true,"#),
            (
                cosine,
                r#"kind = "step", peak = 1e-3, every_steps = 3, factor = 0.5,"#,
            ),
            (shuffled, r#"kind = "balanced", images = 8"#),
        ],
    );
    trains_with(
        "lars",
        &[
            (ADAMW, r#"kind = "lars", momentum = 0.9, trust = 1e-2,"#),
            (
                cosine,
                r#"kind = "warm-restarts", peak = 1e-1, end = 0.0, period_steps = 3, period_factor = 2.0,"#,
            ),
            (
                r#"batch_norm = "train""#,
                r#"batch_norm = "frozen-statistics""#,
            ),
        ],
    );
    trains_with(
        "adam",
        &[
            (r#"kind = "adamw""#, r#"kind = "adam""#),
            (
                cosine,
                r#"kind = "exponential", peak = 1e-3, every_steps = 3, factor = 0.5,"#,
            ),
            ("freeze = []", r#"freeze = ["stem"]"#),
        ],
    );
}

const SHUFFLED: &str = r#"kind = "shuffled", images = 8, views = 2"#;

const LOSSES: &str = r#"{ kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }, { kind = "regression", weight = 1.0 }"#;

#[test]
fn on_tuples_whose_negatives_the_teacher_embeds() {
    let weights = |run: &str| fs::read(world().path(run).join("student.safetensors")).unwrap();
    let tuples = |positives: &str, mining: &str| {
        format!(
            r#"kind = "tuples", tuples = 4, tuples_per_epoch = 16, student_sees = "queries", positives = {positives}, negatives = 3, mining = {mining}, views = 2"#
        )
    };
    let loss = |positives: &str, mining: &str| {
        format!(
            r#"{{ kind = "tuple-triplet", weight = 1.0, margin = 0.1, tuples = {{ references = "teacher", positives = {positives}, mining = "{mining}", negatives = 3, own_teacher = false, reducer = "mean" }} }}, {{ kind = "multi-similarity", weight = 0.1, alpha = 2.0, beta = 40.0, base = 0.5, one_sided = "left-out", pairs = {{ references = "batch", miner = "all", reducer = "mean" }} }}"#
        )
    };
    let label = r#""label""#;
    let hard = "{ hard = { pool = 30, embedded_by = \"teacher\" } }";
    let hard = trains_with(
        "tuples-hard",
        &[
            (SHUFFLED, &tuples(label, hard)),
            (LOSSES, &loss(label, "hard")),
        ],
    );
    let random = trains_with(
        "tuples-random",
        &[
            (SHUFFLED, &tuples(label, "\"random\"")),
            (LOSSES, &loss(label, "random")),
        ],
    );
    assert_ne!(weights(&hard), weights(&random));
    let nearest = "{ teacher = { nearest = 5 } }";
    let itself = "{ hard = { pool = 30, embedded_by = \"student\" } }";
    trains_with(
        "tuples-nearest",
        &[
            (SHUFFLED, &tuples(nearest, itself)),
            (LOSSES, &loss(nearest, "hard")),
        ],
    );
}

/// AML's `std`: no teacher at all.
#[test]
fn a_teacher_from_tuples_that_it_mines_itself() {
    let world = world();
    let recipe = TEACHER
        .replace(
            r#"kind = "shuffled", images = 8, views = 1"#,
            r#"kind = "tuples", tuples = 2, tuples_per_epoch = 8, student_sees = "tuples", positives = "label", negatives = 3, mining = { hard = { pool = 20000, embedded_by = "student" } }, views = 1"#,
        )
        .replace(
            r#"kind = "proxy-anchor", weight = 1.0, alpha = 32.0, margin = 0.1, proxy_rate_factor = 10.0"#,
            r#"kind = "tuple-contrastive", weight = 1.0, margin = 0.7, tuples = { references = "batch", positives = "label", mining = "hard", negatives = 3, own_teacher = false, reducer = "sum" }"#,
        );
    assert!(recipe.contains("embedded_by") && recipe.contains("own_teacher"));
    fs::write(world.path("tuple-teacher.toml"), &recipe).unwrap();
    let train = |recipe: &str| {
        [
            "teacher",
            "train",
            &world.at(recipe),
            "--data",
            &world.at("shelves"),
            "--run",
            &world.at("tuple-teacher"),
            "--out",
            &world.at("tuple.teacher"),
            "--compute",
            "cpu",
        ]
        .map(str::to_owned)
    };
    run_ok("eyas", train("tuple-teacher.toml"));
    assert!(world.path("tuple.teacher").exists());

    let too_many = recipe.replace("negatives = 3", "negatives = 6");
    fs::write(world.path("too-many.toml"), too_many).unwrap();
    let said = run("eyas", train("too-many.toml"));
    assert_eq!(said.code, Some(2), "{said:?}");
    let wanted =
        "6 negatives, each of another label, are asked for, but the training images have 6";
    assert!(said.err.contains(wanted), "{}", said.err);
}

/// Codes of an exported int8 bundle differ from f32 by nothing that a cosine shows.
const LAST_BITS: f64 = 1e-6;

#[test]
fn with_weights_that_int8_holds_as_they_are() {
    let precision = r#"precision = "f32""#;
    let rounded = |last_epochs: &str| {
        format!("{precision}\nquantize = {{ kind = \"int8\", last_epochs = {last_epochs} }}")
    };
    let world = world();
    let exported = |run: &str| {
        let words = ["export", &world.at(run), "--explain", "--json"];
        let said = run_ok("eyas", [&words[..], &["--precision", "int8"]].concat());
        let said: Value = serde_json::from_str(&said).unwrap();
        said["precisions"][0].clone()
    };
    let cosine = |exported: &Value| exported["min_cosine"].as_f64().unwrap();
    let plain = exported(&trains_with("exact", &[]));
    assert!(cosine(&plain) < 1.0 - 10.0 * LAST_BITS, "{plain}");
    // With a map, which changes the head after training, and without.
    for (name, last_epochs, map) in [
        ("rounded", "1", r#"map = { kind = "ridge", penalty = 0.1 }"#),
        ("rounded-unmapped", "2", r#"map = { kind = "none" }"#),
    ] {
        let run = trains_with(
            name,
            &[
                (precision, &rounded(last_epochs)),
                (r#"map = { kind = "ridge", penalty = 0.1 }"#, map),
            ],
        );
        let int8 = exported(&run);
        assert!(cosine(&int8) >= 1.0 - LAST_BITS, "{name}: {int8}");
        let rounding = &int8["rounding"];
        assert_eq!(rounding["scales"], "min-max", "{name}: {int8}");
        assert_eq!(rounding["equalized"], false, "{name}: {int8}");
    }
}
