//! Losses and metrics against values and gradients of published implementations, in the
//! form of an `index.json` with `.npz` files beside it. `eyas losses check` runs it.
//!
//! An entry names an implementation (`repo`, `cls`), its arguments, input arrays and
//! expected outputs. It is run in f64 (value, gradients, other outputs) and in f32 (value,
//! gradients).

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
/// If the index can not be read. An entry that disagrees, or lacks an array, is not an error but
/// a line of the report.
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
        match check_entry(entry, &mut arrays) {
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

fn check_entry(entry: &Entry, arrays: &mut Arrays) -> Outcome {
    let inputs = { entry.inputs.iter() }
        .map(|(name, place)| Ok((name.clone(), arrays.get(&place.file, &place.key)?)))
        .collect::<Result<BTreeMap<_, _>, GoldenError>>();
    let expected = { entry.outputs.iter() }
        .map(|(name, key)| Ok((name.clone(), arrays.get(&entry.file, key)?)))
        .collect::<Result<BTreeMap<_, _>, GoldenError>>();
    let (inputs, expected) = match (inputs, expected) {
        (Ok(inputs), Ok(expected)) => (inputs, expected),
        (Err(err), _) | (_, Err(err)) => return Outcome::Failed(err.to_string()),
    };
    // libtorch answers arrays of shapes that do not belong together with a panic.
    let compared = catch_unwind(AssertUnwindSafe(|| compare(entry, &inputs, &expected)));
    match compared {
        Ok(Ok(true)) => Outcome::Passed,
        Ok(Ok(false)) => Outcome::Unknown,
        Ok(Err(what)) => Outcome::Failed(what),
        Err(_) => Outcome::Failed("its arrays do not fit together".to_owned()),
    }
}

/// Whether the implementation is known; an error where it disagrees.
fn compare(
    entry: &Entry,
    inputs: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, Tensor>,
) -> Result<bool, String> {
    let gradients: Vec<&str> = { expected.keys() }
        .filter_map(|name| name.strip_prefix("grad_"))
        .collect();
    if let Some(name) = gradients.iter().find(|name| !inputs.contains_key(**name)) {
        return Err(format!(
            "a gradient is wanted, and there is no input `{name}`"
        ));
    }
    let case = |tensor: fn(&Tensor) -> Tensor| Case {
        entry,
        tensors: { inputs.iter() }
            .map(|(name, input)| {
                let wants_gradient = gradients.contains(&&**name);
                (
                    name.clone(),
                    tensor(input).set_requires_grad(wants_gradient),
                )
            })
            .collect(),
    };
    let exact = case(Tensor::copy);
    let Some(computed) = evaluate(&exact)? else {
        return evaluation::compare(entry, inputs, expected);
    };
    let tolerances = tolerance::of(entry);
    if let Some(loss) = expected.get("loss") {
        let found = computed.loss.double_value(&[]);
        tolerance::value("value", found, scalar(loss)?, tolerances.value)?;
        compare_gradients(&exact, &computed.loss, "", expected, tolerances.gradient)?;
        let float = case(in_f32);
        if let Some(single) = evaluate(&float)? {
            let found = single.loss.double_value(&[]);
            tolerance::value("value in f32", found, scalar(loss)?, tolerances.value_f32)?;
            let tolerance = tolerances.gradient_f32;
            compare_gradients(&float, &single.loss, " in f32", expected, tolerance)?;
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

/// Compares those gradients of a loss that are expected; `precision` is how a line names them.
fn compare_gradients(
    case: &Case<'_>,
    loss: &Tensor,
    precision: &str,
    expected: &BTreeMap<String, Tensor>,
    tolerance: f64,
) -> Result<(), String> {
    // Without a wanted gradient nothing asks for one, and there is nothing to go back through.
    if loss.requires_grad() {
        loss.backward();
    }
    for (name, tensor) in &case.tensors {
        if let Some(gradient) = expected.get(&format!("grad_{name}")) {
            let what = format!("gradient of {name}{precision}");
            tolerance::array(&what, &tensor.grad(), gradient, tolerance)?;
        }
    }
    Ok(())
}

fn evaluate(case: &Case<'_>) -> Evaluated {
    for family in [transfer::evaluate, features::evaluate, metric::evaluate] {
        if let Some(computed) = family(case)? {
            return Ok(Some(computed));
        }
    }
    Ok(None)
}

fn in_f32(tensor: &Tensor) -> Tensor {
    match tensor.kind() {
        Kind::Double => tensor.to_kind(Kind::Float),
        _ => tensor.copy(),
    }
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
    use serde_json::{Value, json};

    use super::*;

    /// An entry of `x` in a file of its own name.
    fn entry(id: &str, cls: &str, outputs: &[&str]) -> Value {
        let file = format!("{id}.npz");
        let keys = outputs.iter().map(|name| ((*name).to_owned(), json!(name)));
        json!({
            "id": id, "case": "t", "file": &file, "cls": cls,
            "inputs": { "x": { "file": &file, "key": "x" } },
            "outputs": Value::Object(keys.collect()),
        })
    }

    /// Means of maps, and the sum of their squares: 1.5625 of the map (1, 1.5).
    const MEANS: &str = "functional.spoc";

    fn map(values: [f64; 2]) -> (&'static str, Tensor) {
        ("x", Tensor::from_slice(&values).view([1, 1, 1, 2]))
    }

    fn loss(value: f64) -> (&'static str, Tensor) {
        ("loss", Tensor::from_slice(&[value]))
    }

    fn write(folder: &Path, id: &str, arrays: &[(&str, Tensor)]) {
        Tensor::write_npz(arrays, folder.join(format!("{id}.npz"))).unwrap();
    }

    fn check_entries(folder: &Path, entries: &[Value]) -> GoldenReport {
        let index = json!({ "entries": entries }).to_string();
        std::fs::write(folder.join("index.json"), index).unwrap();
        check(folder).unwrap()
    }

    #[test]
    fn a_value_without_a_wanted_gradient_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, "good", &[map([1.0, 1.5]), loss(1.5625)]);
        write(folder, "off", &[map([1.0, 1.5]), loss(1.5)]);
        let report = check_entries(
            folder,
            &[
                entry("good", MEANS, &["loss"]),
                entry("off", MEANS, &["loss"]),
            ],
        );
        assert_eq!(report.n_passed, 1, "{report:?}");
        let [line] = &report.failed[..] else {
            panic!("{report:?}");
        };
        assert!(line.contains("off (case t): value 1.5625"), "{line}");
    }

    #[test]
    fn a_missing_or_damaged_array_fails_its_entry_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, "whole", &[map([1.0, 1.5]), loss(1.5625)]);
        write(folder, "half", &[map([1.0, 1.5])]);
        std::fs::write(folder.join("damaged.npz"), "PK and no more").unwrap();
        let names = ["gone", "half", "damaged", "whole"];
        let report = check_entries(folder, &names.map(|name| entry(name, MEANS, &["loss"])));
        assert_eq!(report.n_passed, 1, "{report:?}");
        assert_eq!(report.not_implemented, [""; 0]);
        let parts = [
            ("gone (case t)", "gone.npz"),
            ("half (case t)", "has no array `loss`"),
            ("damaged (case t)", "damaged.npz"),
        ];
        assert_eq!(report.failed.len(), parts.len(), "{report:?}");
        for (line, (name, what)) in report.failed.iter().zip(parts) {
            assert!(line.starts_with(name) && line.contains(what), "{line}");
        }
    }

    #[test]
    fn gradients_are_compared_in_f32_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // In f32 both are the largest, and share the gradient; the value tells nothing.
        let largest = 1.0 + 1e-9;
        let gradient = Tensor::from_slice(&[0.0, 2.0 * largest]).view([1, 1, 1, 2]);
        let (x, loss) = (map([1.0, largest]), loss(largest * largest));
        write(folder, "tie", &[x, loss, ("grad_x", gradient)]);
        let entries = [entry("tie", "functional.mac", &["loss", "grad_x"])];
        let report = check_entries(folder, &entries);
        let [line] = &report.failed[..] else {
            panic!("{report:?}");
        };
        assert!(
            line.contains("gradient of x in f32 is off by 5.0e-1"),
            "{line}"
        );
    }

    #[test]
    fn a_wanted_gradient_of_no_input_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let gradient = ("grad_y", Tensor::from_slice(&[1.0_f64]));
        write(folder, "none", &[map([1.0, 1.5]), loss(1.5625), gradient]);
        let report = check_entries(folder, &[entry("none", MEANS, &["loss", "grad_y"])]);
        let [line] = &report.failed[..] else {
            panic!("{report:?}");
        };
        assert!(line.contains("no input `y`"), "{line}");
    }

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
