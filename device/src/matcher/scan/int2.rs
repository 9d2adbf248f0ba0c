//! The scan of 2-bit codes by table look-ups: what some bits of one plane add to the product
//! with the query was computed beforehand.
//!
//! Each look costs more than the one before and is spent on fewer rows: at the high bits, at
//! the low bits, at the stored row. The first two give bounds that a score is hardly ever
//! above; a row whose bound is below the `k` best so far is looked at no further.
//!
//! What is ranked is the least of both bounds and the score. So a row that was left early
//! could not have been among the best, and what is found does not depend on the order of
//! looks.

use std::cell::RefCell;
use std::ops::Range;

use eyas_shared::embedding::{Score, by_rank};
use eyas_shared::gallery::codes::INT2_BLOCK;
use eyas_shared::gallery::{Gallery, Int2Codes, rotation};

use super::{Kernel, Match, PREFETCH_ROWS, Query, keep};
use crate::matcher::best::Best;
use crate::matcher::kernel::{Hits, Int2Query, Seen};

/// Rows of the first tile. The next ones double, because the threshold rises with the rows
/// that were seen.
const FIRST_TILE_ROWS: usize = 1024;

/// Rows of the largest tile: the high bits of 128 components are 128 KiB of it, what they say
/// is 64 KiB.
const MAX_TILE_ROWS: usize = 8192;

/// Rows of a tile that are looked at further at once, at most, for an answer of `k`.
fn n_at_once(k: usize) -> usize {
    k.saturating_add(6)
}

/// When there are more hits than this, all that wait are looked at.
const MAX_WAITING: usize = 65_536;

/// A row with what it is ranked by.
pub(super) struct Bounded {
    /// The least of the score and its bounds.
    bound: Score,
    found: Match,
}

/// Best first, ties as rankings break them.
fn best_first(a: &Bounded, b: &Bounded) -> std::cmp::Ordering {
    let rank = |x: &Bounded| (x.bound, x.found.id, x.found.row);
    by_rank(rank(a), rank(b))
}

pub(super) type BestBounded = Best<Bounded, fn(&Bounded, &Bounded) -> std::cmp::Ordering>;

/// What was found, best first by score.
pub(super) fn answer(best: BestBounded) -> Vec<Match> {
    let mut found: Vec<Match> = { best.finish().into_iter() }
        .map(|bounded| bounded.found)
        .collect();
    found.sort_unstable_by(super::best_first);
    found
}

/// Looks through a gallery for some queries.
pub(super) struct Int2Scan<'a> {
    gallery: &'a Gallery<'a>,
    codes: Int2Codes<'a>,
    kernel: Kernel,
    k: usize,
}

/// A query with what was found for it.
struct Search<'q> {
    query: &'q Query<'q>,
    tables: Int2Query,
    best: BestBounded,
    /// Rows that the high bits left, to be looked at when the threshold is higher.
    hits: Hits,
}

/// Memory that tiles share, and searches one after the other.
#[derive(Default)]
struct Looks {
    /// Hits of a tile that come first, by number, with their bounds.
    urgent: Vec<(usize, f32)>,
    /// Rows that are looked at further, and their numbers.
    seen: Vec<Seen>,
    rows: Vec<u32>,
    /// Low bits of these rows, where a file does not hold them row by row.
    low_rows: Vec<u8>,
    /// Bounds of these rows by both planes.
    bounds: Vec<f32>,
    /// Those that the low bits leave as well, with their bounds, the highest first.
    bounded: Vec<(u32, f32)>,
    /// A stored row, widened.
    values: Vec<f32>,
    /// What earlier searches had their hits in.
    spare: Vec<Hits>,
}

thread_local! {
    /// Of the last search on this thread. To ask the system for some hundred kilobytes anew
    /// took a batch of eight a third as long again at 100,000 rows, and single queries a
    /// twentieth.
    static LOOKS: RefCell<Looks> = RefCell::default();
}

impl<'a> Int2Scan<'a> {
    pub(super) fn new(
        gallery: &'a Gallery<'a>,
        codes: Int2Codes<'a>,
        kernel: Kernel,
        k: usize,
    ) -> Self {
        Self {
            gallery,
            codes,
            kernel,
            k,
        }
    }

