//! The life of a gallery: built, grown, shrunk, cut, merged, sent as deltas; killed while it
//! is replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use eyas_device::store::MappedFile;
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource, Picked, Plan, delta};
use eyas_shared::preprocess::{Limits, decode};
use eyas_shared::random::Random;
use eyas_tests::{Said, program, root, run, run_ok};
use serde_json::Value;

/// Pictures with the label that each has in the shop.
const PICTURES: [(&str, &str); 9] = [
    ("420.jpg", "tea"),
    ("422.jpg", "tea"),
    ("444.jpg", "milk"),
    ("gray.jpg", "milk"),
    ("progressive.jpg", "rice"),
    ("restart.jpg", "rice"),
    ("rgb.jpg", "salt"),
    ("rgb8.png", "salt"),
    ("lossy.webp", "salt"),
];

/// A folder with pictures and a teacher that knows their embeddings.
struct Shop(tempfile::TempDir);

impl Shop {
    fn new() -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        for (name, _) in PICTURES {
            let picture = root().join("tests/golden/pixels").join(name);
            fs::copy(picture, shop.path(name)).unwrap();
        }
        let all = shop.list("all.csv", 0..PICTURES.len());
        let mut random = Random::new(2);
        let values: Vec<f32> = (0..PICTURES.len() * 16)
            .map(|_| random.normal() as f32)
            .collect();
        fs::write(shop.path("rows.npy"), npy(16, &values)).unwrap();
        let words = ["teacher", "import", &shop.at("rows.npy"), "--data", &all];
        let rest = ["--no-projection", "--out", &shop.at("shop.teacher")];
        run_ok("eyas", [&words[..], &rest].concat());
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Writes a list of some of the pictures and gives its path.
    fn list(&self, name: &str, range: std::ops::Range<usize>) -> String {
        let lines = PICTURES[range].iter();
        let lines: String = lines
            .map(|(path, label)| format!("{path},{label}\n"))
            .collect();
        fs::write(self.path(name), format!("path,label\n{lines}")).unwrap();
        self.at(name)
    }

    /// `eyas gallery` with words that end in `.gallery`, `.delta` and so on being files here.
    fn gallery(&self, words: &str) -> Said {
        let is_file =
            |word: &str| !word.starts_with('-') && (word.contains('.') || word.ends_with('/'));
        let words = words.split_whitespace().map(|word| {
            if is_file(word) {
                self.at(word)
            } else {
                word.to_owned()
            }
        });
        run("eyas", std::iter::once("gallery".to_owned()).chain(words))
    }

    #[track_caller]
    fn done(&self, words: &str) -> String {
        let said = self.gallery(words);
        assert_eq!(said.code, Some(0), "{words}: {said:#?}");
        said.out
    }

    #[track_caller]
    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{words} --json"))).unwrap()
    }

    #[track_caller]
    fn content(&self, name: &str) -> String {
        let content = &self.json(&format!("inspect {name}"))["content"];
        content.as_str().unwrap().to_owned()
    }

    /// The pictures `range` as a gallery.
    fn build(&self, name: &str, range: std::ops::Range<usize>, more: &str) -> Value {
        self.list(&format!("{name}.csv"), range);
        let words = format!("build --teacher shop.teacher --data {name}.csv --out {name} {more}");
        self.json(&words)
    }
}

/// A matrix as NumPy stores it.
fn npy(dim: usize, values: &[f32]) -> Vec<u8> {
    let shape = format!("({}, {dim})", values.len() / dim);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(len as u16).to_le_bytes());
    bytes.extend_from_slice(format!("{header:<width$}\n", width = len - 1).as_bytes());
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

