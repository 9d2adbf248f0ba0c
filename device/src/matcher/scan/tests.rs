use std::collections::HashSet;

use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Codes;
use eyas_shared::random::Random;
use proptest::prelude::*;

use super::*;
use crate::matcher::{Filter, reference};
use crate::test_data::{embeddings, gallery_with};

const CODES: [Codes; 4] = [
    Codes::INT8,
    Codes::INT8_F16,
    Codes::INT2_F16,
    Codes::INT2_INT8,
];

/// Rows in clusters, so that there are near ones.
fn clustered(n_rows: usize, dim: usize, seed: u64) -> Embeddings {
    let mut random = Random::new(seed);
    let centers = embeddings(n_rows.div_ceil(8), dim, seed ^ 5);
    let mut rows = Embeddings::new(dim);
    for _ in 0..n_rows {
        let center = centers.row(random.below(centers.n_rows()));
        let spread = 0.5 / (dim as f64).sqrt();
        let row: Vec<f32> = { center.iter() }
            .map(|x| x + (spread * random.normal()) as f32)
            .collect();
        rows.push(&row);
    }
    rows.normalize_rows();
    rows
}

fn id(row: u32) -> ImageId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&row.to_le_bytes());
    ImageId(id)
}

fn gallery_of(rows: &Embeddings, codes: Codes) -> Vec<u8> {
    let ids: Vec<ImageId> = (0..rows.n_rows() as u32).map(id).collect();
    gallery_with(rows, &ids, codes)
}

proptest! {
    #[test]
    fn every_kernel_batch_and_number_of_threads_gives_the_same_answer(
        n_rows in 1_usize..4000,
        dim in prop_oneof![1_usize..40, Just(128)],
        k in 1_usize..12,
        codes in 0..CODES.len(),
        filtered: bool,
        seed: u64,
    ) {
        let rows = clustered(n_rows, dim, seed);
        let bytes = gallery_of(&rows, CODES[codes]);
        let gallery = Gallery::open(&bytes).unwrap();
        let wanted = clustered(11, dim, seed ^ 1);
        let filter = filtered.then(|| Filter::default().labels(&gallery, ["pear"]));
        let query = |embedding| Query {
            exclude: Some(id(n_rows as u32 / 2)),
            filter: filter.as_ref(),
            ..Query::new(embedding)
        };
        let queries: Vec<Query<'_>> = wanted.rows().map(query).collect();
        let scan = Scan::of(&gallery).unwrap();
        let expected = scan.with_kernel(Kernel::Scalar).search_batch(&gallery, &queries, k);
        for kernel in Kernel::available() {
            for n_threads in [1, 3] {
                let scan = scan.with_kernel(kernel).with_threads(n_threads);
                let together = scan.search_batch(&gallery, &queries, k);
                prop_assert_eq!(&together, &expected, "{} x {}", kernel.name(), n_threads);
            }
            for (query, expected) in queries.iter().zip(&expected) {
                let alone = scan.with_kernel(kernel).search_batch(&gallery, &[*query], k);
                prop_assert_eq!(&alone[0], expected);
            }
        }
        for (query, found) in queries.iter().zip(&expected) {
            let all = reference::search(&gallery, query, n_rows);
            prop_assert_eq!(found.len(), k.min(all.len()));
            // Scores are the reference's, whatever was found.
            prop_assert!(found.iter().all(|found| all.contains(found)));
        }
    }
}

#[test]
fn the_scan_finds_what_the_reference_finds() {
    let rows = clustered(5000, 96, 7);
    let queries = clustered(50, 96, 7);
    for codes in CODES {
        let bytes = gallery_of(&rows, codes);
        let gallery = Gallery::open(&bytes).unwrap();
        let scan = Scan::of(&gallery).unwrap();
        let mut n_missed = 0;
        for query in queries.rows() {
            let query = Query::new(query);
            let expected = reference::search(&gallery, &query, 10);
            let expected: HashSet<u32> = expected.iter().map(|found| found.row).collect();
            let found = scan.search_batch(&gallery, &[query], 10);
            n_missed += 10
                - found[0]
                    .iter()
                    .filter(|found| expected.contains(&found.row))
                    .count();
        }
        // Of 500.
        assert!(n_missed <= 2, "{codes}: {n_missed}");
    }
}

#[test]
fn a_removed_row_is_never_found() {
    use eyas_shared::gallery::{GallerySource, Picked, Plan};
    let rows = clustered(3000, 32, 3);
    for codes in CODES {
        let bytes = gallery_of(&rows, codes);
        let gallery = Gallery::open(&bytes).unwrap();
        let source = GallerySource {
            space: gallery.header.space,
            teacher: String::new(),
            manifest: gallery.header.manifest,
            codes,
        };
        let all = Picked::all(&gallery);
        let bytes = Plan::with_removed(&source, &all, |row| row == 1234)
            .unwrap()
            .to_bytes();
        let gallery = Gallery::open(&bytes).unwrap();
        let query = Query::new(rows.row(1234));
        let found = Scan::of(&gallery)
            .unwrap()
            .search_batch(&gallery, &[query], 5);
        assert_eq!(found[0].len(), 5);
        assert!(found[0].iter().all(|found| found.row != 1234));
        assert_eq!(found[0], reference::search(&gallery, &query, 5));
    }
}
