//! The device: encodes query images with a student and finds them in a gallery.
//!
//! The host uses this library too, so that an export is checked and a student evaluated
//! with the very code that runs on the board.

pub mod answer;
pub mod bench;
pub mod encoder;
pub mod hints;
pub mod look;
pub mod matcher;
pub mod port;
pub mod selftest;
pub mod serve;
pub mod slots;
pub mod store;
pub mod update;
pub mod watch;

#[doc(hidden)]
pub mod cli;

mod wire;

#[cfg(test)]
mod test_data;
