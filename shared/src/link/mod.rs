//! The link between host and board over a line that loses, damages and repeats bytes.
//!
//! Three layers, each of which can be read and tested alone, and none of which has a clock
//! or a port: [`frame`] cuts bytes into checked frames, [`endpoint`] makes of them a stream
//! of bytes that arrives whole and in order or not at all, [`message`] is what host and
//! board say to each other. [`simulate`] is a line with faults, in virtual time.
//!
//! PROTOCOL.md beside this crate describes the bytes for other clients.

pub mod bench;
pub mod endpoint;
pub mod frame;
mod incoming;
pub mod message;
mod outgoing;
mod pace;
pub mod packet;
pub mod simulate;
pub mod upload;

pub use endpoint::{DEFAULT_TERMS, Endpoint, LinkError, SILENCE, State, Statistics};
pub use outgoing::{SEND_BUFFER, Sent};

#[cfg(test)]
mod tests;
