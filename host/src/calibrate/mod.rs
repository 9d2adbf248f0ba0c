//! What scores mean: thresholds for one student and one gallery, from queries whose label
//! the gallery has (known) and whose label it has not (unknown).
//!
//! Queries are encoded and searched by the device library, so it is the quantized student
//! that is calibrated, against the gallery as its rows are stored. [`thresholds`] holds the
//! rates, [`queries`] asks the gallery, [`groups`] asks how much the queries really tell, [`curve`] draws reliability,
//! [`check`] counts on other data. How a verdict is applied is written in
//! [`eyas_device::answer::judge`] alone.

pub mod check;
pub mod curve;
pub mod groups;
pub mod intervals;
pub mod queries;
pub mod remarks;
pub mod thresholds;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use eyas_device::answer::{Asked, Nearest, judge};
use eyas_device::matcher::Matcher;
use eyas_shared::calibration::{
    Calibration, Evidence, GalleryIdentity, LabelOffset, Thresholds, Verdict, Witness,
};
use eyas_shared::embedding::Score;
use eyas_shared::fingerprint::Fingerprint;
use thiserror::Error;

use curve::Outcome;
use groups::Groups;
pub use queries::{Labels, Observation, Observations, observe};
use thresholds::Guarantee;

/// Unknown queries from which a label may get thresholds of its own.
///
/// Its mean is then known to a third of the scores' spread; shrinkage does the rest.
pub const MIN_LABEL_QUERIES: usize = 10;

/// Largest offset of a label: further off, its thresholds would be no cosines any more.
const MAX_OFFSET: f64 = 0.5;

/// Queries that the board asks again, spread evenly over the scores.
const N_WITNESSES: usize = 16;

/// Why there is no calibration.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum CalibrateError {
    /// Too few unknown queries for the wanted rate.
    #[error(
        "{found} unknown queries can not show a false-match rate of {rate}: at least {needed} are \
         needed; {found} can show {smallest:.4}"
    )]
    TooFewUnknown {
        /// Wanted.
        rate: f64,
        /// Unknown queries that are there.
        found: usize,
        /// Unknown queries that are needed.
        needed: usize,
        /// Smallest rate that those can show.
        smallest: f64,
    },
    /// Too few unknown queries to bound the wanted rate.
    #[error(
        "{found} unknown queries of {n_labels} labels can not bound a false-match rate of {rate}: \
         scores within a label are so alike that they count as {effective:.0}; {needed} such \
         queries are needed, best of other labels"
    )]
    TooFewForBound {
        /// Wanted.
        rate: f64,
        /// Unknown queries that are there.
        found: usize,
        /// Their labels.
        n_labels: usize,
        /// As many independent ones tell as much.
        effective: f64,
        /// Queries of this kind that are needed.
        needed: usize,
    },
    /// Nothing to measure matches with.
    #[error("no query has a label of the gallery: nothing shows what a match scores")]
    NoKnown,
    /// An image that is called unknown, under a label of the gallery.
    #[error("`{path}` is given as unknown, but its label `{label}` is in the gallery")]
    KnownUnknown {
        /// Which image.
        path: String,
        /// Its label.
        label: String,
    },
}

/// What is wanted of a calibration. Shares and rates are in 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Share of unknown queries that may be answered `match`.
    pub false_match_rate: f64,
    /// Share of known queries that may be answered `unknown`.
    pub false_reject_rate: f64,
    /// Share of wrong labels among matches of known queries.
    pub wrong_match_rate: f64,
    /// Share of unknown queries where the student will work.
    pub unknown_share: f64,
    /// Confidence of the bound of the false-match rate.
    pub confidence: f64,
    /// Whether that bound, not the expected rate, has to be held.
    pub bounded: bool,
    /// Whether labels may get thresholds of their own.
    pub per_label: bool,
}

/// What another false-match rate would give, on the queries that a calibration was found with.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Tradeoff {
    /// The rate.
    pub false_match_rate: f64,
    /// A match from this score on.
    pub match_score: Score,
    /// Share of known queries answered `match` with their label.
    pub right_match: f64,
    /// Share of known queries answered `match` with another label.
    pub wrong_match: f64,
}

/// Rates that [`tradeoffs`] are shown for.
const RATES: [f64; 6] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2];

/// How many known queries would be answered `match` at other false-match rates, with the
/// calibration's offsets; rates that there are too few unknown queries for are left out.
#[must_use]
pub fn tradeoffs(
    observed: &[Observation],
    settings: &Settings,
    calibration: &Calibration,
) -> Vec<Tradeoff> {
    let scored = scored(observed, calibration);
    let n_known = f64::from(calibration.evidence.n_known);
    let at = |rate: &f64| {
        let wanted = Settings {
            false_match_rate: *rate,
            ..*settings
        };
        let mut other = calibration.clone();
        other.thresholds = find_thresholds(&scored, &wanted).ok()?;
        count(&mut other, &scored);
        Some(Tradeoff {
            false_match_rate: *rate,
            match_score: other.thresholds.match_score,
            right_match: f64::from(other.evidence.right_matches) / n_known,
            wrong_match: f64::from(other.evidence.wrong_matches) / n_known,
        })
    };
    RATES.iter().filter_map(at).collect()
}

