//! All recorded entries, where the files are present.

use std::path::PathBuf;

use eyas_device::matcher::Matcher;
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Codes, Gallery, GallerySource};

use super::*;
use crate::evaluate::protocols::{Queries, Retrieval, retrieval};
use crate::teacher::npy;

struct Recorded {
    id: String,
    repo: String,
    cls: String,
    args: Value,
    inputs: BTreeMap<String, Array>,
    outputs: BTreeMap<String, Array>,
}

/// Entries of case `eval`; none, with a message, where the files are not.
fn recorded() -> Vec<Recorded> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let Ok(index) = std::fs::read_to_string(folder.join("index.json")) else {
        eprintln!("skipped: there is no {}", folder.display());
        return Vec::new();
    };
    let index: Value = serde_json::from_str(&strict_json(&index)).unwrap();
    let arrays = npy::read_arrays(&folder.join("eval.npz")).unwrap();
    let entries = index["entries"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let by_name = |named: &Value, key: fn(&Value) -> &Value| {
        let named = named.as_object().unwrap().iter();
        let array = |value| arrays[key(value).as_str().unwrap()].clone();
        named
            .map(|(name, value)| (name.clone(), array(value)))
            .collect()
    };
    entries
        .filter(|entry| entry["case"] == "eval")
        .map(|entry| Recorded {
            id: text(&entry["id"]),
            repo: text(&entry["repo"]),
            cls: text(&entry["cls"]),
            args: entry["args"].clone(),
            inputs: by_name(&entry["inputs"], |value| &value["key"]),
            outputs: by_name(&entry["outputs"], |value| value),
        })
        .collect()
}

impl Recorded {
    fn check(&self, inputs: &BTreeMap<String, Array>) -> Result<Option<Outputs>, EntryFault> {
        let entry = Entry {
            repo: &self.repo,
            cls: &self.cls,
            args: &self.args,
            inputs,
        };
        check_entry(&entry, &self.outputs)
    }
}

#[test]
fn every_recorded_evaluation_is_reproduced() {
    for recorded in recorded() {
        let found = recorded.check(&recorded.inputs).unwrap();
        let found = found.unwrap_or_else(|| panic!("{} is not known", recorded.id));
        assert_eq!(differs(&found, &recorded.outputs), None, "{}", recorded.id);
    }
}

#[test]
fn an_entry_with_a_missing_or_misshapen_input_is_a_fault() {
    for recorded in recorded() {
        for name in recorded.inputs.keys().filter(|name| *name != "Q") {
            let mut inputs = recorded.inputs.clone();
            inputs.remove(name);
            // Of Oxford and Paris the recorded order is read, not the descriptors.
            if !recorded.inputs.contains_key("ranks") || name != "X" {
                let found = recorded.check(&inputs);
                assert!(!matches!(found, Ok(Some(_))), "{} {name}", recorded.id);
            }
            let odd = Array {
                shape: vec![1],
                values: vec![-0.5],
            };
            inputs.insert(name.clone(), odd);
            // No panic, whatever comes out.
            let _ = recorded.check(&inputs);
        }
    }
}

#[test]
fn bare_words_of_python_become_null_outside_of_text() {
    let text = r#"{"NaN \" NaN": [NaN, -Infinity, "Infinity\\"], "a": Infinity}"#;
    let expected = r#"{"NaN \" NaN": [null, null, "Infinity\\"], "a": null}"#;
    assert_eq!(strict_json(text), expected);
}

#[test]
fn differences_are_named() {
    let wanted = |values: &[f64]| -> BTreeMap<String, Array> {
        let array = Array {
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        [("map".to_owned(), array)].into()
    };
    let found = |values: &[f64]| Outputs::from([("map".to_owned(), values.to_vec())]);
    let said = |a: &[f64], b: &[f64]| differs(&found(a), &wanted(b));
    assert_eq!(said(&[0.5, f64::NAN], &[0.5, f64::NAN]), None);
    assert_eq!(
        said(&[0.5, 0.1], &[0.5, 0.2]).unwrap(),
        "`map` is 0.1 instead of 0.2"
    );
    assert!(said(&[f64::NAN], &[0.5]).unwrap().contains("is NaN"));
    assert!(said(&[0.5], &[0.5, 0.5]).unwrap().contains("1 numbers"));
    assert!(
        differs(&Outputs::new(), &wanted(&[1.0]))
            .unwrap()
            .contains("not computed")
    );
}

/// Image `i` of a case has the id `i`, also in the gallery: query and item are one image.
fn search(queries: &Array, searched: &Array, labels: &Array) -> Retrieval {
    let dim = queries.shape[1];
    let unit = |values: &[f64]| -> Embeddings {
        let mut rows = Embeddings::new(dim);
        for row in values.chunks(dim) {
            let norm = dot(row, row).sqrt();
            let row: Vec<f32> = row.iter().map(|x| (x / norm) as f32).collect();
            rows.push(&row);
        }
        rows
    };
    let labels: Vec<String> = labels.values.iter().map(ToString::to_string).collect();
    let ids: Vec<ImageId> = (0..labels.len()).map(|i| ImageId([i as u8; 16])).collect();
    let entries: Vec<gallery::Entry<'_>> = { ids.iter().zip(&labels) }
        .map(|(&id, label)| gallery::Entry {
            id,
            label,
            name: "",
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([0; 32])),
        teacher: String::new(),
        manifest: Fingerprint([0; 32]),
        codes: Codes::F32,
    };
    let bytes = gallery::write(&source, &unit(&searched.values), &entries).unwrap();
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    let queries = Queries {
        embeddings: unit(&queries.values),
        ids,
        labels: labels.clone(),
    };
    retrieval(&queries, &matcher).unwrap()
}

#[test]
fn asymmetric_scores_of_the_device_matcher_agree_with_the_reference() {
    let is_asymmetric = |entry: &Recorded| entry.outputs.contains_key("map_at_r");
    for entry in recorded().into_iter().filter(is_asymmetric) {
        let input = |name: &str| &entry.inputs[name];
        let found = search(input("student"), input("teacher"), input("labels"));
        let close = |found: f64, name: &str| {
            let expected = entry.outputs[name].values[0];
            assert!((found - expected).abs() < TOLERANCE, "{} {name}", entry.id);
        };
        close(found.means.recall_at_1, "recall_at_1");
        close(found.means.mean_average_precision_at_r, "map_at_r");
        // Every image is in the gallery too, and leaves itself out.
        let n_images = found.queries.len();
        let mut queries = found.queries.iter();
        assert!(queries.all(|query| query.n_searched == n_images - 1));
    }
}
