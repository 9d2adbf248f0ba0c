//! Export from end to end, against the f64 interpreter in libtorch's place.

use std::path::Path;

use eyas_device::encoder::Encoder;
use eyas_shared::bundle::probe_image;
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::preprocess::{
    self, Filter, IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec, RgbImage,
};

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

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(
            &picture.samples,
            picture.width as u16,
            picture.height as u16,
            jpeg_encoder::ColorType::Rgb,
        )
        .unwrap();
    bytes
}

fn write_image(root: &Path) -> Vec<u8> {
    let bytes = jpeg(&probe_image(99));
    std::fs::create_dir_all(root.join("a")).unwrap();
    std::fs::write(root.join(IMAGE), &bytes).unwrap();
    bytes
}

/// A student with random weights whose reference is exact; its one image lies under `root`.
pub(crate) fn student(architecture: &str, root: &Path) -> TrainedStudent {
    student_with(architecture, root, |_| ())
}

/// The same with weights that were changed before they were embedded with.
fn student_with(architecture: &str, root: &Path, change: impl Fn(&mut Weights)) -> TrainedStudent {
    let network = zoo::by_name(architecture, 16).unwrap();
    let network = network.for_side(SPEC.crop as usize);
    let mut weights = reference::random_weights(&network, 11);
    change(&mut weights);
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

const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::F16,
    Precision::Int8,
    Precision::FullInt8,
];

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
        assert!(header.verification.min_cosine >= verify::bounds(precision).min);
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
    // A few numbers more than int8 has.
    assert!(sizes[3] < sizes[1] * 2 / 3, "{sizes:?}");
}

#[test]
fn every_architecture_passes_in_every_precision() {
    let folder = tempfile::tempdir().unwrap();
    for (architecture, _) in zoo::ARCHITECTURES {
        let student = student(architecture, folder.path());
        let reference = Reference::read(&student, folder.path()).unwrap();
        // f32 is verified on the way to the others; networks that are no students are written,
        // and not quantized in every way that is tried.
        let is_large = student.network.n_parameters() > LARGE;
        let exporter = Exporter::new(&student, &reference).unwrap();
        for &precision in &PRECISIONS[if is_large { 1..2 } else { 1..4 }] {
            if let Err(err) = exporter.bundle(precision) {
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

#[test]
fn added_images_are_held_against_the_verified_f32_student() {
    let folder = tempfile::tempdir().unwrap();
    let student = student("eyas-xs", folder.path());
    let mut reference = Reference::read(&student, folder.path()).unwrap();
    let listed = n_pictures(&folder.path().join("a"), 5);
    let manifest = crate::data::open(folder.path()).unwrap();
    assert_eq!(manifest.images.len(), listed + 1);
    // The picture that libtorch embedded is not added again.
    assert_eq!(reference.add_images(&manifest).unwrap(), listed);
    let exporter = Exporter::new(&student, &reference).unwrap();
    let n_known = N_PROBES as usize + 1;
    assert_eq!(exporter.exact().agreement().n_images, n_known);
    let rounded = exporter.bundle(Precision::Int8).unwrap();
    assert_eq!(rounded.agreement().n_images, n_known + listed);
    assert_eq!(
        rounded.header().verification.n_images as usize,
        n_known + listed
    );

    let path = manifest.path(&manifest.images[0]);
    std::fs::write(&path, b"another").unwrap();
    let mut reference = Reference::read(&student, folder.path()).unwrap();
    let message = reference.add_images(&manifest).unwrap_err().to_string();
    assert!(message.contains("has changed since"), "{message}");
}

/// Writes some pictures into a folder.
fn n_pictures(folder: &Path, n: usize) -> usize {
    for index in 0..n {
        let bytes = jpeg(&probe_image(200 + index as u32));
        std::fs::write(folder.join(format!("b{index}.jpg")), bytes).unwrap();
    }
    n
}

#[test]
fn a_reference_for_other_pixels_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut student = student("eyas-xs", folder.path());
    let reference = Reference::read(&student, folder.path()).unwrap();
    student.preprocess.resize_shorter += 1;
    let outcome = Exporter::new(&student, &reference);
    assert!(matches!(outcome, Err(ExportError::OtherReference)));
}

#[test]
fn a_layer_that_int8_can_not_hold_is_kept_in_f16() {
    let folder = tempfile::tempdir().unwrap();
    // A channel that never fires, with weights in the head that take up the whole range of
    // int8: nothing would be left of the others.
    let (channel, n_channels) = (7, 192);
    let student = student_with("eyas-xs", folder.path(), |weights| {
        let mut value = |name: &str, at: usize, value: f32| {
            weights.0.get_mut(name).unwrap().values[at] = value;
        };
        value("wide.norm.weight", channel, 0.0);
        value("wide.norm.bias", channel, -1.0);
        for row in 0..16 {
            value("head.weight", row * n_channels + channel, 500.0);
        }
    });
    let reference = Reference::read(&student, folder.path()).unwrap();
    let exporter = Exporter::new(&student, &reference).unwrap();
    let verified = exporter.bundle(Precision::Int8).unwrap();
    assert_eq!(verified.rounding().f16_layers, ["head"]);
    assert_eq!(verified.header().precision, Precision::Int8);
    let half = exporter.bundle(Precision::F16).unwrap();
    assert!(verified.bytes().len() < half.bytes().len() * 2 / 3);
    // The file says so.
    let text = String::from_utf8_lossy(verified.onnx()).into_owned();
    assert!(text.contains(r#""f16_layers":["head"]"#));
}

#[test]
fn full_int8_of_a_network_without_integers_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let student = student("dinov2_vits14", folder.path());
    let reference = Reference::read(&student, folder.path()).unwrap();
    let err = export(&student, &reference, Precision::FullInt8).unwrap_err();
    assert!(matches!(err, ExportError::NothingInteger { .. }), "{err}");
    assert!(!err.is_disagreement());
    let text = err.to_string();
    assert!(text.contains("dinov2_vits14 has no dense"), "{text}");
}
