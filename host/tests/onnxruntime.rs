//! Exported files mean the same to onnxruntime as to the device: a second opinion on the
//! ONNX writer from a reader that shares no code with tract.
//!
//! Runs where the interpreter named by `EYAS_PYTHON`, or else `python3`, has onnxruntime
//! and numpy.

#[path = "support/random_weights.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use eyas_device::encoder::Network;
use eyas_host::export::{fold, onnx};
use eyas_host::{weights, zoo};
use eyas_shared::bundle::{Precision, probe_image};
use eyas_shared::embedding::dot;
use eyas_shared::preprocess::{self, Filter, IMAGENET_MEAN, IMAGENET_STD, Pixels, PreprocessSpec};
use eyas_shared::quant;

/// Both engines compute the same f32 network from the same stored weights; only the order
/// of additions differs.
const SAME_NETWORK_MIN_COSINE: f32 = 0.99999;

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

fn python() -> Option<String> {
    let python = std::env::var("EYAS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).arg(script()).output();
    probe
        .is_ok_and(|probe| probe.status.success())
        .then_some(python)
}

#[test]
fn onnxruntime_and_tract_agree_on_every_exported_file() {
    let Some(python) = python() else {
        eprintln!(
            "skipped: onnxruntime is not installed (EYAS_PYTHON names an interpreter that has it)"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Pixels> = (0..N_IMAGES)
        .map(|index| preprocess::prepare(&probe_image(index), &SPEC))
        .collect();
    let values: Vec<f32> = images.iter().flat_map(|p| &p.values_chw).copied().collect();
    let images_path = folder.path().join("images.f32");
    std::fs::write(&images_path, quant::f32_bytes(&values)).unwrap();

    for (name, _) in zoo::ARCHITECTURES {
        let network = zoo::by_name(name, 32).unwrap();
        let weights = support::random_weights(&network, 21);
        let (network, weights) = fold::fold(&network, &weights).unwrap();
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            let metadata = [("producer".to_owned(), "eyas".to_owned())];
            let file = onnx::write(&network, &weights, SPEC.crop, precision, &metadata).unwrap();
            let path = folder.path().join(format!("{name}-{precision}.onnx"));
            std::fs::write(&path, &file).unwrap();
            let expected = by_onnxruntime(&python, &path, &images_path);
            let device = Network::load(&file, SPEC.crop, None).unwrap();
            assert_eq!(
                device.multiply_adds(),
                network.multiply_adds(SPEC.crop as usize)
            );
            assert_eq!(expected.len(), images.len() * 32);
            for (pixels, expected) in images.iter().zip(expected.chunks_exact(32)) {
                let found = device.run(pixels).unwrap();
                let cosine = dot(&found, expected);
                assert!(
                    cosine >= SAME_NETWORK_MIN_COSINE,
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