/// Observations with the best score of their first label, less its offset.
///
/// Unknown queries get the offsets that the *other* unknown labels give: what is unknown
/// later has no part in the offsets either. With their own part they would look lower than
/// the unknown queries to come, and the false-match rate would not hold.
fn scored<'o>(
    observed: &'o [Observation],
    calibration: &Calibration,
) -> Vec<(Score, &'o Observation)> {
    let mut without: BTreeMap<&str, Vec<LabelOffset>> = BTreeMap::new();
    { observed.iter() }
        .map(|observation| {
            let nearest = &observation.nearest;
            let offset = if observation.is_known || calibration.offsets.is_empty() {
                calibration.offset(&nearest.label)
            } else {
                let label = observation.label.as_str();
                let offsets = { without.entry(label) }
                    .or_insert_with(|| label_offsets(observed, Some(label)));
                let own = offsets.iter().find(|offset| offset.label == nearest.label);
                own.map_or(0.0, |own| own.offset)
            };
            (nearest.score - offset, observation)
        })
        .collect()
}

/// Finds thresholds and all that goes with them.
///
/// `probe_scores` are the best scores of the bundle's probes, `manifest` names the images.
///
/// # Errors
/// If the observations can not show the wanted rates.
pub fn calibrate(
    observed: &[Observation],
    settings: &Settings,
    matcher: &Matcher<'_>,
    probe_scores: Vec<Score>,
    manifest: Fingerprint,
) -> Result<Calibration, CalibrateError> {
    let offsets = if settings.per_label {
        label_offsets(observed, None)
    } else {
        Vec::new()
    };
    let mut calibration = Calibration {
        gallery: GalleryIdentity::of(matcher.gallery()),
        row_encoding: matcher.gallery().codes().scoring(),
        thresholds: Thresholds {
            match_score: 0.0,
            unknown_score: 0.0,
            margin: 0.0,
        },
        offsets,
        evidence: evidence(observed, settings),
        curve: Vec::new(),
        witnesses: Vec::new(),
        witness_embeddings: Vec::new(),
        probe_scores,
        manifest,
        eyas_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let scored = scored(observed, &calibration);
    calibration.thresholds = find_thresholds(&scored, settings)?;
    count(&mut calibration, &scored);
    let outcomes: Vec<(Score, Outcome)> = { scored.iter() }
        .map(|(score, observation)| (*score, observation.outcome()))
        .collect();
    calibration.curve = curve::curve(&outcomes, settings.unknown_share);
    add_witnesses(&mut calibration, scored, matcher);
    Ok(calibration)
}

/// Offsets of the labels that unknown queries land on, where enough of them do; those of one
/// unknown label left out.
fn label_offsets(observed: &[Observation], except: Option<&str>) -> Vec<LabelOffset> {
    let unknown = { observed.iter() }
        .filter(|observation| !observation.is_known && Some(observation.label.as_str()) != except);
    let groups = Groups::of(unknown.map(|observation| {
        let nearest = &observation.nearest;
        (nearest.label.as_str(), nearest.score)
    }));
    groups
        .shrunken_shifts(MIN_LABEL_QUERIES)
        .map(|(label, shift, n)| LabelOffset {
            label: label.to_owned(),
            offset: shift.clamp(-MAX_OFFSET, MAX_OFFSET) as f32,
            n_unknown: n as u32,
        })
        .collect()
}

/// Rates as wanted, and what there is to find them with; outcomes are counted later.
fn evidence(observed: &[Observation], settings: &Settings) -> Evidence {
    let count = |is_known: bool| {
        let those = observed.iter().filter(|o| o.is_known == is_known);
        let labels: BTreeSet<&str> = those.clone().map(|o| o.label.as_str()).collect();
        (those.count() as u32, labels.len() as u32)
    };
    let (n_known, n_known_labels) = count(true);
    let (n_unknown, n_unknown_labels) = count(false);
    Evidence {
        wanted_false_match_rate: settings.false_match_rate as f32,
        wanted_false_reject_rate: settings.false_reject_rate as f32,
        wanted_wrong_match_rate: settings.wrong_match_rate as f32,
        unknown_share: settings.unknown_share as f32,
        confidence: settings.confidence as f32,
        n_known,
        n_known_labels,
        n_unknown,
        n_unknown_labels,
        design_effect: 1.0,
        false_matches: 0,
        false_match_bound: 1.0,
        right_matches: 0,
        wrong_matches: 0,
        false_rejects: 0,
    }
}

/// How many unknown observations weigh as much as an independent one.
fn design_effect(scored: &[(Score, &Observation)]) -> f64 {
    let unknown = scored.iter().filter(|(_, o)| !o.is_known);
    Groups::of(unknown.map(|(score, o)| (o.label.as_str(), *score))).design_effect()
}

fn find_thresholds(
    scored: &[(Score, &Observation)],
    settings: &Settings,
) -> Result<Thresholds, CalibrateError> {
    let scores = |is_known: bool| -> Vec<Score> {
        let those = scored.iter().filter(|(_, o)| o.is_known == is_known);
        those.map(|(score, _)| *score).collect()
    };
    let (known, unknown) = (scores(true), scores(false));
    if known.is_empty() {
        return Err(CalibrateError::NoKnown);
    }
    let effect = design_effect(scored);
    let guarantee = if settings.bounded {
        Guarantee::Bounded {
            confidence: settings.confidence,
            design_effect: effect,
        }
    } else {
        Guarantee::Expected
    };
    let (rate, found) = (settings.false_match_rate, unknown.len());
    let needed = thresholds::needed_unknown(rate, guarantee);
    let allowed = thresholds::allowed_false_matches(found, rate, guarantee);
    let Some(allowed) = allowed.filter(|_| found > 0) else {
        return Err(if settings.bounded {
            CalibrateError::TooFewForBound {
                rate,
                found,
                n_labels: { scored.iter() }
                    .filter(|(_, o)| !o.is_known)
                    .map(|(_, o)| o.label.as_str())
                    .collect::<BTreeSet<_>>()
                    .len(),
                effective: found as f64 / effect,
                needed,
            }
        } else {
            CalibrateError::TooFewUnknown {
                rate,
                found,
                needed,
                smallest: 1.0 / (found + 1) as f64,
            }
        });
    };
    let match_score = thresholds::match_threshold(&unknown, allowed);
    let matches: Vec<(Score, bool)> = scored
        .iter()
        .filter(|(score, o)| o.is_known && *score >= match_score)
        // A gallery of one label has no second: its matches need no lead.
        .map(|(_, o)| (o.nearest.margin().unwrap_or(f32::MAX), o.is_right()))
        .collect();
    Ok(Thresholds {
        match_score,
        unknown_score: thresholds::unknown_threshold(
            &known,
            settings.false_reject_rate,
            match_score,
        ),
        margin: thresholds::margin(&matches, settings.wrong_match_rate).unwrap_or(0.0),
    })
}

/// Counts what the thresholds make of the observations that they were found with.
fn count(calibration: &mut Calibration, scored: &[(Score, &Observation)]) {
    let mut counts = [0_u32; 4];
    for (score, observation) in scored {
        let judgement = judge::judge(calibration, observation.nearest.clone());
        let reaches = *score >= calibration.thresholds.match_score;
        let case = match (observation.is_known, judgement.verdict) {
            (false, _) if reaches => 0,
            (true, Verdict::Match) if observation.is_right() => 1,
            (true, Verdict::Match) => 2,
            (true, Verdict::Unknown) => 3,
            _ => continue,
        };
        counts[case] += 1;
    }
    let effect = design_effect(scored);
    let evidence = &mut calibration.evidence;
    let [false_matches, right_matches, wrong_matches, false_rejects] = counts;
    evidence.design_effect = effect as f32;
    evidence.false_matches = false_matches;
    // The k-th best of n scores as a threshold: the true rate has exactly the distribution
    // that this bound inverts, although threshold and count come from the same queries.
    evidence.false_match_bound = intervals::upper_bound(
        f64::from(false_matches) / effect,
        f64::from(evidence.n_unknown) / effect,
        f64::from(evidence.confidence),
    ) as f32;
    evidence.right_matches = right_matches;
    evidence.wrong_matches = wrong_matches;
    evidence.false_rejects = false_rejects;
}

/// Keeps queries from the lowest to the highest score for the board to ask again, now without
/// leaving anything out.
fn add_witnesses(
    calibration: &mut Calibration,
    mut scored: Vec<(Score, &Observation)>,
    matcher: &Matcher<'_>,
) {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.id.cmp(&b.1.id)));
    let n = scored.len().min(N_WITNESSES);
    for witness_idx in 0..n {
        let (_, observation) = scored[witness_idx * (scored.len() - 1) / (n - 1).max(1)];
        let asked = Asked::single(observation.embedding.clone());
        let Some(nearest) = Nearest::of(matcher, &asked, None) else {
            continue;
        };
        let margin = nearest.margin();
        let judgement = judge::judge(calibration, nearest);
        calibration.witness_embeddings.extend(asked.embedding);
        calibration.witnesses.push(Witness {
            label: judgement.nearest.label,
            score: judgement.nearest.score,
            margin,
            verdict: judgement.verdict,
        });
    }
}
