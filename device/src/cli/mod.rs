//! The command line: parsing and printing only. One file per subcommand.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 could not do it or not all of it.

mod bench;
mod gallery;
mod info;
mod query;
mod selftest;
mod serve;
mod store;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::hints::{self, human_bytes};

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
    /// Bring a gallery up to date.
    #[command(subcommand)]
    Gallery(gallery::Command),
    /// Check that this machine computes what the host verified.
    Selftest(selftest::Args),
    /// Measure how quick a student is on this machine, with real images.
    Bench(bench::Args),
    /// Answer a host over a serial line.
    Serve(serve::Args),
    Watch(watch::Args),
    /// Set up a store: once, on a new board.
    Init(store::InitArgs),
    /// Verify files, try them, and put them on trial.
    Install(store::InstallArgs),
    /// Keep what is on trial for good.
    Confirm(store::ConfirmArgs),
    /// Go back to what was served before.
    Rollback(store::RollbackArgs),
    /// Print what the store holds.
    Status(store::StatusArgs),
    /// Remove files that no generation needs.
    Clean(store::CleanArgs),
    #[command(hide = true, name = crate::slots::trial::SUBCOMMAND)]
    TryPair(store::TryArgs),
    #[command(hide = true, name = crate::bench::SUBCOMMAND)]
    MeasurePair,
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
    survive_size_limits();
    let outcome = match Cli::parse().command {
        Command::Query(args) => query::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Gallery(command) => gallery::run(command),
        Command::Selftest(args) => selftest::run(&args),
        Command::Serve(args) => serve::run(args),
        Command::Watch(args) => watch::run(&args),
        Command::Init(args) => store::init(&args),
        Command::Install(args) => store::install(&args),
        Command::Confirm(args) => store::confirm(&args),
        Command::Rollback(args) => store::rollback(&args),
        Command::Status(args) => store::status(&args),
        Command::Clean(args) => store::clean(&args),
        Command::TryPair(args) => store::try_pair(&args),
        Command::MeasurePair => bench::in_child(),
        Command::Bench(args) => bench::run(&args),
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

/// A write beyond a limit on the size of files gives an error, like one on a full disk; by
/// default the signal would end the program.
fn survive_size_limits() {
    // Without a handler the limit is as deadly as it was.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
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

/// Tells of an error; whether anybody reads it changes nothing.
fn report_error(err: &anyhow::Error) {
    let mut out = io::stderr().lock();
    let _ = writeln!(out, "error: {}", hints::chain_of(err.as_ref()));
    if let Some(hint) = err.chain().find_map(hints::of_cause) {
        let _ = writeln!(out, "\nhint: {hint}");
    }
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
    fn only_a_broken_standard_output_ends_quietly() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&OutputError(broken()).into()));
        assert!(!is_broken_pipe(&broken().into()));
    }
}
