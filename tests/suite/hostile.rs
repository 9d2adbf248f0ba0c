//! Wrong inputs at the command line and in files: exit code 2, a message that names the
//! path, what is wrong and what to do, and never a panic. Readers that go away end no work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use eyas_shared::bundle::Bundle;
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource};
use eyas_tests::{Said, program, root, run};

use crate::end_to_end::{TEACHER, student_recipe, world};

/// A folder for one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file and gives its path.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self.at(name)
    }
}

/// Could not be done: exit code 2 and these words on standard error.
#[track_caller]
fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(!said.err.contains("panicked"), "{}", said.err);
    for word in words {
        assert!(said.err.contains(word), "no `{word}` in: {}", said.err);
    }
}

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden/v1").join(name)
}

fn picture() -> Vec<u8> {
    fs::read(root().join("tests/golden/pixels/rgb.jpg")).unwrap()
}

/// A gallery of two rows in a space that is named by a word.
fn small_gallery(space: &str, dim: usize) -> Vec<u8> {
    let source = GallerySource {
        space: SpaceId(Fingerprint::of_bytes(space.as_bytes())),
        teacher: "a teacher".to_owned(),
        manifest: Fingerprint::of_bytes(b"manifest"),
        codes: Codes::F16,
    };
    let values = (0..2 * dim).map(|i| i as f32 + 1.0).collect();
    let mut rows = Embeddings::from_values(dim, values).unwrap();
    rows.normalize_rows();
    let entries = ["tea", "milk"].map(|label| Entry {
        id: ImageId::of_file(label.as_bytes()),
        label,
        name: label,
    });
    gallery::write(&source, &rows, &entries).unwrap()
}

fn query(image: &str, bundle: &str, gallery: &str) -> Said {
    run(
        "eyas-device",
        ["query", image, "--bundle", bundle, "--gallery", gallery],
    )
}

