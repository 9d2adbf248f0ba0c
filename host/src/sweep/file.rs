//! The file that describes a sweep, and the cells that follow from it.
//!
//! A cell's recipe is the base recipe of its student, changed by the student's `set`, by
//! the loss with its `set`, and by the seed. The outcome is checked like any recipe.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use eyas_shared::bundle::Precision;
use eyas_shared::files::{self, FileError};
use serde::Deserialize;
use thiserror::Error;
use toml::{Table, Value};

use crate::recipe::{Recipe, RecipeError, Start, Trainee, suggestion};

const MAX_BYTES: u64 = 1 << 20;

/// What is compared with what. Relative paths start at the current folder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// Images: a folder or a CSV file.
    pub data: PathBuf,
    /// The split to train on.
    pub split: String,
    /// The teacher of all students.
    pub teacher: PathBuf,
    /// Folder of cached teacher embeddings.
    pub cache: PathBuf,
    /// Where everything is written.
    pub out: PathBuf,
    /// Seeds, one training for each student and loss; the first for all, then the second.
    pub seeds: Vec<u64>,
    /// How the weights of the scored bundles are stored.
    pub precisions: Vec<Precision>,
    /// What the students are scored on.
    pub galleries: Vec<GalleryAxis>,
    /// The networks and how they are trained.
    pub students: Vec<StudentAxis>,
    /// What is minimized.
    pub losses: Vec<LossAxis>,
}

/// Images to search, and images to ask with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GalleryAxis {
    /// For the tables.
    pub name: String,
    /// The split that is searched; images with the gallery role if not given.
    pub search: Option<String>,
    /// The split that asks; images with the query role if not given.
    pub ask: Option<String>,
}

/// A student.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentAxis {
    /// For the tables and folders.
    pub name: String,
    /// Recipe that it is trained by, apart from what the other axes say.
    pub recipe: PathBuf,
    /// Weights to start from, if the recipe says `start = "weights"`.
    pub start: Option<PathBuf>,
    /// Keys of the recipe that are different.
    #[serde(default)]
    pub set: Table,
}

/// A loss.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossAxis {
    /// For the tables and folders.
    pub name: String,
    /// The recipe's `loss`: a list of weighted terms.
    pub loss: Vec<Value>,
    /// The recipe's `map`.
    pub map: Table,
    /// The network whose maps it compares with, if it compares maps; in place of the
    /// recipe's `teacher_network`.
    pub teacher_network: Option<TeacherNetwork>,
    /// Keys of the recipe that this loss wants different.
    #[serde(default)]
    pub set: Table,
}

/// A network whose maps losses compare with the student's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherNetwork {
    /// Name in the zoo.
    pub architecture: String,
    /// Its weights (safetensors).
    pub weights: PathBuf,
}

/// One training with all its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Name of the student.
    pub student: String,
    /// Name of the loss.
    pub loss: String,
    /// Weights to start from.
    pub start: Option<PathBuf>,
    /// Weights of the network whose maps are compared.
    pub teacher_network: Option<PathBuf>,
    /// What is run; its seed is the cell's.
    pub recipe: Recipe,
}

/// Why a sweep can not be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not TOML, or not a sweep's keys.
    #[error("sweep `{path}`: {message}")]
    Syntax {
        /// Which file.
        path: String,
        /// Where and what, over several lines.
        message: String,
        /// A key that was probably meant.
        suggestion: Option<String>,
    },
    /// A value that makes no sense.
    #[error("sweep `{path}`: {what}")]
    Value {
        /// Which file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A student's base recipe is not TOML.
    #[error("recipe `{}`: {message}", path.display())]
    Base {
        /// Which file.
        path: PathBuf,
        /// Where and what, over several lines.
        message: String,
    },
    /// Student and loss make no recipe.
    #[error("sweep `{path}`, {cell}")]
    Recipe {
        /// Which file.
        path: String,
        /// Which student and loss.
        cell: String,
        /// What is wrong with it.
        source: RecipeError,
    },
}

impl SweepFile {
    /// Reads and checks a sweep; recipes are read by [`cells`](Self::cells).
    ///
    /// # Errors
    /// If it can not be read, has unknown or missing keys, or values that make no sense.
    pub fn read(path: &Path) -> Result<Self, SweepError> {
        let shown = path.display().to_string();
        let sweep: Self = toml::from_str(&read_text(path)?).map_err(|err| SweepError::Syntax {
            path: shown.clone(),
            message: err.to_string().trim_end().to_owned(),
            suggestion: suggestion(err.message()),
        })?;
        match sweep.fault() {
            None => Ok(sweep),
            Some(what) => Err(SweepError::Value { path: shown, what }),
        }
    }

    fn fault(&self) -> Option<String> {
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let precisions: Vec<String> = self.precisions.iter().map(Precision::to_string).collect();
        let axes: [(&str, Vec<&str>); 5] = [
            ("seeds", seeds.iter().map(String::as_str).collect()),
            (
                "precisions",
                precisions.iter().map(String::as_str).collect(),
            ),
            (
                "galleries",
                self.galleries.iter().map(|axis| &*axis.name).collect(),
            ),
            (
                "students",
                self.students.iter().map(|axis| &*axis.name).collect(),
            ),
            (
                "losses",
                self.losses.iter().map(|axis| &*axis.name).collect(),
            ),
        ];
        axes.iter()
            .find_map(|(axis, names)| axis_fault(axis, names))
    }

