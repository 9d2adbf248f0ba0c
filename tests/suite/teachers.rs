//! Teachers made of other teachers, and what can not be made into one.

use std::fs;

use eyas_tests::{run, run_ok};
use serde_json::Value;

use super::end_to_end::world;

fn info(teacher: &str) -> Value {
    let said = run_ok("eyas", ["teacher", "info", teacher, "--json"]);
    serde_json::from_str(&said).unwrap()
}

#[test]
fn teachers_join_into_an_ensemble_with_a_projection_of_its_own() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let one = world.at("small.teacher");
    let rest = ["--data", &world.at("shelves"), "--cache", &at("cache")];
    let import = |files: &[&str], out: &str, dim: &str| {
        let words = ["--dim", dim, "--out", out];
        run_ok(
            "eyas",
            [&["teacher", "import"], files, &rest, &words].concat(),
        );
    };
    import(&[&one], &at("eight.teacher"), "8");
    import(&[&one, &at("eight.teacher")], &at("both.teacher"), "12");
    let (one, both) = (info(&one), info(&at("both.teacher")));
    assert_eq!(both["dim"], 12);
    let members = both["members"].as_array().unwrap();
    assert_eq!(members.len(), 2);
    for member in members {
        // Pixels, outputs and cost came along; nothing was said of them here.
        assert_eq!(member, &one["members"][0]);
    }
    assert_eq!(both["whitening"], 0.5);
    assert_ne!(both["space_id"], one["space_id"]);
}

#[test]
fn a_teacher_of_embeddings_can_not_join_others() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    // One row for each image of the folder, in NumPy's format 1.0.
    let listed = run_ok("eyas", ["data", "check", &world.at("shelves"), "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let n_images = listed["n_images"].as_u64().unwrap();
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_images}, 4), }}\n");
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    for value in 0..n_images * 4 {
        npy.extend((value as f32 + 1.0).to_le_bytes());
    }
    fs::write(at("rows.npy"), npy).unwrap();
    let import = |file: &str, out: &str| {
        let words = ["teacher", "import", file, &world.at("small.teacher")];
        let rest = ["--data", &world.at("shelves"), "--dim", "4", "--out", out];
        run("eyas", [&words[..], &rest].concat())
    };
    let words = ["teacher", "import", &at("rows.npy"), "--no-projection"];
    let rest = ["--data", &world.at("shelves"), "--out", &at("rows.teacher")];
    run_ok("eyas", [&words[..], &rest].concat());

    let said = import(&at("rows.teacher"), &at("both.teacher"));
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(said.err.contains("rows.teacher"), "{}", said.err);
    assert!(said.err.contains("can not join"), "{}", said.err);
    assert!(!folder.path().join("both.teacher").exists());
}

#[test]
fn a_file_that_is_no_torchscript_is_refused_before_anything_is_written() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("network.pt"), b"no network").unwrap();
    let words = ["teacher", "import", &at("network.pt"), "--compute", "cpu"];
    let rest = ["--data", &world.at("shelves"), "--out", &at("out.teacher")];
    let said = run("eyas", [&words[..], &rest].concat());
    assert_eq!(said.code, Some(2), "{said:#?}");
    for part in ["network.pt", "not a TorchScript network", "torch.jit.trace"] {
        assert!(said.err.contains(part), "{}", said.err);
    }
    assert!(!folder.path().join("out.teacher").exists());
}

#[test]
fn the_help_says_how_several_sizes_differ_from_those_of_cirtorch() {
    let help = run_ok("eyas", ["teacher", "import", "--help"]);
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    for part in ["msp = 1", "power mean", "Students look at one size"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn one_network_at_several_sizes_is_one_teacher() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let weights = world.at("run/student.safetensors");
    let shelves = world.at("shelves");
    let import = |file: &str, scales: &str, out: &str| {
        let words = ["teacher", "import", file, "--scales", scales, "--out", out];
        let pixels = ["--resize", "64", "--crop", "64", "--no-projection"];
        let rest = ["--data", &shelves, "--architecture", "eyas-xs"];
        run("eyas", [&words[..], &pixels, &rest].concat())
    };
    let (one, three) = (at("one.teacher"), at("three.teacher"));
    assert_eq!(import(&weights, "1", &one).code, Some(0));
    assert_eq!(import(&weights, "1,0.75,0.5", &three).code, Some(0));
    let (plain, averaged) = (info(&one), info(&three));
    assert_eq!(averaged["averaged"], serde_json::json!([3]));
    assert_eq!(averaged["dim"], plain["dim"]);
    let crops = averaged["members"].as_array().unwrap().iter();
    let crops: Vec<&Value> = crops.map(|member| &member["preprocess"]["crop"]).collect();
    assert_eq!(crops, [64, 48, 32]);

    let embed = |teacher: &str| -> Value {
        let words = ["embed", "--teacher", teacher, "--data", &shelves, "--json"];
        let cache = at("cache");
        serde_json::from_str(&run_ok("eyas", [&words[..], &["--cache", &cache]].concat())).unwrap()
    };
    let (first, other) = (embed(&one), embed(&three));
    assert_ne!(first["space_id"], other["space_id"]);
    assert_eq!(other["n_run"], first["n_run"]);
    assert_eq!(embed(&three)["n_run"], 0);

    let gallery = at("three.gallery");
    let words = [
        "gallery",
        "build",
        "--teacher",
        &three,
        "--cache",
        &at("cache"),
    ];
    let rest = ["--data", &shelves, "--split", "gallery", "--out", &gallery];
    run_ok("eyas", [&words[..], &rest].concat());
    let words = [
        "evaluate",
        "--teacher",
        &three,
        "--gallery",
        &gallery,
        "--json",
    ];
    let rest = [
        "--manifest",
        &shelves,
        "--split",
        "query",
        "--cache",
        &at("cache"),
    ];
    let said: Value = serde_json::from_str(&run_ok("eyas", [&words[..], &rest].concat())).unwrap();
    assert!(said.to_string().contains("recall_at_1"), "{said}");

    // A teacher joins with its averages; both look at 64 pixels, one at others as well.
    let both = at("both.teacher");
    let words = ["teacher", "import", &three, &one, "--out", &both];
    let rest = ["--data", &shelves, "--no-projection"];
    run_ok("eyas", [&words[..], &rest].concat());
    let both = info(&both);
    assert_eq!(both["averaged"], serde_json::json!([3, 1]));
    assert_eq!(
        both["dim"].as_u64(),
        plain["dim"].as_u64().map(|dim| 2 * dim)
    );

    for (scales, words) in [
        ("1,0", "--scales holds 0"),
        ("nan", "--scales holds NaN"),
        ("1,0.1", "student.safetensors` at scale 0.1"),
    ] {
        let said = import(&weights, scales, &at("none.teacher"));
        assert_eq!(said.code, Some(2), "{said:#?}");
        assert!(said.err.contains(words), "{}", said.err);
    }
    // A file for one size.
    let words = ["zoo", "eyas-xs", "--side", "64", "--runs", "1", "--onnx"];
    run_ok("eyas", [&words[..], &[&at("untrained")]].concat());
    let said = import(&at("untrained/eyas-xs.onnx"), "1,0.5", &at("none.teacher"));
    assert_eq!(said.code, Some(2), "{said:#?}");
    for words in ["at scale 0.5", "not one image of 3x32x32"] {
        assert!(said.err.contains(words), "{}", said.err);
    }
    assert!(!folder.path().join("none.teacher").exists());
}
