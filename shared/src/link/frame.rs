//! Frames on the wire: COBS between zero bytes, each with its CRC-32.
//!
//! A frame is a header (kind, session, number), a body and a checksum over both, stuffed so
//! that no byte of it is zero (Cheshire and Baker, IEEE/ACM Transactions on Networking 1999),
//! and ended by one zero. Whatever the line does, the next zero is the start of something
//! new: the [`Deframer`] skips to it, in fixed memory.
//!
//! Deliberately not here: what the kinds mean, and any notion of order or time.

/// Largest body of a frame.
pub const MAX_BODY: usize = 4 + MAX_PAYLOAD;

/// Largest run of stream bytes in one frame, whatever two ends agree on.
pub const MAX_PAYLOAD: usize = 4096;

/// Kind, session and number.
pub const HEADER_BYTES: usize = 9;

/// The CRC-32 at the end.
pub const CHECK_BYTES: usize = 4;

/// Largest frame before stuffing.
const MAX_FRAME: usize = HEADER_BYTES + MAX_BODY + CHECK_BYTES;

/// Largest frame on the wire, without its delimiter: one byte more for every 254 begun.
pub const MAX_STUFFED: usize = MAX_FRAME + MAX_FRAME / 254 + 1;

/// Ends every frame and stands nowhere else.
pub const DELIMITER: u8 = 0;

/// What one frame says, borrowed from the buffer that it was decoded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: u8,
    /// The session that the frame belongs to.
    pub session: u32,
    /// Its place among the numbered frames of one direction, or what the kind says.
    pub number: u32,
    /// At most [`MAX_BODY`] bytes.
    pub body: &'a [u8],
}

/// Stuffs bytes so that none of them is zero.
struct Stuffer<'o> {
    out: &'o mut Vec<u8>,
    /// Where the length of the block in progress belongs.
    code_at: usize,
    /// That length plus one.
    code: u8,
}

impl<'o> Stuffer<'o> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        let code_at = out.len();
        out.push(0);
        let code = 1;
        Self { out, code_at, code }
    }

    fn end_block(&mut self) {
        self.out[self.code_at] = self.code;
        self.code_at = self.out.len();
        self.out.push(0);
        self.code = 1;
    }

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != 0 {
                self.out.push(byte);
                self.code += 1;
            }
            if byte == 0 || self.code == 0xff {
                self.end_block();
            }
        }
    }

    fn finish(self) {
        self.out[self.code_at] = self.code;
        self.out.push(DELIMITER);
    }
}

/// Appends a frame with its delimiter.
///
/// # Panics
/// If the body is larger than [`MAX_BODY`].
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    assert!(frame.body.len() <= MAX_BODY, "a body fits into a frame");
    let mut header = [0; HEADER_BYTES];
    header[0] = frame.kind;
    header[1..5].copy_from_slice(&frame.session.to_le_bytes());
    header[5..9].copy_from_slice(&frame.number.to_le_bytes());
    let mut check = crc32fast::Hasher::new();
    check.update(&header);
    check.update(frame.body);
    let mut stuffer = Stuffer::new(out);
    stuffer.push(&header);
    stuffer.push(frame.body);
    stuffer.push(&check.finalize().to_le_bytes());
    stuffer.finish();
}

/// Takes the stuffing out in place; the length that is left, or none if a block is cut off.
fn unstuff(bytes: &mut [u8]) -> Option<usize> {
    let (mut read, mut write) = (0, 0);
    while let Some(&code) = bytes.get(read) {
        let block = read + 1..read + usize::from(code);
        read = block.end;
        // A zero can not stand here: frames are cut at zeros.
        if code == 0 || read > bytes.len() {
            return None;
        }
        let n = block.len();
        bytes.copy_within(block, write);
        write += n;
        if code != 0xff && read < bytes.len() {
            bytes[write] = 0;
            write += 1;
        }
    }
    Some(write)
}

/// Why bytes between two delimiters are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Malformed,
    Checksum,
}

fn decode(stuffed: &mut [u8]) -> Result<Frame<'_>, Fault> {
    let len = unstuff(stuffed).ok_or(Fault::Malformed)?;
    let frame = &stuffed[..len];
    let (content, check) = frame
        .split_last_chunk::<CHECK_BYTES>()
        .ok_or(Fault::Malformed)?;
    let ([kind, rest @ ..], body) = content
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(Fault::Malformed)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*check) {
        return Err(Fault::Checksum);
    }
    let word = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
    Ok(Frame {
        kind: *kind,
        session: word(0),
        number: word(4),
        body,
    })
}

/// What a [`Deframer`] has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of all sorts.
    pub bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// Frames that are well formed, with another checksum than their content.
    pub bad_checksums: u64,
    /// Runs of bytes that can not be a frame.
    pub malformed: u64,
    /// Runs that are longer than any frame.
    pub overlong: u64,
    /// Bytes of all runs that were no frame, delimiters left out.
    pub noise_bytes: u64,
}

impl Counters {
    /// Runs of bytes between delimiters that were no frame.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.bad_checksums + self.malformed + self.overlong
    }
}

