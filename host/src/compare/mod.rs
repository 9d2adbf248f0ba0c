//! Two cells of bench sessions beside each other: what differs, how surely, and which queries
//! changed sides.
//!
//! Both answered the same queries, so accuracies are compared query by query; windows of
//! time are no pairs, so latencies are compared as two samples. What can not be compared is
//! left out, counted and said. Nothing is measured here.

pub mod choose;
pub mod condition;

mod cautions;
mod page;
mod queries;
#[cfg(test)]
mod tests;
mod times;

use serde::Serialize;

use crate::bench::measures::Measure;
use crate::bench::results::{Cell, Results};
use crate::evaluate::paired::Difference;
use crate::report::Report;
use crate::report::input::Session;
use condition::Judged;
pub use page::Picture;
pub use queries::{Answered, Flip, Flips, Queries};

/// Name of the JSON object's schema.
pub const SCHEMA: &str = "eyas.comparison/1";

/// Two sessions, cell by cell. The JSON object is this record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The first session.
    pub a: SessionFacts,
    /// The second one.
    pub b: SessionFacts,
    /// What makes them hard to compare: other boards, other protocols, failures.
    pub cautions: Vec<String>,
    /// The cells that were compared.
    pub pairs: Vec<Pair>,
    /// Keys of the first session's cells that have no partner.
    pub only_a: Vec<String>,
    /// Keys of the second session's cells that have no partner.
    pub only_b: Vec<String>,
    /// What the comparison must not show, and whether it does.
    pub conditions: Vec<Judged>,
}

/// Where numbers come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionFacts {
    /// Folder.
    pub session: String,
    /// Name of its plan.
    pub name: String,
    /// When it began.
    pub began: String,
    /// Name, version and commit of the host's program.
    pub host: String,
    /// The machine that was measured.
    pub board: String,
    /// Name, version and commit of its program.
    pub program: String,
}

impl SessionFacts {
    fn of(session: &Session) -> Self {
        let results = &session.results;
        let board = &results.board;
        let model = [&board.model, &board.cpu, &board.address];
        let board_name = model.into_iter().find(|name| !name.is_empty());
        Self {
            session: session.folder.display().to_string(),
            name: results.name.clone(),
            began: results.began.clone(),
            host: results.host.clone(),
            board: board_name.cloned().unwrap_or_default(),
            program: board.program.clone(),
        }
    }
}

/// Two cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Key of the first session's cell.
    pub a: String,
    /// Key of the second session's cell.
    pub b: String,
    /// What makes them hard to compare.
    pub cautions: Vec<String>,
    /// Every measure that at least one of them has.
    pub measures: Vec<Compared>,
    /// None unless both were asked queries.
    pub queries: Option<Queries>,
}

impl Pair {
    /// The cell, or both.
    #[must_use]
    pub fn title(&self) -> String {
        if self.a == self.b {
            self.a.clone()
        } else {
            format!("{} and {}", self.a, self.b)
        }
    }
}

/// One measure of two cells.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Name of the measure; see [`Measure`].
    pub name: &'static str,
    /// Its unit; empty for shares and counts.
    pub unit: &'static str,
    /// Whether a higher value is better.
    pub is_better_high: bool,
    /// Whether it is no sample: a file's size has no interval and needs none.
    pub is_exact: bool,
    /// The first cell's number. Accuracies are over the queries that are compared.
    pub a: Option<f64>,
    /// The second cell's number.
    pub b: Option<f64>,
    /// Whether a side's number comes from flagged windows alone: it is shown, and decides
    /// nothing.
    pub is_disturbed: bool,
    /// Second less first.
    pub difference: Option<f64>,
    /// 95 % interval of the difference.
    pub interval: Option<Interval>,
}

/// The 95 % interval of a difference: percentile bootstrap of 10,000 resamples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// What was resampled.
    pub over: Over,
    /// How many of them on either side.
    pub n: [usize; 2],
}

/// What a bootstrap resamples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// Queries, as pairs.
    Queries,
    /// Windows of each side on its own.
    Windows,
    /// Cold starts of each side on its own.
    Starts,
}

impl Interval {
    fn of_pairs(difference: Difference) -> Option<Self> {
        let Difference { low, high, n, .. } = difference;
        (n > 1).then_some(Self {
            low,
            high,
            over: Over::Queries,
            n: [n, n],
        })
    }

    /// Whether the two sides differ as far as the samples can tell.
    #[must_use]
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// Such as `120 queries` or `5 and 4 windows`.
    #[must_use]
    pub fn sample(&self) -> String {
        let [a, b] = self.n;
        match self.over {
            Over::Queries => format!("{a} queries"),
            Over::Windows => format!("{a} and {b} windows"),
            Over::Starts => format!("{a} and {b} cold starts"),
        }
    }
}

