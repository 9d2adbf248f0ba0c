//! The best of many, without sorting all of them.

use std::cmp::Ordering;

/// Collects items and keeps the `k` that come first by `order`.
///
/// Items gather until there are twice as many as wanted; a selection in linear time then
/// pays for `k` insertions. What is kept does not depend on the order of the offers as long
/// as `order` never finds two items equal.
pub(super) struct Best<T, F> {
    k: usize,
    items: Vec<T>,
    order: F,
    /// Score of the worst of `k` items that were offered: items below it are out, items
    /// equal to it may still come before.
    threshold: f32,
    score: fn(&T) -> f32,
}

impl<T, F: Fn(&T, &T) -> Ordering> Best<T, F> {
    /// `order` puts higher scores first. `k` must not be 0.
    pub(super) fn new(k: usize, score: fn(&T) -> f32, order: F) -> Self {
        debug_assert!(k > 0, "the best of none");
        Self {
            k,
            items: Vec::new(),
            order,
            threshold: f32::NEG_INFINITY,
            score,
        }
    }

    /// Scores below this change nothing.
    pub(super) fn threshold(&self) -> f32 {
        self.threshold
    }

    pub(super) fn offer(&mut self, item: T) {
        self.items.push(item);
        if self.items.len() >= 2 * self.k {
            self.cut();
        }
    }

    /// Raises the threshold as far as the offers so far allow.
    pub(super) fn tighten(&mut self) {
        if self.items.len() >= self.k {
            self.cut();
        }
    }

    /// Adds what another search found.
    pub(super) fn merge(&mut self, other: Self) {
        self.items.extend(other.items);
        self.tighten();
    }

    fn cut(&mut self) {
        let (_, worst, _) = self.items.select_nth_unstable_by(self.k - 1, &self.order);
        self.threshold = (self.score)(worst);
        self.items.truncate(self.k);
    }

    /// The best, best first.
    pub(super) fn finish(mut self) -> Vec<T> {
        if self.items.len() > self.k {
            self.cut();
        }
        self.items.sort_unstable_by(&self.order);
        self.items
    }
}
