//! The files of a run directory that are written while training: `recipe.toml` (resolved),
//! `log.txt`, `metrics.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use serde::{Deserialize, Serialize};

use super::Progress;
use crate::learn::Watch;
use crate::recipe::Recipe;

const MAX_METRICS_BYTES: u64 = 1 << 30;

/// One line of `metrics.jsonl`: an epoch.
#[derive(Debug, Serialize, Deserialize)]
struct EpochMetrics {
    epoch: usize,
    /// Mean over the epoch's batches (those since the last start, if it was resumed).
    loss: f64,
    /// On the held-out part; null if there is none.
    validation_recall_at_1: Option<f64>,
    seconds: f64,
}

/// Writes a run's files and shows its progress.
pub(super) struct RunLog {
    folder: PathBuf,
    recipe: String,
    log: File,
    metrics: Option<File>,
    progress: Option<Progress>,
    /// The first file that could not be written; training went on without it.
    fault: Option<FileError>,
}

impl RunLog {
    /// Opens the log of a run, new or gone on with.
    pub(super) fn open(
        folder: &Path,
        recipe: &Recipe,
        facts: &[(&str, String)],
    ) -> Result<Self, FileError> {
        files::create_folder(folder)?;
        let path = folder.join("log.txt");
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let mut run_log = Self {
            folder: folder.to_owned(),
            recipe: recipe.resolved(),
            log: log.map_err(FileError::because("write", &path))?,
            metrics: None,
            progress: None,
            fault: None,
        };
        for (name, value) in facts {
            run_log.say(&format!("{name}: {value}"));
        }
        Ok(run_log)
    }

    /// Adds a line to `log.txt`.
    fn say(&mut self, line: &str) {
        let written = writeln!(self.log, "{line}");
        self.remember(written.map_err(FileError::because("write", &self.folder.join("log.txt"))));
    }

    fn remember(&mut self, outcome: Result<(), FileError>) {
        if let Err(fault) = outcome {
            self.fault.get_or_insert(fault);
        }
    }

    /// Ends the log.
    ///
    /// # Errors
    /// If some of it could not be written on the way.
    pub(super) fn finish(self) -> Result<(), FileError> {
        self.fault.map_or(Ok(()), Err)
    }

    fn open_metrics(&self, finished_epochs: usize) -> Result<File, FileError> {
        let path = self.folder.join("metrics.jsonl");
        let old = if path.exists() {
            files::read(&path, MAX_METRICS_BYTES)?
        } else {
            Vec::new()
        };
        let kept: String = String::from_utf8_lossy(&old)
            .lines()
            .filter(|line| {
                serde_json::from_str::<EpochMetrics>(line)
                    .is_ok_and(|metrics| metrics.epoch <= finished_epochs)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        files::replace(&path, kept.as_bytes())?;
        let opened: io::Result<File> = OpenOptions::new().append(true).open(&path);
        opened.map_err(FileError::because("write", &path))
    }
}

impl Watch for RunLog {
    fn started(&mut self, step: usize, n_steps: usize, per_epoch: usize) {
        // Only now is it known that the folder holds no other experiment.
        let recipe = files::replace(&self.folder.join("recipe.toml"), self.recipe.as_bytes());
        self.remember(recipe);
        match self.open_metrics(step / per_epoch) {
            Ok(file) => self.metrics = Some(file),
            Err(fault) => self.remember(Err(fault)),
        }
        self.say(&format!("start: step {step} of {n_steps}"));
        self.progress = Some(Progress::new("training", n_steps - step));
    }

    fn stepped(&mut self, step: usize, loss: f64, rate: f64) {
        if let Some(progress) = &self.progress {
            progress.step();
            if step.is_multiple_of(10) {
                progress.say(format!("training, loss {loss:.4}, rate {rate:.1e}"));
            }
        }
    }

    fn epoch_ended(
        &mut self,
        epoch: usize,
        loss: f64,
        validation_recall_at_1: Option<f64>,
        seconds: f64,
    ) {
        let metrics = EpochMetrics {
            epoch,
            loss,
            validation_recall_at_1,
            seconds,
        };
        if let (Some(file), Ok(line)) = (&mut self.metrics, serde_json::to_string(&metrics)) {
            let written = writeln!(file, "{line}");
            let path = self.folder.join("metrics.jsonl");
            self.remember(written.map_err(FileError::because("write", &path)));
        }
        let recall = validation_recall_at_1.map_or(String::new(), |recall| {
            format!(", validation recall_at_1 {recall:.3}")
        });
        self.say(&format!(
            "epoch {epoch}: loss {loss:.5}{recall}, {seconds:.1} s"
        ));
    }
}
