//! `eyas-device selftest`: does this machine compute what the host verified?

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::{Answer, print};
use crate::store::{MappedFile, load_student};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device selftest --bundle student.bundle")]
pub(super) struct Args {
    /// The student's bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
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
    let passed = outcome.passed();
    if args.json {
        let object = json!({
            "schema": "eyas.selftest/1",
            "bundle": args.bundle.display().to_string(),
            "passed": passed,
            "same_pixels": outcome.same_pixels,
            "cosines": outcome.cosines,
            "min_cosine": outcome.min_cosine(),
            "tolerance": outcome.tolerance,
        });
        print(&format!("{object}\n"))?;
    } else {
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
        let verdict = if passed {
            "reproduces"
        } else {
            "does NOT reproduce"
        };
        let _ = writeln!(
            text,
            "this machine {verdict} the bundle `{}`",
            args.bundle.display()
        );
        print(&text)?;
    }
    Ok(if passed { Answer::Yes } else { Answer::No })
}
