//! `eyas data`: checks a data set, or renders one.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::{Answer, Progress, say, say_raw};
use crate::data::check::Severity;
use crate::data::{self, CheckReport};
use crate::synth::{self, SynthConfig};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Decode every image and name every fault; exit code 1 if there is one.
    Check(CheckArgs),
    /// Render packaged goods on shelves: training products, and others to test on.
    Render(RenderArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas data check photos/\n  eyas data check list.csv --json")]
pub(super) struct CheckArgs {
    /// Folder of images, or a CSV list with the columns label,path,split,is_query,is_gallery.
    dir: PathBuf,
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

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Check(args) => check(&args),
        Command::Render(args) => render(&args),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct CheckJson<'a> {
    schema: &'static str,
    n_faults: usize,
    n_warnings: usize,
    #[serde(flatten)]
    report: &'a CheckReport,
}

fn check(args: &CheckArgs) -> anyhow::Result<Answer> {
    let bar: OnceCell<Progress> = OnceCell::new();
    let step = |n| bar.get_or_init(|| Progress::new("checking", n)).step();
    let report = data::check(&args.dir, &step)
        .with_context(|| format!("checking `{}`", args.dir.display()))?;
    drop(bar);
    let n_faults = report.count(Severity::Fault);
    let text = if args.json {
        let json = CheckJson {
            schema: "eyas.data-check/1",
            n_faults,
            n_warnings: report.count(Severity::Warning),
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

/// The report for people: a table of splits, then one line per finding.
fn describe(report: &CheckReport) -> String {
    let mut text = format!("{} images of {} labels", report.n_images, report.n_labels);
    if report.n_other_files > 0 {
        let _ = write!(text, "; {} other files are ignored", report.n_other_files);
    }
    let name_width = report.splits.iter().map(|split| split.split.len()).max();
    let name_width = name_width.unwrap_or(0).max("split".len());
    let _ = write!(
        text,
        "\n\n{:name_width$}  {:>7}  {:>7}  {:>7}  {:>7}\n",
        "split", "images", "labels", "queries", "gallery"
    );
    for split in &report.splits {
        let _ = writeln!(
            text,
            "{:name_width$}  {:>7}  {:>7}  {:>7}  {:>7}",
            split.split, split.n_images, split.n_labels, split.n_queries, split.n_gallery
        );
    }
    text.push('\n');
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
    let _ = writeln!(
        text,
        "faults: {}, warnings: {}",
        report.count(Severity::Fault),
        report.count(Severity::Warning)
    );
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