impl Compared {
    fn of(
        measure: &Measure,
        a: &Cell,
        b: &Cell,
        queries: Option<&queries::Scores>,
    ) -> Option<Self> {
        let paired = queries.and_then(|scores| scores.of_measure(measure.name));
        let (a_value, b_value) = match paired {
            Some(paired) => (Some(paired.old_mean), Some(paired.new_mean)),
            None => (measure.read(a), measure.read(b)),
        };
        if a_value.is_none() && b_value.is_none() {
            return None;
        }
        // Means over different queries do not differ by anything.
        let is_comparable = paired.is_some() || !queries::is_mean_over_queries(measure.name);
        let both = a_value.zip(b_value).filter(|_| is_comparable);
        let interval = match paired {
            Some(paired) => Interval::of_pairs(paired.difference),
            None => times::interval(measure.name, a, b),
        };
        Some(Self {
            name: measure.name,
            unit: measure.unit,
            is_better_high: measure.is_better_high,
            is_exact: matches!(measure.name, "bundle_mb" | "threads"),
            a: a_value,
            b: b_value,
            is_disturbed: times::is_of_windows(measure.name)
                && [a, b].into_iter().any(times::has_flagged_alone),
            difference: both.map(|(a, b)| b - a),
            interval: interval.filter(|_| both.is_some()),
        })
    }

    /// A number of this measure with as many digits as are worth reading.
    #[must_use]
    pub fn shown(&self, value: f64) -> String {
        let decimals = self.decimals();
        format!("{value:.decimals$}")
    }

    /// The same with its sign; nothing is `+` or `-` that is shown as 0.
    #[must_use]
    pub fn signed(&self, value: f64) -> String {
        let decimals = self.decimals();
        let shown = format!("{value:+.decimals$}");
        if shown.chars().any(|c| c.is_ascii_digit() && c != '0') {
            shown
        } else {
            self.shown(0.0)
        }
    }

    fn decimals(&self) -> usize {
        match self.unit {
            "" if self.is_exact => 0,
            "" | "J" => 4,
            "ms" => 3,
            _ => 2,
        }
    }

    /// Whether the second cell is surely better, surely worse, or neither. The number of
    /// threads is a choice and no merit.
    #[must_use]
    pub fn is_better(&self) -> Option<bool> {
        let difference = self.difference?;
        let is_sure = self.is_exact || self.interval?.excludes_zero();
        let is_merit = self.name != "threads" && !self.is_disturbed;
        (is_sure && is_merit && difference != 0.0)
            .then_some((difference > 0.0) == self.is_better_high)
    }
}

/// Compares cells of two sessions. `pairs` are indices into the cells of each.
///
/// # Panics
/// If an index is beyond a session's cells.
#[must_use]
pub fn compare(a: &Session, b: &Session, pairs: &[(usize, usize)]) -> Comparison {
    let one = |&(a_idx, b_idx): &(usize, usize)| {
        let (a, b) = (&a.results, &b.results);
        pair(a, &a.cells[a_idx], b, &b.cells[b_idx])
    };
    Comparison {
        schema: SCHEMA,
        a: SessionFacts::of(a),
        b: SessionFacts::of(b),
        cautions: cautions::of_sessions(&a.results, &b.results),
        pairs: pairs.iter().map(one).collect(),
        only_a: Vec::new(),
        only_b: Vec::new(),
        conditions: Vec::new(),
    }
}

fn pair(a: &Results, a_cell: &Cell, b: &Results, b_cell: &Cell) -> Pair {
    let scores = queries::Scores::of(a, a_cell, b, b_cell);
    let measures = Measure::ALL.iter();
    Pair {
        a: a_cell.key.clone(),
        b: b_cell.key.clone(),
        cautions: cautions::of_cells(a, a_cell, b, b_cell),
        measures: measures
            .filter_map(|measure| Compared::of(measure, a_cell, b_cell, scores.as_ref()))
            .collect(),
        queries: scores.map(|scores| scores.queries),
    }
}

impl Comparison {
    /// Decides about conditions, for every pair and for cells without a partner.
    #[must_use]
    pub fn judged(mut self, conditions: &[condition::Condition]) -> Self {
        let of_one = |condition: &condition::Condition| -> Vec<Judged> {
            let pairs = self.pairs.iter().map(|pair| condition.judge(pair));
            let alone = self
                .only_a
                .iter()
                .map(|cell| condition.without_partner(cell));
            pairs.chain(alone).collect()
        };
        self.conditions = conditions.iter().flat_map(of_one).collect();
        self
    }

    /// As a page. `picture` finds the images of both sessions.
    #[must_use]
    pub fn to_report(&self, picture: Picture<'_>) -> Report {
        page::report(self, picture)
    }
}
