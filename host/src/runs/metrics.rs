//! `metrics.jsonl`: a JSON object on a line for each epoch.

use std::path::Path;

use eyas_shared::files::{self, FileError};
use serde::{Deserialize, Serialize};

use super::MAX_FILE_BYTES;

/// Name of the file in a run directory.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// One line: an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean over the epoch's batches.
    pub loss: f64,
    /// On the held-out part; null if there is none.
    pub validation_recall_at_1: Option<f64>,
    /// Since the epoch, or the process, began.
    pub seconds: f64,
}

/// The epochs in a run directory; none if there is no such file. A line that is none, such
/// as one that was cut, is left out.
///
/// # Errors
/// If the file can not be read.
pub fn read(folder: &Path) -> Result<Vec<EpochMetrics>, FileError> {
    let path = folder.join(METRICS_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = files::read(&path, MAX_FILE_BYTES)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines();
    Ok(lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// The file's text up to an epoch: a run that goes on there writes the rest again.
///
/// # Errors
/// If the file can not be read.
///
/// # Panics
/// Never: numbers have a JSON form.
pub fn cut_after(folder: &Path, epoch: usize) -> Result<String, FileError> {
    let epochs = read(folder)?.into_iter();
    Ok(epochs
        .filter(|metrics| metrics.epoch <= epoch)
        .map(|metrics| metrics.line())
        .collect())
}

impl EpochMetrics {
    /// The line with its end.
    ///
    /// # Panics
    /// Never: numbers have a JSON form.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("numbers have a JSON form") + "\n"
    }
}
