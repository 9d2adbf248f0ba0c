//! Checks that cross the crates.

mod end_to_end;
mod golden;
mod hostile;
mod tidy;
