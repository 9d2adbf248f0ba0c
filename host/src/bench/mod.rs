//! Field benchmarks: students on a board, measured over the link.
//!
//! A [`plan`] names students x precisions x threads x galleries. A [`session`] visits each
//! cell several times, in random order, and keeps what the board said ([`visit`]). The board
//! says what it found and how long that took; everything that is made of it, from recall to
//! flags of disturbed windows, is computed here ([`compute`]) into [`results`], which reports
//! are written from.

pub mod catalog;
pub mod compute;
pub mod energy;
mod map;
mod material;
pub mod measures;
mod pictures;
pub mod plan;
mod reach;
pub mod record;
pub mod results;
pub mod run;
pub mod session;
#[cfg(test)]
pub(crate) mod test_session;
pub mod visit;

/// Name, version and, where it was built with one, commit of this program.
#[must_use]
pub fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("EYAS_COMMIT") {
        Some(commit) if !commit.is_empty() => format!("eyas {version} ({commit})"),
        _ => format!("eyas {version}"),
    }
}
