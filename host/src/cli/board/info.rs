//! `eyas info`: what a board is and serves.

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::message::Info;
use serde_json::json;

use super::{BoardArgs, ask_info, gallery_line, leave, student_line};
use crate::cli::{Answer, say};
use crate::link::Client;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas info --port /dev/ttyUSB0")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    board: BoardArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let mut client = args.board.connect()?;
    let info = ask_info(&mut client)?;
    if args.json {
        say(&as_json(&client, &info).to_string());
    } else {
        for (name, text) in as_text(&client, &info) {
            say(&format!("{name:12}{text}"));
        }
    }
    leave(client);
    Ok(Answer::Yes)
}

fn hex(hash: [u8; 32]) -> String {
    Fingerprint(hash).to_string()
}

fn as_json(client: &Client, info: &Info) -> serde_json::Value {
    let statistics = client.statistics();
    let student = info.student.as_ref().map(|student| {
        json!({
            "name": student.name,
            "precision": student.precision,
            "dim": student.dim,
            "space_id": hex(student.space),
            "hash": hex(student.file.hash),
            "bytes": student.file.bytes,
        })
    });
    let gallery = info.gallery.as_ref().map(|gallery| {
        json!({
            "n_rows": gallery.n_rows,
            "n_labels": gallery.n_labels,
            "teacher": gallery.teacher,
            "hash": hex(gallery.file.hash),
            "bytes": gallery.file.bytes,
        })
    });
    json!({
        "schema": "eyas.board/1",
        "program": client.hello().program,
        "takes_files": client.hello().takes_files,
        "needs_signatures": client.hello().needs_signatures,
        "speeds": client.hello().speeds,
        "student": student,
        "gallery": gallery,
        "generation": info.generation,
        "is_on_trial": info.is_on_trial,
        "last_refusal": info.last_refusal,
        "uptime_ms": info.uptime_ms,
        "n_answered": info.n_answered,
        "n_unread": info.n_unread,
        "link": {
            "place": client.address().to_string(),
            "baud": client.baud(),
            "round_trip_us": statistics.round_trip.map(|time| time.as_micros() as u64),
            "frames_at_board": info.frames,
            "damaged_at_board": info.damaged,
            "frames_at_host": statistics.received.frames,
            "damaged_at_host": statistics.received.damaged(),
        },
    })
}

fn as_text(client: &Client, info: &Info) -> Vec<(&'static str, String)> {
    let hello = client.hello();
    let files = match (hello.takes_files, hello.needs_signatures) {
        (false, _) => "fixed: nothing can be pushed",
        (true, false) => "takes files, also unsigned ones",
        (true, true) => "takes signed files",
    };
    let on_trial = if info.is_on_trial { ", on trial" } else { "" };
    let statistics = client.statistics();
    let trip = statistics.round_trip.unwrap_or_default().as_secs_f64() * 1e3;
    let mut lines = vec![
        ("board", hello.program.clone()),
        ("place", client.address().to_string()),
        ("student", student_line(info)),
        ("gallery", gallery_line(info)),
        (
            "store",
            format!("{files}; generation {}{on_trial}", info.generation),
        ),
        (
            "queries",
            format!(
                "{} answered, {} not read yet",
                info.n_answered, info.n_unread
            ),
        ),
        ("up for", format!("{} s", info.uptime_ms / 1000)),
        (
            "link",
            format!(
                "round trip {trip:.1} ms; damaged frames: {} of {} at the board, {} of {} here",
                info.damaged,
                info.frames + info.damaged,
                statistics.received.damaged(),
                statistics.received.frames + statistics.received.damaged()
            ),
        ),
    ];
    if !info.last_refusal.is_empty() {
        lines.push(("refused", info.last_refusal.clone()));
    }
    lines
}
