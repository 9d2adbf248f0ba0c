//! `eyas evaluate`: score a bundle against a gallery with labelled queries.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::matcher::Matcher;
use eyas_device::store::{MappedFile, Store, load_student};
use eyas_shared::bundle::BundleHeader;
use eyas_shared::gallery::{Gallery, RowEncoding};
use serde_json::{Value, json};

use super::gallery::RowPrecision;
use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::Manifest;
use crate::embeddings::cache::{self, Fault};
use crate::embeddings::{EmbeddedImages, images};
use crate::evaluate::baseline::{self, Baseline};
use crate::evaluate::{self, Retrieval};
use crate::gallery::{self, Selected};
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
    /// Split that makes up the gallery of --symmetric; the images with the gallery role if
    /// not given.
    #[arg(long, conflicts_with = "gallery")]
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
    /// Also score retrieval by color histogram, among the gallery's images that the manifest
    /// lists.
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
    student: Retrieval,
    ceiling: Option<Retrieval>,
    baseline: Option<Baseline>,
    faults: Faults,
}

/// Images that can not be read or embedded, each once, whoever failed on it.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, faults: Vec<Fault>) {
        for fault in faults {
            if self.0.iter().all(|known| known.id != fault.id) {
                self.0.push(fault);
            }
        }
    }
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
    let evaluation = match &args.gallery {
        Some(path) => asymmetric(args, path, &manifest, asked)?,
        None => symmetric(args, &manifest, asked)?,
    };
    if args.json {
        say(&as_json(args, &evaluation).to_string());
    } else {
        describe(&evaluation);
    }
    let faults = &evaluation.faults.0;
    for fault in faults {
        note(&format!("left out: {fault}"));
    }
    if !faults.is_empty() {
        bail!("{} images can not be read or embedded", faults.len());
    }
    Ok(Answer::Yes)
}

fn asymmetric(
    args: &Args,
    path: &Path,
    manifest: &Manifest,
    mut asked: Manifest,
) -> anyhow::Result<Evaluation> {
    let store = Store::open(&args.bundle, path)?;
    let matcher = store.matcher()?;
    let searched = match args.baseline {
        true => Some(listed_images(args, path, matcher.gallery(), manifest)?),
        false => None,
    };
    let mut faults = Faults::default();
    let of_student = embed_those(&mut asked, &mut faults, |asked| {
        Ok(encode("encoding queries", asked, |manifest, done| {
            images::encode_each(store.encoder(), manifest, done)
        }))
    })?;
    let of_teacher = match &args.teacher {
        Some(teacher) => Some(embed_those(&mut asked, &mut faults, |asked| {
            with_teacher(args, teacher, asked, &matcher)
        })?),
        None => None,
    };
    // Only now is it known which queries both have embedded: all ask the same.
    let score = |embedded: &EmbeddedImages| {
        evaluate::retrieval(&evaluate::queries_of(&asked, embedded), &matcher)
    };
    let student = score(&of_student)?;
    let ceiling = of_teacher.as_ref().map(score).transpose()?;
    let baseline = match searched {
        Some(searched) => Some(with_histograms(&asked, &searched, &mut faults)?),
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
        student,
        ceiling,
        baseline,
        faults,
    })
}

/// Embeds images; those that fail become faults and are dropped from the list.
fn embed_those(
    listed: &mut Manifest,
    faults: &mut Faults,
    embed: impl FnOnce(&Manifest) -> anyhow::Result<(EmbeddedImages, Vec<Fault>)>,
) -> anyhow::Result<EmbeddedImages> {
    let (embedded, new_faults) = embed(listed)?;
    faults.add(new_faults);
    listed
        .images
        .retain(|image| embedded.get(&image.id).is_some());
    Ok(embedded)
}

/// The gallery's images as far as the manifest lists them.
fn listed_images(
    args: &Args,
    path: &Path,
    gallery: &Gallery<'_>,
    manifest: &Manifest,
) -> anyhow::Result<Selected> {
    let listed = baseline::images_of(gallery, manifest);
    let (n_listed, n_rows) = (listed.manifest.images.len(), gallery.n_rows() as usize);
    let (data, path) = (args.manifest.display(), path.display());
    if n_listed == 0 {
        bail!(
            "no image of gallery `{path}` is in the data `{data}`, so --baseline has nothing to search"
        );
    }
    if n_listed < n_rows {
        note(&format!(
            "{} of {n_rows} rows of gallery `{path}` have no image in the data `{data}`: \
             histograms search the other {n_listed}",
            n_rows - n_listed
        ));
    }
    Ok(listed)
}

fn with_histograms(
    asked: &Manifest,
    searched: &Selected,
    faults: &mut Faults,
) -> anyhow::Result<Baseline> {
    let n_images = asked.images.len() + searched.manifest.images.len();
    let progress = Progress::new("counting colors", n_images);
    let mut found = baseline::by_histogram(asked, searched, || progress.step())?;
    faults.add(std::mem::take(&mut found.faults));
    Ok(found)
}

fn with_teacher(
    args: &Args,
    path: &Path,
    asked: &Manifest,
    matcher: &Matcher<'_>,
) -> anyhow::Result<(EmbeddedImages, Vec<Fault>)> {
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
    Ok((embedded.images, embedded.faults))
}

fn symmetric(args: &Args, manifest: &Manifest, mut asked: Manifest) -> anyhow::Result<Evaluation> {
    let file = MappedFile::open(&args.bundle)?;
    let bundle = file.bundle()?;
    let encoder = load_student(&file, &bundle)?;
    let mut searched = gallery::select(manifest, args.gallery_split.as_deref())
        .with_context(|| format!("data `{}`", args.manifest.display()))?;
    let mut faults = Faults::default();
    let embed = |work: &'static str| {
        let encoder = &encoder;
        move |manifest: &Manifest| {
            Ok(encode(work, manifest, |manifest, done| {
                images::encode_each(encoder, manifest, done)
            }))
        }
    };
    let searched_images = &mut searched.manifest;
    let rows = embed_those(searched_images, &mut faults, embed("encoding gallery"))?;
    let embedded = embed_those(&mut asked, &mut faults, embed("encoding queries"))?;
    let queries = evaluate::queries_of(&asked, &embedded);
    let encoding = args.gallery_precision.into();
    let student = evaluate::against_images(&queries, &searched, &rows, encoding)?;
    let baseline = match args.baseline {
        true => Some(with_histograms(&asked, &searched, &mut faults)?),
        false => None,
    };
    Ok(Evaluation {
        gallery: GalleryFacts {
            path: None,
            n_rows: searched.manifest.images.len(),
            precision: encoding,
            embedded_by: format!("student {}", bundle.header.name),
        },
        header: bundle.header,
        student,
        ceiling: None,
        baseline,
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

/// Scores with the number of images that were searched for them.
fn with_n_gallery(mut scores: Value, n_gallery: usize) -> Value {
    scores["n_gallery"] = n_gallery.into();
    scores
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
        "n_queries": student.queries.len(),
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
        "histogram": evaluation.baseline.as_ref().map(|baseline| with_n_gallery(scores(&baseline.retrieval), baseline.n_gallery)),
        "chance_recall_at_1": student.chance_recall_at_1(),
        "n_faults": evaluation.faults.0.len(),
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
        student.queries.len(),
        student.n_without_relevant
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
        line("histogram", &baseline.retrieval);
        if baseline.n_gallery != gallery.n_rows {
            say(&format!(
                "histograms search {} of the {} gallery images",
                baseline.n_gallery, gallery.n_rows
            ));
        }
    }
}
