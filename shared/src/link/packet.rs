//! What frames say: opening a session, stream bytes, acknowledgments.
//!
//! Every packet is one frame with a body of fixed fields, little-endian. What does not fit
//! exactly is no packet and is ignored: bytes from a cable are never trusted to be long
//! enough.

use super::frame::{self, Frame, MAX_PAYLOAD};

/// Protocol versions that this program speaks, from the oldest to the newest.
pub const VERSIONS: Versions = Versions {
    oldest: 1,
    newest: 1,
};

/// Frames before the newest one that an acknowledgment tells of.
pub const BITMAP_BITS: u32 = 128;

/// A range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first that is understood.
    pub oldest: u16,
    /// The last that is understood.
    pub newest: u16,
}

impl Versions {
    /// The newest version that both understand.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// What one end can take: sent by both while a session opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Largest run of stream bytes in one frame.
    pub max_payload: u16,
    /// Stream bytes that may be on their way before the first acknowledgment.
    pub window: u32,
}

/// Why a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody here knows it: this end was restarted, or talks to another session now.
    Unknown,
    /// No version of the protocol is common to both.
    Version(Versions),
}

/// An acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The newest numbered frame that arrived.
    pub newest: u32,
    /// Bit `i` is set if frame `newest - 1 - i` arrived.
    pub bitmap: u128,
    /// All stream bytes before this offset have arrived (its low 32 bits).
    pub received: u32,
    /// Stream bytes before this offset may be sent (its low 32 bits).
    pub limit: u32,
}

/// One frame's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The host asks for a session.
    Open(Versions, Terms),
    /// The board has it.
    Opened {
        /// The version that is spoken.
        version: u16,
        /// What the board can take.
        terms: Terms,
    },
    /// Bytes of the stream.
    Data {
        /// Of the frame.
        number: u32,
        /// Of the first byte in the stream (its low 32 bits).
        offset: u32,
        /// 1 to [`MAX_PAYLOAD`] bytes.
        bytes: &'a [u8],
    },
    /// What has arrived.
    Ack(Ack),
    /// Asks for an acknowledgment.
    Ping {
        /// Of the frame.
        number: u32,
    },
    /// There is no such session.
    Reset(Refusal),
}

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const DATA: u8 = 3;
const ACK: u8 = 4;
const PING: u8 = 5;
const RESET: u8 = 6;

/// Largest body of fixed fields: an acknowledgment.
const MAX_FIXED: usize = 24;

/// Fields one after the other, without allocation.
struct Fields {
    bytes: [u8; MAX_FIXED],
    len: usize,
}

impl Fields {
    fn new() -> Self {
        Self {
            bytes: [0; MAX_FIXED],
            len: 0,
        }
    }

    fn with<const N: usize>(mut self, field: [u8; N]) -> Self {
        self.bytes[self.len..self.len + N].copy_from_slice(&field);
        self.len += N;
        self
    }
}

/// Reads fields one after the other.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn versions(&mut self) -> Option<Versions> {
        let (oldest, newest) = (self.u16()?, self.u16()?);
        (oldest <= newest).then_some(Versions { oldest, newest })
    }

    fn terms(&mut self) -> Option<Terms> {
        let (max_payload, window) = (self.u16()?, self.u32()?);
        Some(Terms {
            max_payload,
            window,
        })
    }
}

impl<'a> Packet<'a> {
    /// What a frame says; none if it is of no known kind or has another length.
    #[must_use]
    pub fn read(frame: &Frame<'a>) -> Option<Self> {
        let mut fields = Reader(frame.body);
        let packet = match frame.kind {
            // Later versions may say more behind the fields of these two.
            OPEN => return Some(Self::Open(fields.versions()?, fields.terms()?)),
            RESET => {
                return Some(Self::Reset(match fields.take()? {
                    [1] => Refusal::Unknown,
                    [2] => Refusal::Version(fields.versions()?),
                    _ => return None,
                }));
            }
            OPENED => Self::Opened {
                version: fields.u16()?,
                terms: fields.terms()?,
            },
            DATA => {
                let offset = fields.u32()?;
                let bytes = std::mem::take(&mut fields.0);
                if !(1..=MAX_PAYLOAD).contains(&bytes.len()) {
                    return None;
                }
                Self::Data {
                    number: frame.number,
                    offset,
                    bytes,
                }
            }
            ACK => Self::Ack(Ack {
                newest: frame.number,
                bitmap: u128::from_le_bytes(fields.take()?),
                received: fields.u32()?,
                limit: fields.u32()?,
            }),
            PING => Self::Ping {
                number: frame.number,
            },
            _ => return None,
        };
        fields.0.is_empty().then_some(packet)
    }

