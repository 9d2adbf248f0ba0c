//! Exact ranks of chosen gallery rows, without a sorted gallery.
//!
//! The chosen rows are scored first; then the gallery is read once for a block of queries
//! and every row that outranks a chosen one is counted. Memory holds the chosen rows of a
//! block and a few matches, whatever the size of the gallery. Scores are those of the
//! device's matcher, to the last bit, and so is the order of equals.

use std::cmp::Ordering;

use eyas_device::matcher::{Kernel, Match};
use eyas_shared::embedding::{Score, by_rank, dot};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Gallery;

/// f32 values of the rows that are read together: 16 KiB, half of a small first-level cache.
const BLOCK_VALUES: usize = 4096;

/// One query and the rows whose ranks are wanted.
#[derive(Clone, Debug)]
pub struct Asked<'q> {
    /// Unit embedding, as long as the gallery's rows.
    pub embedding: &'q [f32],
    /// Rows of this image are in no ranking.
    pub exclude: Option<ImageId>,
    /// Rows of the gallery, none of the excluded image, each once.
    pub rows: Vec<u32>,
}

/// What one query's scan gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Ranks of the wanted rows from 0, in the order of [`Asked::rows`].
    pub ranks: Vec<usize>,
    /// The best rows, best first.
    pub best: Vec<Match>,
}

/// Ranks of the wanted rows and the `n_best` best rows of each query.
///
/// # Panics
/// If a query is not as long as the gallery's rows, or a wanted row is not there.
#[must_use]
pub fn ranks(gallery: &Gallery<'_>, asked: &[Asked<'_>], n_best: usize) -> Vec<Found> {
    let dim = gallery.dim();
    let mut scans: Vec<Scan> = asked
        .iter()
        .map(|asked| Scan::new(gallery, asked, n_best))
        .collect();
    let block_rows = (BLOCK_VALUES / dim).max(1);
    let mut block = vec![0.0; block_rows * dim];
    let mut scores = vec![0.0; block_rows];
    let kernel = Kernel::best();
    let mut first_row = 0;
    while first_row < gallery.n_rows() {
        let n_rows = block_rows.min((gallery.n_rows() - first_row) as usize);
        let block = &mut block[..n_rows * dim];
        gallery.rows_into(first_row, block);
        for (asked, scan) in asked.iter().zip(&mut scans) {
            let scores = &mut scores[..n_rows];
            kernel.dots(asked.embedding, block, scores);
            for (row, score) in (first_row..).zip(scores) {
                if *score < scan.threshold() || gallery.is_removed(row) {
                    continue;
                }
                let id = gallery.id(row);
                if asked.exclude != Some(id) {
                    let score = *score;
                    scan.count(Match { row, id, score });
                }
            }
        }
        first_row += n_rows as u32;
    }
    scans.into_iter().map(Scan::finish).collect()
}

/// The state of one query.
struct Scan {
    /// Wanted rows, best first, with their place in [`Asked::rows`].
    wanted: Vec<(Match, usize)>,
    /// Their scores: nearly every row of the gallery is looked for among them.
    wanted_scores: Vec<Score>,
    /// Rows that come after `wanted[i - 1]` and before `wanted[i]`.
    n_before: Vec<u32>,
    /// At most `n_best`, best first.
    best: Vec<Match>,
    n_best: usize,
    /// Rows that score less outrank no wanted row.
    lowest_wanted: Score,
    /// Rows that score less are not among the best.
    lowest_best: Score,
}

fn key(found: &Match) -> (Score, ImageId, u32) {
    (found.score, found.id, found.row)
}

fn is_before(other: &Match, found: &Match) -> bool {
    by_rank(key(other), key(found)) == Ordering::Less
}

impl Scan {
    fn new(gallery: &Gallery<'_>, asked: &Asked<'_>, n_best: usize) -> Self {
        let mut values = vec![0.0; gallery.dim()];
        let mut score = |row: u32| {
            gallery.row_into(row, &mut values);
            Match {
                row,
                id: gallery.id(row),
                score: dot(asked.embedding, &values),
            }
        };
        let mut wanted: Vec<(Match, usize)> = { asked.rows.iter().enumerate() }
            .map(|(place, row)| (score(*row), place))
            .collect();
        wanted.sort_unstable_by(|a, b| by_rank(key(&a.0), key(&b.0)));
        let wanted_scores: Vec<Score> = wanted.iter().map(|(found, _)| found.score).collect();
        Self {
            n_before: vec![0; wanted.len()],
            lowest_wanted: wanted_scores.last().copied().unwrap_or(Score::INFINITY),
            wanted_scores,
            wanted,
            best: Vec::with_capacity(n_best + 1),
            n_best,
            lowest_best: match n_best {
                0 => Score::INFINITY,
                _ => Score::NEG_INFINITY,
            },
        }
    }

