//! `eyas calibrate`: what scores mean, into the bundle; and whether they do, on other data.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::answer::{Answerer, Asked, Expansion, Nearest, Request, Rerank};
use eyas_device::matcher::Matcher;
use eyas_device::selftest::probe_pixels;
use eyas_device::store::{GalleryCheck, MappedFile, Store};
use eyas_shared::bundle::Bundle;
use eyas_shared::calibration::Calibration;
use eyas_shared::embedding::Score;
use eyas_shared::files;
use eyas_shared::fingerprint::Fingerprinter;
use serde_json::json;

use super::{Answer, Progress, note, say};
use crate::calibrate::check::{self, Rates, Share};
use crate::calibrate::{self, Observations, Settings, Tradeoff, queries, remarks};
use crate::data;
use crate::data::manifest::{Image, Manifest};
use crate::evaluate;

/// Find the scores from which a query is a match, and below which it is none of the gallery.
///
/// Queries whose label is in the gallery are known, the others unknown. They must be none that
/// the student was trained on. Thresholds go into the bundle, for this gallery alone; a
/// calibration for the same gallery is replaced.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas calibrate --bundle s-int8.bundle --gallery shop.gallery --data photos --split val \\
      --unknown other-products --false-match-rate 0.01 --out shop.bundle
  eyas calibrate --check --bundle shop.bundle --gallery shop.gallery --data photos --split test

How much data: a rate R needs at least 1/R unknown queries (99 for 0.01) to hold on average, and
three times as many independent ones for --bound. Labels matter more than photographs: queries of
one label resemble each other. With --per-label a label has thresholds of its own from 10 unknown
queries that come nearest to it.")]
pub(super) struct Args {
    /// Student, in the precision that will run.
    #[arg(long)]
    bundle: PathBuf,
    /// Gallery that will be searched, in the encoding that will be searched.
    #[arg(long)]
    gallery: PathBuf,
    /// Folder or CSV list of labelled queries; labels that the gallery has not are unknown.
    #[arg(long)]
    data: PathBuf,
    /// Images of this split ask; those with the query role if not given.
    #[arg(long)]
    split: Option<String>,
    /// Folder or CSV list of images of which all are unknown; may be given several times.
    #[arg(long, value_name = "DATA")]
    unknown: Vec<PathBuf>,
    /// Share of unknown queries that may be answered `match`.
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = rate)]
    false_match_rate: f64,
    /// Share of known queries that may be answered `unknown`.
    #[arg(long, value_name = "RATE", default_value_t = 0.05, value_parser = rate)]
    false_reject_rate: f64,
    /// Share of wrong labels among the matches of known queries; sets the margin.
    #[arg(long, value_name = "RATE", default_value_t = 0.05, value_parser = rate)]
    wrong_match_rate: f64,
    /// Share of unknown queries where the student will work: for the curve only.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = rate)]
    unknown_share: f64,
    /// Confidence of the upper bound of the false-match rate.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = rate)]
    confidence: f64,
    /// Let the upper bound hold the false-match rate, not only its expectation.
    #[arg(long)]
    bound: bool,
    /// Give labels that draw many unknown queries thresholds of their own.
    #[arg(long)]
    per_label: bool,
    /// Bundle to write; may be the one that is read.
    #[arg(long, required_unless_present = "check", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// Only count what the bundle's calibration makes of these queries; exit code 1 if the
    /// false-match rate is above the wanted one beyond chance.
    #[arg(long)]
    check: bool,
    /// Views of one label that are asked as one object.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "check",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    views: u32,
    /// Order labels by the votes of the N nearest rows.
    #[arg(long, value_name = "N", requires = "check", value_parser = clap::value_parser!(u32).range(1..))]
    vote: Option<u32>,
    /// Order by a query that its N best rows were added to.
    #[arg(long, value_name = "N", requires = "check", value_parser = clap::value_parser!(u32).range(1..))]
    expand: Option<u32>,
    /// Weight of a row in --expand: its score to this power.
    #[arg(long, value_name = "A", default_value_t = 3.0, requires = "expand")]
    alpha: f32,
    /// Folder that keeps what the student computed, for calibrations at other rates.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fits = rate > 0.0 && rate < 1.0;
    fits.then_some(rate)
        .ok_or_else(|| "more than 0 and less than 1".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let store = Store::open(&args.bundle, &args.gallery, GalleryCheck::Whole)?;
    let matcher = store.matcher()?;
    if args.check {
        // Before hours of encoding.
        known_calibration(args, &Answerer::new(&matcher, store.calibrations()))?;
    }
    let manifest = data::open(&args.data)?;
    let asked = evaluate::select_queries(&manifest, args.split.as_deref())
        .with_context(|| format!("data `{}`", args.data.display()))?;
    let unknown = { args.unknown.iter() }
        .map(|path| data::open(path))
        .collect::<Result<Vec<Manifest>, _>>()?;
    let observed = observe(args, &store, &matcher, &asked, &unknown)?;
    if args.check {
        return check(args, &store, &matcher, &observed);
    }
    let calibration = find(args, &store, &matcher, &observed, (&asked, &unknown))?;
    let remarks = remarks::remarks(&calibration, &observed);
    let tradeoffs = calibrate::tradeoffs(&observed.list, &args.settings(), &calibration);
    let out = args.out.as_ref().context("no --out is given")?;
    if args.json {
        say(&as_json(args, &store, &calibration, &tradeoffs, &remarks).to_string());
    } else {
        describe(&store, &calibration);
        describe_tradeoffs(&tradeoffs);
    }
    for remark in &remarks {
        note(&format!("warning: {remark}"));
    }
    write(&args.bundle, out, calibration)?;
    if !args.json {
        say(&format!("written to {}", out.display()));
    }
    Ok(Answer::Yes)
}

