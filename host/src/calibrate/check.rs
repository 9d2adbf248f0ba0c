//! A calibration on data that it was not found with: how often its verdicts are wrong.

use eyas_device::answer::{Answerer, Request, ViewError, merge};
use eyas_shared::calibration::{Calibration, CurveBin, Verdict};
use eyas_shared::embedding::Score;

use super::Observation;
use super::groups::Groups;
use super::intervals::clopper_pearson;

/// One object that was asked about, with one or several views.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it shows.
    pub label: String,
    /// Whether the gallery has that label.
    pub is_known: bool,
    /// The label that the answer shows first.
    pub first: String,
    /// Best score of the nearest label, less its offset.
    pub score: Score,
    /// What was answered.
    pub verdict: Verdict,
}

/// A share with its 95 % interval. Queries of one label are not independent: the interval is
/// that of the smaller number of independent ones.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Share {
    /// Cases that count.
    pub k: usize,
    /// All cases.
    pub n: usize,
    /// k / n.
    pub share: f64,
    /// Ends of the interval.
    pub interval: (f64, f64),
}

/// A bin of the curve with what the checked queries say of it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct CheckedBin {
    /// Lowest score.
    pub from: Score,
    /// What the calibration says.
    pub probability: f32,
    /// Share that was right, weighted for the calibration's share of unknown queries.
    pub observed: Option<f64>,
    /// Queries in the bin.
    pub n: usize,
}

/// Rates of a calibration on some data.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Rates {
    /// Labels of known queries.
    pub n_known_labels: usize,
    /// Labels of unknown queries.
    pub n_unknown_labels: usize,
    /// Unknown queries answered `match`.
    pub false_match: Share,
    /// Unknown queries answered `unknown`.
    pub unknown_rejected: Share,
    /// Known queries answered `unknown`.
    pub false_reject: Share,
    /// Known queries answered `match` with their label.
    pub right_match: Share,
    /// Known queries answered `match` with another label.
    pub wrong_match: Share,
    /// Known queries whose first label is theirs, whatever the verdict.
    pub first_right: Share,
    /// Chance that a known query scores higher than an unknown one (area under the curve).
    pub auroc: f64,
    /// The curve beside what was observed.
    pub curve: Vec<CheckedBin>,
}

/// Asks about every observation again, `n_views` of one label at a time as one object; those
/// that are left over are not asked.
///
/// # Errors
/// If views can not be merged.
pub fn answer(
    answerer: &Answerer<'_, '_>,
    calibration: &Calibration,
    observed: &[Observation],
    request: &Request,
    n_views: usize,
) -> Result<Vec<Case>, ViewError> {
    let mut by_label: Vec<&Observation> = observed.iter().collect();
    by_label.sort_by(|a, b| a.label.cmp(&b.label).then(a.id.cmp(&b.id)));
    let mut cases = Vec::new();
    for group in by_label.chunk_by(|a, b| a.label == b.label && a.is_known == b.is_known) {
        for views in group.chunks_exact(n_views.max(1)) {
            let embeddings: Vec<Vec<f32>> = views.iter().map(|o| o.embedding.clone()).collect();
            let asked = merge(&embeddings)?;
            let exclude = (views.len() == 1).then_some(views[0].id);
            let answer = answerer.answer(
                &asked,
                &Request {
                    exclude,
                    ..*request
                },
            );
            let Some(judgement) = answer.judgement else {
                continue;
            };
            let first = answer.found.first().map(|found| answerer.label(found));
            let nearest = &judgement.nearest;
            cases.push(Case {
                label: views[0].label.clone(),
                is_known: views[0].is_known,
                first: first.unwrap_or_default().to_owned(),
                score: nearest.score - calibration.offset(&nearest.label),
                verdict: judgement.verdict,
            });
        }
    }
    Ok(cases)
}

/// Counts the verdicts.
#[must_use]
pub fn rates(cases: &[Case], calibration: &Calibration) -> Rates {
    let side = |is_known: bool| -> Vec<&Case> {
        cases
            .iter()
            .filter(|case| case.is_known == is_known)
            .collect()
    };
    let (known, unknown) = (side(true), side(false));
    let is = |verdict: Verdict| move |case: &Case| case.verdict == verdict;
    let right = |case: &Case| case.first == case.label;
    let is_match = is(Verdict::Match);
    Rates {
        n_known_labels: groups_of(&known).n_groups(),
        n_unknown_labels: groups_of(&unknown).n_groups(),
        false_match: share(&unknown, is_match),
        unknown_rejected: share(&unknown, is(Verdict::Unknown)),
        false_reject: share(&known, is(Verdict::Unknown)),
        right_match: share(&known, |case| is_match(case) && right(case)),
        wrong_match: share(&known, |case| is_match(case) && !right(case)),
        first_right: share(&known, right),
        auroc: auroc(&known, &unknown),
        curve: checked_curve(cases, calibration, known.len(), unknown.len()),
    }
}

fn groups_of(cases: &[&Case]) -> Groups {
    Groups::of(cases.iter().map(|case| (case.label.as_str(), case.score)))
}

fn share(cases: &[&Case], counts: impl Fn(&Case) -> bool) -> Share {
    let (k, n) = (
        cases.iter().filter(|case| counts(case)).count(),
        cases.len(),
    );
    // What is counted has another correlation within labels than the scores; where it can be
    // seen at all, the larger of the two is taken.
    let indicator = Groups::of(
        { cases.iter() }.map(|case| (case.label.as_str(), f32::from(u8::from(counts(case))))),
    );
    let effect = groups_of(cases)
        .design_effect()
        .max(indicator.design_effect());
    Share {
        k,
        n,
        share: k as f64 / n.max(1) as f64,
        interval: clopper_pearson(k as f64 / effect, n as f64 / effect, 0.95),
    }
}

/// Share of pairs in which the known query scores higher, ties half (Mann and Whitney, 1947).
fn auroc(known: &[&Case], unknown: &[&Case]) -> f64 {
    let mut scores: Vec<(Score, bool)> = known
        .iter()
        .map(|case| (case.score, true))
        .chain(unknown.iter().map(|case| (case.score, false)))
        .collect();
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut sum) = (0.0, 0.0);
    for ties in scores.chunk_by(|a, b| a.0 == b.0) {
        let n_known = ties.iter().filter(|(_, is_known)| *is_known).count() as f64;
        let n_unknown = ties.len() as f64 - n_known;
        sum += n_known * (below + 0.5 * n_unknown);
        below += n_unknown;
    }
    sum / (known.len() * unknown.len()).max(1) as f64
}

fn checked_curve(
    cases: &[Case],
    calibration: &Calibration,
    n_known: usize,
    n_unknown: usize,
) -> Vec<CheckedBin> {
    let share = f64::from(calibration.evidence.unknown_share);
    let weight = |case: &Case| match case.is_known {
        true => (1.0 - share) / n_known.max(1) as f64,
        false => share / n_unknown.max(1) as f64,
    };
    let check = |bin: &CurveBin| {
        let inside: Vec<&Case> = { cases.iter() }
            .filter(|case| calibration.bin(case.score) == Some(bin))
            .collect();
        let total: f64 = inside.iter().map(|case| weight(case)).sum();
        let right = inside
            .iter()
            .filter(|case| case.is_known && case.first == case.label);
        CheckedBin {
            from: bin.from,
            probability: bin.probability,
            observed: (total > 0.0).then(|| right.map(|case| weight(case)).sum::<f64>() / total),
            n: inside.len(),
        }
    };
    calibration.curve.iter().map(check).collect()
}
