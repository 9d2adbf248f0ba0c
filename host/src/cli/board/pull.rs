//! `eyas pull`: fetches what a board serves, or answers that nobody has read.

use std::path::{Path, PathBuf};

use anyhow::Context;
use eyas_shared::link::message::{Ask, FileKind, Reply};

use super::{BoardArgs, human_bytes, leave, query};
use crate::cli::{Answer, Progress, is_output_lost, note, say};
use crate::link::push::Pusher;
use crate::link::{Client, ClientError, pull};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas pull bundle --out board.bundle --port /dev/ttyUSB0
  eyas pull results --port /dev/ttyUSB0 >> results.jsonl

A transfer that was broken off is continued by the same command: what has come lies beside the
file, under a hidden name that ends in .part.")]
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
    let client = args.board.connect()?;
    match (args.what, &args.out) {
        (What::Results, _) => return pull_results(client),
        (What::Bundle, Some(out)) => pull_file(client, args, FileKind::Bundle, out)?,
        (What::Gallery, Some(out)) => pull_file(client, args, FileKind::Gallery, out)?,
        (What::Bundle | What::Gallery, None) => anyhow::bail!("--out names no file"),
    }
    Ok(Answer::Yes)
}

/// Prints results, and only once they are written lets the board forget them.
fn pull_results(mut client: Client) -> anyhow::Result<Answer> {
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
    if let Some(through) = last
        && !is_output_lost()
    {
        client.ask(asked, Ask::Acknowledge { through })?;
    }
    leave(client);
    Ok(Answer::Yes)
}

fn pull_file(mut client: Client, args: &Args, kind: FileKind, out: &Path) -> anyhow::Result<()> {
    let file = pull::find(&mut client, kind)?;
    let mut link = Pusher::new(client, &args.board.options());
    let progress = Progress::of_bytes(&format!("fetching {}", out.display()), file.bytes);
    let pulled = pull::pull(
        &mut link,
        file,
        out,
        |here| progress.reach(here),
        |err| note(&format!("note: {err}; trying again")),
    );
    drop(progress);
    let pulled = pulled.with_context(|| format!("could not fetch `{}`", out.display()))?;
    let (hash, bytes) = (file.fingerprint().short(), human_bytes(file.bytes));
    let had = match pulled.had {
        0 => String::new(),
        had => format!(", {} were here", human_bytes(had)),
    };
    say(&format!("{}: {bytes}, {hash}{had}", out.display()));
    // All is done; a farewell that is lost changes nothing.
    let _ = link.leave();
    Ok(())
}
