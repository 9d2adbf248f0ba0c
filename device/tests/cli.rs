//! The command line as a user meets it: output, messages and exit codes.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use eyas_device::answer::{Asked, Nearest};
use eyas_device::matcher::Matcher;
use eyas_device::{encoder, selftest};
use eyas_shared::bundle::Bundle;
use eyas_shared::calibration::{Verdict, Witness};
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use eyas_shared::gallery::{Codes, Entry, Fresh, Gallery, GallerySource, Plan};
use serde_json::Value;
use tempfile::TempDir;

#[allow(dead_code, reason = "the tests of the library use the rest")]
#[path = "../src/test_data.rs"]
mod test_data;

use test_data::{
    bundle, bundle_around, calibration_of, embeddings, gallery_in, gallery_of, onnx, space,
};

const DIM: u32 = 6;

/// An image of 4 x 3 pixels.
const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52,
    0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x03, 0x08, 0x02, 0x00, 0x00, 0x00, 0x3b, 0x96, 0x39,
    0x91, 0x00, 0x00, 0x00, 0x18, 0x49, 0x44, 0x41, 0x54, 0x78, 0xda, 0x63, 0x64, 0x60, 0xa8, 0xb0,
    0x61, 0x60, 0x80, 0x20, 0x16, 0x86, 0x28, 0x06, 0x38, 0x40, 0xe1, 0x00, 0x00, 0x34, 0x98, 0x01,
    0xea, 0xeb, 0x89, 0x1c, 0x8e, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60,
    0x82,
];

struct Board {
    folder: TempDir,
}

impl Board {
    fn new() -> Self {
        let board = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let rows = embeddings(5, DIM as usize, 2);
        fs::write(board.at("b"), bundle(DIM)).unwrap();
        fs::write(
            board.at("g"),
            gallery_of(&rows, &[0, 1, 2, 3, 4], Codes::F16),
        )
        .unwrap();
        fs::create_dir(board.at("photos")).unwrap();
        fs::write(board.at("photos/good.png"), PNG).unwrap();
        board
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `eyas-device ARGUMENTS` in the folder.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eyas-device"));
        command
            .current_dir(self.folder.path())
            .args(arguments.split(' '));
        command
    }

    #[track_caller]
    fn run(&self, arguments: &str, expected_code: i32) -> (String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let (stdout, stderr) = (
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
        );
        assert_eq!(
            status.code(),
            Some(expected_code),
            "{arguments}\n{stdout}\n{stderr}"
        );
        (stdout, stderr)
    }
}

#[test]
fn a_query_prints_ranked_matches_and_times() {
    let (stdout, stderr) =
        Board::new().run("query photos/good.png --bundle b --gallery g --top-k 2", 0);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], "photos/good.png");
    assert!(
        lines[1].starts_with("   1  ") && lines[1].ends_with(".jpg"),
        "{stdout}"
    );
    assert!(lines[2].starts_with("   2  "), "{stdout}");
    assert_eq!(lines[3], "time");
    for (line, stage) in lines[4..]
        .iter()
        .zip(["decode", "preprocess", "encode", "search"])
    {
        assert!(line.contains(stage) && line.ends_with(" ms"), "{line}");
    }
    assert_eq!(stderr, "");
}

#[test]
fn a_store_answers_as_the_files_that_were_installed() {
    let board = Board::new();
    let query = "query photos/good.png --json";
    let matches = |stdout: &str| {
        let answer: Value = serde_json::from_str(stdout).unwrap();
        assert!(!answer["matches"].as_array().unwrap().is_empty());
        answer["matches"].clone()
    };
    board.run("init --store s --unsigned", 0);
    let (_, stderr) = board.run(&format!("{query} --store s"), 2);
    assert!(stderr.contains("nothing is installed in `s`"), "{stderr}");
    // Also while it is on trial.
    board.run("install --store s b g", 0);
    let (from_store, _) = board.run(&format!("{query} --store s"), 0);
    let (from_files, _) = board.run(&format!("{query} --bundle b --gallery g"), 0);
    assert_eq!(matches(&from_store), matches(&from_files));
    for either in ["--store s --bundle b --gallery g", "--bundle b"] {
        board.run(&format!("{query} {either}"), 2);
    }
    let (_, stderr) = board.run(&format!("{query} --store absent"), 2);
    assert!(stderr.contains("`absent` is not set up"), "{stderr}");
}

