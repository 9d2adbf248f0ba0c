use super::*;
use crate::fingerprint::SpaceId;
use crate::gallery::{self, Codes, Entry, GallerySource};
use crate::random::Random;

/// A gallery of images `names`, each under the label that its first letter is.
fn gallery_of(names: &[String], codes: Codes) -> Vec<u8> {
    let mut random = Random::new(1);
    let values: Vec<f32> = (0..names.len() * 4)
        .map(|_| random.normal() as f32)
        .collect();
    let entries: Vec<Entry<'_>> = names
        .iter()
        .map(|name| Entry {
            id: ImageId::of_file(name.as_bytes()),
            label: &name[..1],
            name,
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: "teacher".to_owned(),
        manifest: Fingerprint([1; 32]),
        codes,
    };
    gallery::write(
        &source,
        &Embeddings::from_values(4, values).unwrap(),
        &entries,
    )
    .unwrap()
}

fn identity(names: &[String]) -> GalleryIdentity {
    GalleryIdentity::of(&Gallery::open(&gallery_of(names, Codes::F32)).unwrap())
}

fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range
        .map(|i| format!("{}{i}", ["a", "b"][i as usize % 2]))
        .collect()
}

fn example() -> Calibration {
    Calibration {
        gallery: identity(&names(0..5)),
        row_encoding: "f16".to_owned(),
        thresholds: Thresholds {
            match_score: 0.7,
            unknown_score: 0.4,
            margin: 0.02,
        },
        offsets: vec![LabelOffset {
            label: "b".to_owned(),
            offset: 0.05,
            n_unknown: 12,
        }],
        evidence: Evidence {
            wanted_false_match_rate: 0.01,
            wanted_false_reject_rate: 0.05,
            wanted_wrong_match_rate: 0.05,
            unknown_share: 0.5,
            confidence: 0.95,
            n_known: 3,
            n_known_labels: 2,
            n_unknown: 4,
            n_unknown_labels: 4,
            design_effect: 1.0,
            false_matches: 0,
            false_match_bound: 0.6,
            right_matches: 2,
            wrong_matches: 0,
            false_rejects: 1,
        },
        curve: vec![
            CurveBin {
                from: NO_SCORE,
                probability: 0.0,
                low: 0.0,
                high: 0.5,
                n_right: 0,
                n_wrong: 1,
                n_unknown: 4,
            },
            CurveBin {
                from: 0.6,
                probability: 1.0,
                low: 0.4,
                high: 1.0,
                n_right: 2,
                n_wrong: 0,
                n_unknown: 0,
            },
        ],
        witnesses: vec![Witness {
            label: "a".to_owned(),
            score: 0.8,
            margin: Some(0.3),
            verdict: Verdict::Match,
        }],
        witness_embeddings: vec![0.6, 0.8],
        probe_scores: vec![0.1, 0.2],
        manifest: Fingerprint([3; 32]),
        eyas_version: "0".to_owned(),
    }
}

#[test]
fn a_calibration_comes_back_from_its_bytes() {
    let calibration = example();
    assert_eq!(calibration.fault(2, 2), None);
    let bytes = calibration.to_bytes();
    assert_eq!(Calibration::from_bytes(&bytes).unwrap(), calibration);
    for len in 0..bytes.len() {
        assert!(Calibration::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Calibration::from_bytes(&longer).is_err());
}

#[test]
fn offsets_and_bins_are_found_by_label_and_score() {
    let calibration = example();
    assert_eq!(
        (calibration.offset("b"), calibration.offset("a")),
        (0.05, 0.0)
    );
    let n_right = |score| calibration.bin(score).unwrap().n_right;
    assert_eq!((n_right(0.59), n_right(0.6), n_right(1.0)), (0, 2, 2));
}

#[test]
fn nonsense_is_named() {
    let nonsense: [fn(&mut Calibration); 21] = [
        |c| c.thresholds.match_score = f32::NAN,
        |c| c.thresholds.unknown_score = f32::NAN,
        |c| c.thresholds.unknown_score = 0.71,
        |c| c.thresholds.margin = -0.1,
        |c| c.thresholds.match_score = f32::INFINITY,
        |c| c.offsets[0].offset = f32::NAN,
        |c| c.offsets.push(c.offsets[0].clone()),
        |c| c.evidence.wanted_false_match_rate = f32::NAN,
        |c| c.evidence.design_effect = 0.5,
        |c| c.evidence.n_unknown = 0,
        |c| c.evidence.right_matches = u32::MAX,
        |c| c.evidence.false_matches = 5,
        |c| c.curve.clear(),
        |c| c.curve[0].from = 0.0,
        |c| c.curve[1].probability = f32::NAN,
        |c| c.curve[0].n_unknown = 3,
        |c| c.curve.swap(0, 1),
        |c| c.witness_embeddings.push(0.0),
        |c| c.witness_embeddings[0] = f32::NAN,
        |c| c.probe_scores.clear(),
        |c| c.gallery.sample.reverse(),
    ];
    for (case, spoil) in nonsense.iter().enumerate() {
        let mut calibration = example();
        spoil(&mut calibration);
        assert!(calibration.fault(2, 2).is_some(), "case {case}");
    }
    assert!(example().fault(3, 2).is_some(), "another dimension");
}

#[test]
fn a_gallery_is_the_same_in_another_order_and_encoding_but_not_with_another_label() {
    let forward = names(0..300);
    let mut backward = forward.clone();
    backward.reverse();
    let expected = identity(&forward);
    assert_eq!(identity(&backward), expected);
    let halves = gallery_of(&forward, Codes::F16);
    let halves = GalleryIdentity::of(&Gallery::open(&halves).unwrap());
    assert_eq!(halves.content, expected.content);
    assert_ne!(halves.stored, expected.stored);
    let mut renamed = forward;
    renamed[7] = "z".to_owned();
    assert_ne!(identity(&renamed).content, expected.content);
}

#[test]
fn drift_is_exact_for_small_galleries_and_near_for_large_ones() {
    assert_eq!(
        identity(&names(0..100)).drift(&identity(&names(10..130))),
        (30, 10)
    );
    assert_eq!(
        identity(&names(0..5)).drift(&identity(&names(5..9))),
        (4, 5)
    );
    let same = identity(&names(0..3000));
    assert_eq!(same.drift(&same), (0, 0));
    let (added, removed) = same.drift(&identity(&names(300..3600)));
    // 256 ids tell a share of 0.2 with a standard error of 0.025, here 90 rows.
    assert!(added.abs_diff(600) < 270, "{added}");
    assert!(removed.abs_diff(300) < 270, "{removed}");
}
