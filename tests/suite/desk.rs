//! A desk with a board on it: files, the two programs, the cable between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use eyas_shared::gallery::RowEncoding;
use eyas_tests::cable::Cable;
use eyas_tests::{Said, beside, program, root, run, run_ok};
use serde_json::Value;

use crate::test_data::{bundle, embeddings, gallery_of};

pub(crate) const DIM: u32 = 6;

/// Components of the embeddings of [`Desk::large`], whose gallery takes a while to send.
const LARGE_DIM: u32 = 1024;

/// A folder with a bundle, a gallery and an image.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(desk.path("b"), bundle(DIM)).unwrap();
        desk.write_gallery("g", 2);
        desk
    }

    /// Another gallery for the same student; every seed gives other rows.
    pub(crate) fn write_gallery(&self, name: &str, seed: u64) {
        let rows = embeddings(5, DIM as usize, seed);
        let gallery = gallery_of(&rows, &[0, 1, 2, 3, 4], RowEncoding::F16.into());
        fs::write(self.path(name), gallery).unwrap();
    }

    /// A gallery of a megabyte, and a store without keys.
    pub(crate) fn large() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let rows = embeddings(255, LARGE_DIM as usize, 2);
        let ids: Vec<u8> = (0..255).collect();
        fs::write(desk.path("b"), bundle(LARGE_DIM)).unwrap();
        fs::write(
            desk.path("g"),
            gallery_of(&rows, &ids, RowEncoding::F32.into()),
        )
        .unwrap();
        desk.init_store();
        desk
    }

    pub(crate) fn init_store(&self) {
        let store = self.at("store");
        run_ok("eyas-device", ["init", "--store", &store, "--unsigned"]);
    }

    pub(crate) fn serve_store(&self, cable: &Cable) -> Board {
        let mut command = program("eyas-device");
        command.arg("serve").arg("--port").arg(&cable.board);
        command.args(["--store", &self.at("store")]);
        Board::start(command)
    }

    /// `eyas push` of both files, running.
    pub(crate) fn push(&self, cable: &Cable) -> Child {
        let mut command = program("eyas");
        command.args(["push", &self.at("b"), &self.at("g"), "--json", "--port"]);
        command.arg(&cable.host);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// What the board itself answers.
    pub(crate) fn local_matches(&self, image: &Path) -> Value {
        self.matches_in("g", image)
    }

    /// What the board itself answers from another gallery.
    pub(crate) fn matches_in(&self, gallery: &str, image: &Path) -> Value {
        let image = image.display().to_string();
        let (bundle, gallery) = (self.at("b"), self.at(gallery));
        let words = ["query", &image, "--bundle", &bundle, "--gallery", &gallery];
        let said = run("eyas-device", [&words[..], &["--json"]].concat());
        matches(&said)
    }

    pub(crate) fn serve_words(&self) -> [String; 4] {
        ["--bundle", &self.at("b"), "--gallery", &self.at("g")].map(str::to_owned)
    }

    pub(crate) fn serve(&self, cable: &Cable) -> Board {
        let mut command = program("eyas-device");
        command.arg("serve").arg("--port").arg(&cable.board);
        command.args(self.serve_words());
        Board::start(command)
    }
}

/// A board's program; killed at the end.
pub(crate) struct Board(Child);

impl Board {
    pub(crate) fn start(mut command: std::process::Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks the program to end, as a supervisor does: its exit code, and how long it took.
    #[track_caller]
    pub(crate) fn terminate_within(mut self, at_most: Duration) -> (Option<i32>, Duration) {
        let pid = self.0.id().to_string();
        let kill = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        let began = Instant::now();
        assert!(kill.unwrap().success());
        let (ended, end) = mpsc::channel();
        std::thread::scope(|scope| {
            let program = &mut self.0;
            scope.spawn(move || {
                let status = program.wait();
                // Whoever waits for it may have given up.
                let _ = ended.send(status.unwrap().code());
            });
            let code = end.recv_timeout(at_most);
            let took = began.elapsed();
            if code.is_err() {
                let mut kill = std::process::Command::new("kill");
                let _ = kill.args(["-KILL", &pid]).status();
            }
            (code.expect("it ends when it is told to"), took)
        })
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
pub(crate) fn matches(said: &Said) -> Value {
    assert_eq!(said.code, Some(0), "{said:#?}");
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert!(!object["matches"].as_array().unwrap().is_empty());
    object["matches"].clone()
}

/// `eyas COMMAND ... --port` of the cable.
pub(crate) fn eyas(cable: &Cable, words: &[&str]) -> Said {
    let port = cable.host.display().to_string();
    run("eyas", [words, &["--port", &port]].concat())
}

/// A photograph if there is one beside the checkout, else one of the small images.
pub(crate) fn photograph() -> PathBuf {
    beside("data/grocery")
        .and_then(|folder| first_photograph(&folder, 5))
        .unwrap_or_else(|| root().join("tests/golden/pixels/rgb.jpg"))
}

fn first_photograph(folder: &Path, depth: usize) -> Option<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    let is_photograph = |path: &&PathBuf| path.extension().is_some_and(|name| name == "jpg");
    let deeper = || {
        let folders = paths.iter().filter(|path| path.is_dir() && depth > 0);
        folders
            .filter_map(|folder| first_photograph(folder, depth - 1))
            .next()
    };
    paths.iter().find(is_photograph).cloned().or_else(deeper)
}

/// What a board that serves a photograph over the cable answers.
#[track_caller]
pub(crate) fn asked(cable: &Cable) -> Value {
    let image = photograph().display().to_string();
    matches(&eyas(cable, &["query", &image, "--json"]))
}

/// `eyas COMMAND ... --port` of the cable, which has to succeed; what it said.
#[track_caller]
pub(crate) fn eyas_ok(cable: &Cable, words: &[&str]) -> String {
    let said = eyas(cable, words);
    assert_eq!(said.code, Some(0), "{said:#?}");
    said.out
}
