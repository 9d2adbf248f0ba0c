//! Losses and metrics against values and gradients of published implementations, in the
//! form of an `index.json` with `.npz` files beside it. `eyas losses check` runs it.
//!
//! An entry names an implementation (`repo`, `cls`), its arguments, input arrays and
//! expected outputs. It is run in f64 (value, gradients, other outputs) and in f32 (value).

mod evaluation;
mod features;
mod metric;
mod tolerance;
mod transfer;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use serde::Deserialize;
use tch::{Kind, Tensor};
use thiserror::Error;

use crate::evaluate::golden::strict_json;

/// Largest index or array file that is read.
const MAX_BYTES: u64 = 1 << 30;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct GoldenReport {
    /// Entries that agree in everything.
    pub n_passed: usize,
    /// A line for each entry that does not.
    pub failed: Vec<String>,
    /// A line for each entry whose implementation is not known.
    pub not_implemented: Vec<String>,
}

/// Why a folder can not be checked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// A file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index is not of this form.
    #[error("`{path}` is not an index of golden values: {what}")]
    Index {
        /// Which file.
        path: String,
        /// What does not fit.
        what: String,
    },
    /// An array file is damaged or lacks an array.
    #[error("`{path}`: {what}")]
    Arrays {
        /// Which file.
        path: String,
        /// What does not fit.
        what: String,
    },
}

#[derive(Deserialize)]
struct Index {
    entries: Vec<Entry>,
}

/// One implementation with its arguments, inputs and expected outputs.
#[derive(Deserialize)]
struct Entry {
    id: String,
    case: String,
    /// Array file of the outputs.
    file: String,
    #[serde(default)]
    repo: String,
    #[serde(default)]
    cls: String,
    #[serde(default)]
    args: serde_json::Map<String, serde_json::Value>,
    inputs: BTreeMap<String, Place>,
    /// Keys in `file` by the name of the output.
    outputs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Place {
    file: String,
    key: String,
}

/// An entry with its inputs in one precision.
struct Case<'a> {
    entry: &'a Entry,
    tensors: BTreeMap<String, Tensor>,
}

/// What our implementation gives for an entry.
struct Computed {
    /// A scalar.
    loss: Tensor,
    /// Outputs beside the loss and its gradients, by name.
    others: Vec<(&'static str, Tensor)>,
}

impl From<Tensor> for Computed {
    fn from(loss: Tensor) -> Self {
        let others = Vec::new();
        Self { loss, others }
    }
}

/// `None` if the implementation is not known; an error if the entry lacks something.
type Evaluated = Result<Option<Computed>, String>;

impl Case<'_> {
    /// An input array.
    fn tensor(&self, name: &str) -> Result<&Tensor, String> {
        let tensor = self.tensors.get(name);
        tensor.ok_or_else(|| format!("the entry has no input `{name}`"))
    }

    /// A numeric argument.
    fn number(&self, name: &str) -> Result<f64, String> {
        let value = self
            .entry
            .args
            .get(name)
            .and_then(serde_json::Value::as_f64);
        value.ok_or_else(|| format!("the entry has no number `{name}` among its arguments"))
    }

    /// A numeric argument, or what the implementation takes without it.
    fn number_or(&self, name: &str, default: f64) -> f64 {
        self.number(name).unwrap_or(default)
    }
}

/// Runs every entry of a folder's `index.json`.
///
/// # Errors
/// If the index or an array file can not be read. An entry that disagrees is not an error
/// but a line of the report.
pub fn check(folder: &Path) -> Result<GoldenReport, GoldenError> {
    let path = folder.join("index.json");
    let bytes = files::read(&path, MAX_BYTES)?;
    let text = strict_json(&String::from_utf8_lossy(&bytes));
    let index: Index = serde_json::from_str(&text).map_err(|err| GoldenError::Index {
        path: path.display().to_string(),
        what: err.to_string(),
    })?;
    let mut arrays = Arrays::of(folder);
    let mut report = GoldenReport::default();
    for entry in &index.entries {
        let name = format!("{} (case {})", entry.id, entry.case);
        match check_entry(entry, &mut arrays)? {
            Outcome::Passed => report.n_passed += 1,
            Outcome::Failed(what) => report.failed.push(format!("{name}: {what}")),
            Outcome::Unknown => {
                let (repo, cls) = (&entry.repo, &entry.cls);
                let line = format!("{name}: {repo}, {cls} is not implemented");
                report.not_implemented.push(line);
            }
        }
    }
    Ok(report)
}

enum Outcome {
    Passed,
    Failed(String),
    Unknown,
}

