//! What host and board say to each other about measurements.
//!
//! As in [`message`](super::message): variants and fields are appended, never reordered or
//! removed. The board says what it saw, in times and counters; what they amount to is for
//! others.

use serde::{Deserialize, Serialize};

/// Most images of one [`Window`].
pub const MAX_WINDOW_IMAGES: usize = 64;

/// Most samples of one window; one that would have more ends there.
pub const MAX_SAMPLES: usize = 1 << 18;

/// Samples of one [`Reply::Samples`](super::message::Reply::Samples).
pub const SAMPLES_PER_MESSAGE: usize = 400;

/// Components of one [`Reply::Embedding`](super::message::Reply::Embedding).
pub const COMPONENTS_PER_MESSAGE: usize = 2048;

/// Operators of one [`Reply::Operators`](super::message::Reply::Operators).
pub const OPERATORS_PER_MESSAGE: usize = 32;

/// Longest name of a layer or an operator, in bytes; longer ones are cut.
pub const MAX_OPERATOR_BYTES: usize = 120;

/// Longest window, in milliseconds, and longest warm-up.
pub const MAX_WINDOW_MS: u32 = 600_000;

/// Most threads of a candidate.
pub const MAX_THREADS: u16 = 64;

/// A student with a gallery that is to be measured, beside what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Hash of the bundle: one that serves, or that was sent.
    pub bundle: [u8; 32],
    /// Hash of the gallery.
    pub gallery: [u8; 32],
    /// Threads that encode and search, 1 to [`MAX_THREADS`].
    pub threads: u16,
}

/// A candidate that runs in a process of its own, from a cold start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// From the wish for a process to its first word, in nanoseconds.
    pub start_nanos: u64,
    /// To open and check both files, in nanoseconds.
    pub open_nanos: u64,
    /// To build the student, in nanoseconds.
    pub load_nanos: u64,
    /// Whether the files had to come from the disk: the system was asked to forget them.
    pub is_from_disk: bool,
}

/// What to measure in one go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Hashes of images that were sent, asked in turn; 1 to [`MAX_WINDOW_IMAGES`].
    pub images: Vec<[u8; 32]>,
    /// Matches per query.
    pub top_k: u16,
    /// Time that is spent on queries before any counts, at most [`MAX_WINDOW_MS`].
    pub warm_up_ms: u32,
    /// The window lasts at least so long, at most [`MAX_WINDOW_MS`] ...
    pub at_least_ms: u32,
    /// ... and until so many queries were answered.
    pub at_least: u32,
}

/// What the stages of one query took, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// File bytes to samples.
    pub decode: u64,
    /// Samples to the network's pixels.
    pub preprocess: u64,
    /// Pixels to the embedding.
    pub encode: u64,
    /// Embedding to matches and verdict.
    pub search: u64,
}

/// A board at one moment: counters since its start, and states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// The board's clock: microseconds since 1970, UTC.
    pub unix_micros: u64,
    /// Microseconds on a clock that never jumps.
    pub steady_micros: u64,
    /// Time that all cores together spent working, in microseconds.
    pub busy_micros: u64,
    /// Time that the machine under this one took, in microseconds.
    pub stolen_micros: u64,
    /// Time that the measuring process spent working, in microseconds.
    pub own_micros: u64,
    /// How often the measuring process had to make room for others.
    pub displaced: u64,
    /// Pages that the measuring process had to wait for the disk for.
    pub major_faults: u64,
    /// Pages that the system took back from swap.
    pub swapped_in: u64,
    /// How often the processor throttled itself, where it counts that.
    pub throttles: Option<u64>,
    /// How often a quota of processing time held the process up, where there is one.
    pub quota_waits: Option<u64>,
    /// What the firmware says of throttling (Raspberry Pi `get_throttled`).
    pub firmware_throttled: Option<u32>,
    /// The slowest core's clock in kHz, where the system says it.
    pub clock_khz: Option<u32>,
    /// The hottest zone's temperature in thousandths of a degree Celsius.
    pub temperature_millis: Option<i32>,
    /// Memory that is available, in bytes.
    pub memory_available: u64,
    /// The shortest of a few runs of a fixed chain of additions and multiplications, in
    /// nanoseconds: the clock as a program feels it, where no other says.
    pub pace_nanos: u64,
}

/// What a candidate's process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Most memory that it had, in bytes, with the files it mapped.
    pub peak_bytes: u64,
    /// Of it, memory that no file stands behind.
    pub own_bytes: u64,
}

/// What a board is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The machine, as it calls itself; empty if it does not.
    pub model: String,
    /// Its processor.
    pub cpu: String,
    /// Cores that are in use.
    pub n_cores: u16,
    /// Architecture, such as `aarch64`.
    pub architecture: String,
    /// Kernel and its version.
    pub kernel: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Swap space in bytes.
    pub swap_bytes: u64,
    /// Who sets the clock (`scaling_governor`); empty if the system does not say.
    pub governor: String,
    /// Highest clock in kHz, where the system says it.
    pub max_clock_khz: Option<u32>,
    /// Name, version and commit of the board's program.
    pub program: String,
    /// Hash of the board's program file; zeros if it can not be read.
    pub program_hash: [u8; 32],
    /// Vector instructions that the matcher uses.
    pub matcher_kernel: String,
}

/// What one operator of a student took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Name of its node, which begins with the layer's name in the ONNX file.
    pub node: String,
    /// What it computes.
    pub kind: String,
    /// Median time in nanoseconds.
    pub nanos: u64,
}