    /// All cells, in the order in which they are run: every student and loss with the first
    /// seed, then with the second, so that a sweep that was cut short compares fairly.
    ///
    /// # Errors
    /// If a base recipe can not be read, or a student and a loss make no recipe.
    pub fn cells(&self, path: &Path) -> Result<Vec<Cell>, SweepError> {
        let mut bases = Vec::with_capacity(self.students.len());
        for student in &self.students {
            let base: Table =
                toml::from_str(&read_text(&student.recipe)?).map_err(|err| SweepError::Base {
                    path: student.recipe.clone(),
                    message: err.to_string().trim_end().to_owned(),
                })?;
            bases.push((student, base));
        }
        let mut cells = Vec::new();
        for &seed in &self.seeds {
            for (student, base) in &bases {
                for loss in &self.losses {
                    cells.push(cell(path, student, base, loss, seed)?);
                }
            }
        }
        Ok(cells)
    }
}

impl Cell {
    /// The cell's run directory inside the sweep's folder.
    #[must_use]
    pub fn folder(&self, out: &Path) -> PathBuf {
        let seed = format!("seed-{}", self.recipe.seed);
        out.join("cells")
            .join(&self.student)
            .join(&self.loss)
            .join(seed)
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} seed {}",
            self.student, self.loss, self.recipe.seed
        )
    }
}

fn read_text(path: &Path) -> Result<String, SweepError> {
    let bytes = files::read(path, MAX_BYTES)?;
    String::from_utf8(bytes).map_err(|_| SweepError::Value {
        path: path.display().to_string(),
        what: "it is not UTF-8 text".to_owned(),
    })
}

fn axis_fault(axis: &str, names: &[&str]) -> Option<String> {
    if names.is_empty() {
        return Some(format!("{axis} is empty"));
    }
    let mut seen = BTreeSet::new();
    for name in names {
        let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Some(format!(
                "{axis}: `{name}` names a folder: use letters, digits, `-`, `_` and `.`"
            ));
        }
        // Two names that differ in case are one folder on some systems.
        if !seen.insert(name.to_lowercase()) {
            return Some(format!("{axis}: `{name}` is there twice"));
        }
    }
    None
}

fn cell(
    path: &Path,
    student: &StudentAxis,
    base: &Table,
    loss: &LossAxis,
    seed: u64,
) -> Result<Cell, SweepError> {
    let shown = path.display().to_string();
    let mut recipe = base.clone();
    overlay(&mut recipe, &student.set);
    recipe.insert("loss".to_owned(), Value::Array(loss.loss.clone()));
    recipe.insert("map".to_owned(), Value::Table(loss.map.clone()));
    // One that the base names belongs to losses that are replaced.
    recipe.remove("teacher_network");
    if let Some(network) = &loss.teacher_network {
        let architecture = Value::String(network.architecture.clone());
        recipe.insert("teacher_network".to_owned(), architecture);
    }
    overlay(&mut recipe, &loss.set);
    let name = format!("{}-{}", student.name, loss.name);
    recipe.insert("name".to_owned(), Value::String(name.clone()));
    // Whatever the base says; the cell's own follows.
    recipe.insert("seed".to_owned(), Value::Integer(0));
    let recipe = Recipe::parse(&recipe.to_string(), &name, Trainee::Student);
    let mut recipe = recipe.map_err(|source| SweepError::Recipe {
        path: shown.clone(),
        cell: format!("student `{}` with loss `{}`", student.name, loss.name),
        source,
    })?;
    recipe.seed = seed;
    if !recipe.shares_the_teachers_space() {
        return Err(SweepError::Value {
            path: shown,
            what: format!(
                "loss `{}`: map whitening leaves the teacher's space, but a sweep searches the \
                 teacher's galleries too: train it alone and score it by `eyas evaluate --symmetric`",
                loss.name
            ),
        });
    }
    match weights_fault(&recipe, student, loss) {
        None => Ok(Cell {
            student: student.name.clone(),
            loss: loss.name.clone(),
            start: student.start.clone(),
            teacher_network: loss.teacher_network.as_ref().map(|n| n.weights.clone()),
            recipe,
        }),
        Some(what) => Err(SweepError::Value { path: shown, what }),
    }
}

/// Weights that a cell's recipe needs and the axes do not name, or the other way round.
fn weights_fault(recipe: &Recipe, student: &StudentAxis, loss: &LossAxis) -> Option<String> {
    let of_student = |fault: &str| Some(format!("student `{}`: {fault}", student.name));
    match (recipe.start, &student.start) {
        (Start::Weights, None) => {
            of_student("its recipe starts from given weights: name the file in `start`")
        }
        (Start::Scratch, Some(_)) => {
            of_student("its recipe starts from scratch, but `start` names weights")
        }
        _ if recipe.teacher_network.is_some() && loss.teacher_network.is_none() => Some(format!(
            "loss `{}`: name the network whose maps it compares with its weights: \
             teacher_network = {{ architecture = \"...\", weights = \"FILE\" }}",
            loss.name
        )),
        _ => None,
    }
}

/// Puts the values of `changes` over those of `table`, tables key by key. A table of
/// another `kind` has other keys and takes the whole place.
fn overlay(table: &mut Table, changes: &Table) {
    for (key, change) in changes {
        match (table.get_mut(key), change) {
            (Some(Value::Table(old)), Value::Table(new)) if is_same_kind(old, new) => {
                overlay(old, new);
            }
            _ => {
                table.insert(key.clone(), change.clone());
            }
        }
    }
}

fn is_same_kind(old: &Table, new: &Table) -> bool {
    new.get("kind")
        .is_none_or(|kind| old.get("kind") == Some(kind))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
