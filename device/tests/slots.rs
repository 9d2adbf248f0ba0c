//! The store as somebody before the board meets it: real files, real child processes, real
//! kills. Power cuts are simulated in the library's own tests.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use eyas_device::slots::{Disk, Slots};
use eyas_device::store::{GalleryCheck, Store};
use eyas_device::{encoder, selftest};
use eyas_shared::bundle::{Bundle, probe_image};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::{Codes, Gallery, delta};
use eyas_shared::preprocess::prepare;
use eyas_shared::random::Random;
use minisign::KeyPair;
use serde_json::Value;
use tempfile::TempDir;
use tract_onnx::pb;

#[allow(dead_code, reason = "the tests of the library use the rest")]
#[path = "../src/test_data.rs"]
mod test_data;

use test_data::{
    bundle, bundle_around, embeddings, gallery_in, gallery_of, gallery_with, node, onnx, onnx_with,
    raw_tensor, space,
};

const DIM: u32 = 6;

/// Kills of the test that kills; `EYAS_KILLS` asks for more.
const N_KILLS: usize = 40;

/// A folder with files beside a store.
struct Board {
    folder: TempDir,
    keys: Option<KeyPair>,
}

/// What a command said.
struct Said {
    out: String,
    err: String,
}

impl Board {
    /// A board that takes files from anybody.
    fn open() -> Self {
        let board = Self::bare(None);
        board.run("init --store s --unsigned --max-memory 48", 0);
        board
    }

    /// A board that takes what the key signed.
    fn locked() -> Self {
        let keys = KeyPair::generate_unencrypted_keypair().unwrap();
        let board = Self::bare(Some(keys));
        let public = board.keys.as_ref().unwrap().pk.to_box().unwrap();
        fs::write(board.at("k.pub"), public.into_string()).unwrap();
        board.run("init --store s --key k.pub", 0);
        board
    }

    fn bare(keys: Option<KeyPair>) -> Self {
        let board = Self {
            folder: tempfile::tempdir().unwrap(),
            keys,
        };
        fs::write(board.at("old.bundle"), bundle(DIM)).unwrap();
        fs::write(board.at("old.gallery"), gallery(1)).unwrap();
        fs::write(board.at("new.gallery"), gallery(2)).unwrap();
        board
    }

    /// A board that serves the old pair.
    fn serving() -> Self {
        let board = Self::open();
        board.run("install --store s old.bundle old.gallery --confirm", 0);
        board
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eyas-device"));
        command.current_dir(self.folder.path());
        command.args(arguments.split(' '));
        command
    }

