//! The invariants of ARCHITECTURE.md, held by reading the sources.

use std::fs;
use std::path::{Path, PathBuf};

use eyas_shared::fingerprint::Fingerprint;
use eyas_tests::root;

/// Rust sources of the workspace, relative to its root, with their text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    for package in ["shared", "device", "host", "tests"] {
        walk(&root().join(package), &mut paths);
    }
    paths.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    paths
        .iter()
        .map(|path| (relative(path), fs::read_to_string(path).unwrap()))
        .collect()
}

/// Whether `word` stands in `code`, not as the end of a longer name: `batch::` is no `tch::`.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(is_part))
}

/// Fails with `file:line` wherever `word` stands in code outside the allowed places.
#[track_caller]
fn only_in(word: &str, allowed: &[&str], hint: &str) {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        if path == "tests/suite/tidy.rs" || allowed.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (line_idx, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if names(code, word) {
                offences.push(format!("{path}:{} names `{word}`", line_idx + 1));
            }
        }
    }
    assert!(offences.is_empty(), "{}\nhint: {hint}", offences.join("\n"));
}

#[test]
fn libtorch_is_named_only_where_networks_learn() {
    let hint = "take `Embeddings` or `Weights` instead of a tensor";
    only_in("tch::", &["host/src/learn/"], hint);
    only_in("libloading", &["host/src/learn/compute.rs"], hint);
}

#[test]
fn tract_is_named_only_by_the_encoder_and_the_onnx_writer() {
    let allowed = [
        "device/src/encoder",
        "host/src/export/onnx",
        "device/examples/",
        "device/tests/",
        "device/src/test",
    ];
    only_in("tract_onnx", &allowed, "use `eyas_device::encoder`");
}

#[test]
fn images_are_decoded_in_one_place() {
    let allowed = [
        "shared/src/preprocess/",
        "shared/tests/",
        "shared/examples/",
    ];
    let hint = "`eyas_shared::preprocess` is the only way from a file to pixels";
    only_in("zune_jpeg", &allowed, hint);
    only_in("image::open", &[], hint);
    only_in("ImageReader", &allowed, hint);
    only_in(
        "0.485",
        &["shared/src/preprocess/", "host/src/cli/teacher.rs"],
        "use `preprocess::IMAGENET_MEAN`",
    );
}

#[test]
fn queries_are_answered_in_one_place() {
    let allowed = [
        "device/src/look.rs",
        "device/src/answer/",
        // Asks with embeddings that it has, and times nothing.
        "host/src/calibrate/",
    ];
    let hint =
        "`eyas_device::look` is the way from an image to an answer, so that a bench measures it";
    only_in("answerer.answer(", &allowed, hint);
}

#[test]
fn reports_have_no_clock() {
    for word in ["Instant", "SystemTime"] {
        let all_but_reports: Vec<String> = sources()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| !path.starts_with("host/src/report/"))
            .collect();
        let allowed: Vec<&str> = all_but_reports.iter().map(String::as_str).collect();
        only_in(
            word,
            &allowed,
            "a report takes records that something else measured",
        );
    }
}

#[test]
fn unsafe_code_stands_where_it_was_measured() {
    let allowed = [
        "host/src/learn/compute.rs",
        "device/src/store",
        "device/src/matcher/kernel/",
        // Calls of functions for CPU features that were found, and nothing else.
        "shared/src/preprocess/decode/jpeg/",
        "shared/src/preprocess/resize.rs",
        "device/src/encoder/engine",
    ];
    only_in(
        "unsafe {",
        &allowed,
        "write the safe version, or measure and extend this list",
    );
}

#[test]
fn no_test_is_switched_off_and_nothing_is_unfinished() {
    for word in ["#[ignore", "todo!(", "unimplemented!(", "should_panic"] {
        only_in(word, &[], "finish it or take it out");
    }
}

#[test]
fn shared_and_device_know_neither_libtorch_nor_the_host() {
    for (package, forbidden) in [
        (
            "shared",
            &["tch", "tract", "clap", "eyas-device", "eyas-host"][..],
        ),
        ("device", &["tch", "eyas-host"]),
    ] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        for line in manifest.lines() {
            let names = |word: &&&str| line.starts_with(**word);
            assert!(
                !forbidden.iter().any(|word| names(&word)),
                "{package}/Cargo.toml: {line}"
            );
        }
    }
}

#[test]
fn formats_page_is_as_old_as_the_code_it_describes() {
    let code = [
        "container/mod",
        "container/writer",
        "bundle",
        "calibration",
        "gallery/int8",
        "gallery/mod",
        "gallery/codes",
        "gallery/content",
        "gallery/delta",
        "gallery/reader",
        "gallery/records",
        "gallery/rotation",
        "gallery/strings",
        "gallery/writer",
    ]
    .map(|module| fs::read_to_string(root().join(format!("shared/src/{module}.rs"))).unwrap())
    .concat();
    let hash = Fingerprint::of_bytes(code.as_bytes()).short();
    let page = fs::read_to_string(root().join("shared/FORMATS.md")).unwrap();
    let expected = format!("Hash of the code that this page describes: `{hash}`");
    assert!(
        page.contains(&expected),
        "shared/FORMATS.md describes other code\nhint: check that it still is true, then let it \
         end with: {expected}"
    );
}

#[test]
fn protocol_page_is_as_old_as_the_code_it_describes() {
    let modules = [
        "bench", "endpoint", "frame", "incoming", "message", "outgoing", "pace", "packet", "upload",
    ];
    let code: String = modules
        .map(|module| {
            fs::read_to_string(root().join(format!("shared/src/link/{module}.rs"))).unwrap()
        })
        .concat();
    let hash = Fingerprint::of_bytes(code.as_bytes()).short();
    let page = fs::read_to_string(root().join("shared/PROTOCOL.md")).unwrap();
    let expected = format!("Hash of the code that this page describes: `{hash}`");
    assert!(
        page.contains(&expected),
        "shared/PROTOCOL.md describes other code\nhint: check that it still is true, then let it \
         end with: {expected}"
    );
}

#[test]
fn the_top_level_holds_what_was_decided() {
    let allowed = [
        ".cargo",
        ".ci",
        ".git",
        ".gitignore",
        ".libtorch",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "Makefile",
        "README.md",
        "clippy.toml",
        "device",
        "host",
        "models",
        "rustfmt.toml",
        "shared",
        "target",
        "tests",
        // Made by the README's commands, and ignored by git.
        "cache",
        "demo",
        "runs",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
        let is_ignored = ignored.lines().any(|line| line.trim_matches('/') == name);
        assert!(
            allowed.contains(&name.as_str()) || is_ignored,
            "`{name}` is new at the top level"
        );
    }
}
