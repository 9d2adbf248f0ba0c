//! A cable with faults, in virtual time: two ends, and what noise, drivers and people do to
//! the bytes between them.
//!
//! The same seed gives the same faults at the same bytes. An hour of a slow line takes
//! seconds, and no test waits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::endpoint::{Endpoint, State};
use super::frame::DELIMITER;
use crate::random::Random;

/// Bits on the line for one byte: start, eight, stop.
const BITS_PER_BYTE: u32 = 10;

/// Longest extra delay of a frame that is delayed.
const MAX_DELAY: Duration = Duration::from_millis(40);

/// What a line does to what is sent over it. Rates are chances from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// That a bit arrives inverted.
    pub bit_errors: f64,
    /// That a byte does not arrive.
    pub lost_bytes: f64,
    /// That a random byte arrives before one that was sent.
    pub extra_bytes: f64,
    /// That a whole frame does not arrive.
    pub lost_frames: f64,
    /// That a frame arrives twice.
    pub repeated_frames: f64,
    /// That a frame arrives late, behind others.
    pub delayed_frames: f64,
    /// Nothing arrives for `.1` after every `.0`.
    pub blackout: Option<(Duration, Duration)>,
    /// The ends have set two speeds: every byte arrives as another one.
    pub is_other_speed: bool,
}

/// One direction of a cable.
struct Line {
    baud: u32,
    latency: Duration,
    faults: Faults,
    random: Random,
    busy_until: Duration,
    /// By time and order of arrival.
    arrivals: BTreeMap<(Duration, u64), Vec<u8>>,
    n_sent: u64,
    bytes_sent: u64,
}

impl Line {
    fn new(baud: u32, latency: Duration, faults: Faults, random: Random) -> Self {
        Self {
            baud,
            latency,
            faults,
            random,
            busy_until: Duration::ZERO,
            arrivals: BTreeMap::new(),
            n_sent: 0,
            bytes_sent: 0,
        }
    }

    fn send(&mut self, now: Duration, frame: &[u8]) {
        let bits = frame.len() as f64 * f64::from(BITS_PER_BYTE);
        let end = now.max(self.busy_until) + Duration::from_secs_f64(bits / f64::from(self.baud));
        self.busy_until = end;
        self.bytes_sent += frame.len() as u64;
        let faults = self.faults;
        let is_dark = faults.blackout.is_some_and(|(every, lasting)| {
            let cycle = (every + lasting).as_secs_f64();
            end.as_secs_f64() % cycle >= every.as_secs_f64()
        });
        if is_dark || self.random.chance(faults.lost_frames) {
            return;
        }
        let n_copies = 1 + usize::from(self.random.chance(faults.repeated_frames));
        for _ in 0..n_copies {
            let bytes = self.damaged(frame);
            let mut at = end + self.latency;
            if self.random.chance(faults.delayed_frames) {
                at += MAX_DELAY.mul_f64(self.random.unit());
            }
            self.arrivals.insert((at, self.n_sent), bytes);
            self.n_sent += 1;
        }
    }

