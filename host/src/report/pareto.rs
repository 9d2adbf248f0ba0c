//! Which points nobody beats: cheap and good at once.

/// Whether each point, a cost and a gain, is on the Pareto front: no other costs at most as
/// much and gains at least as much, with one of both strictly better. Equal points stand or
/// fall together. A point with a number that is none is not on the front.
#[must_use]
pub fn front(points: &[(f64, f64)]) -> Vec<bool> {
    let is_known = |(cost, gain): &(f64, f64)| cost.is_finite() && gain.is_finite();
    let beats = |a: &(f64, f64), b: &(f64, f64)| {
        is_known(a) && a.0 <= b.0 && a.1 >= b.1 && (a.0 < b.0 || a.1 > b.1)
    };
    points
        .iter()
        .map(|point| is_known(point) && !points.iter().any(|other| beats(other, point)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_another_beats_is_not_on_the_front() {
        let points = [(1.0, 0.5), (2.0, 0.7), (2.0, 0.6), (3.0, 0.7), (0.5, 0.1)];
        assert_eq!(front(&points), [true, true, false, false, true]);
    }

    #[test]
    fn equal_points_stand_together_and_unknown_ones_beat_nobody() {
        assert_eq!(front(&[(1.0, 0.5), (1.0, 0.5)]), [true, true]);
        let unknown = [(f64::NAN, 1.0), (1.0, 0.5), (0.0, f64::INFINITY)];
        assert_eq!(front(&unknown), [false, true, false]);
        assert!(front(&[]).is_empty());
    }
}
