//! What measured times amount to: quantiles, and whether a window of them can be believed.
//!
//! Pure functions of samples and counters; who measured them, and when, is not known here.

use serde::{Deserialize, Serialize};

use crate::link::bench::{Moment, Sample};

/// The stages of a query, in order, and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// File bytes to samples.
    Decode,
    /// Samples to the network's pixels.
    Preprocess,
    /// Pixels to the embedding.
    Encode,
    /// Embedding to matches and verdict.
    Search,
    /// All of them.
    Total,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 5] = [
        Self::Decode,
        Self::Preprocess,
        Self::Encode,
        Self::Search,
        Self::Total,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Encode => "encode",
            Self::Search => "search",
            Self::Total => "total",
        }
    }
}

impl Sample {
    /// What a stage took, in nanoseconds.
    #[must_use]
    pub fn nanos(&self, stage: Stage) -> u64 {
        match stage {
            Stage::Decode => self.decode,
            Stage::Preprocess => self.preprocess,
            Stage::Encode => self.encode,
            Stage::Search => self.search,
            Stage::Total => { [self.decode, self.preprocess, self.encode, self.search] }
                .into_iter()
                .fold(0, u64::saturating_add),
        }
    }
}

/// Milliseconds by stage or otherwise: a sample and its quantiles.
///
/// A quantile is always a time that was measured (nearest rank): the smallest that at least
/// that share of the samples does not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Samples.
    pub n: usize,
    /// The shortest, in milliseconds like all that follow.
    pub min_ms: f64,
    /// Sum by number.
    pub mean_ms: f64,
    /// Half are not longer.
    pub median_ms: f64,
    /// 90 of 100 are not longer.
    pub p90_ms: f64,
    /// 95 of 100 are not longer.
    pub p95_ms: f64,
    /// 99 of 100 are not longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Figures {
    /// Of times in nanoseconds, in any order; `None` of none.
    #[must_use]
    pub fn of(nanos: &[u64]) -> Option<Self> {
        let mut sorted = nanos.to_vec();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let sum: u128 = sorted.iter().map(|nanos| u128::from(*nanos)).sum();
        let at = |percent| millis(quantile(&sorted, percent));
        Some(Self {
            n: sorted.len(),
            min_ms: millis(min),
            mean_ms: sum as f64 / sorted.len() as f64 / 1e6,
            median_ms: at(50),
            p90_ms: at(90),
            p95_ms: at(95),
            p99_ms: at(99),
            max_ms: millis(max),
        })
    }
}

/// The nearest-rank quantile of sorted values that are not none.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Why a window's times are not those of the board alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flag {
    /// The clock was lower than it can be, or processing time was rationed.
    Throttled,
    /// Others worked on the machine meanwhile.
    Noisy,
    /// Memory came back from the disk.
    Swapped,
    /// It ended before it was as long as was asked.
    Short,
}

impl Flag {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Noisy => "noisy",
            Self::Swapped => "swapped",
            Self::Short => "short",
        }
    }
}

impl std::fmt::Display for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A flag with what raised it, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// Which.
    pub flag: Flag,
    /// What was seen, with numbers.
    pub why: String,
}

/// Work of others, in cores, that leaves a window's times as they are: what an idle system
/// with a link does.
pub const MAX_OTHERS: f64 = 0.10;

/// Share of a window that a process of one thread has to be working: a query never waits.
pub const MIN_OWN: f64 = 0.95;

/// Share of a window that the machine below may take.
pub const MAX_STOLEN: f64 = 0.01;

/// How much longer the fixed chain of arithmetic may take than it ever did on this board.
pub const MAX_PACE: f64 = 1.05;

