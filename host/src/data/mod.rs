//! Data.
pub mod manifest;
