//! Memory of an evaluation, as the allocator counts it: for the whole process, so these have
//! one of their own and take turns.
//!
//! `EYAS_EVALUATION=1000000x512` sets rows (a multiple of 8000) and components of the
//! larger gallery.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it, too")]

use std::sync::{Mutex, PoisonError};

use eyas_device::matcher::Matcher;
use eyas_device::store::MappedFile;
use eyas_host::data::manifest::{Image, Manifest};
use eyas_host::embeddings::EmbeddedImages;
use eyas_host::embeddings::images::embed_each;
use eyas_host::evaluate::{self, Queries, Retrieval};
use eyas_host::gallery::{self, Selected};
use eyas_host::memory::peak_of;
use eyas_shared::embedding::l2_normalize;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::Codes;
use eyas_shared::preprocess::RgbImage;
use eyas_shared::random::Random;

const N_LABELS: usize = 1000;
const N_QUERIES: usize = 400;

/// Queries that read the gallery together.
const QUERIES_OF_A_BLOCK: usize = 64;

/// Lists of queries, buffers of a search.
const ALLOWANCE: u64 = 2 << 20;

/// Name, id, label and place of an image.
const BYTES_OF_AN_IMAGE: usize = 400;

/// A row that is known by its id, while the gallery is checked.
const BYTES_OF_A_ROW: usize = 80;

/// A gallery row whose rank is counted, its score and id, as it lies in a few lists.
const BYTES_OF_A_RANK: usize = 128;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn size() -> (usize, usize) {
    let Ok(size) = std::env::var("EYAS_EVALUATION") else {
        return (40_000, 512);
    };
    let (n_rows, dim) = size.split_once('x').expect("ROWSxCOMPONENTS");
    (n_rows.parse().unwrap(), dim.parse().unwrap())
}

fn space() -> SpaceId {
    SpaceId(Fingerprint([1; 32]))
}

fn image(kind: &str, number: usize) -> Image {
    let path = format!("{kind}/{number}");
    Image {
        id: ImageId::of_file(path.as_bytes()),
        path,
        label: (number % N_LABELS).to_string(),
        split: String::new(),
        is_query: kind == "query",
        is_gallery: kind == "row",
    }
}

fn images(kind: &str, n: usize) -> Manifest {
    Manifest {
        root: "data".into(),
        images: (0..n).map(|number| image(kind, number)).collect(),
    }
}

fn embedded(manifest: &Manifest, dim: usize, seed: u64) -> EmbeddedImages {
    let mut random = Random::new(seed);
    let mut embedded = EmbeddedImages::with_capacity(space(), dim, manifest.images.len());
    for image in &manifest.images {
        let mut row: Vec<f32> = (0..dim).map(|_| random.normal() as f32).collect();
        l2_normalize(&mut row);
        embedded.insert(image.id, &row);
    }
    embedded
}

fn queries(n: usize, dim: usize) -> Queries {
    let manifest = images("query", n);
    evaluate::queries_of(&manifest, &embedded(&manifest, dim, 2))
}

fn selected(n_rows: usize) -> Selected {
    Selected {
        manifest: images("row", n_rows),
        repeated: Vec::new(),
    }
}

/// What an evaluation against a gallery file of `n_rows` finds and takes.
fn against_a_file(n_rows: usize, dim: usize, queries: &Queries) -> (Retrieval, u64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    {
        let selected = selected(n_rows);
        let embedded = embedded(&selected.manifest, dim, 1);
        let built = gallery::build(&selected, &embedded, "t", Codes::F16).unwrap();
        std::fs::write(file.path(), built.bytes).unwrap();
    }
    let mapped = MappedFile::open(file.path()).unwrap();
    peak_of(|| {
        let matcher = Matcher::new(mapped.verified_gallery().unwrap());
        evaluate::retrieval(queries, &matcher).unwrap()
    })
}

#[test]
fn a_gallery_on_disk_costs_only_the_ranks_that_are_counted() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (n_rows, dim) = size();
    let queries = queries(N_QUERIES, dim);
    let peak = |n_rows| {
        let (found, peak) = against_a_file(n_rows, dim, &queries);
        assert_eq!(found.queries[0].n_relevant, n_rows / N_LABELS);
        peak
    };
    let (of_small, of_large) = (peak(n_rows / 8), peak(n_rows));
    println!("{of_small} bytes, {of_large} with eight times the rows: {n_rows} x {dim}");
    // What opening compares ids with, and all ranks of a block of queries on each core.
    let n_cores = std::thread::available_parallelism().unwrap().get();
    let n_ranked = n_cores * QUERIES_OF_A_BLOCK * n_rows / N_LABELS;
    let limit = ALLOWANCE + (BYTES_OF_A_ROW * n_rows + BYTES_OF_A_RANK * n_ranked) as u64;
    assert!(of_large < limit, "{of_large} of {limit} bytes");
    let all_rows = (2 * n_rows * dim) as u64;
    assert!(limit < all_rows / 2, "{limit} would not notice {all_rows}");
}

#[test]
fn a_gallery_that_the_student_embeds_costs_its_embeddings_and_its_file() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (n_rows, dim) = size();
    let queries = queries(N_QUERIES, dim);
    let (found, peak) = peak_of(|| {
        let selected = selected(n_rows);
        let embedded = embedded(&selected.manifest, dim, 1);
        evaluate::against_images(&queries, &selected, &embedded, Codes::F16, |_| ()).unwrap()
    });
    assert_eq!(found.queries[0].n_relevant, n_rows / N_LABELS);
    println!("{peak} bytes at {n_rows} x {dim}");
    let (embeddings, file) = (4 * n_rows * dim, 2 * n_rows * dim);
    // A file that grows in memory is copied to a place of up to twice its length, of which half
    // stays untouched.
    let limit = ALLOWANCE + (embeddings + 3 * file + BYTES_OF_AN_IMAGE * n_rows) as u64;
    assert!(peak < limit, "{peak} of {limit} bytes");
}

#[test]
fn embeddings_do_not_wait_for_each_other() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (n_images, dim) = (9000, 1024);
    let folder = tempfile::tempdir().unwrap();
    let mut picture = Vec::new();
    jpeg_encoder::Encoder::new(&mut picture, 90)
        .encode(&[128; 3 * 64], 8, 8, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    let mut manifest = images("row", n_images);
    manifest.root = folder.path().to_owned();
    std::fs::create_dir(folder.path().join("row")).unwrap();
    for (number, image) in manifest.images.iter_mut().enumerate() {
        // Whatever follows the picture makes another file of it.
        let bytes = [&picture[..], &number.to_le_bytes()].concat();
        image.id = ImageId::of_file(&bytes);
        std::fs::write(manifest.root.join(&image.path), bytes).unwrap();
    }
    let ((embedded, faults), peak) = peak_of(|| {
        let embed = |_: &RgbImage| Ok(vec![1.0; dim]);
        embed_each(&manifest, space(), dim, embed, || ())
    });
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(embedded.n_images(), n_images);
    let table = (4 * n_images * dim) as u64;
    assert!(
        peak < table + table / 2 + ALLOWANCE,
        "{peak} of {table} bytes"
    );
}