#[test]
fn data_that_is_not_there_is_named() {
    let folder = Folder::new();
    fs::create_dir(folder.path("empty")).unwrap();
    let empty = folder.at("empty");
    // A check answers: the data are at fault.
    let said = run("eyas", ["data", "check", &empty]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    for word in [&empty, "lists no image", "one folder per label"] {
        assert!(said.out.contains(word), "no `{word}` in: {}", said.out);
    }
    // Whoever needs images can not go on.
    let bundle = golden("f16.bundle").display().to_string();
    let words = [
        "evaluate",
        "--symmetric",
        "--bundle",
        &bundle,
        "--manifest",
        &empty,
    ];
    refused(&run("eyas", words), &[&empty, "lists no image", "hint:"]);
    let missing = folder.at("missing");
    let said = run("eyas", ["data", "check", &missing]);
    refused(&said, &[&missing, "does not exist", "hint: check the path"]);
}

#[test]
fn a_recipe_that_is_wrong_says_where_and_what_is_meant() {
    let folder = Folder::new();
    let train = |recipe: &str| {
        let words = [
            "teacher", "train", recipe, "--data", "none", "--run", "none",
        ];
        run("eyas", [&words[..], &["--out", &folder.at("out")]].concat())
    };
    let recipe = folder.file("unknown.toml", TEACHER.replace("epochs", "epoch"));
    refused(
        &train(&recipe),
        &[&recipe, "`epoch`", "hint: did you mean `epochs`?"],
    );
    let recipe = folder.file("missing.toml", TEACHER.replace("seed = 3", ""));
    refused(&train(&recipe), &[&recipe, "missing field `seed`"]);
    let recipe = folder.file("text.toml", "a recipe for tea\n");
    refused(&train(&recipe), &[&recipe, "line 1"]);
    let recipe = folder.at("none.toml");
    refused(&train(&recipe), &[&recipe, "hint: check the path"]);
}

#[test]
fn training_names_the_teacher_that_is_missing() {
    let folder = Folder::new();
    let recipe = folder.file("student.toml", student_recipe());
    folder.file("data/tea/1.jpg", picture());
    let (teacher, out) = (folder.at("no.teacher"), folder.at("run"));
    let words = [
        "train",
        &recipe,
        "--data",
        &folder.at("data"),
        "--teacher",
        &teacher,
    ];
    let said = run("eyas", [&words[..], &["--out", &out]].concat());
    refused(&said, &[&teacher, "could not read", "hint: check the path"]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn starting_weights_of_another_network_are_named() {
    let world = world();
    let folder = Folder::new();
    let recipe = TEACHER.replace(r#"start = "scratch""#, r#"start = "weights""#);
    let recipe = folder.file("weights.toml", recipe);
    // A whole file without a tensor.
    let start = folder.file("none.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    let (out, teacher) = (folder.at("run"), folder.at("a.teacher"));
    let words = [
        "teacher",
        "train",
        &recipe,
        "--data",
        &world.at("shelves"),
        "--run",
        &out,
    ];
    let rest = ["--out", &teacher, "--start", &start, "--compute", "cpu"];
    let said = run("eyas", [&words[..], &rest].concat());
    refused(&said, &[&start, "is missing", "hint:", "architecture"]);
}

#[test]
fn unreadable_images_are_named_and_the_others_answered() {
    let world = world();
    let folder = Folder::new();
    let picture = picture();
    let cut = folder.file("photos/cut.jpg", &picture[..picture.len() / 2]);
    let text = folder.file("photos/text.jpg", "no picture\n");
    let empty = folder.file("photos/empty.png", "");
    let whole = folder.file("photos/whole.jpg", &picture);
    let (bundle, gallery) = (
        world.at("bundles/small-f16.bundle"),
        world.at("small.gallery"),
    );
    let said = query(&folder.at("photos"), &bundle, &gallery);
    refused(&said, &[&cut, &text, &empty]);
    assert!(
        said.out.contains(&whole) && !said.out.contains(&cut),
        "{}",
        said.out
    );
    let said = query(&text, &bundle, &gallery);
    refused(&said, &[&text]);
    assert!(said.out.is_empty(), "{}", said.out);
    let missing = folder.at("photos/none.jpg");
    refused(
        &query(&missing, &bundle, &gallery),
        &[&missing, "hint: check the path"],
    );
}

#[test]
fn files_that_are_cut_short_or_no_files_are_refused() {
    let folder = Folder::new();
    let bytes = fs::read(golden("f16.bundle")).unwrap();
    for n_bytes in 0..bytes.len() {
        assert!(Bundle::read(&bytes[..n_bytes]).is_err(), "{n_bytes} bytes");
    }
    let gallery = golden("f16.gallery").display().to_string();
    let image = folder.file("a.jpg", picture());
    let cut = folder.file("cut.bundle", &bytes[..bytes.len() - 7]);
    refused(
        &query(&image, &cut, &gallery),
        &[&cut, "cut short", "hint: copy the file again"],
    );
    let empty = folder.file("empty.bundle", "");
    refused(
        &query(&image, &empty, &gallery),
        &[&empty, "is empty", "hint:"],
    );
    let a_folder = folder.0.path().display().to_string();
    refused(
        &query(&image, &a_folder, &gallery),
        &[&a_folder, "is a folder", "hint:"],
    );
    refused(
        &query(&image, &image, &gallery),
        &[&image, "not an eyas file", "hint:"],
    );
}

/// Every byte with one bit and with all bits turned over, one after the other.
fn each_flip(bytes: &[u8], mut check: impl FnMut(&[u8], usize)) {
    let mut damaged = bytes.to_vec();
    for i in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            damaged[i] ^= mask;
            check(&damaged, i);
            damaged[i] ^= mask;
        }
    }
}

#[test]
fn no_byte_of_a_gallery_can_change_unnoticed() {
    each_flip(&small_gallery("space", 3), |bytes, i| {
        let checked = Gallery::open(bytes).and_then(|gallery| gallery.verify());
        assert!(checked.is_err(), "byte {i}");
    });
}

#[test]
fn no_byte_of_a_bundle_can_change_unnoticed() {
    each_flip(&fs::read(golden("f16.bundle")).unwrap(), |bytes, i| {
        assert!(Bundle::read(bytes).is_err(), "byte {i}");
    });
}

#[test]
fn a_damaged_gallery_has_the_same_hint_on_board_and_host() {
    let folder = Folder::new();
    let mut bytes = small_gallery("space", 3);
    *bytes.last_mut().unwrap() ^= 1;
    let gallery = folder.file("damaged.gallery", bytes);
    let bundle = golden("f16.bundle").display().to_string();
    let words = [gallery.as_str(), "damaged", "hint: copy the file again"];
    refused(
        &query(&folder.file("data/tea/1.jpg", picture()), &bundle, &gallery),
        &words,
    );
    let data = [
        "evaluate",
        "--manifest",
        &folder.at("data"),
        "--split",
        "train",
    ];
    let files = ["--bundle", &bundle, "--gallery", &gallery];
    refused(&run("eyas", [&data[..], &files].concat()), &words);
}

#[test]
fn bundle_and_gallery_can_not_be_exchanged() {
    let folder = Folder::new();
    let image = folder.file("a.jpg", picture());
    let bundle = golden("f16.bundle").display().to_string();
    let gallery = golden("f16.gallery").display().to_string();
    let hint = "hint: `eyas-device info FILE`";
    let said = query(&image, &gallery, &gallery);
    refused(
        &said,
        &[&gallery, "this is a gallery, but a bundle is needed", hint],
    );
    let said = query(&image, &bundle, &bundle);
    refused(
        &said,
        &[&bundle, "this is a bundle, but a gallery is needed", hint],
    );
    let said = run("eyas", ["gallery", "inspect", &bundle]);
    refused(
        &said,
        &[&bundle, "this is a bundle, but a gallery is needed", hint],
    );
}

#[test]
fn a_gallery_that_the_student_does_not_fit_is_refused_on_board_and_host() {
    let folder = Folder::new();
    let image = folder.file("data/tea/1.jpg", picture());
    let bundle = golden("f16.bundle").display().to_string();
    let other = folder.file("other.gallery", small_gallery("another space", 3));
    let wide = folder.file("wide.gallery", small_gallery("space", 4));
    for (gallery, what) in [
        (other, "different teachers"),
        (wide, "student 3, gallery 4"),
    ] {
        let words = [
            bundle.as_str(),
            &gallery,
            what,
            "hint: build the gallery with the teacher",
        ];
        refused(&query(&image, &bundle, &gallery), &words);
        let data = [
            "evaluate",
            "--manifest",
            &folder.at("data"),
            "--split",
            "train",
        ];
        let files = ["--bundle", &bundle, "--gallery", &gallery];
        refused(&run("eyas", [&data[..], &files].concat()), &words);
    }
}

#[test]
fn a_training_whose_answer_nobody_reads_goes_on() {
    let world = world();
    let mut child = program("eyas")
        .args(world.train_words("unread"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(world.path("unread/student.json").exists());
}

#[test]
fn an_error_that_nobody_reads_is_still_an_exit_code() {
    let folder = Folder::new();
    let image = folder.at("none.jpg");
    let host = ["data", "check", &image].to_vec();
    let device = ["info", &image].to_vec();
    for (name, words) in [("eyas", host), ("eyas-device", device)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = program(name).args(words).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(2), "{name}");
    }
}
