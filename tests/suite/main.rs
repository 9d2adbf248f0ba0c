//! Checks that cross the crates.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not functions with #[test]"
)]

mod end_to_end;
mod gallery;
mod golden;
mod hostile;
mod losses;
mod resume;
mod runs;
mod sweep;
mod teachers;
mod tidy;
mod training;
