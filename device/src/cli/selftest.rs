//! `eyas-device selftest`: does this machine compute what the host verified, and do scores
//! mean what the host calibrated?

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::{Answer, print};
use crate::answer::standing::{Recheck, SCORE_TOLERANCE, recheck};
use crate::selftest::SelfTest;
use crate::store::{GalleryCheck, MappedFile, Store, load_student};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas-device selftest --bundle student.bundle
  eyas-device selftest --bundle student.bundle --gallery shop.gallery

With a gallery the bundle's calibration is checked too: its witnesses, queries of the host, have to
get the scores that they had there, and so have the probes, from their pixels on. Exit code 1 if
thresholds mean something else here, or if there is no calibration for this very gallery.")]
pub(super) struct Args {
    /// The student's bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// The gallery that is searched, to check the calibration for it.
    #[arg(long, value_name = "FILE")]
    gallery: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.bundle)?;
    let bundle = file.bundle()?;
    let encoder = load_student(&file, &bundle)?;
    let outcome = encoder
        .selftest(&bundle)
        .with_context(|| format!("testing the bundle `{}`", args.bundle.display()))?;
    let calibration = match &args.gallery {
        None => None,
        Some(gallery) => {
            let store = Store::open(&args.bundle, gallery, GalleryCheck::Whole)?;
            let matcher = store.matcher()?;
            Some(recheck(&bundle, store.encoder(), &matcher).context("testing the calibration")?)
        }
    };
    // Asked for with --gallery, a calibration that is not there does not pass.
    let calibrated = match &calibration {
        None => true,
        Some(found) => found.as_ref().is_some_and(Recheck::passed),
    };
    let passed = outcome.passed() && calibrated;
    if args.json {
        print(&format!(
            "{}\n",
            as_json(args, &outcome, calibration.as_ref(), passed)
        ))?;
    } else {
        let mut text = as_text(&outcome);
        if let Some(calibration) = &calibration {
            text += &calibration_text(calibration.as_ref());
        }
        let verdict = if passed {
            "reproduces"
        } else {
            "does NOT reproduce"
        };
        let bundle = args.bundle.display();
        let _ = writeln!(text, "this machine {verdict} the bundle `{bundle}`");
        print(&text)?;
    }
    Ok(if passed { Answer::Yes } else { Answer::No })
}

fn as_json(
    args: &Args,
    outcome: &SelfTest,
    calibration: Option<&Option<Recheck>>,
    passed: bool,
) -> serde_json::Value {
    let calibration = calibration.map(|found| match found {
        None => json!({ "standing": "uncalibrated", "passed": false }),
        Some(found) => json!({
            "standing": found.standing.word(),
            "text": found.standing.to_string(),
            "passed": found.passed(),
            "n_witnesses": found.n_witnesses,
            "n_other_verdicts": found.n_other_verdicts,
            "max_score_change": found.worst,
            "score_tolerance": SCORE_TOLERANCE,
            "max_probe_score_change": found.worst_probe,
            "probe_score_tolerance": found.probe_tolerance,
        }),
    });
    json!({
        "schema": "eyas.selftest/1",
        "bundle": args.bundle.display().to_string(),
        "passed": passed,
        "same_pixels": outcome.same_pixels,
        "cosines": outcome.cosines,
        "min_cosine": outcome.min_cosine(),
        "tolerance": outcome.tolerance,
        "calibration": calibration,
    })
}

fn as_text(outcome: &SelfTest) -> String {
    let mut text = String::new();
    let bits = if outcome.same_pixels {
        "the same bits"
    } else {
        "OTHER BITS"
    };
    let _ = writeln!(text, "preprocessing  {bits} as on the host");
    for (probe, cosine) in outcome.cosines.iter().enumerate() {
        let fault = if *cosine >= outcome.tolerance {
            ""
        } else {
            "  TOO FAR"
        };
        let _ = writeln!(text, "probe {probe:<8} cosine {cosine:.7}{fault}");
    }
    let _ = writeln!(text, "tolerance      {:.7}", outcome.tolerance);
    text
}

fn calibration_text(found: Option<&Recheck>) -> String {
    let Some(found) = found else {
        return "calibration    NONE: `eyas calibrate` adds one\n".to_owned();
    };
    let too_far = |change: f32, tolerance: f32| {
        let fits = change <= tolerance;
        if fits { "" } else { "  TOO FAR" }
    };
    format!(
        "calibration    {}\nwitnesses      {} asked, scores change by {:.6} at most (allowed \
         {SCORE_TOLERANCE}), {} other verdicts{}\nprobe scores   change by {:.6} at most (allowed \
         {:.6}){}\n",
        found.standing,
        found.n_witnesses,
        found.worst,
        found.n_other_verdicts,
        too_far(found.worst, SCORE_TOLERANCE),
        found.worst_probe,
        found.probe_tolerance,
        too_far(found.worst_probe, found.probe_tolerance),
    )
}
