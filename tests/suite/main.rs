//! Checks that cross the crates.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not functions with #[test]"
)]

// What the shared test data names as `crate::`.
use eyas_device::{encoder, selftest};

#[allow(dead_code, reason = "the tests of the device use the rest")]
#[path = "../../device/src/test_data.rs"]
mod test_data;

#[allow(dead_code, reason = "the tests of the host use the rest")]
#[path = "../../host/src/bench/test_session.rs"]
mod test_session;

mod bench;
mod board;
mod browser;
mod compare;
mod deltas;
mod desk;
mod end_to_end;
mod gallery;
mod golden;
mod hostile;
mod link;
mod losses;
mod report;
mod resume;
mod runs;
mod service;
mod sweep;
mod teachers;
mod tidy;
mod training;
mod whitening;
