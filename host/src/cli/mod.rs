//! The command line: parsing and printing only. One file per subcommand.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 could not do it or not all of it.

mod bench;
mod bench_training;
mod board;
mod calibrate;
mod compare;
mod data;
mod demo;
mod embed;
mod evaluate;
mod export;
mod gallery;
mod keys;
mod loss_cost;
mod losses;
mod report;
mod runs;
mod sign;
mod sweep;
mod teacher;
mod teacher_script;
mod teacher_train;
mod train;
mod upgrade;
mod zoo;

mod progress;
#[cfg(feature = "torch")]
mod run_lock;
#[cfg(feature = "torch")]
mod run_log;
mod training;

use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::bench::plan::PlanError;
use crate::bench::session::SessionError;
use crate::data::DataError;
use crate::embeddings::cache::EmbedError;
use crate::recipe::RecipeError;
use crate::report::select::LimitError;
use crate::sweep::SweepError;
use crate::teacher::TeacherError;
use crate::weights::WeightsError;

pub use progress::Progress;

/// Shrinks an image-retrieval model into one for a small board, which searches the gallery
/// that the large one embedded.
#[derive(Parser)]
#[command(name = "eyas", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// What a variant says of itself would hide what its arguments say at more length: only those
// without a text of their own have one.
#[derive(Subcommand)]
enum Command {
    /// Check a data set, or render one.
    #[command(subcommand)]
    Data(data::Command),
    /// Make a teacher: import networks or embeddings, or train one.
    #[command(subcommand)]
    Teacher(teacher::Command),
    Embed(embed::Args),
    Train(train::Args),
    BenchTraining(bench_training::Args),
    /// Explain the losses, check them against published implementations, or time them.
    #[command(subcommand)]
    Losses(losses::Command),
    Zoo(zoo::Args),
    Export(export::Args),
    /// Build and inspect galleries.
    #[command(subcommand)]
    Gallery(gallery::Command),
    Evaluate(evaluate::Args),
    Calibrate(calibrate::Args),
    /// Make or show the keys with which files for boards are signed.
    #[command(subcommand)]
    Keys(keys::Command),
    Sign(sign::Args),
    /// Decide about a new student before it goes on boards.
    #[command(subcommand)]
    Upgrade(upgrade::Command),
    /// List, show and compare runs.
    #[command(subcommand)]
    Runs(runs::Command),
    Compare(compare::Args),
    Sweep(sweep::Args),
    Report(report::Args),
    Demo(demo::Args),
    /// List serial ports, and why one can not be used.
    Ports(board::ports::Args),
    /// Show what a board is and serves.
    Info(board::info::Args),
    /// Send a bundle or a gallery to a board and let it serve.
    Push(board::push::Args),
    /// Fetch what a board serves, or results that nobody has read.
    Pull(board::pull::Args),
    /// Let a board serve again what it served before.
    Rollback(board::rollback::Args),
    /// Ask a board what an image shows.
    Query(board::query::Args),
    /// Find out what is wrong between this machine and a board.
    Doctor(board::doctor::Args),
    Bench(bench::Args),
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
    end_cleanly_when_interrupted();
    match run(Cli::parse()) {
        // Already reported: the answer did not arrive whole.
        Ok(_) if OUTPUT_LOST.load(Ordering::Relaxed) => ExitCode::from(2),
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(err) => {
            report_error(&err);
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Answer> {
    match cli.command {
        Command::Data(command) => data::run(command),
        Command::Teacher(command) => teacher::run(command),
        Command::Embed(args) => embed::run(&args),
        Command::Train(args) => train::run(&args),
        Command::BenchTraining(args) => bench_training::run(&args),
        Command::Losses(command) => losses::run(command),
        Command::Zoo(args) => zoo::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Gallery(command) => gallery::run(command),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Keys(command) => keys::run(command),
        Command::Sign(args) => sign::run(&args),
        Command::Upgrade(command) => upgrade::run(command),
        Command::Runs(command) => runs::run(command),
        Command::Compare(args) => compare::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Ports(args) => board::ports::run(&args),
        Command::Info(args) => board::info::run(&args),
        Command::Push(args) => board::push::run(&args),
        Command::Pull(args) => board::pull::run(&args),
        Command::Rollback(args) => board::rollback::run(&args),
        Command::Query(args) => board::query::run(&args),
        Command::Doctor(args) => board::doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// Runs a command line within a test, for what only a test can make.
#[cfg(all(test, feature = "torch"))]
pub(crate) fn run_words(words: &[&str]) -> anyhow::Result<Answer> {
    run(Cli::try_parse_from([&["eyas"], words].concat())?)
}

/// On Ctrl-C and its like: removes half-written files and ends. Nothing else of the program
/// is taken down first: libtorch's threads do not survive the end of its globals.
fn end_cleanly_when_interrupted() {
    let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) else {
        return;
    };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eyas_shared::files::remove_unfinished();
            signal_hook::low_level::exit(128 + signal);
        }
    });
}

/// Set once standard output can not be written to: what follows is not printed.
static OUTPUT_ENDED: AtomicBool = AtomicBool::new(false);

/// Set if that had another reason than a reader who has seen enough, such as `head`.
static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Prints one line of a command's result.
///
/// A reader that has gone away ends the printing, not the work: a training goes on.
fn say(line: &str) {
    say_raw(&format!("{line}\n"));
}

/// Prints a part of a command's result as it is; otherwise like [`say`].
fn say_raw(text: &str) {
    if OUTPUT_ENDED.load(Ordering::Relaxed) {
        return;
    }
    let mut out = std::io::stdout().lock();
    let Err(err) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) else {
        return;
    };
    OUTPUT_ENDED.store(true, Ordering::Relaxed);
    if err.kind() != std::io::ErrorKind::BrokenPipe {
        OUTPUT_LOST.store(true, Ordering::Relaxed);
        note(&format!(
            "error: could not write to standard output: {err}; the work goes on"
        ));
    }
}

