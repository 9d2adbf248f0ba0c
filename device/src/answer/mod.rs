//! What the matches of a query mean: which label it shows, or that it shows none of them.
//!
//! The matcher ranks rows. Here rows become labels ([`labels`]), rankings are refined
//! ([`rerank`]), several views of one object become one query ([`views`]), and a
//! [`Calibration`] turns scores into a verdict ([`judge`]), if it was made for this gallery
//! ([`standing`]). Nothing here reads images or prints.
//!
//! A verdict always rests on the query's own scores, the ones that were calibrated: no
//! re-ranking turns an answer that was no match into one.

pub mod judge;
pub mod labels;
pub mod rerank;
pub mod standing;
pub mod views;

#[cfg(test)]
mod tests;

use eyas_shared::calibration::Calibration;
use eyas_shared::fingerprint::ImageId;

pub use judge::{Judgement, Nearest, Reason};
pub use labels::LabelMatch;
pub use rerank::{Expansion, Rerank};
pub use standing::{Recheck, Standing};
pub use views::{ViewError, merge};

use crate::matcher::{Match, Matcher};

/// A query to be answered: a unit embedding, and the length that the mean of its views had.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Unit embedding, as long as the gallery's rows.
    pub embedding: Vec<f32>,
    /// Scores are multiplied by this: 1 for a single view.
    pub scale: f32,
}

impl Asked {
    /// A single view.
    #[must_use]
    pub fn single(embedding: Vec<f32>) -> Self {
        Self {
            embedding,
            scale: 1.0,
        }
    }
}

/// What is wanted of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Most matches that are returned.
    pub k: usize,
    /// One match per label, its best row, instead of one per row.
    pub by_label: bool,
    /// How matches are ordered.
    pub rerank: Rerank,
    /// An image that must not be found, such as the query itself.
    pub exclude: Option<ImageId>,
}

/// The answer to one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Best first, as the request orders them; scores are those of the query itself.
    pub found: Vec<Found>,
    /// What the scores mean; none without a calibration that holds for the gallery.
    pub judgement: Option<Judgement>,
}

/// One row of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The row, with the query's own score.
    pub best: Match,
    /// Number of its label.
    pub label_idx: u32,
    /// Rows that voted for the label, and the sum of their scores; only where votes were
    /// counted.
    pub votes: Option<(u32, f32)>,
}

/// A gallery that is asked, with what its scores mean.
pub struct Answerer<'m, 'g> {
    matcher: &'m Matcher<'g>,
    calibration: Option<&'m Calibration>,
    standing: Standing,
}

/// Which calibration holds for a gallery, to be found once.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its place among the bundle's.
    calibration: Option<usize>,
    standing: Standing,
}

impl Known {
    /// Looks for the calibration that holds for the matcher's gallery.
    ///
    /// Reads the id and label of every row if there are calibrations, and asks the witnesses
    /// if rows are stored otherwise than they were.
    #[must_use]
    pub fn of(matcher: &Matcher<'_>, calibrations: &[Calibration]) -> Self {
        let (calibration, standing) = standing::find(matcher, calibrations);
        let calibration = calibration.filter(|_| standing.gives_verdicts());
        let place = |found: &Calibration| {
            let mut all = calibrations.iter();
            all.position(|calibration| std::ptr::eq(calibration, found))
        };
        Self {
            calibration: calibration.and_then(place),
            standing,
        }
    }
}

impl<'m, 'g> Answerer<'m, 'g> {
    /// With the calibration that holds for the matcher's gallery, as [`Known::of`] finds it.
    #[must_use]
    pub fn new(matcher: &'m Matcher<'g>, calibrations: &'m [Calibration]) -> Self {
        Self::knowing(matcher, calibrations, &Known::of(matcher, calibrations))
    }

    /// With what is known of this gallery and these calibrations; takes no time.
    #[must_use]
    pub fn knowing(
        matcher: &'m Matcher<'g>,
        calibrations: &'m [Calibration],
        known: &Known,
    ) -> Self {
        let calibration = known.calibration.and_then(|place| calibrations.get(place));
        Self {
            matcher,
            calibration,
            standing: known.standing.clone(),
        }
    }

    /// How the bundle's calibrations stand to this gallery.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The calibration that verdicts rest on.
    #[must_use]
    pub fn calibration(&self) -> Option<&'m Calibration> {
        self.calibration
    }

    /// The label of a found row.
    #[must_use]
    pub fn label(&self, found: &Found) -> &'g str {
        self.matcher.gallery().label(found.label_idx).unwrap_or("")
    }

    /// Answers a query.
    ///
    /// # Panics
    /// If the embedding is not as long as the gallery's rows.
    #[must_use]
    pub fn answer(&self, asked: &Asked, request: &Request) -> Answer {
        let mut found = if request.by_label || request.rerank.votes.is_some() {
            rerank::labels(self.matcher, asked, request)
        } else {
            rerank::rows(self.matcher, asked, request)
        };
        found.truncate(request.k);
        let judgement = self.calibration.and_then(|calibration| {
            let nearest = Nearest::of(self.matcher, asked, request.exclude)?;
            let gallery = self.matcher.gallery();
            let shown = found
                .first()
                .and_then(|first| gallery.label(first.label_idx));
            Some(judge::judge(calibration, nearest).shown_first(shown))
        });
        Answer { found, judgement }
    }
}
