//! Run directories, as `eyas runs` tells of them.

use std::fs;

use eyas_tests::{run, run_ok};
use serde_json::Value;

use super::end_to_end::world;

fn json(words: &[&str]) -> Value {
    let said = run_ok("eyas", [&["runs"], words, &["--json"]].concat());
    serde_json::from_str(&said).unwrap()
}

#[test]
fn runs_are_listed_shown_and_compared() {
    let world = world();
    let folder = world.path("run");
    let at = folder.display().to_string();

    let listed = json(&["list", &at]);
    let [entry] = &listed["runs"].as_array().unwrap()[..] else {
        panic!("{listed}");
    };
    assert_eq!(entry["name"], "small-student");
    assert_eq!(entry["state"], "finished");
    assert_eq!(
        (&entry["epochs_done"], &entry["epochs"]),
        (&8.into(), &8.into())
    );
    assert_eq!(entry["loss"], "relaxed-contrastive + regression");

    let shown = json(&["show", &at]);
    assert_eq!(shown["curve"].as_array().unwrap().len(), 8);
    let files = shown["files"].as_array().unwrap();
    for name in ["train.log", "metrics.jsonl", "events.out.tfevents.eyas"] {
        assert!(
            files.iter().any(|file| file["name"] == name),
            "{name}: {shown}"
        );
    }
    let text = run_ok("eyas", ["runs", "show", &at]);
    assert!(text.contains("8/8 epochs") && text.contains('#'), "{text}");

    // The same files with another recipe are another run.
    let other = tempfile::tempdir().unwrap();
    for name in ["recipe.toml", "train.log", "metrics.jsonl"] {
        fs::copy(folder.join(name), other.path().join(name)).unwrap();
    }
    let recipe = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    fs::write(
        other.path().join("recipe.toml"),
        recipe.replace("seed = 3", "seed = 4"),
    )
    .unwrap();
    let other = other.path().display().to_string();
    let compared = json(&["compare", &at, &other]);
    let expected = serde_json::json!([{ "key": "seed", "a": "3", "b": "4" }]);
    assert_eq!(compared["recipe"], expected);

    let said = run("eyas", ["runs", "show", &world.at("shelves")]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("no run directory"), "{}", said.err);
}
