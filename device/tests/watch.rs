//! `eyas-device watch` as a camera and a script meet it.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use eyas_device::{encoder, selftest};
use eyas_shared::gallery::Codes;
use serde_json::Value;
use tempfile::TempDir;

#[allow(dead_code, reason = "the tests of the library use the rest")]
#[path = "../src/test_data.rs"]
mod test_data;

use test_data::{bundle, embeddings, gallery_of};

const DIM: u32 = 6;

/// A photograph of the tests of the preprocessing.
fn jpeg() -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("../tests/golden/pixels/rgb.jpg")).unwrap()
}

fn board() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let gallery = |seed| {
        let rows = embeddings(5, DIM as usize, seed);
        gallery_of(&rows, &[0, 1, 2, 3, 4], Codes::F16)
    };
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
    write("b", bundle(DIM));
    write("g", gallery(2));
    write("g2", gallery(3));
    folder
}

fn command(board: &TempDir, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eyas-device"));
    command.current_dir(board.path()).args(arguments.split(' '));
    command
}

fn start(board: &TempDir, arguments: &str) -> Child {
    command(board, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The next answer of a running program.
fn next(out: &mut impl BufRead) -> Value {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["schema"], "eyas.watch/1");
    answer
}

#[test]
fn frames_of_a_stream_are_answered_and_damaged_ones_counted() {
    let board = board();
    let jpeg = jpeg();
    let mut child = start(
        &board,
        "watch --mjpeg - --all-frames --bundle b --gallery g",
    );
    let stream = [&jpeg[..], &jpeg[..jpeg.len() / 2], &jpeg, b"between", &jpeg].concat();
    child.stdin.take().unwrap().write_all(&stream).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let out = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 3, "{out}");
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["frame"], number);
        assert_eq!(answer["n_dropped"], 0);
        assert_eq!(answer["matches"], answers[0]["matches"]);
        assert_eq!(answer["generation"], Value::Null);
    }
    assert_eq!(answers[2]["n_damaged"], 1);
}

#[test]
fn a_frame_that_is_no_image_is_told_and_the_next_one_answered() {
    let board = board();
    let mut child = start(
        &board,
        "watch --mjpeg - --all-frames --bundle b --gallery g",
    );
    let hollow = [0xff, 0xd8, 0xff, 0xd9];
    let stream = [&hollow[..], &jpeg()].concat();
    child.stdin.take().unwrap().write_all(&stream).unwrap();
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        answers[0]["error"].as_str().unwrap().contains("JPEG"),
        "{out}"
    );
    assert_eq!(answers[1]["matches"][0]["rank"], 1);
}

#[test]
fn photographs_that_appear_in_a_folder_are_answered_once() {
    let board = board();
    let photos = board.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("before.jpg"), jpeg()).unwrap();
    let watch = "watch photos --interval 10 --existing --remove --bundle b --gallery g";
    let mut child = start(&board, watch);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(next(&mut out)["image"], "photos/before.jpg");
    fs::write(board.path().join("part"), jpeg()).unwrap();
    fs::rename(board.path().join("part"), photos.join("renamed.jpg")).unwrap();
    let answer = next(&mut out);
    assert_eq!(answer["image"], "photos/renamed.jpg");
    assert_eq!(answer["matches"].as_array().unwrap().len(), 5);
    fs::write(photos.join("text.jpg"), "no image").unwrap();
    let answer = next(&mut out);
    assert_eq!(answer["image"], "photos/text.jpg");
    assert!(answer["error"].is_string());
    // What was answered is removed before the next answer is given.
    assert!(!photos.join("renamed.jpg").exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_answer_confirms_a_trial_and_a_new_generation_is_taken_up() {
    let board = board();
    let run = |arguments: &str| {
        let output = command(&board, arguments).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments}: {err}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    run("init --store s --unsigned");
    run("install --store s b g");
    let mut child = start(&board, "watch --mjpeg - --all-frames --store s");
    let (mut camera, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut out = BufReader::new(out);
    camera.write_all(&jpeg()).unwrap();
    let first = next(&mut out);
    assert_eq!(first["generation"], 1);
    run("install --store s g2");
    // The answer before said that generation 1 is confirmed.
    assert_eq!(run("status --store s --json")["confirmed"]["number"], 1);
    camera.write_all(&jpeg()).unwrap();
    let second = next(&mut out);
    assert_eq!(second["generation"], 2);
    assert_ne!(second["matches"][0]["score"], first["matches"][0]["score"]);
    drop(camera);
    assert!(child.wait().unwrap().success());
    assert_eq!(run("status --store s --json")["confirmed"]["number"], 2);
}

#[test]
fn a_stream_without_a_whole_image_says_so() {
    let board = board();
    let jpeg = jpeg();
    let half = &jpeg[..jpeg.len() / 2];
    for (stream, words) in [
        (half, "it ended within its first image, after"),
        (b"RIFF....AVI LIST", "no JPEG image is in its 16 bytes"),
    ] {
        let mut child = command(&board, "watch --mjpeg - --bundle b --gallery g")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stream).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(words), "{err}");
        assert!(output.stdout.is_empty());
    }
}
