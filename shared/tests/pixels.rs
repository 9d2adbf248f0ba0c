//! The pixel path against frozen files, hostile files and itself on many threads.
//!
//! Inputs and expected tensors are made by `tests/golden/pixels/make.py`; those of lossless
//! files were computed without Eyas.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it, too")]

use std::path::{Path, PathBuf};

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::preprocess::{
    DecodeError, Filter, IMAGENET_MEAN, IMAGENET_STD, Limits, PreprocessSpec, RgbImage, SourceBox,
    apply, decode, resize,
};
use eyas_shared::random::Random;

/// One input of every kind that the decoders tell apart, for damage tests.
const KINDS: [&str; 8] = [
    "420.jpg",
    "progressive.jpg",
    "restart.jpg",
    "cmyk.jpg",
    "rgba8.png",
    "rgb8-interlaced.png",
    "lossy-alpha.webp",
    "exif6.webp",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/pixels")
}

fn golden(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn spec(filter: &str, shorter: &str, crop: &str) -> PreprocessSpec {
    PreprocessSpec {
        resize_shorter: shorter.parse().unwrap(),
        crop: crop.parse().unwrap(),
        filter: match filter {
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            other => panic!("no filter `{other}`"),
        },
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    }
}

/// File name, spec and fingerprint of every expected tensor.
fn table() -> Vec<(String, PreprocessSpec, Fingerprint)> {
    let text = String::from_utf8(golden("tensors.txt")).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [sha256, file, filter, shorter, crop, _source] = fields[..] else {
                panic!("not a line of the table: {line}");
            };
            let fingerprint = Fingerprint::from_hex(sha256).unwrap();
            (file.to_owned(), spec(filter, shorter, crop), fingerprint)
        })
        .collect()
}

fn decode_default(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    decode(bytes, &Limits::DEFAULT)
}

