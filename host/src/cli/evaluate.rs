//! `eyas evaluate`: score a bundle against a gallery with labelled queries.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::matcher::Matcher;
use eyas_device::store::{MappedFile, Store, load_student};
use eyas_shared::bundle::BundleHeader;
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::gallery::RowEncoding;
use serde_json::{Value, json};

use super::gallery::RowPrecision;
use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::Manifest;
use crate::embeddings::cache::{self, Fault};
use crate::embeddings::{EmbeddedImages, images};
use crate::evaluate::{self, Retrieval, baseline};
use crate::gallery;
use crate::teacher::Teacher;

/// Score a bundle against a gallery with labelled queries.
///
/// Queries are encoded and searched by the device library, as on the board. A gallery image
/// that is the query itself is left out, by its content. Queries whose label is not in the
/// gallery count in no mean. Without a bundle the teacher itself asks.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas evaluate --bundle s.bundle --gallery photos.gallery --manifest photos --split val
  eyas evaluate --bundle s.bundle --symmetric --manifest photos --split val --json
  eyas evaluate --teacher photos.teacher --gallery photos.gallery --manifest photos
  eyas evaluate --bundle s.bundle --gallery photos.gallery --manifest photos \\
      --teacher photos.teacher --cache cache")]
pub(super) struct Args {
    /// Student to score.
    #[arg(long, required_unless_present = "teacher")]
    bundle: Option<PathBuf>,
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
    #[arg(long, requires = "bundle", conflicts_with = "gallery")]
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
    gallery: GalleryFacts,
    n_queries: usize,
    student: Option<(BundleHeader, Retrieval)>,
    ceiling: Option<Retrieval>,
    baseline: Option<Retrieval>,
    faults: Vec<Fault>,
}

struct GalleryFacts {
    path: Option<PathBuf>,
    n_rows: usize,
    precision: RowEncoding,
    embedded_by: String,
    space: SpaceId,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let manifest = data::open(&args.manifest)?;
    let asked = evaluate::select_queries(&manifest, args.split.as_deref())
        .with_context(|| format!("data `{}`", args.manifest.display()))?;
    let mut evaluation = match (&args.gallery, &args.bundle) {
        (Some(gallery), Some(bundle)) => asymmetric(args, bundle, gallery, &asked)?,
        (Some(gallery), None) => teacher_alone(args, gallery, &asked)?,
        (None, Some(bundle)) => symmetric(args, bundle, &manifest, &asked)?,
        (None, None) => bail!("neither --gallery nor --bundle with --symmetric is given"),
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

fn asymmetric(
    args: &Args,
    bundle: &Path,
    gallery: &Path,
    asked: &Manifest,
) -> anyhow::Result<Evaluation> {
    let store = Store::open(bundle, gallery)?;
    let matcher = store.matcher()?;
    let (embedded, mut faults) = encode("encoding queries", asked, |manifest, done| {
        images::encode_each(store.encoder(), manifest, done)
    });
    let queries = evaluate::queries_of(asked, &embedded);
    let student = evaluate::retrieval(&queries, &matcher)?;
    let ceiling = match &args.teacher {
        Some(teacher) => {
            let (_, retrieval, teacher_faults) = ceiling(args, teacher, asked, &matcher)?;
            let is_new = |fault: &Fault| !faults.iter().any(|known| known.id == fault.id);
            let teacher_faults: Vec<Fault> = teacher_faults.into_iter().filter(is_new).collect();
            faults.extend(teacher_faults);
            Some(retrieval)
        }
        None => None,
    };
    Ok(Evaluation {
        gallery: GalleryFacts::of(gallery, &matcher),
        n_queries: queries.ids.len(),
        student: Some((store.header().clone(), student)),
        ceiling,
        baseline: None,
        faults,
    })
}

fn teacher_alone(args: &Args, gallery: &Path, asked: &Manifest) -> anyhow::Result<Evaluation> {
    let teacher = args.teacher.as_ref().context("no --teacher is given")?;
    let file = MappedFile::open(gallery)?;
    let matcher = Matcher::new(file.verified_gallery()?);
    let (n_queries, retrieval, faults) = ceiling(args, teacher, asked, &matcher)?;
    Ok(Evaluation {
        gallery: GalleryFacts::of(gallery, &matcher),
        n_queries,
        student: None,
        ceiling: Some(retrieval),
        baseline: None,
        faults,
    })
}

impl GalleryFacts {
    fn of(path: &Path, matcher: &Matcher<'_>) -> Self {
        let header = &matcher.gallery().header;
        Self {
            path: Some(path.to_owned()),
            n_rows: header.n_rows as usize,
            precision: header.encoding,
            embedded_by: header.teacher.clone(),
            space: header.space,
        }
    }
}

/// Number of queries, what they found, and images that could not ask.
fn ceiling(
    args: &Args,
    path: &Path,
    asked: &Manifest,
    matcher: &Matcher<'_>,
) -> anyhow::Result<(usize, Retrieval, Vec<Fault>)> {
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
    let queries = evaluate::queries_of(asked, &embedded.images);
    let retrieval = evaluate::retrieval(&queries, matcher)?;
    Ok((queries.ids.len(), retrieval, embedded.faults))
}

fn symmetric(
    args: &Args,
    bundle: &Path,
    manifest: &Manifest,
    asked: &Manifest,
) -> anyhow::Result<Evaluation> {
    let file = MappedFile::open(bundle)?;
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
            space: bundle.header.space,
        },
        n_queries: queries.ids.len(),
        student: Some((bundle.header, student)),
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
        "gallery_precision": evaluation.gallery.precision.to_string(),
        "space_id": evaluation.gallery.space.0.to_string(),
        "bundle": shown(&args.bundle),
        "gallery": shown(&evaluation.gallery.path),
        "student": header.map(|header| &header.name),
        "gallery_embedded_by": evaluation.gallery.embedded_by,
        "teacher": ceiling.map(scores),
        "recall_at_1_of_teacher": share,
        "histogram": evaluation.baseline.as_ref().map(scores),
        "chance_recall_at_1": asking.and_then(|asking| chance(asking, evaluation.gallery.n_rows)),
        "n_faults": evaluation.faults.len(),
        "conventions": {
            "recall_at_k": "share of queries with a relevant image among the k best",
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
        gallery,
        student,
        ceiling,
        ..
    } = evaluation;
    let asking = match student {
        Some((header, _)) => format!("{} ({})", header.name, header.precision),
        None => "the teacher".to_owned(),
    };
    say(&format!(
        "{asking} against {} images embedded by {} ({}), space {}",
        gallery.n_rows, gallery.embedded_by, gallery.precision, gallery.space
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
    say("             recall_at_1  recall_at_5  recall_at_10  mean_average_precision_at_r");
    let lines = [
        ("student", student),
        ("teacher", ceiling.as_ref()),
        ("histogram", evaluation.baseline.as_ref()),
    ];
    for (name, retrieval) in lines {
        let Some(retrieval) = retrieval else { continue };
        let means = &retrieval.means;
        say(&format!(
            "{name:<12} {:>11.4}  {:>11.4}  {:>12.4}  {:>27.4}",
            means.recall_at_1,
            means.recall_at_5,
            means.recall_at_10,
            means.mean_average_precision_at_r
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
}
