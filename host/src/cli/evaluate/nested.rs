//! `eyas evaluate --dims`: what the first components find by themselves.

use anyhow::Context;
use eyas_device::matcher::Matcher;
use serde_json::{Value, json};

use crate::cli::say;
use crate::evaluate::{Queries, Retrieval, nested};

/// Scores of one prefix length.
pub(super) struct Prefix {
    dim: usize,
    student: Option<Retrieval>,
    teacher: Option<Retrieval>,
}

/// Scores every prefix length for whoever asks.
pub(super) fn prefixes(
    dims: &[usize],
    student: Option<&Queries>,
    teacher: Option<&Queries>,
    matcher: &Matcher<'_>,
) -> anyhow::Result<Vec<Prefix>> {
    let of_dim = |&dim: &usize| {
        let score = |queries: &Queries| nested::of_prefix(queries, matcher, dim);
        Ok(Prefix {
            dim,
            student: student.map(score).transpose()?,
            teacher: teacher.map(score).transpose()?,
        })
    };
    let scored: anyhow::Result<Vec<Prefix>> = dims.iter().map(of_dim).collect();
    scored.context("scoring --dims")
}

impl Prefix {
    pub(super) fn as_json(&self) -> Value {
        let scores = |retrieval: &Retrieval| {
            json!({
                "recall_at_1": retrieval.means.recall_at_1,
                "mean_average_precision_at_r": retrieval.means.mean_average_precision_at_r,
            })
        };
        json!({
            "dim": self.dim,
            "student": self.student.as_ref().map(scores),
            "teacher": self.teacher.as_ref().map(scores),
        })
    }

    pub(super) fn describe(&self) {
        let lines = [("student", &self.student), ("teacher", &self.teacher)];
        for (name, retrieval) in lines {
            let Some(retrieval) = retrieval else { continue };
            let means = &retrieval.means;
            say(&format!(
                "first {} components, {name}: recall_at_1 {:.4}, mean_average_precision_at_r {:.4}",
                self.dim, means.recall_at_1, means.mean_average_precision_at_r
            ));
        }
    }
}
