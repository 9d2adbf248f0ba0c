use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use eyas_shared::bundle::Precision;
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::preprocess::{Filter, PreprocessSpec};
use eyas_shared::random::Random;

use super::*;
use crate::export::{fold, onnx};
use crate::teacher::Member;
use crate::teacher::projection::Projection;
use crate::zoo::{self, init};

const SIDE: u32 = 32;

fn member(seed: u64) -> Member {
    let network = zoo::by_name("eyas-xs", 6).unwrap();
    let weights = init::random_weights(&network, seed);
    let (network, weights) = fold::fold(&network, &weights).unwrap();
    let bytes = onnx::write(&network, &weights, SIDE, Precision::F32, &[]).unwrap();
    let spec = PreprocessSpec {
        resize_shorter: SIDE,
        crop: SIDE,
        filter: Filter::Bilinear,
        mean: [0.5; 3],
        std: [0.25; 3],
    };
    Member::new(format!("member {seed}"), bytes, spec, None).unwrap()
}

fn teacher() -> Teacher {
    Teacher::from_onnx("pair", vec![member(1), member(2)], None, None).unwrap()
}

fn jpeg(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let pixels: Vec<u8> = (0..40 * 40 * 3).map(|_| random.below(256) as u8).collect();
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&pixels, 40, 40, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

/// `n` images in `folder`, plus one that is the same as the first.
fn data(folder: &Path, n: u64) -> Manifest {
    let image = |i: u64, seed: u64| {
        let path = format!("{i}.jpg");
        let bytes = jpeg(seed);
        std::fs::write(folder.join(&path), &bytes).unwrap();
        Image {
            path,
            label: String::new(),
            split: "train".to_owned(),
            is_query: false,
            is_gallery: true,
            id: ImageId::of_file(&bytes),
        }
    };
    let mut images: Vec<Image> = (0..n).map(|i| image(i, i)).collect();
    images.push(image(n, 0));
    Manifest {
        root: folder.to_owned(),
        images,
    }
}

fn parts(cache: &Path) -> Vec<PathBuf> {
    let mut parts = Vec::new();
    for folder in std::fs::read_dir(cache).unwrap() {
        for part in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            parts.push(part.unwrap().path());
        }
    }
    parts.sort();
    parts
}

#[test]
fn embeddings_are_those_of_single_images_and_come_from_the_cache_the_second_time() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, cache) = (data(folder.path(), 5), folder.path().join("cache"));
    let teacher = teacher();
    let calls = AtomicUsize::new(0);
    let embed = || {
        let count = || {
            calls.fetch_add(1, Ordering::Relaxed);
        };
        embed_images(&teacher, &manifest, Some(&cache), &count).unwrap()
    };
    let first = embed();
    assert_eq!((first.n_run, first.images.n_images()), (5, 5));
    assert_eq!(calls.load(Ordering::Relaxed), 6, "one for each line");
    let again = embed();
    assert_eq!(again.n_run, 0);
    assert_eq!(again.images.to_bytes(), first.images.to_bytes());
    let uncached = embed_images(&teacher, &manifest, None, &|| ()).unwrap();
    assert_eq!(uncached.images.to_bytes(), first.images.to_bytes());
    let image = crate::embeddings::images::read_image(&manifest, &manifest.images[3]).unwrap();
    let alone = teacher.embed(&image).unwrap();
    assert_eq!(first.images.get(&manifest.images[3].id).unwrap(), alone);
    assert_eq!(first.images.matrix_for(&manifest).unwrap().n_rows(), 6);
}

#[test]
fn damaged_and_missing_parts_are_computed_again_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let n_images = CHUNK as u64 + 3;
    let (manifest, cache) = (data(folder.path(), n_images), folder.path().join("cache"));
    let teacher = teacher();
    let embed = || embed_images(&teacher, &manifest, Some(&cache), &|| ()).unwrap();
    let whole = embed().images.to_bytes();
    let files = parts(&cache);
    assert_eq!(files.len(), 4, "two members, two chunks");
    for file in &files {
        let content = std::fs::read(file).unwrap();
        // The large part of a member ends first in an interrupted run, or is half there.
        for damage in [content[..content.len() / 2].to_vec(), Vec::new(), {
            let mut flipped = content.clone();
            *flipped.last_mut().unwrap() ^= 1;
            flipped
        }] {
            std::fs::write(file, damage).unwrap();
            let repaired = embed();
            assert_eq!(repaired.damaged, std::slice::from_ref(file));
            assert!(repaired.n_run == CHUNK || repaired.n_run == 3);
            assert_eq!(repaired.images.to_bytes(), whole);
            assert_eq!(std::fs::read(file).unwrap(), content);
        }
        std::fs::remove_file(file).unwrap();
        let repaired = embed();
        assert!(repaired.damaged.is_empty());
        assert_eq!(repaired.images.to_bytes(), whole);
    }
}

#[test]
fn another_projection_needs_no_network_and_another_network_does() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, cache) = (data(folder.path(), 8), folder.path().join("cache"));
    let (features, faults) =
        concatenated_features(&teacher(), &manifest, Some(&cache), &|| ()).unwrap();
    assert!(faults.is_empty());
    assert_eq!((features.n_rows(), features.dim()), (8, 12));
    let projection = Projection::fit(&features, 3, 0.5).unwrap();
    let projected = teacher()
        .with_projection(Some(projection), Some(manifest.fingerprint()))
        .unwrap();
    let embedded = embed_images(&projected, &manifest, Some(&cache), &|| ()).unwrap();
    assert_eq!((embedded.n_run, embedded.images.dim()), (0, 3));
    let other = Teacher::from_onnx("other", vec![member(1), member(3)], None, None).unwrap();
    let embedded = embed_images(&other, &manifest, Some(&cache), &|| ()).unwrap();
    assert_eq!(embedded.n_run, 8);
}

#[test]
fn images_that_can_not_be_embedded_are_named_and_the_others_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = data(folder.path(), 4);
    std::fs::write(folder.path().join("1.jpg"), jpeg(99)).unwrap();
    std::fs::remove_file(folder.path().join("2.jpg")).unwrap();
    let text = b"not an image";
    std::fs::write(folder.path().join("3.jpg"), text).unwrap();
    manifest.images[3].id = ImageId::of_file(text);
    let embedded = embed_images(&teacher(), &manifest, None, &|| ()).unwrap();
    assert_eq!(embedded.images.n_images(), 1);
    let faults: Vec<String> = embedded.faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(
        faults[0].starts_with("`1.jpg`: the file has changed"),
        "{faults:?}"
    );
    assert!(faults[1].starts_with("`2.jpg`:"), "{faults:?}");
    assert!(faults[2].starts_with("`3.jpg`:"), "{faults:?}");
}

#[test]
fn a_teacher_of_embeddings_knows_its_images_only() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = data(folder.path(), 2);
    let mut table = EmbeddedImages::new(SpaceId(Fingerprint([0; 32])), 2);
    table.insert(manifest.images[0].id, &[3.0, 4.0]);
    let teacher = Teacher::from_embeddings("elsewhere", table, None, None).unwrap();
    let embedded = embed_images(&teacher, &manifest, None, &|| ()).unwrap();
    let known = embedded.images.get(&manifest.images[0].id);
    assert_eq!(known, Some(&[0.6, 0.8][..]));
    assert_eq!(embedded.faults.len(), 1);
    let message = embedded.faults[0].to_string();
    assert!(
        message.contains("`1.jpg`") && message.contains("ONNX"),
        "{message}"
    );
}
