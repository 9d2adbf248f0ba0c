//! Why the store refuses or fails.

use std::io;
use std::path::{Path, PathBuf};

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::signature::SignatureError;
use thiserror::Error;

use super::trial::TrialFault;
use crate::store::StoreError;
use crate::update::UpdateError;

/// What a file is to a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A student.
    Bundle,
    /// What it searches.
    Gallery,
    /// What turns one gallery into another.
    Delta,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bundle => "bundle",
            Self::Gallery => "gallery",
            Self::Delta => "delta",
        })
    }
}

/// Why an operation on the store was refused or failed. Whatever it is, what was served
/// before is served still.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SlotsError {
    /// The system refuses a file operation.
    #[error("could not {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The folder is no store, or its settings are damaged.
    #[error("`{}` is not set up as a store: {what}", path.display())]
    NotSetUp {
        /// The folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A store is there already.
    #[error("`{}` is set up as a store already", path.display())]
    AlreadySetUp {
        /// The folder.
        path: PathBuf,
    },
    /// Another process changes the store.
    #[error("another process is {doing} (lock `{}`)", path.display())]
    Busy {
        /// What the other does.
        doing: &'static str,
        /// The lock.
        path: PathBuf,
    },
    /// A file that is not there, neither staged nor in use.
    #[error("no {role} with the hash {hash} is in the store")]
    Absent {
        /// What it was to be.
        role: Role,
        /// Its content.
        hash: Fingerprint,
    },
    /// A pair with one half missing.
    #[error("there is no {role} to go with it: none is installed and none was named")]
    NoPartner {
        /// The half that is missing.
        role: Role,
    },
    /// A file that is not all there.
    #[error("the file {hash} is not whole: {have} of {bytes} bytes are there")]
    NotWhole {
        /// Its content.
        hash: Fingerprint,
        /// Bytes that are there.
        have: u64,
        /// Its length.
        bytes: u64,
    },
    /// Bytes that do not follow those that are there.
    #[error("bytes from {offset} on do not follow the {have} that are there (of {bytes})")]
    OutOfOrder {
        /// Where they belong.
        offset: u64,
        /// Bytes that are there.
        have: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// Content that is not what its name says.
    #[error("the content is not what its hash says: expected {expected}, found {found}")]
    OtherContent {
        /// The hash that was announced.
        expected: Fingerprint,
        /// The hash of what is there.
        found: Fingerprint,
    },
    /// A length that no file of this store has.
    #[error("a file of {bytes} bytes is not taken; this store takes 1 to {limit}")]
    Length {
        /// Its length.
        bytes: u64,
        /// The largest that is taken.
        limit: u64,
    },
    /// Too little room.
    #[error("{needed} bytes are needed in `{}`, {free} are free", path.display())]
    NoSpace {
        /// What is needed, with a reserve.
        needed: u64,
        /// What is there.
        free: u64,
        /// The folder.
        path: PathBuf,
    },
    /// A board with keys, and a file without signature.
    #[error("the {role} {hash} is not signed, and this store takes only signed files")]
    Unsigned {
        /// What it is.
        role: Role,
        /// Its content.
        hash: Fingerprint,
    },
    /// Text that is no signature.
    #[error("can not keep the signature of {hash}: {source}")]
    NoSignature {
        /// The content that it was given for.
        hash: Fingerprint,
        /// Why.
        source: SignatureError,
    },
    /// A signature that does not hold.
    #[error("the {role} {hash} is not trusted: {source}")]
    Signature {
        /// What it is.
        role: Role,
        /// Its content.
        hash: Fingerprint,
        /// Why.
        source: SignatureError,
    },
    /// An older file than the one that was confirmed.
    #[error("the {role} has the security counter {found}; this store has confirmed {floor}")]
    Downgrade {
        /// What it is.
        role: Role,
        /// Its counter.
        found: u64,
        /// The highest that was confirmed.
        floor: u64,
    },
    /// A pair that did not pass its trial.
    #[error(transparent)]
    Trial(#[from] TrialFault),
    /// A pair that can not be opened for serving.
    #[error(transparent)]
    Open(#[from] StoreError),
    /// A delta that does not lead to a gallery.
    #[error(transparent)]
    Update(UpdateError),
    /// There is nothing to serve.
    #[error("nothing is installed in `{}`", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to go back to.
    #[error("there is no earlier generation to go back to")]
    NothingBefore,
    /// There is nothing to confirm.
    #[error("generation {asked} is not on trial: {found}")]
    NotOnTrial {
        /// The generation that was to be confirmed.
        asked: u64,
        /// What is there instead.
        found: String,
    },
}

impl SlotsError {
    /// For `map_err`: names what was tried on which path.
    pub(super) fn because(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the content itself was refused, so that trying the same again gives the same.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Trial(fault) => fault.is_of_the_pair(),
            Self::Io { .. } | Self::Busy { .. } | Self::NoSpace { .. } | Self::NotSetUp { .. } => {
                false
            }
            _ => true,
        }
    }
}
