//! Answers as the link carries them: cut to its bounds, texts beside the matches.

use eyas_shared::calibration;
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::link::bench::{MAX_OPERATOR_BYTES, Sample};
use eyas_shared::link::message::{Answer, Found, MAX_LABEL_BYTES, MAX_NAME_BYTES, Verdict, cut};
use eyas_shared::timing::Stage;

use crate::look::Looked;
use crate::matcher::Matcher;

/// An answer without a number of its own.
#[must_use]
pub(crate) fn answer(
    matcher: &Matcher<'_>,
    looked: &Looked,
    image: [u8; 32],
    space: SpaceId,
) -> Answer {
    let mut texts = String::new();
    let found = { looked.answer.found.iter() }
        .map(|found| {
            let found = found.best;
            let entry = matcher.gallery().entry(found.row);
            let (label, name) = entry.map_or(("", ""), |entry| (entry.label, entry.name));
            let (label, name) = (cut(label, MAX_LABEL_BYTES), cut(name, MAX_NAME_BYTES));
            texts.push_str(label);
            texts.push_str(name);
            Found {
                id: found.id.0,
                score: found.score,
                label_bytes: label.len() as u16,
                name_bytes: name.len() as u16,
            }
        })
        .collect();
    let judgement = looked.answer.judgement.as_ref();
    let micros = |stage| micros(&looked.sample, stage);
    Answer {
        result: 0,
        image,
        space: space.0.0,
        found,
        texts,
        verdict: judgement.map(|judgement| verdict(judgement.verdict)),
        decode_micros: micros(Stage::Decode),
        preprocess_micros: micros(Stage::Preprocess),
        encode_micros: micros(Stage::Encode),
        search_micros: micros(Stage::Search),
    }
}

/// A fact about the machine, within the bound of such.
#[must_use]
pub(crate) fn fact(text: &str) -> String {
    cut(text, MAX_OPERATOR_BYTES).to_owned()
}

fn verdict(verdict: calibration::Verdict) -> Verdict {
    match verdict {
        calibration::Verdict::Match => Verdict::Match,
        calibration::Verdict::Uncertain => Verdict::Uncertain,
        calibration::Verdict::Unknown => Verdict::Unknown,
    }
}

fn micros(sample: &Sample, stage: Stage) -> u64 {
    sample.nanos(stage) / 1000
}
