//! Intervals of what was measured window by window.

use eyas_shared::random::Random;

use super::{Interval, Over};
use crate::bench::results::{Cell, Performance, WindowResult};

/// Resamples of a bootstrap: the ends of a 95 % interval then vary by a percent of its width.
const N_RESAMPLES: usize = 10_000;

/// The interval of a measure's difference, if it is a median over windows or cold starts and
/// both sides have more than one of them.
pub(super) fn interval(measure: &str, a: &Cell, b: &Cell) -> Option<Interval> {
    let (a, b) = (a.performance.as_ref()?, b.performance.as_ref()?);
    let (over, a, b) = match measure {
        "cold_ms" => (Over::Starts, starts(a), starts(b)),
        name => {
            let read = of_window(name)?;
            (Over::Windows, windows(a, read)?, windows(b, read)?)
        }
    };
    let (low, high) = of_medians(&a, &b)?;
    let n = [a.len(), b.len()];
    Some(Interval { low, high, over, n })
}

/// Whether a measure is one of a cell's windows.
pub(super) fn is_of_windows(measure: &str) -> bool {
    measure == "p99_ms" || of_window(measure).is_some()
}

/// Whether a cell was measured and no window of it is clean.
pub(super) fn has_flagged_alone(cell: &Cell) -> bool {
    let performance = cell.performance.as_ref();
    performance.is_some_and(|found| found.n_clean == 0 && !found.windows.is_empty())
}

type OfWindow = fn(&WindowResult) -> Option<f64>;

/// What a window says of a measure that is a median over windows.
fn of_window(measure: &str) -> Option<OfWindow> {
    Some(match measure {
        "median_ms" => |window| Some(window.total.median_ms),
        "p95_ms" => |window| Some(window.total.p95_ms),
        "queries_per_second" => {
            |window| (window.seconds > 0.0).then_some(window.n as f64 / window.seconds)
        }
        "joules_per_query" => |window| {
            let joules = window.joules.filter(|_| window.n > 0);
            joules.map(|joules| joules / window.n as f64)
        },
        _ => return None,
    })
}

/// Of the windows that count: the clean ones, or all if none is clean.
fn windows(of: &Performance, read: OfWindow) -> Option<Vec<f64>> {
    let counts = |window: &&WindowResult| of.n_clean == 0 || window.flags.is_empty();
    of.windows.iter().filter(counts).map(read).collect()
}

/// From nothing to the first answer: of the processes whose files came from the disk, or of
/// all if none did.
fn starts(of: &Performance) -> Vec<f64> {
    let is_any_from_disk = of.cold_starts.iter().any(|start| start.is_from_disk);
    let starts = of.cold_starts.iter();
    starts
        .filter(|start| start.is_from_disk || !is_any_from_disk)
        .map(|start| start.total_ms())
        .collect()
}

/// 95 % interval of the median of `new` less the median of `old`: percentile bootstrap
/// (Efron, 1979) of two samples. The same samples give the same interval.
fn of_medians(old: &[f64], new: &[f64]) -> Option<(f64, f64)> {
    if old.len() < 2 || new.len() < 2 {
        return None;
    }
    let mut random = Random::new(0);
    let mut drawn = Vec::new();
    let mut median_of_resample = |of: &[f64]| {
        drawn.clear();
        drawn.extend((0..of.len()).map(|_| of[random.below(of.len())]));
        median(&mut drawn)
    };
    let mut differences: Vec<f64> = (0..N_RESAMPLES)
        .map(|_| median_of_resample(new) - median_of_resample(old))
        .collect();
    differences.sort_unstable_by(f64::total_cmp);
    let end = N_RESAMPLES / 40;
    Some((differences[end], differences[N_RESAMPLES - 1 - end]))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    f64::midpoint(values[(n - 1) / 2], values[n / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_clearly_apart_windows_differ_surely() {
        let old = [10.0, 10.1, 10.2, 10.1, 10.0];
        let new = old.map(|x| x + 1.0);
        let (low, high) = of_medians(&old, &new).unwrap();
        assert!(
            low > 0.7 && low <= 1.0 && (1.0..1.3).contains(&high),
            "{low} {high}"
        );
        let (low, high) = of_medians(&old, &old).unwrap();
        assert!(low <= 0.0 && 0.0 <= high);
        assert_eq!(of_medians(&old, &[1.0]), None);
    }
}
