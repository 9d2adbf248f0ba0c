//! The host's end of the link to a board.
//!
//! [`Address`] says where a board is, [`Client`] asks it, [`push`] sends it files, [`mod@pull`]
//! fetches them, and both go on where a broken link left off, [`recording`] keeps what went
//! over the line. What a fault of a line means and what helps is [`diagnosis`].
//!
//! Bytes and their meaning are in `eyas_shared::link`, ports in `eyas_device::port`.

pub mod address;
pub mod client;
pub mod diagnosis;
pub mod pull;
pub mod push;
pub mod recording;

use std::io;
use std::path::PathBuf;

use eyas_device::port::PortError;
use eyas_shared::files::FileError;
use eyas_shared::link::LinkError;
use eyas_shared::link::message::{Code, FileId, MessageError};
use eyas_shared::link::upload::UploadError;
use thiserror::Error;

pub use address::{Address, Options};
pub use client::Client;

/// Why a board did not answer as it should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The port can not be used, or is gone.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no session, or none any more.
    #[error("{place}: {source}")]
    Link {
        /// Where the board should be.
        place: String,
        /// What happened.
        source: LinkError,
    },
    /// What arrived is no message.
    #[error("the board does not keep to the protocol")]
    Message(#[from] MessageError),
    /// The board answered something else than was asked.
    #[error("the board does not keep to the protocol: it answered {asked} with something else")]
    Answer {
        /// What was asked.
        asked: &'static str,
    },
    /// The board is there, but did not answer.
    #[error("the board is there, but has not answered {asked} for {seconds} s")]
    Slow {
        /// What was asked.
        asked: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The board refuses what is asked.
    #[error("the board refuses: {reason}")]
    Refused {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// A file that came whole, and is another one.
    #[error("the board sent another file than it named: {} was expected", file.fingerprint())]
    Content {
        /// Which was asked for.
        file: FileId,
    },
    /// A program that should lead to the board can not be started.
    #[error("could not start `{command}`")]
    Command {
        /// What was to be started.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// Several ports, and none was named.
    #[error("{} serial ports could be the board: {}", ports.len(), names(ports))]
    Ambiguous {
        /// Their names.
        ports: Vec<PathBuf>,
    },
    /// No port at all.
    #[error("no serial port that can be used, and none was named")]
    NoPort,
    /// A file of this machine.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is nothing for a board.
    #[error("`{}` is {what}; a board takes bundles, galleries and gallery deltas", path.display())]
    OtherFile {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
}

fn names(ports: &[PathBuf]) -> String {
    let names: Vec<String> = ports
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    names.join(", ")
}

impl From<UploadError> for ClientError {
    fn from(err: UploadError) -> Self {
        match err {
            UploadError::Refused { code, reason } => Self::Refused { code, reason },
            _ => Self::Answer { asked: "an offer" },
        }
    }
}

impl ClientError {
    /// Whether connecting again may help: the link broke, the board did not say no.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Port(PortError::Lost { .. }) | Self::Message(_) => true,
            Self::Link { source, .. } => !matches!(source, LinkError::Version { .. }),
            _ => false,
        }
    }
}
