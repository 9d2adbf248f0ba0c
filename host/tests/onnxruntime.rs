//! Exported files mean the same to onnxruntime as to the device: a second opinion on the
//! ONNX writer from a reader that shares no code with tract, and from onnx's own checker.
//!
//! Runs where the interpreter named by `EYAS_PYTHON`, or else `python3`, has onnxruntime
//! and numpy; checks files where it has onnx too.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it, too")]

#[path = "support/random_weights.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use eyas_device::encoder::{Encoder, Network};
use eyas_host::export::{ExportError, Exporter, Reference, fold, onnx};
use eyas_host::student::{N_PROBES, ReferenceEmbeddings, TrainedStudent};
use eyas_host::{weights, zoo};
use eyas_shared::bundle::{Bundle, Precision, probe_image};
use eyas_shared::embedding::{Embeddings, dot};
use eyas_shared::fingerprint::{Fingerprint, SpaceId};
use eyas_shared::preprocess::{self, Filter, IMAGENET_MEAN, IMAGENET_STD, Pixels, PreprocessSpec};
use eyas_shared::quant;

/// Both engines compute the same f32 network from the same stored weights; only the order
/// of additions differs.
const SAME_NETWORK_MIN_COSINE: f32 = 0.99999;

/// Where activations are rounded, another order of additions, or a product of scales rounded
/// elsewhere, moves a value now and then from one code to the next.
const SAME_CODES_MIN_COSINE: f32 = 0.999;

/// Depthwise networks with random weights make more of that from block to block: the least that was
/// seen is 0.9967 (MobileNetV3 large). MobileNetV2 in onnxruntime is as far from itself without its
/// optimizer as from the device encoder (0.9989).
const SAME_DEPTHWISE_CODES_MIN_COSINE: f32 = 0.99;

const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::F16,
    Precision::Int8,
    Precision::FullInt8,
];

fn min_cosine(network: &zoo::Network, precision: Precision) -> f32 {
    let is_depthwise = |node: &zoo::Node| matches!(node.op, zoo::Op::Conv { groups: 2.., .. });
    match precision {
        Precision::FullInt8 if network.nodes.iter().any(is_depthwise) => {
            SAME_DEPTHWISE_CODES_MIN_COSINE
        }
        Precision::FullInt8 => SAME_CODES_MIN_COSINE,
        _ => SAME_NETWORK_MIN_COSINE,
    }
}

const SPEC: PreprocessSpec = PreprocessSpec {
    resize_shorter: 112,
    crop: 96,
    filter: Filter::Bilinear,
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
};

const N_IMAGES: u32 = 4;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnxruntime_embed.py")
}