#[test]
fn pictures_of_what_was_found_are_written_where_there_are_some() {
    let board = Board::new();
    let query = "query photos/good.png --bundle b --top-k 2 --json --save-thumbnails found";
    let (_, stderr) = board.run(&format!("{query} --gallery g"), 2);
    assert!(stderr.contains("has no thumbnails"), "{stderr}");
    assert!(!board.at("found").exists());
    let pictures: Vec<Vec<u8>> = (0..5)
        .map(|i| format!("picture {i}").into_bytes())
        .collect();
    let rows = embeddings(5, DIM as usize, 2);
    let ids: [ImageId; 5] = std::array::from_fn(|i| ImageId([i as u8; 16]));
    let entry = |id| Entry {
        id,
        label: "tea",
        name: "tea.jpg",
    };
    let records = Fresh {
        rows: &rows,
        entries: &ids.map(entry),
        thumbnails: &pictures,
    };
    let source = GallerySource {
        space: space(7),
        teacher: "teacher".to_owned(),
        manifest: Fingerprint([1; 32]),
        codes: Codes::F16,
    };
    let shown = Plan::new(&source, &records).unwrap().to_bytes();
    fs::write(board.at("shown"), shown).unwrap();
    let (stdout, _) = board.run(&format!("{query} --gallery shown"), 0);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    for found in answer["matches"].as_array().unwrap() {
        let id = found["id"].as_str().unwrap();
        let written = fs::read(board.at(&format!("found/{id}.jpg"))).unwrap();
        let row: usize = id[..2].parse().unwrap();
        assert_eq!(written, pictures[row]);
    }
    assert_eq!(fs::read_dir(board.at("found")).unwrap().count(), 2);
}

#[test]
fn a_filtered_query_finds_only_what_is_let_through() {
    let board = Board::new();
    let found = |filter: &str| -> Vec<Value> {
        let words =
            format!("query photos/good.png --bundle b --gallery g --top-k 9 --json{filter}");
        let answer: Value = serde_json::from_str(&board.run(&words, 0).0).unwrap();
        answer["matches"].as_array().unwrap().clone()
    };
    let all = found("");
    let pears = found(" --only-label pear");
    assert!(!pears.is_empty() && pears.len() < all.len());
    assert!(pears.iter().all(|found| found["label"] == "pear"));
    let id = all[1]["id"].as_str().unwrap();
    let one = found(&format!(" --only-id {id}"));
    assert_eq!(one.len(), 1);
    assert_eq!(one[0]["id"], all[1]["id"]);
    let refused = |filter: &str| {
        let words = format!("query photos/good.png --bundle b --gallery g {filter}");
        board.run(&words, 2).1
    };
    assert!(refused("--only-label plum").contains("`plum`"));
    assert!(refused("--only-id 00").contains("32 hexadecimal digits"));
    assert!(refused(&format!("--only-id {}", "0f".repeat(16))).contains("has no image"));
}

#[test]
fn an_unreadable_image_is_named_and_the_others_are_answered() {
    let board = Board::new();
    fs::write(board.at("photos/broken.jpg"), &[0xff, 0xd8, 0xff][..]).unwrap();
    fs::write(board.at("photos/notes.txt"), b"no image").unwrap();
    let (stdout, stderr) = board.run("query photos missing.png --bundle b --gallery g --json", 2);
    let answers: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 1, "{stdout}");
    let answer = &answers[0];
    assert_eq!(answer["schema"], "eyas.query/1");
    assert!(answer["image"].as_str().unwrap().ends_with("good.png"));
    assert_eq!(answer["space_id"], space(7).0.to_string());
    assert!(answer["timing_us"]["total"].is_u64());
    let matches = answer["matches"].as_array().unwrap();
    assert_eq!(matches.len(), 5);
    assert_eq!(matches[0]["rank"], 1);
    assert_eq!(matches[0]["id"].as_str().unwrap().len(), 32);
    assert!(matches[0]["score"].as_f64() >= matches[1]["score"].as_f64());
    assert!(
        stderr.contains("broken.jpg") && stderr.contains("missing.png"),
        "{stderr}"
    );
}

