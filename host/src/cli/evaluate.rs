//! `eyas evaluate`: score a bundle against a gallery with labelled queries.

mod against;
mod nested;
mod revisited;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use eyas_device::matcher::Matcher;
use eyas_device::store::{GalleryCheck, MappedFile, Store, load_student};
use eyas_shared::bundle::BundleHeader;
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::gallery::Codes;

use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::Manifest;
use crate::embeddings::cache::{self, Fault};
use crate::embeddings::{EmbeddedImages, images};
use crate::evaluate::baseline::{self, Baseline};
use crate::evaluate::{self, Queries, Retrieval, clustering};
use crate::gallery::{self, Selected};
use crate::teacher::Teacher;
use against::Loss;
use nested::Prefix;

/// Starts k-means of `--clusters`.
const CLUSTER_SEED: u64 = 0;

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
      --teacher photos.teacher --cache cache
  eyas evaluate --bundle s.bundle --gallery oxford.gallery --manifest roxford5k \\
      --ground-truth roxford5k/gnd_roxford5k.pkl
  eyas evaluate --bundle s.bundle --gallery photos.gallery --manifest photos --dims 64,32")]
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
    /// Split that makes up the gallery of --symmetric; the images with the gallery role if
    /// not given.
    #[arg(long, conflicts_with = "gallery")]
    gallery_split: Option<String>,
    /// How rows of the gallery of --symmetric are stored.
    #[arg(long, value_name = "CODES", default_value = "f16", value_parser = Codes::from_str)]
    gallery_codes: Codes,
    /// The same gallery in other codes, as often as given: also show what each loses beside
    /// --gallery, query by query, with a 95 % interval.
    #[arg(
        long,
        requires = "bundle",
        requires = "gallery",
        value_name = "GALLERY"
    )]
    against: Vec<PathBuf>,
    /// Teacher, to score as the ceiling: its queries against the same gallery.
    #[arg(long, conflicts_with = "symmetric")]
    teacher: Option<PathBuf>,
    /// Folder that keeps what the teacher's networks computed.
    #[arg(long, requires = "teacher")]
    cache: Option<PathBuf>,
    /// Ranks up to which recall is shown (recall_at_k, which is also cmc_at_k).
    #[arg(long, value_name = "K,K,...", value_delimiter = ',', default_values_t = [1, 5, 10],
          value_parser = clap::value_parser!(u32).range(1..))]
    k: Vec<u32>,
    /// Also score the first D components of every embedding by themselves, as a smaller gallery
    /// would hold them; good for students trained with `nested`.
    #[arg(
        long,
        value_name = "D,D,...",
        value_delimiter = ',',
        requires = "gallery"
    )]
    dims: Vec<usize>,
    /// Ground truth of revisited Oxford or Paris (gnd_*.pkl): its queries ask, cut out of their
    /// images; easy, medium and hard instead of labels.
    #[arg(long, value_name = "FILE", requires = "gallery",
          conflicts_with_all = ["split", "symmetric", "clusters", "baseline", "dims"])]
    ground_truth: Option<PathBuf>,
    /// Also cluster the asking embeddings by k-means, as many clusters as labels ask, and
    /// show the normalized mutual information of clusters and labels.
    #[arg(long)]
    clusters: bool,
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
    gallery: GalleryFacts,
    n_queries: usize,
    student: Option<(BundleHeader, Retrieval)>,
    ceiling: Option<Retrieval>,
    baseline: Option<Baseline>,
    clusters: Option<Agreement>,
    against: Vec<Loss>,
    nested: Vec<Prefix>,
    faults: Faults,
}

/// How well clusters of the asking embeddings agree with their labels.
struct Agreement {
    n_clusters: usize,
    nmi: f64,
    adjusted: f64,
}

