//! What a sweep keeps of each cell: one JSON file, replaced as a whole.

use std::path::Path;

use eyas_shared::bundle::Precision;
use eyas_shared::files::{self, FileError};
use serde::{Deserialize, Serialize};

use crate::evaluate::Scores;

/// Name of the record in the cell's folder.
pub const RECORD_FILE: &str = "cell.json";

const SCHEMA: &str = "eyas.cell/1";

const MAX_BYTES: u64 = 16 << 20;

/// The gallery that was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Embedded by the teacher.
    Asymmetric,
    /// Embedded by the student itself.
    Symmetric,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asymmetric => "asymmetric",
            Self::Symmetric => "symmetric",
        })
    }
}

/// Means over the queries, as `eyas evaluate` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// Share of queries whose best match is relevant.
    pub recall_at_1: f64,
    /// With a relevant image among the best 5.
    pub recall_at_5: f64,
    /// With a relevant image among the best 10.
    pub recall_at_10: f64,
    /// See [`crate::evaluate::metrics::mean_average_precision_at_r`].
    pub mean_average_precision_at_r: f64,
}

impl From<Scores> for Means {
    fn from(scores: Scores) -> Self {
        Self {
            recall_at_1: scores.recall_at_1,
            recall_at_5: scores.recall_at_5,
            recall_at_10: scores.recall_at_10,
            mean_average_precision_at_r: scores.mean_average_precision_at_r,
        }
    }
}

/// A bundle's score in one gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Name of the gallery.
    pub gallery: String,
    /// Who embedded it.
    pub mode: Mode,
    /// How the bundle stores its weights.
    pub precision: Precision,
    /// Size of the bundle.
    pub bundle_bytes: usize,
    /// What was found.
    pub means: Means,
}

/// The teacher's own score in a gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Name of the gallery.
    pub gallery: String,
    /// Images that asked.
    pub n_queries: usize,
    /// Images that were searched.
    pub n_gallery: usize,
    /// What was found.
    pub means: Means,
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    schema: String,
    /// Names all that the scores follow from: recipe, teacher, data, galleries, precisions.
    pub fingerprint: String,
    /// Name of the student.
    pub student: String,
    /// Name of the loss.
    pub loss: String,
    /// The recipe's seed.
    pub seed: u64,
    /// Weights of the network; 0 if it was never trained to the end.
    pub n_parameters: u64,
    /// Multiply-adds of one image; 0 if it was never trained to the end.
    pub multiply_adds: u64,
    /// By gallery, mode and precision.
    pub scores: Vec<Score>,
    /// What failed; empty if the cell is done.
    pub failures: Vec<String>,
}

impl CellRecord {
    /// A record without scores.
    #[must_use]
    pub fn new(cell: &super::Cell, fingerprint: String) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            fingerprint,
            student: cell.student.clone(),
            loss: cell.loss.clone(),
            seed: cell.recipe.seed,
            n_parameters: 0,
            multiply_adds: 0,
            scores: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// The record in a cell's folder, if it is one of this very cell.
    #[must_use]
    pub fn read(folder: &Path, fingerprint: &str) -> Option<Self> {
        let bytes = files::read(&folder.join(RECORD_FILE), MAX_BYTES).ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        (record.is_of_this_version() && record.fingerprint == fingerprint).then_some(record)
    }

    /// Whether its fields are those that this program knows.
    pub(super) fn is_of_this_version(&self) -> bool {
        self.schema == SCHEMA
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.failures.is_empty()
    }

    /// Puts the record into a cell's folder, replacing an older one.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// Never: a record has a JSON form.
    pub fn save(&self, folder: &Path) -> Result<(), FileError> {
        files::create_folder(folder)?;
        let json = serde_json::to_string_pretty(self).expect("a record has a JSON form");
        files::replace(&folder.join(RECORD_FILE), (json + "\n").as_bytes())
    }
}
