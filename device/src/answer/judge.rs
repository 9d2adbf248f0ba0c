//! The verdict on a query, and why: which score against which threshold.
//!
//! With `s` the best score of the nearest label, less that label's offset, and `lead` its
//! distance to the second label's best score:
//!
//! - `unknown` if `s` is below the lower threshold,
//! - `match` if `s` reaches the upper threshold and `lead` the margin,
//! - `uncertain` otherwise.

use std::fmt;

use eyas_shared::calibration::{Calibration, Verdict};
use eyas_shared::embedding::Score;
use eyas_shared::fingerprint::ImageId;

use super::{Asked, labels};
use crate::matcher::Matcher;

/// The two labels that are nearest to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    /// The nearest label.
    pub label: String,
    /// Best score of its rows.
    pub score: Score,
    /// The next label with the best score of its rows; none in a gallery of one label.
    pub second: Option<(String, Score)>,
}

impl Nearest {
    /// Looks both up; `None` if nothing is left to be found.
    ///
    /// # Panics
    /// If the embedding is not as long as the gallery's rows.
    #[must_use]
    pub fn of(matcher: &Matcher<'_>, asked: &Asked, exclude: Option<ImageId>) -> Option<Self> {
        let found = labels::nearest(matcher, &asked.embedding, 2, exclude);
        let mut named = found.iter().map(|found| {
            let label = matcher.gallery().label(found.label_idx).unwrap_or("");
            (label.to_owned(), found.best.score * asked.scale)
        });
        let (label, score) = named.next()?;
        Some(Self {
            label,
            score,
            second: named.next(),
        })
    }

    /// Lead of the first label over the second.
    #[must_use]
    pub fn margin(&self) -> Option<Score> {
        self.second.as_ref().map(|(_, second)| self.score - second)
    }
}

/// Why a verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The score and the margin suffice for a match.
    Clear,
    /// The score is too low for any label.
    Low,
    /// The score lies between the two thresholds.
    Between,
    /// The second label is nearly as near.
    Narrow,
    /// A re-ranking puts another label first than the nearest.
    Reranked,
}

impl Reason {
    /// One word, for a script.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Low => "low-score",
            Self::Between => "between-thresholds",
            Self::Narrow => "narrow-margin",
            Self::Reranked => "reranked",
        }
    }
}

/// A verdict with what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What is answered.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The scores that were judged.
    pub nearest: Nearest,
    /// A match needs this score: the calibration's, plus the label's offset.
    pub match_score: Score,
    /// Below this score a query is unknown, offset included.
    pub unknown_score: Score,
    /// A match needs this lead.
    pub margin: Score,
    /// How often the nearest label is right at such a score: probability and the ends of
    /// its 95 % interval.
    pub probability: Option<[f32; 3]>,
}

/// Judges the nearest labels of a query by a calibration.
#[must_use]
pub fn judge(calibration: &Calibration, nearest: Nearest) -> Judgement {
    let offset = calibration.offset(&nearest.label);
    let thresholds = &calibration.thresholds;
    // Compared as in calibration: the score less the offset.
    let score = nearest.score - offset;
    let is_narrow = nearest
        .margin()
        .is_some_and(|lead| lead < thresholds.margin);
    let (verdict, reason) = if score < thresholds.unknown_score {
        (Verdict::Unknown, Reason::Low)
    } else if score < thresholds.match_score {
        (Verdict::Uncertain, Reason::Between)
    } else if is_narrow {
        (Verdict::Uncertain, Reason::Narrow)
    } else {
        (Verdict::Match, Reason::Clear)
    };
    Judgement {
        verdict,
        reason,
        match_score: thresholds.match_score + offset,
        unknown_score: thresholds.unknown_score + offset,
        margin: thresholds.margin,
        probability: calibration
            .bin(score)
            .map(|bin| [bin.probability, bin.low, bin.high]),
        nearest,
    }
}

impl Judgement {
    /// The judgement beside a ranking that shows `label` first.
    #[must_use]
    pub(super) fn shown_first(mut self, label: Option<&str>) -> Self {
        let is_other = label.is_some_and(|label| label != self.nearest.label);
        if is_other && self.verdict == Verdict::Match {
            self.verdict = Verdict::Uncertain;
            self.reason = Reason::Reranked;
        }
        self
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Nearest { label, score, .. } = &self.nearest;
        let (from, below) = (self.match_score, self.unknown_score);
        write!(f, "{}: ", self.verdict)?;
        match self.reason {
            Reason::Clear => write!(f, "`{label}` scores {score:.4}, a match from {from:.4} on")?,
            Reason::Low => write!(
                f,
                "the best score, {score:.4} (`{label}`), is below {below:.4}"
            )?,
            Reason::Between => write!(
                f,
                "the best score, {score:.4} (`{label}`), is neither below {below:.4} nor from \
                 {from:.4} on"
            )?,
            Reason::Narrow => write!(f, "`{label}` scores {score:.4}")?,
            Reason::Reranked => write!(f, "`{label}` is nearest, but not first here")?,
        }
        if let (Some(lead), Some((second, _))) = (self.nearest.margin(), &self.nearest.second) {
            let needed = self.margin;
            match self.reason {
                Reason::Clear => write!(f, ", {lead:.4} above `{second}`, {needed:.4} needed")?,
                Reason::Narrow => {
                    write!(f, ", only {lead:.4} above `{second}`, {needed:.4} needed")?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
