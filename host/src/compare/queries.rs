//! Queries that both cells answered: their scores as pairs, and those that changed sides.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bench::results::{Accuracy, Cell, Found, QueryAnswer, QueryImage, Results};
use crate::evaluate::metrics::{self, Ranking};
use crate::evaluate::paired::{Difference, sign_test};

/// Which queries were compared, which were not, and what became of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Queries {
    /// Queries that are compared: asked and answered on both sides, with something to find
    /// in both galleries.
    pub n: usize,
    /// Asked in the first session alone.
    pub n_only_a: usize,
    /// Asked in the second session alone.
    pub n_only_b: usize,
    /// Asked in both, and not answered in one of them.
    pub n_unanswered: usize,
    /// Answered in both, and one of the galleries has nothing to find.
    pub n_without_relevant: usize,
    /// What the first match says, before and now.
    pub flips: Flips,
}

/// Who was right before and now, by the label of the first match.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// Right on both sides.
    pub n_right_both: usize,
    /// Wrong on both sides.
    pub n_wrong_both: usize,
    /// Probability that two equally good cells change sides so unevenly (sign test).
    pub chance: f64,
    /// Right on the first side and wrong on the second; worst first.
    pub lost: Vec<Flip>,
    /// Wrong on the first side and right on the second; the most improved first.
    pub won: Vec<Flip>,
}

/// A query whose first match changed sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// Identity, by which its picture is named.
    pub id: String,
    /// Its path within the data.
    pub name: String,
    /// Its label.
    pub label: String,
    /// What the first cell said.
    pub a: Answered,
    /// What the second cell said.
    pub b: Answered,
}

/// What a cell said to a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answered {
    /// Rank from 0 of the first match with the query's label; none if no match has it.
    pub first_right: Option<usize>,
    /// Best first.
    pub matches: Vec<Found>,
}

impl From<&QueryAnswer> for Answered {
    fn from(answer: &QueryAnswer) -> Self {
        Self {
            first_right: answer.first_right,
            matches: answer.matches.clone(),
        }
    }
}

impl Answered {
    /// The first match, such as `tea 0.913`; `nothing` if there is none.
    #[must_use]
    pub fn first(&self) -> String {
        match self.matches.first() {
            Some(Found { label, score, .. }) => format!("{label} {score:.3}"),
            None => "nothing".to_owned(),
        }
    }
}

impl Queries {
    /// What is compared and what is left out, as a sentence.
    #[must_use]
    pub fn said(&self) -> String {
        let left_out: Vec<String> = [
            (self.n_only_a, "asked in the first session alone"),
            (self.n_only_b, "asked in the second session alone"),
            (self.n_unanswered, "not answered by both"),
            (self.n_without_relevant, "without anything to find"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, why)| format!("{n} {why}"))
        .collect();
        let compared = format!("{} queries are compared", self.n);
        if left_out.is_empty() {
            return compared;
        }
        format!("{compared}; left out: {}", left_out.join(", "))
    }
}

impl Flips {
    /// How many changed sides, as a sentence.
    #[must_use]
    pub fn said(&self) -> String {
        format!(
            "{} right before and wrong now, {} wrong before and right now, {} right and {} \
             wrong on both sides; two equally good students differ by as much with \
             probability {:.3} (sign test)",
            self.lost.len(),
            self.won.len(),
            self.n_right_both,
            self.n_wrong_both,
            self.chance,
        )
    }
}

impl Flip {
    /// The query and both first matches, as a line.
    #[must_use]
    pub fn said(&self) -> String {
        format!("{} ({}): {}", self.name, self.label, self.firsts())
    }

    /// Both first matches.
    pub(super) fn firsts(&self) -> String {
        format!("{}, then {}", self.a.first(), self.b.first())
    }
}

/// The two answers to one query.
struct Both<'a> {
    query: &'a QueryImage,
    a: &'a QueryAnswer,
    b: &'a QueryAnswer,
}

/// A metric of both sides over the same queries.
pub(super) struct Paired {
    pub(super) old_mean: f64,
    pub(super) new_mean: f64,
    pub(super) difference: Difference,
}

/// What the queries say.
pub(super) struct Scores {
    pub(super) queries: Queries,
    by_metric: Vec<(&'static str, Paired)>,
}

type Metric = fn(&QueryImage, &QueryAnswer) -> Option<f64>;

/// Metrics of a single query, by the names of their means. A query with fewer matches than a
/// metric looks at has no value, and then the metric has none.
const METRICS: [(&str, Metric); 4] = [
    ("recall_at_1", |query, answer| recall(query, answer, 1)),
    ("recall_at_5", |query, answer| recall(query, answer, 5)),
    ("recall_at_10", |query, answer| recall(query, answer, 10)),
    ("mean_average_precision_at_r", |query, answer| {
        let ranking = ranking(query, answer);
        let is_deep = answer.matches.len() >= ranking.n_relevant;
        is_deep.then(|| metrics::mean_average_precision_at_r(&ranking))?
    }),
];

/// Whether a measure is a mean over queries, which only the same queries can share.
pub(super) fn is_mean_over_queries(name: &str) -> bool {
    METRICS.iter().any(|(known, _)| *known == name)
}

fn recall(query: &QueryImage, answer: &QueryAnswer, k: usize) -> Option<f64> {
    metrics::recall_at_k(&ranking(query, answer), k)
}

fn ranking(query: &QueryImage, answer: &QueryAnswer) -> Ranking {
    let hits = answer.matches.iter().enumerate();
    let right = hits.filter(|(_, found)| found.label == query.label);
    Ranking {
        ranks: right.map(|(rank, _)| rank).collect(),
        n_relevant: answer.n_relevant,
    }
}

/// Which of a cell's answers is whose: by identity and label of the image that asked.
fn by_query<'a>(
    results: &'a Results,
    accuracy: &'a Accuracy,
) -> BTreeMap<(&'a str, &'a str), Option<&'a QueryAnswer>> {
    let asked = results.queries.iter();
    let mut found: BTreeMap<_, _> = asked
        .map(|query| ((query.id.as_str(), query.label.as_str()), None))
        .collect();
    for answer in &accuracy.answers {
        if let Some(query) = results.queries.get(answer.query) {
            found.insert((&query.id, &query.label), Some(answer));
        }
    }
    found
}

