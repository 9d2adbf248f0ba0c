//! The host's half of sending a file: offers it, sends what is missing, waits until the
//! board has checked it.
//!
//! Knows neither files nor ports: content comes from the caller, at the offset that the
//! board asks for. Nothing is remembered between two attempts; where to go on is the board's
//! answer, every time.

use thiserror::Error;

use super::endpoint::Endpoint;
use super::message::{self, Ask, CHUNK_BYTES, Code, Offer, Reply, Request};

/// Why a file was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadError {
    /// The board said no.
    #[error("the board refuses: {reason}")]
    Refused {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The board said something else than was asked.
    #[error("the board does not keep to the protocol: it answered an offer with {what}")]
    Protocol {
        /// What it said.
        what: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The offer has to be sent.
    New,
    /// The board has not said yet what it has.
    Offered,
    /// Bytes from here on have to be sent.
    From(u64),
    /// The board has checked the file.
    Stored,
}

/// A file on its way to the board.
pub struct Upload {
    offer: Offer,
    op: u32,
    phase: Phase,
    /// Where the board wanted the transfer to begin.
    began_at: u64,
}

impl Upload {
    /// A file that has not been offered yet; `op` numbers its request.
    #[must_use]
    pub fn new(offer: Offer, op: u32) -> Self {
        Self {
            offer,
            op,
            phase: Phase::New,
            began_at: 0,
        }
    }

    /// Whether the board has the file, checked.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Stored
    }

    /// Bytes that the board had before, as far as it has answered.
    #[must_use]
    pub fn began_at(&self) -> u64 {
        self.began_at
    }

    /// Bytes that were handed to the link, those that the board had before included.
    #[must_use]
    pub fn handed_over(&self) -> u64 {
        match self.phase {
            Phase::New | Phase::Offered => 0,
            Phase::From(offset) => offset,
            Phase::Stored => self.offer.file.bytes,
        }
    }

    /// Sends as much as the link takes now. `read` fills a buffer from an offset on.
    ///
    /// # Errors
    /// Whatever `read` fails with.
    pub fn send<E>(
        &mut self,
        endpoint: &mut Endpoint,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        /// Room for the fields around a chunk.
        const ENVELOPE: usize = 32;
        loop {
            let room = endpoint.room();
            let ask = match self.phase {
                Phase::New if room >= 128 => {
                    self.phase = Phase::Offered;
                    Ask::Offer(self.offer)
                }
                Phase::From(offset) if offset < self.offer.file.bytes => {
                    if room < CHUNK_BYTES + ENVELOPE {
                        return Ok(());
                    }
                    let n = (self.offer.file.bytes - offset).min(CHUNK_BYTES as u64);
                    let mut data = vec![0; n as usize];
                    read(offset, &mut data)?;
                    self.phase = Phase::From(offset + n);
                    Ask::Chunk { offset, data }
                }
                _ => return Ok(()),
            };
            let bytes = message::to_bytes(&Request { op: self.op, ask });
            let n = endpoint.write(&bytes);
            debug_assert_eq!(n, bytes.len(), "room was asked for");
        }
    }

    /// Takes an answer of the board to this upload's request.
    ///
    /// # Errors
    /// If the board refuses the file, or answers something else.
    pub fn on_reply(&mut self, reply: &Reply) -> Result<(), UploadError> {
        let protocol = |what| Err(UploadError::Protocol { what });
        match (reply, self.phase) {
            (Reply::Have { bytes }, Phase::Offered) => {
                if *bytes > self.offer.file.bytes {
                    return protocol("more bytes than the file has");
                }
                self.began_at = *bytes;
                self.phase = Phase::From(*bytes);
                Ok(())
            }
            (Reply::Stored, Phase::From(offset)) if offset == self.offer.file.bytes => {
                self.phase = Phase::Stored;
                Ok(())
            }
            (Reply::Failed { code, reason }, _) => Err(UploadError::Refused {
                code: *code,
                reason: reason.clone(),
            }),
            (Reply::Stored, _) => protocol("`stored` before all was sent"),
            _ => protocol("another message"),
        }
    }
}