#[test]
fn an_image_is_read_from_standard_input() {
    let board = Board::new();
    let (from_file, _) = board.run("query photos/good.png --bundle b --gallery g", 0);
    let mut child = board
        .command("query - --bundle b --gallery g")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(PNG).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let ranked =
        |text: &str| -> Vec<String> { text.lines().skip(1).take(5).map(str::to_owned).collect() };
    assert_eq!(
        ranked(&String::from_utf8(output.stdout).unwrap()),
        ranked(&from_file)
    );
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let board = Board::new();
    let mut child = board
        .command("query photos --bundle b --gallery g")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_gallery_of_another_teacher_is_refused_with_a_hint() {
    let board = Board::new();
    let rows = embeddings(2, DIM as usize, 2);
    fs::write(
        board.at("other"),
        gallery_in(space(9), &rows, &[0, 1], Codes::F32),
    )
    .unwrap();
    let (stdout, stderr) = board.run("query photos --bundle b --gallery other", 2);
    assert_eq!(stdout, "");
    let start = "error: student and gallery come from different teachers: \
                 student `0707070707070707`, gallery `0909090909090909`";
    assert!(stderr.starts_with(start), "{stderr}");
    assert!(stderr.contains("\n\nhint: "), "{stderr}");
}

#[test]
fn a_damaged_bundle_is_refused_with_its_path_and_a_hint() {
    let board = Board::new();
    let whole = bundle(DIM);
    fs::write(board.at("cut"), &whole[..whole.len() / 2]).unwrap();
    for arguments in [
        "selftest --bundle cut",
        "info cut",
        "query photos --bundle cut --gallery g",
    ] {
        let (_, stderr) = board.run(arguments, 2);
        assert!(stderr.contains("`cut`: cut short"), "{stderr}");
        assert!(stderr.contains("hint: copy the file again"), "{stderr}");
    }
}

#[test]
fn selftest_answers_yes_or_no() {
    let board = Board::new();
    let (stdout, _) = board.run("selftest --bundle b", 0);
    assert!(
        stdout.contains("this machine reproduces the bundle"),
        "{stdout}"
    );
    let wrong = bundle_around(&onnx(i64::from(DIM)), DIM, embeddings(2, DIM as usize, 5));
    fs::write(board.at("wrong"), wrong).unwrap();
    let (stdout, _) = board.run("selftest --bundle wrong --json", 1);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["schema"], "eyas.selftest/1");
    assert_eq!(answer["passed"], false);
    assert_eq!(answer["same_pixels"], true);
    assert_eq!(answer["cosines"].as_array().unwrap().len(), 2);
}

#[test]
fn info_tells_bundles_and_galleries_apart_by_their_content() {
    let board = Board::new();
    let json = |arguments| -> Value { serde_json::from_str(&board.run(arguments, 0).0).unwrap() };
    let bundle = json("info b --json");
    assert_eq!(bundle["schema"], "eyas.info/1");
    assert_eq!(bundle["kind"], "bundle");
    assert_eq!(bundle["operators"]["Conv"], 1);
    assert_eq!(bundle["space_id"], space(7).0.to_string());
    let gallery = json("info g --json");
    assert_eq!(gallery["kind"], "gallery");
    assert_eq!(gallery["n_rows"], 5);
    assert_eq!(gallery["codes"], "f16");
    let sections = gallery["sections"].as_array().unwrap();
    assert!(
        sections
            .iter()
            .any(|s| s["name"] == "ROWS" && s["bytes"] == 5 * DIM * 2)
    );
    let (text, _) = board.run("info b", 0);
    assert!(
        text.contains("operators") && text.contains("Conv x1"),
        "{text}"
    );
    let (_, stderr) = board.run("info photos/good.png", 2);
    assert!(stderr.contains("not an eyas file"), "{stderr}");
}

