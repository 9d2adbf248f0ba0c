//! What a score means for one student and one gallery: from which score on a query is
//! answered with a match, and below which it shows none of the gallery's labels.
//!
//! A [`Calibration`] is found on the host and is a section of its own in the bundle, so the
//! student's bytes stay as they are. It names the gallery that it was found with
//! ([`GalleryIdentity`]) and carries the counts that it rests on. Neither how thresholds are
//! found nor how they are applied is written here: that is the host's and the device's part.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::embedding::{Embeddings, Score};
use crate::fingerprint::{Fingerprint, Fingerprinter, ImageId};
use crate::gallery::Gallery;

/// Most calibrations that one bundle carries: one for each gallery that it serves.
pub const MAX_CALIBRATIONS: usize = 16;

/// Ids that a [`GalleryIdentity`] keeps.
pub const SAMPLE_IDS: usize = 256;

/// Lowest score that thresholds name: below every cosine, whatever a label's offset.
pub const NO_SCORE: Score = -4.0;

/// What is answered to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It shows the label that is found first.
    Match,
    /// The scores do not tell.
    Uncertain,
    /// It shows none of the gallery's labels.
    Unknown,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Match => "match",
            Self::Uncertain => "uncertain",
            Self::Unknown => "unknown",
        })
    }
}

/// Which images, under which labels, a gallery holds; however its rows are ordered and
/// stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GalleryIdentity {
    /// Of the ids and labels of all rows, in any order.
    pub content: Fingerprint,
    /// As the gallery's header names what it holds, encoding of rows and names included;
    /// none for galleries of version 1. Where it is the same, no row needs to be read.
    pub stored: Option<Fingerprint>,
    /// Number of rows.
    pub n_rows: u32,
    /// The smallest [`SAMPLE_IDS`] different ids, ascending. Ids are hashes, so this is a
    /// random sample, and two of them tell how much two galleries share (bottom-k sketch:
    /// Cohen and Kaplan, PODC 2007).
    pub sample: Vec<ImageId>,
}

impl GalleryIdentity {
    /// Reads the id and label of every row that was not removed.
    ///
    /// Hashes of rows are added up, so the order does not matter and nothing grows with the
    /// number of rows. Made against mistakes, not against an adversary, who could find two
    /// galleries with the same sum.
    #[must_use]
    pub fn of(gallery: &Gallery<'_>) -> Self {
        let labels: Vec<[u8; 32]> = (0..gallery.header.n_labels)
            .map(|idx| Fingerprint::of_bytes(gallery.label(idx).unwrap_or("").as_bytes()).0)
            .collect();
        let mut sums = [0_u64; 4];
        let mut sample = BTreeSet::new();
        for row in (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row)) {
            let id = gallery.id(row);
            // A label number out of range is for `Gallery::verify` to name.
            let label = labels.get(gallery.label_idx(row) as usize);
            let hash = Sha256::new()
                .chain_update(id.0)
                .chain_update(label.unwrap_or(&[0; 32]))
                .finalize();
            for (sum, part) in sums.iter_mut().zip(hash.as_chunks::<8>().0) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*part));
            }
            if sample.len() < SAMPLE_IDS || sample.last().is_some_and(|last| id < *last) {
                sample.insert(id);
                if sample.len() > SAMPLE_IDS {
                    sample.pop_last();
                }
            }
        }
        let sum: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Self {
            content: Fingerprinter::new("eyas gallery content 1")
                .field("space", &gallery.header.space.0.0)
                .field("n_rows", &gallery.n_images().to_le_bytes())
                .field("sum", &sum)
                .finish(),
            stored: gallery.header.content,
            n_rows: gallery.n_images(),
            sample: sample.into_iter().collect(),
        }
    }

    /// How many rows `later` holds that are not in `self`, and how many of `self` it does not
    /// hold: `(added, removed)`, estimated from the samples, exact for galleries of at most
    /// [`SAMPLE_IDS`] different images.
    #[must_use]
    pub fn drift(&self, later: &Self) -> (u32, u32) {
        let (before, after): (BTreeSet<_>, BTreeSet<_>) =
            (self.sample.iter().collect(), later.sample.iter().collect());
        // Beyond the last id of a full sample nothing is known of that gallery.
        let horizon = [&self.sample, &later.sample]
            .into_iter()
            .filter(|sample| sample.len() >= SAMPLE_IDS)
            .filter_map(|sample| sample.last())
            .min();
        let seen = |id: &&&ImageId| horizon.is_none_or(|horizon| **id <= horizon);
        let n_seen = before.union(&after).filter(seen).count();
        if n_seen == 0 {
            return (later.n_rows, self.n_rows);
        }
        let n_shared = before.intersection(&after).filter(seen).count();
        let (n_before, n_after) = (f64::from(self.n_rows), f64::from(later.n_rows));
        let jaccard = n_shared as f64 / n_seen as f64;
        let shared = (jaccard * (n_before + n_after) / (1.0 + jaccard)).min(n_before.min(n_after));
        let rest = |n: f64| (n - shared).round() as u32;
        (rest(n_after), rest(n_before))
    }
}