    #[track_caller]
    fn run(&self, arguments: &str, expected_code: i32) -> Said {
        let output = self.command(arguments).output().unwrap();
        let said = Said {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        let code = output.status.code();
        assert_eq!(
            code,
            Some(expected_code),
            "{arguments}\n{}\n{}",
            said.out,
            said.err
        );
        said
    }

    fn status(&self) -> Value {
        let output = self.command("status --store s --json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn slots(&self) -> Slots {
        Slots::open(Disk, &self.at("s")).unwrap()
    }

    /// The installation is refused in these words, the reason is kept, and generation 1
    /// serves as before.
    #[track_caller]
    fn refuses(&self, arguments: &str, words: &[&str]) {
        let said = self.run(&format!("install --store s {arguments}"), 2);
        for word in words {
            assert!(said.err.contains(word), "no `{word}` in: {}", said.err);
        }
        let status = self.status();
        assert_eq!(status["confirmed"]["number"], 1, "{status}");
        assert_eq!(status["trial"], Value::Null);
        let reason = status["refusal"]["reason"].as_str().unwrap();
        assert!(reason.contains(words[0]), "{reason}");
        assert_eq!(answer(&self.slots()), answer_of(1));
    }

    fn sign(&self, name: &str, counter: u64) {
        let content = fs::File::open(self.at(name)).unwrap();
        let comment = eyas_shared::signature::comment_with(counter, name);
        let key = &self.keys.as_ref().unwrap().sk;
        let signed = minisign::sign(None, key, content, Some(&comment), None).unwrap();
        fs::write(self.at(&format!("{name}.minisig")), signed.into_string()).unwrap();
    }
}

/// A gallery that fits the test student; every seed gives other rows.
fn gallery(seed: u64) -> Vec<u8> {
    let rows = embeddings(50, DIM as usize, seed);
    let ids: Vec<u8> = (0..50).collect();
    gallery_of(&rows, &ids, Codes::F16)
}

/// Row and score of the best match of a probe.
type Answer = (u32, u32);

/// What the board would answer.
fn answer(slots: &Slots) -> Answer {
    let opened = slots.open_to_read().unwrap();
    let encoder = opened.store.encoder();
    let pixels = prepare(&probe_image(3), encoder.preprocess());
    let embedding = encoder.encode(&pixels).unwrap();
    let matcher = opened.store.matcher().unwrap();
    let best = matcher.search(&embedding, 1, None)[0];
    (best.row, best.score.to_bits())
}

/// What it answers with the gallery of this seed.
fn answer_of(seed: u64) -> Answer {
    let board = Board::bare(None);
    fs::write(board.at("a.gallery"), gallery(seed)).unwrap();
    let (bundle, gallery) = (board.at("old.bundle"), board.at("a.gallery"));
    let store = Store::open(&bundle, &gallery, GalleryCheck::Whole).unwrap();
    let pixels = prepare(&probe_image(3), store.encoder().preprocess());
    let embedding = store.encoder().encode(&pixels).unwrap();
    let best = store.matcher().unwrap().search(&embedding, 1, None)[0];
    (best.row, best.score.to_bits())
}

#[test]
fn a_pair_is_installed_confirmed_and_rolled_back() {
    let board = Board::open();
    let said = board.run("status --store s", 1);
    assert!(said.out.contains("serves     nothing"), "{}", said.out);
    let said = board.run("install --store s old.bundle old.gallery --json", 0);
    let installed: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(installed["schema"], "eyas.install/1");
    assert_eq!(installed["state"], "on trial");
    assert_eq!(installed["trial"]["n_rows"], 50);
    assert!(installed["trial"]["min_cosine"].as_f64() > Some(0.9999));
    assert_eq!(board.status()["trial"]["starts"], 0);
    board.run("confirm --store s", 0);
    board.run("confirm --store s", 1);
    let said = board.run("install --store s new.gallery --confirm", 0);
    let start = "generation 2 is confirmed: 2 probes, smallest cosine ";
    assert!(said.out.starts_with(start), "{}", said.out);
    let said = board.run("install --store s new.gallery", 0);
    assert_eq!(said.out, "generation 2 is confirmed, as before\n");
    assert_eq!(answer(&board.slots()), answer_of(2));
    board.run("rollback --store s --reason worse", 0);
    let status = board.status();
    assert_eq!(status["confirmed"]["number"], 3);
    assert_eq!(status["refusal"]["reason"], "worse");
    assert_eq!(answer(&board.slots()), answer_of(1));
}

#[test]
fn a_store_with_keys_takes_only_what_they_signed() {
    let board = Board::locked();
    let said = board.run("install --store s old.bundle old.gallery", 2);
    for word in ["is not signed", "hint: sign it with `eyas sign`"] {
        assert!(said.err.contains(word), "{}", said.err);
    }
    for name in ["old.bundle", "old.gallery"] {
        board.sign(name, 2);
    }
    board.run("install --store s old.bundle old.gallery --confirm", 0);
    assert_eq!(board.status()["confirmed"]["bundle_counter"], 2);

    // Signed by somebody else.
    let stranger = Board::locked();
    stranger.sign("new.gallery", 9);
    let signature = "new.gallery.minisig";
    fs::copy(stranger.at(signature), board.at(signature)).unwrap();
    board.refuses(
        "new.gallery",
        &["is not trusted", "not among the 1 trusted ones"],
    );

    // A signature of another file.
    fs::copy(board.at("old.gallery.minisig"), board.at(signature)).unwrap();
    board.refuses("new.gallery", &["the signature does not fit the file"]);

    board.sign("new.gallery", 1);
    board.refuses(
        "new.gallery",
        &["security counter 1; this store has confirmed 2"],
    );
    board.run("install --store s new.gallery --allow-downgrade", 0);
    board.run("rollback --store s", 0);

    board.sign("new.gallery", 2);
    board.run("install --store s new.gallery --confirm", 0);
    assert_eq!(answer(&board.slots()), answer_of(2));
}

#[test]
fn a_gallery_of_another_space_is_refused() {
    let board = Board::serving();
    let rows = embeddings(5, DIM as usize, 1);
    let other = gallery_in(space(9), &rows, &[0, 1, 2, 3, 4], Codes::F16);
    fs::write(board.at("other.gallery"), other).unwrap();
    board.refuses(
        "other.gallery",
        &["student and gallery come from different teachers"],
    );
    let wide = gallery_of(&embeddings(5, 7, 1), &[0, 1, 2, 3, 4], Codes::F16);
    fs::write(board.at("wide.gallery"), wide).unwrap();
    board.refuses("wide.gallery", &["student 6, gallery 7"]);
}

#[test]
fn a_student_that_needs_more_memory_than_a_trial_may_use_is_refused() {
    let board = Board::serving();
    // Pads the image to 2016 x 2016: 49 MB for that alone.
    let hungry = onnx_with(i64::from(DIM), |graph| {
        let pads: Vec<u8> = [0_i64, 0, 1000, 1000, 0, 0, 1000, 1000]
            .iter()
            .flat_map(|pad| pad.to_le_bytes())
            .collect();
        let int64 = pb::tensor_proto::DataType::Int64;
        graph
            .initializer
            .push(raw_tensor("pads", &[8], int64, pads));
        graph
            .node
            .insert(0, node("Pad", &["image", "pads"], "wide", vec![]));
        graph.node[1].input[0] = "wide".to_owned();
    });
    let probes = embeddings(2, DIM as usize, 1);
    fs::write(
        board.at("hungry.bundle"),
        bundle_around(&hungry, DIM, probes),
    )
    .unwrap();
    board.refuses(
        "hungry.bundle",
        &[
            "needs more than the 48 MiB of memory",
            "hint: take a smaller",
        ],
    );
}

#[test]
fn a_student_that_declares_more_memory_than_there_is_is_refused_before_it_is_read() {
    let board = Board::serving();
    // What can not be run would be told otherwise.
    let looping = onnx_with(i64::from(DIM), |graph| {
        graph.node[1].op_type = "Loop".to_owned();
    });
    let bytes = bundle_around(&looping, DIM, embeddings(2, DIM as usize, 1));
    let mut declared = Bundle::read(&bytes).unwrap();
    declared.memory_bytes = Some(49 << 20);
    fs::write(board.at("declared.bundle"), declared.to_bytes()).unwrap();
    board.refuses(
        "declared.bundle",
        &["declares that it needs 49.0 MiB of memory, and this store gives a student 48.0 MiB"],
    );
    declared.memory_bytes = Some(48 << 20);
    fs::write(board.at("declared.bundle"), declared.to_bytes()).unwrap();
    board.refuses("declared.bundle", &["operator `Loop`"]);
}

#[test]
fn a_student_that_computes_other_probes_than_promised_is_refused() {
    let board = Board::serving();
    let wrong = bundle_around(&onnx(i64::from(DIM)), DIM, embeddings(2, DIM as usize, 5));
    fs::write(board.at("wrong.bundle"), wrong).unwrap();
    board.refuses(
        "wrong.bundle",
        &["its probes come out otherwise than promised"],
    );
    // It is bad beside any gallery, and takes no room any more.
    assert_eq!(board.status()["staged"], Value::Array(vec![]));
}

#[test]
fn an_operator_that_is_not_allowed_is_refused() {
    let board = Board::serving();
    let looping = onnx_with(i64::from(DIM), |graph| {
        graph.node[1].op_type = "Loop".to_owned();
    });
    let probes = embeddings(2, DIM as usize, 1);
    fs::write(
        board.at("loop.bundle"),
        bundle_around(&looping, DIM, probes),
    )
    .unwrap();
    board.refuses(
        "loop.bundle",
        &["can not run the student", "operator `Loop`"],
    );
}

#[test]
fn a_damaged_file_is_refused() {
    let board = Board::serving();
    let mut damaged = gallery(2);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(board.at("damaged.gallery"), damaged).unwrap();
    board.refuses("damaged.gallery", &["damaged: the checksum"]);
    fs::write(board.at("text.gallery"), "a list").unwrap();
    let said = board.run("install --store s text.gallery", 2);
    assert!(said.err.contains("not an eyas file"), "{}", said.err);
}

#[test]
fn a_disk_that_takes_no_more_leaves_the_old_pair() {
    let board = Board::serving();
    // A limit on the size of files stands for the full disk; the gallery is larger.
    let large = embeddings(2000, DIM as usize, 3);
    let id = |i: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&i.to_le_bytes());
        ImageId(id)
    };
    let ids: Vec<ImageId> = (0..2000).map(id).collect();
    fs::write(
        board.at("large.gallery"),
        gallery_with(&large, &ids, Codes::F32),
    )
    .unwrap();
    let install = format!(
        "ulimit -f 16; exec {} install --store s large.gallery",
        env!("CARGO_BIN_EXE_eyas-device")
    );
    let shell = Command::new("sh")
        .args(["-c", &install])
        .current_dir(board.folder.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&shell.stderr).into_owned();
    assert_eq!(shell.status.code(), Some(2), "{err}");
    assert!(
        err.contains("could not write") && err.contains("hint: free some space"),
        "{err}"
    );
    assert_eq!(answer(&board.slots()), answer_of(1));
    // With room again the transfer goes on.
    board.run("install --store s large.gallery --confirm", 0);
}

