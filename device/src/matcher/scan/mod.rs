//! Two stages: a scan of small codes estimates every row's score, and the rows that it
//! ranks highest are scored as [`super::reference`] does.
//!
//! Estimates come from integer sums, so the candidates, and with them the answer, are the
//! same with every kernel, batch and number of threads.

mod int2;
mod int8;

use std::cmp::Ordering;

use eyas_shared::embedding::dot;
use eyas_shared::gallery::Gallery;

use super::best::Best;
use super::kernel::{Kernel, MAX_QUERIES};
use super::{Match, Query, best_first};
use int2::Int2Scan;
use int8::Int8Scan;

/// Rows whose estimates are computed before they are looked at: their sums and scores stay
/// in the first-level cache.
const TILE_ROWS: usize = 1024;

/// Estimated scores of one kind of code, for some queries.
trait Estimates {
    /// Estimates the scores of up to [`TILE_ROWS`] rows for each query. `first_row` is a
    /// multiple of [`TILE_ROWS`].
    fn estimate(&mut self, first_row: usize, n_rows: usize, scores: &mut [Vec<f32>]);
}

/// What is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scanned {
    Int2,
    Int8,
}

/// A way to search in two stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    scanned: Scanned,
    kernel: Kernel,
    n_threads: usize,
}

impl Scan {
    /// The best way to scan this gallery; `None` if it has no codes to scan.
    #[must_use]
    pub fn of(gallery: &Gallery<'_>) -> Option<Self> {
        let scanned = match (gallery.int2(), gallery.int8()) {
            (Some(_), _) => Scanned::Int2,
            (None, Some(_)) => Scanned::Int8,
            (None, None) => return None,
        };
        Some(Self {
            scanned,
            kernel: Kernel::best(),
            n_threads: 1,
        })
    }

    /// With this kernel instead of the best.
    #[must_use]
    pub fn with_kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// On so many threads. Pays for galleries whose scan takes milliseconds.
    #[must_use]
    pub fn with_threads(self, n_threads: usize) -> Self {
        Self { n_threads, ..self }
    }

    /// Rows that are scored for an answer of `k`: measured so that no more than one in a
    /// thousand of the ten best is missed (`models/results/search.md`).
    fn n_candidates(self, k: usize) -> usize {
        match self.scanned {
            Scanned::Int8 => k.saturating_mul(2).saturating_add(12),
            Scanned::Int2 => k.saturating_mul(8).saturating_add(320),
        }
    }

