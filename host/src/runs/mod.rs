//! Run directories: what training writes there beside its weights, and reading it back.
//!
//! | file | what |
//! |---|---|
//! | `recipe.toml` | the recipe as it was understood, every key |
//! | `train.log` | what was trained on what, and a line for each epoch |
//! | `metrics.jsonl` | a line for each epoch, see [`EpochMetrics`] |
//! | `events.out.tfevents.eyas` | the same and more for TensorBoard, see [`events`] |
//!
//! Weights and checkpoints are not read here, and nothing here writes them.

pub mod events;
pub mod metrics;
pub mod record_file;
pub mod run;

pub use metrics::EpochMetrics;
pub use run::{Run, State, find};

/// Name of the log in a run directory.
pub const LOG_FILE: &str = "train.log";

/// Name of the resolved recipe in a run directory.
pub const RECIPE_FILE: &str = "recipe.toml";

/// Name of the file that a training process holds locked.
pub const LOCK_FILE: &str = "lock";

/// The log's last line once nothing is left to do.
pub const FINISHED: &str = "finished";

/// Largest log, metrics or event file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
