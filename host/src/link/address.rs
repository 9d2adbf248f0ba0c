//! Where a board is: a serial port, or a program whose standard input and output lead to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eyas_device::port::{Port, list, stable_name};

use super::ClientError;

/// Where a board is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A serial port, by the name that stays if there is one.
    Serial {
        /// Its name.
        path: PathBuf,
        /// The speed that the board listens at.
        baud: u32,
    },
    /// A command of the shell, such as `ssh board eyas-device serve --stdio ...`.
    Command(String),
}

/// How a session is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to wait for a board that does not answer.
    pub patience: Duration,
    /// The speed to raise the line to; none leaves it as it is.
    pub raise_to: Option<u32>,
    /// Where to record all bytes.
    pub record: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            raise_to: None,
            record: None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial { path, baud } => write!(f, "`{}` at {baud} baud", path.display()),
            Self::Command(command) => write!(f, "`{command}`"),
        }
    }
}

/// A port with the program behind it, which ends with it.
pub(super) struct Opened {
    pub(super) port: Port,
    pub(super) child: Option<Ended>,
}

/// A program that is ended when it is not needed any more.
pub(super) struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It has lost its input, and ends by itself; this is for one that does not.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Address {
    /// A serial port as the user named it. The name that stays is taken, so that the board
    /// is found again after it was unplugged.
    #[must_use]
    pub fn serial(path: &Path, baud: u32) -> Self {
        let path = stable_name(path).unwrap_or_else(|| path.to_owned());
        Self::Serial { path, baud }
    }

    /// The only port of this machine that a board may be at.
    ///
    /// # Errors
    /// If there is none, or several.
    pub fn only_one(baud: u32) -> Result<Self, ClientError> {
        let mut usable: Vec<PathBuf> = list()?
            .into_iter()
            .filter(|port| port.fault.is_none())
            .map(|port| port.stable.unwrap_or(port.path))
            .collect();
        match usable.len() {
            0 => Err(ClientError::NoPort),
            1 => Ok(Self::Serial {
                path: usable.remove(0),
                baud,
            }),
            _ => Err(ClientError::Ambiguous { ports: usable }),
        }
    }

    pub(super) fn open(&self) -> Result<Opened, ClientError> {
        match self {
            Self::Serial { path, baud } => Ok(Opened {
                port: Port::open(path, *baud)?,
                child: None,
            }),
            Self::Command(command) => {
                let failed = |source| ClientError::Command {
                    command: command.clone(),
                    source,
                };
                let mut child = Command::new("sh")
                    .args(["-c", command])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .map_err(failed)?;
                let input = child.stdin.take().expect("it was asked for");
                let output = child.stdout.take().expect("it was asked for");
                let child = Ended(child);
                Ok(Opened {
                    port: Port::of_child(input, output)?,
                    child: Some(child),
                })
            }
        }
    }
}
