//! Files of every released format version stay readable, and today's writer still writes
//! them byte for byte. The files are never made anew: a change of format is a new version.

use eyas_shared::bundle::{Bundle, BundleHeader, Precision, Provenance, Verification};
use eyas_shared::calibration::{
    Calibration, CurveBin, Evidence, GalleryIdentity, LabelOffset, NO_SCORE, Thresholds, Verdict,
    Witness,
};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::delta::{self, Delta};
use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource};
use eyas_shared::preprocess::{Filter, IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec};
use eyas_tests::root;

fn rows() -> Embeddings {
    let values = vec![1.0, 0.0, 0.0, 0.0, 3.0, 4.0, -0.5, 0.5, 0.5];
    Embeddings::from_values(3, values).unwrap()
}

fn gallery(codes: Codes) -> Vec<u8> {
    let images = [
        ("tea", "tea/1.jpg"),
        ("milk", "milk/1.jpg"),
        ("crème", "crème/1.jpg"),
    ];
    gallery_of(images, codes)
}

/// What the gallery becomes: the milk goes, the tea has another label, rice comes.
fn next_gallery(codes: Codes) -> Vec<u8> {
    let images = [
        ("green tea", "tea/1.jpg"),
        ("rice", "rice/1.jpg"),
        ("crème", "crème/1.jpg"),
    ];
    gallery_of(images, codes)
}

fn gallery_of(images: [(&str, &str); 3], codes: Codes) -> Vec<u8> {
    let source = GallerySource {
        space: SpaceId(Fingerprint::of_bytes(b"space")),
        teacher: "golden teacher".to_owned(),
        manifest: Fingerprint::of_bytes(b"manifest"),
        codes,
    };
    let entries = images.map(|(label, name)| Entry {
        id: ImageId::of_file(name.as_bytes()),
        label,
        name,
    });
    gallery::write(&source, &rows(), &entries).unwrap()
}

/// The frame of a bundle; its network is text, which only the encoder would refuse.
fn bundle(calibrations: Vec<Calibration>, memory_bytes: Option<u64>) -> Vec<u8> {
    let onnx = b"a network";
    let header = BundleHeader {
        name: "golden student".to_owned(),
        architecture: "eyas-xs".to_owned(),
        precision: Precision::F16,
        preprocess: PreprocessSpec {
            resize_shorter: 184,
            crop: 160,
            filter: Filter::Bilinear,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        },
        dim: 3,
        space: SpaceId(Fingerprint::of_bytes(b"space")),
        n_parameters: 300_000,
        multiply_adds: 40_000_000,
        onnx: Fingerprint::of_bytes(onnx),
        probe_pixels: Fingerprint::of_bytes(b"probes"),
        verification: Verification {
            n_images: 3,
            min_cosine: 0.999_99,
            tolerance: 0.999,
        },
        provenance: Provenance {
            eyas_version: "0.1.0".to_owned(),
            recipe: Fingerprint::of_bytes(b"recipe"),
            seed: 7,
            teacher: "golden teacher".to_owned(),
            manifest: Fingerprint::of_bytes(b"manifest"),
        },
    };
    Bundle {
        header,
        onnx,
        probe_embeddings: rows(),
        calibrations,
        memory_bytes,
    }
    .to_bytes()
}

