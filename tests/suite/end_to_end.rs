//! The whole flow on a few rendered products: the same bytes twice, the same bytes after
//! SIGKILL, the same answer from the device as from the host, and wrong inputs on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use eyas_shared::bundle::Bundle;
use eyas_tests::{Said, program, run, run_ok};
use serde_json::Value;

pub(super) const TEACHER: &str = r#"
name = "small-teacher"
seed = 3
architecture = "eyas-xs"
pooling = "average"
dim = 16
start = "scratch"
epochs = 2
validation_fraction = 0.2
checkpoint_steps = 3
keep = "last"
batch = { kind = "shuffled", images = 8, views = 1 }
teacher_views = "none"
optimizer = { kind = "adamw", beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 1e-4 }
schedule = { kind = "cosine", peak = 1e-3, end = 0.0, warmup_steps = 2 }
rate_factors = { head = 1.0, pool = 1.0 }
stabilize = { clip = "none", average = "none", batch_norm = "train", freeze = [], head_steps = 0 }
precision = "f32"
augmentation = { crop_area = [0.7, 1.0], crop_aspect = [0.9, 1.1], mirror = false, jitter = 0.2 }
loss = [{ kind = "proxy-anchor", weight = 1.0, alpha = 32.0, margin = 0.1, proxy_rate_factor = 10.0 }]
map = { kind = "none" }

[input]
resize_shorter = 48
crop = 48
filter = "bilinear"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"#;

/// Both losses, two views, the map, batch norm: everything that has to come back.
pub(super) fn student_recipe() -> String {
    TEACHER
        .replace("small-teacher", "small-student")
        .replace("views = 1", "views = 2")
        .replace(r#"teacher_views = "none""#, r#"teacher_views = "cached""#)
        .replace("epochs = 2", "epochs = 8")
        .replace(
            r#"loss = [{ kind = "proxy-anchor", weight = 1.0, alpha = 32.0, margin = 0.1, proxy_rate_factor = 10.0 }]"#,
            r#"loss = [{ kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }, { kind = "regression", weight = 1.0 }]"#,
        )
        .replace(r#"map = { kind = "none" }"#, r#"map = { kind = "ridge", penalty = 0.1 }"#)
}

/// A folder with data, a teacher, a student, bundles and a gallery, made once.
pub(super) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(super) fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn train_words(&self, run: &str) -> Vec<String> {
        self.train_words_of("student.toml", run)
    }

    pub(super) fn train_words_of(&self, recipe: &str, run: &str) -> Vec<String> {
        let words = ["train", &self.at(recipe), "--data", &self.at("shelves")];
        let teacher = [
            "--teacher",
            &self.at("small.teacher"),
            "--cache",
            &self.at("cache"),
        ];
        let rest = ["--out", &self.at(run), "--compute", "cpu", "--threads", "2"];
        [&words[..], &teacher, &rest]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    fn train_teacher(&self, run: &str, out: &str, seed: &str) {
        let (recipe, data) = (self.at("teacher.toml"), self.at("shelves"));
        let words = ["teacher", "train", &recipe, "--data", &data, "--seed", seed];
        let rest = ["--run", &self.at(run), "--out", &self.at(out)];
        let compute = ["--compute", "cpu", "--threads", "2"];
        run_ok("eyas", [&words[..], &rest, &compute].concat());
    }

    fn export(&self, run: &str, out: &str) {
        let precisions = ["--precision", "f32", "--precision", "f16"];
        let words = [
            "export",
            &self.at(run),
            "--out",
            &self.at(out),
            "--name",
            "small",
        ];
        run_ok("eyas", [&words[..], &precisions].concat());
    }
}

pub(super) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(world.path("teacher.toml"), TEACHER).unwrap();
        fs::write(world.path("student.toml"), student_recipe()).unwrap();
        let sizes = [
            "--classes",
            "6",
            "--views",
            "8",
            "--unseen-classes",
            "4",
            "--side",
            "64",
        ];
        let words = ["data", "render", &world.at("shelves"), "--seed", "5"];
        run_ok("eyas", [&words[..], &sizes].concat());
        world.train_teacher("teacher", "small.teacher", "3");
        run_ok("eyas", world.train_words("run"));
        world.export("run", "bundles");
        let words = [
            "gallery",
            "build",
            "--teacher",
            &world.at("small.teacher"),
            "--split",
            "gallery",
        ];
        let rest = [
            "--data",
            &world.at("shelves"),
            "--cache",
            &world.at("cache"),
        ];
        run_ok(
            "eyas",
            [&words[..], &rest, &["--out", &world.at("small.gallery")]].concat(),
        );
        world
    })
}

