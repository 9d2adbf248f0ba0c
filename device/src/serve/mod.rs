//! The board's service: one process that answers a host over a line, for as long as there
//! is power.
//!
//! Two threads: this one moves bytes and never works, so that the host always hears that
//! somebody is there; the other works on one request at a time and never touches the line.
//! Everything between them is bounded: the line stops reading when the worker has enough to
//! do. Results that nobody has read are kept, whatever becomes of the line.

mod board;
mod candidate;
mod images;
mod line;
mod notify;
mod receive;
mod results;
mod served;
mod work;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use eyas_shared::random::Random;

use crate::bench::Edges;
use crate::port::{Driver, Port, PortError, SPEEDS};
use board::Board;
use candidate::{Candidates, Watch};
use line::Line;
use notify::Notify;
use work::Bench;

pub use served::{Files, Source};

/// Requests that may wait for the worker. Each is at most one message.
const MAX_JOBS: usize = 16;

/// Between two tries to open a port that is gone.
const REOPEN_PAUSE: Duration = Duration::from_millis(300);

/// How long a port may be busy at the start.
const HANDOVER: Duration = Duration::from_secs(3);

/// How often a wait for the worker is looked up from.
const LOOK: Duration = Duration::from_millis(100);

/// How long the work in progress may take once the program is told to end.
const LAST_WORK: Duration = Duration::from_millis(600);

/// The line that a board serves.
#[derive(Clone, Debug)]
pub enum Where {
    /// A serial port at a speed.
    Port(PathBuf, u32),
    /// Standard input and output.
    Stdio,
}

impl Where {
    fn open(&self) -> Result<Port, PortError> {
        match self {
            Self::Port(path, baud) => Port::open(path, *baud),
            Self::Stdio => Port::stdio(),
        }
    }
}

/// How a board works.
#[derive(Clone, Debug)]
pub struct Work {
    /// Threads that encode and search, at least 1.
    pub n_threads: usize,
    /// Told when what a host measures begins and ends.
    pub edges: Edges,
}

/// Serves until `stop` is set or the stream ends. A serial port that is lost is waited for.
///
/// # Errors
/// If what is to be served can not be used, the port can not be opened at the start, or the
/// worker fails for good.
pub fn serve(
    source: Source,
    place: &Where,
    work: Work,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let port = open_at_start(place)?;
    let speeds = port.baud().map_or_else(Vec::new, |_| SPEEDS.to_vec());
    let (jobs, jobs_out) = mpsc::sync_channel(MAX_JOBS);
    let (done_in, done) = mpsc::channel();
    let (wake, woken) = UnixStream::pair().context("could not make a pair of sockets")?;
    for end in [&wake, &woken] {
        end.set_nonblocking(true)
            .context("could not set up a socket")?;
    }
    let (opened_in, opened) = mpsc::channel();
    let beats = Arc::new(AtomicU64::new(0));
    let bench = Bench {
        jobs: jobs_out,
        done: done_in,
        wake,
        beats: Arc::clone(&beats),
        stop: Arc::clone(stop),
    };
    let n_sessions = Arc::new(AtomicU64::new(0));
    let watch = Watch {
        beats: Arc::clone(&beats),
        stop: Arc::clone(stop),
        n_sessions: Arc::clone(&n_sessions),
        session: 0,
    };
    let worker = std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            let candidates = Candidates::new(work.edges, watch);
            let n_threads = work.n_threads;
            let mut board = Board::open(&source, boot_number(), speeds, n_threads, candidates)?;
            // Whoever waits for this is there, or the program ends.
            let _ = opened_in.send(());
            work::work(&mut board, &bench)
        })
        .context("could not start a thread")?;
    loop {
        match opened.recv_timeout(LOOK) {
            Ok(()) => break,
            // What opens files is left behind, and ends with the program.
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            // No word means that it has ended, with a reason.
            Err(RecvTimeoutError::Disconnected) => {
                return worker.join().unwrap_or_else(|_| Err(stopped()));
            }
        }
    }
    let line = Line::new(Driver::new(port), jobs, done, woken, n_sessions);
    let notify = Notify::from_environment();
    notify.say("READY=1");
    let outcome = carry(line, place, stop, &notify, &beats);
    notify.say("STOPPING=1");
    stop.store(true, Ordering::Relaxed);
    outcome.and(end_of(worker))
}

/// A number that no start of this program had before, as far as the clock goes on.
fn boot_number() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos() as u64);
    Random::new(nanos).at(u64::from(std::process::id())).bits()
}

/// Moves bytes until the end.
fn carry(
    mut line: Line,
    place: &Where,
    stop: &AtomicBool,
    notify: &Notify,
    beats: &AtomicU64,
) -> anyhow::Result<()> {
    let interval = notify.watchdog_interval();
    let (mut last_beat, mut last_said) = (0, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        match line.step() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(PortError::Lost { .. }) if matches!(place, Where::Port(..)) => {
                let Some(port) = reopen(place, stop) else {
                    return Ok(());
                };
                line.replace_port(Driver::new(port));
            }
            // The end of standard input is the end of the work.
            Err(PortError::Lost { .. }) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
        // Alive is who works: a stuck worker leaves the watchdog to bark.
        let beat = beats.load(Ordering::Relaxed);
        if interval.is_some_and(|interval| last_said.elapsed() >= interval) && beat != last_beat {
            notify.say("WATCHDOG=1");
            (last_beat, last_said) = (beat, Instant::now());
        }
    }
    Ok(())
}

/// Opens a port that a program before this one may just be letting go of, as when a
/// supervisor starts it anew.
fn open_at_start(place: &Where) -> Result<Port, PortError> {
    let began = Instant::now();
    loop {
        match place.open() {
            Err(PortError::Busy { .. }) if began.elapsed() < HANDOVER => {
                std::thread::sleep(REOPEN_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Waits for a port that is gone; none if the program is to end first.
fn reopen(place: &Where, stop: &AtomicBool) -> Option<Port> {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(port) = place.open() {
            return Some(port);
        }
        std::thread::sleep(REOPEN_PAUSE);
    }
    None
}

/// What the worker ended with; one that is still busy is left behind, and ends with the
/// program.
fn end_of(worker: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !worker.is_finished() && began.elapsed() < LAST_WORK {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !worker.is_finished() {
        return Ok(());
    }
    worker.join().unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> anyhow::Error {
    anyhow::anyhow!("the worker stopped for no known reason")
}

#[cfg(test)]
mod tests;