/// The bundle with a calibration for a gallery: a match from `match_score` on, unknown below
/// `unknown_score`; one witness, in the direction of the first component.
fn calibrated(gallery: &[u8], match_score: f32, unknown_score: f32) -> Vec<u8> {
    let bytes = bundle(DIM);
    let mut bundle = Bundle::read(&bytes).unwrap();
    let gallery = Gallery::open(gallery).unwrap();
    let mut calibration = calibration_of(&gallery, match_score, unknown_score, 0.0);
    let matcher = Matcher::new(gallery);
    let nearest = |embedding: &[f32]| {
        let asked = Asked::single(embedding.to_vec());
        Nearest::of(&matcher, &asked, None).unwrap()
    };
    let probes = bundle.probe_embeddings.rows();
    calibration.probe_scores = probes.map(|probe| nearest(probe).score).collect();
    let mut direction = vec![0.0; DIM as usize];
    direction[0] = 1.0;
    let found = nearest(&direction);
    calibration.witnesses = vec![Witness {
        margin: found.margin(),
        label: found.label,
        score: found.score,
        verdict: Verdict::Uncertain,
    }];
    calibration.witness_embeddings = direction;
    bundle.calibrate(calibration).unwrap();
    bundle.to_bytes()
}

#[test]
fn a_calibrated_bundle_answers_with_a_verdict_and_its_reason() {
    let board = Board::new();
    let gallery = fs::read(board.at("g")).unwrap();
    let asked = |verdict_of: (f32, f32)| -> (String, Value) {
        fs::write(
            board.at("c"),
            calibrated(&gallery, verdict_of.0, verdict_of.1),
        )
        .unwrap();
        let (text, _) = board.run("query photos/good.png --bundle c --gallery g", 0);
        let (json, _) = board.run("query photos/good.png --bundle c --gallery g --json", 0);
        (text, serde_json::from_str(&json).unwrap())
    };
    for (thresholds, verdict, reason) in [
        ((-1.0, -1.0), "match", "clear"),
        ((1.1, -1.0), "uncertain", "between-thresholds"),
        ((1.2, 1.1), "unknown", "low-score"),
    ] {
        let (text, json) = asked(thresholds);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with(&format!("  {verdict}: ")), "{text}");
        assert!(
            text.contains("thresholds rest on 1 unknown queries of 1 labels"),
            "{text}"
        );
        assert_eq!(json["verdict"], verdict);
        assert_eq!(json["judgement"]["reason"], reason);
        assert_eq!(json["calibration"]["standing"], "same");
        assert_eq!(json["calibration"]["evidence"]["n_unknown"], 1);
    }
}

