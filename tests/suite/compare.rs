//! `eyas compare` on sessions whose differences are known.

use std::fs;
use std::path::Path;

use eyas_tests::{Said, run};
use serde_json::Value;

use super::test_session::{TestCell, session};

const F16: &str = "tiny/f16/1/shelf";
const INT8: &str = "tiny/int8/1/shelf";

fn cell<'a>(key: &'a str, median_ms: f64, wrong: &'a [usize]) -> TestCell<'a> {
    TestCell {
        key,
        median_ms,
        bytes: 1_800_000,
        wrong,
    }
}

fn write(folder: &Path, session: &Value) -> String {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("results.json"), session.to_string()).unwrap();
    folder.display().to_string()
}

/// Two sessions: the second is slower by a tenth and wrong once more in a hundred.
struct Two {
    folder: tempfile::TempDir,
    a: String,
    b: String,
}

fn two() -> Two {
    let folder = tempfile::tempdir().unwrap();
    let a = session(0, 100, &[cell(F16, 40.0, &[1]), cell(INT8, 30.0, &[1])]);
    let b = session(0, 100, &[cell(F16, 44.0, &[2, 3]), cell(INT8, 30.0, &[1])]);
    Two {
        a: write(&folder.path().join("a"), &a),
        b: write(&folder.path().join("b"), &b),
        folder,
    }
}

fn compared(words: &[&str]) -> Said {
    run("eyas", [&["compare"], words].concat())
}

#[test]
fn a_condition_decides_the_exit_code() {
    let Two {
        a,
        b,
        folder: _folder,
    } = two();
    let cases: [(&[&str], i32, &str); 8] = [
        (&[], 0, ""),
        (&["recall_at_1 drops 0.02"], 0, "does not hold"),
        (
            &["recall_at_1 drops 0.01"],
            1,
            "`recall_at_1 drops 0.01` holds for tiny/f16/1/shelf",
        ),
        (&["recall_at_1 drops 0.01 surely"], 0, "does not hold"),
        (&["median_ms rises 5% surely"], 1, "40.000 -> 44.000"),
        (
            &["joules_per_query rises 1%"],
            2,
            "neither cell has joules_per_query",
        ),
        (&["joules_per_query rises 1%", "p95_ms rises 1"], 1, "open"),
        (&["recal_at_1 drops 0.01"], 2, "did you mean `recall_at_1`?"),
    ];
    for (conditions, code, words) in cases {
        let flags = conditions.iter().flat_map(|text| ["--fail-if", text]);
        let all: Vec<&str> = [&a[..], &b].into_iter().chain(flags).collect();
        let said = compared(&all);
        assert_eq!(said.code, Some(code), "{conditions:?}: {said:#?}");
        assert!((said.out + &said.err).contains(words), "{conditions:?}");
    }
}

#[test]
fn json_holds_every_pair_and_every_flip() {
    let Two { a, b, folder } = two();
    let page = folder.path().join("page.md");
    let said = compared(&[&a, &b, "--json", "--out", &page.display().to_string()]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let found: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(found["schema"], "eyas.comparison/1");
    let keys: Vec<&Value> = found["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| &pair["a"])
        .collect();
    assert_eq!(keys, [F16, INT8]);
    let queries = &found["pairs"][0]["queries"];
    assert_eq!(queries["n"], 100);
    let names = |side: &str| -> Vec<&Value> {
        let flips = queries["flips"][side].as_array().unwrap();
        flips.iter().map(|flip| &flip["name"]).collect()
    };
    assert_eq!(names("lost"), ["coffee/2.jpg", "oat milk/3.jpg"]);
    assert_eq!(names("won"), ["black tea/1.jpg"]);
    assert_eq!(found["pairs"][1]["measures"][0]["difference"], 0.0);
    assert!(fs::read_to_string(page).unwrap().contains("oat milk/3.jpg"));
}

#[test]
fn cells_of_one_session_are_compared_by_parts_of_their_keys() {
    let Two {
        a, folder: _folder, ..
    } = two();
    let said = compared(&[&format!("{a}#f16"), &format!("{a}#int8")]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(
        said.out
            .contains("a: tiny/f16/1/shelf\nb: tiny/int8/1/shelf"),
        "{}",
        said.out
    );

    let said = compared(&[&format!("{a}#tiny"), &a]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("2 cells of"), "{}", said.err);
}

#[test]
fn what_is_no_session_is_refused() {
    let Two { a, folder, .. } = two();
    let cases = [
        ("{}", "is no record of a bench session"),
        ("", "is no record of a bench session"),
    ];
    for (text, words) in cases {
        let other = folder.path().join("other");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("results.json"), text).unwrap();
        let said = compared(&[&a, &other.display().to_string()]);
        assert_eq!(said.code, Some(2), "{said:#?}");
        assert!(said.err.contains(words), "{}", said.err);
    }
    let run = folder.path().join("run");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("recipe.toml"), "").unwrap();
    let said = compared(&[&a, &run.display().to_string()]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("`eyas runs compare`"), "{}", said.err);
    let said = compared(&[&a, "/nowhere"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("/nowhere"), "{}", said.err);
}