/// Where one verdict ends and the next begins.
///
/// They are compared with a label's best score less the label's [offset](LabelOffset).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// From here on a query is a match, if the margin is wide enough.
    pub match_score: Score,
    /// Below this a query is unknown. At most `match_score`.
    pub unknown_score: Score,
    /// Smallest lead of the first label's best score over the second label's.
    pub margin: Score,
}

/// A label that draws unknown queries to higher, or lower, scores than others do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelOffset {
    /// The gallery's label.
    pub label: String,
    /// How much higher its thresholds are, after shrinkage towards 0.
    pub offset: Score,
    /// Unknown queries that came nearest to it.
    pub n_unknown: u32,
}

/// What was asked for, and the counts that the thresholds rest on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Wanted share of unknown queries that are answered `match`.
    pub wanted_false_match_rate: f32,
    /// Wanted share of known queries that are answered `unknown`.
    pub wanted_false_reject_rate: f32,
    /// Wanted share of wrong labels among the matches of known queries.
    pub wanted_wrong_match_rate: f32,
    /// Share of unknown queries that the curve assumes.
    pub unknown_share: f32,
    /// Confidence of `false_match_bound`.
    pub confidence: f32,
    /// Queries whose label is in the gallery.
    pub n_known: u32,
    /// Their labels.
    pub n_known_labels: u32,
    /// Queries whose label is not in the gallery.
    pub n_unknown: u32,
    /// Their labels.
    pub n_unknown_labels: u32,
    /// How many unknown queries weigh as much as one that was photographed independently of
    /// the others: from 1, larger the more alike the scores within a label are.
    pub design_effect: f32,
    /// Unknown queries whose score reached `match_score`.
    pub false_matches: u32,
    /// Upper confidence bound of the false-match rate, for independent unknown labels.
    pub false_match_bound: f32,
    /// Known queries answered `match` with their label.
    pub right_matches: u32,
    /// Known queries answered `match` with another label.
    pub wrong_matches: u32,
    /// Known queries answered `unknown`.
    pub false_rejects: u32,
}

/// How often the first label is right, for scores from `from` up to the next bin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurveBin {
    /// Lowest score, less the label's offset.
    pub from: Score,
    /// Share that is right, with unknown queries weighted as [`Evidence::unknown_share`] says.
    pub probability: f32,
    /// Lower end of its 95 % interval.
    pub low: f32,
    /// Upper end.
    pub high: f32,
    /// Known queries whose first label is theirs.
    pub n_right: u32,
    /// Known queries whose first label is another.
    pub n_wrong: u32,
    /// Unknown queries.
    pub n_unknown: u32,
}

/// A calibration query that a board asks again, to see that scores mean the same there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// The label that was found first.
    pub label: String,
    /// Its best score.
    pub score: Score,
    /// Its lead over the second label, if the gallery has two.
    pub margin: Option<Score>,
    /// What was answered.
    pub verdict: Verdict,
}

