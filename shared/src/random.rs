//! Random numbers as a pure function of where they are drawn.
//!
//! A [`Random`] is forked by names and counters (`seed`, `"augment"`, epoch, image), so a
//! draw does not depend on how many others were made before it, on which thread: training
//! that was interrupted goes on with the very numbers it would have seen.

/// A stream of random numbers (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
///
/// Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The root stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: mix(seed.wrapping_add(GOLDEN_GAMMA)),
        }
    }

    /// The stream of one purpose. Fork before drawing: a fork is named by the place that
    /// `self` has reached.
    #[must_use]
    pub fn fork(&self, name: &str) -> Self {
        let state = name.bytes().fold(self.state ^ 0x5bf0_3635, |state, byte| {
            mix(state.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte))
        });
        Self { state: mix(state) }
    }

    /// The stream of one counter value, such as an epoch or an image number.
    #[must_use]
    pub fn at(&self, counter: u64) -> Self {
        Self {
            state: mix(self.state ^ mix(counter.wrapping_add(GOLDEN_GAMMA))),
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// Uniform in 0.0..1.0, 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`. `n` must not be zero.
    pub fn below(&mut self, n: usize) -> usize {
        debug_assert!(n > 0, "no number lies below 0");
        // The bias of the multiply-shift is below 2^-32 for every n used here.
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Puts the items in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_place_gives_the_same_numbers() {
        let place = || Random::new(7).fork("augment").at(3).at(12);
        let (mut a, mut b) = (place(), place());
        for _ in 0..10 {
            assert_eq!(a.bits(), b.bits());
        }
    }

    #[test]
    fn different_places_differ() {
        let root = Random::new(7);
        let mut firsts: Vec<u64> = (0..1000).map(|i| root.at(i).bits()).collect();
        firsts.extend(["a", "b", "ab", "ba"].map(|name| root.fork(name).bits()));
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 1004);
    }

    #[test]
    fn the_stream_is_frozen() {
        // Recipes name a seed: these values may never change.
        let mut stream = Random::new(1).fork("frozen").at(2);
        let seen = [stream.bits(), stream.bits()];
        assert_eq!(
            seen,
            [0xefb7_92cd_395b_8fb1, 0x346c_f684_b377_3dd1],
            "{seen:#x?}"
        );
    }
    #[test]
    fn unit_has_the_moments_of_a_uniform() {
        let mut stream = Random::new(5);
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|_| stream.unit()).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 0.002, "{variance}");
        assert!(draws.iter().all(|x| (0.0..1.0).contains(x)));
    }

    #[test]
    fn below_reaches_every_value_and_no_other() {
        let mut stream = Random::new(9);
        let mut counts = [0; 7];
        for _ in 0..7000 {
            counts[stream.below(7)] += 1;
        }
        assert!(
            counts.iter().all(|&count| (800..1200).contains(&count)),
            "{counts:?}"
        );
    }
}
