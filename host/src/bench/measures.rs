//! What a session's cells are judged by: one table of names, units and directions.
//!
//! Reports, limits and comparisons of sessions take their words from here, so that
//! `p95_ms` is the same number everywhere. Nothing is measured or averaged here that the
//! record does not hold already, but for medians of cold starts.

use eyas_shared::timing::Stage;

use super::results::{Cell, ColdStart};

/// Bytes in a megabyte (MB), here and in limits.
const MEGABYTE: f64 = 1e6;

/// A number of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Name, with the unit at its end where there is one: `p95_ms`.
    pub name: &'static str,
    /// Unit; empty for shares and counts.
    pub unit: &'static str,
    /// Whether a higher value is better.
    pub is_better_high: bool,
    /// What the number is, in words.
    pub convention: &'static str,
    read: fn(&Cell) -> Option<f64>,
}

impl Measure {
    /// All, in the order in which tables show them.
    pub const ALL: [Self; 14] = [
        Self {
            name: "recall_at_1",
            unit: "",
            is_better_high: true,
            convention: "share of queries whose best match has their label",
            read: |cell| Some(cell.accuracy.as_ref()?.recall_at_1),
        },
        Self {
            name: "recall_at_5",
            unit: "",
            is_better_high: true,
            convention: "share of queries with a match of their label among the best 5",
            read: |cell| cell.accuracy.as_ref()?.recall_at_5,
        },
        Self {
            name: "recall_at_10",
            unit: "",
            is_better_high: true,
            convention: "share of queries with a match of their label among the best 10",
            read: |cell| cell.accuracy.as_ref()?.recall_at_10,
        },
        Self {
            name: "mean_average_precision_at_r",
            unit: "",
            is_better_high: true,
            convention: "mean over the queries of the average precision among the R best \
                         matches, R the number of images with the query's label",
            read: |cell| cell.accuracy.as_ref()?.mean_average_precision_at_r,
        },
        Self {
            name: "median_ms",
            unit: "ms",
            is_better_high: false,
            convention: "time of a query from file bytes to matches: median over the windows \
                         of a window's median",
            read: |cell| Some(cell.performance.as_ref()?.median_ms),
        },
        Self {
            name: "p95_ms",
            unit: "ms",
            is_better_high: false,
            convention: "time of a query: median over the windows of a window's 95 % quantile",
            read: |cell| Some(cell.performance.as_ref()?.p95_ms),
        },
        Self {
            name: "p99_ms",
            unit: "ms",
            is_better_high: false,
            convention: "time of a query: 99 % quantile of all queries of the windows that count",
            read: p99_ms,
        },
        Self {
            name: "queries_per_second",
            unit: "1/s",
            is_better_high: true,
            convention: "queries answered per second, one after the other: median over the \
                         windows",
            read: |cell| Some(cell.performance.as_ref()?.queries_per_second),
        },
        Self {
            name: "cold_ms",
            unit: "ms",
            is_better_high: false,
            convention: "from the start of a process to its first answer: median over the \
                         processes whose files came from the disk, or over all if none did",
            read: |cell| cold_ms(&cell.performance.as_ref()?.cold_starts),
        },
        Self {
            name: "rss_mb",
            unit: "MB",
            is_better_high: false,
            convention: "most memory of the process, mapped files as far as they were touched; \
                         1 MB is 1,000,000 bytes",
            read: |cell| Some(cell.performance.as_ref()?.peak_bytes as f64 / MEGABYTE),
        },
        Self {
            name: "own_mb",
            unit: "MB",
            is_better_high: false,
            convention: "part of rss_mb that no file stands behind",
            read: |cell| Some(cell.performance.as_ref()?.own_bytes as f64 / MEGABYTE),
        },
        Self {
            name: "bundle_mb",
            unit: "MB",
            is_better_high: false,
            convention: "size of the student's file; 1 MB is 1,000,000 bytes",
            read: |cell| Some(cell.bundle.bytes as f64 / MEGABYTE),
        },
        Self {
            name: "joules_per_query",
            unit: "J",
            is_better_high: false,
            convention: "energy of a window by its queries, whole board: median over the windows",
            read: |cell| cell.performance.as_ref()?.joules_per_query,
        },
        Self {
            name: "threads",
            unit: "",
            is_better_high: false,
            convention: "threads that encode and search",
            read: |cell| Some(cell.threads as f64),
        },
    ];

    /// The measure of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|measure| measure.name == name)
    }

    /// The known name that an unknown one is probably meant to be.
    #[must_use]
    pub fn suggestion(unknown: &str) -> Option<&'static str> {
        /// Below it, names share little more than their ending.
        const SIMILAR: f64 = 0.5;
        let similarity =
            |measure: &Self| strsim::normalized_damerau_levenshtein(unknown, measure.name);
        Self::ALL
            .iter()
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
            .filter(|measure| similarity(measure) > SIMILAR)
            .map(|measure| measure.name)
    }

    /// The number, if the cell has it; always finite.
    #[must_use]
    pub fn read(&self, cell: &Cell) -> Option<f64> {
        (self.read)(cell).filter(|value| value.is_finite())
    }
}

fn p99_ms(cell: &Cell) -> Option<f64> {
    let mut stages = cell.performance.as_ref()?.stages.iter();
    let total = stages.find(|figures| figures.stage == Stage::Total)?;
    Some(total.figures.p99_ms)
}

impl ColdStart {
    /// From nothing to the first answer.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.start_ms + self.open_ms + self.load_ms + self.first_query_ms
    }
}

fn cold_ms(starts: &[ColdStart]) -> Option<f64> {
    let is_any_from_disk = starts.iter().any(|start| start.is_from_disk);
    let counted = starts
        .iter()
        .filter(|start| start.is_from_disk || !is_any_from_disk);
    let mut totals: Vec<f64> = counted.map(ColdStart::total_ms).collect();
    totals.sort_by(f64::total_cmp);
    let upper = *totals.get(totals.len() / 2)?;
    let lower = totals[(totals.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(first_query_ms: f64, is_from_disk: bool) -> ColdStart {
        ColdStart {
            start_ms: 1.0,
            open_ms: 2.0,
            load_ms: 3.0,
            first_query_ms,
            is_from_disk,
        }
    }

    #[test]
    fn names_are_unique_and_end_in_their_unit() {
        for (idx, measure) in Measure::ALL.iter().enumerate() {
            let first = Measure::ALL.iter().position(|m| m.name == measure.name);
            assert_eq!(first, Some(idx), "{}", measure.name);
            let ending = match measure.unit {
                "ms" => "_ms",
                "MB" => "_mb",
                _ => "",
            };
            assert!(measure.name.ends_with(ending), "{}", measure.name);
        }
        assert_eq!(Measure::by_name("p95_ms").map(|m| m.unit), Some("ms"));
        assert!(Measure::by_name("p95").is_none());
    }

    #[test]
    fn misspelled_names_have_a_suggestion() {
        for (wrong, meant) in [
            ("p95_m", "p95_ms"),
            ("recall@1", "recall_at_1"),
            ("rss", "rss_mb"),
        ] {
            assert_eq!(Measure::suggestion(wrong), Some(meant));
        }
        assert_eq!(Measure::suggestion("weather"), None);
    }

    #[test]
    fn a_start_from_the_disk_is_colder_than_one_from_memory() {
        assert_eq!(cold_ms(&[]), None);
        assert_eq!(cold_ms(&[start(4.0, false), start(6.0, false)]), Some(11.0));
        let mixed = [start(4.0, false), start(44.0, true), start(6.0, false)];
        assert_eq!(cold_ms(&mixed), Some(50.0));
    }
}
