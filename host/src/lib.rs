//! The training host: data, teachers, students, export, galleries, evaluation.
//!
//! Reading order of the main flow: [`data`] lists images, [`teacher`] and [`embeddings`]
//! embed them once, `learn` trains a student from that, [`export`] turns it into a bundle
//! that the device encoder has verified, [`evaluate`] scores it through the device's own
//! encoder and matcher, [`report`] shows what was found.

pub mod cli;

pub mod recipe;

pub mod data;
pub mod synth;

pub mod linear_algebra;
pub mod memory;

pub mod embeddings;
pub mod gallery;
pub mod teacher;

pub mod weights;
pub mod zoo;

#[cfg(feature = "torch")]
pub mod learn;
pub mod student;

pub mod export;

pub mod bench;
pub mod compare;
pub mod link;

pub mod calibrate;
pub mod evaluate;
pub mod report;

pub mod signing;
pub mod upgrade;

pub mod runs;
pub mod sweep;
