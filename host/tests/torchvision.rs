//! Architectures with torchvision's weight names compute what torchvision computes, from
//! the same weights: read from safetensors by name, folded, written as ONNX and run by the
//! device's encoder. Batch norm is random too, so a forgotten epsilon or a swapped layer
//! shows.
//!
//! Runs where the interpreter named by `EYAS_PYTHON`, or else `python3`, has torch and
//! torchvision.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not functions with #[test]"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use eyas_device::encoder::Network;
use eyas_host::export::{fold, onnx};
use eyas_host::weights::Weights;
use eyas_host::zoo::{self, Pooling, init};
use eyas_shared::bundle::{Precision, probe_image};
use eyas_shared::embedding::{dot, l2_normalize};
use eyas_shared::preprocess::{self, Filter, IMAGENET_MEAN, IMAGENET_STD, Pixels, PreprocessSpec};
use eyas_shared::quant;

/// The same f32 weights and formulas, other orders of addition: 1e-7. Another epsilon in
/// batch norm alone costs 2e-4 (ResNet-18) to 0.9 (MobileNetV3).
const SAME_NETWORK_MIN_COSINE: f32 = 0.99999;

/// Features of different images are further apart than this, or their agreement would say
/// nothing.
const OTHER_IMAGE_MAX_COSINE: f32 = 0.999;

/// No multiple of 32: windows that hang over an edge and odd paddings count.
const SPEC: PreprocessSpec = PreprocessSpec {
    resize_shorter: 80,
    crop: 76,
    filter: Filter::Bilinear,
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
};

const N_IMAGES: u32 = 2;

/// Architectures that torchvision has under the same name.
const IN_TORCHVISION: [&str; 15] = [
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v2_035",
    "shufflenet_v2_x0_5",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torchvision_features.py")
}

fn python() -> Option<String> {
    let python = std::env::var("EYAS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).arg(script()).output();
    probe
        .is_ok_and(|probe| probe.status.success())
        .then_some(python)
}

#[test]
fn every_architecture_of_torchvision_gives_its_features() {
    let Some(python) = python() else {
        eprintln!(
            "skipped: torchvision is not installed (EYAS_PYTHON names an interpreter that has it)"
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
    for name in IN_TORCHVISION {
        let weights_path = folder.path().join("weights.safetensors");
        let expected = by_torchvision(&python, name, &images_path, &weights_path);
        let given = Weights::read(&weights_path).unwrap();
        // The other poolings share their code: one network with batch norm, and one
        // whose last map has values below zero.
        let poolings = match name {
            "resnet18" | "mobilenet_v3_small" => &Pooling::ALL[..],
            _ => &[Pooling::Average],
        };
        for &pooling in poolings {
            let least = least_cosine(name, pooling, &given, &images, &expected);
            eprintln!("{name} {pooling:?}: smallest cosine {least}");
            assert!(
                least >= SAME_NETWORK_MIN_COSINE,
                "{name} {pooling:?}: {least}"
            );
        }
    }
}

/// `expected` holds the features by each pooling for each image.
fn least_cosine(
    name: &str,
    pooling: Pooling,
    given: &Weights,
    images: &[Pixels],
    expected: &[f32],
) -> f32 {
    let trunk = zoo::by_name(name, 1).unwrap().with_pooling(pooling).trunk();
    let dim = trunk.dim();
    assert_eq!(
        expected.len(),
        images.len() * Pooling::ALL.len() * dim,
        "{name}"
    );
    let weights = init::start_from(&trunk, given, 0).unwrap();
    let (folded, weights) = fold::fold(&trunk, &weights).unwrap();
    let file = onnx::write(&folded, &weights, SPEC.crop, Precision::F32, &[]).unwrap();
    let network = Network::load(&file, SPEC.crop, None).unwrap();
    let pooling_idx = Pooling::ALL.iter().position(|one| *one == pooling).unwrap();
    let of_image = expected.chunks_exact(Pooling::ALL.len() * dim);
    let of_image: Vec<Vec<f32>> = of_image
        .map(|all| {
            let mut one = all[pooling_idx * dim..][..dim].to_vec();
            l2_normalize(&mut one);
            one
        })
        .collect();
    let between = dot(&of_image[0], &of_image[1]);
    assert!(
        between < OTHER_IMAGE_MAX_COSINE,
        "{name} {pooling:?}: {between}"
    );
    let pairs = images.iter().zip(&of_image);
    let cosines = pairs.map(|(pixels, expected)| dot(&network.run(pixels).unwrap(), expected));
    // Written so that NaN does not pass.
    cosines.fold(
        1.0,
        |least, cosine| if cosine >= least { least } else { cosine },
    )
}

fn by_torchvision(python: &str, name: &str, images: &Path, weights: &Path) -> Vec<f32> {
    let output = Command::new(python)
        .arg(script())
        .args([Path::new(name), images])
        .arg(SPEC.crop.to_string())
        .arg(weights)
        .output()
        .expect("the interpreter ran a moment ago");
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    quant::f32_from_bytes(&output.stdout)
}
