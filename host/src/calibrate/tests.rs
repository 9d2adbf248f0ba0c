use eyas_shared::embedding::{Embeddings, l2_normalize};
use eyas_shared::fingerprint::{ImageId, SpaceId};
use eyas_shared::gallery::{Codes, Entry, Gallery, GallerySource};
use eyas_shared::random::Random;
use proptest::prelude::*;

use super::*;

const DIM: usize = 6;

const SETTINGS: Settings = Settings {
    false_match_rate: 0.05,
    false_reject_rate: 0.1,
    wrong_match_rate: 0.2,
    unknown_share: 0.5,
    confidence: 0.95,
    bounded: false,
    per_label: false,
};

/// A direction near the label's own one.
fn view(label: &str, spread: f64, random: &mut Random) -> Vec<f32> {
    let mut center = Random::new(3).fork(label);
    let mut vector: Vec<f32> = (0..DIM)
        .map(|_| (center.normal() + spread * random.normal()) as f32)
        .collect();
    l2_normalize(&mut vector);
    vector
}

fn gallery_bytes(labels: &[&str], n: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut rows = Embeddings::new(DIM);
    let names: Vec<String> = (0..n).map(|i| format!("row {i}")).collect();
    let mut entries = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let label = labels[i % labels.len()];
        rows.push(&view(label, 0.3, &mut random));
        entries.push(Entry {
            id: ImageId::of_file(name.as_bytes()),
            label,
            name,
        });
    }
    let source = GallerySource {
        space: SpaceId(Fingerprint([1; 32])),
        teacher: "t".to_owned(),
        manifest: Fingerprint([2; 32]),
        codes: Codes::F16,
    };
    eyas_shared::gallery::write(&source, &rows, &entries).unwrap()
}

fn observations(matcher: &Matcher<'_>, labels: &[&str], n: usize, seed: u64) -> Vec<Observation> {
    let mut random = Random::new(seed);
    let known = Labels::of(matcher);
    (0..n)
        .map(|i| {
            let label = labels[i % labels.len()];
            let id = ImageId::of_file(format!("query {seed} {i}").as_bytes());
            let asked = Asked::single(view(label, 0.4, &mut random));
            Observation {
                id,
                label: label.to_owned(),
                is_known: known.knows(label, id).unwrap(),
                nearest: Nearest::of(matcher, &asked, Some(id)).unwrap(),
                embedding: asked.embedding,
            }
        })
        .collect()
}

const KNOWN: [&str; 3] = ["apple", "milk", "pear"];
const ALL: [&str; 7] = ["apple", "milk", "pear", "x1", "x2", "x3", "x4"];

fn found(
    observed: &[Observation],
    settings: &Settings,
    matcher: &Matcher<'_>,
) -> Result<Calibration, CalibrateError> {
    calibrate(
        observed,
        settings,
        matcher,
        Vec::new(),
        Fingerprint([4; 32]),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_calibration_holds_its_rates_where_it_was_found(
        seed: u64, n in 150_usize..400, per_label: bool, rate in 0.02_f64..0.3,
    ) {
        let bytes = gallery_bytes(&KNOWN, 60, seed);
        let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
        let mut observed = observations(&matcher, &ALL, n, seed ^ 1);
        let settings = Settings { per_label, false_match_rate: rate, ..SETTINGS };
        let calibration = found(&observed, &settings, &matcher).unwrap();
        prop_assert_eq!(calibration.fault(DIM, 0), None);
        let evidence = &calibration.evidence;
        let (n_known, n_unknown) = (f64::from(evidence.n_known), f64::from(evidence.n_unknown));
        prop_assert!(f64::from(evidence.false_matches) <= rate * n_unknown);
        prop_assert!(f64::from(evidence.false_rejects) <= 0.1 * n_known + 1e-6);
        prop_assert!(evidence.false_match_bound >= evidence.false_matches as f32 / evidence.n_unknown as f32);
        // The witnesses say what the calibration says.
        let rows = calibration.witness_rows(DIM);
        for (witness, row) in calibration.witnesses.iter().zip(rows.rows()) {
            let nearest = Nearest::of(&matcher, &Asked::single(row.to_vec()), None).unwrap();
            prop_assert_eq!(judge::judge(&calibration, nearest).verdict, witness.verdict);
        }
        Random::new(seed).shuffle(&mut observed);
        prop_assert_eq!(found(&observed, &settings, &matcher).unwrap(), calibration);
    }
}

#[test]
fn too_few_unknown_queries_are_refused_with_both_numbers() {
    let bytes = gallery_bytes(&KNOWN, 60, 1);
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    let observed = observations(&matcher, &ALL, 140, 2);
    let settings = Settings {
        false_match_rate: 0.01,
        ..SETTINGS
    };
    let message = found(&observed, &settings, &matcher)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("80 unknown queries can not show a false-match rate of 0.01")
            && message.contains("at least 99 are needed; 80 can show 0.0123"),
        "{message}"
    );
    let bounded = Settings {
        bounded: true,
        ..settings
    };
    let message = found(&observed, &bounded, &matcher)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("80 unknown queries of 4 labels can not bound"),
        "{message}"
    );
    let all_unknown: Vec<_> = observed.into_iter().filter(|o| !o.is_known).collect();
    assert_eq!(
        found(&all_unknown, &SETTINGS, &matcher),
        Err(CalibrateError::NoKnown)
    );
}

