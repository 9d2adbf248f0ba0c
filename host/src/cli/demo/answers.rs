//! What the demo reads from the JSON of other commands.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;

/// One line of `eyas-device query --json`, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct QueryAnswer {
    schema: String,
    /// Microseconds.
    pub(super) timing_us: Timing,
}

#[derive(Debug, Deserialize)]
pub(super) struct Timing {
    pub(super) decode: u64,
    pub(super) preprocess: u64,
    pub(super) encode: u64,
    pub(super) search: u64,
    pub(super) total: u64,
}

/// The answer of `eyas evaluate --json`, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Evaluation {
    schema: String,
    pub(super) recall_at_1: f64,
    pub(super) n_queries: usize,
    pub(super) n_gallery: usize,
    /// Teacher asks, teacher's gallery.
    pub(super) teacher: Option<Scores>,
    /// Color histograms ask and are searched.
    pub(super) histogram: Option<Scores>,
    /// Expectation of a random order.
    pub(super) chance_recall_at_1: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Scores {
    pub(super) recall_at_1: f64,
}

pub(super) fn queries(lines: &str) -> anyhow::Result<Vec<QueryAnswer>> {
    let answers = lines.lines().map(|line| {
        let answer: QueryAnswer =
            serde_json::from_str(line).context("reading an answer of `eyas-device query`")?;
        check_schema(&answer.schema, "eyas.query/1")?;
        Ok(answer)
    });
    let answers: Vec<QueryAnswer> = answers.collect::<anyhow::Result<_>>()?;
    if answers.is_empty() {
        bail!("`eyas-device query` answered nothing");
    }
    Ok(answers)
}

pub(super) fn evaluation(json: &str) -> anyhow::Result<Evaluation> {
    let evaluation: Evaluation =
        serde_json::from_str(json).context("reading the answer of `eyas evaluate`")?;
    check_schema(&evaluation.schema, "eyas.evaluation/1")?;
    Ok(evaluation)
}

/// Folder of the session that `eyas bench --json` tells of.
pub(super) fn session(json: &str) -> anyhow::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Bench {
        schema: String,
        session: PathBuf,
    }
    let bench: Bench = serde_json::from_str(json).context("reading the answer of `eyas bench`")?;
    check_schema(&bench.schema, "eyas.bench/1")?;
    Ok(bench.session)
}

fn check_schema(found: &str, expected: &str) -> anyhow::Result<()> {
    if found != expected {
        bail!(
            "an answer has the schema `{found}`, needed `{expected}`: both programs must be of one build"
        );
    }
    Ok(())
}
