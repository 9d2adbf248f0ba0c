//! A run directory as it was left, or as it is while training goes on.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use toml::{Table, Value};

use super::metrics::{self, EpochMetrics, METRICS_FILE};
use super::{FINISHED, LOCK_FILE, LOG_FILE, MAX_FILE_BYTES, RECIPE_FILE};
use crate::student::STUDENT_FILE;

/// Folders below the one that is searched; beyond is no place for runs.
const MAX_DEPTH: usize = 8;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is left to do.
    Finished,
    /// It was interrupted or failed; the same command goes on.
    Unfinished,
    /// A process trains in the directory now.
    Running,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::Unfinished => "unfinished",
            Self::Running => "running",
        })
    }
}

/// A run directory.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where it lies.
    pub folder: PathBuf,
    /// The resolved recipe. Read as plain TOML: a run of an older version has other keys.
    pub recipe: Table,
    /// What the log says of the run, by name, such as `teacher`.
    pub facts: Vec<(String, String)>,
    /// The epochs that are done.
    pub epochs: Vec<EpochMetrics>,
    /// How far it has come.
    pub state: State,
}

/// All run directories in a folder and below, sorted by path. Links are not followed.
///
/// # Errors
/// If a folder or a file of a run can not be read.
pub fn find(root: &Path) -> Result<Vec<Run>, FileError> {
    let mut runs = Vec::new();
    walk(root, 0, &mut runs)?;
    Ok(runs)
}

fn walk(folder: &Path, depth: usize, runs: &mut Vec<Run>) -> Result<(), FileError> {
    if let Some(run) = Run::open(folder)? {
        runs.push(run);
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).map_err(FileError::because("list", folder))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::because("list", folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    folders
        .iter()
        .try_for_each(|folder| walk(folder, depth + 1, runs))
}

impl Run {
    /// Reads a run directory; `None` if the folder is none: it lacks a resolved recipe or
    /// metrics.
    ///
    /// # Errors
    /// If a file can not be read.
    pub fn open(folder: &Path) -> Result<Option<Self>, FileError> {
        let recipe = folder.join(RECIPE_FILE);
        if !recipe.is_file() || !folder.join(METRICS_FILE).is_file() {
            return Ok(None);
        }
        let text = |path: &Path| -> Result<String, FileError> {
            let bytes = files::read(path, MAX_FILE_BYTES)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let Ok(recipe) = toml::from_str(&text(&recipe)?) else {
            return Ok(None);
        };
        let log = folder.join(LOG_FILE);
        let log = if log.is_file() {
            text(&log)?
        } else {
            String::new()
        };
        let is_finished =
            log.lines().last() == Some(FINISHED) || folder.join(STUDENT_FILE).exists();
        let state = match (is_locked(folder), is_finished) {
            (true, _) => State::Running,
            (false, true) => State::Finished,
            (false, false) => State::Unfinished,
        };
        let facts = log.lines().take_while(|line| !line.starts_with("start: "));
        let fact = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.to_owned()))
        };
        Ok(Some(Self {
            folder: folder.to_owned(),
            recipe,
            facts: facts.filter_map(fact).collect(),
            epochs: metrics::read(folder)?,
            state,
        }))
    }

    /// Name of the recipe.
    #[must_use]
    pub fn name(&self) -> &str {
        self.recipe
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The recipe's seed.
    #[must_use]
    pub fn seed(&self) -> Option<i64> {
        self.recipe.get("seed")?.as_integer()
    }

    /// Epochs of the whole run.
    #[must_use]
    pub fn n_epochs(&self) -> Option<i64> {
        self.recipe.get("epochs")?.as_integer()
    }

    /// Kinds of the losses, such as `relaxed-contrastive + regression`.
    #[must_use]
    pub fn loss(&self) -> String {
        let terms = self.recipe.get("loss").and_then(Value::as_array);
        let kinds = terms.into_iter().flatten();
        let kinds = kinds.filter_map(|term| term.get("kind")?.as_str());
        kinds.collect::<Vec<_>>().join(" + ")
    }

    /// recall_at_1 on the held-out part after the last epoch.
    #[must_use]
    pub fn last_recall(&self) -> Option<f64> {
        self.epochs.last()?.validation_recall_at_1
    }

    /// The first epoch with the highest recall_at_1 on the held-out part.
    #[must_use]
    pub fn best_epoch(&self) -> Option<EpochMetrics> {
        let mut best: Option<EpochMetrics> = None;
        for epoch in &self.epochs {
            let recall = |metrics: &EpochMetrics| metrics.validation_recall_at_1;
            if recall(epoch).is_some() && best.is_none_or(|best| recall(epoch) > recall(&best)) {
                best = Some(*epoch);
            }
        }
        best
    }
}

