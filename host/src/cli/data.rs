//! Placeholder.

use super::Answer;

#[derive(clap::Subcommand)]
pub(super) enum Command {}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {}
}
