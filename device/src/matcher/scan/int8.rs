//! The scan of int8 codes: each estimate is off by the rounding of a query and of a row, so
//! that the best are among few rows of the highest estimates.
//!
//! High halves of codes give bounds that an estimate is hardly ever above, so low halves are
//! read of those rows only whose bound reaches the best so far. What is ranked is the lower of
//! bound and estimate, so that what is found does not depend on the order of looks.

use std::cell::RefCell;
use std::ops::Range;

use eyas_shared::gallery::codes::INT8_BLOCK;
use eyas_shared::gallery::{Gallery, Int8Codes};

pub(super) use super::candidates::Candidates;
use super::{Kernel, PREFETCH_ROWS, Query, deal, keep};
use crate::matcher::kernel::{Hits, Int8Query, prefetch};

/// Rows whose high halves are looked at before any low ones, at first.
const FIRST_TILE_ROWS: usize = 256;

/// Tiles double up to this, and those of a file that does not hold high halves as they are read
/// here are no larger: they are laid out in memory first.
const DOUBLED_TILE_ROWS: usize = 2048;

/// Each tile interrupts the reading, so none is longer than it has to be.
const MAX_TILE_ROWS: usize = 16_384;

/// Rows of the tile after one of `n_rows`: twice as many at first, later an eighth of the
/// `n_seen` before, because the threshold rises with them.
fn next_tile(n_rows: usize, n_seen: usize) -> usize {
    let eighth = n_seen / 8 / INT8_BLOCK * INT8_BLOCK;
    (2 * n_rows).min(DOUBLED_TILE_ROWS).max(eighth)
}

/// When more rows than this wait, all are looked at.
const MAX_WAITING: usize = 65_536;

/// Room for so many waiting rows is kept for the next search.
const MAX_KEPT: usize = 16_384;

/// Rows that are scored for an answer of `k`: measured so that about one in a thousand of the
/// ten best is missed (`models/results/search.md`).
pub(super) fn n_candidates(k: usize) -> usize {
    k.saturating_mul(2).saturating_add(12)
}

/// Estimates scores from int8 codes.
pub(super) struct Int8Scan<'a> {
    gallery: &'a Gallery<'a>,
    codes: Int8Codes<'a>,
    kernel: Kernel,
    n_candidates: usize,
    max_tile_rows: usize,
}

/// A query with what was found for it.
struct Search<'q, 'a> {
    query: &'q Query<'q>,
    best: Candidates<'a>,
    lists: Lists,
}

/// Rows that high halves left.
#[derive(Default)]
struct Lists {
    /// Those of the last tile that will probably raise the threshold: their low halves were
    /// asked of the memory.
    next: Vec<SeenRow>,
    /// Others, to be looked at when the threshold is higher.
    waiting: Vec<SeenRow>,
    /// Of those that come next.
    guesses: Vec<f32>,
}

/// What the high halves say of a row.
#[derive(Clone, Copy, Default)]
struct SeenRow {
    row: u32,
    sum: i32,
    scale: f32,
    /// What its estimate is hardly above.
    bound: f32,
}

/// Memory that searches share.
#[derive(Default)]
struct Looks {
    /// What a file does not hold as it is read here.
    high: Vec<u8>,
    low_row: Vec<u8>,
    /// Of each query.
    hits: Vec<Hits>,
    lists: Vec<Lists>,
}

thread_local! {
    /// Of the last search on this thread, so that the next one does not ask the system for it
    /// anew: that took a batch of eight a fifth longer at 100,000 rows.
    static LOOKS: RefCell<Looks> = RefCell::default();
}

impl<'a> Int8Scan<'a> {
    pub(super) fn new(
        gallery: &'a Gallery<'a>,
        codes: Int8Codes<'a>,
        kernel: Kernel,
        k: usize,
    ) -> Self {
        Self {
            gallery,
            codes,
            kernel,
            n_candidates: n_candidates(k),
            max_tile_rows: match codes.stored_low_row(0) {
                Some(_) => MAX_TILE_ROWS,
                None => DOUBLED_TILE_ROWS,
            },
        }
    }

