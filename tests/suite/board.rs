//! What a host does to a board over the cable, step by step: install, go back, bring up to
//! date, fetch.

use std::fs;
use std::path::PathBuf;

use eyas_shared::link::message::{Ask, Reply};
use eyas_tests::cable::Cable;
use eyas_tests::other_host::OtherHost;
use eyas_tests::{program, run};
use serde_json::Value;

use crate::desk::{Desk, asked, eyas, eyas_ok, photograph};

#[test]
fn a_board_goes_back_to_what_it_served_before() {
    let desk = Desk::new();
    desk.init_store();
    desk.write_gallery("g2", 9);
    let cable = Cable::new();
    let _board = desk.serve_store(&cable);
    let [old, new] = ["g", "g2"].map(|gallery| desk.matches_in(gallery, &photograph()));
    assert_ne!(old, new);

    let said = eyas(&cable, &["rollback"]);
    assert_eq!(said.code, Some(2), "{said:#?}");
    let nothing = "there is no earlier generation to go back to";
    assert!(said.err.contains(nothing), "{said:#?}");

    eyas_ok(&cable, &["push", &desk.at("b"), &desk.at("g")]);
    assert_eq!(asked(&cable), old);
    let said = eyas(&cable, &["rollback"]);
    assert!(said.err.contains(nothing), "{said:#?}");
    assert_eq!(asked(&cable), old);

    // From a trial, which nobody has asked yet.
    eyas_ok(&cable, &["push", &desk.at("g2")]);
    let said = eyas_ok(&cable, &["rollback"]);
    assert!(said.contains("generation 2 was left"), "{said}");
    assert!(said.contains("generation 1 serves"), "{said}");
    assert_eq!(asked(&cable), old);

    // From what has answered, and forth again.
    eyas_ok(&cable, &["push", &desk.at("g2")]);
    assert_eq!(asked(&cable), new);
    for (left, expected) in [(3, old), (4, new)] {
        let said = eyas_ok(&cable, &["rollback", "--json"]);
        let object: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(object["schema"], "eyas.rollback/1");
        assert_eq!(object["left"], left);
        assert_eq!(object["generation"], left + 1);
        assert_eq!(asked(&cable), expected);
    }
    let said = eyas_ok(&cable, &["info"]);
    assert!(said.contains("it was asked for over the link"), "{said}");
}

#[test]
fn a_board_without_a_store_has_nothing_to_go_back_to() {
    let desk = Desk::new();
    let device = program("eyas-device").get_program().to_owned();
    let served = desk.serve_words().join(" ");
    let command = format!("{} serve --stdio {served}", device.display());
    let said = run("eyas", ["rollback", "--stdio-command", &command]);
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(said.err.contains("has no store"), "{said:#?}");
    assert!(said.err.contains("--store"), "{said:#?}");
}

/// What lies of a file that is being fetched.
fn part_of(desk: &Desk, out: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(desk.path("")).unwrap().flatten();
    let is_part = |name: &str| name.starts_with(&format!(".{out}.")) && name.ends_with(".part");
    entries
        .find(|entry| entry.file_name().to_str().is_some_and(is_part))
        .map(|entry| entry.path())
}

/// `eyas pull gallery` to `copy`, killed once half of it has passed.
fn pull_half(desk: &Desk, cable: &Cable) {
    let bytes = fs::metadata(desk.path("g")).unwrap().len();
    let mut command = program("eyas");
    command.args(["pull", "gallery", "--out", &desk.at("copy"), "--port"]);
    let mut pulling = command.arg(&cable.host).spawn().unwrap();
    assert!(cable.wait_for_bytes_to_host(cable.bytes_to_host() + bytes / 2));
    pulling.kill().unwrap();
    pulling.wait().unwrap();
    assert!(!desk.path("copy").exists());
}