/// Whether something that was printed did not arrive, for whatever reason.
fn is_output_lost() -> bool {
    OUTPUT_ENDED.load(Ordering::Relaxed)
}

/// Tells of something beside a command's result; whether anybody reads it changes nothing.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn report_error(err: &anyhow::Error) {
    note(&format!(
        "error: {}",
        eyas_device::hints::chain_of(err.as_ref())
    ));
    if let Some(hint) = err.chain().find_map(hint_of_cause) {
        note(&format!("\nhint: {hint}"));
    }
}

/// What to do about one error of a chain of causes, chosen by its type.
fn hint_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Cow<'static, str>> {
    let of_recipe = match cause.downcast_ref() {
        Some(RecipeError::Syntax { suggestion, .. }) => suggestion.as_ref(),
        _ => None,
    };
    let of_sweep = match cause.downcast_ref() {
        Some(SweepError::Syntax { suggestion, .. }) => suggestion.as_ref(),
        _ => None,
    };
    let of_plan = match cause.downcast_ref() {
        Some(PlanError::Syntax { suggestion, .. }) => suggestion.as_ref(),
        _ => None,
    };
    let suggestion = of_recipe.or(of_sweep).or(of_plan);
    if let Some(name) = suggestion {
        return Some(format!("did you mean `{name}`?").into());
    }
    if let Some(LimitError::Name { suggestion, .. }) = cause.downcast_ref() {
        return Some(match suggestion {
            Some(name) => format!("did you mean `{name}`?").into(),
            None => "`eyas report --help` lists the measures".into(),
        });
    }
    if let Some(found) = cause
        .downcast_ref()
        .and_then(crate::link::diagnosis::of_error)
    {
        return Some(format!("{}: {}", found.cause, found.remedy).into());
    }
    host_hint(cause)
        .or_else(|| eyas_device::hints::of_cause(cause))
        .map(Cow::Borrowed)
}

fn host_hint(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(session) = cause.downcast_ref::<SessionError>() {
        return session_hint(session);
    }
    if let Some(data) = cause.downcast_ref::<DataError>() {
        return data_hint(data);
    }
    // A type that hands its source through hides that source from the chain.
    let teacher = match cause.downcast_ref() {
        Some(EmbedError::Teacher(teacher)) => Some(teacher),
        _ => cause.downcast_ref::<TeacherError>(),
    };
    if let Some(TeacherError::NoNetwork { .. }) = teacher {
        return Some(
            "`eyas teacher import NETWORK.onnx` makes a teacher that embeds any image; this \
             one serves only the images that its embeddings were made of",
        );
    }
    #[cfg(feature = "torch")]
    if let Some(hint) = learn_hint(cause) {
        return Some(hint);
    }
    weights_hint(cause.downcast_ref::<WeightsError>()?)
}