    /// The `k` best rows of each query, or all if there are fewer, best first.
    ///
    /// # Panics
    /// If a query is not as long as the gallery's rows, or the gallery has not the codes
    /// that this scan was made for.
    #[must_use]
    pub fn search_batch(
        self,
        gallery: &Gallery<'_>,
        queries: &[Query<'_>],
        k: usize,
    ) -> Vec<Vec<Match>> {
        let n_rows = gallery.n_rows() as usize;
        let n_candidates = self.n_candidates(k);
        if k == 0 || n_candidates >= n_rows {
            return super::dense::search_batch(gallery, queries, k);
        }
        let dim = gallery.dim();
        assert!(
            queries.iter().all(|query| query.embedding.len() == dim),
            "query of another dimension"
        );
        let mut answers = Vec::with_capacity(queries.len());
        for queries in queries.chunks(MAX_QUERIES) {
            let candidates = self.candidates(gallery, queries, n_candidates);
            let scored = queries.iter().zip(candidates);
            answers.extend(scored.map(|(query, rows)| score(gallery, query, rows, k)));
        }
        answers
    }

    /// The rows that each query's estimates rank highest, in the order of rows.
    fn candidates(
        self,
        gallery: &Gallery<'_>,
        queries: &[Query<'_>],
        n_candidates: usize,
    ) -> Vec<Vec<u32>> {
        let n_tiles = (gallery.n_rows() as usize).div_ceil(TILE_ROWS);
        let n_threads = self.n_threads.clamp(1, n_tiles);
        let part = |thread: usize| thread * n_tiles / n_threads..(thread + 1) * n_tiles / n_threads;
        let scan = |thread| self.scan_tiles(gallery, queries, n_candidates, part(thread));
        let mut best = std::thread::scope(|scope| {
            let others: Vec<_> = (1..n_threads)
                .map(|thread| scope.spawn(move || scan(thread)))
                .collect();
            let mut best = scan(0);
            for other in others {
                let found = other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                for (best, found) in best.iter_mut().zip(found) {
                    found
                        .finish()
                        .into_iter()
                        .for_each(|estimate| best.offer(estimate));
                }
            }
            best
        });
        best.drain(..)
            .map(|best| {
                let found = best.finish();
                let mut rows: Vec<u32> = found.iter().map(|estimate| estimate.row).collect();
                rows.sort_unstable();
                rows
            })
            .collect()
    }

    fn scan_tiles(
        self,
        gallery: &Gallery<'_>,
        queries: &[Query<'_>],
        n_candidates: usize,
        tiles: std::ops::Range<usize>,
    ) -> Vec<BestEstimates> {
        let embeddings: Vec<&[f32]> = queries.iter().map(|query| query.embedding).collect();
        let missing = "the gallery that this scan was made for has the codes";
        let mut estimates: Box<dyn Estimates> = match self.scanned {
            Scanned::Int2 => {
                let codes = gallery.int2().expect(missing);
                Box::new(Int2Scan::new(codes, self.kernel, &embeddings))
            }
            Scanned::Int8 => {
                let codes = gallery.int8().expect(missing);
                Box::new(Int8Scan::new(codes, self.kernel, &embeddings))
            }
        };
        let mut best: Vec<BestEstimates> = queries
            .iter()
            .map(|_| Best::new(n_candidates, Estimate::score, Estimate::order as _))
            .collect();
        let mut scores = vec![vec![0.0; TILE_ROWS]; queries.len()];
        for tile in tiles {
            let first_row = tile * TILE_ROWS;
            let n_rows = TILE_ROWS.min(gallery.n_rows() as usize - first_row);
            estimates.estimate(first_row, n_rows, &mut scores);
            for ((query, best), scores) in queries.iter().zip(&mut best).zip(&scores) {
                offer_tile(gallery, query, first_row as u32, &scores[..n_rows], best);
            }
        }
        best
    }
}

/// Offers the rows of one tile, most of which do not reach the threshold.
fn offer_tile(
    gallery: &Gallery<'_>,
    query: &Query<'_>,
    first_row: u32,
    scores: &[f32],
    best: &mut BestEstimates,
) {
    for (group, scores) in (first_row..).step_by(16).zip(scores.chunks(16)) {
        let threshold = best.threshold();
        if !scores
            .iter()
            .fold(false, |any, score| any | (*score >= threshold))
        {
            continue;
        }
        for (row, score) in (group..).zip(scores) {
            if *score >= best.threshold() && query.accepts(gallery, row) {
                best.offer(Estimate { score: *score, row });
            }
        }
    }
}

/// A row and what the scan makes of it.
#[derive(Clone, Copy)]
struct Estimate {
    score: f32,
    row: u32,
}

type BestEstimates = Best<Estimate, fn(&Estimate, &Estimate) -> Ordering>;

impl Estimate {
    fn score(&self) -> f32 {
        self.score
    }

    fn order(&self, other: &Self) -> Ordering {
        let score = other.score.total_cmp(&self.score);
        score.then(self.row.cmp(&other.row))
    }
}

/// The `k` best of some rows, by their stored components.
fn score(gallery: &Gallery<'_>, query: &Query<'_>, rows: Vec<u32>, k: usize) -> Vec<Match> {
    let mut values = vec![0.0; gallery.dim()];
    let mut matches: Vec<Match> = rows
        .into_iter()
        .map(|row| {
            gallery.row_into(row, &mut values);
            Match {
                row,
                id: gallery.id(row),
                score: dot(query.embedding, &values),
            }
        })
        .collect();
    matches.sort_unstable_by(best_first);
    matches.truncate(k);
    matches
}

#[cfg(test)]
mod tests;