/// Encodes all queries as the board does and asks with them. An image that can not be read is
/// an error: thresholds would rest on other counts than the data says.
fn observe(
    args: &Args,
    store: &Store,
    matcher: &Matcher<'_>,
    asked: &Manifest,
    unknown: &[Manifest],
) -> anyhow::Result<Observations> {
    let images: Vec<Image> = std::iter::once(asked)
        .chain(unknown)
        .flat_map(|manifest| {
            // The lists have roots of their own.
            let full = |image: &Image| Image {
                path: manifest.path(image).display().to_string(),
                ..image.clone()
            };
            manifest.images.iter().map(full)
        })
        .collect();
    let all = Manifest {
        root: PathBuf::new(),
        images,
    };
    let n_images = all.images.len();
    let progress = Progress::of_images("encoding", n_images);
    let done = || progress.step();
    let onnx = store.header().onnx;
    let cache = args.cache.as_deref();
    let (embedded, faults) = queries::encode(store.encoder(), onnx, &all, cache, done)?;
    if !faults.is_empty() {
        for fault in &faults {
            note(&format!("can not ask: {fault}"));
        }
        bail!(
            "{} of {n_images} images can not be read or encoded",
            faults.len()
        );
    }
    Ok(calibrate::observe(asked, unknown, &embedded, matcher)?)
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            false_match_rate: self.false_match_rate,
            false_reject_rate: self.false_reject_rate,
            wrong_match_rate: self.wrong_match_rate,
            unknown_share: self.unknown_share,
            confidence: self.confidence,
            bounded: self.bound,
            per_label: self.per_label,
        }
    }
}

fn find(
    args: &Args,
    store: &Store,
    matcher: &Matcher<'_>,
    observed: &Observations,
    (asked, unknown): (&Manifest, &[Manifest]),
) -> anyhow::Result<Calibration> {
    let mut name =
        Fingerprinter::new("eyas calibration data 1").field("asked", &asked.fingerprint().0);
    for manifest in unknown {
        name = name.field("unknown", &manifest.fingerprint().0);
    }
    let probes = probe_scores(args, store, matcher)?;
    let found = calibrate::calibrate(
        &observed.list,
        &args.settings(),
        matcher,
        probes,
        name.finish(),
    )?;
    Ok(found)
}

