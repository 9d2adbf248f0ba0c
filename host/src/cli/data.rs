//! `eyas data`: checks a data set, splits it by classes, renders or generates one.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eyas_shared::files;
use serde::Serialize;
use serde_json::json;

use super::{Answer, Progress, note, say, say_raw};
use crate::data::check::{self, FindingKind, Severity, SplitSummary};
use crate::data::label_errors::{self, Suspect};
use crate::data::manifest::{Manifest, Selection};
use crate::data::split::{self, DisjointSplit};
use crate::data::{self, CheckReport};
use crate::embeddings::cache;
use crate::synth::{self, GenerateConfig, SynthConfig};
use crate::teacher::Teacher;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Decode every image and name every fault; exit code 1 if there is one.
    Check(CheckArgs),
    /// Write a list whose unseen classes are never trained on.
    Split(SplitArgs),
    /// Render packaged goods on shelves: training products, and others to test on.
    Render(RenderArgs),
    /// Generate pictures without labels, and crops of photographs, to pretrain students on.
    Generate(GenerateArgs),
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  eyas data check photos/\n  eyas data check list.csv --json\n  eyas data check photos --teacher photos.teacher --cache cache"
)]
pub(super) struct CheckArgs {
    /// Folder of images, or a CSV list with the columns label,path,split,is_query,is_gallery.
    dir: PathBuf,
    /// Also name images whose nearest neighbors, as this teacher sees them, mostly have
    /// another label.
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Folder that keeps what the teacher's networks computed.
    #[arg(long, requires = "teacher")]
    cache: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Unseen classes become the splits `unseen-query` and `unseen-gallery` by the roles of
/// their images, or `unseen` where an image has both.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas data split photos --disjoint 0.5 --seed 1 --validation 0.1 --out split.csv
  eyas gallery build --data split.csv --split unseen-gallery --teacher t.teacher --out unseen.gallery
  eyas evaluate --manifest split.csv --split unseen-query --gallery unseen.gallery --bundle s.bundle")]
pub(super) struct SplitArgs {
    /// Folder of images, or a CSV list.
    dir: PathBuf,
    /// Share of the classes that are never trained on.
    #[arg(long, value_name = "SHARE")]
    disjoint: f64,
    /// Share of the other classes' training images that validate.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    validation: f64,
    /// Another seed draws other classes.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// CSV list to write; its paths are relative to its own folder.
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const DEMO: SynthConfig = SynthConfig::DEMO;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas data render shelves --classes 60 --views 30 --seed 7")]
pub(super) struct RenderArgs {
    /// Folder to create; it must be empty or not there yet.
    dir: PathBuf,
    /// Products to train on.
    #[arg(long, value_name = "N", default_value_t = DEMO.n_train_classes)]
    classes: usize,
    /// Pictures of each product to train on.
    #[arg(long, value_name = "N", default_value_t = DEMO.n_train_views)]
    views: usize,
    /// Other products, to test on.
    #[arg(long, value_name = "N", default_value_t = DEMO.n_unseen_classes)]
    unseen_classes: usize,
    /// Plain pictures of each of those, for the gallery.
    #[arg(long, value_name = "N", default_value_t = DEMO.n_gallery_views)]
    gallery_views: usize,
    /// Pictures of each of those on a shelf, to ask with.
    #[arg(long, value_name = "N", default_value_t = DEMO.n_query_views)]
    query_views: usize,
    /// Another seed makes other products.
    #[arg(long, value_name = "S", default_value_t = DEMO.seed)]
    seed: u64,
    /// Width and height of a picture in pixels.
    #[arg(long, value_name = "PX", default_value_t = DEMO.side)]
    side: usize,
}

/// Fractals, noise, stripes, cells, dead leaves and rendered shelves in equal shares. A
/// teacher embeds them, and a student learns to put them where the teacher does.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas data generate pictures --images 4000 --seed 1
  eyas data generate pictures --images 4000 --crops-of photos --crops 3
  eyas embed --teacher photos.teacher --data pictures --cache cache")]
pub(super) struct GenerateArgs {
    /// Folder to create; it must be empty or not there yet.
    dir: PathBuf,
    /// Generated pictures.
    #[arg(long, value_name = "N", default_value_t = 4000)]
    images: usize,
    /// Also cut random crops out of these photographs; their labels are not read.
    #[arg(long, value_name = "DATA")]
    crops_of: Option<PathBuf>,
    /// Crop only photographs of this split.
    #[arg(long, default_value = "train", requires = "crops_of")]
    split: String,
    /// Crops of each photograph.
    #[arg(long, value_name = "N", default_value_t = 3, requires = "crops_of")]
    crops: usize,
    /// Another seed makes other pictures.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Width and height of a picture in pixels.
    #[arg(long, value_name = "PX", default_value_t = 224)]
    side: usize,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Check(args) => check_data(&args),
        Command::Split(args) => split(&args),
        Command::Render(args) => render(&args),
        Command::Generate(args) => generate(&args),
    }
}

fn split(args: &SplitArgs) -> anyhow::Result<Answer> {
    let manifest = data::open(&args.dir)?;
    let how = DisjointSplit {
        unseen: args.disjoint,
        validation: args.validation,
        seed: args.seed,
    };
    let parted = split::disjoint(&manifest, how)
        .with_context(|| format!("splitting `{}`", args.dir.display()))?;
    let folder = files::folder_of(&args.out);
    let listed = split::relative_to(&parted, folder)
        .with_context(|| format!("the folder of `{}`", args.out.display()))?;
    files::replace(&args.out, listed.to_csv().as_bytes())?;
    let splits = check::summarize(&parted);
    if args.json {
        let json = json!({
            "schema": "eyas.data-split/1",
            "list": args.out.display().to_string(),
            "seed": args.seed,
            "manifest": listed.fingerprint().to_string(),
            "splits": splits,
        });
        say(&json.to_string());
    } else {
        say(&format!(
            "{}\nwritten to {}",
            table(&splits),
            args.out.display()
        ));
    }
    Ok(Answer::Yes)
}

/// What `--json` prints.
#[derive(Serialize)]
struct CheckJson<'a> {
    schema: &'static str,
    n_faults: usize,
    n_warnings: usize,
    /// Findings of each kind that occurs.
    counts: BTreeMap<FindingKind, usize>,
    /// `null` if no teacher was asked.
    probable_label_errors: Option<Vec<Suspect>>,
    #[serde(flatten)]
    report: &'a CheckReport,
}