fn session_hint(err: &SessionError) -> Option<&'static str> {
    match err {
        SessionError::Exists { .. } => Some("go on with it by `--resume`, or name another folder"),
        SessionError::Busy { .. } => Some("wait until it is done, or end it"),
        SessionError::Other { .. } => Some("without `--resume` a new session begins"),
        SessionError::Visit(_) => {
            Some("remove that file and go on with `--resume`: the visit is made again")
        }
        SessionError::Nothing { .. } => Some("results stay as they are; measure with `--resume`"),
        SessionError::Catalog(_) => {
            Some("name the folder of a session, such as `sessions/20261121_202824`")
        }
        _ => None,
    }
}

fn data_hint(err: &DataError) -> Option<&'static str> {
    match err {
        DataError::Missing { .. } => {
            Some("check the path; a relative one starts at the current folder")
        }
        DataError::NoImages { .. } => Some("`eyas data check --help` shows what data can be"),
        DataError::Line { .. } | DataError::NotUtf8 { .. } | DataError::FolderTwice { .. } => {
            Some("`eyas data check` names all faults of the data at once")
        }
        // These say what to do, or their causes do.
        _ => None,
    }
}

#[cfg(feature = "torch")]
fn learn_hint(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    use crate::learn::{CheckpointError, ComputeError, LearnError};
    if cause.is::<ComputeError>() {
        return Some(
            "leave --compute away to train on the CPU, or run with a libtorch that has its CUDA \
             part beside a GPU and its driver",
        );
    }
    let checkpoint = match cause.downcast_ref() {
        Some(LearnError::Weights(weights)) => return weights_hint(weights),
        Some(LearnError::Checkpoint(checkpoint)) => checkpoint,
        _ => cause.downcast_ref::<CheckpointError>()?,
    };
    match checkpoint {
        CheckpointError::OtherExperiment { .. } => {
            Some("choose another run directory, or remove the checkpoint to begin anew")
        }
        CheckpointError::Damaged { .. } => Some("remove the checkpoint to begin anew"),
        _ => None,
    }
}

fn weights_hint(err: &WeightsError) -> Option<&'static str> {
    match err {
        WeightsError::Missing { .. }
        | WeightsError::Shape { .. }
        | WeightsError::Foreign { .. } => Some(
            "these are the weights of another architecture: name a matching file, or change \
             `architecture`",
        ),
        WeightsError::Format { .. } => {
            Some("download or copy the file again; only safetensors files are read")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(err: impl Into<anyhow::Error>) -> String {
        let err: anyhow::Error = err.into();
        let err = err.context("on the way");
        err.chain()
            .find_map(hint_of_cause)
            .unwrap_or_default()
            .into_owned()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn hints_are_found_behind_types_that_hand_their_source_through() {
        let teacher = TeacherError::NoNetwork {
            teacher: "t".to_owned(),
            n_images: 3,
        };
        assert!(hint(EmbedError::Teacher(teacher)).contains("eyas teacher import"));
        let file = eyas_shared::files::FileError {
            action: "read",
            path: "x".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        assert!(hint(DataError::File(file)).contains("check the path"));
    }

    #[cfg(feature = "torch")]
    #[test]
    fn weights_and_checkpoints_that_do_not_fit_have_a_hint() {
        use crate::learn::{CheckpointError, LearnError};
        let missing = || WeightsError::Missing {
            name: "head.bias".to_owned(),
        };
        assert!(hint(missing()).contains("architecture"));
        assert_eq!(hint(LearnError::Weights(missing())), hint(missing()));
        let other = CheckpointError::OtherExperiment {
            path: "x".to_owned(),
            changes: Vec::new(),
        };
        assert!(hint(LearnError::Checkpoint(other)).contains("another run directory"));
    }
}
