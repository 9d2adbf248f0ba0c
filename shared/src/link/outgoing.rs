//! The sending half of a session: selective repeat over stream offsets.
//!
//! Frames are numbered in the order of sending and never sent twice; what is repeated is
//! the stream bytes of a lost one, under a new number and cut to what the line takes by
//! then. So every acknowledgment tells exactly which sending arrived (QUIC does the same:
//! RFC 9002).

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::pace::{FrameSize, RoundTrip};
use super::packet::{Ack, BITMAP_BITS, Packet, Terms};

/// Bytes that are kept until they are acknowledged.
pub const SEND_BUFFER: usize = 64 << 10;

/// Numbered frames without an acknowledgment.
const MAX_IN_FLIGHT: usize = 2048;

/// A frame is lost if one sent so much later has arrived: a line does not reorder, but
/// drivers and the simulator may by a little.
const REORDERING: u32 = 3;

/// A numbered frame that was sent.
struct InFlight {
    number: u32,
    /// Its stream bytes; empty for a ping.
    bytes: Range<u64>,
    sent_at: Duration,
}

/// What the sending half has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames with stream bytes.
    pub frames: u64,
    /// Stream bytes, repeated ones included.
    pub bytes: u64,
    /// Stream bytes that were sent again.
    pub repeated_bytes: u64,
    /// Frames that were given up.
    pub lost_frames: u64,
}

/// Bytes from here to the other end.
pub(super) struct Outgoing {
    /// The stream from `base` on.
    buffer: VecDeque<u8>,
    /// All before was acknowledged.
    base: u64,
    /// The first byte that was never sent.
    next: u64,
    /// The other end takes bytes before this offset.
    limit: u64,
    max_payload: usize,
    /// Bytes to send again, in the order of loss.
    lost: VecDeque<Range<u64>>,
    in_flight: VecDeque<InFlight>,
    next_number: u32,
    ping_due: bool,
    /// When waiting for an acknowledgment began.
    waiting_since: Duration,
    size: FrameSize,
    round_trip: RoundTrip,
    pub(super) sent: Sent,
}

/// The full offset of which `low` are the low 32 bits, nearest to `near`.
pub(super) fn full_offset(near: u64, low: u32) -> u64 {
    let distance = low.wrapping_sub(near as u32) as i32;
    near.wrapping_add_signed(i64::from(distance))
}