impl Agreement {
    /// `None` if it is not asked for.
    fn of(args: &Args, queries: &Queries) -> Option<Self> {
        if !args.clusters {
            return None;
        }
        let mut number_of = BTreeMap::new();
        let labels: Vec<u32> = { queries.labels.iter() }
            .map(|label| {
                let next = number_of.len() as u32;
                *number_of.entry(label).or_insert(next)
            })
            .collect();
        let n_clusters = number_of.len();
        let clusters = clustering::k_means(&queries.embeddings, n_clusters, CLUSTER_SEED);
        Some(Self {
            n_clusters,
            nmi: clustering::nmi_arithmetic(&labels, &clusters),
            adjusted: clustering::adjusted_mutual_information(&labels, &clusters),
        })
    }
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
    codes: Codes,
    embedded_by: String,
    space: SpaceId,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let manifest = data::open(&args.manifest)?;
    if let (Some(truth), Some(gallery)) = (&args.ground_truth, &args.gallery) {
        return revisited::run(args, truth, gallery, &manifest);
    }
    let asked = evaluate::select_queries(&manifest, args.split.as_deref())
        .with_context(|| format!("data `{}`", args.manifest.display()))?;
    let evaluation = match (&args.gallery, &args.bundle) {
        (Some(gallery), Some(bundle)) => asymmetric(args, bundle, gallery, &manifest, asked)?,
        (Some(gallery), None) => teacher_alone(args, gallery, &manifest, asked)?,
        (None, Some(bundle)) => symmetric(args, bundle, &manifest, asked)?,
        (None, None) => bail!("neither --gallery nor --bundle with --symmetric is given"),
    };
    if args.json {
        say(&show::as_json(args, &evaluation).to_string());
    } else {
        show::describe(args, &evaluation);
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
    bundle: &Path,
    gallery: &Path,
    manifest: &Manifest,
    mut asked: Manifest,
) -> anyhow::Result<Evaluation> {
    let store = Store::open(bundle, gallery, GalleryCheck::Whole)?;
    let matcher = store.matcher()?;
    let searched = searched_by_baseline(args, gallery, &matcher, manifest)?;
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
        let queries = evaluate::queries_of(&asked, embedded);
        let progress = Progress::of_images("searching", queries.ids.len());
        evaluate::watched_retrieval(&queries, &matcher, |n| progress.advance(n))
    };
    let student = score(&of_student)?;
    let queries = evaluate::queries_of(&asked, &of_student);
    let clusters = Agreement::of(args, &queries);
    let against = against::losses(&args.against, &queries, &matcher)?;
    let asks_too = { of_teacher.as_ref() }.map(|teacher| evaluate::queries_of(&asked, teacher));
    let nested = nested::prefixes(&args.dims, Some(&queries), asks_too.as_ref(), &matcher)?;
    let ceiling = of_teacher.as_ref().map(score).transpose()?;
    Ok(Evaluation {
        gallery: GalleryFacts::of(gallery, &matcher),
        n_queries: asked.images.len(),
        student: Some((store.header().clone(), student)),
        ceiling,
        baseline: with_histograms(&asked, searched.as_ref(), &mut faults)?,
        clusters,
        against,
        nested,
        faults,
    })
}

/// A teacher's own queries against a gallery.
fn teacher_alone(
    args: &Args,
    gallery: &Path,
    manifest: &Manifest,
    mut asked: Manifest,
) -> anyhow::Result<Evaluation> {
    let teacher = args.teacher.as_ref().context("no --teacher is given")?;
    let file = MappedFile::open(gallery)?;
    let matcher = Matcher::new(file.verified_gallery()?);
    let searched = searched_by_baseline(args, gallery, &matcher, manifest)?;
    let mut faults = Faults::default();
    let embedded = embed_those(&mut asked, &mut faults, |asked| {
        with_teacher(args, teacher, asked, &matcher)
    })?;
    let queries = evaluate::queries_of(&asked, &embedded);
    let progress = Progress::of_images("searching", queries.ids.len());
    let found = evaluate::watched_retrieval(&queries, &matcher, |n| progress.advance(n))?;
    Ok(Evaluation {
        gallery: GalleryFacts::of(gallery, &matcher),
        n_queries: asked.images.len(),
        student: None,
        ceiling: Some(found),
        baseline: with_histograms(&asked, searched.as_ref(), &mut faults)?,
        clusters: Agreement::of(args, &queries),
        against: Vec::new(),
        nested: nested::prefixes(&args.dims, None, Some(&queries), &matcher)?,
        faults,
    })
}

