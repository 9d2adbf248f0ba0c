//! What a bench session found: `results.json`, the record that reports are written from.
//!
//! It follows from the plan and what the board said, and from nothing else: computing it
//! again from a session's records gives the same bytes. Schema `eyas.session/1`; fields are
//! added, never renamed or given another unit. `_ms` are milliseconds, `_us` microseconds,
//! `unix_us` microseconds since 1970 by the host's clock, `bytes` bytes.

use std::path::Path;

use eyas_shared::timing::{Figures, Raised, Stage};
use serde::{Deserialize, Serialize};

use super::record::{self, RecordError};

/// Name of the schema.
pub const SCHEMA: &str = "eyas.session/1";

/// Name of the file in a session's folder.
pub const RESULTS_FILE: &str = "results.json";

/// Folder of a session's pictures: `ID.jpg` for each image of a query or match.
pub const PICTURES: &str = "pictures";

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// Name of the plan.
    pub name: String,
    /// Hash of the plan as it was resolved.
    pub plan: String,
    /// When the session began: `2026-11-21 20:28:24 UTC`.
    pub began: String,
    /// Name, version and commit of the host's program.
    pub host: String,
    /// How it was measured.
    pub protocol: Protocol,
    /// The board.
    pub board: Board,
    /// Images that asked.
    pub queries: Vec<QueryImage>,
    /// Galleries that were searched.
    pub galleries: Vec<GalleryFacts>,
    /// Students x precisions x threads x galleries, in the order of the plan.
    pub cells: Vec<Cell>,
    /// Links that broke and boards that started anew meanwhile, with what was done.
    pub incidents: Vec<String>,
}

/// How a session was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// `performance`, `accuracy` or `both`.
    pub mode: String,
    /// Windows of each cell.
    pub n_windows: usize,
    /// How often a window is measured again because it was flagged.
    pub n_retries: usize,
    /// A window lasts at least so long ...
    pub at_least_s: f64,
    /// ... and until so many queries were answered.
    pub at_least: usize,
    /// Time of queries that do not count, before each window.
    pub warm_up_s: f64,
    /// Images that are asked in turn within a window.
    pub n_window_images: usize,
    /// Matches per query.
    pub top_k: usize,
    /// Orders cells and windows.
    pub seed: u64,
    /// What was added to the clock of the power meter, if there was one.
    pub energy_offset_s: f64,
}

/// The board that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// The machine, as it calls itself; empty if it does not.
    pub model: String,
    /// Its processor.
    pub cpu: String,
    /// Cores in use.
    pub n_cores: usize,
    /// Architecture.
    pub architecture: String,
    /// Kernel.
    pub kernel: String,
    /// Memory.
    pub memory_bytes: u64,
    /// Swap space.
    pub swap_bytes: u64,
    /// Who sets the clock; empty if not known.
    pub governor: String,
    /// Highest clock.
    pub max_clock_mhz: Option<f64>,
    /// Name, version and commit of its program.
    pub program: String,
    /// Hash of its program.
    pub program_hash: String,
    /// Vector instructions of its matcher.
    pub matcher_kernel: String,
    /// How the host reached it.
    pub address: String,
}

/// An image that asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryImage {
    /// Identity: 32 hexadecimal digits, by which its picture is named.
    pub id: String,
    /// Its label.
    pub label: String,
    /// Its path within the data.
    pub name: String,
}

/// A gallery of the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GalleryFacts {
    /// Its name in the plan.
    pub name: String,
    /// Its file's size.
    pub bytes: u64,
    /// Its file's hash.
    pub hash: String,
    /// Rows.
    pub n_rows: usize,
    /// Labels.
    pub n_labels: usize,
    /// How rows are stored.
    pub codes: String,
    /// Who embedded it.
    pub teacher: String,
    /// Its rows in the plane of their two strongest principal components (PCA), for a map;
    /// at most some thousands, spread over all rows.
    pub map: Vec<MapPoint>,
    /// Share of the rows' variance that lies in that plane.
    pub map_share: f64,
}

/// A point of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapPoint {
    /// Label.
    pub label: String,
    /// First principal component.
    pub x: f32,
    /// Second one.
    pub y: f32,
}

/// One student of one precision with one number of threads in one gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Unique in the session: `student/precision/threads/gallery`.
    pub key: String,
    /// Name of the student.
    pub student: String,
    /// `f32`, `f16` or `int8`.
    pub precision: String,
    /// Threads that encode and search.
    pub threads: usize,
    /// Name of the gallery.
    pub gallery: String,
    /// The student's file.
    pub bundle: BundleFacts,
    /// None if it was not measured, or never came to a window.
    pub performance: Option<Performance>,
    /// None if it was not measured, or no query was answered.
    pub accuracy: Option<Accuracy>,
    /// The student's operators in the order of their running; empty if not asked for.
    pub operators: Vec<OperatorTime>,
    /// What failed, in words; empty if nothing did.
    pub failures: Vec<String>,
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BundleFacts {
    /// Its file's name.
    pub file: String,
    /// Its file's size.
    pub bytes: u64,
    /// Its file's hash.
    pub hash: String,
    /// Architecture.
    pub architecture: String,
    /// Weights.
    pub n_parameters: u64,
    /// Multiply-adds of one image.
    pub multiply_adds: u64,
    /// Height and width of the pixels that it reads.
    pub side: u32,
    /// Components of its embeddings.
    pub dim: u32,
}

