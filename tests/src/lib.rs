//! What the checks of `suite` share: where things lie, the two programs, temporary folders.

pub mod browser;
pub mod cable;
pub mod other_host;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("the package lies in the workspace")
        .to_owned()
}

/// A file or folder of the data beside the checkout; says so when it is absent.
#[must_use]
#[expect(clippy::print_stderr, reason = "the test runner counts these lines")]
pub fn beside(path: &str) -> Option<PathBuf> {
    let full = root().join("..").join("shared").join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: shared/{path} does not lie beside the checkout");
    None
}

/// A program of this workspace, built beside the tests.
///
/// # Panics
/// If it was not built: `cargo test --workspace` and `make test` build it.
#[must_use]
pub fn program(name: &str) -> Command {
    let tests = std::env::current_exe().expect("a test knows its own path");
    let folder = tests
        .ancestors()
        .nth(2)
        .expect("tests lie in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --bins` first",
        path.display()
    );
    let mut command = Command::new(path);
    command.current_dir(root());
    command
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program of this workspace to its end.
///
/// # Panics
/// If it can not be started.
pub fn run<A: AsRef<std::ffi::OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> Said {
    program(name)
        .args(args)
        .output()
        .expect("the program starts")
        .into()
}

/// Runs a program that has to succeed and returns its standard output.
///
/// # Panics
/// If it ends with another code than 0; the message holds what it said.
pub fn run_ok<A: AsRef<std::ffi::OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> String {
    let said = run(name, args);
    assert_eq!(said.code, Some(0), "{name} failed: {said:#?}");
    said.out
}
