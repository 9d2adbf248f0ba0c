//! Files of every released format version stay readable, and today's writer still writes
//! them byte for byte. The files are never made anew: a change of format is a new version.

use eyas_shared::bundle::{Bundle, BundleHeader, Precision, Provenance, Verification};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Entry, Gallery, GallerySource, RowEncoding};
use eyas_shared::preprocess::{Filter, IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec};
use eyas_tests::root;

fn rows() -> Embeddings {
    let values = vec![1.0, 0.0, 0.0, 0.0, 3.0, 4.0, -0.5, 0.5, 0.5];
    Embeddings::from_values(3, values).unwrap()
}

fn gallery(encoding: RowEncoding) -> Vec<u8> {
    let source = GallerySource {
        space: SpaceId(Fingerprint::of_bytes(b"space")),
        teacher: "golden teacher".to_owned(),
        manifest: Fingerprint::of_bytes(b"manifest"),
        encoding,
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
        calibrations: Vec::new(),
    }
    .to_bytes()
}

#[track_caller]
fn check(name: &str, written: &[u8]) -> Vec<u8> {
    let path = root().join("tests/golden/v1").join(name);
    let golden = std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    assert!(
        golden == written,
        "{name} is written differently: a new layout needs a new version"
    );
    golden
}

#[test]
fn galleries_of_version_1_are_read_and_written() {
    for (name, encoding) in [
        ("f32.gallery", RowEncoding::F32),
        ("f16.gallery", RowEncoding::F16),
    ] {
        let bytes = check(name, &gallery(encoding));
        let gallery = Gallery::open(&bytes).unwrap();
        gallery.verify().unwrap();
        let entry = gallery.entry(2).unwrap();
        assert_eq!((entry.label, entry.name), ("crème", "crème/1.jpg"));
        let mut row = [0.0; 3];
        gallery.row_into(1, &mut row);
        assert!((row[1] - 0.6).abs() < 1e-3 && (row[2] - 0.8).abs() < 1e-3);
    }
}

#[test]
fn bundles_of_version_1_are_read_and_written() {
    let bytes = check("f16.bundle", &bundle());
    let bundle = Bundle::read(&bytes).unwrap();
    assert_eq!(bundle.onnx, b"a network");
    assert_eq!(bundle.header.preprocess.crop, 160);
    assert_eq!(bundle.header.provenance.seed, 7);
    assert_eq!(bundle.probe_embeddings, rows());
}