impl Outgoing {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            buffer: VecDeque::new(),
            base: 0,
            next: 0,
            limit: u64::from(terms.window),
            max_payload: usize::from(terms.max_payload),
            lost: VecDeque::new(),
            in_flight: VecDeque::new(),
            next_number: 0,
            ping_due: false,
            waiting_since: Duration::ZERO,
            size: FrameSize::default(),
            round_trip: RoundTrip::default(),
            sent: Sent::default(),
        }
    }

    /// Takes as many bytes as there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.buffer.extend(&bytes[..n]);
        n
    }

    pub(super) fn room(&self) -> usize {
        SEND_BUFFER - self.buffer.len()
    }

    /// Whether all that was written has arrived.
    pub(super) fn is_settled(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// Payload of the next full frame.
    pub(super) fn payload(&self) -> usize {
        self.size.payload(self.max_payload)
    }

    /// Bytes whose acknowledgment is awaited.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        self.next - self.base
    }

    /// Bytes that were written and are not acknowledged.
    pub(super) fn unsettled_bytes(&self) -> u64 {
        self.buffer.len() as u64
    }

    pub(super) fn ask_for_ack(&mut self) {
        self.ping_due = true;
    }

    fn end(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Whether bytes wait for the other end to make room.
    fn is_blocked(&self) -> bool {
        self.next < self.end() && self.next >= self.limit
    }

    /// Takes an acknowledgment; one that can not be true is ignored.
    pub(super) fn on_ack(&mut self, ack: &Ack, now: Duration) {
        let behind = self
            .next_number
            .wrapping_sub(1)
            .wrapping_sub(ack.newest)
            .cast_signed();
        let received = full_offset(self.base, ack.received);
        if behind < 0 || received > self.next {
            return;
        }
        let limit = full_offset(self.base, ack.limit);
        if limit > self.limit {
            self.limit = limit;
            self.waiting_since = now;
        }
        if received > self.base {
            self.buffer.drain(..(received - self.base) as usize);
            self.base = received;
        }
        self.settle_in_flight(ack, now);
        self.forget_what_arrived();
    }

    /// Sorts frames in flight into arrived, lost, and still on their way.
    fn settle_in_flight(&mut self, ack: &Ack, now: Duration) {
        let (base, size, sent) = (self.base, &mut self.size, &mut self.sent);
        let (lost, round_trip) = (&mut self.lost, &mut self.round_trip);
        let mut news = false;
        self.in_flight.retain(|frame| {
            let age = ack.newest.wrapping_sub(frame.number).cast_signed();
            let payload = (frame.bytes.end - frame.bytes.start) as usize;
            let arrived = match age {
                ..0 => return true,
                0 => true,
                1.. => {
                    let bit = age.cast_unsigned() - 1;
                    bit < BITMAP_BITS && ack.bitmap >> bit & 1 == 1
                }
            };
            if arrived {
                if age == 0 {
                    round_trip.learn(now.saturating_sub(frame.sent_at));
                }
                news = true;
                size.learn(payload, false);
                return false;
            }
            if age < REORDERING.cast_signed() {
                return true;
            }
            // Its acknowledgment may be what was lost: then the stream has gone past it.
            if frame.bytes.end > base {
                sent.lost_frames += 1;
                size.learn(payload, true);
                lost.push_back(frame.bytes.start.max(base)..frame.bytes.end);
            }
            false
        });
        if news {
            self.waiting_since = now;
        }
    }

    fn forget_what_arrived(&mut self) {
        let base = self.base;
        for range in &mut self.lost {
            range.start = range.start.max(base);
        }
        self.lost.retain(|range| range.start < range.end);
    }

    /// When something has to be sent although nothing arrives.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let waits = !self.in_flight.is_empty() || self.is_blocked();
        waits.then(|| self.waiting_since + self.round_trip.timeout())
    }

    /// The wait for an acknowledgment was in vain: the oldest bytes are sent again, as a
    /// probe. Its acknowledgment then tells what else is missing.
    fn on_timeout(&mut self, now: Duration) {
        self.round_trip.back_off();
        self.waiting_since = now;
        let base = self.base;
        let oldest = self.in_flight.iter().find(|frame| frame.bytes.end > base);
        match oldest {
            Some(frame) if self.lost.is_empty() => {
                let range = frame.bytes.start.max(base)..frame.bytes.end;
                let payload = self.payload() as u64;
                self.lost
                    .push_front(range.start..range.end.min(range.start + payload));
            }
            _ => self.ping_due = true,
        }
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
    }

    /// The stream bytes of the next frame.
    fn next_range(&mut self) -> Option<Range<u64>> {
        let payload = self.payload() as u64;
        if let Some(range) = self.lost.front_mut() {
            let end = range.end.min(range.start + payload);
            let taken = range.start..end;
            range.start = end;
            if range.start == range.end {
                self.lost.pop_front();
            }
            self.sent.repeated_bytes += taken.end - taken.start;
            return Some(taken);
        }
        let end = (self.next + payload).min(self.end()).min(self.limit);
        if self.next >= end {
            return None;
        }
        let taken = self.next..end;
        self.next = end;
        Some(taken)
    }

    /// Appends the next frame, if one is due.
    pub(super) fn transmit(&mut self, session: u32, now: Duration, out: &mut Vec<u8>) -> bool {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.on_timeout(now);
        }
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return false;
        }
        let number = self.next_number;
        let bytes = match self.next_range() {
            Some(range) => {
                let first = (range.start - self.base) as usize;
                let last = (range.end - self.base) as usize;
                let bytes: Vec<u8> = self.buffer.range(first..last).copied().collect();
                let offset = range.start as u32;
                let packet = Packet::Data {
                    number,
                    offset,
                    bytes: &bytes,
                };
                packet.write(session, out);
                self.sent.frames += 1;
                self.sent.bytes += range.end - range.start;
                range
            }
            None if self.ping_due => {
                Packet::Ping { number }.write(session, out);
                self.base..self.base
            }
            None => return false,
        };
        self.ping_due = false;
        self.next_number = number.wrapping_add(1);
        if self.in_flight.is_empty() {
            self.waiting_since = now;
        }
        self.in_flight.push_back(InFlight {
            number,
            bytes,
            sent_at: now,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_completed_across_the_wrap() {
        let near = (7 << 32) - 5;
        assert_eq!(full_offset(near, 10), (7 << 32) + 10);
        assert_eq!(full_offset(near + 20, u32::MAX), (7 << 32) - 1);
        assert_eq!(full_offset(3, 3), 3);
    }

    #[test]
    fn an_acknowledgment_of_what_was_never_sent_changes_nothing() {
        let terms = Terms {
            max_payload: 100,
            window: 1000,
        };
        let mut outgoing = Outgoing::new(terms);
        outgoing.write(&[7; 500]);
        let mut out = Vec::new();
        assert!(outgoing.transmit(1, Duration::ZERO, &mut out));
        let honest = Ack {
            newest: 0,
            bitmap: 0,
            received: 100,
            limit: 2000,
        };
        for lie in [
            Ack {
                newest: 1,
                ..honest
            },
            Ack {
                received: 101,
                ..honest
            },
            Ack {
                newest: u32::MAX,
                received: 400,
                ..honest
            },
        ] {
            outgoing.on_ack(&lie, Duration::ZERO);
            assert_eq!(outgoing.base, 0, "{lie:?}");
            assert_eq!(outgoing.in_flight.len(), 1);
        }
        outgoing.on_ack(&honest, Duration::ZERO);
        assert_eq!(outgoing.base, 100);
        assert!(outgoing.in_flight.is_empty());
    }
}