fn golden(version: &str, name: &str) -> Vec<u8> {
    let path = root().join("tests/golden").join(version).join(name);
    std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

#[track_caller]
fn check(version: &str, name: &str, written: &[u8]) -> Vec<u8> {
    let golden = golden(version, name);
    assert!(
        golden == written,
        "{version}/{name} is written differently: a new layout needs a new version"
    );
    golden
}

#[test]
fn galleries_of_version_1_are_read() {
    for name in ["f32.gallery", "f16.gallery"] {
        let bytes = golden("v1", name);
        let gallery = Gallery::open(&bytes).unwrap();
        assert_eq!(gallery.version(), 1);
        check_gallery(&gallery);
    }
}

#[test]
fn galleries_of_version_2_are_read_and_written() {
    for codes in [Codes::F32, Codes::F16] {
        let bytes = check("v2", &file_name(codes), &gallery(codes));
        check_gallery(&Gallery::open(&bytes).unwrap());
    }
}

#[test]
fn galleries_of_version_3_are_read_and_written() {
    let bytes = check("v3", "int2-f16.gallery", &gallery(Codes::INT2_F16));
    check_gallery(&Gallery::open(&bytes).unwrap());
}

#[test]
fn galleries_of_version_4_are_read_and_written() {
    for codes in [Codes::INT8, Codes::INT8_F16, Codes::INT2_INT8] {
        let bytes = check("v4", &file_name(codes), &gallery(codes));
        check_gallery(&Gallery::open(&bytes).unwrap());
    }
}

#[test]
fn galleries_of_older_versions_hold_what_those_of_newer_ones_hold() {
    let older = [
        ("v2", Codes::INT8),
        ("v2", Codes::INT8_F16),
        ("v2", Codes::INT2_F16),
        ("v2", Codes::INT2_INT8),
        ("v3", Codes::INT2_INT8),
    ];
    for (version, codes) in older {
        let (old, new) = (golden(version, &file_name(codes)), gallery(codes));
        let (old, new) = (Gallery::open(&old).unwrap(), Gallery::open(&new).unwrap());
        assert_eq!(format!("v{}", old.version()), version);
        assert!(old.version() < new.version());
        check_gallery(&old);
        assert_eq!(old.content(), new.content());
        for row in 0..3 {
            assert_eq!(old.encoded_row(row), new.encoded_row(row));
        }
    }
}

#[test]
fn deltas_of_version_1_are_read_and_written() {
    let (old, new) = (gallery(Codes::INT8_F16), next_gallery(Codes::INT8_F16));
    let (base, new) = (Gallery::open(&old).unwrap(), Gallery::open(&new).unwrap());
    let between = delta::between(&base, &new).unwrap();
    // The records that come are a gallery, of version 2 and of version 4.
    let before = golden("v1", "int8-f16.delta");
    for bytes in [before, check("v4", "int8-f16.delta", &between)] {
        let delta = Delta::read(&bytes).unwrap();
        assert_eq!((delta.header.n_removed, delta.header.n_added), (2, 2));
        let applied = delta.apply(&base, false).unwrap();
        let applied = applied.plan().unwrap().to_bytes();
        let applied = Gallery::open(&applied).unwrap();
        applied.verify().unwrap();
        assert_eq!(applied.content(), new.content());
    }
}

fn file_name(codes: Codes) -> String {
    codes.to_string().replace(',', "-") + ".gallery"
}

fn check_gallery(gallery: &Gallery<'_>) {
    gallery.verify().unwrap();
    let entry = gallery.entry(2).unwrap();
    assert_eq!((entry.label, entry.name), ("crème", "crème/1.jpg"));
    let mut row = [0.0; 3];
    gallery.row_into(1, &mut row);
    // Half a step of int8 codes.
    assert!((row[1] - 0.6).abs() < 4e-3 && (row[2] - 0.8).abs() < 4e-3);
}

#[test]
fn bundles_of_version_1_are_read_and_written() {
    let bytes = check("v1", "f16.bundle", &bundle(Vec::new(), None));
    let bundle = Bundle::read(&bytes).unwrap();
    assert_eq!(bundle.onnx, b"a network");
    assert_eq!(bundle.header.preprocess.crop, 160);
    assert_eq!(bundle.header.provenance.seed, 7);
    assert_eq!(bundle.probe_embeddings, rows());
}

/// A calibration for the golden gallery, with something in every field.
fn calibration() -> Calibration {
    let gallery = gallery(Codes::F16);
    let bin = |from: f32, probability: f32, n_right: u32| CurveBin {
        from,
        probability,
        low: probability / 2.0,
        high: 1.0,
        n_right,
        n_wrong: 1,
        n_unknown: 50,
    };
    Calibration {
        gallery: GalleryIdentity::of(&Gallery::open(&gallery).unwrap()),
        row_encoding: "f16".to_owned(),
        thresholds: Thresholds {
            match_score: 0.75,
            unknown_score: 0.5,
            margin: 0.125,
        },
        offsets: vec![LabelOffset {
            label: "crème".to_owned(),
            offset: -0.0625,
            n_unknown: 20,
        }],
        evidence: Evidence {
            wanted_false_match_rate: 0.01,
            wanted_false_reject_rate: 0.05,
            wanted_wrong_match_rate: 0.1,
            unknown_share: 0.5,
            confidence: 0.95,
            n_known: 30,
            n_known_labels: 3,
            n_unknown: 100,
            n_unknown_labels: 10,
            design_effect: 2.5,
            false_matches: 0,
            false_match_bound: 0.072,
            right_matches: 20,
            wrong_matches: 1,
            false_rejects: 2,
        },
        curve: vec![bin(NO_SCORE, 0.25, 4), bin(0.625, 0.5, 24)],
        witnesses: vec![Witness {
            label: "milk".to_owned(),
            score: 0.8,
            margin: Some(0.2),
            verdict: Verdict::Match,
        }],
        witness_embeddings: vec![0.0, 0.0, 1.0],
        probe_scores: vec![0.1, 0.2, -0.3],
        manifest: Fingerprint::of_bytes(b"queries"),
        eyas_version: "0.1.0".to_owned(),
    }
}

#[test]
fn bundles_of_version_2_are_read_and_written() {
    let bytes = check(
        "v2",
        "calibrated.bundle",
        &bundle(vec![calibration()], None),
    );
    let read = Bundle::read(&bytes).unwrap();
    assert_eq!(read.calibrations, [calibration()]);
    assert_eq!(read.onnx, b"a network");
}

#[test]
fn bundles_of_version_3_are_read_and_written() {
    let memory = Some(300 << 10);
    let written = bundle(vec![calibration()], memory);
    let bytes = check("v3", "declared.bundle", &written);
    let read = Bundle::read(&bytes).unwrap();
    assert_eq!(read.memory_bytes, memory);
    assert_eq!(read.calibrations, [calibration()]);
    // Without calibrations, too.
    let bytes = bundle(Vec::new(), memory);
    assert_eq!(Bundle::read(&bytes).unwrap().memory_bytes, memory);
}
