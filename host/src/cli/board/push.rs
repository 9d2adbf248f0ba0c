//! `eyas push`: sends bundles and galleries, or deltas to them, to a board and lets them serve.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use eyas_shared::link::message::{Activate, Ask, FileId, FileKind, Reply};
use serde_json::json;

use super::{BoardArgs, human_bytes};
use crate::cli::{Answer, Progress, note, say};
use crate::link::push::{Pushed, Pusher, Source};
use crate::link::{Client, ClientError, pull};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas push student.bundle shop.gallery --port /dev/ttyUSB0
  eyas push week-47.delta --port /dev/ttyUSB0

A file that the board has is not sent again, and one that was broken off is continued, also
after either side was restarted. FILE.minisig beside a file is sent with it.

A delta of `eyas gallery diff` is applied to the gallery that serves. Where files need
signatures, the delta has one, and so has the gallery that it leads to: apply it to a copy with
`eyas-device gallery apply`, sign both, and name the other one with --result-signature.")]
pub(in crate::cli) struct Args {
    /// A bundle, a gallery or a delta to it, or one of each.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Signature of the gallery that the delta leads to.
    #[arg(long, value_name = "FILE")]
    result_signature: Option<PathBuf>,
    /// Only send: what serves stays as it is.
    #[arg(long)]
    stage_only: bool,
    #[command(flatten)]
    board: BoardArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A file that was sent, and how it went.
struct Sent {
    source: Source,
    pushed: Pushed,
    seconds: f64,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let sources: Vec<Source> = args
        .files
        .iter()
        .map(|path| Source::open(path))
        .collect::<Result<_, _>>()?;
    let mut choice = choice(&sources)?;
    let is_delta = |source: &Source| source.offer.kind == FileKind::Delta;
    if args.result_signature.is_some() && !sources.iter().any(is_delta) {
        anyhow::bail!("--result-signature goes with a delta, and none is named");
    }
    let client = args.board.connect()?;
    let mut pusher = Pusher::new(client, &args.board.options());
    let mut sent = Vec::new();
    for source in sources {
        push_signature(&mut pusher, &source)?;
        sent.push(push_one(&mut pusher, source, args.json)?);
    }
    let delta = sent.iter().find(|sent| is_delta(&sent.source));
    if let Some(delta) = delta.filter(|_| !args.stage_only) {
        choice.gallery = Some(apply(&mut pusher, &delta.source, args)?.hash);
    }
    let serving = match args.stage_only {
        true => None,
        false => Some(activate(&mut pusher, choice)?),
    };
    if args.json {
        say(&as_json(&sent, serving).to_string());
    } else if let Some((generation, is_on_trial)) = serving {
        let on_trial = match is_on_trial {
            true => ", on trial until it has answered",
            false => "",
        };
        say(&format!("generation {generation} serves{on_trial}"));
    }
    // All is done; a farewell that is lost changes nothing.
    let _ = pusher.leave();
    Ok(Answer::Yes)
}

/// What is to serve: at most one bundle and one gallery.
fn choice(sources: &[Source]) -> anyhow::Result<Activate> {
    let mut choice = Activate {
        bundle: None,
        gallery: None,
    };
    for source in sources {
        let (slot, name) = match source.offer.kind {
            FileKind::Bundle => (&mut choice.bundle, "bundle"),
            // A delta stands for the gallery that it leads to.
            _ => (&mut choice.gallery, "gallery or a delta to one"),
        };
        if slot.replace(source.offer.file.hash).is_some() {
            anyhow::bail!("two files are a {name}; a board serves one at a time");
        }
    }
    Ok(choice)
}

/// Sends the signature that lies beside a file, if there is one.
fn push_signature(pusher: &mut Pusher, source: &Source) -> anyhow::Result<()> {
    let mut path = source.path.clone().into_os_string();
    path.push(".minisig");
    let path = PathBuf::from(path);
    if !path.exists() || !pusher.connected()?.hello().takes_files {
        return Ok(());
    }
    send_signature(pusher, &path, source.offer.file.hash)
}

/// Sends a signature of the file with this hash.
fn send_signature(pusher: &mut Pusher, path: &Path, about: [u8; 32]) -> anyhow::Result<()> {
    let signature = Source::open_as(path, FileKind::Signature, about)?;
    pusher
        .push(&signature, |_| {}, note_break)
        .with_context(|| format!("could not send `{}`", path.display()))?;
    Ok(())
}

fn note_break(err: &ClientError) {
    note(&format!("note: {err}; trying again"));
}

/// Lets the board apply a delta that it has; the gallery that comes of it.
fn apply(pusher: &mut Pusher, source: &Source, args: &Args) -> anyhow::Result<FileId> {
    let asked = "a delta";
    let delta = source.offer.file.hash;
    let once = |client: &mut Client| {
        // Asked before, to tell whether anything was left to do.
        let before = pull::find(client, FileKind::Gallery)?;
        // A board that applied it and was not heard has forgotten it.
        source.send(client)?;
        match client.ask(asked, Ask::Apply { delta })? {
            Reply::File(file) => Ok((file, file == before)),
            _ => Err(ClientError::Answer { asked }),
        }
    };
    let name = source.path.display();
    let applied = pusher.persist(once, &Cell::new(0), note_break);
    let ((gallery, is_old), _) = applied.with_context(|| format!("could not apply `{name}`"))?;
    if let Some(signature) = &args.result_signature {
        send_signature(pusher, signature, gallery.hash)?;
    }
    if !args.json {
        let hash = gallery.fingerprint().short();
        let bytes = human_bytes(gallery.bytes);
        say(&match is_old {
            true => format!("{name}: already applied, the gallery is {hash}"),
            false => format!("{name}: leads to gallery {hash}, {bytes}"),
        });
    }
    Ok(gallery)
}

fn push_one(pusher: &mut Pusher, source: Source, is_quiet: bool) -> anyhow::Result<Sent> {
    let began = Instant::now();
    let name = source.path.display().to_string();
    let progress = Progress::of_bytes(&format!("sending {name}"), source.offer.file.bytes);
    let outcome = pusher.push(&source, |there| progress.reach(there), note_break);
    drop(progress);
    let pushed = outcome.with_context(|| format!("could not send `{name}`"))?;
    let seconds = began.elapsed().as_secs_f64();
    let bytes = source.offer.file.bytes;
    if !is_quiet {
        let sent = bytes - pushed.had;
        let line = match sent {
            0 => format!("{name}: the board has it already"),
            _ => {
                let rate = human_bytes((sent as f64 / seconds.max(1e-3)) as u64);
                let had = match pushed.had {
                    0 => String::new(),
                    had => format!(", it had {}", human_bytes(had)),
                };
                let sent = human_bytes(sent);
                format!("{name}: sent {sent} in {seconds:.1} s, {rate}/s{had}")
            }
        };
        say(&line);
    }
    Ok(Sent {
        source,
        pushed,
        seconds,
    })
}

/// Lets the files serve; the generation, and whether it is on trial.
fn activate(pusher: &mut Pusher, choice: Activate) -> Result<(u64, bool), ClientError> {
    let asked = "what is to serve";
    let once = |client: &mut Client| match client.ask(asked, Ask::Activate(choice))? {
        Reply::Serving {
            generation,
            is_on_trial,
        } => Ok((generation, is_on_trial)),
        _ => Err(ClientError::Answer { asked }),
    };
    Ok(pusher.persist(once, &Cell::new(0), note_break)?.0)
}

fn as_json(sent: &[Sent], serving: Option<(u64, bool)>) -> serde_json::Value {
    let files: Vec<_> = sent
        .iter()
        .map(|sent| {
            json!({
                "path": sent.source.path.display().to_string(),
                "hash": sent.source.hash().to_string(),
                "bytes": sent.source.offer.file.bytes,
                "had": sent.pushed.had,
                "n_breaks": sent.pushed.n_breaks,
                "seconds": sent.seconds,
            })
        })
        .collect();
    json!({
        "schema": "eyas.push/1",
        "files": files,
        "generation": serving.map(|(generation, _)| generation),
        "is_on_trial": serving.map(|(_, is_on_trial)| is_on_trial),
    })
}
