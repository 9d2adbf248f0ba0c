//! What scores mean: thresholds for one student and one gallery, from queries whose label
//! the gallery has (known) and whose label it has not (unknown).
//!
//! Queries are encoded and searched by the device library, so it is the quantized student
//! that is calibrated, against the gallery as its rows are stored. [`thresholds`] holds the
//! rates, [`groups`] asks how much the queries really tell, [`curve`] draws reliability,
//! [`check`] counts on other data. How a verdict is applied is written in
//! [`eyas_device::answer::judge`] alone.

pub mod check;
pub mod curve;
pub mod groups;
pub mod intervals;
pub mod thresholds;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use eyas_device::answer::{Asked, Nearest, judge};
use eyas_device::matcher::Matcher;
use eyas_shared::calibration::{
    Calibration, Evidence, GalleryIdentity, LabelOffset, Thresholds, Verdict, Witness,
};
use eyas_shared::embedding::Score;
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use thiserror::Error;

use crate::data::manifest::Manifest;
use crate::embeddings::EmbeddedImages;
use curve::Outcome;
use groups::Groups;
use thresholds::Guarantee;

/// Unknown queries from which a label may get thresholds of its own.
///
/// Its mean is then known to a third of the scores' spread; shrinkage does the rest.
pub const MIN_LABEL_QUERIES: usize = 10;

/// Unknown labels below which a calibration says so: with fewer, one odd label is a tenth of
/// all that is known of unknown things.
pub const FEW_LABELS: usize = 10;

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

/// One query with what the gallery says to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Its image.
    pub id: ImageId,
    /// What it shows.
    pub label: String,
    /// Whether the gallery has that label, in another image.
    pub is_known: bool,
    /// Its embedding.
    pub embedding: Vec<f32>,
    /// The nearest labels, the query's own image left out.
    pub nearest: Nearest,
}

impl Observation {
    /// Whether the first label is the query's.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.is_known && self.nearest.label == self.label
    }

    fn outcome(&self) -> Outcome {
        match (self.is_known, self.is_right()) {
            (false, _) => Outcome::Unknown,
            (true, true) => Outcome::Right,
            (true, false) => Outcome::Wrong,
        }
    }
}

/// Which labels a gallery has beside a given image.
pub struct Labels {
    n_rows: HashMap<String, usize>,
    of_image: HashMap<(ImageId, String), usize>,
}

impl Labels {
    /// Reads the label of every row.
    #[must_use]
    pub fn of(matcher: &Matcher<'_>) -> Self {
        let (mut n_rows, mut of_image) = (HashMap::new(), HashMap::new());
        let gallery = matcher.gallery();
        for entry in (0..gallery.n_rows()).filter_map(|row| gallery.entry(row)) {
            *n_rows.entry(entry.label.to_owned()).or_insert(0) += 1;
            *of_image
                .entry((entry.id, entry.label.to_owned()))
                .or_insert(0) += 1;
        }
        Self { n_rows, of_image }
    }

    /// Whether a query of this label has something to find; `None` if only itself.
    #[must_use]
    pub fn knows(&self, label: &str, id: ImageId) -> Option<bool> {
        let Some(n_rows) = self.n_rows.get(label) else {
            return Some(false);
        };
        let own = self
            .of_image
            .get(&(id, label.to_owned()))
            .copied()
            .unwrap_or(0);
        (*n_rows > own).then_some(true)
    }

    /// Whether the gallery has this very image under this label.
    #[must_use]
    pub fn has_image(&self, label: &str, id: ImageId) -> bool {
        self.of_image.contains_key(&(id, label.to_owned()))
    }
}

/// Queries with the answers of a gallery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    /// Each image once, by ascending id.
    pub list: Vec<Observation>,
    /// Images that are the only one of their label in the gallery: neither known nor unknown.
    pub n_alone: usize,
    /// Images that are in the gallery: the student has probably been trained on them.
    pub n_in_gallery: usize,
}

