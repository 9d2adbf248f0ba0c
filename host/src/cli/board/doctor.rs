//! `eyas doctor`: what is wrong between host and board, and what helps.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use eyas_shared::link::simulate::{Cable, Faults};
use eyas_shared::link::{DEFAULT_TERMS, Endpoint, LinkError, State};
use serde_json::json;

use super::{BoardArgs, ask_info, human_bytes, leave};
use crate::cli::{Answer, note, say};
use crate::link::{Client, ClientError, diagnosis, recording};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas doctor --port /dev/ttyUSB0
  eyas doctor --simulate --bit-errors 1e-4 --lost-frames 0.01
  eyas doctor --replay link.jsonl

Ends with 0 if the link is sound, 1 if it is not.")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    board: BoardArgs,
    /// Send a megabyte over a simulated line with faults, in virtual time.
    #[arg(long, conflicts_with = "replay")]
    simulate: bool,
    #[command(flatten)]
    faults: FaultArgs,
    /// Take a recording apart (see --record).
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a simulated line does.
#[derive(clap::Args)]
#[command(next_help_heading = "Simulated line")]
struct FaultArgs {
    /// Chance that a bit arrives inverted.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = chance, requires = "simulate")]
    bit_errors: f64,
    /// Chance that a frame does not arrive.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = chance, requires = "simulate")]
    lost_frames: f64,
    /// Chance that a byte does not arrive.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = chance, requires = "simulate")]
    lost_bytes: f64,
    /// Seed of the faults.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "simulate")]
    seed: u64,
}

fn chance(text: &str) -> Result<f64, String> {
    let chance: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let is_chance = (0.0..=1.0).contains(&chance);
    is_chance
        .then_some(chance)
        .ok_or_else(|| "a chance is 0 to 1".to_owned())
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    if let Some(path) = &args.replay {
        return replay(path, args.json);
    }
    if args.simulate {
        return simulate(args);
    }
    let outcome = examine(args);
    match outcome {
        Ok(findings) => {
            if args.json {
                say(&findings.as_json().to_string());
            } else {
                findings.say();
            }
            Ok(if findings.is_sound() {
                Answer::Yes
            } else {
                Answer::No
            })
        }
        Err(err) => tell_fault(err, args),
    }
}

/// Names cause and remedy of a fault; one that nothing is known of is an error.
fn tell_fault(err: ClientError, args: &Args) -> anyhow::Result<Answer> {
    let other_speed = match &err {
        ClientError::Link {
            source: LinkError::NoAnswer { .. },
            ..
        } => {
            note("note: no answer; looking for the board at other speeds");
            args.board.other_speed()
        }
        _ => None,
    };
    let found = match other_speed {
        Some(baud) => Some(diagnosis::of_other_speed(args.board.baud, baud)),
        None => diagnosis::of_error(&err),
    };
    let Some(found) = found else {
        return Err(err.into());
    };
    let is_json = args.json;
    if is_json {
        let object = json!({
            "schema": "eyas.doctor/1",
            "sound": false,
            "fault": found.name,
            "message": err.to_string(),
            "cause": found.cause,
            "remedy": found.remedy,
        });
        say(&object.to_string());
    } else {
        say(&format!("fault   {err}"));
        say(&format!("cause   {}", found.cause));
        say(&format!("remedy  {}", found.remedy));
    }
    Ok(Answer::No)
}

/// Round trips that are measured.
const N_TRIPS: usize = 20;

/// A line that damages more than this share of frames works, and is not sound.
const SOUND_SHARE: f64 = 0.01;

/// What a link that works is like.
struct Findings {
    place: String,
    program: String,
    baud: Option<u32>,
    trips: Vec<Duration>,
    /// Frames and damaged runs, at the board and here.
    at_board: (u64, u64),
    at_host: (u64, u64),
}

fn examine(args: &Args) -> Result<Findings, ClientError> {
    let mut client = args.board.connect()?;
    let mut trips = Vec::new();
    let mut at_board = (0, 0);
    for _ in 0..N_TRIPS {
        let began = Instant::now();
        let info = ask_info(&mut client)?;
        trips.push(began.elapsed());
        at_board = (info.frames, info.damaged);
    }
    trips.sort_unstable();
    let findings = findings(&client, trips, at_board);
    leave(client);
    Ok(findings)
}

fn findings(client: &Client, trips: Vec<Duration>, at_board: (u64, u64)) -> Findings {
    let received = client.statistics().received;
    Findings {
        place: client.address().to_string(),
        program: client.hello().program.clone(),
        baud: client.baud(),
        trips,
        at_board,
        at_host: (received.frames, received.damaged()),
    }
}

fn share((frames, damaged): (u64, u64)) -> f64 {
    damaged as f64 / (frames + damaged).max(1) as f64
}

impl Findings {
    fn is_sound(&self) -> bool {
        share(self.at_board) <= SOUND_SHARE && share(self.at_host) <= SOUND_SHARE
    }

    fn millis(&self) -> [f64; 3] {
        let n = self.trips.len();
        [0, n / 2, n - 1].map(|idx| self.trips[idx].as_secs_f64() * 1e3)
    }

