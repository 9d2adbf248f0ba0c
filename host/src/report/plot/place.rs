//! Where names go: beside their points, over nothing else.

use super::svg::{Anchor, TEXT, text_width};

/// A rectangle that is taken: left, top, right, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Taken([f64; 4]);

impl Taken {
    fn meets(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        a < g && e < c && b < h && f < d
    }
}

/// What is taken of a drawing.
pub(super) struct Places {
    bounds: [f64; 4],
    taken: Vec<Taken>,
}

impl Places {
    /// Names stay within the bounds: left, top, right, bottom.
    pub(super) fn within(bounds: [f64; 4]) -> Self {
        let taken = Vec::new();
        Self { bounds, taken }
    }

    /// Keeps a square around a place free.
    pub(super) fn take(&mut self, (x, y): (f64, f64), radius: f64) {
        let rectangle = [x - radius, y - radius, x + radius, y + radius];
        self.taken.push(Taken(rectangle));
    }

    /// Keeps a line between two places free, one that is level or upright.
    pub(super) fn take_line(&mut self, from: (f64, f64), to: (f64, f64)) {
        let rectangle = [
            from.0.min(to.0) - 1.0,
            from.1.min(to.1) - 1.0,
            from.0.max(to.0) + 1.0,
            from.1.max(to.1) + 1.0,
        ];
        self.taken.push(Taken(rectangle));
    }

    /// A free place for a name near a point, if there is one: the text's anchor, its base
    /// line and the side. What was found is taken from then on.
    pub(super) fn name(&mut self, (x, y): (f64, f64), text: &str) -> Option<((f64, f64), Anchor)> {
        let width = text_width(text);
        for distance in [7.0, 13.0, 20.0] {
            let (right, left) = (x + distance, x - distance);
            let middle = y + 0.35 * TEXT;
            let (above, below) = (y - distance, y + distance + 0.7 * TEXT);
            let candidates = [
                ((right, middle), Anchor::Start),
                ((x, above), Anchor::Middle),
                ((x, below), Anchor::Middle),
                ((left, middle), Anchor::End),
                ((right - 3.0, above + 2.0), Anchor::Start),
                ((right - 3.0, below - 2.0), Anchor::Start),
                ((left + 3.0, above + 2.0), Anchor::End),
                ((left + 3.0, below - 2.0), Anchor::End),
            ];
            for (at, anchor) in candidates {
                let start = match anchor {
                    Anchor::Start => at.0,
                    Anchor::Middle => at.0 - width / 2.0,
                    Anchor::End => at.0 - width,
                };
                let rectangle =
                    Taken([start, at.1 - 0.85 * TEXT, start + width, at.1 + 0.2 * TEXT]);
                let [left, top, right, bottom] = rectangle.0;
                let is_inside = left >= self.bounds[0]
                    && top >= self.bounds[1]
                    && right <= self.bounds[2]
                    && bottom <= self.bounds[3];
                if is_inside && !self.taken.iter().any(|taken| taken.meets(&rectangle)) {
                    self.taken.push(rectangle);
                    return Some((at, anchor));
                }
            }
        }
        None
    }
}

/// Moves places apart until neighbors have `gap` between them, as little as needed and
/// within `low..=high`; if there is no room for all, they are spread evenly. Gives the new
/// places in the order of the old ones.
pub(super) fn apart(places: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let gap = gap.min((high - low) / places.len().saturating_sub(1).max(1) as f64);
    let mut moved = places.to_vec();
    let mut free = low;
    for idx in &order {
        moved[*idx] = moved[*idx].max(free);
        free = moved[*idx] + gap;
    }
    let mut free = high;
    for idx in order.iter().rev() {
        moved[*idx] = moved[*idx].min(free);
        free = moved[*idx] - gap;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_inside_and_over_nothing_else() {
        let mut places = Places::within([0.0, 0.0, 200.0, 100.0]);
        for x in [100.0, 104.0, 108.0] {
            places.take((x, 50.0), 5.0);
        }
        let found: Vec<_> = [100.0, 104.0, 108.0]
            .map(|x| places.name((x, 50.0), "student"))
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(found.len(), 3);
        let taken = &places.taken;
        for (idx, one) in taken.iter().enumerate().skip(3) {
            assert!(taken[..idx].iter().all(|other| !one.meets(other)));
        }
        assert_eq!(places.name((100.0, 50.0), &"long ".repeat(30)), None);
    }

    #[test]
    fn places_move_apart_as_little_as_needed() {
        assert_eq!(apart(&[10.0, 50.0], 12.0, (0.0, 100.0)), [10.0, 50.0]);
        assert_eq!(apart(&[99.0, 98.0], 12.0, (0.0, 100.0)), [100.0, 88.0]);
        assert_eq!(
            apart(&[5.0, 5.0, 5.0], 90.0, (0.0, 100.0)),
            [0.0, 50.0, 100.0]
        );
        assert!(apart(&[], 1.0, (0.0, 1.0)).is_empty());
    }
}