impl Scores {
    /// `None` unless both cells were asked.
    pub(super) fn of(a: &Results, a_cell: &Cell, b: &Results, b_cell: &Cell) -> Option<Self> {
        let (a_accuracy, b_accuracy) = (a_cell.accuracy.as_ref()?, b_cell.accuracy.as_ref()?);
        let (of_a, of_b) = (by_query(a, a_accuracy), by_query(b, b_accuracy));
        let n_common = of_a.keys().filter(|key| of_b.contains_key(*key)).count();
        let (mut n_unanswered, mut n_without_relevant) = (0, 0);
        let mut both = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for query in &a.queries {
            let key = (query.id.as_str(), query.label.as_str());
            let (Some(a_answer), Some(b_answer)) = (of_a.get(&key), of_b.get(&key)) else {
                continue;
            };
            if !seen.insert(key) {
                continue;
            }
            match (a_answer, b_answer) {
                (Some(a), Some(b)) if a.n_relevant > 0 && b.n_relevant > 0 => {
                    both.push(Both { query, a, b });
                }
                (Some(_), Some(_)) => n_without_relevant += 1,
                _ => n_unanswered += 1,
            }
        }
        let depth = |matches: fn(&Accuracy) -> bool| matches(a_accuracy) && matches(b_accuracy);
        let is_known = |name: &str| match name {
            "recall_at_5" => depth(|found| found.recall_at_5.is_some()),
            "recall_at_10" => depth(|found| found.recall_at_10.is_some()),
            "mean_average_precision_at_r" => {
                depth(|found| found.mean_average_precision_at_r.is_some())
            }
            _ => true,
        };
        let by_metric = METRICS.into_iter().filter(|(name, _)| is_known(name));
        Some(Self {
            by_metric: by_metric
                .filter_map(|(name, metric)| Some((name, paired(&both, metric)?)))
                .collect(),
            queries: Queries {
                n: both.len(),
                n_only_a: of_a.len() - n_common,
                n_only_b: of_b.len() - n_common,
                n_unanswered,
                n_without_relevant,
                flips: flips(&both),
            },
        })
    }

    /// A measure over the queries that are compared, if it is a mean over queries.
    pub(super) fn of_measure(&self, name: &str) -> Option<&Paired> {
        let mut metrics = self.by_metric.iter();
        metrics
            .find(|(known, _)| *known == name)
            .map(|(_, paired)| paired)
    }
}

fn paired(both: &[Both<'_>], metric: Metric) -> Option<Paired> {
    let values = both
        .iter()
        .map(|both| Some((metric(both.query, both.a)?, metric(both.query, both.b)?)));
    let (old, new): (Vec<f64>, Vec<f64>) = values.collect::<Option<Vec<_>>>()?.into_iter().unzip();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    (!both.is_empty()).then(|| Paired {
        old_mean: mean(&old),
        new_mean: mean(&new),
        difference: Difference::of(&old, &new),
    })
}

fn flips(both: &[Both<'_>]) -> Flips {
    let is_right = |answer: &QueryAnswer| answer.first_right == Some(0);
    let (mut n_right_both, mut n_wrong_both) = (0, 0);
    let (mut lost, mut won) = (Vec::new(), Vec::new());
    for Both { query, a, b } in both {
        let side = match (is_right(a), is_right(b)) {
            (true, true) => {
                n_right_both += 1;
                continue;
            }
            (false, false) => {
                n_wrong_both += 1;
                continue;
            }
            (true, false) => &mut lost,
            (false, true) => &mut won,
        };
        side.push(Flip {
            id: query.id.clone(),
            name: query.name.clone(),
            label: query.label.clone(),
            a: (*a).into(),
            b: (*b).into(),
        });
    }
    worst_first(&mut lost, |flip| &flip.b);
    worst_first(&mut won, |flip| &flip.a);
    Flips {
        n_right_both,
        n_wrong_both,
        chance: sign_test(lost.len(), won.len()),
        lost,
        won,
    }
}

/// By the side that is wrong: the deepest first right match, then the surest wrong one.
fn worst_first(flips: &mut [Flip], wrong: fn(&Flip) -> &Answered) {
    let depth = |flip: &Flip| wrong(flip).first_right.unwrap_or(usize::MAX);
    let score = |flip: &Flip| wrong(flip).matches.first().map_or(0.0, |first| first.score);
    flips.sort_by(|a, b| {
        (depth(b).cmp(&depth(a)))
            .then(score(b).total_cmp(&score(a)))
            .then_with(|| a.name.cmp(&b.name))
    });
}