#[test]
fn a_pull_goes_on_where_one_that_was_killed_ended() {
    let desk = Desk::large();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    let bytes = fs::metadata(desk.path("g")).unwrap().len();
    pull_half(&desk, &cable);
    let part = part_of(&desk, "copy").unwrap();
    let had = fs::metadata(&part).unwrap().len();
    assert!(had > 0);
    let before = cable.bytes_to_host();
    let pull = ["pull", "gallery", "--out", &desk.at("copy")];
    let said = eyas_ok(&cable, &pull);
    assert!(said.contains("were here"), "{said}");
    let sent = cable.bytes_to_host() - before;
    println!("{had} of {bytes} bytes were there, {sent} passed afterwards");
    assert!(sent < bytes - had + bytes / 10 + (64 << 10), "{sent}");
    let whole = fs::read(desk.path("g")).unwrap();
    assert!(fs::read(desk.path("copy")).unwrap() == whole);
    assert!(!part.exists());
}

#[test]
fn what_rotted_on_the_disk_is_fetched_anew() {
    let desk = Desk::large();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    pull_half(&desk, &cable);
    let part = part_of(&desk, "copy").unwrap();
    let mut bytes = fs::read(&part).unwrap();
    bytes[1000] ^= 1;
    fs::write(&part, bytes).unwrap();
    eyas_ok(&cable, &["pull", "gallery", "--out", &desk.at("copy")]);
    let whole = fs::read(desk.path("g")).unwrap();
    assert!(fs::read(desk.path("copy")).unwrap() == whole);
}

#[test]
fn a_pull_goes_on_after_the_board_was_killed() {
    let desk = Desk::large();
    let cable = Cable::new();
    let mut board = desk.serve(&cable);
    let bytes = fs::metadata(desk.path("g")).unwrap().len();
    let mut command = program("eyas");
    command.args(["pull", "gallery", "--out", &desk.at("copy"), "--port"]);
    let mut pulling = command.arg(&cable.host).spawn().unwrap();
    for quarter in 1..=3 {
        assert!(cable.wait_for_bytes_to_host(quarter * bytes / 4));
        board.kill();
        board = desk.serve(&cable);
    }
    assert_eq!(pulling.wait().unwrap().code(), Some(0));
    let sent = cable.bytes_to_host();
    println!("{bytes} bytes took {sent} on the cable with 3 kills");
    assert!(sent < bytes + bytes / 10 + 4 * (64 << 10), "{sent}");
    let whole = fs::read(desk.path("g")).unwrap();
    assert!(fs::read(desk.path("copy")).unwrap() == whole);
}

#[test]
fn answers_that_nobody_has_read_wait_for_whoever_comes_next() {
    let desk = Desk::new();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    let photograph = photograph();
    {
        // Asks twice, reads one answer, acknowledges none, and is gone.
        let mut host = OtherHost::connect(&cable.host, 7);
        let image = host.send_image(&fs::read(&photograph).unwrap());
        for _ in 0..2 {
            let reply = host.ask(Ask::Query { image, top_k: 2 });
            assert!(matches!(reply, Reply::Answer(_)), "{reply:?}");
        }
    }
    let port = cable.host.display().to_string();
    // A full disk takes nothing: the answers are not lost with it.
    let device = program("eyas").get_program().display().to_string();
    let into_full = format!("{device} pull results --port {port} > /dev/full");
    let mut shell = std::process::Command::new("sh");
    let full = shell.args(["-c", &into_full]).output().unwrap();
    assert_eq!(full.status.code(), Some(2));

    let said = eyas_ok(&cable, &["pull", "results"]);
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{said}");
    let expected = desk.local_matches(&photograph);
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line["schema"], "eyas.query/1");
        assert_eq!(line["result"], number);
        assert_eq!(line["matches"][0], expected[0]);
    }
    assert_eq!(eyas_ok(&cable, &["pull", "results"]), "");
    let info: Value = serde_json::from_str(&eyas_ok(&cable, &["info", "--json"])).unwrap();
    assert_eq!(
        (&info["n_answered"], &info["n_unread"]),
        (&2.into(), &0.into())
    );
}