/// Finds frames in bytes as they arrive, in fixed memory.
pub struct Deframer {
    buffer: Box<[u8; MAX_STUFFED]>,
    len: usize,
    /// More bytes than a frame has came since the last delimiter: wait for the next one.
    skipping: bool,
    counters: Counters,
}

impl Default for Deframer {
    fn default() -> Self {
        Self {
            buffer: Box::new([0; MAX_STUFFED]),
            len: 0,
            skipping: false,
            counters: Counters::default(),
        }
    }
}

impl Deframer {
    /// A deframer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was seen so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes the next bytes, cut anywhere, and hands over every frame that they complete.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>)) {
        self.counters.bytes += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == DELIMITER) {
            self.keep(&rest[..at]);
            rest = &rest[at + 1..];
            self.end_run(&mut each);
        }
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skipping {
            self.counters.noise_bytes += bytes.len() as u64;
            return;
        }
        let end = self.len + bytes.len();
        if let Some(room) = self.buffer.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
            return;
        }
        self.skipping = true;
        self.counters.overlong += 1;
        self.counters.noise_bytes += end as u64;
        self.len = 0;
    }

    fn end_run(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        let len = std::mem::take(&mut self.len);
        if std::mem::take(&mut self.skipping) || len == 0 {
            return;
        }
        match decode(&mut self.buffer[..len]) {
            Ok(frame) => {
                self.counters.frames += 1;
                each(frame);
            }
            Err(fault) => {
                match fault {
                    Fault::Malformed => self.counters.malformed += 1,
                    Fault::Checksum => self.counters.bad_checksums += 1,
                }
                self.counters.noise_bytes += len as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A frame that owns its body.
    type Owned = (u8, u32, u32, Vec<u8>);

    fn owned(frame: Frame<'_>) -> Owned {
        (frame.kind, frame.session, frame.number, frame.body.to_vec())
    }

    fn encoded((kind, session, number, body): &Owned) -> Vec<u8> {
        let mut out = Vec::new();
        let frame = Frame {
            kind: *kind,
            session: *session,
            number: *number,
            body,
        };
        encode(&frame, &mut out);
        out
    }

    fn frames_in(deframer: &mut Deframer, bytes: &[u8]) -> Vec<Owned> {
        let mut found = Vec::new();
        deframer.feed(bytes, |frame| found.push(owned(frame)));
        found
    }

    fn random_frame(random: &mut Random, max_body: usize) -> Owned {
        let zeros = random.chance(0.3);
        let body = (0..random.below(max_body + 1))
            .map(|_| if zeros { 0 } else { random.bits() as u8 })
            .collect();
        let (session, number) = (random.bits() as u32, random.bits() as u32);
        (random.bits() as u8, session, number, body)
    }

    #[test]
    fn frames_of_every_length_come_back_wherever_the_stream_is_cut() {
        let mut random = Random::new(1);
        let mut deframer = Deframer::new();
        for len in (0..800).chain([MAX_BODY - 1, MAX_BODY]) {
            let fill = random.bits() as u8;
            let sent = (3, 7, len as u32, vec![fill; len]);
            let wire = encoded(&sent);
            assert!(wire.len() <= MAX_STUFFED + 1);
            assert!(!wire[..wire.len() - 1].contains(&0));
            let cut = random.below(wire.len());
            assert_eq!(frames_in(&mut deframer, &wire[..cut]), []);
            assert_eq!(frames_in(&mut deframer, &wire[cut..]), [sent]);
        }
        assert_eq!(deframer.counters().damaged(), 0);
    }

    #[test]
    fn the_tail_of_an_overlong_run_is_not_taken_for_a_frame() {
        let mut deframer = Deframer::new();
        let sent = (1, 2, 3, vec![4]);
        let mut wire = vec![1; MAX_STUFFED + 1];
        wire.extend(encoded(&sent));
        assert_eq!(frames_in(&mut deframer, &wire), []);
        assert_eq!(deframer.counters().overlong, 1);
        assert_eq!(deframer.counters().noise_bytes as usize, wire.len() - 1);
        assert_eq!(frames_in(&mut deframer, &encoded(&sent)), [sent]);
    }

    #[test]
    fn a_frame_after_noise_costs_at_most_itself() {
        let mut random = Random::new(2);
        let mut deframer = Deframer::new();
        for _ in 0..500 {
            let noise: Vec<u8> = (0..random.below(300))
                .map(|_| random.bits() as u8)
                .collect();
            assert_eq!(frames_in(&mut deframer, &noise), []);
            let sent = random_frame(&mut random, 50);
            // The first may be joined to the noise; the second is whole.
            frames_in(&mut deframer, &encoded(&sent));
            assert_eq!(frames_in(&mut deframer, &encoded(&sent)), [sent]);
        }
    }

    #[test]
    fn no_single_wrong_bit_or_byte_goes_unnoticed() {
        let sent = (3, 0x1234_5678, 9, (0..60).collect::<Vec<u8>>());
        let wire = encoded(&sent);
        for bit in 0..8 * wire.len() {
            let mut damaged = wire.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(frames_in(&mut Deframer::new(), &damaged), [], "bit {bit}");
        }
        for at in 0..wire.len() {
            let mut short = wire.clone();
            short.remove(at);
            assert_eq!(frames_in(&mut Deframer::new(), &short), [], "byte {at}");
        }
    }
}