#[test]
fn a_shop_follows_week_by_week() {
    let shop = Shop::new();
    shop.build("one.gallery", 0..5, "");
    fs::copy(shop.path("one.gallery"), shop.path("board.gallery")).unwrap();
    // The second week brings pictures, the third takes some away.
    shop.list("new.csv", 3..8);
    let words = "add one.gallery --teacher shop.teacher --data new.csv --delta two.delta \
                 --out two.gallery";
    let two = shop.json(words);
    assert_eq!(two["n_images"], 8);
    let all = shop.build("all.gallery", 0..8, "");
    assert_eq!(two["content"], all["content"]);
    fs::copy(shop.path("two.gallery"), shop.path("three.gallery")).unwrap();
    shop.done("remove three.gallery --label rice --name=rgb.jpg --delta three.delta");
    assert_eq!(shop.json("inspect three.gallery")["n_images"], 5);

    // The board gets them in the wrong order, half, then right, then twice.
    let before = shop.bytes("board.gallery");
    let wrong = shop.gallery("apply board.gallery three.delta");
    assert_eq!(wrong.code, Some(2), "{wrong:#?}");
    for content in [shop.content("two.gallery"), shop.content("one.gallery")] {
        assert!(wrong.err.contains(&content[..16]), "{}", wrong.err);
    }
    assert!(wrong.err.contains("hint: apply the deltas in between"));
    let delta = shop.bytes("two.delta");
    fs::write(shop.path("half.delta"), &delta[..delta.len() / 2]).unwrap();
    let half = shop.gallery("apply board.gallery half.delta");
    assert!(half.err.contains("half.delta") && half.err.contains("cut short"));
    assert_eq!(shop.bytes("board.gallery"), before);
    let (board, first, second) = (
        shop.at("board.gallery"),
        shop.at("two.delta"),
        shop.at("three.delta"),
    );
    let apply = |delta: &str| run("eyas-device", ["gallery", "apply", &board, delta]);
    assert_eq!(apply(&first).code, Some(0));
    assert_eq!(shop.content("board.gallery"), shop.content("two.gallery"));
    let before = shop.bytes("board.gallery");
    let twice = apply(&first);
    assert_eq!(twice.code, Some(1), "{twice:#?}");
    assert!(twice.err.contains("already applied"), "{}", twice.err);
    assert_eq!(shop.bytes("board.gallery"), before);
    assert_eq!(apply(&second).code, Some(0));
    assert_eq!(shop.content("board.gallery"), shop.content("three.gallery"));
    // Three of eight rows went: too many to keep.
    assert_eq!(shop.json("inspect board.gallery")["n_removed"], 0);
    run_ok("eyas-device", ["gallery", "verify", &board]);
    let same = shop.gallery("diff board.gallery three.gallery --out no.delta");
    assert_eq!(same.code, Some(1), "{same:#?}");
    assert!(!shop.path("no.delta").exists());
}

#[test]
fn removed_rows_wait_for_compaction() {
    let shop = Shop::new();
    shop.build("old.gallery", 0..9, "");
    shop.build("new.gallery", 1..9, "");
    let delta = shop.json("diff old.gallery new.gallery --out week.delta");
    assert_eq!(
        (&delta["n_removed"], &delta["n_added"]),
        (&1.into(), &0.into())
    );
    let applied = shop.json("apply old.gallery week.delta --out applied.gallery");
    assert_eq!(applied["n_removed"], 1);
    assert_eq!(applied["content"], delta["result"]);
    let compact = shop.json("compact applied.gallery");
    assert_eq!(
        (&compact["n_removed"], &compact["n_rows"]),
        (&0.into(), &8.into())
    );
    assert_eq!(compact["content"], delta["result"]);
    assert!(compact["bytes"].as_u64() < applied["bytes"].as_u64());
    shop.done("verify applied.gallery");
    shop.done("verify week.delta");
    let rows = shop.json("inspect week.delta --rows");
    let gone = ImageId::of_file(&shop.bytes("420.jpg")).to_string();
    assert_eq!(rows["removed"], serde_json::json!([gone]));
}

