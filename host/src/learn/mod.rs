//! Training with libtorch. All of `tch` lives in this folder: plain Rust goes in and plain
//! Rust comes out, so the rest of the host builds and tests without libtorch.

mod compute;

mod embed;
mod network;

mod distance;
pub mod golden;
mod loss;
mod objective;

mod average;
mod freeze;
mod gradients;
mod loss_scale;
mod optimizer;
mod quantize;
mod schedule;

mod augment;
mod batches;
mod sampler;
mod targets;
mod tuples;

mod alignment;
mod torchscript;

mod checkpoint;
pub mod cost;
mod experiment;
mod measure;
mod run;
mod state;
mod trainer;

#[cfg(test)]
mod precision_tests;

pub use batches::{TrainingImage, TrainingSet};
pub use checkpoint::CheckpointError;
pub use compute::{Compute, ComputeChoice, ComputeError};
pub use measure::{Speed, Window, measure};
pub use run::{Inputs, LearnError, TeacherOf, checkpoint_path, train_student, train_teacher};
pub use torchscript::{ScriptError, ScriptNetwork};
pub use trainer::Watch;
