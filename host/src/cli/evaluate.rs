//! `eyas evaluate`: score a bundle against a gallery with labelled queries.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::matcher::Matcher;
use eyas_device::store::{MappedFile, Store, load_student};
use eyas_shared::bundle::BundleHeader;
use eyas_shared::gallery::RowEncoding;
use serde_json::{Value, json};

use super::gallery::RowPrecision;
use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::Manifest;
use crate::embeddings::cache::{self, Fault};
use crate::embeddings::{EmbeddedImages, images};
use crate::evaluate::{self, Queries, Retrieval, baseline};
use crate::gallery;
use crate::teacher::Teacher;

/// Score a bundle against a gallery with labelled queries.
///
/// Queries are encoded and searched by the device library, as on the board. A gallery image
/// that is the query itself is left out, by its content. Queries whose label is not in the
/// gallery count in no mean.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas evaluate --bundle s.bundle --gallery photos.gallery --manifest photos --split val
  eyas evaluate --bundle s.bundle --symmetric --manifest photos --split val --json
  eyas evaluate --bundle s.bundle --gallery photos.gallery --manifest photos \\
      --teacher photos.teacher --cache cache")]
pub(super) struct Args {
    /// Student to score.
    #[arg(long)]
    bundle: PathBuf,
    /// Gallery that is searched.
    #[arg(long, required_unless_present = "symmetric")]
    gallery: Option<PathBuf>,
    /// Folder or CSV list of labelled images.
    #[arg(long)]
    manifest: PathBuf,
    /// Images of this split ask; those with the query role if not given.
    #[arg(long)]
    split: Option<String>,
    /// Search a gallery that the student embeds itself, from images of the manifest.
    #[arg(long, conflicts_with = "gallery")]
    symmetric: bool,
    /// Split that makes up the gallery of --symmetric and --baseline; the images with the
    /// gallery role if not given.
    #[arg(long)]
    gallery_split: Option<String>,
    /// How rows of the gallery of --symmetric are stored.
    #[arg(long, value_enum, default_value_t = RowPrecision::F16)]
    gallery_precision: RowPrecision,
    /// Teacher, to score as the ceiling: its queries against the same gallery.
    #[arg(long, conflicts_with = "symmetric")]
    teacher: Option<PathBuf>,
    /// Folder that keeps what the teacher's networks computed.
    #[arg(long, requires = "teacher")]
    cache: Option<PathBuf>,
    /// Also score retrieval by color histogram among the manifest's images.
    #[arg(long)]
    baseline: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// What was measured.
struct Evaluation {
    header: BundleHeader,
    gallery: GalleryFacts,
    n_queries: usize,
    student: Retrieval,
    ceiling: Option<Retrieval>,
    baseline: Option<Retrieval>,
    faults: Vec<Fault>,
}

struct GalleryFacts {
    path: Option<PathBuf>,
    n_rows: usize,
    precision: RowEncoding,
    embedded_by: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let manifest = data::open(&args.manifest)?;
    let asked = evaluate::select_queries(&manifest, args.split.as_deref())
        .with_context(|| format!("data `{}`", args.manifest.display()))?;
    let mut evaluation = match &args.gallery {
        Some(path) => asymmetric(args, path, &asked)?,
        None => symmetric(args, &manifest, &asked)?,
    };
    if args.baseline {
        let searched = gallery::select(&manifest, args.gallery_split.as_deref())?;
        let n_images = asked.images.len() + searched.manifest.images.len();
        let progress = Progress::new("counting colors", n_images);
        let found = baseline::by_histogram(&asked, &searched, || progress.step())?;
        evaluation.baseline = Some(found);
    }
    if args.json {
        say(&as_json(args, &evaluation).to_string());
    } else {
        describe(&evaluation);
    }
    for fault in &evaluation.faults {
        note(&format!("left out: {fault}"));
    }
    if !evaluation.faults.is_empty() {
        bail!(
            "{} images can not be read or embedded",
            evaluation.faults.len()
        );
    }
    Ok(Answer::Yes)
}

fn asymmetric(args: &Args, path: &Path, asked: &Manifest) -> anyhow::Result<Evaluation> {
    let store = Store::open(&args.bundle, path)?;
    let matcher = store.matcher()?;
    let (embedded, mut faults) = encode("encoding queries", asked, |manifest, done| {
        images::encode_each(store.encoder(), manifest, done)
    });
    let queries = evaluate::queries_of(asked, &embedded);
    let student = evaluate::retrieval(&queries, &matcher)?;
    let ceiling = match &args.teacher {
        Some(teacher) => {
            let (retrieval, teacher_faults) = ceiling(args, teacher, asked, &matcher)?;
            faults.extend(teacher_faults);
            Some(retrieval)
        }
        None => None,
    };
    let header = &matcher.gallery().header;
    Ok(Evaluation {
        header: store.header().clone(),
        gallery: GalleryFacts {
            path: Some(path.to_owned()),
            n_rows: header.n_rows as usize,
            precision: header.encoding,
            embedded_by: header.teacher.clone(),
        },
        n_queries: queries.ids.len(),
        student,
        ceiling,
        baseline: None,
        faults,
    })
}

fn ceiling(
    args: &Args,
    path: &Path,
    asked: &Manifest,
    matcher: &Matcher<'_>,
) -> anyhow::Result<(Retrieval, Vec<Fault>)> {
    let teacher = Teacher::open(path)?;
    let space = matcher.gallery().header.space;
    if teacher.space() != space {
        bail!(
            "teacher `{}` embeds into space {}, the gallery is of space {space}; name the teacher that built the gallery",
            path.display(),
            teacher.space()
        );
    }
    let progress = Progress::new("embedding queries", asked.images.len());
    let cache = args.cache.as_deref();
    let embedded = cache::embed_images(&teacher, asked, cache, &|| progress.step())?;
    let queries: Queries = evaluate::queries_of(asked, &embedded.images);
    Ok((evaluate::retrieval(&queries, matcher)?, embedded.faults))
}

fn symmetric(args: &Args, manifest: &Manifest, asked: &Manifest) -> anyhow::Result<Evaluation> {
    let file = MappedFile::open(&args.bundle)?;
    let bundle = file.bundle()?;
    let encoder = load_student(&file, &bundle)?;
    let mut searched = gallery::select(manifest, args.gallery_split.as_deref())
        .with_context(|| format!("data `{}`", args.manifest.display()))?;
    let (rows, mut faults) = encode("encoding gallery", &searched.manifest, |manifest, done| {
        images::encode_each(&encoder, manifest, done)
    });
    let (embedded, query_faults) = encode("encoding queries", asked, |manifest, done| {
        images::encode_each(&encoder, manifest, done)
    });
    let is_new = |fault: &Fault| !faults.contains(fault);
    let query_faults: Vec<Fault> = query_faults.into_iter().filter(is_new).collect();
    faults.extend(query_faults);
    let searched_images = &mut searched.manifest.images;
    searched_images.retain(|image| rows.get(&image.id).is_some());
    let queries = evaluate::queries_of(asked, &embedded);
    let encoding = args.gallery_precision.into();
    let student = evaluate::against_images(&queries, &searched, &rows, encoding)?;
    Ok(Evaluation {
        gallery: GalleryFacts {
            path: None,
            n_rows: searched.manifest.images.len(),
            precision: encoding,
            embedded_by: format!("student {}", bundle.header.name),
        },
        header: bundle.header,
        n_queries: queries.ids.len(),
        student,
        ceiling: None,
        baseline: None,
        faults,
    })
}

fn encode(
    work: &str,
    manifest: &Manifest,
    embed: impl FnOnce(&Manifest, &dyn Fn()) -> (EmbeddedImages, Vec<Fault>),
) -> (EmbeddedImages, Vec<Fault>) {
    let progress = Progress::new(work, manifest.images.len());
    embed(manifest, &|| progress.step())
}

fn as_json(args: &Args, evaluation: &Evaluation) -> Value {
    let scores = |retrieval: &Retrieval| {
        json!({
            "recall_at_1": retrieval.means.recall_at_1,
            "recall_at_5": retrieval.means.recall_at_5,
            "recall_at_10": retrieval.means.recall_at_10,
            "mean_average_precision_at_r": retrieval.means.mean_average_precision_at_r,
        })
    };
    let student = &evaluation.student;
    let ceiling = evaluation.ceiling.as_ref();
    let mut object = json!({
        "schema": "eyas.evaluation/1",
        "mode": if evaluation.gallery.path.is_some() { "asymmetric" } else { "symmetric" },
        "n_queries": evaluation.n_queries,
        "n_gallery": evaluation.gallery.n_rows,
        "n_queries_without_relevant": student.n_without_relevant,
        "precision": evaluation.header.precision.to_string(),
        "gallery_precision": evaluation.gallery.precision.to_string(),
        "space_id": evaluation.header.space.0.to_string(),
        "bundle": args.bundle.display().to_string(),
        "gallery": evaluation.gallery.path.as_ref().map(|path| path.display().to_string()),
        "student": evaluation.header.name,
        "gallery_embedded_by": evaluation.gallery.embedded_by,
        "teacher": ceiling.map(scores),
        "recall_at_1_of_teacher": ceiling.and_then(|ceiling| ratio(student, ceiling)),
        "histogram": evaluation.baseline.as_ref().map(scores),
        "chance_recall_at_1": chance(student, evaluation.gallery.n_rows),
        "n_faults": evaluation.faults.len(),
        "conventions": {
            "recall_at_k": "share of queries with a relevant image among the k best",
            "mean_average_precision_at_r": "mean over queries of (1/R) sum of the precision at each relevant rank up to R, R relevant images in the gallery",
            "excluded": "the query itself, by its content",
            "without_relevant": "in no mean",
        },
    });
    if let (Value::Object(object), Value::Object(scores)) = (&mut object, scores(student)) {
        object.extend(scores);
    }
    object
}

/// Expected recall_at_1 of a random order: the mean share of relevant rows.
fn chance(retrieval: &Retrieval, n_gallery: usize) -> Option<f64> {
    let asked: Vec<usize> = retrieval
        .queries
        .iter()
        .map(|query| query.n_relevant)
        .filter(|&n_relevant| n_relevant > 0)
        .collect();
    let relevant = asked.iter().sum::<usize>() as f64;
    (!asked.is_empty()).then(|| relevant / (asked.len() * n_gallery) as f64)
}

/// Student's recall_at_1 as a share of the teacher's.
fn ratio(student: &Retrieval, ceiling: &Retrieval) -> Option<f64> {
    let whole = ceiling.means.recall_at_1;
    (whole > 0.0).then(|| student.means.recall_at_1 / whole)
}

fn describe(evaluation: &Evaluation) {
    let Evaluation {
        header,
        gallery,
        student,
        ..
    } = evaluation;
    say(&format!(
        "{} ({}) against {} images embedded by {} ({}), space {}",
        header.name,
        header.precision,
        gallery.n_rows,
        gallery.embedded_by,
        gallery.precision,
        header.space
    ));
    say(&format!(
        "{} queries, {} of them with nothing to find",
        evaluation.n_queries, student.n_without_relevant
    ));
    say("             recall_at_1  recall_at_5  recall_at_10  mean_average_precision_at_r");
    let line = |name: &str, retrieval: &Retrieval| {
        let means = &retrieval.means;
        say(&format!(
            "{name:<12} {:>11.4}  {:>11.4}  {:>12.4}  {:>27.4}",
            means.recall_at_1,
            means.recall_at_5,
            means.recall_at_10,
            means.mean_average_precision_at_r
        ));
    };
    line("student", student);
    if let Some(ceiling) = &evaluation.ceiling {
        line("teacher", ceiling);
        if let Some(ratio) = ratio(student, ceiling) {
            say(&format!(
                "the student reaches {ratio:.3} of the teacher's recall_at_1"
            ));
        }
    }
    if let Some(baseline) = &evaluation.baseline {
        line("histogram", baseline);
    }
}
