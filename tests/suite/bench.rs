//! Measuring over the link: what a session holds, what is flagged, and what becomes of it
//! when somebody pulls a cable or restarts a board.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eyas_shared::gallery::RowEncoding;
use eyas_shared::timing::Stage;
use eyas_tests::cable::Cable;
use eyas_tests::{Said, program, root, run, run_ok};
use rustix::event::{Timespec, poll};
use serde_json::Value;

use crate::test_data::{bundle, embeddings, gallery_of};

const DIM: u32 = 6;

/// Longest that a test waits for something that has to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a student, a gallery, images that ask, and a board's store.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// `seconds` of each window, of which there are `windows`.
    fn new(windows: usize, seconds: f64) -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let rows = embeddings(5, DIM as usize, 2);
        fs::write(desk.path("b"), bundle(DIM)).unwrap();
        let gallery = gallery_of(&rows, &[0, 1, 2, 3, 4], RowEncoding::F16.into());
        fs::write(desk.path("g"), gallery).unwrap();
        for (label, images) in [("pear", ["rgb", "420"]), ("apple", ["444", "422"])] {
            let folder = desk.path("photos").join(label);
            fs::create_dir_all(&folder).unwrap();
            for image in images {
                let name = format!("{image}.jpg");
                let from = root().join("tests/golden/pixels").join(&name);
                fs::copy(from, folder.join(name)).unwrap();
            }
        }
        let plan = format!(
            "name = \"desk\"\nprofile = true\ntop_k = 4\n\
             [queries]\nmanifest = \"photos\"\n\
             [performance]\nwindows = {windows}\nat_least_s = {seconds}\nwarm_up_s = 0.0\n\
             retries = 0\n\
             [students]\ntiny = [\"b\"]\n\
             [galleries]\nshop = \"g\"\n"
        );
        fs::write(desk.path("board.toml"), plan).unwrap();
        run_ok(
            "eyas-device",
            ["init", "--store", &desk.at("store"), "--unsigned"],
        );
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `eyas bench` of the plan.
    fn bench(&self, words: &[&str]) -> Command {
        let mut command = program("eyas");
        command.args([
            "bench",
            &self.at("board.toml"),
            "--out",
            &self.at("sessions"),
        ]);
        command.args(words);
        command
    }

    fn stdio_command(&self) -> String {
        let device = program("eyas-device").get_program().to_owned();
        format!(
            "{} serve --stdio --store {}",
            device.display(),
            self.at("store")
        )
    }

    fn session(&self) -> PathBuf {
        let mut sessions = fs::read_dir(self.path("sessions")).unwrap();
        let session = sessions.next().unwrap().unwrap().path();
        assert!(sessions.next().is_none(), "one session");
        session
    }

    fn serve(&self, cable: &Cable) -> Ended {
        let mut command = program("eyas-device");
        command.arg("serve").arg("--port").arg(&cable.board);
        command.args(["--store", &self.at("store")]);
        Ended(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn n_visits(&self) -> usize {
        let sessions = fs::read_dir(self.path("sessions"));
        let session = sessions.ok().and_then(|mut sessions| sessions.next());
        let visits = session.map(|session| session.unwrap().path().join("visits"));
        let visits = visits.and_then(|visits| fs::read_dir(visits).ok());
        let is_record = |entry: &fs::DirEntry| {
            let path = entry.path();
            path.extension().is_some_and(|name| name == "json")
        };
        visits.map_or(0, |visits| visits.flatten().filter(is_record).count())
    }
}

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(child: Child) -> Said {
    child.wait_with_output().unwrap().into()
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Looks again and again until something has come.
fn wait_for(what: &str, mut has_come: impl FnMut() -> bool) {
    let began = Instant::now();
    while !has_come() {
        assert!(began.elapsed() < PATIENCE, "{what} has not come");
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        let _ = poll(&mut [], Some(&pause));
    }
}

fn results(session: &Path) -> Value {
    serde_json::from_slice(&fs::read(session.join("results.json")).unwrap()).unwrap()
}

/// The only cell's windows.
fn windows(results: &Value) -> &[Value] {
    results["cells"][0]["performance"]["windows"]
        .as_array()
        .unwrap()
}

/// What raised the flags of the only cell: flag and reason.
fn flags(results: &Value) -> Vec<(String, String)> {
    let raised = windows(results)
        .iter()
        .flat_map(|window| window["flags"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    raised
        .map(|raised| (text(&raised["flag"]), text(&raised["why"])))
        .collect()
}

/// A session holds what every query took, and can be computed again from what was said.
#[test]
fn a_session_holds_what_was_asked_and_gives_the_same_results_again() {
    let desk = Desk::new(2, 0.2);
    let said = said(spawn(desk.bench(&[
        "--json",
        "--stdio-command",
        &desk.stdio_command(),
    ])));
    assert_eq!(said.code, Some(0), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(object["cells"][0]["key"], "tiny/f32/1/shop");
    let session = desk.session();
    let found = results(&session);
    let cell = &found["cells"][0];
    let performance = &cell["performance"];
    assert_eq!(windows(&found).len(), 2);
    assert_eq!(performance["cold_starts"].as_array().unwrap().len(), 3);
    let bytes = |name: &str| performance[name].as_u64().unwrap();
    assert!(bytes("peak_bytes") >= bytes("own_bytes") && bytes("own_bytes") > 0);
    let accuracy = &cell["accuracy"];
    assert_eq!(accuracy["answers"].as_array().unwrap().len(), 4);
    let agreement = &accuracy["agreement"];
    assert!(
        agreement["min_cosine"].as_f64().unwrap() > 0.999_999,
        "{agreement}"
    );
    assert_eq!(agreement["n_other_first"], 0);
    let operators = cell["operators"].as_array().unwrap();
    assert!(
        operators.iter().any(|it| it["layer"] == "conv"),
        "{operators:?}"
    );
    let pictures = fs::read_dir(session.join("pictures")).unwrap().count();
    assert_eq!(pictures, 4, "of each image that asked");

    let samples = fs::read_to_string(session.join("samples.csv")).unwrap();
    let n_asked = windows(&found)
        .iter()
        .map(|window| window["n"].as_u64().unwrap());
    assert_eq!(samples.lines().count() as u64, 1 + n_asked.sum::<u64>());
    assert!(samples.starts_with("cell,round,again,flags,query,decode_us,"));

    let before = fs::read(session.join("results.json")).unwrap();
    fs::remove_file(session.join("results.json")).unwrap();
    run_ok(
        "eyas",
        ["bench", "--replay", &session.display().to_string()],
    );
    assert_eq!(fs::read(session.join("results.json")).unwrap(), before);
}

/// Results are not computed from half of what was said: they stay as they are.
#[test]
fn a_replay_without_all_its_records_changes_nothing() {
    let desk = Desk::new(1, 0.0);
    let command = desk.stdio_command();
    let outcome = said(spawn(desk.bench(&["--stdio-command", &command])));
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let session = desk.session();
    let shown = session.display().to_string();
    let before = fs::read(session.join("results.json")).unwrap();
    let refused = |words: &str| {
        let outcome = run("eyas", ["bench", "--replay", &shown]);
        assert_eq!(outcome.code, Some(2), "{outcome:#?}");
        assert!(outcome.err.contains(words), "{outcome:#?}");
        assert_eq!(fs::read(session.join("results.json")).unwrap(), before);
    };
    let (damaged, _) = contents(&session.join("visits")).remove(0);
    fs::write(&damaged, "{").unwrap();
    refused("go on with `--resume`");
    for (path, _) in contents(&session.join("visits")) {
        fs::remove_file(path).unwrap();
    }
    refused("has no visits");
}

/// The board's answers in a bench are those of `query`: one engine.
#[test]
fn a_bench_finds_what_a_query_finds() {
    let desk = Desk::new(1, 0.0);
    let command = desk.stdio_command();
    let said = said(spawn(desk.bench(&["--stdio-command", &command])));
    assert_eq!(said.code, Some(0), "{said:#?}");
    let found = results(&desk.session());
    let answers = found["cells"][0]["accuracy"]["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 4);
    for answer in answers {
        let query = &found["queries"][answer["query"].as_u64().unwrap() as usize];
        let image = desk.path("photos").join(query["name"].as_str().unwrap());
        let image = image.display().to_string();
        let (bundle, gallery) = (desk.at("b"), desk.at("g"));
        let words = ["query", &image, "--bundle", &bundle, "--gallery", &gallery];
        let words = [&words[..], &["--top-k", "4", "--json"]].concat();
        let local: Value = serde_json::from_str(&run_ok("eyas-device", words)).unwrap();
        let local = local["matches"].as_array().unwrap();
        let matches = answer["matches"].as_array().unwrap();
        assert_eq!(local.len(), matches.len());
        for (local, found) in local.iter().zip(matches) {
            assert_eq!(local["id"], found["id"]);
            assert_eq!(local["label"], found["label"]);
            // One record writes the digits of f32, the other those of f64.
            let score = |of: &Value| of["score"].as_f64().unwrap() as f32;
            assert_eq!(score(local), score(found));
        }
    }
}

/// The device's own bench needs no host.
#[test]
fn a_board_measures_itself() {
    let desk = Desk::new(1, 0.0);
    let (bundle, gallery) = (desk.at("b"), desk.at("g"));
    let photos = desk.at("photos");
    let words = ["bench", &photos, "--bundle", &bundle, "--gallery", &gallery];
    let short = [
        "--windows",
        "3",
        "--at-least-s",
        "0.05",
        "--profile",
        "--json",
    ];
    let said = run("eyas-device", [&words[..], &short].concat());
    // A busy machine has no clean window: that is an answer too.
    assert!(matches!(said.code, Some(0 | 1)), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(object["windows"].as_array().unwrap().len(), 3);
    assert!(object["n_clean"].as_u64().unwrap() <= 3);
    for stage in Stage::ALL {
        assert!(object["stages"][stage.name()]["n"].as_u64().unwrap() >= 10);
    }
    let is_flagged = |window: &Value| !window["flags"].as_array().unwrap().is_empty();
    let n_flagged = object["windows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| is_flagged(it))
        .count();
    assert_eq!(said.code, Some(i32::from(n_flagged == 3)), "{said:#?}");
}

/// Others at work, and a process that is held up: both are seen by the counters.
#[test]
fn disturbed_windows_are_flagged() {
    let desk = Desk::new(2, 0.5);
    let burner = Command::new("sh")
        .args(["-c", "while :; do :; done"])
        .stdin(Stdio::null())
        .spawn();
    let burner = Ended(burner.unwrap());
    let command = desk.stdio_command();
    let outcome = said(spawn(desk.bench(&["--stdio-command", &command])));
    drop(burner);
    assert_eq!(outcome.code, Some(0), "a flag is no failure: {outcome:#?}");
    let found = results(&desk.session());
    let raised = flags(&found);
    assert!(raised.iter().any(|(flag, _)| flag == "noisy"), "{raised:?}");
    assert_eq!(found["cells"][0]["performance"]["n_clean"], 0, "{raised:?}");
    assert_eq!(windows(&found).len(), 2, "flagged, and still there");
}

/// A process that gets half of its time, as under a quota or a capped clock.
#[test]
fn a_capped_process_is_flagged() {
    let desk = Desk::new(1, 2.0);
    let cable = Cable::new();
    let board = desk.serve(&cable);
    let port = cable.host.display().to_string();
    let words = ["--port", &port];
    let mut host = spawn(desk.bench(&words));
    let mut is_over = || host.try_wait().unwrap().is_some();
    // Each look takes a while for which the process stands still, and one for which it runs.
    wait_for("the end of the session", || {
        if let Some(child) = measuring(board.0.id()) {
            signal("-STOP", child);
        }
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let _ = poll(&mut [], Some(&pause));
        if let Some(child) = measuring(board.0.id()) {
            signal("-CONT", child);
        }
        let _ = poll(&mut [], Some(&pause));
        is_over()
    });
    let outcome = said(host);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let raised = flags(&results(&desk.session()));
    let is_seen = raised
        .iter()
        .any(|(_, why)| why.contains("it could work for"));
    assert!(is_seen, "{raised:?}");
}

/// The process in which a board measures.
fn measuring(board: u32) -> Option<u32> {
    let children = format!("/proc/{board}/task");
    let tasks = fs::read_dir(children).ok()?.flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: String = children.collect::<Vec<_>>().join(" ");
    let mut pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    pids.next()
}

fn signal(name: &str, pid: u32) {
    // One that has ended meanwhile is not there to be told.
    let _ = Command::new("kill")
        .args([name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// A cable that is pulled, and a board that is restarted, in the middle of a session.
#[test]
fn a_cut_link_and_a_restarted_board_cost_a_visit_each() {
    let desk = Desk::new(6, 0.4);
    let cable = Cable::new();
    let board = desk.serve(&cable);
    let port = cable.host.display().to_string();
    let host = spawn(desk.bench(&["--port", &port, "--wait", "2"]));
    wait_for("the first window", || desk.n_visits() >= 2);
    cable.cut(true);
    wait_for("a lost link", || log_of(&desk).contains("broken off"));
    cable.cut(false);
    let n_visits = desk.n_visits();
    wait_for("a window after it", || desk.n_visits() > n_visits);
    drop(board);
    let _board = desk.serve(&cable);
    let outcome = said(host);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let found = results(&desk.session());
    assert_eq!(windows(&found).len(), 6);
    let told = found["incidents"].to_string();
    assert!(told.contains("came back"), "{told}");
    assert!(told.contains("started anew"), "{told}");
}

fn log_of(desk: &Desk) -> String {
    fs::read_to_string(desk.session().join("log.txt")).unwrap_or_default()
}

/// A host that is killed goes on with what is missing; another plan is refused.
#[test]
fn a_session_goes_on_where_it_was_killed() {
    let desk = Desk::new(4, 0.3);
    let command = desk.stdio_command();
    let mut host = spawn(desk.bench(&["--stdio-command", &command]));
    wait_for("the second visit", || desk.n_visits() >= 2);
    host.kill().unwrap();
    host.wait().unwrap();
    let session = desk.session();
    let n_before = desk.n_visits();
    assert!(n_before < 5, "it was over before it was killed");
    let kept = contents(&session.join("visits"));
    let shown = session.display().to_string();
    let words = ["--resume", &shown, "--stdio-command", &command];
    let outcome = said(spawn(desk.bench(&words)));
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(desk.n_visits(), 5);
    let after = contents(&session.join("visits"));
    for (path, content) in kept {
        assert!(after.contains(&(path, content)), "what was measured stays");
    }
    let plan = fs::read_to_string(desk.path("board.toml")).unwrap();
    fs::write(
        desk.path("board.toml"),
        plan.replace("top_k = 4", "top_k = 3"),
    )
    .unwrap();
    let outcome = said(spawn(desk.bench(&words)));
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    assert!(
        outcome.err.contains("its plan is not what it began with"),
        "{outcome:#?}"
    );
}

fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let json = entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "json"));
    json.map(|entry| (entry.path(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// What fails is counted and shown, and the rest is measured.
#[test]
fn failures_are_counted_and_end_with_1() {
    let desk = Desk::new(1, 0.0);
    fs::write(
        desk.path("photos/pear/broken.jpg"),
        b"\xff\xd8 no photograph",
    )
    .unwrap();
    let command = desk.stdio_command();
    let outcome = said(spawn(desk.bench(&["--stdio-command", &command])));
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(
        outcome.out.contains("1 queries were not answered"),
        "{outcome:#?}"
    );
    let found = results(&desk.session());
    let accuracy = &found["cells"][0]["accuracy"];
    assert_eq!(accuracy["answers"].as_array().unwrap().len(), 4);
    let failed = accuracy["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0][1].as_str().unwrap().len() > 10, "{failed:?}");
}

/// Readings of a power meter are joined by time.
#[test]
fn energy_is_joined_with_windows_by_time() {
    let desk = Desk::new(2, 0.2);
    let command = desk.stdio_command();
    let outcome = said(spawn(desk.bench(&["--stdio-command", &command])));
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let session = desk.session();
    let began = windows(&results(&session))[0]["began_unix_us"]
        .as_f64()
        .unwrap()
        / 1e6
        - 1.0;
    let mut readings = String::from("unix_s,watts\n");
    for i in 0..400 {
        readings.push_str(&format!("{:.3},2.5\n", began + f64::from(i) * 0.05));
    }
    fs::write(desk.path("meter.csv"), readings).unwrap();
    let shown = session.display().to_string();
    run_ok(
        "eyas",
        [
            "bench",
            "--replay",
            &shown,
            "--readings",
            &desk.at("meter.csv"),
        ],
    );
    let found = results(&session);
    let window = &windows(&found)[0];
    let joules = window["joules"].as_f64().unwrap();
    let expected = 2.5 * window["seconds"].as_f64().unwrap();
    // Sums of a few products.
    assert!(
        (joules - expected).abs() < 1e-6 * expected,
        "{joules} {expected}"
    );
    let per_query = &found["cells"][0]["performance"]["joules_per_query"];
    assert!(per_query.as_f64().unwrap() > 0.0);
}

/// A candidate is trusted no more than a file that is to be installed.
#[test]
fn where_files_are_signed_only_signed_ones_are_measured() {
    let desk = Desk::new(1, 0.0);
    fs::remove_dir_all(desk.path("store")).unwrap();
    run_ok("eyas", ["keys", "new", &desk.at("shop"), "--no-password"]);
    let (key, public) = (desk.at("shop.key"), desk.at("shop.pub"));
    run_ok(
        "eyas-device",
        ["init", "--store", &desk.at("store"), "--key", &public],
    );
    let command = desk.stdio_command();
    let words = ["--stdio-command", &command, "--json"];
    let outcome = said(spawn(desk.bench(&words)));
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let object: Value = serde_json::from_str(&outcome.out).unwrap();
    let failures = object["cells"][0]["failures"].to_string();
    assert!(failures.contains("not signed"), "{failures}");
    assert_eq!(object["cells"][0]["recall_at_1"], Value::Null);

    for file in ["b", "g"] {
        run_ok(
            "eyas",
            ["sign", &desk.at(file), "--key", &key, "--counter", "1"],
        );
    }
    let session = object["session"].as_str().unwrap();
    let words = ["--resume", session, "--stdio-command", &command];
    let outcome = said(spawn(desk.bench(&words)));
    assert_eq!(
        outcome.code,
        Some(0),
        "what failed is measured again: {outcome:#?}"
    );
}

/// Whoever measured has gone: so does the process that measured for them.
#[test]
fn no_process_is_left_behind_when_the_host_goes() {
    let desk = Desk::new(1, 600.0);
    let cable = Cable::new();
    let board = desk.serve(&cable);
    let port = cable.host.display().to_string();
    let host = Ended(spawn(desk.bench(&["--port", &port])));
    let pid = board.0.id();
    wait_for("a process that measures", || {
        desk.n_visits() >= 1 && measuring(pid).is_some()
    });
    drop(host);
    wait_for("its end", || measuring(pid).is_none());
}
