//! A run that is killed again and again ends with the bytes of one that was not; one that
//! diverges leaves nothing broken; a second one in the same directory is refused.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use eyas_shared::random::Random;
use eyas_tests::{program, run, run_ok};
use serde_json::Value;

use super::end_to_end::{World, checkpoint_step, student_recipe, world};

/// Kills of one run.
const N_KILLS: usize = 50;

/// A student with all that has a state: moments, an average, an unfinished epoch, the best
/// weights so far, steps of the head alone, kept views, and steps that see rounded weights.
fn recipe() -> String {
    let replaced = student_recipe()
        .replace("epochs = 8", "epochs = 32")
        .replace("checkpoint_steps = 3", "checkpoint_steps = 1")
        .replace("crop = 48", "crop = 32")
        .replace(
            r#"kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }, { "#,
            "",
        )
        .replace(
            r#"map = { kind = "ridge", penalty = 0.1 }"#,
            r#"map = { kind = "none" }"#,
        )
        .replace(r#"keep = "last""#, r#"keep = "best""#)
        .replace(r#"average = "none""#, "average = { ema = 0.9 }")
        .replace(r#"clip = "none""#, "clip = { norm = 1.0 }")
        .replace("head_steps = 0", "head_steps = 10")
        .replace(
            r#"precision = "f32""#,
            "precision = \"f32\"\nquantize = { kind = \"int8\", last_epochs = 16 }",
        )
        .replace(
            r#"teacher_views = "cached""#,
            "teacher_views = { cached-views = 2 }",
        )
        .replace(
            r#"kind = "shuffled", images = 8"#,
            r#"kind = "per-label", labels = 4, images_per_label = 2"#,
        );
    for changed in [
        "checkpoint_steps = 1\n",
        "ema",
        "norm = 1.0",
        "head_steps = 10",
        "last_epochs = 16",
        "cached-views",
        "per-label",
        "best",
        "crop = 32",
        r#"map = { kind = "none" }"#,
    ] {
        assert!(replaced.contains(changed), "{changed}");
    }
    replaced
}

/// One thread: on a busy machine two wait for each other.
fn train_words(world: &World, recipe: &str, folder: &str) -> Vec<String> {
    let mut words = world.train_words_of(recipe, folder);
    let threads = words.iter().position(|word| word == "--threads").unwrap();
    words[threads + 1] = "1".to_owned();
    words
}

fn start(world: &World, recipe: &str, folder: &str) -> Child {
    program("eyas")
        .args(train_words(world, recipe, folder))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The lines of metrics.jsonl without their seconds.
fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut()
            .unwrap()
            .retain(|key, _| !key.contains("second"));
        line
    };
    text.lines().map(line).collect()
}

/// Trains once to the end and once with kills; both leave the same bytes.
#[track_caller]
fn ends_alike_when_killed(recipe: &str, name: &str, n_kills: usize) {
    let world = world();
    let file = format!("{name}.toml");
    let (whole, killed) = (format!("{name}-whole"), format!("{name}-killed"));
    fs::write(world.path(&file), recipe).unwrap();
    run_ok("eyas", train_words(world, &file, &whole));
    let n_steps = checkpoint_step(&world.path(&whole)).unwrap();

    let folder = world.path(&killed);
    let mut random = Random::new(11);
    for kill_idx in 0..n_kills {
        let before = checkpoint_step(&folder).unwrap_or(0);
        assert!(before < n_steps, "it was over before kill {kill_idx}");
        let mut child = start(world, &file, &killed);
        // Up to two steps further on, and then somewhere within a step.
        let wanted = before + random.below(3);
        while checkpoint_step(&folder).unwrap_or(0) < wanted && child.try_wait().unwrap().is_none()
        {
            std::thread::yield_now();
        }
        for _ in 0..random.below(3000) {
            std::thread::yield_now();
        }
        kill(child);
    }
    run_ok("eyas", train_words(world, &file, &killed));
    for name in [
        "checkpoint.safetensors",
        "best.safetensors",
        "student.safetensors",
    ] {
        let whole = fs::read(world.path(&whole).join(name)).unwrap();
        let killed = fs::read(folder.join(name)).unwrap();
        assert!(whole == killed, "{name} differs");
    }
    assert_eq!(metrics(&folder), metrics(&world.path(&whole)));
}

#[test]
fn a_run_killed_fifty_times_ends_with_the_same_bytes() {
    ends_alike_when_killed(&recipe(), "resume", N_KILLS);
}

/// Tuples that the student mines at the start of each epoch; its weights then are gone
/// when a run is killed later in the epoch.
#[test]
fn a_run_killed_within_epochs_of_mined_tuples_ends_with_the_same_bytes() {
    let of_images = r#"{ kind = "per-label", labels = 4, images_per_label = 2, views = 2 }"#;
    let regression = r#"{ kind = "regression", weight = 1.0 }"#;
    let recipe = recipe()
        .replace("epochs = 32", "epochs = 12")
        .replace("last_epochs = 16", "last_epochs = 6")
        .replace(
            of_images,
            r#"{ kind = "tuples", tuples = 2, tuples_per_epoch = 12, student_sees = "tuples", positives = "label", negatives = 3, mining = { hard = { pool = 20, embedded_by = "teacher" } }, views = 1 }"#,
        )
        .replace(
            regression,
            r#"{ kind = "tuple-contrastive", weight = 1.0, margin = 0.7, tuples = { references = "batch", positives = "label", mining = "hard", negatives = 3, own_teacher = true, reducer = "sum" } }"#,
        );
    for changed in [
        "epochs = 12\n",
        "last_epochs = 6",
        "tuples_per_epoch",
        "own_teacher",
    ] {
        assert!(recipe.contains(changed), "{changed}");
    }
    ends_alike_when_killed(&recipe, "tuples", 12);
}

/// Exponent of the loss scale in a run's checkpoint.
fn scale_exponent(run: &Path) -> i32 {
    let bytes = fs::read(run.join("checkpoint.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8_lossy(&bytes[8..][..header]).into_owned();
    let rest = text.split(r#"\"exponent\":"#).nth(1).unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

/// The first scale is 2^16. A loss so large overflows in the first steps, some of them
/// before a kill and some after: scale and skipped steps come back from the checkpoint.
#[test]
fn a_run_in_half_precision_killed_while_its_scale_falls_ends_with_the_same_bytes() {
    let recipe = recipe()
        .replace("epochs = 32", "epochs = 5")
        .replace("head_steps = 10", "head_steps = 2")
        .replace(
            "precision = \"f32\"\nquantize = { kind = \"int8\", last_epochs = 16 }",
            "precision = \"f16\"",
        )
        .replace(
            r#"kind = "regression", weight = 1.0"#,
            r#"kind = "regression", weight = 100000.0"#,
        );
    for changed in ["epochs = 5\n", "head_steps = 2", r#""f16""#, "100000.0"] {
        assert!(recipe.contains(changed), "{changed}");
    }
    ends_alike_when_killed(&recipe, "half", 5);
    let left = scale_exponent(&world().path("half-whole"));
    assert!((0..14).contains(&left), "the scale ended at 2^{left}");
}

#[test]
fn a_run_that_diverges_names_its_batch_and_leaves_no_broken_checkpoint() {
    let world = world();
    let recipe = student_recipe()
        .replace("peak = 1e-3", "peak = 1e30")
        .replace("checkpoint_steps = 3", "checkpoint_steps = 1");
    fs::write(world.path("diverges.toml"), recipe).unwrap();
    let said = run("eyas", train_words(world, "diverges.toml", "diverges"));
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("at step"), "{}", said.err);
    assert!(said.err.contains("shelves/train/"), "{}", said.err);
    let folder = world.path("diverges");
    assert!(!folder.join("student.json").exists());
    // Steps before it may have left one; no number in it is broken.
    if let Ok(bytes) = fs::read(folder.join("checkpoint.safetensors")) {
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let values = bytes[8 + header..].as_chunks::<4>().0.iter();
        assert!(values.copied().map(f32::from_le_bytes).all(f32::is_finite));
    }
}

/// So large a rate that the first step leaves infinite weights.
const TO_INFINITY: (&str, &str) = ("peak = 1e-3", "peak = 1e38");

/// Trains with changes that leave numbers that are not finite; returns what was said.
#[track_caller]
fn breaks(name: &str, changes: &[(&str, &str)]) -> String {
    let world = world();
    let mut recipe = student_recipe();
    for &(from, to) in changes {
        assert!(recipe.contains(from), "{from}");
        recipe = recipe.replace(from, to);
    }
    let file = format!("{name}.toml");
    fs::write(world.path(&file), recipe).unwrap();
    let said = run("eyas", train_words(world, &file, name));
    assert_eq!(said.code, Some(2), "{said:?}");
    let folder = world.path(name);
    for left in ["checkpoint.safetensors", "best.safetensors", "student.json"] {
        assert!(!folder.join(left).exists(), "{left}");
    }
    said.err
}

/// Whether an error lists images of a batch.
fn n_images_named(error: &str) -> usize {
    error.matches("shelves/train/").count()
}

const EVERY_STEP: (&str, &str) = ("checkpoint_steps = 3", "checkpoint_steps = 1");
const ONLY_AT_THE_END: (&str, &str) = ("checkpoint_steps = 3", "checkpoint_steps = 1000");

/// One step an epoch, whose best weights would be chosen before the next loss is seen.
const BEST_OF_STEPS: [(&str, &str); 4] = [
    ONLY_AT_THE_END,
    ("images = 8", "images = 32"),
    (r#"keep = "last""#, r#"keep = "best""#),
    (
        r#"map = { kind = "ridge", penalty = 0.1 }"#,
        r#"map = { kind = "none" }"#,
    ),
];

#[test]
fn a_weight_that_breaks_is_no_checkpoint_and_names_its_batch() {
    let at_checkpoint = breaks("breaks-at-checkpoint", &[TO_INFINITY, EVERY_STEP]);
    let at_epoch = [&[TO_INFINITY], &BEST_OF_STEPS[..]].concat();
    let at_epoch = breaks("breaks-at-epoch", &at_epoch);
    for (said, n_images) in [(at_checkpoint, 8), (at_epoch, 32)] {
        assert!(said.contains("no longer finite after step 0"), "{said}");
        assert!(said.contains("no checkpoint was written"), "{said}");
        assert_eq!(n_images_named(&said), n_images, "{said}");
    }
}

#[test]
fn a_running_statistic_that_breaks_is_not_kept_as_the_best() {
    // Variances of such pixels are beyond f32; losses, gradients and weights are not.
    let pixels = ("std = [0.25, 0.25, 0.25]", "std = [1e-25, 1e-25, 1e-25]");
    let changes = [&[pixels], &BEST_OF_STEPS[..]].concat();
    let said = breaks("breaks-a-statistic", &changes);
    assert!(
        said.contains("running_var` is no longer finite after step 0"),
        "{said}"
    );
    assert_eq!(n_images_named(&said), 32, "{said}");
}

#[test]
fn weights_that_can_not_be_rounded_name_step_and_batch() {
    let rounded = (
        r#"precision = "f32""#,
        "precision = \"f32\"\nquantize = { kind = \"int8\", last_epochs = 8 }",
    );
    let changes = [TO_INFINITY, ONLY_AT_THE_END, rounded];
    let said = breaks("breaks-at-rounding", &changes);
    assert!(said.contains("can not be rounded at step 1"), "{said}");
    assert_eq!(n_images_named(&said), 8, "{said}");
}

#[test]
fn a_second_run_in_one_directory_is_refused() {
    let world = world();
    let recipe = recipe().replace("epochs = 32", "epochs = 4000");
    fs::write(world.path("long.toml"), recipe).unwrap();
    let mut first = start(world, "long.toml", "shared-run");
    while checkpoint_step(&world.path("shared-run")).is_none()
        && first.try_wait().unwrap().is_none()
    {
        std::thread::yield_now();
    }
    let said = run("eyas", train_words(world, "long.toml", "shared-run"));
    kill(first);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.err.contains("another process trains in"),
        "{}",
        said.err
    );
    assert!(said.err.contains("shared-run/lock"), "{}", said.err);
}
