//! Answers as text for people and as JSON for scripts.

use std::fmt::Write;
use std::path::PathBuf;

use eyas_shared::calibration::Calibration;
use eyas_shared::link::bench::Sample;
use eyas_shared::timing::{Figures, Stage};
use serde_json::{Value, json};

use crate::answer::{Answer, Answerer, Found, Judgement, Standing};
use crate::matcher::Matcher;
use crate::store::Store;

/// One answered query.
pub(in crate::cli) struct Shown<'s, 'm, 'g> {
    pub(in crate::cli) matcher: &'s Matcher<'g>,
    pub(in crate::cli) answerer: &'s Answerer<'m, 'g>,
    pub(in crate::cli) views: &'s [PathBuf],
    pub(in crate::cli) answer: &'s Answer,
}

impl Shown<'_, '_, '_> {
    /// Label and name of a row. The store verified that every row has both.
    fn texts(&self, found: &Found) -> (&str, &str) {
        self.matcher
            .gallery()
            .entry(found.best.row)
            .map_or(("", ""), |entry| (entry.label, entry.name))
    }

    fn names(&self) -> Vec<String> {
        { self.views.iter() }
            .map(|view| view.display().to_string())
            .collect()
    }

    pub(super) fn lines(&self) -> String {
        let found = &self.answer.found;
        let width = found
            .iter()
            .map(|found| self.texts(found).0.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = format!("{}\n", self.names().join(" + "));
        if let Some(judgement) = &self.answer.judgement {
            let _ = writeln!(text, "  {judgement}");
        }
        for (rank, found) in (1..).zip(found) {
            let (label, name) = self.texts(found);
            let votes = found.votes.map_or(String::new(), |(n, weight)| {
                format!("  {n:3} votes {weight:7.3}")
            });
            let score = found.best.score;
            let _ = writeln!(text, "{rank:4}  {score:.4}{votes}  {label:width$}  {name}");
        }
        text
    }

    pub(super) fn json_line(&self, store: &Store, sample: &Sample) -> String {
        let names = self.names();
        let mut object = self.json(store, sample);
        object["schema"] = "eyas.query/1".into();
        object["image"] = names.first().map(String::as_str).into();
        if names.len() > 1 {
            object["views"] = names.into();
        }
        format!("{object}\n")
    }

    /// The answer itself, without a word on what was asked.
    pub(in crate::cli) fn json(&self, store: &Store, sample: &Sample) -> Value {
        let matches: Vec<_> = (1_u32..)
            .zip(&self.answer.found)
            .map(|(rank, found)| {
                let (label, name) = self.texts(found);
                let mut object = json!({
                    "rank": rank,
                    "score": found.best.score,
                    "label": label,
                    "name": name,
                    "id": found.best.id.to_string(),
                });
                if let Some((n, weight)) = found.votes {
                    object["n_votes"] = n.into();
                    object["vote_weight"] = weight.into();
                }
                object
            })
            .collect();
        let micros = |stage| (sample.nanos(stage) / 1000).into();
        let stages: serde_json::Map<_, _> = Stage::ALL
            .iter()
            .map(|stage| (stage.name().to_owned(), micros(*stage)))
            .collect();
        let judgement = self.answer.judgement.as_ref();
        json!({
            "verdict": judgement.map(|judgement| judgement.verdict.to_string()),
            "judgement": judgement.map(judgement_json),
            "calibration": calibration_json(self.answerer),
            "matches": matches,
            "timing_us": stages,
            "space_id": store.encoder().space().0.to_string(),
        })
    }
}

fn judgement_json(judgement: &Judgement) -> Value {
    let nearest = &judgement.nearest;
    json!({
        "reason": judgement.reason.word(),
        "text": judgement.to_string(),
        "label": nearest.label,
        "score": nearest.score,
        "second_label": nearest.second.as_ref().map(|(label, _)| label),
        "margin": nearest.margin(),
        "needed": {
            "match_score": judgement.match_score,
            "unknown_score": judgement.unknown_score,
            "margin": judgement.margin,
        },
        "probability_right": judgement.probability.map(|[probability, _, _]| probability),
        "probability_interval": judgement.probability.map(|[_, low, high]| [low, high]),
    })
}

/// What the verdicts rest on, or why there are none.
fn calibration_json(answerer: &Answerer<'_, '_>) -> Value {
    let standing = answerer.standing();
    let evidence = answerer
        .calibration()
        .map(|calibration| &calibration.evidence);
    json!({
        "standing": standing.word(),
        "text": standing.to_string(),
        "evidence": evidence,
    })
}

/// What the thresholds rest on, in one sentence.
fn basis(calibration: &Calibration) -> String {
    let evidence = &calibration.evidence;
    format!(
        "thresholds rest on {} unknown queries of {} labels and {} known ones of {}; \
         {} of {} unknown reached the score of a match, wanted {}, at most {:.3} with {} % confidence",
        evidence.n_unknown,
        evidence.n_unknown_labels,
        evidence.n_known,
        evidence.n_known_labels,
        evidence.false_matches,
        evidence.n_unknown,
        evidence.wanted_false_match_rate,
        evidence.false_match_bound,
        (evidence.confidence * 100.0).round(),
    )
}

/// What stands behind the verdicts of all queries; nothing for a bundle without calibration.
pub(super) fn basis_lines(answerer: &Answerer<'_, '_>) -> String {
    let standing = answerer.standing();
    match (answerer.calibration(), standing) {
        (_, Standing::Uncalibrated) => String::new(),
        (Some(calibration), Standing::Same) => format!("{}\n", basis(calibration)),
        (Some(calibration), _) => format!("{}\n{standing}\n", basis(calibration)),
        (None, _) => format!("{standing}\n"),
    }
}

/// Time by stage: of the one query, or the median over several.
pub(super) fn timing_lines(samples: &[Sample]) -> String {
    let mut text = match samples.len() {
        1 => "time\n".to_owned(),
        n => format!("time, median of {n} queries\n"),
    };
    for stage in Stage::ALL {
        let times: Vec<u64> = samples.iter().map(|sample| sample.nanos(stage)).collect();
        let median = Figures::of(&times).map_or(0.0, |figures| figures.median_ms);
        let _ = writeln!(text, "{:>12}  {median:8.3} ms", stage.name());
    }
    text
}
