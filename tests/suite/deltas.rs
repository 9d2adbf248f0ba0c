//! Galleries that are brought up to date over the cable, by what has changed alone.

use std::fs;
use std::process::Stdio;

use eyas_shared::gallery::{Gallery, RowEncoding, delta};
use eyas_shared::random::Random;
use eyas_tests::cable::Cable;
use eyas_tests::{Said, program, run_ok};
use serde_json::Value;

use crate::desk::{Desk, asked, eyas, eyas_ok, photograph};
use crate::test_data::{embeddings, gallery_of};

/// Writes what leads from one gallery to another.
fn write_delta(desk: &Desk, from: &str, to: &str, out: &str) {
    let [from, to] = [from, to].map(|name| fs::read(desk.path(name)).unwrap());
    let [from, to] = [&from, &to].map(|bytes| Gallery::open(bytes).unwrap());
    fs::write(desk.path(out), delta::between(&from, &to).unwrap()).unwrap();
}

/// Where a delta leads, as the board computes it.
fn apply_here(desk: &Desk, gallery: &str, delta: &str, out: &str) {
    fs::copy(desk.path(gallery), desk.path(out)).unwrap();
    let [gallery, delta] = [out, delta].map(|name| desk.at(name));
    run_ok("eyas-device", ["gallery", "apply", &gallery, &delta]);
}

/// A desk with the gallery `g`, another one `g2`, and the delta `d` between them; `g` serves
/// and has answered.
fn serving(cable: &Cable) -> (Desk, crate::desk::Board) {
    let desk = Desk::new();
    desk.init_store();
    let board = desk.serve_store(cable);
    eyas_ok(cable, &["push", &desk.at("b"), &desk.at("g")]);
    desk.write_gallery("g2", 9);
    write_delta(&desk, "g", "g2", "d");
    assert_eq!(asked(cable), desk.local_matches(&photograph()));
    (desk, board)
}

#[test]
fn a_delta_makes_the_board_serve_what_it_leads_to() {
    let cable = Cable::new();
    let (desk, _board) = serving(&cable);
    let said = eyas_ok(&cable, &["push", &desk.at("d")]);
    assert!(said.contains("leads to gallery"), "{said}");
    assert!(said.contains("generation 2 serves, on trial"), "{said}");
    apply_here(&desk, "g", "d", "applied");
    assert_eq!(asked(&cable), desk.matches_in("applied", &photograph()));
    // Bit by bit the gallery that is made of it here.
    eyas_ok(&cable, &["pull", "gallery", "--out", &desk.at("copy")]);
    let [copy, applied] = ["copy", "applied"].map(|name| fs::read(desk.path(name)).unwrap());
    assert!(copy == applied);

    let said = eyas_ok(&cable, &["push", &desk.at("d")]);
    assert!(said.contains("already applied"), "{said}");
    assert!(said.ends_with("generation 2 serves\n"), "{said}");
    // And back to the gallery that it came from.
    eyas_ok(&cable, &["rollback"]);
    assert_eq!(asked(&cable), desk.local_matches(&photograph()));
    assert_eq!(fs::read_dir(desk.path("store/staged")).unwrap().count(), 0);
}

#[test]
fn a_delta_that_does_not_fit_changes_nothing() {
    let cable = Cable::new();
    let (desk, _board) = serving(&cable);
    let before = asked(&cable);
    desk.write_gallery("g3", 4);
    write_delta(&desk, "g2", "g3", "other");
    let mut damaged = fs::read(desk.path("d")).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(desk.path("damaged"), &damaged).unwrap();
    fs::write(desk.path("cut"), &damaged[..middle]).unwrap();
    for (delta, word) in [
        ("other", "apply the deltas in between first"),
        ("damaged", "damaged"),
        ("cut", "cut short"),
    ] {
        let said = eyas(&cable, &["push", &desk.at(delta)]);
        assert_eq!(said.code, Some(2), "{said:#?}");
        assert!(said.err.contains(word), "{delta}: {said:#?}");
        assert!(said.err.contains(&desk.at(delta)), "{said:#?}");
    }
    let info: Value = serde_json::from_str(&eyas_ok(&cable, &["info", "--json"])).unwrap();
    assert_eq!(info["generation"], 1);
    assert_eq!(asked(&cable), before);
    assert_eq!(fs::read_dir(desk.path("store/staged")).unwrap().count(), 0);
    let said = eyas(&cable, &["push", &desk.at("d"), &desk.at("g2")]);
    assert_eq!(said.code, Some(2), "{said:#?}");
}