/// What scores of one student against one gallery mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The gallery.
    pub gallery: GalleryIdentity,
    /// How its rows were stored, such as `f16`.
    pub row_encoding: String,
    /// Where verdicts begin.
    pub thresholds: Thresholds,
    /// Labels with thresholds of their own, in ascending order.
    pub offsets: Vec<LabelOffset>,
    /// What all of it rests on.
    pub evidence: Evidence,
    /// Bins by ascending score, the first from [`NO_SCORE`]; probabilities do not fall.
    pub curve: Vec<CurveBin>,
    /// Queries to ask again.
    pub witnesses: Vec<Witness>,
    /// Embeddings of the witnesses, one after the other.
    pub witness_embeddings: Vec<f32>,
    /// Best score of each of the bundle's probes.
    pub probe_scores: Vec<Score>,
    /// Fingerprint of the list of calibration images.
    pub manifest: Fingerprint,
    /// Version of the host program.
    pub eyas_version: String,
}

impl Calibration {
    /// Reads a section's data. Whether it makes sense is for [`fault`](Self::fault) to say.
    ///
    /// # Errors
    /// A sentence, if the bytes are no calibration or go on after it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        match postcard::take_from_bytes(bytes) {
            Ok((calibration, [])) => Ok(calibration),
            Ok(_) => Err("it is longer than its fields".to_owned()),
            Err(err) => Err(format!("it can not be read ({err})")),
        }
    }

    /// The section's data.
    ///
    /// # Panics
    /// Never: every calibration has a postcard form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("numbers, text and lists have a postcard form")
    }

    /// How much higher a label's thresholds are than those of a label without an offset.
    #[must_use]
    pub fn offset(&self, label: &str) -> Score {
        let found = self
            .offsets
            .binary_search_by(|entry| entry.label.as_str().cmp(label));
        found.map_or(0.0, |idx| self.offsets[idx].offset)
    }

    /// The bin that a score, less the label's offset, falls into.
    #[must_use]
    pub fn bin(&self, score: Score) -> Option<&CurveBin> {
        self.curve.iter().rev().find(|bin| score >= bin.from)
    }

    /// Embeddings of the witnesses, in their order.
    ///
    /// # Panics
    /// If `dim` is not the one that [`fault`](Self::fault) was asked about.
    #[must_use]
    pub fn witness_rows(&self, dim: usize) -> Embeddings {
        Embeddings::from_values(dim, self.witness_embeddings.clone())
            .expect("`fault` found whole rows")
    }

    /// What makes no sense about it, for a bundle of this dimension and number of probes.
    #[must_use]
    pub fn fault(&self, dim: usize, n_probes: usize) -> Option<String> {
        { self.gallery.fault() }
            .or_else(|| self.thresholds.fault())
            .or_else(|| self.evidence.fault())
            .or_else(|| self.offset_fault())
            .or_else(|| self.curve_fault())
            .or_else(|| self.witness_fault(dim, n_probes))
    }

    fn offset_fault(&self) -> Option<String> {
        let descends = |pair: &[LabelOffset]| pair[0].label >= pair[1].label;
        if self.offsets.windows(2).any(descends) {
            return Some("labels with offsets are not in ascending order".to_owned());
        }
        let bad = { self.offsets.iter() }.find(|entry| !in_range(entry.offset, -1.0, 1.0))?;
        Some(format!(
            "the offset {} of label `{}` is not in -1..=1",
            bad.offset, bad.label
        ))
    }

    fn curve_fault(&self) -> Option<String> {
        let Some(first) = self.curve.first() else {
            return Some("it has no curve".to_owned());
        };
        if first.from != NO_SCORE {
            return Some(format!(
                "the curve begins at {}, not {NO_SCORE}",
                first.from
            ));
        }
        for (bin_idx, bin) in self.curve.iter().enumerate() {
            let ordered = 0.0 <= bin.low
                && bin.low <= bin.probability
                && bin.probability <= bin.high
                && bin.high <= 1.0;
            if !ordered || !in_range(bin.from, NO_SCORE, 2.0) {
                return Some(format!("bin {bin_idx} of the curve is out of range"));
            }
        }
        let falls = |pair: &[CurveBin]| {
            pair[1].from <= pair[0].from || pair[1].probability < pair[0].probability
        };
        if self.curve.windows(2).any(falls) {
            return Some("the curve falls".to_owned());
        }
        let sum = |count: fn(&CurveBin) -> u32| -> u64 {
            self.curve.iter().map(|bin| u64::from(count(bin))).sum()
        };
        let n_known = sum(|bin| bin.n_right) + sum(|bin| bin.n_wrong);
        let n_unknown = sum(|bin| bin.n_unknown);
        let expected = (self.evidence.n_known, self.evidence.n_unknown);
        if (n_known, n_unknown) != (u64::from(expected.0), u64::from(expected.1)) {
            return Some(format!(
                "the curve counts {n_known} known and {n_unknown} unknown queries, the evidence {} and {}",
                expected.0, expected.1
            ));
        }
        None
    }

    fn witness_fault(&self, dim: usize, n_probes: usize) -> Option<String> {
        let (found, expected) = (self.witness_embeddings.len(), self.witnesses.len());
        if Some(found) != expected.checked_mul(dim) {
            return Some(format!(
                "{found} values for {expected} witnesses of dimension {dim}"
            ));
        }
        if self.probe_scores.len() != n_probes {
            return Some(format!(
                "scores of {} probes, but the bundle has {n_probes}",
                self.probe_scores.len()
            ));
        }
        let bad_score = |score: &Score| !in_range(*score, -1.1, 1.1);
        let bad_witness = |witness: &Witness| {
            bad_score(&witness.score) || witness.margin.is_some_and(|m| !in_range(m, 0.0, 2.2))
        };
        if self.probe_scores.iter().any(bad_score) || self.witnesses.iter().any(bad_witness) {
            return Some("a witness or probe has a score that no cosine is".to_owned());
        }
        let is_unit = |row: &[f32]| {
            let norm: f32 = row.iter().map(|x| x * x).sum();
            in_range(norm, 0.99, 1.01)
        };
        let bad_row = self
            .witness_rows(dim)
            .rows()
            .position(|row| !is_unit(row))?;
        Some(format!("witness {bad_row} is not a unit vector"))
    }
}

