//! The rows with the highest estimates.

use std::cmp::Ordering;

use eyas_shared::gallery::Gallery;

/// Collects rows and keeps the `n` with the highest estimates; of equal ones those of smaller
/// id, as [`eyas_shared::embedding::by_rank`] does: what is kept depends on the order neither
/// of the offers nor of the gallery.
#[derive(Clone)]
pub(super) struct Candidates<'a> {
    gallery: &'a Gallery<'a>,
    n: usize,
    /// The complement of the estimate's place in the total order of f32, then the row: the
    /// smallest are the best.
    keys: Vec<u64>,
    threshold: f32,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(gallery: &'a Gallery<'a>, n: usize) -> Self {
        Self {
            gallery,
            n,
            keys: Vec::with_capacity(2 * n),
            threshold: f32::NEG_INFINITY,
        }
    }

    /// Estimates below this change nothing.
    pub(super) fn threshold(&self) -> f32 {
        self.threshold
    }

    pub(super) fn offer(&mut self, row: u32, estimate: f32) {
        if estimate < self.threshold {
            return;
        }
        self.keys
            .push(u64::from(!place(estimate)) << 32 | u64::from(row));
        if self.keys.len() >= 2 * self.n {
            self.cut();
        }
    }

    /// Raises the threshold as far as the offers allow.
    pub(super) fn tighten(&mut self) {
        if self.keys.len() >= self.n {
            self.cut();
        }
    }

    /// Keeps the best `n`: a selection in linear time for each `n` offers.
    fn cut(&mut self) {
        let (_, worst, others) = self.keys.select_nth_unstable(self.n - 1);
        let worst = *worst;
        self.threshold = of_place(!((worst >> 32) as u32));
        // Ids lie far from what a scan reads, and rows that are alike are few.
        if others.iter().any(|key| key >> 32 == worst >> 32) {
            let order = best_first(self.gallery);
            self.keys.select_nth_unstable_by(self.n - 1, order);
        }
        self.keys.truncate(self.n);
    }

    /// Adds what another scan found.
    pub(super) fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        if self.keys.len() > self.n {
            self.cut();
        }
    }

    /// The rows, in order.
    pub(super) fn into_rows(mut self) -> Vec<u32> {
        if self.keys.len() > self.n {
            self.cut();
        }
        let mut rows: Vec<u32> = self.keys.iter().map(|key| *key as u32).collect();
        rows.sort_unstable();
        rows
    }
}

/// Keys in the order of estimates, then ids, then rows.
fn best_first(gallery: &Gallery<'_>) -> impl Fn(&u64, &u64) -> Ordering {
    |a, b| {
        let id = |key: &u64| gallery.id(*key as u32);
        let by_estimate = (a >> 32).cmp(&(b >> 32));
        by_estimate.then_with(|| id(a).cmp(&id(b)).then(a.cmp(b)))
    }
}

/// Where a number stands among all f32, as [`f32::total_cmp`] orders them.
fn place(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

fn of_place(place: u32) -> f32 {
    f32::from_bits(if place >> 31 == 1 {
        place & !(1 << 31)
    } else {
        !place
    })
}

#[cfg(test)]
mod tests {
    use eyas_shared::fingerprint::ImageId;
    use eyas_shared::gallery::Codes;

    use super::*;

    #[test]
    fn places_are_in_the_total_order_and_come_back() {
        let ordered = [
            f32::NEG_INFINITY,
            -2.0,
            -0.0,
            0.0,
            1e-40,
            1.0,
            f32::INFINITY,
        ];
        for pair in ordered.windows(2) {
            assert!(place(pair[0]) < place(pair[1]), "{pair:?}");
        }
        for x in ordered {
            assert_eq!(of_place(place(x)).to_bits(), x.to_bits());
        }
    }

    #[test]
    fn the_best_are_kept_in_any_order_of_offers_and_ties_by_id() {
        let mut random = eyas_shared::random::Random::new(1);
        let rows = crate::test_data::embeddings(500, 4, 1);
        // Ids fall as rows rise.
        let id = |row: u32| {
            let mut id = [0; 16];
            (id[0], id[1]) = (((500 - row) / 256) as u8, ((500 - row) % 256) as u8);
            ImageId(id)
        };
        let ids: Vec<ImageId> = (0..500).map(id).collect();
        let bytes = crate::test_data::gallery_with(&rows, &ids, Codes::INT8);
        let gallery = Gallery::open(&bytes).unwrap();
        for n_estimates in [40, 1] {
            let mut offers: Vec<(u32, f32)> = (0..500)
                .map(|row| (row, random.below(n_estimates) as f32 - 20.0))
                .collect();
            let mut expected = offers.clone();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(id(a.0).cmp(&id(b.0))));
            let mut expected: Vec<u32> = expected[..37].iter().map(|(row, _)| *row).collect();
            expected.sort_unstable();
            for _ in 0..10 {
                random.shuffle(&mut offers);
                let mut halves = [Candidates::new(&gallery, 37), Candidates::new(&gallery, 37)];
                for (i, (row, estimate)) in offers.iter().enumerate() {
                    halves[i % 2].offer(*row, *estimate);
                }
                let [mut one, other] = halves;
                one.merge(other);
                assert_eq!(one.into_rows(), expected);
            }
        }
    }
}
