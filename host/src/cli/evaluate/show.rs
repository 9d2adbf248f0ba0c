//! What an evaluation prints.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Args, Evaluation, Loss, Prefix};
use crate::cli::say;
use crate::evaluate::Retrieval;

/// Scores with the number of images that were searched for them.
fn with_n_gallery(mut scores: Value, n_gallery: usize) -> Value {
    scores["n_gallery"] = n_gallery.into();
    scores
}

fn scores_json(args: &Args, retrieval: &Retrieval) -> Value {
    let means = &retrieval.means;
    let mut scores = json!({
        "recall_at_1": means.recall_at_1,
        "recall_at_5": means.recall_at_5,
        "recall_at_10": means.recall_at_10,
        "precision_at_1": means.recall_at_1,
        "r_precision": means.r_precision,
        "mean_average_precision": means.mean_average_precision,
        "mean_average_precision_at_r": means.mean_average_precision_at_r,
    });
    for k in &args.k {
        scores[format!("recall_at_{k}")] = retrieval.recall_at(*k as usize).into();
    }
    scores
}

pub(super) fn as_json(args: &Args, evaluation: &Evaluation) -> Value {
    let scores = |retrieval: &Retrieval| scores_json(args, retrieval);
    let ceiling = evaluation.ceiling.as_ref();
    let header = evaluation.student.as_ref().map(|(header, _)| header);
    let student = evaluation.student.as_ref().map(|(_, student)| student);
    let mode = match (student, &evaluation.gallery.path) {
        (None, _) => "teacher",
        (Some(_), Some(_)) => "asymmetric",
        (Some(_), None) => "symmetric",
    };
    let asking = student.or(ceiling);
    let share = student
        .zip(ceiling)
        .and_then(|(student, ceiling)| ratio(student, ceiling));
    let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let mut object = json!({
        "schema": "eyas.evaluation/1",
        "mode": mode,
        "n_queries": evaluation.n_queries,
        "n_gallery": evaluation.gallery.n_rows,
        "n_queries_without_relevant": asking.map(|asking| asking.n_without_relevant),
        "precision": header.map(|header| header.precision.to_string()),
        "gallery_codes": evaluation.gallery.codes.to_string(),
        "space_id": evaluation.gallery.space.0.to_string(),
        "bundle": shown(&args.bundle),
        "gallery": shown(&evaluation.gallery.path),
        "student": header.map(|header| &header.name),
        "gallery_embedded_by": evaluation.gallery.embedded_by,
        "teacher": ceiling.map(scores),
        "recall_at_1_of_teacher": share,
        "histogram": evaluation.baseline.as_ref().map(|baseline| with_n_gallery(scores(&baseline.retrieval), baseline.n_gallery)),
        "clusters": evaluation.clusters.as_ref().map(|clusters| json!({
            "n_clusters": clusters.n_clusters,
            "nmi": clusters.nmi,
            "adjusted_mutual_information": clusters.adjusted,
        })),
        "against": evaluation.against.iter().map(Loss::as_json).collect::<Vec<_>>(),
        "nested": evaluation.nested.iter().map(Prefix::as_json).collect::<Vec<_>>(),
        "chance_recall_at_1": asking.and_then(Retrieval::chance_recall_at_1),
        "n_faults": evaluation.faults.0.len(),
        "conventions": {
            "recall_at_k": "share of queries with a relevant image among the k best; cmc_at_k is the same number",
            "mean_average_precision": "mean over queries of (1/R) sum of the precision at each relevant rank",
            "r_precision": "mean over queries of the share of relevant images among the first R",
            "nmi": "mutual information of k-means clusters and labels over the arithmetic mean of their entropies",
            "mean_average_precision_at_r": "mean over queries of (1/R) sum of the precision at each relevant rank up to R, R relevant images in the gallery",
            "excluded": "the query itself, by its content",
            "without_relevant": "in no mean",
        },
    });
    if let (Value::Object(object), Some(Value::Object(scores))) = (&mut object, asking.map(scores))
    {
        object.extend(scores);
    }
    object
}

/// Student's recall_at_1 as a share of the teacher's.
fn ratio(student: &Retrieval, ceiling: &Retrieval) -> Option<f64> {
    let whole = ceiling.means.recall_at_1;
    (whole > 0.0).then(|| student.means.recall_at_1 / whole)
}

pub(super) fn describe(args: &Args, evaluation: &Evaluation) {
    let Evaluation {
        gallery,
        student,
        ceiling,
        baseline,
        ..
    } = evaluation;
    let asking = match student {
        Some((header, _)) => format!("{} ({})", header.name, header.precision),
        None => "the teacher".to_owned(),
    };
    say(&format!(
        "{asking} against {} images embedded by {} ({}), space {}",
        gallery.n_rows, gallery.embedded_by, gallery.codes, gallery.space
    ));
    let student = student.as_ref().map(|(_, student)| student);
    let n_lost = student
        .or(ceiling.as_ref())
        .map(|asking| asking.n_without_relevant);
    say(&format!(
        "{} queries, {} of them with nothing to find",
        evaluation.n_queries,
        n_lost.unwrap_or(0)
    ));
    let columns: Vec<String> = { args.k.iter() }
        .map(|k| format!("recall_at_{k}"))
        .chain(["r_precision".into(), "mean_average_precision_at_r".into()])
        .collect();
    say(&format!("{:<12} {}", "", columns.join("  ")));
    let lines = [
        ("student", student),
        ("teacher", ceiling.as_ref()),
        (
            "histogram",
            baseline.as_ref().map(|baseline| &baseline.retrieval),
        ),
    ];
    for (name, retrieval) in lines {
        let Some(retrieval) = retrieval else { continue };
        let means = &retrieval.means;
        let recalls = args.k.iter().map(|k| retrieval.recall_at(*k as usize));
        let cells = recalls
            .chain([means.r_precision, means.mean_average_precision_at_r])
            .zip(&columns)
            .map(|(score, column)| format!("{score:>width$.4}", width = column.len()));
        let cells: Vec<String> = cells.collect();
        say(&format!("{name:<12} {}", cells.join("  ")));
    }
    if let Some(clusters) = &evaluation.clusters {
        say(&format!(
            "{} clusters: nmi {:.4}, adjusted_mutual_information {:.4}",
            clusters.n_clusters, clusters.nmi, clusters.adjusted
        ));
    }
    if let Some(baseline) = baseline
        && baseline.n_gallery != gallery.n_rows
    {
        say(&format!(
            "histograms search {} of the {} gallery images",
            baseline.n_gallery, gallery.n_rows
        ));
    }
    let share = student
        .zip(ceiling.as_ref())
        .and_then(|(student, ceiling)| ratio(student, ceiling));
    if let Some(share) = share {
        say(&format!(
            "the student reaches {share:.3} of the teacher's recall_at_1"
        ));
    }
    evaluation.nested.iter().for_each(Prefix::describe);
    evaluation.against.iter().for_each(Loss::describe);
}
