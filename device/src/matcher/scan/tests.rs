use std::collections::HashSet;

use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::{Codes, Int2Codes};
use eyas_shared::random::Random;
use proptest::prelude::*;

use super::*;
use crate::matcher::kernel::Int8Query;
use crate::matcher::{Filter, dense, reference};
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

/// A memory map begins at a page, what arrives otherwise anywhere: sections are read as they
/// lie, whatever the address.
#[test]
fn a_gallery_answers_alike_wherever_it_lies_in_memory() {
    let rows = clustered(700, 72, 12);
    let query = Query::new(rows.row(5));
    for codes in [&CODES[..], &[Codes::F16, Codes::F32]].concat() {
        let bytes = gallery_of(&rows, codes);
        let mut room = vec![0; bytes.len() + 64];
        let first = room.as_ptr().align_offset(64);
        let mut answers: Vec<Vec<Vec<Match>>> = Vec::new();
        for offset in 0..64 {
            let place = &mut room[(first + offset) % 64..][..bytes.len()];
            place.copy_from_slice(&bytes);
            let gallery = Gallery::open(place).unwrap();
            gallery.verify().unwrap();
            answers.push(match Scan::of(&gallery) {
                None => vec![dense::search_batch(&gallery, &[query], 10).swap_remove(0)],
                Some(scan) => { Kernel::available().into_iter() }
                    .map(|kernel| {
                        scan.with_kernel(kernel)
                            .search_batch(&gallery, &[query], 10)
                    })
                    .map(|mut found| found.swap_remove(0))
                    .collect(),
            });
        }
        let expected = &answers[0][0];
        assert_eq!(expected.len(), 10);
        for (offset, found) in answers.iter().enumerate() {
            assert!(
                found.iter().all(|found| found == expected),
                "{codes} at {offset}"
            );
        }
    }
}

