//! Whether a calibration holds for the gallery that is asked.
//!
//! Thresholds are about one student and one gallery. With exactly the images that they were
//! found with they hold; with a few rows more or fewer they hold nearly, and the answer says
//! so; with another gallery there is no verdict. How rows are stored does not matter as long
//! as the calibration's witnesses get the scores that they had.

use std::fmt;

use eyas_shared::bundle::Bundle;
use eyas_shared::calibration::{Calibration, GalleryIdentity, Verdict};
use eyas_shared::embedding::Score;

use super::{Asked, Nearest, judge};
use crate::encoder::{EncodeError, Encoder};
use crate::matcher::Matcher;
use crate::selftest::probe_pixels;

/// Largest share of rows that may have come or gone since calibration. An unknown query's
/// best score is a maximum over rows, so a tenth more rows make about a tenth more false
/// matches.
pub const MAX_DRIFT: f64 = 0.1;

/// Largest change of a witness's score. Rounding rows to f16 moves a score by less than
/// 2^-11; int8 codes without re-ranking move it by more.
pub const SCORE_TOLERANCE: Score = 1e-3;

/// How a bundle's calibrations stand to a gallery.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Standing {
    /// The bundle has none.
    Uncalibrated,
    /// One was found with exactly these images.
    Same,
    /// One was found with nearly these images.
    Near {
        /// Rows that came since, estimated.
        n_added: u32,
        /// Rows that went since, estimated.
        n_removed: u32,
        /// Rows that it was found with.
        n_rows: u32,
    },
    /// All were found with other galleries.
    OtherGallery {
        /// Rows of the one that has most in common.
        n_rows: u32,
        /// Its fingerprint, short.
        calibrated: String,
        /// This gallery's.
        found: String,
    },
    /// These images, but rows are stored so that scores differ.
    OtherScores {
        /// How rows were stored.
        calibrated: String,
        /// How they are stored.
        found: String,
        /// Largest change of a witness's score.
        worst: Score,
    },
}

impl Standing {
    /// Whether thresholds may be applied.
    #[must_use]
    pub fn gives_verdicts(&self) -> bool {
        matches!(self, Self::Same | Self::Near { .. })
    }

    /// One word, for a script.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Uncalibrated => "uncalibrated",
            Self::Same => "same",
            Self::Near { .. } => "near",
            Self::OtherGallery { .. } => "other-gallery",
            Self::OtherScores { .. } => "other-scores",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncalibrated => f.write_str("the bundle is not calibrated"),
            Self::Same => f.write_str("calibrated for this gallery"),
            Self::Near {
                n_added,
                n_removed,
                n_rows,
            } => {
                let factor = f64::from(n_rows + n_added) / f64::from(*n_rows);
                write!(
                    f,
                    "calibrated when the gallery had {n_rows} rows; since then about {n_added} \
                     came and {n_removed} went: expect up to {factor:.2} times the false matches"
                )
            }
            Self::OtherGallery {
                n_rows,
                calibrated,
                found,
            } => write!(
                f,
                "calibrated for another gallery ({calibrated}, {n_rows} rows; this is {found}): \
                 no verdict"
            ),
            Self::OtherScores {
                calibrated,
                found,
                worst,
            } => write!(
                f,
                "calibrated with rows in {calibrated}; in {found} scores differ by up to \
                 {worst:.4}: no verdict"
            ),
        }
    }
}

