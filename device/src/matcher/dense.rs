//! The fast scan: rows are widened in blocks that stay in the cache, once for all queries
//! of a batch, and only rows that can still be among the best are looked at further.
//!
//! Scores come from the same [`dot`] as in [`super::reference`], so answers are equal to
//! the last bit.

use eyas_shared::embedding::{Score, dot};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Gallery;

use super::{Match, Query, best_first};

/// f32 values of one block: 16 KiB, half of a small first-level cache.
const BLOCK_VALUES: usize = 4096;

/// The `k` best rows, or all if there are fewer, best first.
///
/// # Panics
/// If the query is not as long as the gallery's rows.
#[must_use]
pub fn search(
    gallery: &Gallery<'_>,
    query: &[f32],
    k: usize,
    exclude: Option<ImageId>,
) -> Vec<Match> {
    let query = Query { embedding: query, exclude };
    search_batch(gallery, &[query], k).swap_remove(0)
}

/// [`search`] for several queries; answers in the order of the queries.
///
/// # Panics
/// If a query is not as long as the gallery's rows.
#[must_use]
pub fn search_batch(gallery: &Gallery<'_>, queries: &[Query<'_>], k: usize) -> Vec<Vec<Match>> {
    let dim = gallery.dim();
    let k = k.min(gallery.n_rows() as usize);
    if k == 0 {
        return vec![Vec::new(); queries.len()];
    }
    let mut best: Vec<Best> = queries.iter().map(|_| Best::new(k)).collect();
    let block_rows = (BLOCK_VALUES / dim).max(1);
    let mut block = vec![0.0; block_rows * dim];
    let mut first_row = 0;
    while first_row < gallery.n_rows() {
        let n_rows = block_rows.min((gallery.n_rows() - first_row) as usize);
        let block = &mut block[..n_rows * dim];
        gallery.rows_into(first_row, block);
        for (query, best) in queries.iter().zip(&mut best) {
            for (row, values) in (first_row..).zip(block.chunks_exact(dim)) {
                best.offer(gallery, query.exclude, row, dot(query.embedding, values));
            }
        }
        first_row += n_rows as u32;
    }
    best.into_iter().map(Best::finish).collect()
}

/// The best rows of one query so far: the `k` best are always among `candidates`.
struct Best {
    k: usize,
    candidates: Vec<Match>,
    /// Score of the worst of `k` rows that were found; rows below it are out.
    threshold: Score,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { k, candidates: Vec::new(), threshold: Score::NEG_INFINITY }
    }

    fn offer(&mut self, gallery: &Gallery<'_>, exclude: Option<ImageId>, row: u32, score: Score) {
        // An equal score may still win by its id.
        if score < self.threshold {
            return;
        }
        let id = gallery.id(row);
        if exclude == Some(id) {
            return;
        }
        self.candidates.push(Match { row, id, score });
        // Twice `k`, so that a selection in linear time pays for `k` insertions.
        if self.candidates.len() >= 2 * self.k {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let (_, worst, _) = self.candidates.select_nth_unstable_by(self.k - 1, best_first);
        self.threshold = worst.score;
        self.candidates.truncate(self.k);
    }

    fn finish(mut self) -> Vec<Match> {
        self.candidates.sort_unstable_by(best_first);
        self.candidates.truncate(self.k);
        self.candidates
    }
}

#[cfg(test)]
mod tests {
    use eyas_shared::embedding::Embeddings;
    use eyas_shared::gallery::RowEncoding;
    use eyas_shared::random::Random;
    use proptest::prelude::*;

    use super::*;
    use crate::matcher::reference;
    use crate::test_data::{embeddings, gallery_of};

    /// Bits instead of floats: equal means equal.
    fn bits(matches: &[Match]) -> Vec<(u32, ImageId, u32)> {
        matches.iter().map(|m| (m.row, m.id, m.score.to_bits())).collect()
    }

    /// A gallery with rows that occur several times, some under the same identity.
    fn with_duplicates(n_rows: usize, dim: usize, seed: u64) -> (Embeddings, Vec<u8>) {
        let mut random = Random::new(seed);
        let distinct = embeddings(n_rows.div_ceil(3), dim, seed);
        let mut rows = Embeddings::new(dim);
        let mut ids = Vec::new();
        for _ in 0..n_rows {
            rows.push(distinct.row(random.below(distinct.n_rows())));
            ids.push(random.below(n_rows) as u8);
        }
        (rows, ids)
    }

    proptest! {
        #[test]
        fn dense_answers_equal_the_reference(
            n_rows in 1_usize..200,
            dim in prop_oneof![1_usize..40, Just(128), Just(5000)],
            k in prop_oneof![0_usize..12, Just(1000), Just(usize::MAX)],
            seed: u64,
            half: bool,
            exclude in proptest::option::of(0_u8..20),
        ) {
            let encoding = if half { RowEncoding::F16 } else { RowEncoding::F32 };
            let n_rows = if dim > 1000 { n_rows.min(5) } else { n_rows };
            let (rows, ids) = with_duplicates(n_rows, dim, seed);
            let bytes = gallery_of(&rows, &ids, encoding);
            let gallery = Gallery::open(&bytes).unwrap();
            let exclude = exclude.map(|byte| ImageId([byte; 16]));
            let wanted = embeddings(3, dim, seed ^ 1);
            let queries: Vec<Query<'_>> =
                wanted.rows().map(|embedding| Query { embedding, exclude }).collect();
            let batch = search_batch(&gallery, &queries, k);
            for (query, together) in queries.iter().zip(&batch) {
                let expected = reference::search(&gallery, query.embedding, k, exclude);
                let alone = search(&gallery, query.embedding, k, exclude);
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
        let bytes = gallery_of(&rows, &ids, RowEncoding::F32);
        let gallery = Gallery::open(&bytes).unwrap();
        let mut query = vec![0.0; 16];
        gallery.row_into(7, &mut query);
        assert_eq!(search(&gallery, &query, 1, None)[0].row, 7);
        let without = search(&gallery, &query, 50, Some(ImageId([7; 16])));
        assert_eq!(without.len(), 49);
        assert!(without.iter().all(|m| m.row != 7));
    }

    #[test]
    fn no_queries_give_no_answers() {
        let bytes = gallery_of(&embeddings(4, 3, 1), &[0, 1, 2, 3], RowEncoding::F16);
        assert!(search_batch(&Gallery::open(&bytes).unwrap(), &[], 5).is_empty());
    }
}