fn check_data(args: &CheckArgs) -> anyhow::Result<Answer> {
    let bar: OnceCell<Progress> = OnceCell::new();
    let step = |n| bar.get_or_init(|| Progress::new("checking", n)).step();
    let (mut report, sound) = data::check_and_list(&args.dir, &step)
        .with_context(|| format!("checking `{}`", args.dir.display()))?;
    drop(bar);
    let suspects = match &args.teacher {
        Some(teacher) => Some(doubted_labels(args, teacher, &sound)?),
        None => None,
    };
    report.add_suspects(suspects.as_deref().unwrap_or_default());
    let n_faults = report.count(Severity::Fault);
    let text = if args.json {
        let json = CheckJson {
            schema: "eyas.data-check/1",
            n_faults,
            n_warnings: report.count(Severity::Warning),
            counts: report.counts(),
            probable_label_errors: suspects,
            report: &report,
        };
        serde_json::to_string_pretty(&json)? + "\n"
    } else {
        describe(&report)
    };
    say_raw(&text);
    Ok(if n_faults == 0 {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn doubted_labels(
    args: &CheckArgs,
    teacher: &Path,
    sound: &Manifest,
) -> anyhow::Result<Vec<Suspect>> {
    let teacher = Teacher::open(teacher)?;
    let n_images = sound.images.len();
    let progress = Progress::new("embedding images", n_images);
    let cache = args.cache.as_deref();
    let embedded = cache::embed_images(&teacher, sound, cache, &|| progress.step())?;
    drop(progress);
    for fault in &embedded.faults {
        note(&format!("not compared with its neighbors: {fault}"));
    }
    let progress = Progress::new("comparing neighbors", embedded.images.n_images());
    let step = || progress.step();
    Ok(label_errors::suspects(sound, &embedded.images, &step))
}

/// The report for people: a table of splits, then one line per finding.
fn describe(report: &CheckReport) -> String {
    let mut text = format!("{} images of {} labels", report.n_images, report.n_labels);
    if report.n_other_files > 0 {
        let _ = write!(text, "; {} other files are ignored", report.n_other_files);
    }
    let _ = write!(text, "\n\n{}\n", table(&report.splits));
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Fault => "fault",
            Severity::Warning => "warning",
        };
        let _ = writeln!(
            text,
            "{severity}: `{}` {}",
            finding.subject, finding.problem
        );
    }
    for (kind, n) in report.counts() {
        let name = serde_json::to_value(kind).unwrap_or_default();
        let name = name.as_str().unwrap_or_default().replace('_', " ");
        let _ = writeln!(text, "{n:>7}  {name}");
    }
    let _ = writeln!(
        text,
        "faults: {}, warnings: {}",
        report.count(Severity::Fault),
        report.count(Severity::Warning)
    );
    text
}

/// Splits, one a line.
fn table(splits: &[SplitSummary]) -> String {
    let name_width = splits.iter().map(|split| split.split.len()).max();
    let name_width = name_width.unwrap_or(0).max("split".len());
    let mut text = format!(
        "{:name_width$}  {:>7}  {:>7}  {:>7}  {:>7}\n",
        "split", "images", "labels", "queries", "gallery"
    );
    for split in splits {
        let _ = writeln!(
            text,
            "{:name_width$}  {:>7}  {:>7}  {:>7}  {:>7}",
            split.split, split.n_images, split.n_labels, split.n_queries, split.n_gallery
        );
    }
    text
}

fn render(args: &RenderArgs) -> anyhow::Result<Answer> {
    let config = SynthConfig {
        n_train_classes: args.classes,
        n_train_views: args.views,
        n_unseen_classes: args.unseen_classes,
        n_gallery_views: args.gallery_views,
        n_query_views: args.query_views,
        seed: args.seed,
        side: args.side,
    };
    let bar = Progress::new("rendering", config.n_images());
    let manifest = synth::render_dataset(&args.dir, &config, &|| bar.step())
        .with_context(|| format!("rendering into `{}`", args.dir.display()))?;
    drop(bar);
    say(&format!(
        "{} images of {} products in `{}`",
        manifest.images.len(),
        manifest.labels().len(),
        args.dir.display()
    ));
    Ok(Answer::Yes)
}

fn generate(args: &GenerateArgs) -> anyhow::Result<Answer> {
    let photographs = match &args.crops_of {
        Some(path) => data::open(path)?.select(&Selection {
            split: Some(args.split.clone()),
            role: None,
        }),
        None => Manifest {
            root: PathBuf::new(),
            images: Vec::new(),
        },
    };
    if let (Some(path), true) = (&args.crops_of, photographs.images.is_empty()) {
        let split = &args.split;
        anyhow::bail!("`{}` has no image of the split `{split}`", path.display());
    }
    let config = GenerateConfig {
        n_images: args.images,
        n_crops: args.crops,
        seed: args.seed,
        side: args.side,
    };
    let n_crops = photographs.images.len() * args.crops;
    let bar = Progress::new("generating", args.images + n_crops);
    let manifest = synth::generate_dataset(&args.dir, &config, &photographs, &|| bar.step())
        .with_context(|| format!("generating into `{}`", args.dir.display()))?;
    drop(bar);
    say(&format!(
        "{} generated pictures and {n_crops} crops in `{}`",
        manifest.images.len() - n_crops,
        args.dir.display()
    ));
    Ok(Answer::Yes)
}
