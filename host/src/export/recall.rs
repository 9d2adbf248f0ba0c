//! What rounding costs in retrieval: the same queries, encoded with rounded weights and in
//! f32, ask one gallery.
//!
//! Cosines say how far embeddings turn, not whether answers change. Unlike
//! `eyas evaluate --bundle`, this compares two precisions of one student query by query and
//! knows nothing of the teacher's own score.

use eyas_device::encoder::Encoder;
use eyas_device::matcher::Matcher;
use eyas_shared::bundle::{Bundle, Precision};

use super::{ExportError, Verified};
use crate::data::manifest::Manifest;
use crate::embeddings::images;
use crate::evaluate;
use crate::evaluate::paired::{self, Difference, TopScores};

/// What a precision may lose of recall at 1.
pub const MAX_DROP: f64 = 0.005;

/// Labelled queries, answered by the f32 student.
pub struct RecallCheck<'a> {
    asked: &'a Manifest,
    matcher: &'a Matcher<'a>,
    exact: Vec<Option<TopScores>>,
}

/// Recall at 1 of a precision, and how it differs from that of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct RecallLoss {
    /// Of the precision.
    pub recall_at_1: f64,
    /// Of the precision less that of f32, with its 95 % interval.
    pub difference: Difference,
}

impl<'a> RecallCheck<'a> {
    /// Lets the f32 student ask.
    ///
    /// # Errors
    /// If the gallery is of another space, or a query can not be read, encoded or asked.
    pub fn new(
        exact: &Verified,
        asked: &'a Manifest,
        matcher: &'a Matcher<'a>,
    ) -> Result<Self, ExportError> {
        let (student, gallery) = (exact.header().space, matcher.gallery().header.space);
        if student != gallery {
            return Err(ExportError::OtherSpace {
                student: student.0.short(),
                gallery: gallery.0.short(),
            });
        }
        let exact = answered(&Bundle::read(exact.bytes())?, asked, matcher)?;
        Ok(Self {
            asked,
            matcher,
            exact,
        })
    }

    /// Lets the same student ask with rounded weights.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn measure(&self, rounded: &Bundle<'_>) -> Result<RecallLoss, ExportError> {
        loss(&self.exact, &answered(rounded, self.asked, self.matcher)?)
    }

    /// What a verified bundle loses, if that is little.
    ///
    /// # Errors
    /// [`ExportError::RecallDrop`] if it loses more than [`MAX_DROP`]; others as
    /// [`new`](Self::new).
    pub fn check(&self, verified: &Verified) -> Result<RecallLoss, ExportError> {
        let loss = self.measure(&Bundle::read(verified.bytes())?)?;
        loss.checked(verified.header().precision)
    }
}

impl RecallLoss {
    /// Whether it loses no more than [`MAX_DROP`].
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        -self.difference.mean <= MAX_DROP
    }

    fn checked(self, precision: Precision) -> Result<Self, ExportError> {
        if self.is_allowed() {
            return Ok(self);
        }
        Err(ExportError::RecallDrop {
            precision,
            found: self.recall_at_1,
            drop: -self.difference.mean,
            allowed: MAX_DROP,
            n_queries: self.difference.n,
        })
    }
}

fn answered(
    bundle: &Bundle<'_>,
    asked: &Manifest,
    matcher: &Matcher<'_>,
) -> Result<Vec<Option<TopScores>>, ExportError> {
    let encoder = Encoder::load(bundle)?;
    let (embedded, faults) = images::encode_each(&encoder, asked, || {});
    if let Some(fault) = faults.into_iter().next() {
        return Err(ExportError::Query {
            fault: fault.to_string(),
        });
    }
    let queries = evaluate::queries_of(asked, &embedded);
    Ok(paired::answered(&queries, matcher)?)
}

fn loss(
    exact: &[Option<TopScores>],
    found: &[Option<TopScores>],
) -> Result<RecallLoss, ExportError> {
    // What has nothing to find has nothing to find in any precision.
    let pairs = exact.iter().zip(found);
    let pairs = pairs.filter_map(|(old, new)| Some((old.as_ref()?, new.as_ref()?)));
    let (old, new): (Vec<f64>, Vec<f64>) = pairs
        .map(|(old, new)| (old.recall_at_1, new.recall_at_1))
        .unzip();
    if old.is_empty() {
        return Err(ExportError::NothingToFind);
    }
    Ok(RecallLoss {
        recall_at_1: new.iter().sum::<f64>() / new.len() as f64,
        difference: Difference::of(&old, &new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(hits: usize, n: usize) -> Vec<Option<TopScores>> {
        let score = |i: usize| TopScores {
            recall_at_1: f64::from(u8::from(i < hits)),
            mean_average_precision_at_r: 0.0,
        };
        (0..n).map(|i| Some(score(i))).chain([None]).collect()
    }

    #[test]
    fn half_a_percent_may_be_lost_and_no_more() {
        let exact = scores(900, 1000);
        let check = |hits| {
            loss(&exact, &scores(hits, 1000))
                .unwrap()
                .checked(Precision::Int8)
        };
        let kept = check(895).unwrap();
        assert_eq!((kept.recall_at_1, kept.difference.n), (0.895, 1000));
        assert!(check(950).is_ok());
        let err = check(894).unwrap_err();
        assert!(err.is_disagreement());
        let text = "with weights in int8 recall_at_1 is 0.8940, 0.0060 less than in f32 on the \
                    same 1000 queries; at most 0.005 is allowed";
        assert_eq!(err.to_string(), text);
        let nothing = loss(&[None], &[None]).unwrap_err();
        assert!(nothing.to_string().contains("no query"), "{nothing}");
    }
}