#[test]
fn only_one_installs_at_a_time() {
    let board = Board::serving();
    let lock = fs::File::open(board.at("s/lock")).unwrap();
    lock.lock().unwrap();
    let said = board.run("install --store s new.gallery", 2);
    for word in ["another process is installing", "hint: wait"] {
        assert!(said.err.contains(word), "{}", said.err);
    }
    // Whoever serves is not kept waiting.
    assert_eq!(answer(&board.slots()), answer_of(1));
    let opened = board.slots().open_to_serve().unwrap();
    assert_eq!(opened.serving.generation.number, 1);
    drop(lock);
    board.run("install --store s new.gallery", 0);
}

#[test]
fn a_confirmed_pair_that_rots_gives_way_to_the_one_before() {
    let board = Board::serving();
    board.run("install --store s new.gallery --confirm", 0);
    let slots = board.slots();
    let hash = slots.pointer().unwrap().confirmed.unwrap().gallery;
    let path = slots.file_path(hash);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let opened = slots.open_to_serve().unwrap();
    assert_eq!(opened.serving.generation.number, 3);
    assert_eq!(answer(&slots), answer_of(1));
    let reason = board.status()["refusal"]["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(reason.contains("it can not be opened"), "{reason}");
    drop(opened);
    // The same gallery can be installed again.
    board.run("install --store s new.gallery --confirm", 0);
    assert_eq!(answer(&slots), answer_of(2));
}

/// Files that somebody reads stay until they are not read any more.
#[test]
fn a_file_that_is_read_is_not_removed() {
    let board = Board::serving();
    let slots = board.slots();
    let opened = slots.open_to_read().unwrap();
    let path = slots.file_path(opened.serving.generation.gallery);
    for seed in [2, 3] {
        fs::write(board.at("next.gallery"), gallery(seed)).unwrap();
        board.run("install --store s next.gallery --confirm", 0);
    }
    assert!(path.exists());
    drop(opened);
    board.run("clean --store s", 0);
    assert!(!path.exists());
}

/// Runs an installation and kills it after some time, unless it is faster.
fn kill_after(mut command: Command, time: Duration) -> bool {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let (ended, end) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        // Ends with the process, whatever it says.
        let _ = std::io::copy(&mut out, &mut std::io::sink());
        let _ = ended.send(());
    });
    let is_killed = end.recv_timeout(time).is_err();
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    is_killed
}

