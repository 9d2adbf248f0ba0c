//! Everything that training needs to go on where it was. Random numbers follow from the
//! step and need no state.

use std::collections::HashMap;
use std::path::Path;

use eyas_shared::files::{self, FileError};
use eyas_shared::quant;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tch::no_grad;
use thiserror::Error;

use super::experiment::Experiment;
use super::network::{tensor_of, values_of};
use super::state::{Progress, State};
use crate::weights::Weight;

const MAX_BYTES: u64 = 16 << 30;

/// The one key of the file's metadata: a second one would come in random order.
const KEY: &str = "eyas";

const SCHEMA: &str = "eyas.checkpoint/2";

/// Why a checkpoint can not be gone on from, or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is damaged.
    #[error("checkpoint `{path}` is damaged: {what}")]
    Damaged {
        /// Which file.
        path: String,
        /// How.
        what: String,
    },
    /// It belongs to another experiment.
    #[error(
        "checkpoint `{path}` belongs to another experiment:\n{}",
        changes.join("\n")
    )]
    OtherExperiment {
        /// Which file.
        path: String,
        /// One line per changed key, `key: old -> new`.
        changes: Vec<String>,
    },
}

/// The text in a checkpoint's metadata.
#[derive(Serialize, Deserialize)]
struct Note {
    schema: String,
    progress: Progress,
    experiment: Experiment,
}

/// Writes a checkpoint of finite numbers in place of the last one.
pub(super) fn save(
    path: &Path,
    experiment: &Experiment,
    state: &State<'_>,
) -> Result<(), CheckpointError> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, tensor) in state.tensors() {
        let values = values_of(tensor);
        let extents = tensor.size();
        let shape = extents.iter().map(|&extent| extent as usize).collect();
        tensors.push((name, shape, quant::f32_bytes(&values)));
    }
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data);
        (name.as_str(), view.expect("values fill the shape"))
    });
    let note = Note {
        schema: SCHEMA.to_owned(),
        progress: Progress {
            optimizer: state.optimizer.counts,
            ..state.progress.clone()
        },
        experiment: experiment.clone(),
    };
    let note = serde_json::to_string(&note).expect("names and numbers have a JSON form");
    let bytes = safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), note)])))
        .expect("names, shapes and metadata have a JSON form");
    Ok(files::replace(path, &bytes)?)
}

fn note_of(metadata: &Metadata) -> Result<Note, String> {
    let text = metadata.metadata().as_ref().and_then(|all| all.get(KEY));
    let text = text.ok_or("it was written by another version of eyas, or something else")?;
    let note: Note = serde_json::from_str(text).map_err(|err| err.to_string())?;
    if note.schema != SCHEMA {
        return Err(format!("it is `{}`, not `{SCHEMA}`", note.schema));
    }
    Ok(note)
}

/// Restores what [`save`] wrote.
pub(super) fn restore(
    path: &Path,
    experiment: &Experiment,
    state: &mut State<'_>,
) -> Result<(), CheckpointError> {
    let shown = || path.display().to_string();
    let damaged = |what: String| CheckpointError::Damaged {
        path: shown(),
        what,
    };
    let bytes = files::read(path, MAX_BYTES)?;
    let (_, metadata) =
        SafeTensors::read_metadata(&bytes).map_err(|err| damaged(err.to_string()))?;
    let stored = SafeTensors::deserialize(&bytes).map_err(|err| damaged(err.to_string()))?;
    let note = note_of(&metadata).map_err(damaged)?;
    let changes = note.experiment.changes_to(experiment);
    if !changes.is_empty() {
        return Err(CheckpointError::OtherExperiment {
            path: shown(),
            changes,
        });
    }
    for (name, tensor) in state.tensors() {
        let view = stored
            .tensor(&name)
            .map_err(|err| damaged(err.to_string()))?;
        let extents: Vec<i64> = view.shape().iter().map(|&extent| extent as i64).collect();
        if extents != tensor.size() || view.dtype() != Dtype::F32 {
            return Err(damaged(format!("tensor `{name}` has shape {extents:?}")));
        }
        let weight = Weight {
            shape: view.shape().to_vec(),
            values: quant::f32_from_bytes(view.data()),
        };
        no_grad(|| {
            tensor
                .shallow_clone()
                .copy_(&tensor_of(&weight, tensor.device()))
        });
    }
    state.optimizer.counts = note.progress.optimizer;
    state.progress = note.progress;
    Ok(())
}
