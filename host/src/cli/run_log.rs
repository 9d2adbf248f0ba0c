//! Writes the files of a run directory while training, and shows progress.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use eyas_shared::files::{self, FileError};

use super::Progress;
use crate::learn::Watch;
use crate::recipe::Recipe;
use crate::runs::events::{self, EVENT_FILE, Scalar};
use crate::runs::metrics::{self, EpochMetrics, METRICS_FILE};
use crate::runs::{FINISHED, LOG_FILE, MAX_FILE_BYTES, RECIPE_FILE};

/// Steps between two lines for TensorBoard.
const EVENT_STEPS: usize = 10;

/// Writes a run's files and shows its progress.
pub(super) struct RunLog {
    folder: PathBuf,
    recipe: String,
    /// What the run says of itself at its start, by name.
    facts: Vec<(&'static str, String)>,
    /// Inputs of the network in a step.
    rows: usize,
    per_epoch: usize,
    log: File,
    metrics: Option<File>,
    events: Option<File>,
    progress: Option<Progress>,
    /// The first file that could not be written; training went on without it.
    fault: Option<FileError>,
}

impl RunLog {
    /// Opens the log of a run, new or gone on with; nothing is written before training
    /// starts.
    pub(super) fn open(
        folder: &Path,
        recipe: &Recipe,
        facts: Vec<(&'static str, String)>,
    ) -> Result<Self, FileError> {
        files::create_folder(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            recipe: recipe.resolved(),
            facts,
            rows: recipe.batch.rows(),
            per_epoch: 1,
            log: append(&folder.join(LOG_FILE))?,
            metrics: None,
            events: None,
            progress: None,
            fault: None,
        })
    }

    /// Adds a line to `train.log`.
    fn say(&mut self, line: &str) {
        let written = writeln!(self.log, "{line}");
        self.remember(written.map_err(FileError::because("write", &self.folder.join(LOG_FILE))));
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
    pub(super) fn finish(mut self) -> Result<(), FileError> {
        self.say(FINISHED);
        self.fault.map_or(Ok(()), Err)
    }

    /// Opens metrics and events for a run that goes on at `step`: what an interrupted
    /// process wrote of later steps is written again.
    fn open_curves(&mut self, step: usize) -> Result<(), FileError> {
        let kept = metrics::cut_after(&self.folder, step / self.per_epoch)?;
        self.metrics = Some(begin_with(
            &self.folder.join(METRICS_FILE),
            kept.as_bytes(),
        )?);
        let path = self.folder.join(EVENT_FILE);
        let old = if path.exists() {
            files::read(&path, MAX_FILE_BYTES)?
        } else {
            Vec::new()
        };
        let kept = events::cut_after(&old, step as u64, wall_time());
        self.events = Some(begin_with(&path, &kept)?);
        Ok(())
    }

    /// Adds numbers at a step to the event file.
    fn plot(&mut self, step: usize, numbers: &[(&str, f64)]) {
        let Some(file) = &mut self.events else {
            return;
        };
        let wall_time = wall_time();
        let records: Vec<u8> = numbers
            .iter()
            .flat_map(|(tag, value)| {
                let scalar = Scalar {
                    wall_time,
                    step: step as u64,
                    tag: (*tag).to_owned(),
                    value: *value as f32,
                };
                scalar.record()
            })
            .collect();
        let written = file.write_all(&records);
        self.remember(written.map_err(FileError::because("write", &self.folder.join(EVENT_FILE))));
    }
}

fn append(path: &Path) -> Result<File, FileError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(FileError::because("write", path))
}

/// Replaces a file by its beginning, and opens it to go on.
fn begin_with(path: &Path, bytes: &[u8]) -> Result<File, FileError> {
    files::replace(path, bytes)?;
    append(path)
}

/// Seconds since 1970; only event files hold it.
fn wall_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

impl Watch for RunLog {
    fn started(&mut self, step: usize, n_steps: usize, per_epoch: usize) {
        // Only now is it known that the folder holds no other experiment.
        let recipe = files::replace(&self.folder.join(RECIPE_FILE), self.recipe.as_bytes());
        self.remember(recipe);
        for (name, value) in std::mem::take(&mut self.facts) {
            self.say(&format!("{name}: {value}"));
        }
        self.per_epoch = per_epoch;
        let opened = self.open_curves(step);
        self.remember(opened);
        self.say(&format!("start: step {step} of {n_steps}"));
        let n_images = (n_steps - step).saturating_mul(self.rows);
        self.progress = Some(Progress::of_images("training", n_images));
    }

