//! `eyas-device status`: what the store holds.

use std::fmt::Write;

use eyas_shared::fingerprint::Fingerprint;
use serde_json::{Value, json};

use super::super::{Answer, human_bytes, print};
use super::Folder;
use crate::slots::{Disk, Fs, Generation, Pointer, Slots, StagedFile};

/// Print what is served, on trial and on its way, and why the last one was not kept.
///
/// The answer is no (exit code 1) if nothing is installed.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device status --json")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let slots = args.folder.open()?;
    let (pointer, staged) = (slots.pointer()?, slots.staged()?);
    if args.json {
        print(&format!("{}\n", as_json(&slots, &pointer, &staged)))?;
    } else {
        print(&as_text(&slots, &pointer, &staged))?;
    }
    let is_installed = pointer.confirmed.is_some() || pointer.trial.is_some();
    Ok(if is_installed {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn generation_json(generation: &Generation) -> Value {
    json!({
        "number": generation.number,
        "bundle": generation.bundle.to_string(),
        "gallery": generation.gallery.to_string(),
        "bundle_counter": generation.bundle_counter,
        "gallery_counter": generation.gallery_counter,
    })
}

fn as_json(slots: &Slots, pointer: &Pointer, staged: &[StagedFile]) -> Value {
    let hex = |hash: &Option<Fingerprint>| hash.map(|hash| hash.to_string());
    let settings = slots.settings().ok();
    json!({
        "schema": "eyas.status/1",
        "store": slots.root().display().to_string(),
        "keys": settings.map(|settings| {
            settings.keys.iter().map(ToString::to_string).collect::<Vec<_>>()
        }),
        "trial_memory_bytes": settings.map(|settings| settings.trial.memory_bytes),
        "trial_seconds": settings.map(|settings| settings.trial.seconds),
        "free_bytes": Disk.free_bytes(slots.root()).ok(),
        "confirmed": pointer.confirmed.as_ref().map(generation_json),
        "previous": pointer.previous.as_ref().map(generation_json),
        "trial": pointer.trial.as_ref().map(|trial| json!({
            "generation": generation_json(&trial.generation),
            "starts": trial.starts,
        })),
        "refusal": pointer.refusal.as_ref().map(|refusal| json!({
            "bundle": hex(&refusal.bundle),
            "gallery": hex(&refusal.gallery),
            "reason": refusal.reason,
        })),
        "staged": staged.iter().map(|file| json!({
            "hash": file.hash.to_string(),
            "have_bytes": file.have,
            "is_whole": file.is_whole,
            "is_signed": file.is_signed,
        })).collect::<Vec<_>>(),
    })
}

fn as_text(slots: &Slots, pointer: &Pointer, staged: &[StagedFile]) -> String {
    let line = |generation: &Generation| {
        format!(
            "generation {}, bundle {}, gallery {}",
            generation.number,
            generation.bundle.short(),
            generation.gallery.short()
        )
    };
    let or_none =
        |generation: Option<&Generation>| generation.map_or_else(|| "nothing".to_owned(), line);
    let mut text = String::new();
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    fact("store", slots.root().display().to_string());
    let takes = match slots.settings().map(|settings| settings.keys.len()) {
        Ok(0) => "unsigned files".to_owned(),
        Ok(n) => format!("files signed by one of {n} keys"),
        Err(err) => format!("nothing: {err}"),
    };
    fact("takes", takes);
    if let Ok(free) = Disk.free_bytes(slots.root()) {
        fact("free", human_bytes(free));
    }
    fact("serves", or_none(pointer.confirmed.as_ref()));
    if let Some(trial) = &pointer.trial {
        let starts = trial.starts;
        fact(
            "on trial",
            format!("{}, started {starts} times", line(&trial.generation)),
        );
    }
    fact("before", or_none(pointer.previous.as_ref()));
    if let Some(refusal) = &pointer.refusal {
        fact("not kept", refusal.reason.clone());
    }
    for file in staged {
        let state = if file.is_whole { "whole" } else { "in part" };
        let (name, have) = (file.hash.short(), human_bytes(file.have));
        fact("staged", format!("{name}, {have}, {state}"));
    }
    text
}
