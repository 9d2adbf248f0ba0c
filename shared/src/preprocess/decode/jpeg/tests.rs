//! The quick decoder against the general one: on files of every kind, and on damaged ones.

use std::path::Path;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;
use crate::random::Random;

/// What both decoders make of a file.
fn both(memory: &mut Memory, bytes: &[u8]) -> (Option<RgbImage>, Result<RgbImage, DecodeError>) {
    let mut image = RgbImage::none();
    let quick = memory
        .baseline
        .decode(bytes, Limits::DEFAULT.max_pixels, &mut image)
        .map(|_| image);
    let mut image = RgbImage::none();
    let general = decode_any(bytes, &Limits::DEFAULT, &mut image).map(|_| image);
    (quick, general)
}

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/pixels");
    std::fs::read(folder.join(name)).unwrap()
}

/// A picture with edges, gradients and noise.
fn picture(stream: &mut Random, width: usize, height: usize, channels: usize) -> Vec<u8> {
    let noise = stream.below(64) + 1;
    let period = stream.below(40) + 2;
    let samples = (0..width * height * channels).map(|i| {
        let (x, y) = (i / channels % width, i / channels / width);
        let stripe = (x + y * (i % channels + 1)) / period % 2 * 120;
        (stripe + x * 90 / width + stream.below(noise)) as u8
    });
    samples.collect()
}

fn encoded(stream: &mut Random) -> Vec<u8> {
    let kinds = [
        SamplingFactor::F_1_1,
        SamplingFactor::F_2_1,
        SamplingFactor::F_1_2,
        SamplingFactor::F_2_2,
    ];
    let (width, height) = (1 + stream.below(70), 1 + stream.below(70));
    let (color, channels) = match stream.below(4) {
        0 => (ColorType::Luma, 1),
        _ => (ColorType::Rgb, 3),
    };
    let samples = picture(stream, width, height, channels);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 1 + stream.below(100) as u8);
    encoder.set_sampling_factor(kinds[stream.below(kinds.len())]);
    // Of color files with tables of their own this encoder makes several scans.
    encoder.set_optimized_huffman_tables(channels == 1 && stream.below(2) == 0);
    if stream.below(3) == 0 {
        encoder.set_restart_interval(1 + stream.below(9) as u16);
    }
    encoder
        .encode(&samples, width as u16, height as u16, color)
        .unwrap();
    bytes
}

#[test]
fn golden_files_of_the_plain_kind_take_the_quick_way() {
    let mut memory = Memory::default();
    for (name, is_plain) in [
        ("420.jpg", true),
        ("422.jpg", true),
        ("444.jpg", true),
        ("gray.jpg", true),
        ("restart.jpg", true),
        ("rgb.jpg", true),
        ("rgb-123.jpg", true),
        ("exif6.jpg", true),
        ("progressive.jpg", false),
        ("cmyk.jpg", false),
        ("ycck.jpg", false),
    ] {
        let (quick, general) = both(&mut memory, &golden(name));
        assert_eq!(quick.is_some(), is_plain, "{name}");
        if is_plain {
            assert!(quick == general.ok(), "{name}");
        }
    }
}

#[test]
fn files_of_all_sizes_and_samplings_give_the_same_samples() {
    const FILES: u64 = 1500;
    let mut memory = Memory::default();
    let source = Random::new(1).fork("encoded");
    let mut n_quick = 0;
    for file in 0..FILES {
        let bytes = encoded(&mut source.at(file));
        let (quick, general) = both(&mut memory, &bytes);
        if quick.is_some() {
            n_quick += 1;
            assert!(quick == general.ok(), "file {file}");
        }
    }
    // This encoder also writes files that are unusual, and some that nobody can read.
    assert!(
        n_quick > FILES / 10 * 9,
        "{n_quick} of {FILES} files were read quickly"
    );
}

#[test]
fn damaged_files_are_left_to_the_general_decoder_or_mean_the_same() {
    const TRIALS: u64 = 6000;
    let mut memory = Memory::default();
    let files = ["420.jpg", "422.jpg", "restart.jpg", "gray.jpg", "rgb.jpg"].map(golden);
    let source = Random::new(1).fork("damaged");
    let mut n_quick = 0;
    for trial in 0..TRIALS {
        let mut stream = source.at(trial);
        let mut bytes = files[stream.below(files.len())].clone();
        for _ in 0..1 + stream.below(3) {
            let at = stream.below(bytes.len());
            bytes[at] = stream.bits() as u8;
        }
        let (quick, general) = both(&mut memory, &bytes);
        if quick.is_some() {
            n_quick += 1;
            assert!(quick == general.ok(), "trial {trial}");
        }
    }
    assert!(
        n_quick > TRIALS / 50,
        "{n_quick} of {TRIALS} files were read quickly"
    );
}

#[test]
fn plain_code_gives_the_samples_of_vector_code() {
    let mut memory = Memory::default();
    let mut plain = Memory::default();
    plain.baseline.has_vectors = false;
    let source = Random::new(2).fork("encoded");
    for file in 0..200 {
        let bytes = encoded(&mut source.at(file));
        let (mut image, mut expected) = (RgbImage::none(), RgbImage::none());
        let found = memory.decode(&bytes, &Limits::DEFAULT, &mut image);
        assert_eq!(plain.decode(&bytes, &Limits::DEFAULT, &mut expected), found);
        assert!(found.is_err() || image == expected, "file {file}");
    }
}

/// A gray file with the largest steps and DC differences there are, many times over.
fn overflowing() -> Vec<u8> {
    const SIDE: u8 = 64;
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 131, 0x10];
    bytes.extend([0xff; 128]);
    bytes.extend([0xff, 0xc1, 0, 11, 8, 0, SIDE, 0, SIDE, 1, 1, 0x11, 0]);
    // One code each: `0` is a DC difference of 15 bits, and the end of a block.
    for (class, symbol) in [(0x00, 15), (0x10, 0)] {
        bytes.extend([0xff, 0xc4, 0, 20, class, 1]);
        bytes.extend([0; 15]);
        bytes.push(symbol);
    }
    bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
    // Blocks of 17 bits: 0, fifteen ones, 0.
    let bits = "01111111111111110".repeat(64);
    for byte in bits.as_bytes().chunks(8) {
        let byte = byte.iter().fold(0, |byte, bit| byte << 1 | (bit & 1));
        bytes.push(byte);
        if byte == 0xff {
            bytes.push(0);
        }
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

#[test]
fn coefficients_that_leave_their_type_are_no_panic() {
    let (quick, general) = both(&mut Memory::default(), &overflowing());
    assert!(quick.is_none() && general.is_ok(), "{general:?}");
}