/// As of one product that was photographed once and stored under many names, or a shelf of
/// equal boxes: more rows than any scan scores.
#[test]
fn of_rows_that_are_alike_the_smallest_ids_are_found_in_any_order_of_the_gallery() {
    let (n_alike, n_rows, dim) = (3000, 6000, 24);
    let others = clustered(n_rows, dim, 11);
    let mut rows = Embeddings::new(dim);
    for row in 0..n_rows {
        rows.push(others.row(if row < n_alike { 0 } else { row }));
    }
    let mut order: Vec<usize> = (0..n_rows).collect();
    Random::new(3).shuffle(&mut order);
    let mut shuffled = Embeddings::new(dim);
    order.iter().for_each(|row| shuffled.push(rows.row(*row)));
    // Ids have nothing to do with the order of rows.
    let id = |row: usize| {
        ImageId(
            (row as u128)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes(),
        )
    };
    let ids: Vec<ImageId> = (0..n_rows).map(id).collect();
    let shuffled_ids: Vec<ImageId> = order.iter().map(|row| ids[*row]).collect();
    for codes in CODES {
        let files = [
            gallery_with(&rows, &ids, codes),
            gallery_with(&shuffled, &shuffled_ids, codes),
        ];
        let found = files.each_ref().map(|bytes| {
            let gallery = Gallery::open(bytes).unwrap();
            let query = Query::new(rows.row(0));
            let expected = reference::search(&gallery, &query, 10);
            let scan = Scan::of(&gallery).unwrap();
            let found = scan.search_batch(&gallery, &[query], 10).swap_remove(0);
            assert_eq!(found, expected, "{codes}");
            found.iter().map(|found| found.id).collect::<Vec<_>>()
        });
        assert_eq!(found[0], found[1], "{codes}");
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

/// What the scan of int8 codes is to find, from its definition.
fn highest_ranks(gallery: &Gallery<'_>, query: &[f32], n: usize) -> Vec<u32> {
    use eyas_shared::quant;
    let scale = quant::symmetric_scale(query);
    let codes: Vec<i32> = { query.iter() }
        .map(|x| i32::from(quant::to_i8(*x, scale)))
        .collect();
    let quantized = Int8Query::new(query);
    let rank = |row: u32| {
        let encoded = gallery.encoded_row(row);
        let of_codes = |part: fn(i32) -> i32| -> i32 {
            let parts = encoded.int8.iter().map(|code| part(i32::from(*code)));
            codes.iter().zip(parts).map(|(q, part)| q * part).sum()
        };
        let estimate = of_codes(|code| code) as f32 * encoded.scale;
        let high_sum = of_codes(|code| (code + 128) >> 4);
        estimate.min(quantized.bound(high_sum, encoded.scale))
    };
    let mut ranked: Vec<(f32, u32)> = (0..gallery.n_rows()).map(|row| (rank(row), row)).collect();
    let id = |row| gallery.id(row);
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| id(a.1).cmp(&id(b.1))));
    let mut rows: Vec<u32> = ranked[..n].iter().map(|(_, row)| *row).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn the_int8_scan_finds_the_rows_of_the_highest_ranks() {
    for (n_rows, dim) in [(3000, 20), (9000, 100)] {
        let mut rows = clustered(n_rows, dim, 5);
        // Codes that are 127 and -127: low halves are anything but uniform.
        for sign in [1.0, -1.0] {
            let signs: Vec<f32> = rows.row(7).iter().map(|x| sign * x.signum()).collect();
            rows.push(&signs);
        }
        rows.normalize_rows();
        let bytes = gallery_of(&rows, Codes::INT8_F16);
        let gallery = Gallery::open(&bytes).unwrap();
        let queries = clustered(6, dim, 5);
        for query in queries.rows().chain([rows.row(7), rows.row(n_rows)]) {
            let scan = Int8Scan::new(&gallery, gallery.int8().unwrap(), Kernel::best(), 10);
            let all = 0..rows.n_rows();
            let found = scan.scan(&[Query::new(query)], all).swap_remove(0);
            let expected = highest_ranks(&gallery, query, int8::n_candidates(10));
            assert_eq!(found.into_rows(), expected);
        }
    }
}

/// Rows that come nearer and nearer: the threshold is always too low, so that more wait than may,
/// in tiles of every size.
fn nearer_and_nearer(n_rows: usize, dim: usize) -> Embeddings {
    let mut random = Random::new(9);
    let mut rows = Embeddings::new(dim);
    for i in 0..n_rows {
        let mut row: Vec<f32> = (0..dim).map(|_| 0.1 * random.normal() as f32).collect();
        row[0] = i as f32 / n_rows as f32;
        row[1] = 1.0 - row[0];
        rows.push(&row);
    }
    rows.normalize_rows();
    rows
}

#[test]
fn the_int8_scan_finds_rows_that_lie_in_the_worst_order() {
    let (n_rows, dim) = (150_000, 8);
    let rows = nearer_and_nearer(n_rows, dim);
    let mut query = vec![0.0; dim];
    query[0] = 1.0;
    for codes in [Codes::INT8, Codes::INT8_F16] {
        let bytes = gallery_of(&rows, codes);
        let gallery = Gallery::open(&bytes).unwrap();
        let scan = Int8Scan::new(&gallery, gallery.int8().unwrap(), Kernel::best(), 10);
        let found = scan.scan(&[Query::new(&query)], 0..n_rows).swap_remove(0);
        let expected = highest_ranks(&gallery, &query, int8::n_candidates(10));
        assert_eq!(found.into_rows(), expected);
    }
}

#[test]
fn scans_find_the_same_rows_in_the_worst_order_and_in_the_best() {
    let (n_rows, dim) = (150_000, 32);
    let rows = nearer_and_nearer(n_rows, dim);
    let ids: Vec<ImageId> = (0..n_rows as u32).map(id).collect();
    let mut reversed = Embeddings::new(dim);
    (0..n_rows)
        .rev()
        .for_each(|row| reversed.push(rows.row(row)));
    let reversed_ids: Vec<ImageId> = ids.iter().rev().copied().collect();
    let mut query = vec![0.0; dim];
    query[0] = 1.0;
    for codes in CODES {
        let worst = gallery_with(&rows, &ids, codes);
        let best = gallery_with(&reversed, &reversed_ids, codes);
        let [worst, best] = [worst, best].map(|bytes| {
            let gallery = Gallery::open(&bytes).unwrap();
            let scan = Scan::of(&gallery).unwrap();
            // Twice the same query: what one leaves in memory is the next one's.
            let found = scan.search_batch(&gallery, &[Query::new(&query); 2], 10);
            assert_eq!(found[0], found[1], "{codes}");
            let found = found[0]
                .iter()
                .map(|found| (found.id, found.score.to_bits()));
            found.collect::<Vec<_>>()
        });
        assert_eq!(worst.len(), 10);
        assert_eq!(worst, best, "{codes}");
    }
}

/// The same gallery as older versions lay it out: int8 codes whole (2 and 3), low bits of
/// 2-bit codes in blocks as high ones, factors apart (2).
fn as_version(version: u16, bytes: &[u8]) -> Vec<u8> {
    use eyas_shared::container::{self, Container, Kind, Tag};
    use eyas_shared::gallery::VERSION;
    let gallery = Gallery::open(bytes).unwrap();
    let container = Container::read(bytes, Kind::Gallery, VERSION).unwrap();
    let (key, _) = container.header.split_first_chunk::<8>().unwrap();
    let whole = gallery.int8().map(|_| whole_codes(&gallery));
    let blocks = { gallery.int2() }.map(|int2| low_bits_in_blocks(int2, gallery.n_rows()));
    let in_blocks = blocks.as_ref().filter(|_| version == 2);
    let sections: Vec<(Tag, &[u8])> = { container.sections() }
        .filter_map(|(name, data)| {
            let data = match (name.as_str(), &whole, in_blocks) {
                ("LOW8", _, _) | ("LOW2", _, Some(_)) => return None,
                ("INT8", Some(codes), _) => codes,
                ("INT2", _, Some((planes, _))) => planes,
                ("FAC2", _, Some((_, factors))) => factors.as_flattened(),
                _ => data,
            };
            Some((*name.as_bytes().as_array().unwrap(), data))
        })
        .collect();
    container::write(Kind::Gallery, version, &(*key, &gallery.header), &sections)
}

/// Blocks of 16 rows, 4 codes of each after the other.
fn whole_codes(gallery: &Gallery<'_>) -> Vec<u8> {
    use eyas_shared::gallery::codes::INT8_BLOCK;
    let columns = gallery.dim().div_ceil(4);
    let n_rows = gallery.n_rows() as usize;
    let mut codes = vec![0; n_rows.next_multiple_of(INT8_BLOCK) * 4 * columns];
    for row in 0..n_rows {
        for (i, code) in gallery.encoded_row(row as u32).int8.iter().enumerate() {
            let unit = row / INT8_BLOCK * columns + i / 4;
            codes[(unit * INT8_BLOCK + row % INT8_BLOCK) * 4 + i % 4] = code.cast_unsigned();
        }
    }
    codes
}

/// Both planes, and the factors of the first alone and of both.
fn low_bits_in_blocks(int2: Int2Codes<'_>, n_rows: u32) -> (Vec<u8>, Vec<[u8; 2]>) {
    use eyas_shared::gallery::codes::INT2_BLOCK;
    let mut planes = [int2.high.to_vec(), vec![0; int2.high.len()]].concat();
    let n_padded = int2.factors.len();
    let mut factors = [int2.factors, &vec![[0; 2]; n_padded]].concat();
    for row in 0..n_rows as usize {
        let mut low = Vec::new();
        int2.push_low_row(row as u32, &mut low);
        let (bits, factor) = low.split_at(int2.columns);
        factors[n_padded + row].copy_from_slice(factor);
        for (column, byte) in bits.iter().enumerate() {
            let unit = row / INT2_BLOCK * int2.columns + column;
            planes[int2.high.len() + unit * INT2_BLOCK + row % INT2_BLOCK] = *byte;
        }
    }
    (planes, factors)
}

#[test]
fn galleries_of_older_versions_give_the_same_answers() {
    let layouts = [
        (2, Codes::INT8_F16),
        (2, Codes::INT2_F16),
        (2, Codes::INT2_INT8),
        (3, Codes::INT2_INT8),
    ];
    for (version, codes) in layouts {
        for (n_rows, dim) in [(1500, 24), (3001, 100)] {
            let rows = clustered(n_rows, dim, 8);
            let new = gallery_of(&rows, codes);
            let old = as_version(version, &new);
            let (new, old) = (Gallery::open(&new).unwrap(), Gallery::open(&old).unwrap());
            assert_eq!(old.version(), version);
            assert!(new.version() > version);
            old.verify().unwrap();
            for query in clustered(20, dim, 9).rows() {
                let search = |gallery| {
                    let scan = Scan::of(gallery).unwrap();
                    scan.search_batch(gallery, &[Query::new(query)], 10)
                };
                assert_eq!(search(&old), search(&new), "{codes} in version {version}");
            }
        }
    }
}
