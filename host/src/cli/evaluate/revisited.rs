//! `eyas evaluate --ground-truth`: revisited Oxford and Paris.

use std::collections::BTreeMap;
use std::path::Path;

use eyas_device::matcher::Matcher;
use eyas_device::store::{GalleryCheck, MappedFile, Store};
use eyas_shared::preprocess::{self, RgbImage};
use serde_json::{Value, json};

use super::super::{Answer, Progress, say};
use super::{Args, check_space};
use crate::data;
use crate::data::manifest::Manifest;
use crate::evaluate::landmarks;
use crate::evaluate::revisited::{Level, RevisitedScores};
use crate::teacher::Teacher;

/// Queries of a revisited set, by student and teacher as far as they are named.
pub(super) fn run(
    args: &Args,
    truth: &Path,
    gallery: &Path,
    manifest: &Manifest,
) -> anyhow::Result<Answer> {
    let truth = data::landmarks::read_revisited(truth)?;
    let ks: Vec<usize> = args.k.iter().map(|k| *k as usize).collect();
    let n_queries = truth.queries.len();
    let mut found = Vec::new();
    if let Some(bundle) = &args.bundle {
        let store = Store::open(bundle, gallery, GalleryCheck::Whole)?;
        let encoder = store.encoder();
        let embed = |image: &RgbImage| {
            let pixels = preprocess::prepare(image, encoder.preprocess());
            encoder.encode(&pixels).map_err(|err| err.to_string())
        };
        let progress = Progress::new("encoding queries", n_queries);
        let dim = encoder.dim();
        let queries = landmarks::embed_queries(&truth, manifest, dim, embed, || progress.step())?;
        let matcher = store.matcher()?;
        let scores = landmarks::score_levels(&truth, manifest, &queries, &matcher, &ks)?;
        found.push(("student", scores));
    }
    if let Some(path) = &args.teacher {
        let teacher = Teacher::open(path)?;
        let file = MappedFile::open(gallery)?;
        let matcher = Matcher::new(file.verified_gallery()?);
        check_space(path, &teacher, &matcher)?;
        let embed = |image: &RgbImage| teacher.embed(image).map_err(|err| err.to_string());
        let progress = Progress::new("embedding queries", n_queries);
        let dim = teacher.dim();
        let queries = landmarks::embed_queries(&truth, manifest, dim, embed, || progress.step())?;
        let scores = landmarks::score_levels(&truth, manifest, &queries, &matcher, &ks)?;
        found.push(("teacher", scores));
    }
    if args.json {
        say(&as_json(n_queries, &ks, &found).to_string());
    } else {
        describe(n_queries, &ks, &found);
    }
    Ok(Answer::Yes)
}

type NamedLevels<'n> = (&'n str, [RevisitedScores; 3]);

fn as_json(n_queries: usize, ks: &[usize], found: &[NamedLevels<'_>]) -> Value {
    let mut object = json!({
        "schema": "eyas.evaluation-revisited/1",
        "n_queries": n_queries,
        "conventions": {
            "mean_average_precision": "trapezoid rule, junk taken out, queries without a relevant image in no mean",
            "precision_at_k": "share of relevant images up to k or the last relevant one",
        },
    });
    for (name, levels) in found {
        for (level, scores) in Level::ALL.into_iter().zip(levels) {
            let at_k: BTreeMap<String, f64> = { ks.iter().map(usize::to_string) }
                .zip(scores.mean_precision_at_k.iter().copied())
                .collect();
            object[*name][level.name()] = json!({
                "mean_average_precision": scores.mean_average_precision,
                "precision_at_k": at_k,
                "n_queries_without_relevant": scores.n_without_relevant,
            });
        }
    }
    object
}

fn describe(n_queries: usize, ks: &[usize], found: &[NamedLevels<'_>]) {
    say(&format!("{n_queries} queries"));
    let at_k: String = ks
        .iter()
        .map(|k| format!("  {:>8}", format!("mP@{k}")))
        .collect();
    say(&format!("{:<8} {:<6}  {:>8}{at_k}", "", "", "mAP"));
    for (name, levels) in found {
        for (level, scores) in Level::ALL.into_iter().zip(levels) {
            let map = scores.mean_average_precision.unwrap_or(f64::NAN);
            let at_k = scores.mean_precision_at_k.iter();
            let at_k: String = at_k.map(|share| format!("  {share:>8.4}")).collect();
            say(&format!("{name:<8} {:<6}  {map:>8.4}{at_k}", level.name()));
        }
    }
}
