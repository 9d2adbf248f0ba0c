//! What a gallery's codes lose: its own answers beside those of exact embeddings.

use std::io;

use eyas_device::matcher::{Match, Matcher, Query};
use eyas_shared::embedding::{by_rank, dot, l2_normalize};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Rows;
use eyas_shared::random::Random;

/// Answers that are compared at most.
const K: usize = 10;

/// Rows that ask at most, and products of embeddings that are computed at most: few rows ask
/// a large gallery, so that it takes seconds.
const MAX_QUERIES: usize = 200;
const MAX_PRODUCTS: usize = 50_000_000;

/// Rows that ask in any gallery, as far as it has them.
const MIN_QUERIES: usize = 20;

/// How many of the exact neighbors a gallery finds, on average over its own rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// Rows that asked, each left out of its own answer.
    pub n_queries: usize,
    /// Share of queries whose nearest neighbor comes first.
    pub at_1: f64,
    /// Share of the ten nearest neighbors, or of all if there are fewer, that are among as
    /// many answers.
    pub at_10: f64,
}

/// Asks the gallery with some of its rows, drawn at random. Row `i` of `exact` is what row `i`
/// of the gallery was made of. `None` if there are fewer than two rows.
///
/// # Errors
/// If `exact` can not be read.
///
/// # Panics
/// If the two differ in number or dimension of rows.
pub fn measure(exact: &impl Rows, matcher: &Matcher<'_>) -> io::Result<Option<Recall>> {
    let n_rows = exact.n_rows();
    assert_eq!(n_rows, matcher.gallery().n_rows() as usize, "other rows");
    if n_rows < 2 {
        return Ok(None);
    }
    let n_queries = (MAX_PRODUCTS / n_rows).clamp(MIN_QUERIES, MAX_QUERIES);
    let mut asking: Vec<u32> = (0..n_rows as u32).collect();
    Random::new(0).fork("recall").shuffle(&mut asking);
    asking.truncate(n_queries);
    let mut embeddings = vec![vec![0.0; exact.dim()]; asking.len()];
    for (row, embedding) in asking.iter().zip(&mut embeddings) {
        read_unit(exact, *row, embedding)?;
    }
    let queries: Vec<Query<'_>> = asking
        .iter()
        .zip(&embeddings)
        .map(|(row, embedding)| Query {
            exclude: Some(matcher.gallery().id(*row)),
            ..Query::new(embedding)
        })
        .collect();
    let nearest = nearest_rows(exact, matcher, &queries)?;
    let found = matcher.search_batch(&queries, K);
    let at = |k: usize| {
        let shares = nearest.iter().zip(&found).map(|(nearest, found)| {
            let nearest = &nearest[..k.min(nearest.len())];
            let found = &found[..k.min(found.len())];
            let is_found = |near: &&Match| found.iter().any(|found| found.row == near.row);
            nearest.iter().filter(is_found).count() as f64 / nearest.len() as f64
        });
        shares.sum::<f64>() / queries.len() as f64
    };
    Ok(Some(Recall {
        n_queries: queries.len(),
        at_1: at(1),
        at_10: at(K),
    }))
}

fn read_unit(rows: &impl Rows, row: u32, embedding: &mut [f32]) -> io::Result<()> {
    rows.read(row as usize, embedding)?;
    l2_normalize(embedding);
    Ok(())
}

/// The best rows of each query by exact score, best first; reads the embeddings once.
fn nearest_rows(
    exact: &impl Rows,
    matcher: &Matcher<'_>,
    queries: &[Query<'_>],
) -> io::Result<Vec<Vec<Match>>> {
    let rank = |found: &Match| (found.score, found.id, found.row);
    let mut best: Vec<Vec<Match>> = vec![Vec::with_capacity(K + 1); queries.len()];
    let mut embedding = vec![0.0; exact.dim()];
    for row in 0..exact.n_rows() as u32 {
        read_unit(exact, row, &mut embedding)?;
        let id: ImageId = matcher.gallery().id(row);
        for (query, best) in queries.iter().zip(&mut best) {
            let score = dot(query.embedding, &embedding);
            let is_good = best.len() < K || best.last().is_some_and(|last| score >= last.score);
            if is_good && query.exclude != Some(id) {
                let found = Match { row, id, score };
                let at = best.partition_point(|other| by_rank(rank(other), rank(&found)).is_lt());
                best.insert(at, found);
                best.truncate(K);
            }
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use eyas_shared::embedding::Embeddings;
    use eyas_shared::fingerprint::{Fingerprint, SpaceId};
    use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource};

    use super::*;

    fn recall(n_rows: usize, dim: usize, codes: Codes) -> Option<Recall> {
        let mut random = Random::new(4);
        let values = (0..n_rows * dim).map(|_| random.normal() as f32).collect();
        let rows = Embeddings::from_values(dim, values).unwrap();
        let names: Vec<String> = (0..n_rows).map(|i| i.to_string()).collect();
        let entries: Vec<Entry<'_>> = names
            .iter()
            .map(|name| Entry {
                id: ImageId::of_file(name.as_bytes()),
                label: "a",
                name,
            })
            .collect();
        let source = GallerySource {
            space: SpaceId(Fingerprint([1; 32])),
            teacher: String::new(),
            manifest: Fingerprint([1; 32]),
            codes,
        };
        let bytes = gallery::write(&source, &rows, &entries).unwrap();
        measure(&rows, &Matcher::new(Gallery::open(&bytes).unwrap())).unwrap()
    }

    #[test]
    fn exact_rows_find_everything_and_codes_nearly() {
        let exact = recall(500, 16, Codes::F32).unwrap();
        assert_eq!((exact.n_queries, exact.at_1, exact.at_10), (200, 1.0, 1.0));
        let int8 = recall(500, 16, Codes::INT8).unwrap();
        assert!((0.9..1.0).contains(&int8.at_10), "{int8:?}");
        // Three rows have two neighbors each, and every one of them is among the answers.
        let few = recall(3, 16, Codes::INT8).unwrap();
        assert_eq!((few.n_queries, few.at_10), (3, 1.0));
        assert_eq!(recall(1, 16, Codes::INT8), None);
    }
}
