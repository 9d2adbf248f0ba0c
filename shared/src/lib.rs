//! What the host and the device agree on: how an image file becomes a tensor, what an
//! embedding is and how embeddings are ranked, and the files that travel between the two.
//!
//! This crate knows neither libtorch nor tract nor the serial port, and it has no clock:
//! everything here is a function of its input and gives the same bits on every machine.

#[cfg(target_endian = "big")]
compile_error!(
    "Eyas reads files as little-endian machines do and was never tested on a big-endian one: \
     it is not built for this target, rather than misread a gallery there"
);

pub mod fingerprint;
pub mod random;

pub mod preprocess;

pub mod embedding;
pub mod quant;

pub mod container;

pub mod bundle;
pub mod calibration;
pub mod gallery;
pub mod link;

pub mod timing;

pub mod files;
pub mod signature;
