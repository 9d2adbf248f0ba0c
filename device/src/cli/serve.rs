//! `eyas-device serve`: answers a host over a serial line or standard input and output.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Answer;
use super::store::Folder;
use crate::bench::Edges;
use crate::port::BASE_BAUD;
use crate::serve::{Files, Source, Where, Work, serve};

#[derive(clap::Args)]
#[command(
    override_usage = "eyas-device serve <--port <PATH> [--baud <BAUD>]|--stdio> [--store <FOLDER>]
       eyas-device serve <--port <PATH> [--baud <BAUD>]|--stdio> --bundle <FILE> --gallery <FILE>",
    after_help = "Examples:
  eyas-device serve --port /dev/ttyGS0 --store /var/lib/eyas
  eyas-device serve --port /dev/ttyGS0 --bundle student.bundle --gallery shop.gallery
  ssh board eyas-device serve --stdio --bundle student.bundle --gallery shop.gallery

Without --bundle and --gallery the board's store is served, and can be pushed to."
)]
pub(super) struct Args {
    /// Serial port that the host is connected to.
    #[arg(
        long,
        value_name = "PATH",
        env = "EYAS_PORT",
        required_unless_present = "stdio"
    )]
    port: Option<PathBuf>,
    /// Speed of the port; a host may raise it for as long as it is connected.
    #[arg(long, value_name = "BAUD", env = "EYAS_BAUD", default_value_t = BASE_BAUD)]
    baud: u32,
    /// Serve standard input and output instead of a port, until the input ends.
    #[arg(long)]
    stdio: bool,
    #[command(flatten)]
    store: Folder,
    /// Serve this bundle instead of what the store holds; nothing can be pushed then.
    #[arg(
        long,
        value_name = "FILE",
        requires = "gallery",
        conflicts_with = "store"
    )]
    bundle: Option<PathBuf>,
    /// The gallery to go with --bundle.
    #[arg(long, value_name = "FILE", requires = "bundle")]
    gallery: Option<PathBuf>,
    /// Threads that encode and search; answers do not depend on their number.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    #[command(flatten)]
    edges: EdgeArgs,
}

/// Whom to tell when a measurement begins and ends, such as a power meter.
#[derive(clap::Args)]
#[command(next_help_heading = "Measuring energy")]
pub(super) struct EdgeArgs {
    /// File that gets `1` when a measured window begins and `0` when it ends: a pin's value.
    #[arg(long, value_name = "FILE")]
    edge_file: Option<PathBuf>,
    /// Command of the shell that is run with `begin` and with `end`.
    #[arg(long, value_name = "COMMAND")]
    edge_command: Option<String>,
}

impl EdgeArgs {
    pub(super) fn edges(&self) -> Edges {
        Edges {
            file: self.edge_file.clone(),
            command: self.edge_command.clone(),
        }
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<Answer> {
    let place = match args.port {
        Some(path) if !args.stdio => Where::Port(path, args.baud),
        _ => Where::Stdio,
    };
    let stop = Arc::new(AtomicBool::new(false));
    // A flag, not a mask: the serial crate waits with an empty one. Nothing is left
    // half-written by ending between two steps.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("could not listen for signals")?;
    }
    let work = Work {
        n_threads: args.threads.into(),
        edges: args.edges.edges(),
    };
    let source = match (args.bundle, args.gallery) {
        (Some(bundle), Some(gallery)) => Source::Files(Files { bundle, gallery }),
        _ => Source::Store(args.store.open()?),
    };
    serve(source, &place, work, &stop)?;
    Ok(Answer::Yes)
}