fn check_entry(entry: &Entry, arrays: &mut Arrays) -> Result<Outcome, GoldenError> {
    let mut inputs = BTreeMap::new();
    for (name, place) in &entry.inputs {
        inputs.insert(name.clone(), arrays.get(&place.file, &place.key)?);
    }
    let mut expected = BTreeMap::new();
    for (name, key) in &entry.outputs {
        expected.insert(name.clone(), arrays.get(&entry.file, key)?);
    }
    // libtorch answers arrays of shapes that do not belong together with a panic.
    let compared = catch_unwind(AssertUnwindSafe(|| compare(entry, &inputs, &expected)));
    Ok(match compared {
        Ok(Ok(true)) => Outcome::Passed,
        Ok(Ok(false)) => Outcome::Unknown,
        Ok(Err(what)) => Outcome::Failed(what),
        Err(_) => Outcome::Failed("its arrays do not fit together".to_owned()),
    })
}

/// Whether the implementation is known; an error where it disagrees.
fn compare(
    entry: &Entry,
    inputs: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, Tensor>,
) -> Result<bool, String> {
    let wants_gradient = |name: &str| expected.contains_key(&format!("grad_{name}"));
    let exact = Case {
        entry,
        tensors: inputs
            .iter()
            .map(|(name, tensor)| {
                let copy = tensor.copy().set_requires_grad(wants_gradient(name));
                (name.clone(), copy)
            })
            .collect(),
    };
    let Some(computed) = evaluate(&exact)? else {
        return evaluation::compare(entry, inputs, expected);
    };
    let tolerances = tolerance::of(entry);
    if let Some(loss) = expected.get("loss") {
        computed.loss.backward();
        let found = computed.loss.double_value(&[]);
        tolerance::value("value", found, scalar(loss)?, tolerances.value)?;
        for (name, tensor) in &exact.tensors {
            if let Some(gradient) = expected.get(&format!("grad_{name}")) {
                let what = format!("gradient of {name}");
                tolerance::array(&what, &tensor.grad(), gradient, tolerances.gradient)?;
            }
        }
        let float = Case {
            entry,
            tensors: inputs.iter().map(in_f32).collect(),
        };
        if let Some(single) = evaluate(&float)? {
            let found = single.loss.double_value(&[]);
            tolerance::value("value in f32", found, scalar(loss)?, tolerances.value_f32)?;
        }
    }
    for (name, found) in &computed.others {
        let Some(wanted) = expected.get(*name) else {
            continue;
        };
        tolerance::array(name, found, wanted, tolerances.output)?;
    }
    let known = |name: &str| computed.others.iter().any(|(other, _)| *other == name);
    match expected
        .keys()
        .find(|name| !name.starts_with("loss") && !name.starts_with("grad_") && !known(name))
    {
        Some(name) => Err(format!("output `{name}` is not computed")),
        None => Ok(true),
    }
}

fn evaluate(case: &Case<'_>) -> Evaluated {
    for family in [transfer::evaluate, features::evaluate, metric::evaluate] {
        if let Some(computed) = family(case)? {
            return Ok(Some(computed));
        }
    }
    Ok(None)
}

fn in_f32((name, tensor): (&String, &Tensor)) -> (String, Tensor) {
    let tensor = match tensor.kind() {
        Kind::Double => tensor.to_kind(Kind::Float),
        _ => tensor.shallow_clone(),
    };
    (name.clone(), tensor)
}

fn scalar(tensor: &Tensor) -> Result<f64, String> {
    match tensor.numel() {
        1 => Ok(tensor.view(1).double_value(&[0])),
        n => Err(format!("the expected value has {n} numbers")),
    }
}

/// Array files of a folder, each read once.
struct Arrays {
    folder: PathBuf,
    files: HashMap<String, HashMap<String, Tensor>>,
}

impl Arrays {
    fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            files: HashMap::new(),
        }
    }

    fn get(&mut self, file: &str, key: &str) -> Result<Tensor, GoldenError> {
        let path = self.folder.join(file);
        let fault = |what: String| GoldenError::Arrays {
            path: path.display().to_string(),
            what,
        };
        if file.contains(['/', '\\']) {
            return Err(fault("array files lie beside the index".to_owned()));
        }
        if !self.files.contains_key(file) {
            let size = std::fs::metadata(&path).map_err(FileError::because("read", &path))?;
            if size.len() > MAX_BYTES {
                return Err(fault(format!("it is larger than {MAX_BYTES} bytes")));
            }
            let arrays = Tensor::read_npz(&path).map_err(|err| fault(err.to_string()))?;
            self.files
                .insert(file.to_owned(), arrays.into_iter().collect());
        }
        let array = self.files[file].get(key);
        array
            .map(Tensor::shallow_clone)
            .ok_or_else(|| fault(format!("it has no array `{key}`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values_agree() {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden"));
        if !folder.is_dir() {
            eprintln!("skipped: {} is not there", folder.display());
            return;
        }
        let report = check(&folder).unwrap();
        assert!(report.failed.is_empty(), "{}", report.failed.join("\n"));
        assert_eq!(report.not_implemented, [""; 0]);
        assert!(report.n_passed > 0);
    }
}