    fn damaged(&mut self, frame: &[u8]) -> Vec<u8> {
        let faults = self.faults;
        let mut bytes = Vec::with_capacity(frame.len() + 8);
        for &byte in frame {
            if faults.extra_bytes > 0.0 && self.random.chance(faults.extra_bytes) {
                bytes.push(self.random.bits() as u8);
            }
            if faults.lost_bytes > 0.0 && self.random.chance(faults.lost_bytes) {
                continue;
            }
            bytes.push(byte);
        }
        if faults.is_other_speed {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = self.random.bits() as u8);
        }
        if faults.bit_errors > 0.0 {
            // The distance to the next error is geometric: one draw for each error.
            let spacing = (1.0 - faults.bit_errors).ln();
            let mut bit = self.gap(spacing);
            while bit < 8 * bytes.len() {
                bytes[bit / 8] ^= 1 << (bit % 8);
                bit += 1 + self.gap(spacing);
            }
        }
        bytes
    }

    fn gap(&mut self, spacing: f64) -> usize {
        ((1.0 - self.random.unit()).ln() / spacing) as usize
    }

    fn next_arrival(&self) -> Option<Duration> {
        self.arrivals.keys().next().map(|&(at, _)| at)
    }

    fn take_arrival(&mut self, now: Duration) -> Option<Vec<u8>> {
        let entry = self.arrivals.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

/// A host and a board joined by a cable.
pub struct Cable {
    /// Virtual time since the start.
    pub now: Duration,
    /// The host's end.
    pub host: Endpoint,
    /// The board's end.
    pub board: Endpoint,
    to_board: Line,
    to_host: Line,
    frame: Vec<u8>,
}

impl Cable {
    /// Joins two ends; both directions have the same faults, of other draws.
    #[must_use]
    pub fn new(host: Endpoint, board: Endpoint, baud: u32, faults: Faults, seed: u64) -> Self {
        let random = Random::new(seed);
        let latency = Duration::from_millis(2);
        let line = |name| Line::new(baud, latency, faults, random.fork(name));
        Self {
            now: Duration::ZERO,
            host,
            board,
            to_board: line("to board"),
            to_host: line("to host"),
            frame: Vec::new(),
        }
    }

    /// Bytes that went onto the cable towards the board.
    #[must_use]
    pub fn bytes_to_board(&self) -> u64 {
        self.to_board.bytes_sent
    }

    /// Bytes that went onto the cable towards the host.
    #[must_use]
    pub fn bytes_to_host(&self) -> u64 {
        self.to_host.bytes_sent
    }

    /// What the line did in each direction: changes it from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.to_board.faults = faults;
        self.to_host.faults = faults;
    }

    /// Puts bytes of someone else onto the cable towards the board, such as a console's.
    pub fn inject(&mut self, bytes: &[u8]) {
        let at = (self.now, self.to_board.n_sent);
        self.to_board.n_sent += 1;
        self.to_board.arrivals.insert(at, bytes.to_vec());
    }

    /// Runs until `work` is done, a session is lost, or nothing can happen any more.
    /// `work` is called after everything that happens, writes and reads the two streams,
    /// and returns true when it is done.
    pub fn run(
        &mut self,
        mut work: impl FnMut(&mut Endpoint, &mut Endpoint, Duration) -> bool,
    ) -> State {
        loop {
            self.deliver();
            let is_done = work(&mut self.host, &mut self.board, self.now);
            let state = self.host.state(self.now);
            self.board.state(self.now);
            if is_done || matches!(state, State::Lost(_)) {
                return state;
            }
            let to_board = send_one(
                &mut self.host,
                &mut self.to_board,
                self.now,
                &mut self.frame,
            );
            let to_host = send_one(
                &mut self.board,
                &mut self.to_host,
                self.now,
                &mut self.frame,
            );
            let next = [
                to_board,
                to_host,
                self.to_board.next_arrival(),
                self.to_host.next_arrival(),
            ];
            match next.into_iter().flatten().min() {
                // Time always goes on, so that a deadline in the past can not hold it.
                Some(next) => self.now = next.max(self.now + Duration::from_nanos(1)),
                None => return state,
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(bytes) = self.to_board.take_arrival(self.now) {
            self.board.receive(&bytes, self.now);
        }
        while let Some(bytes) = self.to_host.take_arrival(self.now) {
            self.host.receive(&bytes, self.now);
        }
    }
}

/// Sends a frame if the line is free and one is due; when to try again.
fn send_one(
    from: &mut Endpoint,
    line: &mut Line,
    now: Duration,
    frame: &mut Vec<u8>,
) -> Option<Duration> {
    if line.busy_until > now {
        return Some(line.busy_until);
    }
    frame.clear();
    if !from.transmit(now, frame) {
        return from.deadline();
    }
    debug_assert_eq!(frame.last(), Some(&DELIMITER));
    line.send(now, frame);
    Some(line.busy_until)
}
