//! Exact ranks of chosen gallery rows, without a sorted gallery.
//!
//! The chosen rows are scored first; then the gallery is read once for a block of queries
//! and every row that outranks a chosen one is counted. Memory holds the chosen rows of a
//! block and a few matches, whatever the size of the gallery. Scores are those of the
//! device's matcher, to the last bit, and so is the order of equals.

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
                if *score >= scan.threshold && !gallery.is_removed(row) {
                    scan.count(gallery, asked.exclude, row, *score);
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
    /// Rows that come after `wanted[i - 1]` and before `wanted[i]`.
    n_before: Vec<usize>,
    /// At most `n_best`, best first.
    best: Vec<Match>,
    n_best: usize,
    /// Rows that score less change nothing.
    threshold: Score,
}

fn key(found: &Match) -> (Score, ImageId, u32) {
    (found.score, found.id, found.row)
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
        let mut scan = Self {
            n_before: vec![0; wanted.len()],
            wanted,
            best: Vec::with_capacity(n_best + 1),
            n_best,
            threshold: Score::NEG_INFINITY,
        };
        scan.raise_threshold();
        scan
    }

    /// The lower of the worst wanted and the worst best row. Equal scores may still count,
    /// by their ids.
    fn raise_threshold(&mut self) {
        let worst_wanted = match self.wanted.last() {
            Some((worst, _)) => worst.score,
            None => Score::INFINITY,
        };
        let worst_best = match self.best.last() {
            Some(worst) if self.best.len() == self.n_best => worst.score,
            _ if self.n_best == 0 => Score::INFINITY,
            _ => Score::NEG_INFINITY,
        };
        self.threshold = worst_wanted.min(worst_best);
    }

    fn count(&mut self, gallery: &Gallery<'_>, exclude: Option<ImageId>, row: u32, score: Score) {
        let id = gallery.id(row);
        if exclude == Some(id) {
            return;
        }
        let found = Match { row, id, score };
        let is_before =
            |other: &Match| by_rank(key(other), (score, id, row)) == std::cmp::Ordering::Less;
        let place = self.wanted.partition_point(|(other, _)| is_before(other));
        match self.wanted.get(place) {
            Some((itself, _)) if itself.row == row => {}
            Some(_) => self.n_before[place] += 1,
            None => {}
        }
        let place = self.best.partition_point(is_before);
        if place < self.n_best {
            self.best.insert(place, found);
            self.best.truncate(self.n_best);
            self.raise_threshold();
        }
    }

    fn finish(self) -> Found {
        let mut ranks = vec![0; self.wanted.len()];
        let mut n_others = 0;
        for (n_wanted, ((_, place), n_before)) in self.wanted.iter().zip(&self.n_before).enumerate()
        {
            n_others += n_before;
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
