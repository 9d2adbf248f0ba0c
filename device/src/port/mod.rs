//! Ports: a serial line or any pair of byte streams, with calls that end when they should.
//!
//! The serialport crate opens and sets up a line; bytes go through a descriptor of our own
//! that never blocks, because that crate's timeout does not bound a write, its flush waits
//! for a line that may stand still, and a hang-up makes it drop bytes that had arrived.
//! Every wait here is one `poll` with the caller's time limit.
//!
//! A port that is gone (unplugged, hung up, end of file) says so once and for all with
//! [`PortError::Lost`]; whoever wants it back opens it again by its name.

mod drive;
mod list;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::Errno;
use serialport::{SerialPort, TTYPort};
use thiserror::Error;

pub use drive::{Driver, Tap};
pub use list::{Listed, list, stable_name};

/// The speed that every board listens at first.
pub const BASE_BAUD: u32 = 115_200;

/// Speeds that a line may be raised to, in baud.
pub const SPEEDS: [u32; 8] = [
    115_200, 230_400, 460_800, 921_600, 1_000_000, 1_500_000, 2_000_000, 3_000_000,
];

/// Most bytes that one system call is asked to take.
const PIECE_BYTES: usize = 1024;

/// A full pty may be called writable and still take nothing: the pause before it is asked
/// again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What a serial driver may hold, in time on the line: what waits there can not be
/// overtaken by an acknowledgment.
const QUEUE_TIME: Duration = Duration::from_millis(30);

/// Why a port can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PortError {
    /// There is none of this name.
    #[error("there is no port `{}`", path.display())]
    Absent {
        /// Its name.
        path: PathBuf,
    },
    /// The user may not open it.
    #[error("no permission to open the port `{}`", path.display())]
    Denied {
        /// Its name.
        path: PathBuf,
    },
    /// Another program has it.
    #[error("the port `{}` is in use{}", path.display(), held_by(holders))]
    Busy {
        /// Its name.
        path: PathBuf,
        /// Programs that have it open, as far as the system tells.
        holders: Vec<String>,
    },
    /// A file that is no port.
    #[error("`{}` is no serial port", path.display())]
    NotAPort {
        /// Its name.
        path: PathBuf,
    },
    /// The line can not be set up.
    #[error("can not set up the port `{}` at {baud} baud: {what}", path.display())]
    Setup {
        /// Its name.
        path: PathBuf,
        /// Speed that was asked for.
        baud: u32,
        /// What the system said.
        what: String,
    },
    /// It was unplugged, hung up or closed.
    #[error("the port is gone: {what}")]
    Lost {
        /// How that showed.
        what: String,
    },
    /// The system refuses.
    #[error("could not {action} the port")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn held_by(holders: &[String]) -> String {
    match holders {
        [] => String::new(),
        holders => format!(" by {}", holders.join(", ")),
    }
}

/// Something that bytes go into and come out of.
pub struct Port {
    input: OwnedFd,
    output: OwnedFd,
    /// Descriptors that are shared with other programs, and the flags to leave them with.
    shared: Vec<OFlags>,
    serial: Option<Serial>,
    /// The last write took nothing although the port was called writable.
    is_full: bool,
}

/// What sets up the line behind a port.
struct Serial {
    tty: TTYPort,
    path: PathBuf,
    baud: u32,
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// A read has something to say.
    pub read: bool,
    /// A write may take something.
    pub write: bool,
}

fn lost(what: impl Into<String>) -> PortError {
    PortError::Lost { what: what.into() }
}

fn system(action: &'static str) -> impl FnOnce(Errno) -> PortError {
    move |errno| PortError::System {
        action,
        source: errno.into(),
    }
}

fn busy(path: &Path) -> PortError {
    PortError::Busy {
        path: path.to_owned(),
        holders: list::holders(path),
    }
}

/// What the system's answer means for a port that was to be opened.
fn open_fault(path: &Path, errno: Errno) -> PortError {
    let path = path.to_owned();
    match errno {
        Errno::NOENT | Errno::NXIO | Errno::NODEV => PortError::Absent { path },
        Errno::ACCESS | Errno::PERM => PortError::Denied { path },
        Errno::BUSY => busy(&path),
        Errno::ISDIR => PortError::NotAPort { path },
        other => system("open")(other),
    }
}

impl Port {
    /// Opens a serial port for this program alone.
    ///
    /// # Errors
    /// [`PortError`] says why it can not be used.
    pub fn open(path: &Path, baud: u32) -> Result<Self, PortError> {
        let owned = || path.to_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let input = open(path, flags, Mode::empty()).map_err(|errno| open_fault(path, errno))?;
        if !rustix::termios::isatty(&input) {
            return Err(PortError::NotAPort { path: owned() });
        }
        let name = path.to_string_lossy();
        let tty = serialport::new(name.as_ref(), baud).open_native();
        let tty = tty.map_err(|err| match err.kind() {
            // The name exists and was opened above: what is left is another one's lock.
            serialport::ErrorKind::NoDevice => busy(path),
            _ => PortError::Setup {
                path: owned(),
                baud,
                what: err.to_string(),
            },
        })?;
        let output = input.try_clone().map_err(|source| PortError::System {
            action: "open",
            source,
        })?;
        let serial = Serial {
            tty,
            path: owned(),
            baud,
        };
        let mut port = Self::of_streams(input, output)?;
        port.serial = Some(serial);
        Ok(port)
    }

