//! Losses that own tensors, compare maps or make a codebook train a student and go on from
//! a checkpoint; a student can teach the next generation.

use std::fs;
use std::process::Stdio;

use eyas_tests::{program, run, run_ok};
use serde_json::{Value, json};

use super::end_to_end::{checkpoint_step, student_recipe, world};

const FIRST_LOSS: &str =
    r#"{ kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }"#;

/// A codebook, memories with projections, regressors, and maps without any of their own.
const LOSSES_WITH_A_STATE: &str = r#"
    { kind = "structure-similarity", weight = 1.0, sub_spaces = 4, centroids = 8, scale = 10.0, iterations = 5 },
    { kind = "contrastive-representation", weight = 0.1, features = 8, negatives = 16, temperature = 0.07, momentum = 0.5, rate_factor = 1.0 },
    { kind = "knowledge-distillation", weight = 1.0, temperature = 4.0, scale = 32.0 },
    { kind = "map-hint", weight = 1.0, student = "body.0.relu", teacher = "body.1.relu", rate_factor = 1.0 },
    { kind = "variational-information", weight = 0.1, student = "body.1.relu", teacher = "body.1.relu", variance = 5.0, rate_factor = 1.0 },
    { kind = "attention-transfer", weight = 10.0, student = "fine.0.relu", teacher = "fine.0.relu", power = 2 },
    { kind = "solution-flow", weight = 1.0, student = ["fine.0.relu", "body.1.relu"], teacher = ["fine.0.relu", "body.1.relu"] }"#;

/// A recipe with maps of the teacher's network, which is of the student's own architecture.
fn recipe() -> String {
    let recipe = student_recipe()
        .replace("epochs = 8", "epochs = 3")
        .replace("checkpoint_steps = 3", "checkpoint_steps = 1")
        .replace(
            "architecture = \"eyas-xs\"",
            "architecture = \"eyas-xs\"\nteacher_network = \"eyas-xs\"",
        )
        .replace(FIRST_LOSS, LOSSES_WITH_A_STATE);
    assert!(recipe.contains("teacher_network") && recipe.contains("map-hint"));
    recipe
}

fn words(run: &str) -> Vec<String> {
    let world = world();
    let mut words = world.train_words_of("losses.toml", run);
    words.push("--teacher-network".to_owned());
    words.push(world.at("teacher/teacher.safetensors"));
    words
}

#[test]
fn losses_with_a_state_end_with_the_same_bytes_after_a_kill() {
    let world = world();
    fs::write(world.path("losses.toml"), recipe()).unwrap();
    run_ok("eyas", words("losses-whole"));
    let mut child = program("eyas")
        .args(words("losses-killed"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let killed = world.path("losses-killed");
    while checkpoint_step(&killed).is_none() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.join("student.json").exists(), "it was over at once");
    run_ok("eyas", words("losses-killed"));
    for name in ["checkpoint.safetensors", "student.safetensors"] {
        let whole = fs::read(world.path("losses-whole").join(name)).unwrap();
        assert!(
            whole == fs::read(killed.join(name)).unwrap(),
            "{name} differs"
        );
    }
}

#[test]
fn losses_of_maps_without_the_weights_of_their_network_are_refused() {
    let world = world();
    fs::write(world.path("no-network.toml"), recipe()).unwrap();
    let said = run(
        "eyas",
        world.train_words_of("no-network.toml", "no-network"),
    );
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("--teacher-network"), "{}", said.err);
}

#[test]
fn the_speed_of_losses_of_maps_is_measured_with_their_network() {
    let world = world();
    fs::write(world.path("speed.toml"), recipe()).unwrap();
    let measure = [
        "bench-training",
        &world.at("speed.toml"),
        "--data",
        &world.at("shelves"),
        "--compute",
        "cpu",
        "--steps",
        "2",
        "--json",
    ];
    let network = world.at("run/student.safetensors");
    let given = ["--teacher-network", &network];
    let said = run_ok("eyas", [&measure[..], &given].concat());
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert!(answer["together_per_second"].as_f64().unwrap() > 0.0);

    let said = run("eyas", measure);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("--teacher-network"), "{}", said.err);
    fs::write(world.path("no-maps.toml"), student_recipe()).unwrap();
    let mut without_maps = measure.to_vec();
    let recipe = world.at("no-maps.toml");
    without_maps[1] = &recipe;
    let said = run("eyas", [&without_maps[..], &given].concat());
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("has no teacher_network"), "{}", said.err);
}