#[test]
fn installations_that_are_killed_leave_a_store_that_answers_and_takes_updates() {
    kill_installations(&Board::serving(), ["new.gallery", "old.gallery"]);
}

#[test]
fn deltas_that_are_killed_leave_a_store_that_answers_and_takes_updates() {
    let board = Board::serving();
    let [old, new] = [gallery(1), gallery(2)];
    let [old, new] = [&old, &new].map(|bytes| Gallery::open(bytes).unwrap());
    let write = |name: &str, from, to| {
        fs::write(board.at(name), delta::between(from, to).unwrap()).unwrap();
    };
    write("there.delta", &old, &new);
    write("back.delta", &new, &old);
    kill_installations(&board, ["there.delta", "back.delta"]);
}

/// Installs one file after the other, again and again, and kills most of it. The first leads
/// to the new gallery, the second to the old one.
#[expect(
    clippy::print_stdout,
    reason = "the figure is for whoever runs the stress"
)]
fn kill_installations(board: &Board, names: [&str; 2]) {
    let n_kills = std::env::var("EYAS_KILLS").map_or(N_KILLS, |n| n.parse().unwrap());
    let answers = [1, 2].map(answer_of);
    let install = |i: usize| {
        let name = names[i % 2];
        board.command(&format!("install --store s {name} --confirm"))
    };
    let started = Instant::now();
    assert!(install(0).output().unwrap().status.success());
    let whole = started.elapsed();
    let (is_over, n_answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut random = Random::new(17);
    let mut n_killed = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slots = board.slots();
            while !is_over.load(Ordering::Relaxed) {
                assert!(answers.contains(&answer(&slots)));
                n_answers.fetch_add(1, Ordering::Relaxed);
            }
        });
        for i in 1.. {
            let time = whole.mul_f64(random.range(0.0, 1.1));
            n_killed += usize::from(kill_after(install(i), time));
            let before = serving_number(&board.slots());
            if i % 10 == 0 {
                let output = install(i).output().unwrap();
                let err = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{err}");
                assert_eq!(answer(&board.slots()), answers[(i + 1) % 2]);
                assert!(serving_number(&board.slots()) >= before);
            }
            if n_killed >= n_kills {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(n_answers.load(Ordering::Relaxed) > 0);
    println!(
        "{n_killed} killed, {} answers meanwhile",
        n_answers.load(Ordering::Relaxed)
    );
    board.run("clean --store s --staged", 0);
    assert!(n_files(&board.at("s/files")) <= 4);
    assert_eq!(n_files(&board.at("s/staged")), 0);
}

fn serving_number(slots: &Slots) -> u64 {
    slots.start().unwrap().generation.number
}

fn n_files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}