    /// Rows that score less change nothing. Equal scores may still count, by their ids.
    fn threshold(&self) -> Score {
        self.lowest_wanted.min(self.lowest_best)
    }

    fn count(&mut self, found: Match) {
        if found.score >= self.lowest_wanted
            && let Some(place) = self.place_before_wanted(&found)
        {
            self.n_before[place] += 1;
        }
        if found.score >= self.lowest_best {
            self.keep_if_best(found);
        }
    }

    /// How many wanted rows outrank this one, if it outranks another and is none itself.
    fn place_before_wanted(&self, found: &Match) -> Option<usize> {
        let scores = &self.wanted_scores;
        let place = scores.partition_point(|score| *score > found.score);
        if *scores.get(place)? != found.score {
            return Some(place);
        }
        let n_equal = scores[place..].partition_point(|score| *score == found.score);
        let equals = &self.wanted[place..place + n_equal];
        let place = place + equals.partition_point(|(other, _)| is_before(other, found));
        let (next, _) = self.wanted.get(place)?;
        (next.row != found.row).then_some(place)
    }

    fn keep_if_best(&mut self, found: Match) {
        let place = self.best.partition_point(|other| is_before(other, &found));
        if place == self.n_best {
            return;
        }
        self.best.insert(place, found);
        self.best.truncate(self.n_best);
        if self.best.len() == self.n_best {
            self.lowest_best = self.best[self.n_best - 1].score;
        }
    }

    fn finish(self) -> Found {
        let mut ranks = vec![0; self.wanted.len()];
        let mut n_others = 0;
        for (n_wanted, ((_, place), n_before)) in self.wanted.iter().zip(&self.n_before).enumerate()
        {
            n_others += *n_before as usize;
            ranks[*place] = n_wanted + n_others;
        }
        Found {
            ranks,
            best: self.best,
        }
    }
}

#[cfg(test)]
mod tests {
    use eyas_device::matcher::Matcher;
    use eyas_shared::embedding::Embeddings;
    use eyas_shared::fingerprint::{Fingerprint, SpaceId};
    use eyas_shared::gallery::{self, Codes, Entry, GallerySource};
    use eyas_shared::random::Random;

    use super::*;

    /// Rows of which many are equal, under ids in random order.
    fn gallery_bytes(n_rows: usize, dim: usize, random: &mut Random) -> Vec<u8> {
        let mut rows = Embeddings::new(dim);
        let mut ids: Vec<ImageId> = (0..n_rows).map(|id| ImageId([id as u8; 16])).collect();
        random.shuffle(&mut ids);
        for _ in 0..n_rows {
            let row: Vec<f32> = (0..dim).map(|_| random.below(3) as f32 - 0.9).collect();
            rows.push(&row);
        }
        let entry = |id: &ImageId| Entry {
            id: *id,
            label: "",
            name: "",
        };
        let entries: Vec<Entry<'_>> = ids.iter().map(entry).collect();
        let source = GallerySource {
            space: SpaceId(Fingerprint([0; 32])),
            teacher: String::new(),
            manifest: Fingerprint([0; 32]),
            codes: Codes::F16,
        };
        gallery::write(&source, &rows, &entries).unwrap()
    }

    #[test]
    fn counted_ranks_are_those_of_the_matcher() {
        let mut random = Random::new(4);
        for (n_rows, dim) in [(1, 2), (40, 2), (200, 3), (90, 5000)] {
            let bytes = gallery_bytes(n_rows, dim, &mut random);
            let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
            let gallery = matcher.gallery();
            for n_best in [0, 3, 500] {
                let embedding: Vec<f32> = (0..dim).map(|_| random.normal() as f32).collect();
                let exclude = Some(ImageId([random.below(n_rows) as u8; 16]));
                let rows: Vec<u32> = (0..n_rows as u32)
                    .filter(|row| Some(gallery.id(*row)) != exclude && random.chance(0.3))
                    .collect();
                let asked = Asked {
                    embedding: &embedding,
                    exclude,
                    rows: rows.clone(),
                };
                let found = ranks(gallery, &[asked], n_best).swap_remove(0);
                let all = matcher.search(&embedding, n_rows, exclude);
                let rank_of = |row: &u32| all.iter().position(|found| found.row == *row).unwrap();
                assert_eq!(found.ranks, rows.iter().map(rank_of).collect::<Vec<_>>());
                assert_eq!(found.best, all[..all.len().min(n_best)]);
            }
        }
    }
}
