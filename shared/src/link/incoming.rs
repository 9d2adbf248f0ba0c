//! The receiving half of a session: puts stream bytes back in order, in fixed memory.

use std::ops::Range;

use super::outgoing::full_offset;
use super::packet::{Ack, BITMAP_BITS};

/// Stretches of stream that have arrived behind a gap. A frame that would need one more is
/// not accepted, and so sent again later.
const MAX_STRETCHES: usize = 512;

/// Bytes from the other end to here.
pub(super) struct Incoming {
    /// The window: stream offset `o` is kept at `o % len`.
    ring: Box<[u8]>,
    /// All before was read.
    read: u64,
    /// All before has arrived.
    received: u64,
    /// What has arrived behind, in order, not touching each other.
    stretches: Vec<Range<u64>>,
    newest: Option<u32>,
    bitmap: u128,
    ack_due: bool,
    /// The limit that the other end was last told.
    told_limit: u64,
}

impl Incoming {
    pub(super) fn new(window: u32) -> Self {
        Self {
            ring: vec![0; window as usize].into_boxed_slice(),
            read: 0,
            received: 0,
            stretches: Vec::new(),
            newest: None,
            bitmap: 0,
            ack_due: false,
            told_limit: u64::from(window),
        }
    }

    /// Bytes that can be read.
    pub(super) fn available(&self) -> usize {
        (self.received - self.read) as usize
    }

    /// Reads as many bytes as are there.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.available());
        let at = (self.read % self.ring.len() as u64) as usize;
        let first = n.min(self.ring.len() - at);
        out[..first].copy_from_slice(&self.ring[at..at + first]);
        out[first..n].copy_from_slice(&self.ring[..n - first]);
        self.read += n as u64;
        // Room is told of in quarters of the window, so that a slow reader does not cause
        // an acknowledgment for every few bytes.
        let gained = self.limit() - self.told_limit;
        if self.newest.is_some() && gained >= self.ring.len() as u64 / 4 {
            self.ack_due = true;
        }
        n
    }

    fn limit(&self) -> u64 {
        self.read + self.ring.len() as u64
    }

    /// Takes a numbered frame without bytes.
    pub(super) fn on_ping(&mut self, number: u32) {
        self.note_number(number);
    }

    /// Takes stream bytes, whichever of them are new.
    pub(super) fn on_data(&mut self, number: u32, offset: u32, bytes: &[u8]) {
        let start = full_offset(self.received, offset);
        let end = start.wrapping_add(bytes.len() as u64);
        // Before the stream's begin, or beyond what was allowed: no honest sender does that.
        if end < start || end > self.limit() {
            return;
        }
        if end > self.received {
            let new = start.max(self.received)..end;
            let skipped = (new.start - start) as usize;
            if !self.note_stretch(new.clone()) {
                return;
            }
            self.keep(new.start, &bytes[skipped..]);
        }
        self.note_number(number);
    }

    fn keep(&mut self, start: u64, bytes: &[u8]) {
        let at = (start % self.ring.len() as u64) as usize;
        let first = bytes.len().min(self.ring.len() - at);
        self.ring[at..at + first].copy_from_slice(&bytes[..first]);
        self.ring[..bytes.len() - first].copy_from_slice(&bytes[first..]);
    }

    /// Adds a stretch, joins it with its neighbors and advances `received`; false if there
    /// are too many.
    fn note_stretch(&mut self, new: Range<u64>) -> bool {
        let first = self.stretches.partition_point(|s| s.end < new.start);
        let last = self.stretches.partition_point(|s| s.start <= new.end);
        if first == last && new.start > self.received && self.stretches.len() >= MAX_STRETCHES {
            return false;
        }
        let joined = match self.stretches.get(first..last) {
            Some([one, .., other]) => new.start.min(one.start)..new.end.max(other.end),
            Some([one]) => new.start.min(one.start)..new.end.max(one.end),
            _ => new,
        };
        self.stretches.splice(first..last, [joined]);
        if self.stretches[0].start <= self.received {
            self.received = self.stretches.remove(0).end;
        }
        true
    }

    /// Notes that a numbered frame has arrived; every one is acknowledged, again if it
    /// came again.
    fn note_number(&mut self, number: u32) {
        self.ack_due = true;
        let Some(newest) = self.newest else {
            self.newest = Some(number);
            return;
        };
        let ahead = number.wrapping_sub(newest).cast_signed();
        if ahead > 0 {
            let ahead = ahead.cast_unsigned();
            let shifted = self.bitmap.checked_shl(ahead).unwrap_or(0);
            let before = 1_u128.checked_shl(ahead - 1).unwrap_or(0);
            self.bitmap = shifted | before;
            self.newest = Some(number);
        } else if ahead < 0 {
            let behind = ahead.unsigned_abs() - 1;
            if behind < BITMAP_BITS {
                self.bitmap |= 1 << behind;
            }
        }
    }

    /// The acknowledgment that is due.
    pub(super) fn take_ack(&mut self) -> Option<Ack> {
        let newest = self.newest.filter(|_| self.ack_due)?;
        self.ack_due = false;
        self.told_limit = self.limit();
        Some(Ack {
            newest,
            bitmap: self.bitmap,
            received: self.received as u32,
            limit: self.told_limit as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn bytes_come_out_in_order_however_they_came_in() {
        let mut random = Random::new(4);
        let stream: Vec<u8> = (0..20_000).map(|_| random.bits() as u8).collect();
        let mut incoming = Incoming::new(1000);
        let (mut read, mut number) = (Vec::new(), 0);
        while read.len() < stream.len() {
            let limit = (incoming.limit() as usize).min(stream.len());
            let from = read.len().saturating_sub(30);
            let start = from + random.below(limit - from);
            let end = (start + 1 + random.below(90)).min(limit);
            incoming.on_data(number, start as u32, &stream[start..end]);
            number += 1;
            let mut some = [0; 64];
            let n = incoming.read(&mut some);
            read.extend_from_slice(&some[..n]);
        }
        assert_eq!(read, stream);
        assert!(incoming.stretches.is_empty());
    }

    #[test]
    fn frames_beyond_the_limit_or_from_the_past_are_not_acknowledged() {
        let mut incoming = Incoming::new(100);
        incoming.on_data(0, 50, &[1; 51]);
        incoming.on_data(0, u32::MAX - 5, &[1; 3]);
        assert_eq!(incoming.take_ack(), None);
        incoming.on_data(1, 50, &[1; 50]);
        let ack = incoming.take_ack().unwrap();
        assert_eq!((ack.newest, ack.received, ack.limit), (1, 0, 100));
    }

    #[test]
    fn the_bitmap_tells_which_frames_arrived() {
        let mut incoming = Incoming::new(100);
        for number in [u32::MAX - 1, 2, 0, 1, 1] {
            incoming.on_ping(number);
        }
        let ack = incoming.take_ack().unwrap();
        // 1, 0, not u32::MAX, u32::MAX - 1.
        assert_eq!((ack.newest, ack.bitmap), (2, 0b1011));
        assert_eq!(incoming.take_ack(), None);
        incoming.on_ping(1000);
        assert_eq!(incoming.take_ack().unwrap().bitmap, 0);
    }

    #[test]
    fn stretches_are_bounded() {
        let mut incoming = Incoming::new(4096);
        for number in 0..2000 {
            incoming.on_data(number, 1 + 2 * number, &[1]);
        }
        assert_eq!(incoming.stretches.len(), MAX_STRETCHES);
        incoming.on_data(9999, 0, &[1]);
        assert_eq!(incoming.received, 2);
    }
}
