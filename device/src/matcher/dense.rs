//! Every row, fast: rows are widened in blocks that stay in the cache, once for all queries
//! of a batch, and only rows that can still be among the best are looked at further.
//!
//! Scores are those of the `dot` of [`super::reference`], to the last bit.

use std::cmp::Ordering;

use eyas_shared::embedding::Score;
use eyas_shared::gallery::{Gallery, RowEncoding};

use super::best::Best;
use super::{Kernel, Match, Query, best_first};

/// f32 values of one block, 4 KiB: the memory is read while they are copied and rests while
/// they are multiplied. 16 KiB took half as much time again, 2 KiB a quarter.
const BLOCK_VALUES: usize = 1024;

/// The `k` best rows of each query, or all if there are fewer, best first.
///
/// # Panics
/// If a query is not as long as the gallery's rows.
#[must_use]
pub fn search_batch(gallery: &Gallery<'_>, queries: &[Query<'_>], k: usize) -> Vec<Vec<Match>> {
    let k = k.min(gallery.n_rows() as usize);
    if k == 0 {
        return vec![Vec::new(); queries.len()];
    }
    let best = || Best::new(k, |found: &Match| found.score, best_first as _);
    let mut best: Vec<BestMatches> = queries.iter().map(|_| best()).collect();
    if gallery.codes().rows == Some(RowEncoding::F16) {
        search_f16(gallery, queries, &mut best);
    } else {
        search_widened(gallery, queries, &mut best);
    }
    best.into_iter().map(Best::finish).collect()
}

type BestMatches = Best<Match, fn(&Match, &Match) -> Ordering>;

fn offer(gallery: &Gallery<'_>, query: &Query<'_>, row: u32, score: Score, best: &mut BestMatches) {
    if score >= best.threshold() && query.accepts(gallery, row) {
        let id = gallery.id(row);
        best.offer(Match { row, id, score });
    }
}

/// f16 rows are widened within the product.
fn search_f16(gallery: &Gallery<'_>, queries: &[Query<'_>], best: &mut [BestMatches]) {
    let kernel = Kernel::best();
    for row in 0..gallery.n_rows() {
        let stored = gallery.f16_row(row).expect("rows are in f16");
        for (query, best) in queries.iter().zip(&mut *best) {
            let score = kernel.dot_f16(query.embedding, stored);
            offer(gallery, query, row, score, best);
        }
    }
}

fn search_widened(gallery: &Gallery<'_>, queries: &[Query<'_>], best: &mut [BestMatches]) {
    let dim = gallery.dim();
    let block_rows = (BLOCK_VALUES / dim).max(1);
    let mut block = vec![0.0; block_rows * dim];
    let mut scores = vec![0.0; block_rows];
    let kernel = Kernel::best();
    let mut first_row = 0;
    while first_row < gallery.n_rows() {
        let n_rows = block_rows.min((gallery.n_rows() - first_row) as usize);
        let block = &mut block[..n_rows * dim];
        gallery.rows_into(first_row, block);
        for (query, best) in queries.iter().zip(&mut *best) {
            let scores = &mut scores[..n_rows];
            kernel.dots(query.embedding, block, scores);
            for (row, score) in (first_row..).zip(scores) {
                offer(gallery, query, row, *score, best);
            }
        }
        first_row += n_rows as u32;
    }
}

#[cfg(test)]
mod tests {
    use eyas_shared::embedding::Embeddings;
    use eyas_shared::gallery::Codes;
    use eyas_shared::random::Random;
    use proptest::prelude::*;

    use eyas_shared::fingerprint::ImageId;

    use super::*;
    use crate::matcher::{Filter, reference};
    use crate::test_data::{embeddings, gallery_of};

    /// Bits instead of floats: equal means equal.
    fn bits(matches: &[Match]) -> Vec<(u32, ImageId, u32)> {
        matches
            .iter()
            .map(|m| (m.row, m.id, m.score.to_bits()))
            .collect()
    }

    /// A gallery with rows that occur several times, under identities in random order.
    fn with_duplicates(n_rows: usize, dim: usize, seed: u64) -> (Embeddings, Vec<u8>) {
        let mut random = Random::new(seed);
        let distinct = embeddings(n_rows.div_ceil(3), dim, seed);
        let mut rows = Embeddings::new(dim);
        for _ in 0..n_rows {
            rows.push(distinct.row(random.below(distinct.n_rows())));
        }
        let mut ids: Vec<u8> = (0..n_rows as u8).collect();
        random.shuffle(&mut ids);
        (rows, ids)
    }

    fn search(gallery: &Gallery<'_>, query: Query<'_>, k: usize) -> Vec<Match> {
        search_batch(gallery, &[query], k).swap_remove(0)
    }

    proptest! {
        #[test]
        fn dense_answers_equal_the_reference(
            n_rows in 1_usize..200,
            dim in prop_oneof![1_usize..40, Just(128), Just(5000)],
            k in prop_oneof![0_usize..12, Just(1000), Just(usize::MAX)],
            seed: u64,
            half: bool,
            filtered: bool,
            exclude in proptest::option::of(0_u8..20),
        ) {
            let codes = if half { Codes::F16 } else { Codes::F32 };
            let n_rows = if dim > 1000 { n_rows.min(5) } else { n_rows };
            let (rows, ids) = with_duplicates(n_rows, dim, seed);
            let bytes = gallery_of(&rows, &ids, codes);
            let gallery = Gallery::open(&bytes).unwrap();
            let exclude = exclude.map(|byte| ImageId([byte; 16]));
            let wanted = embeddings(3, dim, seed ^ 1);
            let filter = filtered.then(|| Filter::default().labels(&gallery, ["pear"]));
            let filter = filter.as_ref();
            let queries: Vec<Query<'_>> =
                wanted.rows().map(|embedding| Query { embedding, exclude, filter }).collect();
            let batch = search_batch(&gallery, &queries, k);
            for (query, together) in queries.iter().zip(&batch) {
                let expected = reference::search(&gallery, query, k);
                let alone = search(&gallery, *query, k);
                prop_assert_eq!(bits(&alone), bits(&expected));
                prop_assert_eq!(bits(together), bits(&expected));
                prop_assert!(expected.iter().all(|m| Some(m.id) != exclude));
            }
        }
    }

    #[test]
    fn a_stored_row_finds_itself_unless_its_identity_is_left_out() {
        let rows = embeddings(50, 16, 3);
        let ids: Vec<u8> = (0..50).collect();
        let bytes = gallery_of(&rows, &ids, Codes::F32);
        let gallery = Gallery::open(&bytes).unwrap();
        let mut query = vec![0.0; 16];
        gallery.row_into(7, &mut query);
        assert_eq!(search(&gallery, Query::new(&query), 1)[0].row, 7);
        let without = Query {
            exclude: Some(ImageId([7; 16])),
            ..Query::new(&query)
        };
        let without = search(&gallery, without, 50);
        assert_eq!(without.len(), 49);
        assert!(without.iter().all(|m| m.row != 7));
    }

    #[test]
    fn no_queries_give_no_answers() {
        let bytes = gallery_of(&embeddings(4, 3, 1), &[0, 1, 2, 3], Codes::F16);
        assert!(search_batch(&Gallery::open(&bytes).unwrap(), &[], 5).is_empty());
    }
}
