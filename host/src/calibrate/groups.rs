//! How alike scores within a group are: a random-effects analysis of variance in one way.
//!
//! Photographs of one product resemble each other, so a hundred of them tell less about the
//! next product than a hundred products do. The intraclass correlation says how much less.

use std::collections::BTreeMap;

/// Variances within and between groups of scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Sum and number of the scores of each group.
    groups: BTreeMap<String, (f64, usize)>,
    n: usize,
    mean: f64,
    within: f64,
    between: f64,
}

impl Groups {
    /// Analyzes scores with the name of their group; the order does not matter.
    #[must_use]
    pub fn of<'s>(scores: impl IntoIterator<Item = (&'s str, f32)>) -> Self {
        let mut members: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, score) in scores {
            let group = members.entry(name.to_owned()).or_default();
            group.push(f64::from(score));
        }
        // Sums in another order have other last bits.
        members
            .values_mut()
            .for_each(|group| group.sort_by(f64::total_cmp));
        let n: usize = members.values().map(Vec::len).sum();
        let sum_of = |group: &[f64]| group.iter().sum::<f64>();
        let mean = members.values().map(|group| sum_of(group)).sum::<f64>() / n.max(1) as f64;
        let (mut inside, mut across, mut squares) = (0.0, 0.0, 0.0);
        for group in members.values() {
            let size = group.len() as f64;
            let middle = sum_of(group) / size;
            inside += group.iter().map(|x| (x - middle).powi(2)).sum::<f64>();
            across += size * (middle - mean).powi(2);
            squares += size * size;
        }
        let (n_groups, total) = (members.len() as f64, n as f64);
        let within = inside / (total - n_groups).max(1.0);
        let size = (total - squares / total.max(1.0)) / (n_groups - 1.0).max(1.0);
        let between = (across / (n_groups - 1.0).max(1.0) - within) / size.max(1.0);
        let sums = members.into_iter().map(|(name, group)| {
            let sum = (sum_of(&group), group.len());
            (name, sum)
        });
        Self {
            groups: sums.collect(),
            n,
            mean,
            within,
            between: between.max(0.0),
        }
    }

    /// Number of groups.
    #[must_use]
    pub fn n_groups(&self) -> usize {
        self.groups.len()
    }

    /// How many scores weigh as much as one that is independent of the others when something
    /// is said about groups that were not seen (Kish, 1965): 1 for groups of one, all of them
    /// for a single group.
    #[must_use]
    pub fn design_effect(&self) -> f64 {
        let squares: f64 = self.groups.values().map(|(_, n)| (*n as f64).powi(2)).sum();
        let size = squares / (self.n as f64).max(1.0);
        1.0 + (size - 1.0).max(0.0) * self.correlation()
    }

    /// Share of the variance that lies between groups, 0 to 1.
    fn correlation(&self) -> f64 {
        let total = self.within + self.between;
        match self.n_groups() {
            // What other groups would do was not seen at all.
            0 | 1 => 1.0,
            _ if total > 0.0 => self.between / total,
            _ => 0.0,
        }
    }

    /// How far the mean of each group of at least `min_size` lies from the mean of all, drawn
    /// towards it as far as chance explains (the best linear predictor of a random effect).
    pub fn shrunken_shifts(&self, min_size: usize) -> impl Iterator<Item = (&str, f64, usize)> {
        { self.groups.iter() }
            .filter(move |(_, (_, n))| *n >= min_size && self.between > 0.0)
            .map(|(name, &(sum, n))| {
                let size = n as f64;
                let trust = size / (size + self.within / self.between);
                (name.as_str(), trust * (sum / size - self.mean), n)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_in_groups_of_ten_count_once_a_group() {
        let scores: Vec<(&str, f32)> = ["a", "b", "c"]
            .into_iter()
            .zip([0.1, 0.5, 0.3])
            .flat_map(|scored| std::iter::repeat_n(scored, 10))
            .collect();
        let groups = Groups::of(scores);
        assert_eq!(groups.n_groups(), 3);
        assert!((groups.design_effect() - 10.0).abs() < 1e-6);
        let shifts: Vec<_> = groups.shrunken_shifts(10).collect();
        assert_eq!(shifts.len(), 3);
        assert!((shifts[1].1 - 0.2).abs() < 1e-6, "{shifts:?}");
        assert_eq!(groups.shrunken_shifts(11).count(), 0);
    }

    #[test]
    fn scores_without_groups_are_independent_and_one_group_is_one_case() {
        let names: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let alone = Groups::of(
            names
                .iter()
                .zip(0_u8..)
                .map(|(name, i)| (name.as_str(), f32::from(i))),
        );
        assert!((alone.design_effect() - 1.0).abs() < 1e-9);
        let one = Groups::of((0..50_u8).map(|i| ("a", f32::from(i))));
        assert!((one.design_effect() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn groups_that_differ_by_chance_are_not_told_apart() {
        let scores = [("a", 1.0), ("a", 2.0), ("b", 2.0), ("b", 1.0)];
        let groups = Groups::of(scores);
        assert!((groups.design_effect() - 1.0).abs() < 1e-9);
        assert_eq!(groups.shrunken_shifts(1).count(), 0);
    }
}