/// How quick a cell is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// In the order of their measuring. Flagged ones stand here too, and count in no figure
    /// below as long as there are clean ones.
    pub windows: Vec<WindowResult>,
    /// Windows without a flag. If there are none, the figures are of flagged windows, and
    /// are not comparable.
    pub n_clean: usize,
    /// Of all queries of the windows that count, by stage; five entries.
    pub stages: Vec<StageFigures>,
    /// Median over those windows of a window's median total: the latency of this cell.
    pub median_ms: f64,
    /// Median over those windows of their 95 % quantile of the total.
    pub p95_ms: f64,
    /// Median over those windows of queries answered per second.
    pub queries_per_second: f64,
    /// From nothing to the first answer, one a process.
    pub cold_starts: Vec<ColdStart>,
    /// Most memory of a process with this student and gallery, over all processes, with the
    /// mapped files as far as they were touched.
    pub peak_bytes: u64,
    /// Of it, memory that no file stands behind.
    pub own_bytes: u64,
    /// Joules per query, if a power meter was read: median over the windows that count.
    pub joules_per_query: Option<f64>,
}

/// Times of one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageFigures {
    /// Which.
    pub stage: Stage,
    /// Quantiles.
    pub figures: Figures,
    /// How many queries took how long.
    pub histogram: Histogram,
}

/// Counts of times in bins of equal ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower edges in milliseconds, ascending, and the upper edge of the last bin: one more
    /// than bins.
    pub edges_ms: Vec<f64>,
    /// Samples in each bin; a sample at an edge is in the upper one.
    pub counts: Vec<u64>,
}

/// One window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowResult {
    /// Which round of the session, from 0.
    pub round: usize,
    /// When it began.
    pub began_unix_us: u64,
    /// How long it took.
    pub seconds: f64,
    /// Queries that were answered.
    pub n: usize,
    /// Times of whole queries.
    pub total: Figures,
    /// Why it does not count; empty if it does.
    pub flags: Vec<Raised>,
    /// Temperature before and after, in degrees Celsius.
    pub celsius: Option<[f64; 2]>,
    /// Slowest core's clock before and after.
    pub clock_mhz: Option<[f64; 2]>,
    /// Processing time of others, in cores.
    pub others: f64,
    /// Energy of the window, if a power meter was read.
    pub joules: Option<f64>,
}

/// From nothing to the first answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    /// Start of a process.
    pub start_ms: f64,
    /// Opening and checking both files.
    pub open_ms: f64,
    /// Building the student.
    pub load_ms: f64,
    /// The first query.
    pub first_query_ms: f64,
    /// Whether the files came from the disk, not from memory.
    pub is_from_disk: bool,
}

/// How often a cell is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Queries whose label the gallery has: those that means are over.
    pub n: usize,
    /// Queries without anything to find.
    pub n_without_relevant: usize,
    /// Share whose best match has their label.
    pub recall_at_1: f64,
    /// 95 % interval of it (bootstrap over queries).
    pub recall_at_1_interval: [f64; 2],
    /// With such a match among the best 5; none if fewer matches were asked for.
    pub recall_at_5: Option<f64>,
    /// With such a match among the best 10; none if fewer matches were asked for.
    pub recall_at_10: Option<f64>,
    /// See [`crate::evaluate::metrics::mean_average_precision_at_r`]; none if some label
    /// has more rows than matches were asked for.
    pub mean_average_precision_at_r: Option<f64>,
    /// Cosine of the board's embeddings with those of the same bundle on the host: smallest
    /// and mean.
    pub agreement: Agreement,
    /// In the order of [`Results::queries`].
    pub answers: Vec<QueryAnswer>,
    /// Queries that were not answered, by index, with the reason.
    pub failed: Vec<(usize, String)>,
    /// The curve that the bundle was calibrated with for this gallery; empty if it was not.
    pub reliability: Vec<ReliabilityBin>,
}

/// How near embeddings of board and host are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Smallest cosine.
    pub min_cosine: f64,
    /// Mean cosine.
    pub mean_cosine: f64,
    /// Queries whose first match is another on the host.
    pub n_other_first: usize,
}

/// One answered query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// Index into [`Results::queries`].
    pub query: usize,
    /// Rows of the gallery with its label, its own image left out; a query without any
    /// counts in no mean.
    pub n_relevant: usize,
    /// Rank from 0 of the first match with its label; none if no match has it.
    pub first_right: Option<usize>,
    /// Best first; the query's own image is left out.
    pub matches: Vec<Found>,
    /// `match`, `uncertain` or `unknown`; none without a calibration.
    pub verdict: Option<String>,
    /// Time of the whole query on the board.
    pub total_ms: f64,
    /// Place on the gallery's map.
    pub at: [f32; 2],
}

/// One match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Identity, by which its picture is named.
    pub id: String,
    /// Label.
    pub label: String,
    /// Score.
    pub score: f32,
}

/// A bin of a calibration's reliability curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lowest score; none for the first bin, which reaches down to everything.
    pub from: Option<f32>,
    /// Share of right first labels with its 95 % interval.
    pub probability: [f32; 3],
    /// Queries in the bin.
    pub n: u32,
}

/// One operator of a student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorTime {
    /// The layer of the ONNX file that it comes from.
    pub layer: String,
    /// What it computes.
    pub kind: String,
    /// Median time.
    pub median_us: f64,
    /// Share of all operators' time.
    pub share: f64,
}

impl Results {
    /// Reads a session's results.
    ///
    /// # Errors
    /// If the file can not be read, or holds something else.
    pub fn read(session: &Path) -> Result<Self, RecordError> {
        record::read(&session.join(RESULTS_FILE), SCHEMA, |it: &Self| &it.schema)
    }

    /// As the file holds it.
    ///
    /// # Panics
    /// Never: results have a JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("results have a JSON form") + "\n"
    }

    /// Whether something failed.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.cells.iter().any(|cell| {
            let unanswered = cell.accuracy.iter().any(|found| !found.failed.is_empty());
            !cell.failures.is_empty() || unanswered
        })
    }
}
