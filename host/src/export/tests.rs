//! Export from end to end, against the f64 interpreter in libtorch's place.

use std::path::Path;

use eyas_device::encoder::Encoder;
use eyas_shared::bundle::probe_image;
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::preprocess::{self, Filter, IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec};

use super::*;
use crate::student::{N_PROBES, ReferenceEmbeddings};
use crate::zoo;

const SPEC: PreprocessSpec = PreprocessSpec {
    resize_shorter: 36,
    crop: 32,
    filter: Filter::Bilinear,
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
};

const IMAGE: &str = "a/picture.jpg";

fn write_image(root: &Path) -> Vec<u8> {
    let picture = probe_image(99);
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(
            &picture.samples,
            picture.width as u16,
            picture.height as u16,
            jpeg_encoder::ColorType::Rgb,
        )
        .unwrap();
    std::fs::create_dir_all(root.join("a")).unwrap();
    std::fs::write(root.join(IMAGE), &bytes).unwrap();
    bytes
}

/// A student with random weights whose reference is exact; its one image lies under `root`.
pub(crate) fn student(architecture: &str, root: &Path) -> TrainedStudent {
    let network = zoo::by_name(architecture, 16).unwrap();
    let weights = reference::random_weights(&network, 11);
    let embed = |pixels: &preprocess::Pixels| {
        reference::embed(&network, &weights, &pixels.values_chw, SPEC.crop as usize)
    };
    let mut probes = Embeddings::new(16);
    for index in 0..N_PROBES {
        probes.push(&embed(&preprocess::prepare(&probe_image(index), &SPEC)));
    }
    let image = write_image(root);
    let mut of_images = Embeddings::new(16);
    of_images.push(&embed(&preprocess::apply(&image, &SPEC).unwrap()));
    let print = |text: &str| Fingerprint::of_bytes(text.as_bytes());
    TrainedStudent {
        name: "shelf".to_owned(),
        preprocess: SPEC,
        space: SpaceId(print("space")),
        teacher: "big".to_owned(),
        recipe: print("recipe"),
        seed: 3,
        manifest: print("manifest"),
        reference: ReferenceEmbeddings {
            probes,
            images: vec![(ImageId::of_file(&image), IMAGE.to_owned())],
            of_images,
        },
        network,
        weights,
    }
}

/// Parameters of a network that is no student.
const LARGE: u64 = 5_000_000;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

#[test]
fn a_saved_bundle_reproduces_the_trained_network() {
    let folder = tempfile::tempdir().unwrap();
    let student = student("eyas-xs", folder.path());
    let reference = Reference::read(&student, folder.path()).unwrap();
    let mut sizes = Vec::new();
    for precision in PRECISIONS {
        let verified = export(&student, &reference, precision).unwrap();
        let path = folder.path().join(format!("shelf-{precision}.bundle"));
        verified.save(&path).unwrap();

        let bytes = std::fs::read(&path).unwrap();
        sizes.push(bytes.len());
        let bundle = Bundle::read(&bytes).unwrap();
        let header = &bundle.header;
        assert_eq!(header.verification.n_images, N_PROBES + 1);
        assert!(header.verification.min_cosine >= verify::min_cosine(precision));
        assert_eq!(header.space, student.space);
        let encoder = Encoder::load(&bundle).unwrap();
        assert_eq!(header.multiply_adds, encoder.network().multiply_adds());
        for (index, stored) in (0..).zip(bundle.probe_embeddings.rows()) {
            let pixels = preprocess::prepare(&probe_image(index), &SPEC);
            assert_eq!(encoder.encode(&pixels).unwrap(), stored);
        }
        assert_eq!(bundle.onnx, verified.onnx());
        let again = export(&student, &reference, precision).unwrap();
        assert!(
            again.bytes() == verified.bytes(),
            "{precision} bundles differ"
        );
    }
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
}

#[test]
fn every_architecture_passes_in_every_precision() {
    let folder = tempfile::tempdir().unwrap();
    for (architecture, _) in zoo::ARCHITECTURES {
        let student = student(architecture, folder.path());
        let reference = Reference::read(&student, folder.path()).unwrap();
        // f32 is verified on the way to the others; int8 is the hardest, and enough for
        // networks that take a second to load.
        let is_large = student.network.n_parameters() > LARGE;
        for &precision in &PRECISIONS[if is_large { 2.. } else { 1.. }] {
            if let Err(err) = export(&student, &reference, precision) {
                panic!("{architecture} {precision}: {err}");
            }
        }
    }
}

#[test]
fn a_student_that_differs_is_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let mut student = student("eyas-xs", folder.path());
    // One bias off by a little: a wrong fold would look like this.
    let reference = Reference::read(&student, folder.path()).unwrap();
    student.weights.0.get_mut("wide.norm.bias").unwrap().values[0] += 0.5;
    // Rounding to f16 is allowed as much, but a wrong network is not.
    let err = export(&student, &reference, Precision::F16).unwrap_err();
    assert!(err.is_disagreement());
    let message = err.to_string();
    assert!(
        message.contains("f32") && message.contains("needed 0.99999"),
        "{message}"
    );
}

#[test]
fn reference_images_that_are_gone_or_changed_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let student = student("eyas-xs", folder.path());
    let complaint = || match Reference::read(&student, folder.path()) {
        Ok(_) => panic!("the images can not be right"),
        Err(err) => err.to_string(),
    };
    let path = folder.path().join(IMAGE);
    std::fs::write(&path, b"another").unwrap();
    let message = complaint();
    assert!(message.contains("picture.jpg` has changed"), "{message}");
    std::fs::remove_file(&path).unwrap();
    let message = complaint();
    assert!(message.contains("picture.jpg"), "{message}");
}