#[test]
fn the_same_recipe_and_seed_give_the_same_bundle_bytes() {
    let world = world();
    run_ok("eyas", world.train_words("again"));
    world.export("again", "again-bundles");
    for name in ["small-f32.bundle", "small-f16.bundle"] {
        let first = fs::read(world.path("bundles").join(name)).unwrap();
        let second = fs::read(world.path("again-bundles").join(name)).unwrap();
        assert!(first == second, "{name} differs");
    }
}

/// Steps of a run directory's checkpoint.
pub(super) fn checkpoint_step(run: &Path) -> Option<usize> {
    let bytes = fs::read(run.join("checkpoint.safetensors")).ok()?;
    let text = String::from_utf8_lossy(&bytes[8..bytes.len().min(400)]).into_owned();
    // JSON in the JSON of the file's head.
    let rest = text.split(r#"\"step\":"#).nth(1)?;
    rest.split(',').next()?.parse().ok()
}

#[test]
fn a_run_killed_in_an_epoch_goes_on_and_ends_with_the_same_bytes() {
    let world = world();
    let run_folder = world.path("killed");
    let mut child = program("eyas")
        .args(world.train_words("killed"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // SIGKILL as soon as there is a checkpoint that is not the last.
    while checkpoint_step(&run_folder).is_none() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let step = checkpoint_step(&run_folder).unwrap();
    // 6 classes x 8 views less a fifth held out: 36 images, 4 steps an epoch, 32 in all.
    assert!(step < 32, "the run was over before it could be killed");
    assert!(!run_folder.join("student.json").exists());

    run_ok("eyas", world.train_words("killed"));
    let log = fs::read_to_string(run_folder.join("train.log")).unwrap();
    assert!(log.contains(&format!("start: step {step} of 32")), "{log}");
    world.export("killed", "killed-bundles");
    let first = fs::read(world.path("bundles/small-f32.bundle")).unwrap();
    let resumed = fs::read(world.path("killed-bundles/small-f32.bundle")).unwrap();
    assert!(first == resumed, "the resumed run ended with other bytes");
}

#[test]
fn an_interrupted_training_ends_at_once_and_leaves_nothing_half_written() {
    let world = world();
    let run_folder = world.path("interrupted");
    let mut child = program("eyas")
        .args(world.train_words("interrupted"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while checkpoint_step(&run_folder).is_none() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = fs::read_dir(&run_folder).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let unfinished: Vec<String> = names.filter(|name| name.ends_with(".tmp")).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

/// All files of a run directory.
fn files_of(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(run).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    { paths.into_iter() }
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// A command that would go on with a finished run is refused, says what differs, and leaves
/// every file of the run as it was: its log, too, by which a finished run is known.
#[track_caller]
fn does_not_go_on(run_name: &str, words: Vec<String>, differences: &[&str]) {
    let folder = world().path(run_name);
    let before = files_of(&folder);
    for name in ["recipe.toml", "checkpoint.safetensors", "train.log"] {
        assert!(
            before.iter().any(|(path, _)| path.ends_with(name)),
            "{name}"
        );
    }
    let said = run("eyas", words);
    assert_eq!(said.code, Some(2), "{said:?}");
    let refusal = "belongs to another experiment";
    for part in [&[refusal], differences].concat() {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    for (now, (path, then)) in files_of(&folder).iter().zip(&before) {
        assert!(
            now.0 == *path && now.1 == *then,
            "{} changed",
            path.display()
        );
    }
    assert_eq!(files_of(&folder).len(), before.len());
}

#[test]
fn another_recipe_does_not_go_on_with_this_run() {
    let world = world();
    run_ok("eyas", world.train_words("other"));
    let mut words = world.train_words("other");
    words.extend(["--seed".to_owned(), "4".to_owned()]);
    does_not_go_on("other", words, &["recipe.seed: 3 -> 4"]);
}

#[test]
fn another_teacher_does_not_go_on_with_this_run() {
    let world = world();
    run_ok("eyas", world.train_words("of-another-teacher"));
    world.train_teacher("second-teacher", "second.teacher", "4");
    let mut words = world.train_words("of-another-teacher");
    let teacher = words.iter().position(|word| word == "--teacher").unwrap();
    words[teacher + 1] = world.at("second.teacher");
    let space = |teacher: &str| {
        let said = run_ok("eyas", ["teacher", "info", &world.at(teacher), "--json"]);
        let info: Value = serde_json::from_str(&said).unwrap();
        // As errors show it.
        info["space_id"].as_str().unwrap()[..16].to_owned()
    };
    let (first, second) = (space("small.teacher"), space("second.teacher"));
    let spaces = format!("teacher's space: {first} -> {second}");
    does_not_go_on(
        "of-another-teacher",
        words,
        &[&spaces, "teacher's embeddings: "],
    );
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The first file below a folder, by name.
fn first_file(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap();
    let first = entries.map(|entry| entry.unwrap().path()).min().unwrap();
    match first.is_dir() {
        true => first_file(&first),
        false => first,
    }
}

#[test]
fn another_image_in_the_data_does_not_go_on_with_this_run() {
    let world = world();
    let data = world.path("retaken");
    copy_folder(&world.path("shelves"), &data);
    let mut words = world.train_words("of-other-data");
    let folder = words.iter().position(|word| word == "--data").unwrap();
    words[folder + 1] = world.at("retaken");
    run_ok("eyas", words.clone());
    // The same name and label, another photograph.
    let changed = first_file(&data.join("train"));
    fs::copy(first_file(&data.join("query")), changed).unwrap();
    let differences = ["training images: ", "teacher's embeddings: "];
    does_not_go_on("of-other-data", words, &differences);
}

fn evaluate(world: &World, more: &[&str]) -> Value {
    let words = [
        "evaluate",
        "--bundle",
        &world.at("bundles/small-f16.bundle"),
        "--json",
    ];
    let data = ["--manifest", &world.at("shelves"), "--split", "query"];
    serde_json::from_str(&run_ok("eyas", [&words[..], &data, more].concat())).unwrap()
}

#[test]
fn evaluation_answers_with_one_object() {
    let world = world();
    let scores = evaluate(world, &["--gallery", &world.at("small.gallery")]);
    for key in ["recall_at_1", "recall_at_5", "mean_average_precision_at_r"] {
        let score = scores[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&score), "{key} = {score}");
    }
    assert_eq!(scores["n_queries"], 4 * 5);
    assert_eq!(scores["n_gallery"], 4 * 3);
    assert_eq!(scores["precision"], "f16");
    let bytes = fs::read(world.path("bundles/small-f16.bundle")).unwrap();
    let space = Bundle::read(&bytes).unwrap().header.space.0.to_string();
    assert_eq!(scores["space_id"], space);
    assert!(
        scores["schema"]
            .as_str()
            .unwrap()
            .starts_with("eyas.evaluation/")
    );
}

#[test]
fn histograms_search_the_gallery_images_that_the_data_lists() {
    let world = world();
    let whole = evaluate(
        world,
        &["--gallery", &world.at("small.gallery"), "--baseline"],
    );
    assert_eq!(whole["histogram"]["n_gallery"], 4 * 3);
    // The same images ask, but only one label of the gallery is listed.
    let data = world.path("one-label");
    let link = |from: &str, to: &Path| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(world.path(from), to).unwrap();
    };
    link("shelves/query", &data.join("query"));
    let mut labels = fs::read_dir(world.path("shelves/gallery")).unwrap();
    let label = labels
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    link(
        &format!("shelves/gallery/{label}"),
        &data.join("gallery").join(&label),
    );
    let words = [
        "evaluate",
        "--bundle",
        &world.at("bundles/small-f16.bundle"),
        "--json",
    ];
    let asked = [
        "--manifest",
        &world.at("one-label"),
        "--gallery",
        &world.at("small.gallery"),
    ];
    let said = run(
        "eyas",
        [&words[..], &asked, &["--split", "query", "--baseline"]].concat(),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("9 of 12 rows"), "{}", said.err);
    let part: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(part["histogram"]["n_gallery"], 3);
    assert_eq!(part["n_gallery"], 12);
    for key in ["recall_at_1", "chance_recall_at_1"] {
        assert_eq!(part[key], whole[key], "{key}");
    }
    // Queries are of 4 labels with 3 images each, and none is in the gallery.
    assert_eq!(whole["chance_recall_at_1"], 0.25);
}

fn device_query(world: &World, image: &str, more: &[&str]) -> Said {
    let words = [
        "query",
        image,
        "--bundle",
        &world.at("bundles/small-f16.bundle"),
    ];
    let gallery = ["--gallery", &world.at("small.gallery")];
    run("eyas-device", [&words[..], &gallery, more].concat())
}

#[test]
fn the_device_finds_what_evaluation_scores() {
    let world = world();
    let said = device_query(
        world,
        &world.at("shelves/query"),
        &["--json", "--top-k", "1"],
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut right = 0;
    for line in said.out.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let image = answer["image"].as_str().unwrap();
        let label = Path::new(image)
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        right += usize::from(answer["matches"][0]["label"] == label);
    }
    let scores = evaluate(world, &["--gallery", &world.at("small.gallery")]);
    assert_eq!(scores["recall_at_1"].as_f64().unwrap(), right as f64 / 20.0);
}

#[test]
fn the_bundle_reproduces_itself() {
    let world = world();
    run_ok(
        "eyas-device",
        [
            "selftest",
            "--bundle",
            &world.at("bundles/small-f16.bundle"),
        ],
    );
    run_ok(
        "eyas-device",
        ["info", &world.at("bundles/small-f32.bundle")],
    );
    run_ok("eyas-device", ["info", &world.at("small.gallery")]);
}

#[test]
fn a_gallery_of_another_teacher_is_refused() {
    let world = world();
    // The same recipe with another seed is another space.
    let other = world.at("other.gallery");
    world.train_teacher("other-teacher", "other.teacher", "9");
    let words = [
        "gallery",
        "build",
        "--teacher",
        &world.at("other.teacher"),
        "--split",
        "gallery",
    ];
    let rest = [
        "--data",
        &world.at("shelves"),
        "--cache",
        &world.at("cache"),
        "--out",
        &other,
    ];
    run_ok("eyas", [&words[..], &rest].concat());
    let words = ["query", &world.at("shelves/query"), "--gallery", &other];
    let bundle = ["--bundle", &world.at("bundles/small-f16.bundle")];
    let said = run("eyas-device", [&words[..], &bundle].concat());
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("different teachers"), "{}", said.err);
    assert!(said.err.contains("hint:"), "{}", said.err);
}

#[test]
fn one_class_can_not_train_a_teacher() {
    let world = world();
    let one = world.path("one-class");
    let from = world.path("shelves/train");
    let class = fs::read_dir(&from)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    fs::create_dir_all(one.join("train").join(&class)).unwrap();
    for entry in fs::read_dir(from.join(&class)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(
            entry.path(),
            one.join("train").join(&class).join(entry.file_name()),
        )
        .unwrap();
    }
    let words = [
        "teacher",
        "train",
        &world.at("teacher.toml"),
        "--data",
        &world.at("one-class"),
    ];
    let rest = [
        "--run",
        &world.at("one-run"),
        "--out",
        &world.at("one.teacher"),
    ];
    let said = run("eyas", [&words[..], &rest].concat());
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("there is only one"), "{}", said.err);
    let said = run("eyas", ["data", "check", &world.at("one-class")]);
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[test]
fn a_full_disk_leaves_the_old_bundle() {
    let world = world();
    let before = fs::read(world.path("bundles/small-f32.bundle")).unwrap();
    // A limit on the size of files stands for the disk: the write fails half-way.
    let eyas = program("eyas").get_program().to_owned();
    let words = format!(
        "ulimit -f 64; trap '' XFSZ; exec {} export {} --precision f32 --out {} --name small",
        eyas.to_str().unwrap(),
        world.at("run"),
        world.at("bundles"),
    );
    let said: Said = std::process::Command::new("sh")
        .args(["-c", &words])
        .output()
        .unwrap()
        .into();
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("small-f32.bundle"), "{}", said.err);
    assert!(said.err.contains("hint:"), "{}", said.err);
    assert!(fs::read(world.path("bundles/small-f32.bundle")).unwrap() == before);
    let left: Vec<_> = fs::read_dir(world.path("bundles"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
