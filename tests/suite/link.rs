//! Host and board as two programs with a cable between them: the same answers as on the
//! board itself, whatever becomes of the cable or of one of the two.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eyas_device::port::{BASE_BAUD, Port};
use eyas_shared::gallery::RowEncoding;
use eyas_shared::link::frame::Deframer;
use eyas_shared::link::packet::{Packet, Refusal, Versions};
use eyas_shared::random::Random;
use eyas_tests::cable::Cable;
use eyas_tests::{Said, program, run};
use serde_json::Value;

use crate::desk::{Board, DIM, Desk, eyas, eyas_ok, matches, photograph};
use crate::test_data::embeddings;

/// What may be on its way when a link breaks: the window, and what the board has not
/// written down yet.
const WINDOW_AND_CHECKPOINT: u64 = (32 << 10) + (64 << 10);

#[test]
fn a_photograph_over_the_cable_is_answered_as_on_the_board() {
    let desk = Desk::new();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    let image = photograph();
    let words = ["query", &image.display().to_string(), "--json"];
    let expected = desk.local_matches(&image);
    assert_eq!(matches(&eyas(&cable, &words)), expected);
    // Also over a cable that damages one byte in a thousand.
    cable.damage_every(1000);
    assert_eq!(matches(&eyas(&cable, &words)), expected);
}

#[test]
fn a_photograph_over_standard_input_is_answered_as_on_the_board() {
    let desk = Desk::new();
    let image = photograph();
    let device = program("eyas-device").get_program().to_owned();
    let served = desk.serve_words().join(" ");
    let command = format!("{} serve --stdio {served}", device.display());
    let image_name = image.display().to_string();
    let words = ["query", &image_name, "--json", "--stdio-command", &command];
    assert_eq!(matches(&run("eyas", words)), desk.local_matches(&image));
}

