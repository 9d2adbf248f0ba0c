//! "Best under 50 ms and 64 MB": limits as text, who may be chosen, and the choice.

use thiserror::Error;

use crate::bench::measures::Measure;
use crate::bench::results::Cell;

/// How a measure has to stand to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
}

impl Relation {
    /// Longer signs first, so that `<=` is not read as `<`.
    const SIGNS: [(&'static str, Self); 4] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Below),
        (">", Self::Above),
    ];

    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
        }
    }

    fn sign(self) -> &'static str {
        let mut signs = Self::SIGNS.iter();
        signs
            .find(|(_, of)| *of == self)
            .map_or("", |(sign, _)| sign)
    }
}

/// A measure within a bound, such as `p95_ms<50`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// What is limited.
    pub measure: &'static Measure,
    /// On which side.
    pub relation: Relation,
    /// By what; finite.
    pub bound: f64,
}

/// Why limits can not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LimitError {
    /// No sign between two things.
    #[error("`{0}` is no limit; one is a measure, `<`, `<=`, `>` or `>=`, and a number")]
    Form(String),
    /// A name that no measure has.
    #[error("`{name}` is no measure")]
    Name {
        /// What was written.
        name: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// No finite number after the sign.
    #[error("`{text}` in `{limit}` is no number")]
    Number {
        /// What was written for a number.
        text: String,
        /// The whole limit.
        limit: String,
    },
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, sign) = (self.measure.name, self.relation.sign());
        write!(f, "{name}{sign}{}", self.bound)
    }
}

impl Limit {
    /// A list of limits with commas between them, all of which have to hold; none of an
    /// empty text.
    ///
    /// # Errors
    /// If one is not a measure, a sign and a number.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, LimitError> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        text.split(',')
            .map(|part| Self::parse(part.trim()))
            .collect()
    }

    fn parse(text: &str) -> Result<Self, LimitError> {
        let at = |sign: &&(&str, Relation)| text.contains(sign.0);
        let (sign, relation) = { Relation::SIGNS.iter() }
            .find(at)
            .ok_or_else(|| LimitError::Form(text.to_owned()))?;
        let (name, bound) = text.split_once(sign).unwrap_or_default();
        let (name, bound) = (name.trim(), bound.trim());
        let measure = Measure::by_name(name).ok_or_else(|| LimitError::Name {
            name: name.to_owned(),
            suggestion: Measure::suggestion(name),
        })?;
        let number = bound.parse().ok().filter(|number: &f64| number.is_finite());
        Ok(Self {
            measure,
            relation: *relation,
            bound: number.ok_or_else(|| LimitError::Number {
                text: bound.to_owned(),
                limit: text.to_owned(),
            })?,
        })
    }

    /// Whether a cell has the measure, within the bound.
    #[must_use]
    pub fn holds(&self, cell: &Cell) -> bool {
        let value = self.measure.read(cell);
        value.is_some_and(|value| self.relation.holds(value, self.bound))
    }
}

/// Why a cell can not be chosen, in words; none if it can.
#[must_use]
pub fn why_not(cell: &Cell) -> Option<&'static str> {
    let unanswered = |cell: &Cell| cell.accuracy.iter().any(|found| !found.failed.is_empty());
    if !cell.failures.is_empty() {
        return Some("something failed");
    }
    if unanswered(cell) {
        return Some("some queries were not answered");
    }
    let Some(performance) = &cell.performance else {
        return Some("its speed was not measured");
    };
    if performance.n_clean == 0 {
        return Some(NEVER_CLEAN);
    }
    if Measure::by_name("recall_at_1").is_none_or(|recall| recall.read(cell).is_none()) {
        return Some("its recall was not measured");
    }
    None
}

/// Why not, if a cell's only fault is that nobody left it alone: its numbers are there, but
/// not to be compared with those of another session.
pub(crate) const NEVER_CLEAN: &str = "all its windows are flagged";

/// Cells that a front can be made of: those that can be chosen; if there are none, those
/// whose only fault is that all their windows are flagged.
#[must_use]
pub fn comparable(cells: &[Cell]) -> Vec<bool> {
    let reasons: Vec<Option<&str>> = cells.iter().map(why_not).collect();
    let is_any_clean = reasons.iter().any(Option::is_none);
    let has_recall = |cell: &Cell| cell.accuracy.is_some();
    let provisional =
        |cell: &Cell, reason| !is_any_clean && reason == NEVER_CLEAN && has_recall(cell);
    { cells.iter().zip(reasons) }
        .map(|(cell, reason)| reason.is_none_or(|reason| provisional(cell, reason)))
        .collect()
}

