//! A scan of small codes says which rows may be among the best, and those are scored as
//! [`super::reference`] does.
//!
//! What codes say comes from integer sums, so the rows that are scored, and with them the
//! answer, are the same with every kernel, batch and number of threads.

mod candidates;
mod int2;
mod int8;

use std::ops::Range;

use eyas_shared::embedding::{Score, dot};
use eyas_shared::gallery::Gallery;

use super::best::Best;
use super::kernel::{Kernel, MAX_QUERIES, prefetch};
use super::{Match, Query, best_first};
use int2::Int2Scan;
use int8::Int8Scan;

/// Rows that are asked of the memory ahead of the one that is scored.
const PREFETCH_ROWS: usize = 16;

/// Threads divide the rows at multiples of this, which every block divides.
const PART_ROWS: usize = 1024;

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

    /// Galleries of no more rows have nothing to gain from codes.
    fn n_rows_to_score(self, k: usize) -> usize {
        match self.scanned {
            Scanned::Int8 => int8::n_candidates(k),
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
        if k == 0 || self.n_rows_to_score(k) >= gallery.n_rows() as usize {
            return super::dense::search_batch(gallery, queries, k);
        }
        let dim = gallery.dim();
        assert!(
            queries.iter().all(|query| query.embedding.len() == dim),
            "query of another dimension"
        );
        let batches = queries.chunks(MAX_QUERIES);
        let answers = batches.flat_map(|queries| match self.scanned {
            Scanned::Int2 => self.by_int2(gallery, queries, k),
            Scanned::Int8 => self.by_int8(gallery, queries, k),
        });
        answers.collect()
    }

    fn by_int2(self, gallery: &Gallery<'_>, queries: &[Query<'_>], k: usize) -> Vec<Vec<Match>> {
        let codes = gallery
            .int2()
            .expect("the gallery has the codes of this scan");
        let scan = Int2Scan::new(gallery, codes, self.kernel, k);
        let best = self.on_threads(gallery, |rows| scan.scan(queries, rows), Best::merge);
        best.into_iter().map(int2::answer).collect()
    }

    fn by_int8(self, gallery: &Gallery<'_>, queries: &[Query<'_>], k: usize) -> Vec<Vec<Match>> {
        let codes = gallery
            .int8()
            .expect("the gallery has the codes of this scan");
        let scan = Int8Scan::new(gallery, codes, self.kernel, k);
        let scan_rows = |rows| scan.scan(queries, rows);
        let best = self.on_threads(gallery, scan_rows, int8::Candidates::merge);
        let candidates = best.into_iter().map(int8::Candidates::into_rows);
        let scored = queries.iter().zip(candidates);
        scored
            .map(|(query, rows)| self.score(gallery, query, &rows, k))
            .collect()
    }

    /// What several threads find in their parts of the rows, merged, for each query.
    fn on_threads<T: Send>(
        self,
        gallery: &Gallery<'_>,
        scan: impl Fn(Range<usize>) -> Vec<T> + Sync,
        merge: impl Fn(&mut T, T),
    ) -> Vec<T> {
        let n_rows = gallery.n_rows() as usize;
        let n_parts = n_rows.div_ceil(PART_ROWS);
        let n_threads = self.n_threads.clamp(1, n_parts);
        let start = |thread: usize| n_rows.min(thread * n_parts / n_threads * PART_ROWS);
        let scan = |thread| scan(start(thread)..start(thread + 1));
        let scan = &scan;
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..n_threads)
                .map(|thread| scope.spawn(move || scan(thread)))
                .collect();
            let mut found = scan(0);
            for other in others {
                let part = other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                found
                    .iter_mut()
                    .zip(part)
                    .for_each(|(found, part)| merge(found, part));
            }
            found
        })
    }

    /// The `k` best of some rows, by their stored components.
    fn score(self, gallery: &Gallery<'_>, query: &Query<'_>, rows: &[u32], k: usize) -> Vec<Match> {
        let mut best = Best::new(k, |found: &Match| found.score, best_first);
        let mut values = vec![0.0; gallery.dim()];
        for soon in rows.iter().take(PREFETCH_ROWS) {
            prefetch_stored(gallery, *soon);
        }
        for (i, row) in rows.iter().copied().enumerate() {
            if let Some(soon) = rows.get(i + PREFETCH_ROWS) {
                prefetch_stored(gallery, *soon);
            }
            let score = stored_score(gallery, self.kernel, query, row, &mut values);
            if score >= best.threshold() {
                let id = gallery.id(row);
                best.offer(Match { row, id, score });
            }
        }
        best.finish()
    }
}

/// Adds every item to the one list or to the other. Each is written to both, where the next one
/// overwrites it if it does not belong there: a CPU guesses wrong as often as right where one
/// goes, and each wrong guess is as dear as some ten items.
fn deal<T: Copy + Default>(
    items: impl ExactSizeIterator<Item = (T, bool)>,
    to_one: &mut Vec<T>,
    to_other: &mut Vec<T>,
) {
    let (mut n_one, mut n_other) = (to_one.len(), to_other.len());
    to_one.resize(n_one + items.len() + 1, T::default());
    to_other.resize(n_other + items.len() + 1, T::default());
    for (item, is_for_one) in items {
        to_one[n_one] = item;
        to_other[n_other] = item;
        n_one += usize::from(is_for_one);
        n_other += usize::from(!is_for_one);
    }
    to_one.truncate(n_one);
    to_other.truncate(n_other);
}

/// Keeps some of a list, in order; as [`deal`], without the other list.
fn keep<T: Copy>(list: &mut Vec<T>, is_kept: impl Fn(&T) -> bool) {
    let mut n_kept = 0;
    for i in 0..list.len() {
        let item = list[i];
        list[n_kept] = item;
        n_kept += usize::from(is_kept(&item));
    }
    list.truncate(n_kept);
}

/// Asks the memory for a row that is scored soon.
fn prefetch_stored(gallery: &Gallery<'_>, row: u32) {
    if let Some(stored) = gallery.f16_row(row) {
        prefetch(stored.as_flattened());
    }
}

/// The score of a row by its stored components; `values` has room for them.
fn stored_score(
    gallery: &Gallery<'_>,
    kernel: Kernel,
    query: &Query<'_>,
    row: u32,
    values: &mut [f32],
) -> Score {
    match gallery.f16_row(row) {
        Some(stored) => kernel.dot_f16(query.embedding, stored),
        None => {
            gallery.row_into(row, values);
            dot(query.embedding, values)
        }
    }
}

#[cfg(test)]
mod tests;