/// Best score of each probe of the bundle.
fn probe_scores(args: &Args, store: &Store, matcher: &Matcher<'_>) -> anyhow::Result<Vec<Score>> {
    let file = MappedFile::open(&args.bundle)?;
    let n_probes = file.bundle()?.probe_embeddings.n_rows();
    let encoder = store.encoder();
    probe_pixels(encoder.preprocess(), n_probes)
        .map(|pixels| {
            let asked = Asked::single(encoder.encode(&pixels)?);
            let nearest = Nearest::of(matcher, &asked, None).context("the gallery is empty")?;
            Ok(nearest.score)
        })
        .collect()
}

/// Adds the calibration to the bundle. Its student stays as it was verified at export.
fn write(bundle: &Path, out: &Path, calibration: Calibration) -> anyhow::Result<()> {
    let file = MappedFile::open(bundle)?;
    let mut bundle = file.bundle()?;
    bundle.calibrate(calibration)?;
    let bytes = bundle.to_bytes();
    let again = Bundle::read(&bytes).context("the written bundle can not be read")?;
    if again.header != bundle.header || again.onnx != bundle.onnx {
        bail!("the written bundle holds another student");
    }
    Ok(files::replace(out, &bytes)?)
}

fn as_json(
    args: &Args,
    store: &Store,
    calibration: &Calibration,
    tradeoffs: &[Tradeoff],
    remarks: &[String],
) -> serde_json::Value {
    json!({
        "schema": "eyas.calibration/1",
        "bundle": args.bundle.display().to_string(),
        "gallery": args.gallery.display().to_string(),
        "student": store.header().name,
        "precision": store.header().precision.to_string(),
        "gallery_content": calibration.gallery.content.to_string(),
        "gallery_rows": calibration.gallery.n_rows,
        "gallery_precision": calibration.row_encoding,
        "bound": args.bound,
        "per_label": args.per_label,
        "thresholds": calibration.thresholds,
        "offsets": calibration.offsets,
        "evidence": calibration.evidence,
        "curve": calibration.curve,
        "tradeoffs": tradeoffs,
        "warnings": remarks,
    })
}

fn describe(store: &Store, calibration: &Calibration) {
    let header = store.header();
    let (evidence, thresholds) = (&calibration.evidence, &calibration.thresholds);
    say(&format!(
        "{} ({}) against a gallery of {} rows in {}",
        header.name, header.precision, calibration.gallery.n_rows, calibration.row_encoding
    ));
    say(&format!(
        "known     {} queries of {} labels",
        evidence.n_known, evidence.n_known_labels
    ));
    say(&format!(
        "unknown   {} queries of {} labels, which count as {:.0} independent ones",
        evidence.n_unknown,
        evidence.n_unknown_labels,
        evidence.n_unknown as f32 / evidence.design_effect
    ));
    say(&format!(
        "match     from {:.4} on, with a lead of {:.4}",
        thresholds.match_score, thresholds.margin
    ));
    say(&format!("unknown   below {:.4}", thresholds.unknown_score));
    if let (Some(least), Some(most)) = (
        calibration
            .offsets
            .iter()
            .map(|o| o.offset)
            .reduce(f32::min),
        calibration
            .offsets
            .iter()
            .map(|o| o.offset)
            .reduce(f32::max),
    ) {
        say(&format!(
            "{} labels have thresholds of their own: {least:+.4} to {most:+.4}",
            calibration.offsets.len()
        ));
    }
    say(&format!(
        "of unknown queries {} reach a match; wanted {}, at most {:.4} with {} % confidence",
        part(evidence.false_matches, evidence.n_unknown),
        evidence.wanted_false_match_rate,
        evidence.false_match_bound,
        (evidence.confidence * 100.0).round()
    ));
    say(&format!(
        "of known queries {} are right matches, {} wrong ones, {} unknown",
        part(evidence.right_matches, evidence.n_known),
        part(evidence.wrong_matches, evidence.n_known),
        part(evidence.false_rejects, evidence.n_known)
    ));
    say(&format!(
        "score from   right   95 % interval    right  wrong  unknown  (of 1 in {:.1} queries unknown)",
        1.0 / evidence.unknown_share
    ));
    for bin in &calibration.curve {
        say(&format!(
            "{:10.4}  {:6.3}  {:6.3} {:6.3}  {:9} {:6} {:8}",
            bin.from, bin.probability, bin.low, bin.high, bin.n_right, bin.n_wrong, bin.n_unknown
        ));
    }
}

