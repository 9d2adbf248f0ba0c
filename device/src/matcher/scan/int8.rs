//! The scan of int8 codes: each estimate is off by the rounding of a query and of a row, so
//! that the best are among few rows of the highest estimates.
//!
//! High halves of codes give bounds that an estimate is hardly ever above, so low halves are
//! read of those rows only whose bound reaches the best so far. What is ranked is the lower of
//! bound and estimate, so that what is found does not depend on the order of looks.

use std::ops::Range;

use eyas_shared::gallery::codes::INT8_BLOCK;
use eyas_shared::gallery::{Gallery, Int8Codes};

pub(super) use super::candidates::Candidates;
use super::{Kernel, PREFETCH_ROWS, Query};
use crate::matcher::kernel::{Int8Query, Int8Tile, prefetch};

/// Rows whose high halves are looked at before any low ones: 8 KiB of products for each query.
const TILE_ROWS: usize = 2048;

/// Rows of the first tile. The next ones double, because the threshold rises with the rows
/// that were seen.
const FIRST_TILE_ROWS: usize = 256;

/// When more rows than this wait, all are looked at.
const MAX_WAITING: usize = 65_536;

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
}

/// A query with what was found for it.
struct Search<'q> {
    query: &'q Query<'q>,
    best: Candidates,
    /// Rows of the last tile that will probably raise the threshold: their low halves were
    /// asked of the memory.
    next: Vec<Seen>,
    /// Other rows that the high halves left, to be looked at when the threshold is higher.
    waiting: Vec<Seen>,
}

/// What the high halves say of a row.
#[derive(Clone, Copy)]
struct Seen {
    row: u32,
    product: i32,
    /// What turns products into scores.
    factor: f32,
    /// What its estimate is hardly above.
    bound: f32,
}

impl Seen {
    /// Its score if low halves were in the middle of what they can be.
    fn guess(self) -> f32 {
        self.product as f32 * self.factor
    }
}

/// Memory that tiles share.
#[derive(Default)]
struct Looks {
    /// What a file does not hold as it is read here.
    high: Vec<u8>,
    low_row: Vec<u8>,
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
        }
    }

    /// The rows of the highest estimates among some, for each query. The range begins with a
    /// block and ends with one or with the gallery.
    pub(super) fn scan(&self, queries: &[Query<'_>], rows: Range<usize>) -> Vec<Candidates> {
        let quantized: Vec<Int8Query> = queries
            .iter()
            .map(|query| Int8Query::new(query.embedding))
            .collect();
        let search = |query| Search {
            query,
            best: Candidates::new(self.n_candidates),
            next: Vec::new(),
            waiting: Vec::new(),
        };
        let mut searches: Vec<Search<'_>> = queries.iter().map(search).collect();
        let mut tiles: Vec<Int8Tile> = queries.iter().map(|_| Int8Tile::new()).collect();
        let mut looks = Looks::default();
        let mut rows = rows;
        let mut n_rows = FIRST_TILE_ROWS;
        while !rows.is_empty() {
            let tile_rows = rows.start..rows.end.min(rows.start + n_rows);
            rows.start = tile_rows.end;
            n_rows = TILE_ROWS.min(2 * n_rows);
            self.look_at_high(tile_rows.clone(), &quantized, &mut tiles, &mut looks);
            for ((search, quantized), tile) in searches.iter_mut().zip(&quantized).zip(&mut tiles) {
                self.look_at_next(quantized, search, &mut looks.low_row);
                self.sort_hits(tile_rows.clone(), quantized, tile, search);
                if search.waiting.len() > MAX_WAITING {
                    self.look_at_waiting(quantized, search, &mut looks.low_row);
                }
                tile.threshold = search.best.threshold();
            }
        }
        for (search, quantized) in searches.iter_mut().zip(&quantized) {
            self.look_at_next(quantized, search, &mut looks.low_row);
            self.look_at_waiting(quantized, search, &mut looks.low_row);
        }
        searches.into_iter().map(|search| search.best).collect()
    }

    fn look_at_high(
        &self,
        rows: Range<usize>,
        queries: &[Int8Query],
        tiles: &mut [Int8Tile],
        looks: &mut Looks,
    ) {
        let padded = rows.start..rows.end.next_multiple_of(INT8_BLOCK);
        let high = self.codes.high(padded.clone(), &mut looks.high);
        let scales = &self.codes.scales[padded];
        self.kernel.int8_high(high, scales, queries, tiles);
    }

    /// Puts hits that will probably raise the threshold into `search.next`; the others wait.
    fn sort_hits(
        &self,
        rows: Range<usize>,
        query: &Int8Query,
        tile: &Int8Tile,
        search: &mut Search<'_>,
    ) {
        tile.for_hits(|in_tile, product| {
            let row = rows.start + in_tile;
            // What fills the last block is no row.
            if row >= rows.end {
                return;
            }
            let factor = query.factor(self.codes.scales[row]);
            let seen = Seen {
                row: row as u32,
                product,
                factor,
                bound: query.bound(product, factor),
            };
            if seen.guess() >= tile.threshold {
                search.next.push(seen);
            } else {
                search.waiting.push(seen);
            }
        });
        let n_others = search.next.len().saturating_sub(self.n_candidates);
        if n_others > 0 {
            let ascending = |a: &Seen, b: &Seen| a.guess().total_cmp(&b.guess());
            search.next.select_nth_unstable_by(n_others, ascending);
            search.waiting.extend(search.next.drain(..n_others));
        }
        for seen in &search.next {
            self.prefetch_low(seen.row);
        }
    }

    fn prefetch_low(&self, row: u32) {
        if let Some(low) = self.codes.stored_low_row(row) {
            prefetch(low);
        }
    }

    /// Looks at the rows that were asked of the memory.
    fn look_at_next(&self, query: &Int8Query, search: &mut Search<'_>, room: &mut Vec<u8>) {
        if search.next.is_empty() {
            return;
        }
        let seen = std::mem::take(&mut search.next);
        for seen in &seen {
            self.look_at_low(*seen, query, search, room);
        }
        search.best.tighten();
        search.next = seen;
        search.next.clear();
    }

    /// Looks at the rows that wait, as far as they can still be among the best.
    fn look_at_waiting(&self, query: &Int8Query, search: &mut Search<'_>, room: &mut Vec<u8>) {
        search.best.tighten();
        let threshold = search.best.threshold();
        let mut seen = std::mem::take(&mut search.waiting);
        seen.retain(|seen| seen.bound >= threshold);
        for soon in seen.iter().take(PREFETCH_ROWS) {
            self.prefetch_low(soon.row);
        }
        for (i, one) in seen.iter().enumerate() {
            if let Some(soon) = seen.get(i + PREFETCH_ROWS) {
                self.prefetch_low(soon.row);
            }
            self.look_at_low(*one, query, search, room);
        }
    }

    /// The estimate of a row, if it can still be among the best.
    fn look_at_low(
        &self,
        seen: Seen,
        query: &Int8Query,
        search: &mut Search<'_>,
        room: &mut Vec<u8>,
    ) {
        if seen.bound < search.best.threshold() {
            return;
        }
        let low = self.codes.low_row(seen.row, room);
        let low = self.kernel.int8_low(low, query);
        let estimate = query.estimate(seen.product, low, seen.factor);
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