#[test]
fn a_board_without_a_gallery_takes_no_delta() {
    let desk = Desk::new();
    desk.init_store();
    desk.write_gallery("g2", 9);
    write_delta(&desk, "g", "g2", "d");
    let cable = Cable::new();
    let _board = desk.serve_store(&cable);
    let said = eyas(&cable, &["push", &desk.at("d")]);
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(said.err.contains("nothing is installed"), "{said:#?}");
}

#[test]
fn where_files_are_signed_a_delta_needs_two_signatures() {
    let desk = Desk::new();
    let key = desk.at("shop");
    run_ok("eyas", ["keys", "new", &key, "--no-password"]);
    let store = desk.at("store");
    let public = desk.at("shop.pub");
    run_ok("eyas-device", ["init", "--store", &store, "--key", &public]);
    desk.write_gallery("g2", 9);
    write_delta(&desk, "g", "g2", "d");
    apply_here(&desk, "g", "d", "applied");
    let sign = |name: &str, counter: &str| {
        let (file, key) = (desk.at(name), desk.at("shop.key"));
        run_ok("eyas", ["sign", &file, "--key", &key, "--counter", counter]);
    };
    let cable = Cable::new();
    let _board = desk.serve_store(&cable);
    sign("b", "3");
    sign("g", "3");
    eyas_ok(&cable, &["push", &desk.at("b"), &desk.at("g")]);
    let old = asked(&cable);
    let refused = |words: &[&str], reason: &str| {
        let said = eyas(&cable, &[&["push", &desk.at("d")], words].concat());
        assert_eq!(said.code, Some(2), "{said:#?}");
        assert!(said.err.contains(reason), "{said:#?}");
        assert_eq!(asked(&cable), old);
    };
    refused(&[], "is not signed");
    sign("d", "2");
    refused(&[], "the delta");
    refused(&[], "security counter 2");
    sign("d", "3");
    // The delta is trusted now, what it leads to is not.
    refused(&[], "the gallery");
    let result = desk.at("applied.minisig");
    let with_result = ["--result-signature", &result];
    fs::copy(desk.path("g.minisig"), &result).unwrap();
    refused(&with_result, "the signature does not fit the file");
    sign("applied", "3");
    let delta = desk.at("d");
    let push = [&["push", &delta], &with_result[..]].concat();
    eyas_ok(&cable, &push);
    assert_eq!(asked(&cable), desk.matches_in("applied", &photograph()));
}

/// `g` and `g2` are large and have every second row in common.
#[test]
fn a_delta_arrives_although_the_board_is_killed_on_the_way() {
    let desk = Desk::large();
    let dim = 1024;
    let rows = embeddings(255, dim, 2);
    let other = embeddings(255, dim, 3);
    let ids: Vec<u8> = (0..255).collect();
    let values = |idx: usize| match idx % 2 {
        0 => rows.row(idx),
        _ => other.row(idx),
    };
    let values: Vec<f32> = (0..255).flat_map(|idx| values(idx).to_vec()).collect();
    let mixed = eyas_shared::embedding::Embeddings::from_values(dim, values).unwrap();
    fs::write(
        desk.path("g2"),
        gallery_of(&mixed, &ids, RowEncoding::F32.into()),
    )
    .unwrap();
    write_delta(&desk, "g", "g2", "d");
    let cable = Cable::new();
    let mut board = desk.serve_store(&cable);
    eyas_ok(&cable, &["push", &desk.at("b"), &desk.at("g")]);
    let old = asked(&cable);
    let bytes = fs::metadata(desk.path("d")).unwrap().len();
    let before = cable.bytes_to_board();
    let mut command = program("eyas");
    command.args(["push", &desk.at("d"), "--json", "--port"]);
    command.arg(&cable.host);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let pushing = command.spawn().unwrap();
    let mut random = Random::new(11).fork("kills");
    for kill in 0..4 {
        // The last one near the end, where the delta is applied.
        let share = match kill {
            3 => 1.0 + 0.05 * random.unit(),
            _ => (f64::from(kill) + random.unit()) / 4.0,
        };
        let at = before + (share * bytes as f64) as u64;
        if !cable.wait_for_bytes(at) {
            break;
        }
        board.kill();
        board = desk.serve_store(&cable);
    }
    let said = Said::from(pushing.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{said:#?}");
    apply_here(&desk, "g", "d", "applied");
    let new = asked(&cable);
    assert_eq!(new, desk.matches_in("applied", &photograph()));
    assert_ne!(new, old);
}