/// Whether a number lies in a closed range; NaN lies in none.
fn in_range(x: f32, low: f32, high: f32) -> bool {
    low <= x && x <= high
}

impl GalleryIdentity {
    fn fault(&self) -> Option<String> {
        let ascends = self.sample.windows(2).all(|pair| pair[0] < pair[1]);
        let n_ids = self.sample.len();
        if !ascends || n_ids == 0 || n_ids > SAMPLE_IDS || n_ids > self.n_rows as usize {
            return Some(format!(
                "a sample of {n_ids} ids of a gallery of {} rows, or not in ascending order",
                self.n_rows
            ));
        }
        None
    }
}

impl Thresholds {
    fn fault(&self) -> Option<String> {
        let Self {
            match_score,
            unknown_score,
            margin,
        } = *self;
        let sound = in_range(match_score, NO_SCORE, 4.0)
            && in_range(unknown_score, NO_SCORE, match_score)
            && in_range(margin, 0.0, 4.0);
        (!sound).then(|| {
            format!(
                "a match from {match_score}, unknown below {unknown_score}, margin {margin} make no sense"
            )
        })
    }
}

impl Evidence {
    fn fault(&self) -> Option<String> {
        let rates = [
            self.wanted_false_match_rate,
            self.wanted_false_reject_rate,
            self.wanted_wrong_match_rate,
            self.unknown_share,
            self.confidence,
            self.false_match_bound,
        ];
        if rates.iter().any(|rate| !in_range(*rate, 0.0, 1.0)) {
            return Some("a rate of the evidence is not in 0..=1".to_owned());
        }
        if !in_range(self.design_effect, 1.0, f32::MAX) {
            return Some(format!("a design effect of {}", self.design_effect));
        }
        let of_known = [self.right_matches, self.wrong_matches, self.false_rejects];
        let of_known: u64 = of_known.iter().map(|&n| u64::from(n)).sum();
        let sound = of_known <= u64::from(self.n_known)
            && self.false_matches <= self.n_unknown
            && self.n_known_labels <= self.n_known
            && self.n_unknown_labels <= self.n_unknown
            && self.n_unknown > 0
            && self.n_known > 0;
        (!sound).then(|| "the counts of the evidence contradict each other".to_owned())
    }
}

#[cfg(test)]
mod tests;