    fn as_json(&self) -> serde_json::Value {
        let [min, median, max] = self.millis();
        json!({
            "schema": "eyas.doctor/1",
            "sound": self.is_sound(),
            "place": self.place,
            "program": self.program,
            "baud": self.baud,
            "answer_ms": { "min": min, "median": median, "max": max, "n": self.trips.len() },
            "damaged_at_board": share(self.at_board),
            "damaged_at_host": share(self.at_host),
        })
    }

    fn say(&self) {
        let [min, median, max] = self.millis();
        let n = self.trips.len();
        say(&format!("board   {} at {}", self.program, self.place));
        say(&format!(
            "answer  {median:.1} ms (median of {n}, {min:.1} to {max:.1})"
        ));
        for (name, counted) in [("to board", self.at_board), ("to host", self.at_host)] {
            let (frames, damaged) = counted;
            say(&format!(
                "{name:8}{damaged} damaged of {} frames since the program began",
                frames + damaged
            ));
        }
        if self.is_sound() {
            say("the link is sound");
        } else {
            say("the link works, and damages frames: files take longer");
            say("remedy  a shorter cable, a common ground, a lower --baud");
        }
    }
}

const SIMULATED_BYTES: usize = 1 << 20;

fn simulate(args: &Args) -> anyhow::Result<Answer> {
    let faults = Faults {
        bit_errors: args.faults.bit_errors,
        lost_frames: args.faults.lost_frames,
        lost_bytes: args.faults.lost_bytes,
        ..Faults::default()
    };
    let patience = Duration::from_secs(10);
    let host = Endpoint::host(1, DEFAULT_TERMS, patience, Duration::ZERO);
    let board = Endpoint::board(DEFAULT_TERMS);
    let baud = args.board.baud.max(1);
    let mut cable = Cable::new(host, board, baud, faults, args.faults.seed);
    let content: Vec<u8> = (0..SIMULATED_BYTES).map(|i| (i % 251) as u8).collect();
    let (mut written, mut arrived) = (0, 0);
    let mut buffer = [0; 4096];
    let mut is_right = true;
    let state = cable.run(|host, board, _| {
        written += host.write(&content[written..]);
        loop {
            match board.read(&mut buffer) {
                0 => break,
                n => {
                    is_right &= buffer[..n] == content[arrived..arrived + n];
                    arrived += n;
                }
            }
        }
        arrived == content.len()
    });
    let is_whole = is_right && arrived == content.len() && state == State::Open;
    let seconds = cable.now.as_secs_f64();
    let ideal = arrived as f64 * 10.0 / f64::from(baud);
    let statistics = cable.host.statistics();
    let damaged = cable.board.statistics().received.damaged();
    if args.json {
        let object = json!({
            "schema": "eyas.doctor.simulation/1",
            "whole": is_whole,
            "baud": baud,
            "seconds": seconds,
            "share_of_line": ideal / seconds,
            "arrived": arrived,
            "frames": statistics.sent.frames,
            "lost_frames": statistics.sent.lost_frames,
            "repeated_bytes": statistics.sent.repeated_bytes,
            "damaged_at_board": damaged,
            "payload": statistics.payload,
        });
        say(&object.to_string());
    } else {
        let size = human_bytes(arrived as u64);
        say(&format!(
            "{size} in {seconds:.1} s at {baud} baud: {:.0} % of the line",
            100.0 * ideal / seconds
        ));
        say(&format!(
            "{} frames, {} lost, {} sent again, payload at the end {} B",
            statistics.sent.frames,
            statistics.sent.lost_frames,
            human_bytes(statistics.sent.repeated_bytes),
            statistics.payload
        ));
        say(match is_whole {
            true => "everything arrived, bit by bit",
            false => "not everything arrived: the link was given up",
        });
    }
    Ok(if is_whole { Answer::Yes } else { Answer::No })
}

fn replay(path: &std::path::Path, is_json: bool) -> anyhow::Result<Answer> {
    let replayed =
        recording::replay(path).with_context(|| format!("recording `{}`", path.display()))?;
    let damaged = (replayed.to_board.damaged(), replayed.to_host.damaged());
    if is_json {
        let frames: Vec<_> = replayed
            .frames
            .iter()
            .map(|frame| {
                json!({
                    "us": frame.at.as_micros() as u64,
                    "to": frame.to,
                    "session": frame.session,
                    "text": frame.text,
                })
            })
            .collect();
        let object = json!({
            "schema": "eyas.replay/1",
            "place": replayed.place,
            "frames": frames,
            "damaged_to_board": damaged.0,
            "damaged_to_host": damaged.1,
            "noise_bytes_to_host": replayed.to_host.noise_bytes,
        });
        say(&object.to_string());
    } else {
        say(&format!("recorded at {}", replayed.place));
        for frame in &replayed.frames {
            let millis = frame.at.as_secs_f64() * 1e3;
            let (to, session) = (frame.to, frame.session);
            say(&format!(
                "{millis:12.3} ms  to {to:5}  {session:08x}  {}",
                frame.text
            ));
        }
        say(&format!(
            "damaged: {} to the board, {} to the host ({} bytes)",
            damaged.0, damaged.1, replayed.to_host.noise_bytes
        ));
    }
    Ok(if damaged == (0, 0) {
        Answer::Yes
    } else {
        Answer::No
    })
}
