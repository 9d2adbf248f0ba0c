//! What went over a line, in both directions, with times: one JSON object a line.
//!
//! A recording is for looking at afterwards, here or by whoever is asked for help:
//! [`replay`] takes it apart with the code that took the bytes from the line.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use eyas_device::port::Tap;
use eyas_shared::files::FileError;
use eyas_shared::link::frame::{Counters, Deframer};
use eyas_shared::link::packet::{Packet, Refusal};
use serde_json::{Value, json};

use super::{Address, ClientError};

const SCHEMA: &str = "eyas.recording/1";

/// Longest line of a recording: what is read at once, in hexadecimal, and its surroundings.
const MAX_LINE: u64 = 256 << 10;

/// Writes a recording as the bytes pass.
pub(super) struct Recorder {
    out: BufWriter<File>,
}

impl Recorder {
    pub(super) fn create(path: &Path, address: &Address) -> Result<Self, ClientError> {
        let file = File::create(path).map_err(FileError::because("write", path))?;
        let mut out = BufWriter::new(file);
        let head = json!({ "schema": SCHEMA, "place": address.to_string() });
        writeln!(out, "{head}").map_err(FileError::because("write", path))?;
        Ok(Self { out })
    }

    fn note(&mut self, now: Duration, direction: &str, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = json!({ "us": now.as_micros() as u64, "to": direction, "hex": hex });
        // The link matters more than its recording: a full disk does not end it.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

impl Tap for Recorder {
    fn received(&mut self, now: Duration, bytes: &[u8]) {
        self.note(now, "host", bytes);
    }

    fn sent(&mut self, now: Duration, bytes: &[u8]) {
        self.note(now, "board", bytes);
    }
}

/// A frame of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When its last byte passed.
    pub at: Duration,
    /// `board` or `host`.
    pub to: &'static str,
    /// The session.
    pub session: u32,
    /// What it says, for people.
    pub text: String,
}

/// A recording, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Where it was made.
    pub place: String,
    /// Every whole frame, in order.
    pub frames: Vec<Seen>,
    /// What went to the board.
    pub to_board: Counters,
    /// What came from it.
    pub to_host: Counters,
}

/// Takes a recording apart.
///
/// # Errors
/// If it can not be read, or a line is none of a recording.
pub fn replay(path: &Path) -> Result<Replay, ClientError> {
    let because = || FileError::because("read", path);
    let file = File::open(path).map_err(because())?;
    let mut reader = BufReader::new(file);
    let other = |what: String| ClientError::OtherFile {
        path: PathBuf::from(path),
        what,
    };
    let mut next_line = || -> Result<Option<Value>, ClientError> {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE);
        if limited.read_until(b'\n', &mut line).map_err(because())? == 0 {
            return Ok(None);
        }
        let value = serde_json::from_slice(&line);
        value
            .map(Some)
            .map_err(|err| other(format!("no recording: {err}")))
    };
    let head = next_line()?.unwrap_or_default();
    if head["schema"] != SCHEMA {
        return Err(other(format!("no recording of the schema `{SCHEMA}`")));
    }
    let place = head["place"].as_str().unwrap_or_default().to_owned();
    let (mut to_board, mut to_host) = (Deframer::new(), Deframer::new());
    let mut frames = Vec::new();
    while let Some(line) = next_line()? {
        let at = Duration::from_micros(line["us"].as_u64().unwrap_or(0));
        let (to, deframer) = match line["to"].as_str() {
            Some("board") => ("board", &mut to_board),
            Some("host") => ("host", &mut to_host),
            _ => return Err(other("a recording with a line to nobody".to_owned())),
        };
        let bytes = line["hex"].as_str().and_then(unhex);
        let bytes = bytes.ok_or_else(|| other("a recording with damaged bytes".to_owned()))?;
        deframer.feed(&bytes, |frame| {
            frames.push(Seen {
                at,
                to,
                session: frame.session,
                text: Packet::read(&frame).map_or_else(
                    || format!("unknown frame of kind {}", frame.kind),
                    |packet| describe(&packet),
                ),
            });
        });
    }
    Ok(Replay {
        place,
        frames,
        to_board: to_board.counters(),
        to_host: to_host.counters(),
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}

fn describe(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Open(versions, terms) => format!(
            "open: versions {} to {}, payload {}, window {}",
            versions.oldest, versions.newest, terms.max_payload, terms.window
        ),
        Packet::Opened { version, terms } => format!(
            "opened: version {version}, payload {}, window {}",
            terms.max_payload, terms.window
        ),
        Packet::Data {
            number,
            offset,
            bytes,
        } => format!("data #{number}: {} bytes from {offset}", bytes.len()),
        Packet::Ack(ack) => format!(
            "ack #{}: all before {}, up to {} allowed",
            ack.newest, ack.received, ack.limit
        ),
        Packet::Ping { number } => format!("ping #{number}"),
        Packet::Reset(Refusal::Unknown) => "reset: no such session".to_owned(),
        Packet::Reset(Refusal::Version(versions)) => format!(
            "reset: versions {} to {} are spoken here",
            versions.oldest, versions.newest
        ),
    }
}

#[cfg(test)]
mod tests {
    use eyas_shared::link::DEFAULT_TERMS;
    use eyas_shared::link::packet::VERSIONS;

    use super::*;

    #[test]
    fn a_recording_comes_back_frame_by_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.jsonl");
        let address = Address::Command("cat".to_owned());
        let mut recorder = Recorder::create(&path, &address).unwrap();
        let mut open = Vec::new();
        Packet::Open(VERSIONS, DEFAULT_TERMS).write(7, &mut open);
        recorder.sent(Duration::from_millis(3), &open[..5]);
        recorder.sent(Duration::from_millis(4), &open[5..]);
        recorder.received(Duration::from_millis(5), b"login: \0");
        drop(recorder);
        let replayed = replay(&path).unwrap();
        assert_eq!(replayed.place, "`cat`");
        assert_eq!(replayed.frames.len(), 1);
        let frame = &replayed.frames[0];
        assert_eq!(
            (frame.at.as_millis(), frame.to, frame.session),
            (4, "board", 7)
        );
        assert!(
            frame.text.starts_with("open: versions 1 to 1"),
            "{}",
            frame.text
        );
        assert_eq!(replayed.to_host.damaged(), 1);
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let head = format!("{{\"schema\":\"{SCHEMA}\"}}\n");
        for text in [
            "",
            "x",
            "{}",
            &format!("{head}{{\"to\":\"host\",\"hex\":\"0g\"}}"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(replay(&path).is_err(), "{text}");
        }
    }
}
