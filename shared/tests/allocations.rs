//! What the pixel path allocates once it has seen an image of a size: nothing.
//!
//! A process of its own, with one test, because it counts all allocations.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it, too")]

use std::path::Path;

use eyas_shared::preprocess::{
    Filter, IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec, Preprocessor, apply,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/pixels");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn another_photograph_of_the_same_size_allocates_nothing() {
    let spec = PreprocessSpec {
        resize_shorter: 32,
        crop: 28,
        filter: Filter::Bilinear,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    };
    let mut preprocessor = Preprocessor::default();
    // Of several sizes, samplings and orientations, in turn.
    let files = [
        "420.jpg",
        "exif6.jpg",
        "422.jpg",
        "444.jpg",
        "gray.jpg",
        "restart.jpg",
    ];
    let files = files.map(golden);
    for file in &files {
        let expected = apply(file, &spec).unwrap();
        assert!(*preprocessor.apply(file, &spec).unwrap() == expected);
    }
    for file in files.iter().chain(&files) {
        // A peak above what is there at the start is an allocation, however short.
        MEMORY.reset_peak_usage();
        let before = MEMORY.peak_usage();
        let side = preprocessor.apply(file, &spec).unwrap().side;
        assert_eq!(MEMORY.peak_usage() - before, 0, "bytes");
        assert_eq!(side, 28);
    }
}
