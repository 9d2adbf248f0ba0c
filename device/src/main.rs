//! `eyas-device`: the board's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    eyas_device::cli::main()
}
