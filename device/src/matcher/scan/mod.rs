//! Two stages: a scan of small codes estimates every row's score, and the rows that it
//! ranks highest are scored as [`super::reference`] does.
//!
//! Estimates come from integer sums, so the candidates, and with them the answer, are the
//! same with every kernel, batch and number of threads.

mod candidates;
mod int2;
mod int8;

use eyas_shared::embedding::dot;
use eyas_shared::gallery::Gallery;

use super::best::Best;
use super::kernel::{Kernel, MAX_QUERIES, Tile};
use super::{Match, Query, best_first};
use candidates::Candidates;
use int2::Int2Scan;
use int8::Int8Scan;

/// Rows whose estimates are computed before they are looked at: their sums and scores stay
/// in the first-level cache.
const TILE_ROWS: usize = 1024;

/// Rows that are asked of the memory ahead of the one that is scored.
const PREFETCH_ROWS: usize = 8;

/// Estimated scores of one kind of code, for some queries.
trait Estimates {
    /// Estimates the scores of up to [`TILE_ROWS`] rows, and of those that fill the last
    /// block, for each query. `first_row` is a multiple of [`TILE_ROWS`].
    fn estimate(&mut self, first_row: usize, n_rows: usize, tiles: &mut [Tile]);
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

    /// Rows that are scored for an answer of `k`: measured so that about one in a
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
            answers.extend(scored.map(|(query, rows)| self.score(gallery, query, rows, k)));
        }
        answers
    }

    /// The `k` best of some rows, by their stored components.
    fn score(
        self,
        gallery: &Gallery<'_>,
        query: &Query<'_>,
        rows: Vec<u32>,
        k: usize,
    ) -> Vec<Match> {
        let mut best = Best::new(k, |found: &Match| found.score, best_first);
        let mut values = vec![0.0; gallery.dim()];
        for (i, row) in rows.iter().copied().enumerate() {
            if let Some(soon) = rows.get(i + PREFETCH_ROWS)
                && let Some(stored) = gallery.f16_row(*soon)
            {
                self.kernel.prefetch(stored);
            }
            let score = match gallery.f16_row(row) {
                Some(stored) => self.kernel.dot_f16(query.embedding, stored),
                None => {
                    gallery.row_into(row, &mut values);
                    dot(query.embedding, &values)
                }
            };
            if score >= best.threshold() {
                let id = gallery.id(row);
                best.offer(Match { row, id, score });
            }
        }
        best.finish()
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
                best.iter_mut()
                    .zip(found)
                    .for_each(|(best, found)| best.merge(found));
            }
            best
        });
        best.drain(..).map(Candidates::into_rows).collect()
    }

    fn scan_tiles(
        self,
        gallery: &Gallery<'_>,
        queries: &[Query<'_>],
        n_candidates: usize,
        tiles: std::ops::Range<usize>,
    ) -> Vec<Candidates> {
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
        let mut best = vec![Candidates::new(n_candidates); queries.len()];
        let mut found: Vec<Tile> = queries.iter().map(|_| Tile::new()).collect();
        for tile in tiles {
            let first_row = tile * TILE_ROWS;
            let n_rows = TILE_ROWS.min(gallery.n_rows() as usize - first_row);
            estimates.estimate(first_row, n_rows, &mut found);
            for ((query, best), found) in queries.iter().zip(&mut best).zip(&mut found) {
                found.for_hits(|row, score| {
                    let row_idx = (first_row + row) as u32;
                    // What fills the last block is no row.
                    if row < n_rows && query.accepts(gallery, row_idx) {
                        best.offer(row_idx, score);
                    }
                });
                found.threshold = best.threshold();
            }
        }
        best
    }
}

#[cfg(test)]
mod tests;
