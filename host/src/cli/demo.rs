//! Placeholder.

use super::Answer;

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> anyhow::Result<Answer> {
    Ok(Answer::Yes)
}