    /// The best of some rows, for each query. The range begins with a block and ends with one
    /// or with the gallery.
    pub(super) fn scan(&self, queries: &[Query<'_>], mut rows: Range<usize>) -> Vec<BestBounded> {
        let mut looks = LOOKS.take();
        looks.values.resize(self.gallery.dim(), 0.0);
        let search = |query| Search {
            query,
            tables: self.tables(query),
            best: Best::new(self.k, |bounded| bounded.bound, best_first),
            hits: looks.spare.pop().unwrap_or_default(),
        };
        let mut searches: Vec<Search<'_>> = queries.iter().map(search).collect();
        let mut n_rows = FIRST_TILE_ROWS;
        while !rows.is_empty() {
            let end = rows.end.min(rows.start + n_rows);
            for search in &mut searches {
                self.look(rows.start..end, search, &mut looks);
            }
            rows.start = end;
            n_rows = MAX_TILE_ROWS.min(2 * n_rows);
        }
        for search in &mut searches {
            self.look_at_waiting(search, &mut looks);
        }
        let found = searches.into_iter().map(|search| {
            // They were looked at.
            looks.spare.push(search.hits);
            search.best
        });
        let found = found.collect();
        LOOKS.set(looks);
        found
    }

    fn tables(&self, query: &Query<'_>) -> Int2Query {
        let mut rotated = query.embedding.to_vec();
        rotated.resize(8 * self.codes.columns, 0.0);
        rotation::rotate(&mut rotated);
        Int2Query::new(&rotated)
    }

    /// The first look at the rows of a tile, and all looks at those that will probably raise
    /// the threshold. The others wait: when it is higher, most need no further look.
    fn look(&self, rows: Range<usize>, search: &mut Search<'_>, looks: &mut Looks) {
        let padded = rows.start..rows.end.next_multiple_of(INT2_BLOCK);
        let row_bytes = self.codes.columns;
        let high_bits = &self.codes.high[padded.start * row_bytes..padded.end * row_bytes];
        let hits = &mut search.hits;
        let n_before = hits.len();
        hits.threshold = search.best.threshold();
        hits.first_place = rows.start as u32;
        self.kernel
            .int2_high(high_bits, &self.codes.factors[padded], &search.tables, hits);
        hits.cut(rows.end);
        self.take_urgent(n_before, hits, looks);
        self.look_further(search, looks);
        if search.hits.len() > MAX_WAITING {
            self.look_at_waiting(search, looks);
        }
    }

    /// Takes those of the hits after the first few into `looks.seen` that will probably raise
    /// the threshold, or the best of them.
    fn take_urgent(&self, n_before: usize, hits: &mut Hits, looks: &mut Looks) {
        let urgent = hits.threshold + self.most_of_margin();
        let new = hits.bounds().iter().copied().enumerate().skip(n_before);
        looks.urgent.clear();
        looks
            .urgent
            .extend(new.filter(|(_, bound)| *bound >= urgent));
        let n_at_once = n_at_once(self.k);
        if looks.urgent.len() > n_at_once {
            let highest_first = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1);
            { &mut looks.urgent }.select_nth_unstable_by(n_at_once, highest_first);
            looks.urgent.truncate(n_at_once);
        }
        let taken = looks.urgent.iter().map(|(i, _)| hits.take(*i));
        looks.seen.clear();
        looks.seen.extend(taken);
    }

    /// About three quarters of what lies between a bound by the high bits and its estimate: a
    /// margin is 1.65 factors, each about `1 / (0.8 sqrt(d))`.
    fn most_of_margin(&self) -> f32 {
        1.5 / (8.0 * self.codes.columns as f32).sqrt()
    }

    /// All looks at the rows that wait, as far as they can still be among the best.
    fn look_at_waiting(&self, search: &mut Search<'_>, looks: &mut Looks) {
        let threshold = search.best.threshold();
        looks.seen.clear();
        looks.seen.extend(search.hits.iter());
        search.hits.clear();
        keep(&mut looks.seen, |seen| seen.bound >= threshold);
        self.look_further(search, looks);
    }

    /// The looks at the low bits of `looks.seen`, and at the stored rows of those that are
    /// left.
    fn look_further(&self, search: &mut Search<'_>, looks: &mut Looks) {
        looks.rows.clear();
        looks.rows.extend(looks.seen.iter().map(|seen| seen.place));
        let stored = self.codes.low_rows();
        if stored.is_none() {
            looks.low_rows.clear();
            for (place, seen) in looks.seen.iter_mut().enumerate() {
                self.codes.push_low_row(seen.place, &mut looks.low_rows);
                seen.place = place as u32;
            }
        }
        let low_rows = stored.unwrap_or(&looks.low_rows);
        self.kernel
            .int2_low(low_rows, &looks.seen, &search.tables, &mut looks.bounds);
        let threshold = search.best.threshold();
        looks.bounded.clear();
        for (row, bound) in looks.rows.iter().zip(&looks.bounds) {
            if *bound >= threshold && search.query.accepts(self.gallery, *row) {
                looks.bounded.push((*row, *bound));
            }
        }
        looks.bounded.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
        self.score(&looks.bounded, search, &mut looks.values);
    }

    /// Scores rows by their stored components, those of the highest bounds first.
    fn score(&self, rows: &[(u32, f32)], search: &mut Search<'_>, values: &mut [f32]) {
        for (row, _) in &rows[..rows.len().min(PREFETCH_ROWS)] {
            super::prefetch_stored(self.gallery, *row);
        }
        for (i, (row, bound)) in rows.iter().copied().enumerate() {
            if let Some((soon, _)) = rows.get(i + PREFETCH_ROWS) {
                super::prefetch_stored(self.gallery, *soon);
            }
            if bound < search.best.threshold() {
                break;
            }
            let score = super::stored_score(self.gallery, self.kernel, search.query, row, values);
            let bound = if score < bound { score } else { bound };
            if bound >= search.best.threshold() {
                let id = self.gallery.id(row);
                let found = Match { row, id, score };
                search.best.offer(Bounded { bound, found });
            }
        }
        search.best.tighten();
    }
}