    /// The rows of the highest estimates among some, for each query. The range begins with a
    /// block and ends with one or with the gallery.
    pub(super) fn scan(&self, queries: &[Query<'_>], rows: Range<usize>) -> Vec<Candidates<'a>> {
        LOOKS.with_borrow_mut(|looks| self.scan_with(queries, rows, looks))
    }

    fn scan_with(
        &self,
        queries: &[Query<'_>],
        mut rows: Range<usize>,
        looks: &mut Looks,
    ) -> Vec<Candidates<'a>> {
        let quantized: Vec<Int8Query> = queries
            .iter()
            .map(|query| Int8Query::new(query.embedding))
            .collect();
        let mut searches: Vec<Search<'_, '_>> = { queries.iter() }
            .map(|query| Search {
                query,
                best: Candidates::new(self.gallery, self.n_candidates),
                lists: looks.lists.pop().unwrap_or_default(),
            })
            .collect();
        let mut hits = std::mem::take(&mut looks.hits);
        hits.resize_with(hits.len().max(queries.len()), Hits::default);
        hits.iter_mut()
            .for_each(|hits| hits.threshold = f32::NEG_INFINITY);
        let first_row = rows.start;
        let mut n_rows = FIRST_TILE_ROWS;
        while !rows.is_empty() {
            let tile_rows = rows.start..rows.end.min(rows.start + n_rows);
            rows.start = tile_rows.end;
            n_rows = next_tile(n_rows, rows.start - first_row).min(self.max_tile_rows);
            let of_queries = &mut hits[..queries.len()];
            self.look_at_high(tile_rows.clone(), &quantized, of_queries, looks);
            for ((search, quantized), hits) in searches.iter_mut().zip(&quantized).zip(of_queries) {
                self.look_at_next(quantized, search, &mut looks.low_row);
                self.sort_hits(tile_rows.clone(), quantized, hits, search);
                if search.lists.waiting.len() > MAX_WAITING {
                    self.look_at_waiting(quantized, search, &mut looks.low_row);
                }
                hits.threshold = search.best.threshold();
            }
        }
        looks.hits = hits;
        let ended = searches.into_iter().zip(&quantized);
        ended
            .map(|(mut search, quantized)| {
                self.look_at_next(quantized, &mut search, &mut looks.low_row);
                self.look_at_waiting(quantized, &mut search, &mut looks.low_row);
                search.lists.waiting.shrink_to(MAX_KEPT);
                looks.lists.push(search.lists);
                search.best
            })
            .collect()
    }

    fn look_at_high(
        &self,
        rows: Range<usize>,
        queries: &[Int8Query],
        hits: &mut [Hits],
        looks: &mut Looks,
    ) {
        let padded = rows.start..rows.end.next_multiple_of(INT8_BLOCK);
        let high = self.codes.high(padded.clone(), &mut looks.high);
        let scales = &self.codes.scales[padded];
        hits.iter_mut().for_each(Hits::clear);
        self.kernel.int8_high(high, scales, queries, hits);
        hits.iter_mut().for_each(|hits| hits.cut(rows.len()));
    }

    /// Puts hits that will probably raise the threshold into `search.next`; the others wait.
    fn sort_hits(
        &self,
        rows: Range<usize>,
        query: &Int8Query,
        hits: &Hits,
        search: &mut Search<'_, '_>,
    ) {
        let Lists {
            next,
            waiting,
            guesses,
        } = &mut search.lists;
        let scales = &self.codes.scales[rows.start..rows.end];
        let sorted = hits.iter().map(|hit| {
            let scale = f32::from_le_bytes(scales[hit.place as usize]);
            let seen = SeenRow {
                row: rows.start as u32 + hit.place,
                sum: hit.sum,
                scale,
                bound: hit.bound,
            };
            (seen, query.guess(hit.sum, scale) >= hits.threshold)
        });
        deal(sorted, next, waiting);
        let n_others = next.len().saturating_sub(self.n_candidates);
        if n_others > 0 {
            let guess = |seen: &SeenRow| query.guess(seen.sum, seen.scale);
            guesses.clear();
            guesses.extend(next.iter().map(guess));
            let (_, lowest, _) = guesses.select_nth_unstable_by(n_others, f32::total_cmp);
            let lowest = *lowest;
            next.retain(|seen| {
                let is_next = guess(seen) >= lowest;
                if !is_next {
                    waiting.push(*seen);
                }
                is_next
            });
        }
        for seen in next {
            self.prefetch_low(seen.row);
        }
    }

    fn prefetch_low(&self, row: u32) {
        if let Some(low) = self.codes.stored_low_row(row) {
            prefetch(low);
        }
    }

    /// Looks at the rows that were asked of the memory.
    fn look_at_next(&self, query: &Int8Query, search: &mut Search<'_, '_>, room: &mut Vec<u8>) {
        if search.lists.next.is_empty() {
            return;
        }
        let mut seen = std::mem::take(&mut search.lists.next);
        for seen in seen.drain(..) {
            self.look_at_low(seen, query, search, room);
        }
        search.best.tighten();
        search.lists.next = seen;
    }

    /// Looks at the rows that wait, as far as they can still be among the best.
    fn look_at_waiting(&self, query: &Int8Query, search: &mut Search<'_, '_>, room: &mut Vec<u8>) {
        search.best.tighten();
        let threshold = search.best.threshold();
        let mut seen = std::mem::take(&mut search.lists.waiting);
        keep(&mut seen, |seen| seen.bound >= threshold);
        for soon in seen.iter().take(PREFETCH_ROWS) {
            self.prefetch_low(soon.row);
        }
        for (i, one) in seen.iter().enumerate() {
            if let Some(soon) = seen.get(i + PREFETCH_ROWS) {
                self.prefetch_low(soon.row);
            }
            self.look_at_low(*one, query, search, room);
        }
        seen.clear();
        search.lists.waiting = seen;
    }

    /// The estimate of a row, if it can still be among the best.
    fn look_at_low(
        &self,
        seen: SeenRow,
        query: &Int8Query,
        search: &mut Search<'_, '_>,
        room: &mut Vec<u8>,
    ) {
        if seen.bound < search.best.threshold() {
            return;
        }
        let low = self.codes.low_row(seen.row, room);
        let low = self.kernel.int8_low(low, query);
        let estimate = query.estimate(seen.sum, low, seen.scale);
        let rank = if estimate < seen.bound {
            estimate
        } else {
            seen.bound
        };
        if rank >= search.best.threshold() && search.query.accepts(self.gallery, seen.row) {
            search.best.offer(seen.row, rank);
        }
    }
}