#[test]
fn a_calibration_for_another_gallery_gives_no_verdict_and_says_so() {
    let board = Board::new();
    let gallery = fs::read(board.at("g")).unwrap();
    fs::write(board.at("c"), calibrated(&gallery, 0.5, 0.1)).unwrap();
    let rows = embeddings(9, DIM as usize, 3);
    let other = gallery_of(&rows, &[10, 11, 12, 13, 14, 15, 16, 17, 18], Codes::F16);
    fs::write(board.at("other"), other).unwrap();
    let (text, _) = board.run("query photos/good.png --bundle c --gallery other", 0);
    assert!(text.contains("calibrated for another gallery"), "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("   1  "), "{text}");
    let (json, _) = board.run("query photos/good.png --bundle c --gallery other --json", 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"], Value::Null);
    assert_eq!(json["calibration"]["standing"], "other-gallery");
    let (text, _) = board.run("selftest --bundle c --gallery other", 1);
    assert!(text.contains("does NOT reproduce"), "{text}");
}

#[test]
fn labels_votes_views_and_expansion_are_shown() {
    let board = Board::new();
    let query = |arguments: &str| -> Value {
        let line = format!("query {arguments} --bundle b --gallery g --json");
        serde_json::from_str(&board.run(&line, 0).0).unwrap()
    };
    let labels = query("photos/good.png --group-by label");
    let matches = labels["matches"].as_array().unwrap();
    assert_eq!(matches.len(), 2);
    assert_ne!(matches[0]["label"], matches[1]["label"]);
    assert_eq!(labels["calibration"]["standing"], "uncalibrated");
    let voted = query("photos/good.png --vote 5");
    let votes = voted["matches"].as_array().unwrap().iter();
    assert_eq!(
        votes.map(|m| m["n_votes"].as_u64().unwrap()).sum::<u64>(),
        5
    );
    let single = query("photos/good.png --top-k 1");
    let twice = query("photos/good.png photos/good.png --as-one --top-k 1");
    assert_eq!(twice["views"].as_array().unwrap().len(), 2);
    let score = |answer: &Value| answer["matches"][0]["score"].as_f64().unwrap();
    assert!((score(&single) - score(&twice)).abs() < 1e-6);
    let expanded = query("photos/good.png --expand 2 --alpha 1 --top-k 5");
    assert_eq!(expanded["matches"].as_array().unwrap().len(), 5);
    let (_, stderr) = board.run("query photos/good.png --alpha 1 --bundle b --gallery g", 2);
    assert!(stderr.contains("--expand"), "{stderr}");
    let (_, stderr) = board.run(
        "query photos/good.png no.png --as-one --bundle b --gallery g",
        2,
    );
    assert!(stderr.contains("no.png"), "{stderr}");
}

#[test]
fn selftest_asks_the_witnesses_again() {
    let board = Board::new();
    let gallery = fs::read(board.at("g")).unwrap();
    let good = calibrated(&gallery, 0.9, 0.1);
    fs::write(board.at("c"), &good).unwrap();
    let (text, _) = board.run("selftest --bundle c --gallery g", 0);
    assert!(text.contains("calibrated for this gallery"), "{text}");
    assert!(text.contains("witnesses      1 asked"), "{text}");
    let (text, _) = board.run("selftest --bundle b --gallery g", 1);
    assert!(text.contains("calibration    NONE"), "{text}");
    let mut bundle = Bundle::read(&good).unwrap();
    let mut moved = bundle.calibrations[0].clone();
    moved.witnesses[0].score += 0.05;
    bundle.calibrate(moved).unwrap();
    assert_eq!(bundle.calibrations.len(), 1);
    fs::write(board.at("moved"), bundle.to_bytes()).unwrap();
    let (json, _) = board.run("selftest --bundle moved --gallery g --json", 1);
    let json: Value = serde_json::from_str(&json).unwrap();
    let change = json["calibration"]["max_score_change"].as_f64().unwrap();
    assert!((change - 0.05).abs() < 1e-3, "{change}");
    let info: Value = serde_json::from_str(&board.run("info c --json", 0).0).unwrap();
    assert_eq!(info["format_version"], 2);
    let content = &info["calibrations"][0]["gallery_content"];
    let gallery: Value = serde_json::from_str(&board.run("info g --json", 0).0).unwrap();
    assert_eq!(content, &gallery["content"]);
}

#[test]
fn a_hostile_calibration_is_refused_by_name() {
    let board = Board::new();
    let gallery = fs::read(board.at("g")).unwrap();
    let good = calibrated(&gallery, 0.9, 0.1);
    let spoiled = |spoil: fn(&mut eyas_shared::calibration::Calibration)| {
        let mut bundle = Bundle::read(&good).unwrap();
        spoil(&mut bundle.calibrations[0]);
        bundle.to_bytes()
    };
    for (bytes, what) in [
        (
            spoiled(|c| c.thresholds.match_score = f32::NAN),
            "a match from NaN",
        ),
        (
            spoiled(|c| c.evidence.n_unknown = 9),
            "the evidence 1 and 9",
        ),
        (
            spoiled(|c| c.witness_embeddings.truncate(3)),
            "3 values for 1 witnesses",
        ),
        (
            spoiled(|c| c.witness_embeddings[0] = f32::INFINITY),
            "witness 0 is not a unit vector",
        ),
    ] {
        fs::write(board.at("bad"), bytes).unwrap();
        let (_, stderr) = board.run("query photos/good.png --bundle bad --gallery g", 2);
        assert!(
            stderr.contains("calibration 0: ") && stderr.contains(what),
            "{stderr}"
        );
    }
}