/// The calibration that fits a gallery best, and how it stands to it.
pub(super) fn find<'c>(
    matcher: &Matcher<'_>,
    calibrations: &'c [Calibration],
) -> (Option<&'c Calibration>, Standing) {
    if calibrations.is_empty() {
        return (None, Standing::Uncalibrated);
    }
    let stored = matcher.gallery().header.content;
    let unchanged =
        { calibrations.iter() }.find(|known| stored.is_some() && known.gallery.stored == stored);
    if unchanged.is_some() {
        return (unchanged, Standing::Same);
    }
    let identity = GalleryIdentity::of(matcher.gallery());
    let encoding = matcher.gallery().codes().scoring();
    let drift = |known: &Calibration| known.gallery.drift(&identity);
    let same = { calibrations.iter() }.find(|known| known.gallery.content == identity.content);
    if let Some(calibration) = same {
        let worst = match calibration.row_encoding == encoding {
            true => 0.0,
            false => witnesses(matcher, calibration).worst,
        };
        let standing = if worst <= SCORE_TOLERANCE {
            Standing::Same
        } else {
            Standing::OtherScores {
                calibrated: calibration.row_encoding.clone(),
                found: encoding,
                worst,
            }
        };
        return (Some(calibration), standing);
    }
    let nearest = calibrations.iter().min_by_key(|known| {
        let (added, removed) = drift(known);
        u64::from(added) + u64::from(removed)
    });
    let Some(calibration) = nearest else {
        return (None, Standing::Uncalibrated);
    };
    let (n_added, n_removed) = drift(calibration);
    let n_rows = calibration.gallery.n_rows;
    let most = (f64::from(n_rows) * MAX_DRIFT) as u32;
    let is_near = n_added.max(n_removed) <= most && calibration.row_encoding == encoding;
    let standing = if is_near {
        Standing::Near {
            n_added,
            n_removed,
            n_rows,
        }
    } else {
        Standing::OtherGallery {
            n_rows,
            calibrated: calibration.gallery.content.short(),
            found: identity.content.short(),
        }
    };
    (Some(calibration), standing)
}

/// What asking the witnesses and probes again has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Recheck {
    /// How the calibration stands to the gallery.
    pub standing: Standing,
    /// Witnesses that were asked.
    pub n_witnesses: usize,
    /// Witnesses with another verdict than on the host.
    pub n_other_verdicts: usize,
    /// Largest change of a witness's score.
    pub worst: Score,
    /// Largest change of a probe's best score, from its pixels on.
    pub worst_probe: Score,
    /// Largest change of a probe's score that the bundle's tolerance allows.
    pub probe_tolerance: Score,
}

impl Recheck {
    /// Whether thresholds mean the same here as where they were found.
    #[must_use]
    pub fn passed(&self) -> bool {
        // Written so that NaN does not pass.
        self.standing == Standing::Same
            && self.worst <= SCORE_TOLERANCE
            && self.worst_probe <= self.probe_tolerance
    }
}

/// Asks a calibration's witnesses and the bundle's probes again, on this machine: witnesses
/// from their stored embeddings, probes from their pixels on.
///
/// `None` if the bundle has no calibration.
///
/// # Errors
/// If a probe can not be encoded.
pub fn recheck(
    bundle: &Bundle<'_>,
    encoder: &Encoder,
    matcher: &Matcher<'_>,
) -> Result<Option<Recheck>, EncodeError> {
    let (Some(calibration), standing) = find(matcher, &bundle.calibrations) else {
        return Ok(None);
    };
    let mut worst_probe: Score = 0.0;
    let probes = probe_pixels(encoder.preprocess(), calibration.probe_scores.len());
    for (pixels, expected) in probes.zip(&calibration.probe_scores) {
        let asked = Asked::single(encoder.encode(&pixels)?);
        let found = Nearest::of(matcher, &asked, None).map_or(f32::INFINITY, |found| found.score);
        worst_probe = worst_probe.max((found - expected).abs());
    }
    let found = witnesses(matcher, calibration);
    // Embeddings at cosine c are sqrt(2 - 2c) apart, and no row's score moves by more.
    let cosine = bundle.header.verification.tolerance.min(1.0);
    Ok(Some(Recheck {
        standing,
        n_witnesses: calibration.witnesses.len(),
        n_other_verdicts: found.n_other_verdicts,
        worst: found.worst,
        worst_probe,
        probe_tolerance: (2.0 - 2.0 * cosine).max(0.0).sqrt() + SCORE_TOLERANCE,
    }))
}

struct Witnessed {
    worst: Score,
    n_other_verdicts: usize,
}

fn witnesses(matcher: &Matcher<'_>, calibration: &Calibration) -> Witnessed {
    let mut outcome = Witnessed {
        worst: 0.0,
        n_other_verdicts: 0,
    };
    let rows = calibration.witness_rows(matcher.gallery().dim());
    for (witness, embedding) in calibration.witnesses.iter().zip(rows.rows()) {
        let asked = Asked::single(embedding.to_vec());
        let (change, verdict) = match Nearest::of(matcher, &asked, None) {
            Some(nearest) => {
                let change = (nearest.score - witness.score).abs();
                (change, judge::judge(calibration, nearest).verdict)
            }
            None => (f32::INFINITY, Verdict::Unknown),
        };
        outcome.worst = outcome.worst.max(change);
        outcome.n_other_verdicts += usize::from(verdict != witness.verdict);
    }
    outcome
}