#[test]
fn every_golden_file_gives_the_frozen_tensor() {
    let table = table();
    assert!(table.len() > 80, "{} lines", table.len());
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(file, spec, expected)| {
            let found = apply(&golden(file), spec).unwrap().fingerprint();
            (found != *expected).then(|| format!("{file} {spec:?}: {found}, not {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn two_tensors_are_frozen_value_by_value() {
    for file in ["420.jpg", "rgba8.png"] {
        let pixels = apply(&golden(file), &spec("bicubic", "28", "24")).unwrap();
        let expected: Vec<u32> = golden(&format!("{file}.f32"))
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect();
        let found: Vec<u32> = pixels.values_chw.iter().map(|v| v.to_bits()).collect();
        assert_eq!(found, expected, "{file}");
    }
}

#[test]
fn any_part_of_an_image_is_resized_as_pillow_does() {
    let image = decode_default(&golden("rgb8.png")).unwrap();
    let text = String::from_utf8(golden("boxes.txt")).unwrap();
    for line in text.lines() {
        let (sha256, rest) = line.split_once(' ').unwrap();
        let (filter, numbers) = rest.split_once(' ').unwrap();
        let numbers: Vec<f64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
        let [left, top, right, bottom, width, height] = numbers[..] else {
            panic!("not a line of the table: {line}");
        };
        let source = SourceBox {
            left,
            top,
            right,
            bottom,
        };
        let filter = spec(filter, "1", "1").filter;
        let resized = resize(&image, source, width as u32, height as u32, filter);
        let found = Fingerprint::of_bytes(&resized.samples);
        assert_eq!(Some(found), Fingerprint::from_hex(sha256), "{line}");
    }
}

#[test]
fn threads_agree() {
    let table = table();
    std::thread::scope(|scope| {
        for shift in [0, 17, 31, 60] {
            let table = &table;
            scope.spawn(move || {
                for i in 0..table.len() {
                    let (file, spec, expected) = &table[(i + shift) % table.len()];
                    assert_eq!(apply(&golden(file), spec).unwrap().fingerprint(), *expected);
                }
            });
        }
    });
}

#[test]
fn all_orientations_of_a_file_show_its_stored_pixels() {
    let stored = decode_default(&golden("exif1.png")).unwrap();
    let (right, bottom) = (stored.width - 1, stored.height - 1);
    // Where the stored top left and top right pixels are to be seen (Exif 2.3, 4.6.4).
    let corners = [
        ([0, 0], [right, 0]),
        ([right, 0], [0, 0]),
        ([right, bottom], [0, bottom]),
        ([0, bottom], [right, bottom]),
        ([0, 0], [0, right]),
        ([bottom, 0], [bottom, right]),
        ([bottom, right], [bottom, 0]),
        ([0, right], [0, 0]),
    ];
    for (i, (top_left, top_right)) in corners.into_iter().enumerate() {
        let turned = decode_default(&golden(&format!("exif{}.png", i + 1))).unwrap();
        assert_eq!(turned.pixel(top_left[0], top_left[1]), stored.pixel(0, 0));
        assert_eq!(
            turned.pixel(top_right[0], top_right[1]),
            stored.pixel(right, 0),
            "orientation {}",
            i + 1
        );
    }
}

#[test]
fn no_truncated_file_gives_an_image() {
    for file in KINDS {
        let bytes = golden(file);
        for len in 0..bytes.len() {
            let error = decode_default(&bytes[..len]).expect_err(file);
            let is_named = matches!(
                error,
                DecodeError::Truncated { .. } | DecodeError::UnknownFormat { .. }
            );
            assert!(is_named, "{file} cut to {len}: {error}");
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    const TRIALS: u64 = 600;
    for file in KINDS {
        let bytes = golden(file);
        let stream = Random::new(1).fork(file);
        for trial in 0..TRIALS {
            let mut stream = stream.at(trial);
            let mut damaged = bytes.clone();
            for _ in 0..1 + stream.below(8) {
                let at = stream.below(damaged.len());
                damaged[at] = stream.bits() as u8;
            }
            if let Ok(image) = decode_default(&damaged) {
                assert!(RgbImage::new(image.width, image.height, image.samples).is_some());
            }
        }
    }
}

#[test]
fn a_png_that_claims_to_be_huge_is_refused_by_its_header() {
    let mut bytes = golden("rgb8.png");
    let side = [0, 0x01, 0x86, 0xa0];
    bytes[16..20].copy_from_slice(&side);
    bytes[20..24].copy_from_slice(&side);
    let error = decode_default(&bytes).unwrap_err();
    let expected = DecodeError::TooManyPixels {
        width: 100_000,
        height: 100_000,
        limit: Limits::DEFAULT.max_pixels,
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "the image has 100000 x 100000 = 10000000000 pixels, the limit is 67108864"
    );
}

#[test]
fn every_format_keeps_to_the_limits() {
    for file in KINDS {
        let bytes = golden(file);
        let image = decode_default(&bytes).unwrap();
        let pixels = u64::from(image.width) * u64::from(image.height);
        let exact = Limits {
            max_bytes: bytes.len() as u64,
            max_pixels: pixels,
        };
        assert!(decode(&bytes, &exact).is_ok(), "{file}");
        let few_pixels = Limits {
            max_pixels: pixels - 1,
            ..exact
        };
        let error = decode(&bytes, &few_pixels).unwrap_err();
        assert!(matches!(error, DecodeError::TooManyPixels { .. }), "{file}");
        let few_bytes = Limits {
            max_bytes: exact.max_bytes - 1,
            ..exact
        };
        let error = decode(&bytes, &few_bytes).unwrap_err();
        assert!(matches!(error, DecodeError::TooManyBytes { .. }), "{file}");
    }
}

#[test]
fn an_unknown_file_is_named_by_its_first_bytes() {
    let message = |bytes: &[u8]| decode_default(bytes).unwrap_err().to_string();
    assert_eq!(
        message(b"GIF89a\x01\x00"),
        "neither a JPEG nor a PNG nor a WebP file: it starts with \"GIF89a\\x01\\x00\""
    );
    assert!(message(b"").ends_with("nothing (it is empty)"));
}

#[test]
fn bytes_after_the_end_of_a_jpeg_are_ignored() {
    let bytes = golden("420.jpg");
    let followed = [&bytes[..], b"a film"].concat();
    assert_eq!(decode_default(&followed), decode_default(&bytes));
}