#[test]
fn parts_of_a_gallery_make_it_whole_again() {
    let shop = Shop::new();
    let whole = shop.build("whole.gallery", 0..9, "--thumbnails 32");
    shop.done("cut whole.gallery --label tea --label milk --out a.gallery");
    shop.done("cut whole.gallery --label milk --label rice --label salt --out b.gallery");
    let merged = shop.json("merge a.gallery b.gallery --out merged.gallery");
    assert_eq!(merged["content"], whole["content"]);
    assert_eq!(merged["n_repeated"], 2);
    let tenth = shop.json("cut whole.gallery --every 3 --no-thumbnails --out third.gallery");
    assert_eq!(
        (&tenth["n_images"], &tenth["has_thumbnails"]),
        (&3.into(), &false.into())
    );
    let conflict = shop.gallery("merge third.gallery a.gallery --out no.gallery");
    assert_eq!(conflict.code, Some(2), "{conflict:#?}");
    for word in ["third.gallery", "a.gallery", "thumbnails"] {
        assert!(conflict.err.contains(word), "{}", conflict.err);
    }
    let serial = shop.json("cut whole.gallery --for serial --out serial.gallery");
    assert_eq!(serial["codes"], "int8");
    assert!(serial["recall"]["at_10"].as_f64() > Some(0.9), "{serial}");
    let finer = shop.gallery("cut serial.gallery --codes f16 --out no.gallery");
    assert!(finer.err.contains("finer"), "{}", finer.err);
    let typo = shop.gallery("cut whole.gallery --label milc --out no.gallery");
    assert!(typo.err.contains("is it `milk`?"), "{}", typo.err);
    let other = shop.gallery("diff whole.gallery serial.gallery --out no.delta");
    assert!(other.err.contains("`int8,f16`"), "{}", other.err);
    // What is shown of an image is a picture.
    shop.done("thumbnail whole.gallery --name=420.jpg --out small.jpg");
    let picture = decode(&shop.bytes("small.jpg"), &Limits::DEFAULT).unwrap();
    assert_eq!(picture.width.max(picture.height), 32);
    shop.done("thumbnail whole.gallery --label salt --out pictures/");
    assert_eq!(fs::read_dir(shop.path("pictures")).unwrap().count(), 3);
    assert!(!shop.path("no.gallery").exists() && !shop.path("no.delta").exists());
}

#[test]
fn a_gallery_is_built_for_an_aim_and_says_what_it_costs() {
    let shop = Shop::new();
    for (aim, codes, sections) in [
        ("serial", "int8", vec!["INT8", "SCL8"]),
        ("speed", "int2,f16", vec!["INT2", "FAC2", "LOW2", "ROWS"]),
        ("exact", "f32", vec!["ROWS"]),
    ] {
        let built = shop.build("aim.gallery", 0..9, &format!("--for {aim}"));
        assert_eq!(built["codes"], codes);
        let first: Vec<&str> = built["sections"].as_array().unwrap()[..sections.len()]
            .iter()
            .map(|section| section["tag"].as_str().unwrap())
            .collect();
        assert_eq!(first, sections);
        // Nine rows that ask for the eight others.
        assert_eq!(built["recall"]["at_10"], 1.0);
        assert_eq!(built["recall"]["n_queries"], 9);
        let bytes = built["bytes"].as_f64().unwrap();
        let expected = (bytes * 10.0 * 1000.0 / (115_200.0 * 0.95)).ceil();
        assert_eq!(built["transfer_ms"]["115200"], expected);
    }
    let both = shop.gallery(
        "build --teacher shop.teacher --data all.csv --for speed --codes f16 --out no.gallery",
    );
    assert_eq!(both.code, Some(2), "{both:#?}");
    // The same from a matrix on disk, which need not fit into memory.
    let words = "import rows.npy --list all.csv --teacher shop.teacher --out import.gallery";
    let imported = shop.json(&format!("{words} --for speed"));
    let built = shop.build("built.gallery", 0..9, "--for speed");
    assert_eq!(imported["content"], built["content"]);
    shop.done("verify import.gallery");
    shop.list("few.csv", 0..4);
    let few =
        shop.gallery("import rows.npy --list few.csv --teacher shop.teacher --out no.gallery");
    assert!(
        few.err.contains("9 rows") && few.err.contains("4 images"),
        "{}",
        few.err
    );
}

/// Rows of the gallery that is updated while it is read and killed.
const N_ROWS: usize = 6_000;
const DIM: usize = 64;

