//! How far a grid should reach, given how often values were seen.

use crate::export::stored::ScaleRule;

/// Bins of a histogram: eight for each code of a grid that reaches as far.
const N_BINS: usize = 2048;

/// Share of the values that [`ScaleRule::Percentile`] leaves outside. Of weights it leaves
/// more: activations are many, and the few that are large carry what an image is about.
const SHARE_OUTSIDE: f64 = 1e-4;

/// Ends that are tried between 0 and the farthest, each way.
const N_CANDIDATES: usize = 64;

/// The least and the largest of some values, and 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Extent {
    low: f32,
    high: f32,
}

impl Extent {
    pub(super) fn add(&mut self, values: &[f32]) {
        for &value in values {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
        }
    }
}

/// How often values were seen: zeros by themselves, as no grid moves them.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    extent: Extent,
    n_zeros: u64,
    counts: Vec<u64>,
}

impl Histogram {
    /// An empty one.
    pub(super) fn over(extent: Extent) -> Self {
        Self {
            extent,
            n_zeros: 0,
            counts: vec![0; N_BINS],
        }
    }

    pub(super) fn add(&mut self, values: &[f32]) {
        let [low, width] = [self.low(), self.bin_width()];
        for &value in values {
            if value == 0.0 {
                self.n_zeros += 1;
            } else {
                let bin = ((f64::from(value) - low) / width) as usize;
                self.counts[bin.min(N_BINS - 1)] += 1;
            }
        }
    }

    fn low(&self) -> f64 {
        f64::from(self.extent.low)
    }

    fn high(&self) -> f64 {
        f64::from(self.extent.high)
    }

    fn bin_width(&self) -> f64 {
        (self.high() - self.low()) / N_BINS as f64
    }

    /// Where a bin begins.
    fn edge(&self, bin: usize) -> f64 {
        self.low() + self.bin_width() * bin as f64
    }

    /// Least and largest number that a grid should reach.
    pub(super) fn range(&self, rule: ScaleRule) -> [f32; 2] {
        let Extent { low, high } = self.extent;
        match rule {
            ScaleRule::MinMax => [low, high],
            ScaleRule::Percentile => self.percentile(),
            ScaleRule::LeastSquares => self.least_squares(),
        }
    }

    /// All but a share of the values; where there are some below zero and some above, half
    /// of the share is left out on each side.
    fn percentile(&self) -> [f32; 2] {
        let n: u64 = self.n_zeros + self.counts.iter().sum::<u64>();
        let n_sides = f64::from(u8::from(self.low() < 0.0) + u8::from(self.high() > 0.0));
        let n_outside = (n as f64 * SHARE_OUTSIDE / n_sides.max(1.0)) as u64;
        let below = n_bins_of(self.counts.iter(), n_outside);
        let above = n_bins_of(self.counts.iter().rev(), n_outside);
        let low = self.edge(below).min(0.0);
        let high = self.edge(N_BINS - above).max(0.0);
        [low as f32, high as f32]
    }

    /// The ends with the least sum of squared errors: of what lies outside, its distance;
    /// of what lies inside, that of numbers anywhere between two codes.
    fn least_squares(&self) -> [f32; 2] {
        let centers = (0..N_BINS).map(|bin| self.edge(bin) + 0.5 * self.bin_width());
        let bins: Vec<(f64, f64)> = centers
            .zip(self.counts.iter().map(|&count| count as f64))
            .collect();
        let ends = |end: f64| {
            (1..=N_CANDIDATES)
                .rev()
                .map(move |at| end * at as f64 / N_CANDIDATES as f64)
        };
        let beyond = |end: f64| -> f64 {
            let outside = bins
                .iter()
                .filter(|(x, _)| x.abs() > end.abs() && x * end > 0.0);
            outside.map(|(x, count)| count * (x - end).powi(2)).sum()
        };
        let measured = |end: f64| -> Vec<(f64, f64)> {
            if end == 0.0 {
                return vec![(0.0, 0.0)];
            }
            ends(end).map(|end| (end, beyond(end))).collect()
        };
        let n: f64 = bins.iter().map(|(_, count)| count).sum();
        let (lows, highs) = (measured(self.low()), measured(self.high()));
        let mut best = (f64::INFINITY, [self.extent.low, self.extent.high]);
        for (low, below) in &lows {
            for (high, above) in &highs {
                let step = (high - low) / 255.0;
                let error = below + above + n * step * step / 12.0;
                if error < best.0 {
                    best = (error, [*low as f32, *high as f32]);
                }
            }
        }
        best.1
    }
}

/// How many of the first bins hold at most `n` values.
fn n_bins_of<'a>(counts: impl Iterator<Item = &'a u64>, n: u64) -> usize {
    let sums = counts.scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= n).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::random::Random;

    fn histogram(values: &[f32]) -> Histogram {
        let mut extent = Extent::default();
        extent.add(values);
        let mut histogram = Histogram::over(extent);
        histogram.add(values);
        histogram
    }

    #[test]
    fn a_lone_value_is_left_outside_by_all_rules_but_min_max() {
        let mut random = Random::new(5);
        let mut values: Vec<f32> = (0..100_000)
            .map(|_| random.range(0.0, 1.0) as f32)
            .collect();
        values.push(50.0);
        values.extend([0.0; 1000]);
        let histogram = histogram(&values);
        assert_eq!(histogram.range(ScaleRule::MinMax), [0.0, 50.0]);
        for rule in [ScaleRule::Percentile, ScaleRule::LeastSquares] {
            let [low, high] = histogram.range(rule);
            assert_eq!(low, 0.0, "{rule:?}");
            assert!((0.99..50.0).contains(&high), "{rule:?}: {high}");
        }
    }

    #[test]
    fn both_sides_of_zero_are_cut_by_themselves() {
        let mut random = Random::new(6);
        let mut values: Vec<f32> = (0..200_000).map(|_| random.normal() as f32).collect();
        values.extend([-40.0, 9.0]);
        let histogram = histogram(&values);
        assert_eq!(histogram.range(ScaleRule::MinMax), [-40.0, 9.0]);
        let [low, high] = histogram.range(ScaleRule::Percentile);
        // Quantiles of the normal distribution: 3.89 for half of 1e-4.
        assert!((-4.2..-3.6).contains(&low), "{low}");
        assert!((3.6..4.2).contains(&high), "{high}");
        let [low, high] = histogram.range(ScaleRule::LeastSquares);
        assert!((-39.0..-2.5).contains(&low), "{low}");
        assert!((2.5..=9.0).contains(&high), "{high}");
    }

    #[test]
    fn zeros_and_nothing_have_a_range() {
        for values in [&[][..], &[0.0; 9], &[-1.0], &[2.0]] {
            let histogram = histogram(values);
            for rule in ScaleRule::ALL {
                let [low, high] = histogram.range(rule);
                assert!(
                    low <= 0.0 && 0.0 <= high,
                    "{rule:?} {values:?}: {low} {high}"
                );
            }
        }
    }
}
