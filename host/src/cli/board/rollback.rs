//! `eyas rollback`: lets a board serve again what it served before.

use anyhow::Context;
use eyas_shared::link::message::{Ask, Info, Reply};
use serde_json::json;

use super::{BoardArgs, ask_info, gallery_line, leave, student_line};
use crate::cli::{Answer, say};
use crate::link::{Client, ClientError};

#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas rollback --port /dev/ttyUSB0

From a generation on trial the board goes back to the one that is confirmed, else to the one
before. What is left may be gone back to in the same way.")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    board: BoardArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let mut client = args.board.connect()?;
    let left = ask_info(&mut client)?.generation;
    roll_back(&mut client, left).with_context(|| format!("generation {left} was not left"))?;
    // Asked, not concluded: the board is the one to know.
    let now = ask_info(&mut client)?;
    leave(client);
    if args.json {
        say(&as_json(left, &now).to_string());
    } else {
        say(&format!("generation {left} was left"));
        say(&match now.generation {
            0 => "nothing is installed any more".to_owned(),
            generation => format!("generation {generation} serves"),
        });
        if now.generation > 0 {
            say(&format!("student     {}", student_line(&now)));
            say(&format!("gallery     {}", gallery_line(&now)));
        }
    }
    Ok(Answer::Yes)
}

/// Names what is to be left, so that a board that was asked before goes back once.
fn roll_back(client: &mut Client, from: u64) -> Result<(), ClientError> {
    let asked = "to go back";
    match client.ask(asked, Ask::Rollback { from })? {
        Reply::Serving { .. } => Ok(()),
        _ => Err(ClientError::Answer { asked }),
    }
}

fn as_json(left: u64, now: &Info) -> serde_json::Value {
    let hash = |file: &eyas_shared::link::message::FileId| file.fingerprint().to_string();
    json!({
        "schema": "eyas.rollback/1",
        "done": true,
        "left": left,
        "generation": (now.generation > 0).then_some(now.generation),
        "bundle": now.student.as_ref().map(|student| hash(&student.file)),
        "gallery": now.gallery.as_ref().map(|gallery| hash(&gallery.file)),
    })
}
