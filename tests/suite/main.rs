//! Checks that cross the crates.

mod tidy;