fn check_space(path: &Path, teacher: &Teacher, matcher: &Matcher<'_>) -> anyhow::Result<()> {
    let space = matcher.gallery().header.space;
    if teacher.space() != space {
        bail!(
            "teacher `{}` embeds into space {}, the gallery is of space {space}; name the teacher that built the gallery",
            path.display(),
            teacher.space()
        );
    }
    Ok(())
}

impl GalleryFacts {
    fn of(path: &Path, matcher: &Matcher<'_>) -> Self {
        let header = &matcher.gallery().header;
        Self {
            path: Some(path.to_owned()),
            n_rows: header.n_rows as usize,
            codes: header.codes,
            embedded_by: header.teacher.clone(),
            space: header.space,
        }
    }
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

/// The gallery's images as far as the manifest lists them, if histograms are asked for.
fn searched_by_baseline(
    args: &Args,
    path: &Path,
    matcher: &Matcher<'_>,
    manifest: &Manifest,
) -> anyhow::Result<Option<Selected>> {
    if !args.baseline {
        return Ok(None);
    }
    let gallery = matcher.gallery();
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
    Ok(Some(listed))
}

fn with_histograms(
    asked: &Manifest,
    searched: Option<&Selected>,
    faults: &mut Faults,
) -> anyhow::Result<Option<Baseline>> {
    let Some(searched) = searched else {
        return Ok(None);
    };
    let n_images = asked.images.len() + searched.manifest.images.len();
    let progress = Progress::new("counting colors", n_images);
    let mut found = baseline::by_histogram(asked, searched, || progress.step())?;
    faults.add(std::mem::take(&mut found.faults));
    Ok(Some(found))
}

fn with_teacher(
    args: &Args,
    path: &Path,
    asked: &Manifest,
    matcher: &Matcher<'_>,
) -> anyhow::Result<(EmbeddedImages, Vec<Fault>)> {
    let teacher = Teacher::open(path)?;
    check_space(path, &teacher, matcher)?;
    let progress = Progress::of_images("embedding queries", asked.images.len());
    let cache = args.cache.as_deref();
    let embedded = cache::embed_images(&teacher, asked, cache, &|| progress.step())?;
    Ok((embedded.images, embedded.faults))
}

fn symmetric(
    args: &Args,
    bundle: &Path,
    manifest: &Manifest,
    mut asked: Manifest,
) -> anyhow::Result<Evaluation> {
    let file = MappedFile::open(bundle)?;
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
    let codes = args.gallery_codes;
    let progress = Progress::of_images("searching", queries.ids.len());
    let student =
        evaluate::against_images(&queries, &searched, &rows, codes, |n| progress.advance(n))?;
    let searched_by_baseline = args.baseline.then_some(&searched);
    let baseline = with_histograms(&asked, searched_by_baseline, &mut faults)?;
    Ok(Evaluation {
        gallery: GalleryFacts {
            path: None,
            n_rows: searched.manifest.images.len(),
            codes,
            embedded_by: format!("student {}", bundle.header.name),
            space: bundle.header.space,
        },
        n_queries: asked.images.len(),
        student: Some((bundle.header, student)),
        ceiling: None,
        baseline,
        clusters: Agreement::of(args, &queries),
        against: Vec::new(),
        nested: Vec::new(),
        faults,
    })
}

fn encode(
    work: &str,
    manifest: &Manifest,
    embed: impl FnOnce(&Manifest, &dyn Fn()) -> (EmbeddedImages, Vec<Fault>),
) -> (EmbeddedImages, Vec<Fault>) {
    let progress = Progress::of_images(work, manifest.images.len());
    embed(manifest, &|| progress.step())
}
