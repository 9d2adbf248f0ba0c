//! `eyas evaluate --against`: what other codes of one gallery lose.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::matcher::Matcher;
use eyas_device::store::MappedFile;
use eyas_shared::gallery::{Codes, Gallery};
use serde_json::{Value, json};

use crate::cli::say;
use crate::evaluate::Queries;
use crate::evaluate::paired::{Difference, TopScores, answered};

/// What one gallery answers less than another.
pub(super) struct Loss {
    path: PathBuf,
    codes: Codes,
    n_bytes: usize,
    recall_at_1: Measured,
    mean_average_precision_at_r: Measured,
}

/// A mean, and how it differs from the first gallery's.
struct Measured {
    mean: f64,
    difference: Difference,
}

impl Measured {
    fn of(base: &[TopScores], other: &[TopScores], metric: fn(&TopScores) -> f64) -> Self {
        let values = |scores: &[TopScores]| scores.iter().map(metric).collect::<Vec<_>>();
        let other = values(other);
        Self {
            mean: other.iter().sum::<f64>() / other.len().max(1) as f64,
            difference: Difference::of(&values(base), &other),
        }
    }

    fn as_json(&self) -> Value {
        let Difference { mean, low, high, n } = self.difference;
        json!({ "mean": self.mean, "difference": mean, "low": low, "high": high, "n": n })
    }
}

/// Scores the queries in every gallery as the matcher answers them.
pub(super) fn losses(
    paths: &[PathBuf],
    queries: &Queries,
    base: &Matcher<'_>,
) -> anyhow::Result<Vec<Loss>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let scored = |matcher: &Matcher<'_>| answered(queries, matcher);
    let in_base = scored(base)?;
    let of_path = |path: &PathBuf| {
        let file = MappedFile::open(path)?;
        let gallery = file.verified_gallery()?;
        check_same_images(path, &gallery, base.gallery())?;
        let codes = gallery.codes();
        let other = scored(&Matcher::new(gallery))
            .with_context(|| format!("gallery `{}`", path.display()))?;
        // What has nothing to find in one has nothing to find in the other.
        let (in_base, other): (Vec<_>, Vec<_>) = {
            in_base
                .iter()
                .zip(other)
                .filter_map(|(base, other)| Some(((*base)?, other?)))
        }
        .unzip();
        Ok(Loss {
            path: path.clone(),
            codes,
            n_bytes: file.bytes().len(),
            recall_at_1: Measured::of(&in_base, &other, |scores| scores.recall_at_1),
            mean_average_precision_at_r: Measured::of(&in_base, &other, |scores| {
                scores.mean_average_precision_at_r
            }),
        })
    };
    paths.iter().map(of_path).collect()
}

/// Only codes may differ: the same images with the same labels.
fn check_same_images(path: &Path, other: &Gallery<'_>, base: &Gallery<'_>) -> anyhow::Result<()> {
    let path = path.display();
    if other.header.space != base.header.space {
        let (other, base) = (other.header.space, base.header.space);
        bail!(
            "`{path}` is of space {other}, --gallery of space {base}; compare galleries of one teacher"
        );
    }
    let images = |gallery: &Gallery<'_>| {
        let live = (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row));
        let mut images: Vec<_> = live
            .filter_map(|row| gallery.entry(row))
            .map(|entry| (entry.id, entry.label.to_owned()))
            .collect();
        images.sort_unstable();
        images
    };
    if images(other) != images(base) {
        bail!("`{path}` holds other images or labels than --gallery; build both from one list");
    }
    Ok(())
}

impl Loss {
    pub(super) fn as_json(&self) -> Value {
        json!({
            "gallery": self.path.display().to_string(),
            "codes": self.codes.to_string(),
            "bytes": self.n_bytes,
            "recall_at_1": self.recall_at_1.as_json(),
            "mean_average_precision_at_r": self.mean_average_precision_at_r.as_json(),
            "interval": "95 % of a paired bootstrap over queries, 10000 resamples",
        })
    }

    pub(super) fn describe(&self) {
        let shown = |name: &str, measured: &Measured| {
            let Difference {
                mean, low, high, ..
            } = measured.difference;
            format!(
                "{name} {:.4} ({mean:+.4}, {low:+.4} to {high:+.4})",
                measured.mean
            )
        };
        say(&format!(
            "{}: {}, {}",
            self.codes,
            shown("recall_at_1", &self.recall_at_1),
            shown(
                "mean_average_precision_at_r",
                &self.mean_average_precision_at_r
            ),
        ));
    }
}
