//! Entries of metrics, clustering and whitening: plain Rust, without gradients.

use std::collections::BTreeMap;

use serde_json::Value;
use tch::{Kind, Tensor};

use super::Entry;
use crate::evaluate::golden;
use crate::teacher::npy::Array;

/// Whether the entry is known; an error where it disagrees.
pub(super) fn compare(
    entry: &Entry,
    inputs: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, Tensor>,
) -> Result<bool, String> {
    let (inputs, wanted) = (plain(inputs), plain(expected));
    let args = Value::Object(entry.args.clone());
    let plain_entry = golden::Entry {
        repo: &entry.repo,
        cls: &entry.cls,
        args: &args,
        inputs: &inputs,
    };
    let computed = golden::check_entry(&plain_entry, &wanted).map_err(|err| err.to_string())?;
    match computed {
        None => Ok(false),
        Some(found) => golden::differs(&found, &wanted).map_or(Ok(true), Err),
    }
}

fn plain(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Array> {
    let array = |(name, tensor): (&String, &Tensor)| (name.clone(), array_of(tensor));
    tensors.iter().map(array).collect()
}

fn array_of(tensor: &Tensor) -> Array {
    let extents = tensor.size();
    let flat = tensor.to_kind(Kind::Double).contiguous().view(-1);
    Array {
        shape: extents.iter().map(|&extent| extent as usize).collect(),
        values: Vec::try_from(flat).expect("a flat f64 tensor on the CPU"),
    }
}