    fn mining(&mut self, epoch: usize) {
        if let Some(progress) = &self.progress {
            progress.say(format!("making the tuples of epoch {epoch}"));
        }
    }

    fn stepped(&mut self, step: usize, loss: f64, rate: f64) {
        let done = step + 1;
        if let Some(progress) = &self.progress {
            progress.advance(self.rows);
            if done.is_multiple_of(EVENT_STEPS) {
                progress.say(format!("training, loss {loss:.4}, rate {rate:.1e}"));
            }
        }
        if done.is_multiple_of(EVENT_STEPS) {
            self.plot(done, &[("training/loss", loss), ("training/rate", rate)]);
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
        if let Some(file) = &mut self.metrics {
            let written = file.write_all(metrics.line().as_bytes());
            let path = self.folder.join(METRICS_FILE);
            self.remember(written.map_err(FileError::because("write", &path)));
        }
        let mut numbers = vec![("epoch/loss", loss)];
        numbers.extend(validation_recall_at_1.map(|recall| ("validation/recall_at_1", recall)));
        self.plot(epoch * self.per_epoch, &numbers);
        let recall = validation_recall_at_1.map_or(String::new(), |recall| {
            format!(", validation recall_at_1 {recall:.3}")
        });
        self.say(&format!(
            "epoch {epoch}: loss {loss:.5}{recall}, {seconds:.1} s"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Trainee;

    const RECIPE: &str = include_str!("../../../models/recipes/shelf-student.toml");
    const PER_EPOCH: usize = 15;

    /// Tells a log of the steps from `first` to before `end`, as the trainer does.
    fn train(folder: &Path, first: usize, end: usize) -> RunLog {
        let recipe = Recipe::parse(RECIPE, "r", Trainee::Student).unwrap();
        let mut log = RunLog::open(folder, &recipe, vec![("seed", "7".to_owned())]).unwrap();
        log.started(first, 60, PER_EPOCH);
        for step in first..end {
            log.stepped(step, step as f64, 0.5);
            if (step + 1).is_multiple_of(PER_EPOCH) {
                log.epoch_ended((step + 1) / PER_EPOCH, 1.0, Some(0.25), 2.0);
            }
        }
        log
    }

    fn curves(folder: &Path) -> (Vec<(u64, String, f32)>, Vec<EpochMetrics>) {
        let events = std::fs::read(folder.join(EVENT_FILE)).unwrap();
        let scalars = events::scalars(&events).into_iter();
        let plain = scalars.map(|scalar| (scalar.step, scalar.tag, scalar.value));
        (plain.collect(), metrics::read(folder).unwrap())
    }

    #[test]
    fn a_resumed_run_writes_no_step_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
        train(&whole, 0, 60).finish().unwrap();
        // Killed at step 47, with its last checkpoint at step 40.
        drop(train(&cut, 0, 47));
        train(&cut, 40, 60).finish().unwrap();
        let (scalars, epochs) = curves(&whole);
        assert_eq!((scalars.len(), epochs.len()), (2 * 6 + 2 * 4, 4));
        assert_eq!(curves(&cut), (scalars, epochs));
        let log = std::fs::read_to_string(cut.join(LOG_FILE)).unwrap();
        assert!(
            log.contains("start: step 40 of 60") && log.ends_with("finished\n"),
            "{log}"
        );
    }
}
