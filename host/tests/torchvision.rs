//! Architectures with published weight names compute what their authors' code computes, from
//! the same weights: read from safetensors by name, folded, written as ONNX and run by the
//! device's encoder. Batch norm is random too, so a forgotten epsilon or a swapped layer
//! shows.
//!
//! Runs where the interpreter named by `EYAS_PYTHON`, or else `python3`, has torch and
//! torchvision; BN-Inception also needs the package `pretrainedmodels`, and DINOv2, whose
//! formulas stand in the test's own script, NumPy alone.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
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
const SIDE: u32 = 76;

/// For networks that want a multiple of 16 or 32.
const EVEN_SIDE: u32 = 96;

/// Seven patches of 14 pixels and a border that belongs to none.
const SIDE_OF_PATCHES: u32 = 100;

const N_IMAGES: u32 = 2;

/// Architectures that torchvision has under the same name.
const IN_TORCHVISION: [&str; 16] = [
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
    "vit_b_16",
];

/// A script beside this file that writes random weights and the features that its network
/// makes of images, by each of some poolings.
struct Peer {
    script: &'static str,
    /// The package that it needs, for those who lack it.
    needs: &'static str,
    poolings: &'static [Pooling],
}

const TORCHVISION: Peer = Peer {
    script: "torchvision_features.py",
    needs: "torchvision",
    poolings: &Pooling::ALL,
};

const CADENE: Peer = Peer {
    script: "torchvision_features.py",
    needs: "pretrainedmodels",
    poolings: &Pooling::ALL,
};

const FORMULAS: Peer = Peer {
    script: "dinov2_features.py",
    needs: "numpy",
    poolings: &[Pooling::Average],
};

impl Peer {
    fn script(&self) -> PathBuf {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        tests.join(self.script)
    }

    /// The interpreter, if it has what the script needs; says what is left out without.
    fn python(&self) -> Option<String> {
        let python = std::env::var("EYAS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let probe = Command::new(&python).arg(self.script()).output().ok();
        let packages = probe.filter(|probe| probe.status.success());
        let packages = packages.map(|probe| String::from_utf8_lossy(&probe.stdout).into_owned());
        if packages.is_some_and(|packages| packages.split_whitespace().any(|it| it == self.needs)) {
            return Some(python);
        }
        eprintln!(
            "skipped: {} is not installed (EYAS_PYTHON names an interpreter that has it)",
            self.needs
        );
        None
    }

    fn features(
        &self,
        python: &str,
        name: &str,
        images: &Path,
        side: u32,
        weights: &Path,
    ) -> Vec<f32> {
        let output = Command::new(python)
            .arg(self.script())
            .args([Path::new(name), images])
            .arg(side.to_string())
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

    /// Holds an architecture against the script, by some of its poolings.
    fn check(&self, python: &str, name: &str, side: u32, poolings: &[Pooling]) {
        let folder = tempfile::tempdir().unwrap();
        let spec = PreprocessSpec {
            resize_shorter: side + 4,
            crop: side,
            filter: Filter::Bilinear,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        };
        let images: Vec<Pixels> = (0..N_IMAGES)
            .map(|index| preprocess::prepare(&probe_image(index), &spec))
            .collect();
        let values: Vec<f32> = images.iter().flat_map(|p| &p.values_chw).copied().collect();
        let images_path = folder.path().join("images.f32");
        std::fs::write(&images_path, quant::f32_bytes(&values)).unwrap();
        let weights_path = folder.path().join("weights.safetensors");
        let expected = self.features(python, name, &images_path, side, &weights_path);
        let given = Weights::read(&weights_path).unwrap();
        for &pooling in poolings {
            let least = self.least_cosine(name, pooling, &given, &images, &expected);
            eprintln!("{name} {pooling:?}: smallest cosine {least}");
            assert!(
                least >= SAME_NETWORK_MIN_COSINE,
                "{name} {pooling:?}: {least}"
            );
        }
    }

    /// `expected` holds the features by each pooling for each image.
    fn least_cosine(
        &self,
        name: &str,
        pooling: Pooling,
        given: &Weights,
        images: &[Pixels],
        expected: &[f32],
    ) -> f32 {
        let side = images[0].side;
        let network = zoo::by_name(name, 1).unwrap().for_side(side as usize);
        let trunk = network.with_pooling(pooling).trunk();
        let dim = trunk.dim();
        let of_one = self.poolings.len() * dim;
        assert_eq!(expected.len(), images.len() * of_one, "{name}");
        let weights = init::start_from(&trunk, given, 0).unwrap();
        let (folded, weights) = fold::fold(&trunk, &weights).unwrap();
        let file = onnx::write(&folded, &weights, side, Precision::F32, &[]).unwrap();
        let network = Network::load(&file, side, None).unwrap();
        let pooling_idx = self
            .poolings
            .iter()
            .position(|one| *one == pooling)
            .unwrap();
        let of_image = expected.chunks_exact(of_one);
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
}

#[test]
fn every_architecture_of_torchvision_gives_its_features() {
    let Some(python) = TORCHVISION.python() else {
        return;
    };
    for name in IN_TORCHVISION {
        // The other poolings share their code: one network with batch norm, and one
        // whose last map has values below zero.
        let poolings = match name {
            "resnet18" | "mobilenet_v3_small" => &Pooling::ALL[..],
            _ => &[Pooling::Average],
        };
        let side = if name == "vit_b_16" { EVEN_SIDE } else { SIDE };
        TORCHVISION.check(&python, name, side, poolings);
    }
}

#[test]
fn bn_inception_gives_the_features_of_its_port() {
    if let Some(python) = CADENE.python() {
        CADENE.check(&python, "bninception", EVEN_SIDE, &[Pooling::Average]);
    }
}

#[test]
fn dinov2_gives_the_features_of_its_formulas() {
    if let Some(python) = FORMULAS.python() {
        FORMULAS.check(&python, "dinov2_vits14", SIDE_OF_PATCHES, FORMULAS.poolings);
    }
}