/// The interpreter, if it has onnxruntime; says what is left out without.
#[expect(clippy::print_stderr, reason = "says what was not tested")]
fn python() -> Option<String> {
    let python = std::env::var("EYAS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).arg(script()).output();
    let Some(probe) = probe.ok().filter(|probe| probe.status.success()) else {
        eprintln!(
            "skipped: onnxruntime is not installed (EYAS_PYTHON names an interpreter that has it)"
        );
        return None;
    };
    if !probe.stdout.starts_with(b"can check") {
        eprintln!("onnx is not installed: files are run, but not checked by onnx.checker");
    }
    Some(python)
}

fn images() -> Vec<Pixels> {
    (0..N_IMAGES)
        .map(|index| preprocess::prepare(&probe_image(index), &SPEC))
        .collect()
}

fn write_images(path: &Path, images: &[Pixels]) {
    let values: Vec<f32> = images.iter().flat_map(|p| &p.values_chw).copied().collect();
    std::fs::write(path, quant::f32_bytes(&values)).unwrap();
}

/// A student whose reference is what the device computes in f32, without photographs.
fn student(architecture: &str) -> TrainedStudent {
    let network = zoo::by_name(architecture, 32).unwrap();
    let network = network.for_side(SPEC.crop as usize);
    let weights = support::random_weights(&network, 21);
    let (folded, of_folded) = fold::fold(&network, &weights).unwrap();
    let file = onnx::write(&folded, &of_folded, SPEC.crop, Precision::F32, &[]).unwrap();
    let device = Network::load(&file, SPEC.crop, None).unwrap();
    let mut probes = Embeddings::new(32);
    for index in 0..N_PROBES {
        let pixels = preprocess::prepare(&probe_image(index), &SPEC);
        probes.push(&device.run(&pixels).unwrap());
    }
    let print = |text: &str| Fingerprint::of_bytes(text.as_bytes());
    TrainedStudent {
        name: "shelf".to_owned(),
        network,
        weights,
        preprocess: SPEC,
        space: SpaceId(print("space")),
        teacher: "big".to_owned(),
        recipe: print("recipe"),
        seed: 3,
        manifest: print("manifest"),
        reference: ReferenceEmbeddings {
            probes,
            images: Vec::new(),
            of_images: Embeddings::new(32),
        },
    }
}

#[test]
fn a_bundle_s_file_means_the_same_elsewhere_and_says_what_it_is() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let images = images();
    let images_path = folder.path().join("images.f32");
    write_images(&images_path, &images);
    // Depthwise: its biases are corrected in f16 and int8, and its scales chosen.
    let student = student("mobilenet_v2");
    let reference = Reference::read(&student, folder.path()).unwrap();
    let exporter = Exporter::new(&student, &reference).unwrap();
    for precision in PRECISIONS {
        let verified = exporter.bundle(precision).unwrap();
        let path = folder.path().join(format!("{precision}.onnx"));
        std::fs::write(&path, verified.onnx()).unwrap();
        let bundle = Bundle::read(verified.bytes()).unwrap();
        let encoder = Encoder::load(&bundle).unwrap();
        let expected = by_onnxruntime(&python, &path, &images_path);
        for (pixels, expected) in images.iter().zip(expected.chunks_exact(32)) {
            let cosine = dot(&encoder.encode(pixels).unwrap(), expected);
            let least = min_cosine(&student.network, precision);
            assert!(cosine >= least, "{precision}: {cosine}");
        }
    }
}

#[test]
fn onnxruntime_and_tract_agree_on_every_exported_file() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let images = images();
    let images_path = folder.path().join("images.f32");
    write_images(&images_path, &images);

    for (name, _) in zoo::ARCHITECTURES {
        let network = zoo::by_name(name, 32).unwrap();
        let network = network.for_side(SPEC.crop as usize);
        let weights = support::random_weights(&network, 21);
        let (network, weights) = fold::fold(&network, &weights).unwrap();
        for precision in PRECISIONS {
            let metadata = [("producer".to_owned(), "eyas".to_owned())];
            let file = match precision {
                Precision::FullInt8 => {
                    let seen: Vec<&Pixels> = images.iter().collect();
                    onnx::write_full_int8(&network, &weights, SPEC.crop, &seen, &metadata)
                }
                _ => onnx::write(&network, &weights, SPEC.crop, precision, &metadata),
            };
            let file = match file {
                Err(ExportError::NothingInteger { .. }) => continue,
                file => file.unwrap(),
            };
            let path = folder.path().join(format!("{name}-{precision}.onnx"));
            std::fs::write(&path, &file).unwrap();
            let expected = by_onnxruntime(&python, &path, &images_path);
            let device = Network::load(&file, SPEC.crop, None).unwrap();
            let counted = network.multiply_adds(SPEC.crop as usize);
            // Where only the class token goes on, tract computes the end of the last block for
            // that token alone.
            match network.pools_places() {
                true => assert_eq!(device.multiply_adds(), counted, "{name}"),
                false => assert!(device.multiply_adds() < counted, "{name}"),
            }
            assert_eq!(expected.len(), images.len() * 32);
            for (pixels, expected) in images.iter().zip(expected.chunks_exact(32)) {
                let found = device.run(pixels).unwrap();
                let cosine = dot(&found, expected);
                assert!(
                    cosine >= min_cosine(&network, precision),
                    "{name} {precision}: {cosine}"
                );
            }
        }
    }
}

fn by_onnxruntime(python: &str, network: &Path, images: &Path) -> Vec<f32> {
    let output = Command::new(python)
        .arg(script())
        .args([network, images])
        .arg(SPEC.crop.to_string())
        .output()
        .expect("the interpreter ran a moment ago");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    quant::f32_from_bytes(&output.stdout)
}
