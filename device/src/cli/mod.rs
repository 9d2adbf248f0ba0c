//! The command line: parsing and printing only. One file per subcommand.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 could not do it or not all of it.

mod info;
mod query;
mod selftest;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use eyas_shared::bundle::BundleError;
use eyas_shared::container::ContainerError;
use eyas_shared::gallery::GalleryError;

use crate::encoder::EncodeError;
use crate::store::StoreError;

/// Finds photographs in a gallery that a large model embedded, with a small one.
#[derive(Parser)]
#[command(
    name = "eyas-device",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find the gallery images that are most like each query image.
    Query(query::Args),
    /// Print what a bundle or gallery says of itself.
    Info(info::Args),
    /// Check that this machine computes what the host verified.
    Selftest(selftest::Args),
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done; the answer is yes.
    Yes,
    /// Done; the answer is no.
    No,
    /// Done with what could be done; the rest was reported.
    NotAll,
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Query(args) => query::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Selftest(args) => selftest::run(&args),
    };
    match outcome {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::NotAll) => ExitCode::from(2),
        Err(err) if is_broken_pipe(&err) => ExitCode::SUCCESS,
        Err(err) => {
            report_error(&err);
            ExitCode::from(2)
        }
    }
}

/// Whether nobody reads standard output any more, as behind `| head`.
fn is_broken_pipe(err: &anyhow::Error) -> bool {
    err.chain().any(|cause| {
        cause
            .downcast_ref::<OutputError>()
            .is_some_and(|OutputError(source)| source.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Standard output that can not be written to; a type of its own, so that a broken pipe
/// among the inputs is not taken for it.
#[derive(Debug, thiserror::Error)]
#[error("could not write to standard output: {0}")]
struct OutputError(#[source] io::Error);

/// Writes text to standard output at once, so that what was found is seen while the rest
/// is computed.
fn print(text: &str) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(OutputError)
}

#[expect(clippy::print_stderr, reason = "this is where errors reach the user")]
fn report_error(err: &anyhow::Error) {
    eprintln!("error: {err:#}");
    if let Some(hint) = hint(err) {
        eprintln!("\nhint: {hint}");
    }
}

/// What to do about an error, chosen by its type.
fn hint(err: &anyhow::Error) -> Option<&'static str> {
    err.chain().find_map(|cause| {
        if let Some(store) = cause.downcast_ref::<StoreError>() {
            return match store {
                StoreError::OtherSpace { .. } | StoreError::OtherDim { .. } => Some(
                    "build the gallery with the teacher that this student was trained from, or \
                     take the bundle of a student of the gallery's teacher; `eyas-device info` \
                     shows both",
                ),
                StoreError::NotAFile { .. } => Some("name the file itself"),
                StoreError::Empty { .. } => Some("copy the file again: the transfer was cut off"),
                StoreError::Bundle {
                    source: BundleError::Container(inner),
                    ..
                }
                | StoreError::Gallery {
                    source: GalleryError::Container(inner),
                    ..
                } => container_hint(inner),
                StoreError::Bundle { .. } | StoreError::Gallery { .. } => Some(COPY_AGAIN),
                _ => None,
            };
        }
        cause
            .downcast_ref::<ContainerError>()
            .and_then(container_hint)
            .or_else(|| {
                matches!(cause.downcast_ref(), Some(EncodeError::Operator { .. }))
                    .then_some("export the student again with `eyas export`")
            })
    })
}

const COPY_AGAIN: &str = "copy the file again from the host, or build it anew there";

fn container_hint(err: &ContainerError) -> Option<&'static str> {
    Some(match err {
        ContainerError::OtherKind { .. } => "`eyas-device info FILE` tells what a file is",
        ContainerError::TooNew { .. } | ContainerError::UnknownKind { .. } => {
            "install a newer eyas-device"
        }
        ContainerError::NotEyas { .. } => {
            "bundles come from `eyas export`, galleries from `eyas gallery build`"
        }
        _ => COPY_AGAIN,
    })
}

/// A number of bytes as people read it.
fn human_bytes(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (1024.0, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576.0, "MiB"),
        _ => (1_073_741_824.0, "GiB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn bytes_are_written_for_people() {
        let cases = [
            (7, "7 B"),
            (1024, "1.0 KiB"),
            (1_600_000, "1.5 MiB"),
            (3 << 30, "3.0 GiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(human_bytes(bytes), expected);
        }
    }

    #[test]
    fn only_a_broken_standard_output_ends_quietly() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&OutputError(broken()).into()));
        assert!(!is_broken_pipe(&broken().into()));
    }
}
