//! The command line: parsing and printing only. One file per subcommand.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 could not do it or not all of it.

mod data;
mod demo;
mod embed;
mod evaluate;
mod export;
mod gallery;
mod teacher;
mod teacher_train;
mod train;

mod progress;
#[cfg(feature = "torch")]
mod run_log;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use progress::Progress;

/// Shrinks an image-retrieval model into one for a small board, which searches the gallery
/// that the large one embedded.
#[derive(Parser)]
#[command(name = "eyas", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a data set, or render one.
    #[command(subcommand)]
    Data(data::Command),
    /// Make a teacher: import networks or embeddings, or train one.
    #[command(subcommand)]
    Teacher(teacher::Command),
    /// Embed images with a teacher, once.
    Embed(embed::Args),
    /// Train a student from a recipe.
    Train(train::Args),
    /// Turn a trained student into bundles that the device encoder has verified.
    Export(export::Args),
    /// Build and inspect galleries.
    #[command(subcommand)]
    Gallery(gallery::Command),
    /// Score a bundle against a gallery with labelled queries.
    Evaluate(evaluate::Args),
    /// Run the whole flow on rendered shelves and write a report.
    Demo(demo::Args),
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done; the answer is yes.
    Yes,
    /// Done; the answer is no.
    No,
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    // Half-written files are removed; an answer nobody waits for is not given.
    let _ = ctrlc::set_handler(interrupted);
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Data(command) => data::run(command),
        Command::Teacher(command) => teacher::run(command),
        Command::Embed(args) => embed::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Gallery(command) => gallery::run(command),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Demo(args) => demo::run(&args),
    };
    match outcome {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(err) => {
            report_error(&err);
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::exit, reason = "the handler of a signal ends the program")]
fn interrupted() {
    eyas_shared::files::remove_unfinished();
    std::process::exit(130);
}

/// Prints one line of a command's result. A reader that has gone away, such as `head`, ends
/// the program quietly.
#[expect(clippy::exit, reason = "nobody reads on")]
fn say(line: &str) {
    if let Err(err) = writeln!(std::io::stdout(), "{line}") {
        let code = if err.kind() == std::io::ErrorKind::BrokenPipe {
            0
        } else {
            note(&format!("error: could not write to standard output: {err}"));
            2
        };
        eyas_shared::files::remove_unfinished();
        std::process::exit(code);
    }
}

/// Tells of something beside a command's result.
#[expect(clippy::print_stderr, reason = "this is where notes reach the user")]
fn note(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::print_stderr, reason = "this is where errors reach the user")]
fn report_error(err: &anyhow::Error) {
    eprintln!("error: {err:#}");
    if let Some(hint) = hint(err) {
        eprintln!("\nhint: {hint}");
    }
}

/// What to do about an error, chosen by its type.
fn hint(err: &anyhow::Error) -> Option<String> {
    err.chain().find_map(|cause| {
        if let Some(file) = cause.downcast_ref::<eyas_shared::files::FileError>() {
            return file.is_out_of_space().then(|| {
                "free some space or choose another folder; nothing was overwritten".into()
            });
        }
        if let Some(crate::recipe::RecipeError::Syntax {
            suggestion: Some(name),
            ..
        }) = cause.downcast_ref()
        {
            return Some(format!("did you mean `{name}`?"));
        }
        None
    })
}
