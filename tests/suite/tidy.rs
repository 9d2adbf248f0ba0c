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

/// Code of a file before its tests, without comments.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines();
    let plain = lines.map(|line| line.split("//").next().unwrap_or_default());
    plain.collect::<Vec<_>>().join("\n")
}

/// The expression that goes on from the beginning of `code`: to the next `;` or `,` outside of
/// brackets, or to the bracket that encloses it.
fn expression(code: &str) -> &str {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return &code[..at],
            ')' | ']' | '}' => depth -= 1,
            ';' | ',' if depth == 0 => return &code[..at],
            _ => {}
        }
    }
    code
}

/// What makes a tensor on the CPU or moves one there, without being moved on in the same
/// expression: the line it begins in.
fn stays_on_the_cpu(code: &str) -> Vec<(usize, String)> {
    // Made of plain numbers, and therefore on the CPU at first.
    let made = [
        "Tensor::from_slice(",
        "Tensor::f_from_slice(",
        "Tensor::from(",
        "Tensor::try_from(",
    ];
    let named = [
        "Device::Cpu",
        "FLOAT_CPU",
        "DOUBLE_CPU",
        "INT64_CPU",
        "BOOL_CPU",
    ];
    let mut found = Vec::new();
    for word in made.into_iter().chain(named) {
        for (at, _) in code.match_indices(word) {
            let moved = made.contains(&word) && expression(&code[at..]).contains(".to_device(");
            if !moved {
                let line_idx = code[..at].matches('\n').count();
                let line = code.lines().nth(line_idx).unwrap_or_default();
                found.push((line_idx + 1, line.trim().to_owned()));
            }
        }
    }
    found
}

/// A tensor on another device than the student's ends a step on a GPU with an error, and no
/// CPU shows it: so every place that names the CPU, or makes a tensor of plain numbers and does
/// not move it, stands here with its reason.
const ON_THE_CPU: [(&str, &str, &str); 20] = [
    (
        "compute.rs",
        "self.device == Device::Cpu",
        "asks what was chosen",
    ),
    ("compute.rs", "Device::Cpu", "where the device is chosen"),
    (
        "network.rs",
        ".to_device(Device::Cpu)",
        "a tensor becomes plain numbers",
    ),
    (
        "run.rs",
        "scores.argmax(1, false).to_device(tch::Device::Cpu)",
        "rows become plain numbers",
    ),
    (
        "alignment.rs",
        "Tensor::from_slice(&weight.values)",
        "the head's plain numbers are folded",
    ),
    (
        "alignment.rs",
        "map.matrix.to_device(tch::Device::Cpu)",
        "the head's plain numbers are folded",
    ),
    (
        "alignment.rs",
        "map.offset.to_device(tch::Device::Cpu)",
        "the head's plain numbers are folded",
    ),
    (
        "alignment.rs",
        "Tensor::from_slice(&rows)",
        "a whitening of plain numbers is folded",
    ),
    (
        "alignment.rs",
        "Tensor::from_slice(&whitening.mean)",
        "a whitening of plain numbers is folded",
    ),
    (
        "tuples.rs",
        "Tensor::zeros(size, (Kind::Float, Device::Cpu))",
        "an epoch's tuples are positions; steps move theirs",
    ),
    (
        "tuples.rs",
        "Tensor::from_slice(&images)",
        "an epoch's tuples are positions; steps move theirs",
    ),
    (
        "tuples.rs",
        "l2_normalize(&outputs).to_device(Device::Cpu)",
        "an epoch is mined on the CPU",
    ),
    (
        "tuples.rs",
        "Tensor::from_slice(embeddings.values())",
        "an epoch is mined on the CPU",
    ),
    (
        "tuples.rs",
        "Tensor::from_slice(&chosen)",
        "an epoch is mined on the CPU",
    ),
    (
        "tuples.rs",
        "Tensor::from_slice(&own)",
        "an epoch is mined on the CPU",
    ),
    (
        "loss/transfer/codebook.rs",
        "memory.teacher.detach().to_device(Device::Cpu)",
        "a codebook is made once, on the CPU, and copied",
    ),
    (
        "loss/transfer/codebook.rs",
        "Tensor::from_slice(&points)",
        "a codebook is made once, on the CPU, and copied",
    ),
    (
        "loss/transfer/codebook.rs",
        "(Kind::Int64, Device::Cpu)",
        "a codebook is made once, on the CPU, and copied",
    ),
    (
        "loss/transfer/codebook.rs",
        "(points.kind(), Device::Cpu)",
        "a codebook is made once, on the CPU, and copied",
    ),
    (
        "loss/transfer/representation.rs",
        "tensor.to_device(tch::Device::Cpu)",
        "positions become plain numbers",
    ),
];

#[test]
fn tensors_of_a_step_are_made_where_the_student_is() {
    let folder = "host/src/learn/";
    let mut used = [false; ON_THE_CPU.len()];
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let Some(file) = path.strip_prefix(folder) else {
            continue;
        };
        // Published values are compared on the CPU, and so are tests.
        if file.starts_with("golden/") || file.ends_with("tests.rs") {
            continue;
        }
        for (line, code) in stays_on_the_cpu(&code_of(&text)) {
            let is_known = |&(of, part, _): &(&str, &str, &str)| of == file && code.contains(part);
            match ON_THE_CPU.iter().position(is_known) {
                Some(place) => used[place] = true,
                None => offences.push(format!("{path}:{line} `{code}`")),
            }
        }
    }
    assert!(
        offences.is_empty(),
        "{}\nhint: `.to_device(...)` in the same expression, or a reason in ON_THE_CPU",
        offences.join("\n")
    );
    let stale = ON_THE_CPU.iter().zip(used).find(|(_, used)| !used);
    assert!(stale.is_none(), "{stale:?} is no longer there");
}

#[test]
fn a_tensor_that_is_left_on_the_cpu_is_found() {
    let cases = [
        ("let a = Tensor::from_slice(&x).to_device(device);", 0),
        (
            "let a = Tensor::from_slice(&[0; 3])\n    .view([a, b])\n    .to_device(d);",
            0,
        ),
        ("f(Tensor::from_slice(&x), b.to_device(d));", 1),
        (
            "let a = Tensor::from_slice(&x);\nlet b = c.to_device(d);",
            1,
        ),
        ("let a = Tensor::zeros([2], (Kind::Float, Device::Cpu));", 1),
        ("let a = b.to_device(Device::Cpu);", 1),
        ("{ Tensor::from_slice(&x) }.to_device(d)", 1),
        ("// Device::Cpu\nlet a = 1;", 0),
        ("let a = 1;\n#[cfg(test)]\nmod tests { Device::Cpu }", 0),
    ];
    for (text, n_found) in cases {
        assert_eq!(stays_on_the_cpu(&code_of(text)).len(), n_found, "{text}");
    }
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
