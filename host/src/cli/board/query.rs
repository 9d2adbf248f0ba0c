//! `eyas query`: asks a board what an image shows.

use std::path::{Path, PathBuf};

use anyhow::Context;
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use eyas_shared::link::message::{Answer as Found, Ask, FileKind, MAX_MATCHES, Reply, Verdict};
use serde_json::json;

use super::{BoardArgs, leave};
use crate::cli::{Answer, note, say};
use crate::link::push::Source;
use crate::link::{Client, ClientError};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas query shelf.jpg --port /dev/ttyUSB0 --top-k 3")]
pub(in crate::cli) struct Args {
    /// Image files.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Matches per image.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_MATCHES)))]
    top_k: u16,
    #[command(flatten)]
    board: BoardArgs,
    /// Print one JSON object per image and line.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let mut client = args.board.connect()?;
    let mut n_failed = 0;
    for image in &args.images {
        match query(&mut client, image, args.top_k) {
            Ok(found) if args.json => say(&json_line(Some(image), &found)?),
            Ok(found) => say_matches(image, &found)?,
            // The board says no to this image, and may say yes to the next.
            Err(err) if !is_loss(&err) && args.images.len() > 1 => {
                note(&format!("error: {err:#}"));
                n_failed += 1;
            }
            Err(err) => return Err(err),
        }
    }
    leave(client);
    anyhow::ensure!(
        n_failed == 0,
        "{n_failed} of {} images were not answered",
        args.images.len()
    );
    Ok(Answer::Yes)
}

fn is_loss(err: &anyhow::Error) -> bool {
    err.chain()
        .any(|cause| cause.downcast_ref().is_some_and(ClientError::is_loss))
}

fn query(client: &mut Client, image: &Path, top_k: u16) -> anyhow::Result<Found> {
    let source = Source::open_as(image, FileKind::Image, [0; 32])?;
    let context = || format!("image `{}`", image.display());
    let hash = source.offer.file.hash;
    source.send(client).with_context(context)?;
    let asked = "a query";
    let found = match client.ask(asked, Ask::Query { image: hash, top_k }) {
        Ok(Reply::Answer(found)) => found,
        Ok(_) => return Err(ClientError::Answer { asked }.into()),
        Err(err) => return Err(err).with_context(context),
    };
    let through = found.result;
    client.ask("an acknowledgment", Ask::Acknowledge { through })?;
    Ok(found)
}

/// An answer as `eyas-device query --json` prints it, with what only the link knows.
pub(super) fn json_line(image: Option<&Path>, found: &Found) -> Result<String, ClientError> {
    let matches = found.matches();
    let matches = matches.ok_or(ClientError::Answer { asked: "a query" })?;
    let matches: Vec<_> = (1_u32..)
        .zip(matches)
        .map(|(rank, (found, label, name))| {
            json!({
                "rank": rank,
                "score": found.score,
                "label": label,
                "name": name,
                "id": ImageId(found.id).to_string(),
            })
        })
        .collect();
    let total =
        found.decode_micros + found.preprocess_micros + found.encode_micros + found.search_micros;
    Ok(json!({
        "schema": "eyas.query/1",
        "image": image.map(|path| path.display().to_string()),
        "image_hash": Fingerprint(found.image).to_string(),
        "result": found.result,
        "matches": matches,
        "verdict": found.verdict.map(verdict_name),
        "timing_us": {
            "decode": found.decode_micros,
            "preprocess": found.preprocess_micros,
            "encode": found.encode_micros,
            "search": found.search_micros,
            "total": total,
        },
        "space_id": Fingerprint(found.space).to_string(),
    })
    .to_string())
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Match => "match",
        Verdict::Uncertain => "uncertain",
        Verdict::Unknown => "unknown",
    }
}

fn say_matches(image: &Path, found: &Found) -> Result<(), ClientError> {
    let matches = found.matches();
    let matches = matches.ok_or(ClientError::Answer { asked: "a query" })?;
    let width = matches
        .iter()
        .map(|(_, label, _)| label.chars().count())
        .max()
        .unwrap_or(0);
    match found.verdict {
        Some(verdict) => say(&format!("{}: {}", image.display(), verdict_name(verdict))),
        None => say(&image.display().to_string()),
    }
    for (rank, (found, label, name)) in (1..).zip(matches) {
        say(&format!(
            "{rank:4}  {:.4}  {label:width$}  {name}",
            found.score
        ));
    }
    Ok(())
}