    /// Appends the packet as a frame of a session.
    pub fn write(&self, session: u32, out: &mut Vec<u8>) {
        let write = |kind: u8, number: u32, body: &[u8], out: &mut Vec<u8>| {
            let frame = Frame {
                kind,
                session,
                number,
                body,
            };
            frame::encode(&frame, out);
        };
        let versions = |fields: Fields, versions: &Versions| {
            fields
                .with(versions.oldest.to_le_bytes())
                .with(versions.newest.to_le_bytes())
        };
        let terms = |fields: Fields, terms: &Terms| {
            fields
                .with(terms.max_payload.to_le_bytes())
                .with(terms.window.to_le_bytes())
        };
        let (kind, number, fields) = match self {
            Self::Open(range, offered) => (OPEN, 0, terms(versions(Fields::new(), range), offered)),
            Self::Opened {
                version,
                terms: offered,
            } => {
                let fields = Fields::new().with(version.to_le_bytes());
                (OPENED, 0, terms(fields, offered))
            }
            Self::Data {
                number,
                offset,
                bytes,
            } => {
                let mut body = [0; frame::MAX_BODY];
                let len = 4 + bytes.len();
                body[..4].copy_from_slice(&offset.to_le_bytes());
                body[4..len].copy_from_slice(bytes);
                return write(DATA, *number, &body[..len], out);
            }
            Self::Ack(ack) => {
                let fields = Fields::new()
                    .with(ack.bitmap.to_le_bytes())
                    .with(ack.received.to_le_bytes())
                    .with(ack.limit.to_le_bytes());
                (ACK, ack.newest, fields)
            }
            Self::Ping { number } => (PING, *number, Fields::new()),
            Self::Reset(Refusal::Unknown) => (RESET, 0, Fields::new().with([1])),
            Self::Reset(Refusal::Version(range)) => {
                (RESET, 0, versions(Fields::new().with([2]), range))
            }
        };
        write(kind, number, &fields.bytes[..fields.len], out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Deframer;
    use super::*;

    #[test]
    fn packets_come_back_and_nothing_shorter_or_longer_is_one() {
        let terms = Terms {
            max_payload: 2048,
            window: 32768,
        };
        let ack = Ack {
            newest: 7,
            bitmap: 0b101,
            received: 900,
            limit: 33_000,
        };
        let data = Packet::Data {
            number: 8,
            offset: 77,
            bytes: b"shelf",
        };
        let opened = Packet::Opened { version: 1, terms };
        let packets = [
            Packet::Open(VERSIONS, terms),
            opened,
            data,
            Packet::Ack(ack),
            Packet::Ping { number: 9 },
            Packet::Reset(Refusal::Unknown),
            Packet::Reset(Refusal::Version(VERSIONS)),
        ];
        for packet in packets {
            let mut wire = Vec::new();
            packet.write(5, &mut wire);
            Deframer::new().feed(&wire, |frame| {
                assert_eq!(frame.session, 5);
                assert_eq!(Packet::read(&frame), Some(packet));
                let cut = &frame.body[..frame.body.len().saturating_sub(1)];
                let short = Frame { body: cut, ..frame };
                let longer = [frame.body, &[0]].concat();
                let long = Frame {
                    body: &longer,
                    ..frame
                };
                match packet {
                    Packet::Data { .. } => {}
                    Packet::Open(..) | Packet::Reset(_) => {
                        assert_eq!(Packet::read(&short), None);
                        assert_eq!(Packet::read(&long), Some(packet));
                    }
                    _ => {
                        assert!(cut.is_empty() || Packet::read(&short).is_none());
                        assert_eq!(Packet::read(&long), None);
                    }
                }
            });
        }
    }

    #[test]
    fn two_ends_speak_the_newest_version_that_both_know() {
        let range = |oldest, newest| Versions { oldest, newest };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 3)), None);
    }
}