    /// Standard input and output of this program.
    ///
    /// # Errors
    /// If they can not be used without blocking.
    pub fn stdio() -> Result<Self, PortError> {
        let clone = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|source| PortError::System {
                action: "open",
                source,
            })
        };
        let input = clone(io::stdin().as_fd())?;
        let output = clone(io::stdout().as_fd())?;
        // They belong to whoever started this program, and are given back as they were.
        let flags = |fd: &OwnedFd| fcntl_getfl(fd).map_err(system("open"));
        let shared = vec![flags(&input)?, flags(&output)?];
        let mut port = Self::of_streams(input, output)?;
        port.shared = shared;
        Ok(port)
    }

    /// The standard input and output of a program that was started.
    ///
    /// # Errors
    /// If they can not be used without blocking.
    pub fn of_child(input: ChildStdin, output: ChildStdout) -> Result<Self, PortError> {
        Self::of_streams(output.into(), input.into())
    }

    /// A descriptor to read from and one to write to.
    ///
    /// # Errors
    /// If they can not be used without blocking.
    pub fn of_streams(input: OwnedFd, output: OwnedFd) -> Result<Self, PortError> {
        for fd in [&input, &output] {
            let flags = fcntl_getfl(fd).map_err(system("open"))?;
            fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(system("open"))?;
        }
        Ok(Self {
            input,
            output,
            shared: Vec::new(),
            serial: None,
            is_full: false,
        })
    }

    /// The line's speed, if it has one.
    #[must_use]
    pub fn baud(&self) -> Option<u32> {
        self.serial.as_ref().map(|serial| serial.baud)
    }

    /// Changes the line's speed. Bytes that wait in the driver may be lost.
    ///
    /// # Errors
    /// If there is no line, or it can not take the speed.
    pub fn set_baud(&mut self, baud: u32) -> Result<(), PortError> {
        let Some(serial) = &mut self.serial else {
            return Err(lost("it has no speed to set"));
        };
        serial
            .tty
            .set_baud_rate(baud)
            .map_err(|err| PortError::Setup {
                path: serial.path.clone(),
                baud,
                what: err.to_string(),
            })?;
        serial.baud = baud;
        Ok(())
    }

    /// How long the driver should be left alone because enough waits there.
    fn queue_excess(&self) -> Duration {
        let Some(serial) = &self.serial else {
            return Duration::ZERO;
        };
        // Where the driver does not tell, nothing is held back.
        let waiting = serial.tty.bytes_to_write().unwrap_or(0);
        let seconds = f64::from(waiting) * 10.0 / f64::from(serial.baud.max(1));
        Duration::from_secs_f64(seconds).saturating_sub(QUEUE_TIME)
    }

    /// Waits until bytes can be read, or written if that is wanted, or `also` is readable,
    /// or a signal comes, or the time is over.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn wait(
        &mut self,
        wants_write: bool,
        also: Option<BorrowedFd<'_>>,
        at_most: Duration,
    ) -> Result<Ready, PortError> {
        let asks_write = wants_write && !self.is_full;
        let mut limit = at_most;
        if wants_write && self.is_full {
            limit = limit.min(FULL_PAUSE);
            self.is_full = false;
        }
        let mut fds = vec![PollFd::new(&self.input, PollFlags::IN)];
        if asks_write {
            fds.push(PollFd::new(&self.output, PollFlags::OUT));
        }
        fds.extend(also.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&limit)) {
            // A signal: whoever waits looks at its flags.
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(system("wait for")(errno)),
        }
        // Hang-ups and errors are told by reading, after the bytes that still are there.
        Ok(Ready {
            read: !fds[0].revents().is_empty(),
            write: asks_write && !fds[1].revents().is_empty(),
        })
    }

    /// Reads what is there; 0 if nothing is.
    ///
    /// # Errors
    /// [`PortError::Lost`] at the end of the stream or when the port is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PortError> {
        loop {
            match rustix::io::read(&self.input, &mut *buffer) {
                Ok(0) => return Err(lost("the other end closed it")),
                Ok(n) => return Ok(n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(errno) => return Err(lost(io::Error::from(errno).to_string())),
            }
        }
    }

    /// Writes as much as is taken now, which may be nothing.
    ///
    /// # Errors
    /// [`PortError::Lost`] when the port is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, PortError> {
        let mut written = 0;
        while written < bytes.len() {
            let end = bytes.len().min(written + PIECE_BYTES);
            match rustix::io::write(&self.output, &bytes[written..end]) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(lost(io::Error::from(errno).to_string())),
            }
        }
        self.is_full = written < bytes.len();
        Ok(written)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        for (fd, flags) in [&self.input, &self.output].into_iter().zip(&self.shared) {
            // Nobody is left to tell.
            let _ = fcntl_setfl(fd, *flags);
        }
    }
}

#[cfg(test)]
mod tests;
