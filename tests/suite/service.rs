//! The board's program as its supervisor meets it: told to end, asked whether it lives; and
//! its line at other speeds.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::bench::{Candidate, Window};
use eyas_shared::link::message::{Ask, Reply};
use eyas_shared::random::Random;
use eyas_tests::cable::Cable;
use eyas_tests::other_host::OtherHost;
use eyas_tests::{Said, program};
use serde_json::Value;

use crate::desk::{Board, Desk, asked, eyas, eyas_ok, matches, photograph};

/// For what should take a moment, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a board is told to end: `EYAS_TERMS`, or a few times.
fn n_terms() -> usize {
    let terms = std::env::var("EYAS_TERMS").ok();
    terms.and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn a_board_that_is_told_to_end_does_wherever_a_push_is() {
    let desk = Desk::large();
    let cable = Cable::new();
    let mut board = desk.serve_store(&cable);
    let bytes = fs::metadata(desk.path("g")).unwrap().len();
    let pushing = desk.push(&cable);
    let mut random = Random::new(19).fork("terms");
    let n_terms = n_terms();
    let mut longest = Duration::ZERO;
    let mut heard = 0;
    for term in 0..n_terms {
        // Anywhere in its share of the file, and a little beyond its end: while it is tried.
        let at = (term as f64 + random.unit()) / n_terms as f64 * bytes as f64 * 1.02;
        // Before a program has answered it may not know yet that it can be told to end.
        if !cable.wait_for_bytes(at as u64) || !cable.wait_for_bytes_to_host(heard + 1) {
            break;
        }
        let (code, took) = board.terminate_within(PATIENCE);
        heard = cable.bytes_to_host();
        assert_eq!(code, Some(0));
        longest = longest.max(took);
        board = desk.serve_store(&cable);
    }
    println!("{n_terms} times told to end, at most {longest:?} until it had");
    let said = Said::from(pushing.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert_eq!(asked(&cable), desk.local_matches(&photograph()));
}

/// A board that measures for `millis`, beside what it serves.
fn measuring(desk: &Desk, cable: &Cable, millis: u32) -> OtherHost {
    let mut host = OtherHost::connect(&cable.host, 5);
    let image = host.send_image(&fs::read(photograph()).unwrap());
    let prepared = host.ask(candidate(desk));
    assert!(matches!(prepared, Reply::Prepared(_)), "{prepared:?}");
    host.say(window(image, millis));
    host
}

fn candidate(desk: &Desk) -> Ask {
    let hash = |name: &str| Fingerprint::of_bytes(&fs::read(desk.path(name)).unwrap()).0;
    Ask::Prepare(Candidate {
        bundle: hash("b"),
        gallery: hash("g"),
        threads: 1,
    })
}

fn window(image: [u8; 32], millis: u32) -> Ask {
    Ask::Measure(Window {
        images: vec![image],
        top_k: 1,
        warm_up_ms: 0,
        at_least_ms: millis,
        at_least: 1,
    })
}

#[test]
fn what_waits_for_a_host_that_has_gone_holds_up_no_other() {
    let desk = Desk::new();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    let mut host = measuring(&desk, &cable, 600_000);
    let image = Fingerprint::of_bytes(&fs::read(photograph()).unwrap()).0;
    // Each would take most of a minute, until it has as many samples as are kept; the worker
    // has room for some, the line holds one, the others stay in the stream.
    for _ in 0..12 {
        host.say(candidate(&desk));
        host.say(window(image, 600_000));
    }
    drop(host);
    let info = OtherHost::connect(&cable.host, 6).ask(Ask::Info);
    assert!(matches!(info, Reply::Info(_)), "{info:?}");
}

#[test]
fn a_board_that_is_told_to_end_does_not_finish_its_work() {
    let desk = Desk::new();
    let cable = Cable::new();
    let board = desk.serve(&cable);
    let _host = measuring(&desk, &cable, 60_000);
    let (code, took) = board.terminate_within(PATIENCE);
    println!("{took:?} until it had ended, with work for a minute");
    assert_eq!(code, Some(0));
}

#[test]
fn a_supervisor_hears_that_the_board_is_ready_alive_at_work_and_ending() {
    let desk = Desk::new();
    let socket = UnixDatagram::bind(desk.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 64];
        let n = socket.recv(&mut buffer).expect("a word from the board");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let cable = Cable::new();
    let mut command = program("eyas-device");
    command.arg("serve").arg("--port").arg(&cable.board);
    command.args(desk.serve_words());
    command.env("NOTIFY_SOCKET", desk.path("notify"));
    command.env("WATCHDOG_USEC", "600000");
    let board = Board::start(command);
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    // Also while it works for longer than the watchdog waits.
    let _host = measuring(&desk, &cable, 60_000);
    for _ in 0..4 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    let (code, _) = board.terminate_within(PATIENCE);
    assert_eq!(code, Some(0));
    let last = std::iter::repeat_with(hear).find(|word| word != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

fn baud_of(info: &str) -> u64 {
    let object: Value = serde_json::from_str(info).unwrap();
    object["link"]["baud"].as_u64().unwrap()
}

#[test]
fn a_line_is_raised_for_a_session_and_goes_back() {
    let desk = Desk::new();
    let cable = Cable::new();
    let _board = desk.serve(&cable);
    let image = photograph().display().to_string();
    let words = ["query", &image, "--json", "--fast-baud", "3000000"];
    assert_eq!(
        matches(&eyas(&cable, &words)),
        desk.local_matches(&photograph())
    );
    assert_eq!(cable.fastest(), 3_000_000);
    // The next session begins where every session does.
    let info = eyas_ok(&cable, &["info", "--json"]);
    assert_eq!(baud_of(&info), 115_200);
    let info = eyas_ok(&cable, &["info", "--json", "--fast-baud", "921600"]);
    assert_eq!(baud_of(&info), 921_600);
    // A speed that nobody offers changes nothing.
    let info = eyas_ok(&cable, &["info", "--json", "--fast-baud", "123456"]);
    assert_eq!(baud_of(&info), 115_200);
}

#[test]
fn a_cable_that_is_too_bad_for_a_speed_is_used_at_the_one_before() {
    let desk = Desk::new();
    let cable = Cable::new();
    cable.limit_speed(230_400);
    let _board = desk.serve(&cable);
    let info = eyas_ok(&cable, &["info", "--json", "--fast-baud", "921600"]);
    assert_eq!(baud_of(&info), 115_200);
    assert_eq!(cable.fastest(), 115_200);
    let info = eyas_ok(&cable, &["info", "--json", "--fast-baud", "230400"]);
    assert_eq!(baud_of(&info), 230_400);
    assert_eq!(asked(&cable), desk.local_matches(&photograph()));
}

#[test]
fn a_board_whose_host_died_at_a_raised_speed_is_found_again() {
    let desk = Desk::large();
    let cable = Cable::new();
    let _board = desk.serve_store(&cable);
    let bytes = fs::metadata(desk.path("g")).unwrap().len();
    let port = cable.host.display().to_string();
    let mut command = program("eyas");
    command.args(["push", &desk.at("b"), &desk.at("g"), "--port", &port]);
    command
        .args(["--fast-baud", "921600"])
        .stdout(Stdio::null());
    let mut pushing = command.spawn().unwrap();
    assert!(cable.wait_for_bytes(bytes / 3));
    pushing.kill().unwrap();
    pushing.wait().unwrap();
    assert_eq!(cable.fastest(), 921_600);
    let said = Said::from(desk.push(&cable).wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert!(object["files"][1]["had"].as_u64() > Some(0), "{said:#?}");
    assert_eq!(asked(&cable), desk.local_matches(&photograph()));
}