/// Kills in a plain run; `EYAS_KILLS` sets another number.
const N_KILLS: usize = 40;

/// An old and a new gallery and the delta between them.
fn generations() -> [Vec<u8>; 3] {
    let mut random = Random::new(8);
    let values = (0..N_ROWS * DIM).map(|_| random.normal() as f32).collect();
    let rows = Embeddings::from_values(DIM, values).unwrap();
    let names: Vec<String> = (0..N_ROWS).map(|i| format!("{i}.jpg")).collect();
    let entries: Vec<Entry<'_>> = names
        .iter()
        .map(|name| Entry {
            id: ImageId::of_file(name.as_bytes()),
            label: "tea",
            name,
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: "a teacher".to_owned(),
        manifest: Fingerprint([1; 32]),
        codes: Codes::INT8_F16,
    };
    let all = gallery::write(&source, &rows, &entries).unwrap();
    let all = Gallery::open(&all).unwrap();
    let [old, new] = [0..5_900_u32, 100..6_000].map(|range| {
        let records = Picked::of(vec![&all], |_, row| range.contains(&row));
        Plan::new(&source, &records).unwrap().to_bytes()
    });
    let open = |bytes| Gallery::open(bytes).unwrap();
    let delta = delta::between(&open(&old), &open(&new)).unwrap();
    [old, new, delta]
}

/// Where the temporary file of a writer lies, and how long it is.
fn unfinished(folder: &Path) -> Option<u64> {
    let files = fs::read_dir(folder).ok()?;
    let mut files = files.filter_map(Result::ok);
    let file = files.find(|file| file.file_name().to_string_lossy().ends_with(".tmp"))?;
    Some(file.metadata().ok()?.len())
}

#[test]
fn an_update_that_is_killed_leaves_the_old_gallery_or_the_new_one() {
    let n_kills = std::env::var("EYAS_KILLS").map_or(N_KILLS, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let [old, new, delta] = generations();
    let at = |name: &str| folder.path().join("served").join(name);
    fs::create_dir(folder.path().join("served")).unwrap();
    let (path, delta_path) = (at("shop.gallery"), folder.path().join("week.delta"));
    fs::write(&delta_path, &delta).unwrap();
    fs::write(&path, &old).unwrap();
    let contents = [&old, &new].map(|bytes| Gallery::open(bytes).unwrap().content().unwrap());
    let (is_over, n_reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let is_whole = |path: &Path| {
        let file = MappedFile::open(path).unwrap();
        let gallery = file.verified_gallery().unwrap();
        let content = gallery.content().unwrap();
        assert!(
            contents.contains(&content),
            "neither old nor new: {content}"
        );
        n_reads.fetch_add(1, Ordering::Relaxed);
        content == contents[1]
    };
    let n_new = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        is_whole(&path);
                    }
                })
            })
            .collect();
        let mut random = Random::new(11);
        let mut n_new = 0;
        for _ in 0..n_kills {
            eyas_shared::files::replace(&path, &old).unwrap();
            let mut child = program("eyas-device")
                .args(["gallery", "apply"])
                .args([&path, &delta_path])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // A random point: so many bytes of the new file are there, or it has taken the
            // name; then a little more work is let happen.
            let wanted = random.below(old.len() * 5 / 4) as u64;
            while child.try_wait().unwrap().is_none()
                && unfinished(&folder.path().join("served")).is_none_or(|len| len < wanted)
            {
                thread::yield_now();
            }
            (0..random.below(20)).for_each(|_| thread::yield_now());
            child.kill().unwrap();
            child.wait().unwrap();
            n_new += usize::from(is_whole(&path));
        }
        is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        n_new
    });
    eprintln!(
        "{n_kills} kills: {} old, {n_new} new; {} reads of whole galleries",
        n_kills - n_new,
        n_reads.into_inner()
    );
    // What the killed left behind does not pile up.
    run_ok(
        "eyas-device",
        [Path::new("gallery"), Path::new("compact"), &path],
    );
    let left = fs::read_dir(folder.path().join("served")).unwrap().count();
    assert_eq!(left, 1, "files beside the gallery");
}