#[test]
fn the_only_image_of_a_label_is_neither_known_nor_unknown() {
    let bytes = gallery_bytes(&["alone", "pair", "pair"], 3, 1);
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    let labels = Labels::of(&matcher);
    let first = ImageId::of_file(b"row 0");
    assert_eq!(labels.knows("alone", first), None);
    assert_eq!(labels.knows("alone", ImageId([0; 16])), Some(true));
    assert_eq!(labels.knows("pair", ImageId::of_file(b"row 1")), Some(true));
    assert_eq!(labels.knows("other", first), Some(false));
}

#[test]
fn a_check_counts_on_both_sides_and_knows_chance_from_skill() {
    let bytes = gallery_bytes(&KNOWN, 60, 1);
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    let observed = observations(&matcher, &ALL, 700, 2);
    let calibrations = [found(&observed, &SETTINGS, &matcher).unwrap()];
    let answerer = eyas_device::answer::Answerer::new(&matcher, &calibrations);
    let request = eyas_device::answer::Request {
        k: 1,
        by_label: true,
        rerank: eyas_device::answer::Rerank::default(),
        exclude: None,
    };
    let calibration = &calibrations[0];
    let cases = check::answer(&answerer, calibration, &observed, &request, 1).unwrap();
    let rates = check::rates(&cases, calibration);
    let evidence = &calibration.evidence;
    assert_eq!((rates.false_match.n, rates.false_reject.n), (400, 300));
    assert_eq!((rates.n_known_labels, rates.n_unknown_labels), (3, 4));
    assert_eq!(rates.right_match.k, evidence.right_matches as usize);
    assert_eq!(rates.wrong_match.k, evidence.wrong_matches as usize);
    assert_eq!(rates.false_reject.k, evidence.false_rejects as usize);
    assert!(rates.false_match.k <= evidence.false_matches as usize);
    assert!(rates.auroc > 0.5 && rates.auroc <= 1.0);
    for (bin, counted) in calibration.curve.iter().zip(&rates.curve) {
        let observed = counted.observed.unwrap();
        assert!((observed - f64::from(bin.probability)).abs() < 1e-6);
    }
    let pairs = check::answer(&answerer, calibration, &observed, &request, 2).unwrap();
    assert_eq!(pairs.len(), 350);
}

#[test]
fn with_offsets_the_rate_is_counted_as_for_labels_never_seen() {
    let bytes = gallery_bytes(&KNOWN, 60, 1);
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    let observed = observations(&matcher, &ALL, 700, 2);
    let settings = Settings {
        per_label: true,
        ..SETTINGS
    };
    let calibration = found(&observed, &settings, &matcher).unwrap();
    assert!(!calibration.offsets.is_empty());
    assert!(
        calibration.evidence.false_matches <= 20,
        "{:?}",
        calibration.evidence
    );
    // What the offsets of all labels let through is another number: theirs is too kind.
    let unknown = observed.iter().filter(|o| !o.is_known);
    let passes = unknown.filter(|o| {
        let judgement = judge::judge(&calibration, o.nearest.clone());
        o.nearest.score >= judgement.match_score
    });
    assert_ne!(passes.count() as u32, calibration.evidence.false_matches);
}