/// Keys of two recipes with different values, by their dotted path; `None` where one has no
/// such key.
#[must_use]
pub fn differences(a: &Table, b: &Table) -> Vec<(String, Option<String>, Option<String>)> {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    flatten(String::new(), &Value::Table(a.clone()), &mut of_a);
    flatten(String::new(), &Value::Table(b.clone()), &mut of_b);
    let get = |list: &[(String, String)], key: &str| {
        let entry = list.iter().find(|(name, _)| name == key);
        entry.map(|(_, value)| value.clone())
    };
    let mut keys: Vec<&String> = of_a.iter().chain(&of_b).map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| (key.clone(), get(&of_a, key), get(&of_b, key)))
        .filter(|(_, a, b)| a != b)
        .collect()
}

fn flatten(path: String, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(format!("{path}{dot}{key}"), value, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (i, value) in items.iter().enumerate() {
                flatten(format!("{path}[{i}]"), value, found);
            }
        }
        value => found.push((path, value.to_string())),
    }
}

/// Whether a process trains in the folder.
fn is_locked(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK_FILE)) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write_run(folder: &Path, log: &str, metrics: &str) {
        fs::create_dir_all(folder).unwrap();
        let recipe = "name = \"r\"\nseed = 3\nepochs = 4\n[[loss]]\nkind = \"regression\"\n";
        fs::write(folder.join(RECIPE_FILE), recipe).unwrap();
        fs::write(folder.join(LOG_FILE), log).unwrap();
        fs::write(folder.join(METRICS_FILE), metrics).unwrap();
    }

    #[test]
    fn runs_are_found_with_what_they_have_done() {
        let root = tempfile::tempdir().unwrap();
        let line = |epoch, recall| {
            let metrics = EpochMetrics {
                epoch,
                loss: 0.5,
                validation_recall_at_1: recall,
                seconds: 1.0,
            };
            metrics.line()
        };
        let cut = [line(1, Some(0.5)), line(2, Some(0.7)), line(3, Some(0.7))].concat() + "{\"ep";
        write_run(
            &root.path().join("a/cut"),
            "recipe: r (12)\nstart: step 0 of 8\n",
            &cut,
        );
        write_run(
            &root.path().join("b"),
            "start: step 0 of 8\nfinished\n",
            &line(4, None),
        );
        fs::create_dir_all(root.path().join("c/nothing")).unwrap();

        let runs = find(root.path()).unwrap();
        let [cut, whole] = &runs[..] else {
            panic!("{runs:?}")
        };
        assert_eq!(
            (cut.name(), cut.seed(), cut.n_epochs()),
            ("r", Some(3), Some(4))
        );
        assert_eq!(cut.loss(), "regression");
        assert_eq!(cut.facts, [("recipe".to_owned(), "r (12)".to_owned())]);
        assert_eq!(cut.epochs.len(), 3);
        assert_eq!(cut.best_epoch().unwrap().epoch, 2);
        assert_eq!(
            (cut.state, whole.state),
            (State::Unfinished, State::Finished)
        );
        assert_eq!((whole.best_epoch(), whole.last_recall()), (None, None));

        let lock = File::create(cut.folder.join(LOCK_FILE)).unwrap();
        lock.lock().unwrap();
        let again = Run::open(&cut.folder).unwrap().unwrap();
        assert_eq!(again.state, State::Running);
    }

    #[test]
    fn recipes_differ_key_by_key() {
        let parse = |text: &str| toml::from_str::<Table>(text).unwrap();
        let a = parse("seed = 1\nloss = [{ kind = \"x\", weight = 1.0 }]\nb = { n = [1, 2] }");
        let b = parse("seed = 1\nloss = [{ kind = \"y\", weight = 1.0, s = 2 }]\nb = { n = [1] }");
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            differences(&a, &b),
            [
                ("b.n".to_owned(), some("[1, 2]"), some("[1]")),
                ("loss[0].kind".to_owned(), some("\"x\""), some("\"y\"")),
                ("loss[0].s".to_owned(), None, some("2")),
            ]
        );
    }
}
