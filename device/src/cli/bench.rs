//! `eyas-device bench`: times of a student on this machine, by stage and by operator.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use eyas_shared::link::bench::{MAX_SAMPLES, Moment, Sample};
use eyas_shared::timing::{Figures, Flag, Raised, Stage, flags};
use serde_json::{Value, json};

use super::query::images;
use super::serve::EdgeArgs;
use super::{Answer, human_bytes, print, report_error};
use crate::bench::{self, Bench, Measured, Plan};
use crate::encoder::OperatorTime;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas-device bench photos/ --bundle student.bundle --gallery shop.gallery
  eyas-device bench photos/ --bundle student.bundle --gallery shop.gallery --profile --json

A window in which the clock was throttled, others worked, or memory was swapped is flagged and
counts in no figure. Ends with 0, or with 1 if no window is clean.")]
pub(super) struct Args {
    /// Image files or folders of them; asked in turn.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The student's bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// The gallery that is searched.
    #[arg(long, value_name = "FILE")]
    gallery: PathBuf,
    /// Threads that encode and search.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Windows, of whose medians the median is shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    windows: u32,
    /// A window lasts at least so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    at_least_s: f64,
    /// And until so many queries were answered.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    at_least: u32,
    /// Queries before each window that do not count.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    warm_up_s: f64,
    /// Matches per query.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Also time the student's operators one by one.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    edges: EdgeArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fits = (0.0..=600.0).contains(&seconds);
    fits.then_some(seconds).ok_or_else(|| "0 to 600".to_owned())
}

/// The process of a candidate that is measured over the link; not for people.
pub(super) fn in_child() -> anyhow::Result<Answer> {
    bench::work(io::stdin().lock(), io::stdout().lock())?;
    Ok(Answer::Yes)
}