/// Flags of a window, from the counters at both its ends.
///
/// `best_pace_nanos` is the shortest pace that is known of the board; 0 if none is.
#[must_use]
pub fn flags(before: &Moment, after: &Moment, best_pace_nanos: u64) -> Vec<Raised> {
    let mut raised = Vec::new();
    let mut raise = |flag, why: String| raised.push(Raised { flag, why });
    let grown = |read: fn(&Moment) -> u64| read(after).saturating_sub(read(before));
    let wall = grown(|at| at.steady_micros).max(1) as f64;

    let bits = after.firmware_throttled.unwrap_or(0) & 0xf;
    if bits != 0 {
        raise(
            Flag::Throttled,
            format!("the firmware reports {bits:#x} (1 voltage, 2 clock, 4 throttled, 8 heat)"),
        );
    }
    let counted = |read: fn(&Moment) -> Option<u64>| {
        let grown = read(after)?.checked_sub(read(before)?)?;
        (grown > 0).then_some(grown)
    };
    if let Some(n) = counted(|at| at.throttles) {
        raise(
            Flag::Throttled,
            format!("the processor throttled itself {n} times"),
        );
    }
    if let Some(n) = counted(|at| at.quota_waits) {
        raise(
            Flag::Throttled,
            format!("a quota of processing time held it up {n} times"),
        );
    }
    let pace = before.pace_nanos.max(after.pace_nanos) as f64;
    let best = best_pace_nanos as f64;
    if best > 0.0 && pace > MAX_PACE * best {
        let ratio = best / pace;
        raise(
            Flag::Throttled,
            format!("the clock ran at {ratio:.2} of the fastest seen on this board"),
        );
    }

    let own = grown(|at| at.own_micros) as f64;
    let others = (grown(|at| at.busy_micros) as f64 - own).max(0.0) / wall;
    if others > MAX_OTHERS {
        raise(
            Flag::Noisy,
            format!("other processes kept {others:.2} cores busy"),
        );
    }
    let stolen = grown(|at| at.stolen_micros) as f64 / wall;
    if stolen > MAX_STOLEN {
        raise(
            Flag::Noisy,
            format!("the machine below took {:.1} % of the time", 100.0 * stolen),
        );
    }
    if own / wall < MIN_OWN {
        let share = 100.0 * own / wall;
        // Nobody else needed the time: it was rationed.
        let (flag, who) = match others > MAX_OTHERS || stolen > MAX_STOLEN {
            true => (Flag::Noisy, "others took the rest"),
            false => (Flag::Throttled, "nobody else worked meanwhile"),
        };
        raise(
            flag,
            format!("it could work for {share:.0} % of the time; {who}"),
        );
    }

    let faults = grown(|at| at.major_faults);
    let pages = grown(|at| at.swapped_in);
    if faults > 0 || pages > 0 {
        raise(
            Flag::Swapped,
            format!("{faults} waits for pages from the disk, {pages} pages back from swap"),
        );
    }
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let nanos: Vec<u64> = (1..=100).rev().map(|i| i * 1_000_000).collect();
        let figures = Figures::of(&nanos).unwrap();
        assert_eq!(
            [figures.min_ms, figures.median_ms, figures.p90_ms],
            [1.0, 50.0, 90.0]
        );
        assert_eq!(
            [figures.p95_ms, figures.p99_ms, figures.max_ms],
            [95.0, 99.0, 100.0]
        );
        assert_eq!(figures.mean_ms, 50.5);
        let one = Figures::of(&[7_000_000]).unwrap();
        assert_eq!([one.min_ms, one.median_ms, one.p99_ms], [7.0; 3]);
        assert_eq!(Figures::of(&[]), None);
    }

    #[test]
    fn the_total_of_a_sample_is_the_sum_of_its_stages() {
        let sample = Sample {
            decode: 1,
            preprocess: 20,
            encode: 300,
            search: 4000,
        };
        let by_stage = Stage::ALL.map(|stage| sample.nanos(stage));
        assert_eq!(by_stage, [1, 20, 300, 4000, 4321]);
    }

    /// Ten seconds of one busy core.
    fn quiet() -> (Moment, Moment) {
        let before = Moment {
            pace_nanos: 1000,
            ..Moment::default()
        };
        let after = Moment {
            steady_micros: 10_000_000,
            busy_micros: 10_200_000,
            own_micros: 9_990_000,
            pace_nanos: 1010,
            ..Moment::default()
        };
        (before, after)
    }

    #[test]
    fn a_quiet_window_has_no_flag() {
        let (before, after) = quiet();
        assert_eq!(flags(&before, &after, 990), []);
    }

    #[test]
    fn each_disturbance_raises_its_flag() {
        let raised = |change: fn(&mut Moment)| {
            let (before, mut after) = quiet();
            change(&mut after);
            let raised = flags(&before, &after, 990);
            raised.into_iter().map(|raised| raised.flag).collect()
        };
        let throttled = vec![Flag::Throttled];
        let noisy = vec![Flag::Noisy];
        let swapped = vec![Flag::Swapped];
        type Change = fn(&mut Moment);
        let cases: [(Vec<Flag>, Change); 9] = [
            (throttled.clone(), |at| at.firmware_throttled = Some(0x4)),
            (throttled.clone(), |at| at.pace_nanos = 1100),
            (throttled, |at| {
                at.own_micros = 5_000_000;
                at.busy_micros = 5_000_000;
            }),
            (noisy.clone(), |at| at.busy_micros += 2_000_000),
            (noisy, |at| at.stolen_micros = 500_000),
            (vec![Flag::Noisy; 2], |at| {
                at.own_micros = 5_000_000;
                at.busy_micros = 20_000_000;
            }),
            (swapped.clone(), |at| at.major_faults = 1),
            (swapped, |at| at.swapped_in = 3),
            // What happened once is no news.
            (Vec::new(), |at| at.firmware_throttled = Some(0x5_0000)),
        ];
        for (expected, change) in cases {
            let found: Vec<Flag> = raised(change);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn counters_that_only_one_end_has_say_nothing() {
        let (mut before, mut after) = quiet();
        after.throttles = Some(9);
        after.quota_waits = Some(9);
        assert_eq!(flags(&before, &after, 0), []);
        before.throttles = Some(8);
        before.quota_waits = Some(8);
        let raised = flags(&before, &after, 0);
        assert_eq!(raised.len(), 2);
        assert!(raised.iter().all(|raised| raised.flag == Flag::Throttled));
    }
}