#[test]
fn a_board_tells_what_it_serves_and_the_doctor_finds_it_sound() {
    let desk = Desk::new();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    let said = eyas(&cable, &["info", "--json"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let info: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(info["student"]["dim"], DIM);
    assert_eq!(info["gallery"]["n_rows"], 5);
    let said = eyas(&cable, &["doctor"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(said.out.contains("the link is sound"), "{said:#?}");
}

#[test]
fn what_a_board_serves_can_be_pulled() {
    let desk = Desk::new();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    for (what, original) in [("bundle", "b"), ("gallery", "g")] {
        let copy = desk.at("copy");
        let said = eyas(&cable, &["pull", what, "--out", &copy]);
        assert_eq!(said.code, Some(0), "{said:#?}");
        assert_eq!(
            fs::read(&copy).unwrap(),
            fs::read(desk.path(original)).unwrap()
        );
    }
}

#[test]
fn the_doctor_names_what_is_wrong() {
    let desk = Desk::new();
    let cable = Cable::new();
    let port = cable.host.display().to_string();
    let name_of = |said: Said| {
        assert_eq!(said.code, Some(1), "{said:#?}");
        let object: Value = serde_json::from_str(&said.out).unwrap();
        assert!(!object["remedy"].as_str().unwrap().is_empty());
        object["fault"].as_str().unwrap().to_owned()
    };
    let doctor = |place: &[&str]| {
        let words = ["doctor", "--json", "--wait", "1"];
        name_of(run("eyas", [&words[..], place].concat()))
    };
    assert_eq!(doctor(&["--port", &port]), "no-reply");
    assert_eq!(doctor(&["--port", &desk.at("absent")]), "absent");
    assert_eq!(doctor(&["--port", &desk.at("b")]), "no-serial-port");
    assert_eq!(doctor(&["--stdio-command", "true"]), "lost");
    let noise = "while printf 'login: '; do :; done";
    assert_eq!(doctor(&["--stdio-command", noise]), "noise");
    let _holder = desk.serve(&cable);
    let held = cable.board.display().to_string();
    // Once it answers at the other end, it has its own open.
    let said = eyas(&cable, &["info"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert_eq!(doctor(&["--port", &held]), "busy");
}

/// A peer that answers whatever opens a session with versions of its own.
fn speak_only(cable: &Cable, versions: Versions) -> impl FnOnce() {
    let mut port = Port::open(&cable.board, BASE_BAUD).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&is_over);
    let peer = std::thread::spawn(move || {
        let mut deframer = Deframer::new();
        let mut bytes = [0; 4096];
        while !until.load(Ordering::Relaxed) {
            port.wait(false, None, Duration::from_millis(50)).unwrap();
            let n = port.read(&mut bytes).unwrap();
            let mut answer = Vec::new();
            deframer.feed(&bytes[..n], |frame| {
                if let Some(Packet::Open(..)) = Packet::read(&frame) {
                    let refusal = Packet::Reset(Refusal::Version(versions));
                    refusal.write(frame.session, &mut answer);
                }
            });
            assert_eq!(port.write(&answer).unwrap(), answer.len());
        }
    });
    move || {
        is_over.store(true, Ordering::Relaxed);
        peer.join().unwrap();
    }
}

#[test]
fn the_doctor_names_the_side_that_is_too_old() {
    for (oldest, newest, name) in [(0, 0, "old-board"), (8, 9, "old-host")] {
        let cable = Cable::new();
        let end = speak_only(&cable, Versions { oldest, newest });
        let said = eyas(&cable, &["doctor", "--json"]);
        let info = eyas(&cable, &["info"]);
        end();
        assert_eq!(said.code, Some(1), "{said:#?}");
        let object: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(object["fault"], name, "{said:#?}");
        let remedy = object["remedy"].as_str().unwrap();
        assert!(remedy.contains("install a newer `eyas"), "{remedy}");
        assert_eq!(info.code, Some(2), "{info:#?}");
        assert!(info.err.contains(remedy), "{info:#?}");
    }
}

#[test]
fn the_doctor_finds_the_speed_that_a_board_listens_at() {
    let desk = Desk::new();
    let cable = Cable::new();
    let mut command = program("eyas-device");
    command.arg("serve").arg("--port").arg(&cable.board);
    command.args(["--baud", "921600"]).args(desk.serve_words());
    let _board = Board::start(command);
    // It listens once somebody has found it there.
    eyas_ok(&cable, &["info", "--baud", "921600", "--wait", "60"]);
    let said = eyas(&cable, &["doctor", "--json", "--wait", "1"]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(object["fault"], "wrong-baud", "{said:#?}");
    let remedy = object["remedy"].as_str().unwrap();
    assert!(remedy.contains("--baud 921600"), "{remedy}");
}

#[test]
fn a_recording_can_be_taken_apart() {
    let desk = Desk::new();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    let record = desk.at("link.jsonl");
    let said = eyas(&cable, &["info", "--record", &record]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let said = run("eyas", ["doctor", "--replay", &record]);
    assert!(said.out.contains("opened: version 1"), "{said:#?}");
    assert!(said.out.contains("data #0"), "{said:#?}");
}

#[test]
fn a_simulated_line_is_measured() {
    let words = ["doctor", "--simulate", "--bit-errors", "1e-4", "--json"];
    let said = run("eyas", words);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(object["whole"], true);
    assert!(object["share_of_line"].as_f64().unwrap() > 0.65);
}

#[test]
fn a_board_ends_when_it_is_told_to_and_is_found_again() {
    let desk = Desk::new();
    let cable = Cable::new();
    let image = photograph().display().to_string();
    let words = ["query", &image, "--json"];
    for _ in 0..3 {
        let mut killed = desk.serve(&cable);
        matches(&eyas(&cable, &words));
        killed.kill();
        let board = desk.serve(&cable);
        matches(&eyas(&cable, &words));
        let (code, _) = board.terminate_within(Duration::from_secs(20));
        assert_eq!(code, Some(0));
    }
}

#[test]
fn what_is_pushed_serves_and_is_not_sent_twice() {
    let desk = Desk::new();
    desk.init_store();
    let cable = Cable::new();
    let _board = desk.serve_store(&cable);
    let image = photograph();
    let query = ["query", &image.display().to_string(), "--json"];
    let said = eyas(&cable, &query);
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(said.err.contains("nothing is installed"), "{said:#?}");

    let push = ["push", &desk.at("b"), &desk.at("g")];
    let said = eyas(&cable, &push);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(
        said.out.contains("on trial until it has answered"),
        "{said:#?}"
    );
    assert_eq!(matches(&eyas(&cable, &query)), desk.local_matches(&image));

    let said = eyas(&cable, &push);
    assert_eq!(
        said.out.matches("the board has it already").count(),
        2,
        "{said:#?}"
    );
    assert!(said.out.ends_with("generation 1 serves\n"), "{said:#?}");
}

#[test]
fn what_the_board_refuses_changes_nothing() {
    let desk = Desk::new();
    desk.init_store();
    let cable = Cable::new();
    let _board = desk.serve_store(&cable);
    assert_eq!(
        eyas(&cable, &["push", &desk.at("b"), &desk.at("g")]).code,
        Some(0)
    );
    let image = photograph();
    let query = ["query", &image.display().to_string(), "--json"];
    let expected = matches(&eyas(&cable, &query));

    let rows = embeddings(3, DIM as usize, 9);
    let other = crate::test_data::space(8);
    let gallery = crate::test_data::gallery_in(other, &rows, &[0, 1, 2], RowEncoding::F32.into());
    fs::write(desk.path("other"), gallery).unwrap();
    let said = eyas(&cable, &["push", &desk.at("other")]);
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(
        said.err.contains("come from different teachers"),
        "{said:#?}"
    );
    assert_eq!(matches(&eyas(&cable, &query)), expected);
    let said = eyas(&cable, &["info"]);
    assert!(
        said.out.contains("come from different teachers"),
        "{said:#?}"
    );
}

#[test]
fn a_push_goes_on_after_the_board_was_killed() {
    let desk = Desk::large();
    let cable = Cable::new();
    let mut board = desk.serve_store(&cable);
    let bytes = fs::metadata(desk.path("g")).unwrap().len();
    let pushing = desk.push(&cable);
    let n_kills = n_kills();
    let mut random = Random::new(7).fork("kills");
    for kill in 0..n_kills {
        // Anywhere in its share of the file.
        let at = (kill as f64 + random.unit()) / n_kills as f64 * bytes as f64;
        assert!(cable.wait_for_bytes(at as u64));
        board.kill();
        board = desk.serve_store(&cable);
    }
    let said = Said::from(pushing.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(object["generation"], 1);
    let allowed = bytes + bytes / 10 + n_kills as u64 * 2 * WINDOW_AND_CHECKPOINT;
    let sent = cable.bytes_to_board();
    println!("{bytes} bytes took {sent} on the cable with {n_kills} kills");
    assert!(sent <= allowed, "{sent} > {allowed}");
    let image = photograph();
    let query = ["query", &image.display().to_string(), "--json"];
    assert_eq!(matches(&eyas(&cable, &query)), desk.local_matches(&image));
}

#[test]
fn a_push_goes_on_where_one_that_was_killed_ended() {
    let desk = Desk::large();
    let cable = Cable::new();
    let _board = desk.serve_store(&cable);
    let bytes = fs::metadata(desk.path("g")).unwrap().len();
    let mut pushing = desk.push(&cable);
    assert!(cable.wait_for_bytes(bytes / 2));
    pushing.kill().unwrap();
    pushing.wait().unwrap();
    let said = Said::from(desk.push(&cable).wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    let had = object["files"][1]["had"].as_u64().unwrap();
    assert!(
        had + WINDOW_AND_CHECKPOINT > bytes / 2 - (64 << 10),
        "{said:#?}"
    );
}

/// How often a board is killed: `EYAS_LINK_KILLS`, or a few times.
fn n_kills() -> usize {
    let kills = std::env::var("EYAS_LINK_KILLS").ok();
    kills.and_then(|text| text.parse().ok()).unwrap_or(3)
}
