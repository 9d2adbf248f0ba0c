//! The scan of 2-bit codes by table look-ups: a nibble of codes stands for 4 components of
//! one plane, and what they add to the sum was computed beforehand for the query.
//!
//! Each look costs more than the one before and is spent on fewer rows: at the plane of high
//! bits, at that of low bits where a block of rows is promising, at the stored row. The first
//! two give bounds that a score is hardly ever above; a row whose bound is below the `k` best
//! so far is looked at no further.
//!
//! What is ranked is the least of both bounds and the score. So a row that was left early
//! could not have been among the best, and what is found does not depend on the order of
//! looks.

use std::ops::Range;

use eyas_shared::embedding::{Score, by_rank};
use eyas_shared::gallery::codes::INT2_BLOCK;
use eyas_shared::gallery::{Gallery, Int2Codes, rotation};

use super::{Kernel, Match, PREFETCH_ROWS, Query};
use crate::matcher::best::Best;
use crate::matcher::kernel::{Int2Query, Promising, Tile};

/// Rows of the first tile. The next ones double, because the threshold rises with the rows
/// that were seen.
const FIRST_TILE_ROWS: usize = 1024;

/// Rows of the largest tile: the plane of high bits of 128 components is 128 KiB of it, sums
/// are 32 KiB.
const MAX_TILE_ROWS: usize = 8192;

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
}

/// Memory that tiles share.
struct Looks {
    promising: Promising,
    tile: Tile,
    /// Rows whose bounds reach the threshold, with the bound.
    rows: Vec<(u32, f32)>,
    /// A stored row, widened.
    values: Vec<f32>,
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
        let search = |query| Search {
            query,
            tables: self.tables(query),
            best: Best::new(self.k, |bounded| bounded.bound, best_first),
        };
        let mut searches: Vec<Search<'_>> = queries.iter().map(search).collect();
        let mut looks = Looks {
            promising: Promising::new(),
            tile: Tile::new(),
            rows: Vec::new(),
            values: vec![0.0; self.gallery.dim()],
        };
        let mut n_rows = FIRST_TILE_ROWS;
        while !rows.is_empty() {
            let end = rows.end.min(rows.start + n_rows);
            for search in &mut searches {
                self.look(rows.start..end, search, &mut looks);
            }
            rows.start = end;
            n_rows = MAX_TILE_ROWS.min(2 * n_rows);
        }
        searches.into_iter().map(|search| search.best).collect()
    }

    fn tables(&self, query: &Query<'_>) -> Int2Query {
        let mut rotated = query.embedding.to_vec();
        rotated.resize(8 * self.codes.columns, 0.0);
        rotation::rotate(&mut rotated);
        Int2Query::new(&rotated)
    }

    /// All looks at the rows of a tile.
    fn look(&self, rows: Range<usize>, search: &mut Search<'_>, looks: &mut Looks) {
        let padded = rows.start..rows.end.next_multiple_of(INT2_BLOCK);
        let row_bytes = self.codes.columns;
        let [high, low] = { self.codes.planes }
            .map(|plane| &plane[padded.start * row_bytes..padded.end * row_bytes]);
        let factors = self.codes.factors.map(|factors| &factors[padded.clone()]);
        let Looks {
            promising, tile, ..
        } = looks;
        promising.threshold = search.best.threshold();
        self.kernel
            .int2_high(high, factors[0], &search.tables, promising);
        self.kernel
            .int2_both(low, factors, &search.tables, promising, tile);
        looks.rows.clear();
        tile.for_hits(|row, bound| {
            let row = rows.start + promising.row(row);
            // What fills the last block is no row.
            if row < rows.end && search.query.accepts(self.gallery, row as u32) {
                looks.rows.push((row as u32, bound));
            }
        });
        // Where the threshold is still low, those that promise most raise it.
        let n_first = 2 * self.k;
        if looks.rows.len() > 2 * n_first {
            looks
                .rows
                .select_nth_unstable_by(n_first, |a, b| b.1.total_cmp(&a.1));
            self.score(&looks.rows[..n_first], search, &mut looks.values);
            let threshold = search.best.threshold();
            let mut place = 0;
            looks.rows.retain(|(_, bound)| {
                place += 1;
                place > n_first && *bound >= threshold
            });
        }
        self.score(&looks.rows, search, &mut looks.values);
    }

    /// Scores some rows by their stored components.
    fn score(&self, rows: &[(u32, f32)], search: &mut Search<'_>, values: &mut [f32]) {
        for (row, _) in &rows[..rows.len().min(PREFETCH_ROWS)] {
            super::prefetch_stored(self.gallery, *row);
        }
        for (i, (row, bound)) in rows.iter().copied().enumerate() {
            if let Some((soon, _)) = rows.get(i + PREFETCH_ROWS) {
                super::prefetch_stored(self.gallery, *soon);
            }
            if bound < search.best.threshold() {
                continue;
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