/// The cell with the highest recall_at_1 among those that can be chosen and keep all limits;
/// among equals the one with the lowest p95 latency, then the first.
#[must_use]
pub fn best<'a>(cells: impl IntoIterator<Item = &'a Cell>, limits: &[Limit]) -> Option<&'a Cell> {
    let mut best: Option<(&Cell, f64, f64)> = None;
    for cell in cells {
        if why_not(cell).is_some() || !limits.iter().all(|limit| limit.holds(cell)) {
            continue;
        }
        let (Some(accuracy), Some(performance)) = (&cell.accuracy, &cell.performance) else {
            continue;
        };
        let (recall, p95) = (accuracy.recall_at_1, performance.p95_ms);
        let is_better = best.is_none_or(|(_, highest, shortest)| {
            recall > highest || (recall == highest && p95 < shortest)
        });
        if is_better {
            best = Some((cell, recall, p95));
        }
    }
    best.map(|(cell, ..)| cell)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn limits_are_read_with_all_signs_and_any_spaces() {
        let limits =
            Limit::parse_all(" p95_ms <50,rss_mb<= 64 ,recall_at_1>0.5,threads>=1").unwrap();
        let shown: Vec<String> = limits.iter().map(Limit::to_string).collect();
        assert_eq!(
            shown,
            ["p95_ms<50", "rss_mb<=64", "recall_at_1>0.5", "threads>=1"]
        );
        assert!(Limit::parse_all("  ").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_limit_is_said_with_what_was_meant() {
        let fault = |text| Limit::parse_all(text).unwrap_err();
        assert_eq!(fault("p95_ms"), LimitError::Form("p95_ms".to_owned()));
        let name = LimitError::Name {
            name: "p95ms".to_owned(),
            suggestion: Some("p95_ms"),
        };
        assert_eq!(fault("p95ms<5"), name);
        for wrong in ["p95_ms<", "p95_ms<five", "p95_ms<NaN", "p95_ms<inf"] {
            assert!(matches!(fault(wrong), LimitError::Number { .. }), "{wrong}");
        }
    }

    #[test]
    fn the_best_keeps_all_limits_and_ties_go_to_the_quicker() {
        let session = fixture::session();
        let all = best(&session.cells, &[]).unwrap();
        for cell in &session.cells {
            if why_not(cell).is_none() {
                let recall = |cell: &Cell| cell.accuracy.as_ref().unwrap().recall_at_1;
                assert!(recall(cell) <= recall(all));
            }
        }
        let p95 = all.performance.as_ref().unwrap().p95_ms;
        let limits = Limit::parse_all(&format!("p95_ms<{p95}")).unwrap();
        let other = best(&session.cells, &limits).unwrap();
        assert!(other.performance.as_ref().unwrap().p95_ms < p95);
        assert!(best(&session.cells, &Limit::parse_all("p95_ms<0").unwrap()).is_none());

        let mut twin = all.clone();
        twin.performance.as_mut().unwrap().p95_ms = p95 / 2.0;
        assert_eq!(best([all, &twin], &[]), Some(&twin));
    }

    #[test]
    fn cells_that_failed_or_were_never_clean_can_not_be_chosen() {
        let session = fixture::session();
        let good = best(&session.cells, &[]).unwrap();
        assert_eq!(why_not(good), None);
        let changes: [fn(&mut Cell); 5] = [
            |cell| cell.failures.push("cut".to_owned()),
            |cell| cell.performance.as_mut().unwrap().n_clean = 0,
            |cell| cell.performance = None,
            |cell| cell.accuracy = None,
            |cell| {
                let accuracy = cell.accuracy.as_mut().unwrap();
                accuracy.failed.push((0, "no answer".to_owned()));
            },
        ];
        for change in changes {
            let mut cell = good.clone();
            change(&mut cell);
            assert!(why_not(&cell).is_some());
            assert!(best([&cell], &[]).is_none());
        }
    }

    #[test]
    fn without_a_clean_window_anywhere_flagged_cells_are_compared_with_each_other() {
        let mut session = fixture::session();
        let n_clean = |session: &crate::bench::results::Results| {
            comparable(&session.cells).iter().filter(|is| **is).count()
        };
        assert_eq!(n_clean(&session), session.cells.len() - 1);
        for cell in &mut session.cells[1..] {
            cell.performance.as_mut().unwrap().n_clean = 0;
        }
        assert_eq!(n_clean(&session), 1);
        session.cells[0].performance.as_mut().unwrap().n_clean = 0;
        assert_eq!(n_clean(&session), session.cells.len() - 1);
        assert!(best(&session.cells, &[]).is_none());
    }

    #[test]
    fn a_limit_over_what_was_not_measured_does_not_hold() {
        let session = fixture::session();
        let mut cell = best(&session.cells, &[]).unwrap().clone();
        cell.performance.as_mut().unwrap().joules_per_query = None;
        let limits = Limit::parse_all("joules_per_query<1000").unwrap();
        assert!(best([&cell], &limits).is_none());
    }
}