#[test]
fn every_loss_is_timed_on_one_thread_and_on_those_asked_for() {
    let sizes = [
        "losses",
        "cost",
        "--rows",
        "8",
        "--dim",
        "16",
        "--gallery",
        "64",
        "--labels",
        "8",
    ];
    let step = ["--step-images", "2", "--compute", "cpu", "--threads", "2"];
    let said = run_ok("eyas", [&sizes[..], &step, &["--json"]].concat());
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["schema"], "eyas.losses-cost/1");
    assert_eq!(answer["maps"]["eyas-s: body.3.relu"], json!([128, 14, 14]));
    let listed: Value =
        serde_json::from_str(&run_ok("eyas", ["losses", "list", "--json"])).unwrap();
    let kinds = |losses: &Value| -> Vec<String> {
        let losses = losses.as_array().unwrap().iter();
        losses
            .map(|loss| loss["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let columns = answer["columns"].as_array().unwrap();
    let computes: Vec<&Value> = columns.iter().map(|column| &column["compute"]).collect();
    assert_eq!(computes, ["CPU, 1 threads", "CPU, 2 threads"]);
    for column in columns {
        assert_eq!(kinds(&column["losses"]), kinds(&listed["losses"]));
        let step = column["step_median_ms"].as_f64().unwrap();
        for loss in column["losses"].as_array().unwrap() {
            let (share, median) = (&loss["of_step"], &loss["median_ms"]);
            let expected = median.as_f64().unwrap() / step;
            assert!((share.as_f64().unwrap() - expected).abs() < 1e-12, "{loss}");
        }
    }
    let said = run("eyas", ["losses", "cost", "--rows", "6"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("multiple of 4"), "{}", said.err);
}

#[test]
fn a_check_of_losses_that_lacks_a_file_ends_with_its_counts() {
    let folder = tempfile::tempdir().unwrap();
    let index = json!({ "entries": [{
        "id": "means", "case": "a", "file": "gone.npz", "cls": "functional.spoc",
        "inputs": { "x": { "file": "gone.npz", "key": "x" } },
        "outputs": { "loss": "loss" },
    }] });
    fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
    let said = run("eyas", ["losses", "check", folder.path().to_str().unwrap()]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    let [failure, counts] = lines[..] else {
        panic!("{said:?}");
    };
    assert!(failure.starts_with("means (case a): "), "{failure}");
    assert!(failure.contains("gone.npz"), "{failure}");
    assert_eq!(counts, "0 passed, 1 failed, 0 not implemented");
}

#[test]
fn a_student_teaches_the_next_generation_of_itself() {
    let world = world();
    let export = [
        "export",
        &world.at("run"),
        "--out",
        &world.at("born"),
        "--onnx",
    ];
    run_ok("eyas", [&export[..], &["--name", "born"]].concat());
    let pixels = ["--resize", "48", "--crop", "48", "--mean", "0.5,0.5,0.5"];
    let import = [
        "teacher",
        "import",
        &world.at("born/born-f32.onnx"),
        "--data",
        &world.at("shelves"),
        "--no-projection",
        "--std",
        "0.25,0.25,0.25",
        "--out",
        &world.at("born.teacher"),
    ];
    run_ok("eyas", [&import[..], &pixels].concat());
    let recipe = student_recipe().replace("epochs = 8", "epochs = 1");
    fs::write(world.path("born.toml"), recipe).unwrap();
    let mut words = world.train_words_of("born.toml", "born-again");
    let teacher = words.iter().position(|word| word == "--teacher").unwrap();
    words[teacher + 1] = world.at("born.teacher");
    run_ok("eyas", words);
    assert!(world.path("born-again/student.json").exists());
}
