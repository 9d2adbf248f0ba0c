//! `eyas pull`: fetches what a board serves, or results that nobody has read.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eyas_shared::files;
use eyas_shared::fingerprint::ContentHasher;
use eyas_shared::link::message::{Ask, FileKind, Reply};

use super::{BoardArgs, human_bytes, leave, query};
use crate::cli::{Answer, Progress, say};
use crate::link::{Client, ClientError};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas pull bundle --out board.bundle --port /dev/ttyUSB0
  eyas pull results --port /dev/ttyUSB0 >> results.jsonl")]
pub(in crate::cli) struct Args {
    /// What to fetch.
    #[arg(value_enum, value_name = "WHAT")]
    what: What,
    /// File to write a bundle or gallery to.
    #[arg(long, value_name = "FILE", required_if_eq_any([("what", "bundle"), ("what", "gallery")]))]
    out: Option<PathBuf>,
    #[command(flatten)]
    board: BoardArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// The student that serves.
    Bundle,
    /// The gallery that serves.
    Gallery,
    /// Answers that nobody has read, as JSON lines; the board forgets them afterwards.
    Results,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let mut client = args.board.connect()?;
    match (args.what, &args.out) {
        (What::Results, _) => pull_results(&mut client)?,
        (What::Bundle, Some(out)) => pull_file(&mut client, FileKind::Bundle, out)?,
        (What::Gallery, Some(out)) => pull_file(&mut client, FileKind::Gallery, out)?,
        (What::Bundle | What::Gallery, None) => anyhow::bail!("--out names no file"),
    }
    leave(client);
    Ok(Answer::Yes)
}

/// Prints results, and only then lets the board forget them.
fn pull_results(client: &mut Client) -> Result<(), ClientError> {
    let asked = "results";
    let mut last = None;
    client.ask_for_many(asked, Ask::Results, |reply| match reply {
        Reply::Answer(answer) => {
            say(&query::json_line(None, &answer)?);
            last = Some(answer.result);
            Ok(true)
        }
        Reply::Done => Ok(false),
        _ => Err(ClientError::Answer { asked }),
    })?;
    if let Some(through) = last {
        client.ask(asked, Ask::Acknowledge { through })?;
    }
    Ok(())
}

fn pull_file(client: &mut Client, kind: FileKind, out: &Path) -> anyhow::Result<()> {
    let asked = "a file";
    let Reply::File(file) = client.ask(asked, Ask::Find { kind })? else {
        return Err(ClientError::Answer { asked }.into());
    };
    let progress = Progress::of_bytes(&format!("fetching {}", out.display()), file.bytes);
    let mut fault = None;
    let written = files::replace_with(out, |target| {
        let fetched = fetch(client, file.hash, |at, data| {
            target.write_all(data)?;
            progress.reach(at);
            Ok(())
        });
        match fetched {
            Ok(hash) if hash == file.fingerprint() => Ok(()),
            Ok(_) => Err(std::io::Error::other("what arrived has another hash")),
            Err(err) => {
                // Told in its own words below; nothing of the file is kept.
                let kept = std::io::Error::other(err.to_string());
                fault = Some(err);
                Err(kept)
            }
        }
    });
    drop(progress);
    if let Some(err) = fault {
        return Err(err).with_context(|| format!("could not fetch `{}`", out.display()));
    }
    written?;
    let (hash, bytes) = (file.fingerprint().short(), human_bytes(file.bytes));
    say(&format!("{}: {bytes}, {hash}", out.display()));
    Ok(())
}

/// Fetches a file from its beginning; its hash.
fn fetch(
    client: &mut Client,
    hash: [u8; 32],
    mut write: impl FnMut(u64, &[u8]) -> std::io::Result<()>,
) -> anyhow::Result<eyas_shared::fingerprint::Fingerprint> {
    let asked = "a file";
    let mut hasher = ContentHasher::new();
    let mut at = 0;
    let mut unwritten = None;
    client.ask_for_many(asked, Ask::Read { hash, offset: 0 }, |reply| match reply {
        Reply::Chunk { offset, data } if offset == at => {
            at += data.len() as u64;
            hasher.update(&data);
            unwritten = write(at, &data).err();
            Ok(unwritten.is_none())
        }
        Reply::Done => Ok(false),
        _ => Err(ClientError::Answer { asked }),
    })?;
    match unwritten {
        Some(err) => Err(err.into()),
        None => Ok(hasher.finish()),
    }
}
