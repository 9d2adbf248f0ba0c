//! The board's store: `eyas-device init`, `install`, `confirm`, `rollback`, `status`, `clean`.

mod install;
mod report;

use std::path::PathBuf;

use anyhow::Context;
use eyas_shared::files;
use eyas_shared::signature::{MAX_TEXT_BYTES, TrustedKey};
use serde_json::json;

use super::{Answer, print};
use crate::slots::trial::{Limits, in_child};
use crate::slots::{Disk, Settings, Slots};

pub(super) use install::Args as InstallArgs;
pub(super) use install::run as install;
pub(super) use report::{Args as StatusArgs, run as status};

/// Where the store lies unless something else is said.
const DEFAULT_FOLDER: &str = "/var/lib/eyas";

/// Which store.
#[derive(clap::Args)]
pub(super) struct Folder {
    /// Folder of the store; else $EYAS_STORE, else /var/lib/eyas.
    #[arg(long = "store", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Folder {
    fn path(&self) -> PathBuf {
        let of_environment = || std::env::var_os("EYAS_STORE").map(PathBuf::from);
        { self.folder.clone() }
            .or_else(of_environment)
            .unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER))
    }

    /// Opens the store.
    pub(super) fn open(&self) -> anyhow::Result<Slots> {
        Ok(Slots::open(Disk, &self.path())?)
    }
}

/// Set up a store: once, on a new board.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas-device init --key eyas.pub
  eyas-device init --store /tmp/trial-store --unsigned --max-memory 256")]
pub(super) struct InitArgs {
    #[command(flatten)]
    folder: Folder,
    /// Public key whose signatures are taken (a file of `eyas keys new` or minisign); may be
    /// given several times.
    #[arg(long, value_name = "FILE", required_unless_present = "unsigned")]
    key: Vec<PathBuf>,
    /// Take files without a signature, from anybody who reaches this board.
    #[arg(long, conflicts_with = "key")]
    unsigned: bool,
    /// Memory that a student may use when it is tried, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = Limits::DEFAULT.memory_bytes >> 20,
          value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    max_memory: u64,
    /// Longest time that a trial may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::DEFAULT.seconds,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    max_seconds: u64,
}

pub(super) fn init(args: &InitArgs) -> anyhow::Result<Answer> {
    let mut keys = Vec::new();
    for path in &args.key {
        let bytes = files::read(path, MAX_TEXT_BYTES as u64)?;
        let key = TrustedKey::read(&String::from_utf8_lossy(&bytes))
            .with_context(|| format!("can not use the key `{}`", path.display()))?;
        keys.push(key);
    }
    let mut settings = Settings::new(keys);
    settings.trial = Limits {
        memory_bytes: args.max_memory << 20,
        seconds: args.max_seconds,
    };
    let slots = Slots::init(Disk, &args.folder.path(), settings)?;
    let takes = match slots.settings()?.keys.len() {
        0 => "files from anybody, without signatures".to_owned(),
        1 => "files that one key has signed".to_owned(),
        n => format!("files that one of {n} keys has signed"),
    };
    print(&format!("`{}` takes {takes}\n", slots.root().display()))?;
    Ok(Answer::Yes)
}

/// Keep what is on trial for good.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device confirm")]
pub(super) struct ConfirmArgs {
    #[command(flatten)]
    folder: Folder,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn confirm(args: &ConfirmArgs) -> anyhow::Result<Answer> {
    let slots = args.folder.open()?;
    let Some(trial) = slots.pointer()?.trial else {
        return tell(
            args.json,
            "eyas.confirm/1",
            None,
            "nothing is on trial",
            Answer::No,
        );
    };
    let number = trial.generation.number;
    slots.confirm(number)?;
    let text = format!("generation {number} is confirmed");
    tell(
        args.json,
        "eyas.confirm/1",
        Some(number),
        &text,
        Answer::Yes,
    )
}

/// Go back: from a trial to what is confirmed, else to what was served before that.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device rollback --reason 'misses the red boxes'")]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    folder: Folder,
    /// Why; `status` shows it.
    #[arg(long, default_value = "it was rolled back by hand")]
    reason: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn rollback(args: &RollbackArgs) -> anyhow::Result<Answer> {
    let now = args.folder.open()?.rollback(&args.reason)?;
    let number = now.map(|generation| generation.number);
    let text = match number {
        Some(number) => format!("generation {number} serves"),
        None => "nothing is installed any more".to_owned(),
    };
    tell(args.json, "eyas.rollback/1", number, &text, Answer::Yes)
}

/// Remove files that no generation needs and nobody reads.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device clean --staged")]
pub(super) struct CleanArgs {
    #[command(flatten)]
    folder: Folder,
    /// Also those that were sent, in part or whole, and not installed.
    #[arg(long)]
    staged: bool,
}

pub(super) fn clean(args: &CleanArgs) -> anyhow::Result<Answer> {
    let slots = args.folder.open()?;
    let mut n_removed = 0;
    if args.staged {
        for file in slots.staged()? {
            slots.discard(file.hash)?;
            n_removed += 1;
        }
    }
    n_removed += slots.clean()?;
    print(&format!("{n_removed} files removed\n"))?;
    Ok(Answer::Yes)
}

/// The child of a trial; not for people.
#[derive(clap::Args)]
pub(super) struct TryArgs {
    bundle: PathBuf,
    gallery: PathBuf,
    memory_bytes: u64,
    seconds: u64,
}

pub(super) fn try_pair(args: &TryArgs) -> anyhow::Result<Answer> {
    let limits = Limits {
        memory_bytes: args.memory_bytes,
        seconds: args.seconds,
    };
    print(&in_child(&args.bundle, &args.gallery, limits))?;
    Ok(Answer::Yes)
}

fn tell(
    json: bool,
    schema: &str,
    generation: Option<u64>,
    text: &str,
    answer: Answer,
) -> anyhow::Result<Answer> {
    if json {
        let object = json!({
            "schema": schema,
            "generation": generation,
            "done": answer == Answer::Yes,
        });
        print(&format!("{object}\n"))?;
    } else {
        print(&format!("{text}\n"))?;
    }
    Ok(answer)
}