/// A window with what is to be thought of it.
struct Window {
    measured: Measured,
    flags: Vec<Raised>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let n_threads = args.threads.into();
    let bench = Bench::open(&args.bundle, &args.gallery, n_threads)?;
    let images = readable(args, &bench)?;
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let plan = Plan {
        top_k: args.top_k as usize,
        warm_up: Duration::from_secs_f64(args.warm_up_s),
        at_least: Duration::from_secs_f64(args.at_least_s),
        at_least_n: args.at_least as usize,
    };
    let edges = args.edges.edges();
    let mut windows = Vec::new();
    let mut best_pace = u64::MAX;
    for _ in 0..args.windows {
        let measured = bench.measure(&images, &plan, &edges)?;
        let pace = |at: &Moment| at.pace_nanos;
        best_pace = best_pace
            .min(pace(&measured.before))
            .min(pace(&measured.after));
        windows.push(measured);
    }
    let windows: Vec<Window> = windows
        .into_iter()
        .map(|measured| Window {
            flags: flags_of(&measured, best_pace),
            measured,
        })
        .collect();
    let operators = match args.profile {
        true => bench.profile(images[0], windows.len().max(5))?,
        false => Vec::new(),
    };
    let found = Found::of(&bench, windows, operators);
    if args.json {
        print(&format!("{}\n", found.as_json(args)))?;
    } else {
        print(&found.as_text())?;
    }
    Ok(if found.n_clean() > 0 {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn flags_of(measured: &Measured, best_pace: u64) -> Vec<Raised> {
    let mut raised = flags(&measured.before, &measured.after, best_pace);
    if measured.samples.len() == MAX_SAMPLES {
        let why = format!("no more than {MAX_SAMPLES} queries are kept");
        raised.push(Raised {
            flag: Flag::Short,
            why,
        });
    }
    raised
}

/// The images that can be asked; others are told of, and none is no answer.
fn readable(args: &Args, bench: &Bench) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut faults = 0;
    let mut fault = |err: &anyhow::Error| {
        report_error(err);
        faults += 1;
    };
    let mut readable = Vec::new();
    for path in images::list_images(&args.images, &mut fault) {
        let bytes = images::read_image(&path)?;
        let asked = bench.answer(&bytes, 1, |_, _| ());
        asked.with_context(|| format!("image `{}`", path.display()))?;
        readable.push(bytes);
    }
    if faults > 0 || readable.is_empty() {
        bail!("{faults} arguments name no image; what can not be asked is not measured");
    }
    Ok(readable)
}

struct Found {
    windows: Vec<Window>,
    operators: Vec<OperatorTime>,
    open_ms: f64,
    load_ms: f64,
    peak_bytes: u64,
    own_bytes: u64,
}

impl Found {
    fn of(bench: &Bench, windows: Vec<Window>, operators: Vec<OperatorTime>) -> Self {
        let opening = bench.store().opening();
        let (peak_bytes, own_bytes) = bench::memory();
        Self {
            windows,
            operators,
            open_ms: opening.files.as_secs_f64() * 1e3,
            load_ms: opening.student.as_secs_f64() * 1e3,
            peak_bytes,
            own_bytes,
        }
    }

    fn n_clean(&self) -> usize {
        let clean = self.windows.iter().filter(|window| window.flags.is_empty());
        clean.count()
    }

    /// Samples of the windows that count: the clean ones, or all if none is.
    fn samples(&self) -> impl Iterator<Item = &Sample> {
        let has_clean = self.n_clean() > 0;
        let windows = self.windows.iter();
        let windows = windows.filter(move |window| !has_clean || window.flags.is_empty());
        windows.flat_map(|window| &window.measured.samples)
    }

    fn figures(&self, stage: Stage) -> Option<Figures> {
        let nanos: Vec<u64> = self.samples().map(|sample| sample.nanos(stage)).collect();
        Figures::of(&nanos)
    }

    fn as_text(&self) -> String {
        let mut text = String::new();
        let mut line = |of: String| text.push_str(&(of + "\n"));
        let facts = bench::facts();
        line(format!(
            "board   {} {}, {} cores, {}",
            facts.model, facts.cpu, facts.n_cores, facts.kernel
        ));
        line(format!(
            "open    files {:.2} ms, student {:.2} ms; peak memory {}",
            self.open_ms,
            self.load_ms,
            human_bytes(self.peak_bytes)
        ));
        for (number, window) in (1..).zip(&self.windows) {
            let total = total_of(window);
            let said: Vec<String> = { window.flags.iter() }
                .map(|raised| format!("{}: {}", raised.flag, raised.why))
                .collect();
            let flags = if said.is_empty() {
                "clean".to_owned()
            } else {
                said.join("; ")
            };
            let median = total.map_or(0.0, |total| total.median_ms);
            let n = window.measured.samples.len();
            line(format!(
                "window {number:2}  {n:6} queries, median {median:.3} ms, {flags}"
            ));
        }
        line(format!(
            "{:>12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} ms",
            "", "min", "mean", "median", "p90", "p95", "p99", "max"
        ));
        for stage in Stage::ALL {
            let Some(it) = self.figures(stage) else {
                continue;
            };
            let values = [
                it.min_ms,
                it.mean_ms,
                it.median_ms,
                it.p90_ms,
                it.p95_ms,
                it.p99_ms,
                it.max_ms,
            ];
            let values: Vec<String> = values.iter().map(|value| format!("{value:9.3}")).collect();
            line(format!("{:>12} {}", stage.name(), values.join(" ")));
        }
        let sum: u64 = self.operators.iter().map(|it| it.nanos).sum();
        for operator in &self.operators {
            let share = 100.0 * operator.nanos as f64 / sum.max(1) as f64;
            let micros = operator.nanos as f64 / 1e3;
            line(format!(
                "{share:5.1} %  {micros:10.1} us  {:20}  {}",
                operator.kind, operator.node
            ));
        }
        text
    }

    fn as_json(&self, args: &Args) -> Value {
        let windows: Vec<Value> = { self.windows.iter() }
            .map(|window| {
                json!({
                    "n": window.measured.samples.len(),
                    "total": total_of(window),
                    "flags": window.flags,
                    "before": window.measured.before,
                    "after": window.measured.after,
                })
            })
            .collect();
        let stages: serde_json::Map<String, Value> = Stage::ALL
            .iter()
            .map(|stage| (stage.name().to_owned(), json!(self.figures(*stage))))
            .collect();
        let operators: Vec<Value> = { self.operators.iter() }
            .map(|it| json!({ "node": it.node, "kind": it.kind, "median_us": it.nanos as f64 / 1e3 }))
            .collect();
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let total: f64 = self
            .samples()
            .map(|it| seconds(it.nanos(Stage::Total)))
            .sum();
        json!({
            "schema": "eyas.device-bench/1",
            "bundle": args.bundle.display().to_string(),
            "gallery": args.gallery.display().to_string(),
            "threads": args.threads,
            "board": bench::facts(),
            "open_ms": self.open_ms,
            "load_ms": self.load_ms,
            "peak_bytes": self.peak_bytes,
            "own_bytes": self.own_bytes,
            "n_clean": self.n_clean(),
            "queries_per_second": self.samples().count() as f64 / total.max(f64::MIN_POSITIVE),
            "stages": stages,
            "windows": windows,
            "operators": operators,
        })
    }
}

fn total_of(window: &Window) -> Option<Figures> {
    let samples = window.measured.samples.iter();
    let nanos: Vec<u64> = samples.map(|sample| sample.nanos(Stage::Total)).collect();
    Figures::of(&nanos)
}
