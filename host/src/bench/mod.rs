//! Field benchmarks: students on a board, measured over the link.
//!
//! The board says what it found and how long that took; everything that is made of it, from
//! recall to flags of disturbed windows, is computed here.

pub mod measures;
pub mod results;

#[cfg(test)]
pub(crate) mod test_session;
