//! `eyas`: the training host's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    eyas_host::cli::main()
}