fn describe_tradeoffs(tradeoffs: &[Tradeoff]) {
    say("at other false-match rates: match from, known queries right, wrong");
    for at in tradeoffs {
        say(&format!(
            "{:10.3}  {:10.4}  {:6.3}  {:6.3}",
            at.false_match_rate, at.match_score, at.right_match, at.wrong_match
        ));
    }
}

fn part(k: u32, n: u32) -> String {
    format!("{k} of {n} ({:.4})", f64::from(k) / f64::from(n.max(1)))
}

/// The calibration that is to be checked.
fn known_calibration<'a>(
    args: &Args,
    answerer: &'a Answerer<'_, '_>,
) -> anyhow::Result<&'a Calibration> {
    let (bundle, gallery) = (args.bundle.display(), args.gallery.display());
    answerer.calibration().with_context(|| {
        format!(
            "bundle `{bundle}` has no calibration for gallery `{gallery}`: {}; the same command \
             with `--out {bundle}` instead of --check makes one, of photographs that it is not \
             checked with",
            answerer.standing()
        )
    })
}

fn check(
    args: &Args,
    store: &Store,
    matcher: &Matcher<'_>,
    observed: &Observations,
) -> anyhow::Result<Answer> {
    let answerer = Answerer::new(matcher, store.calibrations());
    let calibration = known_calibration(args, &answerer)?;
    let request = Request {
        k: 1,
        by_label: true,
        rerank: Rerank {
            expansion: args.expand.map(|n| Expansion {
                n_rows: n as usize,
                alpha: args.alpha,
            }),
            votes: args.vote.map(|n| n as usize),
        },
        exclude: None,
    };
    let n_views = args.views as usize;
    let cases = check::answer(&answerer, calibration, &observed.list, &request, n_views)?;
    let rates = check::rates(&cases, calibration);
    let wanted = f64::from(calibration.evidence.wanted_false_match_rate);
    let holds = rates.false_match.interval.0 <= wanted;
    if args.json {
        let object = json!({
            "schema": "eyas.calibration-check/1",
            "bundle": args.bundle.display().to_string(),
            "gallery": args.gallery.display().to_string(),
            "standing": answerer.standing().word(),
            "views": args.views,
            "vote": args.vote,
            "expand": args.expand,
            "alpha": args.expand.map(|_| args.alpha),
            "wanted_false_match_rate": wanted,
            "thresholds": calibration.thresholds,
            "rates": rates,
            "holds": holds,
        });
        say(&object.to_string());
    } else {
        say(&answerer.standing().to_string());
        describe_rates(&rates, wanted);
    }
    if observed.n_in_gallery > 0 {
        let n = observed.n_in_gallery;
        note(&format!("warning: {n} queries are images of the gallery"));
    }
    Ok(if holds { Answer::Yes } else { Answer::No })
}

fn describe_rates(rates: &Rates, wanted: f64) {
    say(&format!(
        "{} known queries of {} labels, {} unknown of {}",
        rates.false_reject.n, rates.n_known_labels, rates.false_match.n, rates.n_unknown_labels
    ));
    let lines: [(&str, &Share); 6] = [
        ("unknown, answered match (false match)", &rates.false_match),
        ("unknown, answered unknown", &rates.unknown_rejected),
        (
            "known, answered unknown (false reject)",
            &rates.false_reject,
        ),
        ("known, match with its label", &rates.right_match),
        ("known, match with another label", &rates.wrong_match),
        ("known, its label first", &rates.first_right),
    ];
    for (name, share) in lines {
        let (low, high) = share.interval;
        say(&format!(
            "{name:39}  {:6.4}  ({:.4} to {:.4}), {} of {}",
            share.share, low, high, share.k, share.n
        ));
    }
    say(&format!(
        "wanted false-match rate {wanted:.4}; area under the curve {:.4}",
        rates.auroc
    ));
    for bin in &rates.curve {
        let observed = bin
            .observed
            .map_or("-".to_owned(), |share| format!("{share:.3}"));
        say(&format!(
            "score from {:8.4}: right {:.3} as calibrated, {observed} here ({} queries)",
            bin.from, bin.probability, bin.n
        ));
    }
}
