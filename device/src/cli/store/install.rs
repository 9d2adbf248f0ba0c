//! `eyas-device install`: files on this machine, such as on a memory card, into the store.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_shared::container::{Container, ContainerError, Kind};
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{ContentHasher, Fingerprint};
use eyas_shared::signature::{EXTENSION, MAX_TEXT_BYTES};
use serde_json::json;

use super::super::{Answer, human_bytes, print};
use super::Folder;
use crate::slots::trial::InChild;
use crate::slots::{Choice, Installed, Slots};

/// A copy on the same machine is soon made again: fewer checkpoints than over a cable.
const CHECKPOINT_BYTES: u64 = 8 << 20;

const PIECE_BYTES: usize = 64 << 10;

/// Verify a bundle, a gallery or both, try them, and put them on trial.
///
/// A delta of `eyas gallery diff` stands for the gallery that it leads to from the one that is
/// confirmed; where files need signatures, it has one, and so has that gallery.
///
/// Signatures are read from FILE.minisig beside each file. What is on trial is confirmed by
/// the first answer of `eyas-device serve` or `watch`, by `confirm`, or by --confirm.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas-device install student.bundle shop.gallery
  eyas-device install /media/card/shop.gallery --confirm --json
  eyas-device install week-47.delta --result-signature shop-47.gallery.minisig")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// A bundle, a gallery or a delta to it, or one of each; what is not named stays as it is.
    #[arg(required = true, num_args = 1..=2, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Signature of the gallery that the delta leads to.
    #[arg(long, value_name = "FILE")]
    result_signature: Option<PathBuf>,
    /// Keep it for good once the trial in a child process is passed.
    #[arg(long)]
    confirm: bool,
    /// Take files that were signed with a lower counter than those confirmed before.
    #[arg(long)]
    allow_downgrade: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let slots = args.folder.open()?;
    if args.result_signature.is_some() && !args.files.iter().any(|path| is_delta(path)) {
        bail!("--result-signature goes with a delta, and none is named");
    }
    let mut choice = Choice {
        allow_downgrade: args.allow_downgrade,
        ..Choice::default()
    };
    for path in &args.files {
        let kind = kind_of(path)?;
        let half = match kind {
            Kind::Bundle => &mut choice.bundle,
            _ => &mut choice.gallery,
        };
        if half.is_some() {
            bail!("two files are named that are a gallery or lead to one, or two bundles");
        }
        let hash = stage(&slots, path)?;
        *half = Some(match kind {
            Kind::Delta => apply(&slots, args, hash)?,
            _ => hash,
        });
    }
    let trial = InChild::of_this_program(slots.settings()?.trial);
    let trial = trial.context("could not find this program")?;
    let outcome = slots.install(&choice, &trial)?;
    let (generation, report) = match &outcome {
        Installed::OnTrial(generation, report) => (generation, Some(report)),
        Installed::Already(generation) => (generation, None),
    };
    let number = generation.number;
    let is_on_trial = slots.pointer()?.trial.is_some();
    let confirms = args.confirm && is_on_trial;
    if confirms {
        slots.confirm(number)?;
    }
    let state = match (is_on_trial, confirms) {
        (true, false) => "on trial",
        _ => "confirmed",
    };
    if args.json {
        let object = json!({
            "schema": "eyas.install/1",
            "generation": number,
            "state": state,
            "is_new": report.is_some(),
            "trial": report,
            "bundle": generation.bundle.to_string(),
            "gallery": generation.gallery.to_string(),
        });
        print(&format!("{object}\n"))?;
    } else {
        let shown = match report {
            None => ", as before".to_owned(),
            Some(report) => format!(
                ": {} probes, smallest cosine {:.6}; {} rows; {} of memory",
                report.n_probes,
                report.min_cosine,
                report.n_rows,
                human_bytes(report.peak_bytes)
            ),
        };
        print(&format!("generation {number} is {state}{shown}\n"))?;
    }
    Ok(Answer::Yes)
}

/// What the first bytes say; the trial tells whether they are right.
fn kind_of(path: &Path) -> anyhow::Result<Kind> {
    let mut start = Vec::new();
    // Asked before opening: opening a pipe would wait for its other end.
    let facts = std::fs::metadata(path).map_err(FileError::because("read", path))?;
    if !facts.is_file() {
        bail!("`{}` is no file", path.display());
    }
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut start))
        .map_err(FileError::because("read", path))?;
    let kind = match Container::read(&start, Kind::Bundle, u16::MAX) {
        Err(ContainerError::OtherKind { found, .. }) => found,
        Err(err @ (ContainerError::NotEyas { .. } | ContainerError::UnknownKind { .. })) => {
            return Err(err).with_context(|| format!("can not use `{}`", path.display()));
        }
        _ => Kind::Bundle,
    };
    if !matches!(kind, Kind::Bundle | Kind::Gallery | Kind::Delta) {
        bail!(
            "`{}` is a {kind}; a board takes bundles, galleries and gallery deltas",
            path.display()
        );
    }
    Ok(kind)
}

fn is_delta(path: &Path) -> bool {
    matches!(kind_of(path), Ok(Kind::Delta))
}

/// Makes a gallery of the one that is confirmed and a delta; its hash.
fn apply(slots: &Slots, args: &Args, delta: Fingerprint) -> anyhow::Result<Fingerprint> {
    let confirmed = slots.pointer()?.confirmed;
    let base = confirmed.context("a delta needs a gallery, and none is confirmed")?;
    let applied = slots.apply_delta(delta, base.gallery)?;
    if let Some(signature) = &args.result_signature {
        keep_signature(slots, applied.gallery, signature)?;
    }
    Ok(applied.gallery)
}

/// Copies a file and its signature into the store.
fn stage(slots: &Slots, path: &Path) -> anyhow::Result<Fingerprint> {
    let mut hasher = ContentHasher::new();
    let bytes = each_piece(path, |piece, _| {
        hasher.update(piece);
        Ok(())
    })?;
    let hash = hasher.finish();
    let mut staging = slots.stage_by(hash, bytes, CHECKPOINT_BYTES)?;
    if staging.have() < bytes {
        each_piece(path, |piece, offset| Ok(staging.write(offset, piece)?))?;
    }
    staging.finish()?;
    let mut signature = path.as_os_str().to_owned();
    signature.push(format!(".{EXTENSION}"));
    let signature = PathBuf::from(signature);
    if signature.exists() {
        keep_signature(slots, hash, &signature)?;
    }
    Ok(hash)
}

fn keep_signature(slots: &Slots, hash: Fingerprint, path: &Path) -> anyhow::Result<()> {
    let text = files::read(path, MAX_TEXT_BYTES as u64)?;
    let kept = slots.put_signature(hash, &String::from_utf8_lossy(&text));
    kept.with_context(|| format!("can not use the signature `{}`", path.display()))
}

/// Reads a file in pieces; gives its length.
fn each_piece(
    path: &Path,
    mut take: impl FnMut(&[u8], u64) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut file = File::open(path).map_err(FileError::because("read", path))?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let n_read = match file.read(&mut buffer) {
            Ok(0) => return Ok(at),
            Ok(n_read) => n_read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(FileError::because("read", path)(err).into()),
        };
        take(&buffer[..n_read], at)?;
        at += n_read as u64;
    }
}
