//! Commands that talk to a board, and what their command lines have in common.

pub(super) mod doctor;
pub(super) mod info;
pub(super) mod ports;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod query;
pub(super) mod rollback;

use std::path::PathBuf;
use std::time::Duration;

use eyas_device::hints::human_bytes;
use eyas_device::port::{BASE_BAUD, SPEEDS};
use eyas_shared::link::message::{Ask, Info, Reply};

use crate::link::{Address, Client, ClientError, Options};

/// Speeds of old consoles, which a board may be set to as well.
const SLOW_SPEEDS: [u32; 4] = [57_600, 38_400, 19_200, 9600];

/// How long a board that listens may take to answer: its line never waits for its work.
const OTHER_SPEED_PATIENCE: Duration = Duration::from_millis(700);

/// Where the board is.
#[derive(clap::Args)]
#[command(next_help_heading = "Board")]
pub(super) struct BoardArgs {
    /// Serial port that leads to the board; the only usable one if none is named.
    #[arg(long, value_name = "PATH", env = "EYAS_PORT")]
    port: Option<PathBuf>,
    /// Speed that the board listens at.
    #[arg(long, value_name = "BAUD", env = "EYAS_BAUD", default_value_t = BASE_BAUD)]
    baud: u32,
    /// Speed to raise the line to for this session; goes back by itself if that fails.
    #[arg(long, value_name = "BAUD", env = "EYAS_FAST_BAUD")]
    fast_baud: Option<u32>,
    /// Command whose standard input and output lead to the board, instead of a port.
    #[arg(long, value_name = "COMMAND", env = "EYAS_STDIO_COMMAND")]
    stdio_command: Option<String>,
    /// Seconds to wait for a board that does not answer.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
    /// Record all bytes in both directions, for `eyas doctor --replay`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl BoardArgs {
    /// Where the board is and how to begin, or what a file says where nothing is named here.
    ///
    /// # Errors
    /// As `address` of the file.
    pub(super) fn or(
        &self,
        address: impl FnOnce() -> Result<Address, ClientError>,
        options: Options,
    ) -> Result<(Address, Options), ClientError> {
        let named = self.stdio_command.is_some() || self.port.is_some();
        let address = if named { self.address()? } else { address()? };
        let raise_to = self.fast_baud.or(options.raise_to);
        let options = Options {
            raise_to,
            ..self.options()
        };
        Ok((address, options))
    }

    fn address(&self) -> Result<Address, ClientError> {
        match (&self.stdio_command, &self.port) {
            (Some(command), _) => Ok(Address::Command(command.clone())),
            (None, Some(path)) => Ok(Address::serial(path, self.baud)),
            (None, None) => Address::only_one(self.baud),
        }
    }

    fn options(&self) -> Options {
        Options {
            patience: Duration::from_secs(self.wait),
            raise_to: self.fast_baud,
            record: self.record.clone(),
        }
    }

    /// The speed of the port at which a board answers that does not at the one that is asked
    /// for.
    fn other_speed(&self) -> Option<u32> {
        let Ok(Address::Serial { path, baud: asked }) = self.address() else {
            return None;
        };
        let options = Options {
            patience: OTHER_SPEED_PATIENCE,
            raise_to: None,
            record: None,
        };
        let answers = |baud: &u32| {
            let path = path.clone();
            let client = Client::connect(&Address::Serial { path, baud: *baud }, &options);
            client.map(leave).is_ok()
        };
        let speeds = SPEEDS.into_iter().chain(SLOW_SPEEDS);
        speeds.filter(|baud| *baud != asked).find(answers)
    }

    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.address()?, &self.options())
    }
}

/// Ends a session. What was asked is answered: a farewell that is lost changes nothing.
fn leave(client: Client) {
    let _ = client.leave();
}

fn ask_info(client: &mut Client) -> Result<Info, ClientError> {
    let asked = "what it serves";
    match client.ask(asked, Ask::Info)? {
        Reply::Info(info) => Ok(info),
        _ => Err(ClientError::Answer { asked }),
    }
}

/// The student that serves, in one line.
fn student_line(info: &Info) -> String {
    info.student.as_ref().map_or_else(none, |student| {
        format!(
            "{} ({}, {} components, {}, {})",
            student.name,
            student.precision,
            student.dim,
            human_bytes(student.file.bytes),
            student.file.fingerprint().short()
        )
    })
}

/// The gallery that serves, in one line.
fn gallery_line(info: &Info) -> String {
    info.gallery.as_ref().map_or_else(none, |gallery| {
        format!(
            "{} rows, {} labels, by {} ({}, {})",
            gallery.n_rows,
            gallery.n_labels,
            gallery.teacher,
            human_bytes(gallery.file.bytes),
            gallery.file.fingerprint().short()
        )
    })
}

fn none() -> String {
    "none".to_owned()
}
