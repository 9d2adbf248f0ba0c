//! Files of every released format version stay readable, and today's writer still writes
//! them byte for byte. The files are never made anew: a change of format is a new version.

use eyas_shared::bundle::{Bundle, BundleHeader, Precision, Provenance, Verification};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource};
use eyas_shared::preprocess::{Filter, IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec};
use eyas_tests::root;

fn rows() -> Embeddings {
    let values = vec![1.0, 0.0, 0.0, 0.0, 3.0, 4.0, -0.5, 0.5, 0.5];
    Embeddings::from_values(3, values).unwrap()
}

fn gallery(codes: Codes) -> Vec<u8> {
    let source = GallerySource {
        space: SpaceId(Fingerprint::of_bytes(b"space")),
        teacher: "golden teacher".to_owned(),
        manifest: Fingerprint::of_bytes(b"manifest"),
        codes,
    };
    let images = [
        ("tea", "tea/1.jpg"),
        ("milk", "milk/1.jpg"),
        ("crème", "crème/1.jpg"),
    ];
    let entries = images.map(|(label, name)| Entry {
        id: ImageId::of_file(name.as_bytes()),
        label,
        name,
    });
    gallery::write(&source, &rows(), &entries).unwrap()
}

/// The frame of a bundle; its network is text, which only the encoder would refuse.
fn bundle() -> Vec<u8> {
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
    for codes in [
        Codes::F32,
        Codes::F16,
        Codes::INT8,
        Codes::INT8_F16,
        Codes::INT2_F16,
        Codes::INT2_INT8,
    ] {
        let bytes = check("v2", &file_name(codes), &gallery(codes));
        check_gallery(&Gallery::open(&bytes).unwrap());
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
    let bytes = check("v1", "f16.bundle", &bundle());
    let bundle = Bundle::read(&bytes).unwrap();
    assert_eq!(bundle.onnx, b"a network");
    assert_eq!(bundle.header.preprocess.crop, 160);
    assert_eq!(bundle.header.provenance.seed, 7);
    assert_eq!(bundle.probe_embeddings, rows());
}