/// Asks with every embedded image of `manifest`, and of `unknown`, whose labels must not be
/// in the gallery. Images that were not embedded are left out.
///
/// # Errors
/// If an image of `unknown` has a label of the gallery.
pub fn observe(
    manifest: &Manifest,
    unknown: &[Manifest],
    embedded: &EmbeddedImages,
    matcher: &Matcher<'_>,
) -> Result<Observations, CalibrateError> {
    let labels = Labels::of(matcher);
    for image in unknown.iter().flat_map(|manifest| &manifest.images) {
        if labels.n_rows.contains_key(&image.label) {
            let (path, label) = (image.path.clone(), image.label.clone());
            return Err(CalibrateError::KnownUnknown { path, label });
        }
    }
    let mut observed = Observations::default();
    let mut seen = BTreeSet::new();
    let images = manifest.images.iter();
    for image in images.chain(unknown.iter().flat_map(|manifest| &manifest.images)) {
        let Some(embedding) = embedded.get(&image.id) else {
            continue;
        };
        if !seen.insert(image.id) {
            continue;
        }
        let Some(is_known) = labels.knows(&image.label, image.id) else {
            observed.n_alone += 1;
            continue;
        };
        let asked = Asked::single(embedding.to_vec());
        let Some(nearest) = Nearest::of(matcher, &asked, Some(image.id)) else {
            continue;
        };
        observed.n_in_gallery += usize::from(labels.has_image(&image.label, image.id));
        observed.list.push(Observation {
            id: image.id,
            label: image.label.clone(),
            is_known,
            embedding: asked.embedding,
            nearest,
        });
    }
    observed.list.sort_by_key(|observation| observation.id);
    Ok(observed)
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
        label_offsets(observed)
    } else {
        Vec::new()
    };
    let mut calibration = Calibration {
        gallery: GalleryIdentity::of(matcher.gallery()),
        row_encoding: matcher.gallery().header.encoding.to_string(),
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
    let scored: Vec<(Score, &Observation)> = { observed.iter() }
        .map(|observation| {
            let nearest = &observation.nearest;
            (
                nearest.score - calibration.offset(&nearest.label),
                observation,
            )
        })
        .collect();
    calibration.thresholds = find_thresholds(&scored, settings)?;
    count(&mut calibration, &scored);
    let outcomes: Vec<(Score, Outcome)> = { scored.iter() }
        .map(|(score, observation)| (*score, observation.outcome()))
        .collect();
    calibration.curve = curve::curve(&outcomes, settings.unknown_share);
    add_witnesses(&mut calibration, scored, matcher);
    Ok(calibration)
}

/// Offsets of the labels that unknown queries land on, where enough of them do.
fn label_offsets(observed: &[Observation]) -> Vec<LabelOffset> {
    let unknown = observed.iter().filter(|observation| !observation.is_known);
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

/// What whoever relies on a calibration should know, in sentences.
#[must_use]
pub fn remarks(calibration: &Calibration, observed: &Observations) -> Vec<String> {
    let evidence = &calibration.evidence;
    let mut remarks = Vec::new();
    if evidence.false_match_bound > evidence.wanted_false_match_rate {
        remarks.push(format!(
            "the false-match rate may be as high as {:.3}: {} unknown queries of {} labels count \
             as {:.0} independent ones. --bound holds the rate with {} % confidence, where there \
             are enough",
            evidence.false_match_bound,
            evidence.n_unknown,
            evidence.n_unknown_labels,
            f64::from(evidence.n_unknown) / f64::from(evidence.design_effect),
            (evidence.confidence * 100.0).round(),
        ));
    }
    if (evidence.n_unknown_labels as usize) < FEW_LABELS {
        remarks.push(format!(
            "unknown queries are of {} labels only: what else is held in front of the camera may \
             look otherwise",
            evidence.n_unknown_labels
        ));
    }
    let n_matches = evidence.right_matches + evidence.wrong_matches;
    if f64::from(evidence.wrong_matches)
        > f64::from(evidence.wanted_wrong_match_rate) * f64::from(n_matches)
    {
        remarks.push(format!(
            "no margin that leaves {} matches brings wrong labels down to {} of them: {} of \
             {n_matches} are wrong",
            thresholds::MIN_MATCHES,
            evidence.wanted_wrong_match_rate,
            evidence.wrong_matches
        ));
    }
    if calibration.thresholds.unknown_score == eyas_shared::calibration::NO_SCORE {
        remarks.push(format!(
            "{} known queries are too few for a false-reject rate of {}: nothing will be \
             answered `unknown`",
            evidence.n_known, evidence.wanted_false_reject_rate
        ));
    }
    if observed.n_in_gallery > 0 {
        remarks.push(format!(
            "{} queries are images of the gallery: if the student was trained on them, known \
             queries score too well",
            observed.n_in_gallery
        ));
    }
    if observed.n_alone > 0 {
        remarks.push(format!(
            "{} queries were left out: they are the only image of their label in the gallery",
            observed.n_alone
        ));
    }
    remarks
}
