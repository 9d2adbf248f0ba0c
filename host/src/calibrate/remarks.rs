//! What whoever relies on a calibration should know, in sentences.

use eyas_shared::calibration::{Calibration, NO_SCORE};

use super::{Observations, thresholds};

/// Unknown labels below which a calibration says so: with fewer, one odd label is a tenth of
/// all that is known of unknown things.
pub const FEW_LABELS: usize = 10;

/// Share of known queries answered `match` below which a calibration says so.
const FEW_MATCHES: f64 = 0.5;

/// The sentences, the gravest first.
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
    if f64::from(evidence.right_matches) < FEW_MATCHES * f64::from(evidence.n_known) {
        remarks.push(format!(
            "only {} of {} known queries are answered `match`: this student does not tell known \
             from unknown well enough for a false-match rate of {}",
            evidence.right_matches, evidence.n_known, evidence.wanted_false_match_rate
        ));
    }
    if calibration.thresholds.unknown_score == NO_SCORE {
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
