//! Everything that training needs to go on where it was: weights, running statistics,
//! moments and the step. Random numbers follow from the step and need no state.

use std::collections::HashMap;
use std::path::Path;

use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::quant;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Tensor, no_grad};
use thiserror::Error;

use super::network::{TorchNetwork, tensor_of, values_of};
use super::objective::Objective;
use super::optimizer::Optimizer;
use crate::weights::Weight;

const MAX_BYTES: u64 = 16 << 30;

/// Why a checkpoint can not be gone on from.
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
        "checkpoint `{path}` belongs to another experiment: recipe, data, teacher or starting weights differ"
    )]
    OtherExperiment {
        /// Which file.
        path: String,
    },
}

/// What a checkpoint holds: names of tensors, each with what it is.
fn tensors<'a>(
    network: &'a TorchNetwork,
    objective: &'a Objective,
    optimizer: &'a Optimizer,
) -> Vec<(String, &'a Tensor)> {
    let mut tensors = Vec::new();
    for (name, tensor) in &network.tensors {
        tensors.push((format!("value/{name}"), tensor));
    }
    for (name, tensor) in objective.tensors() {
        tensors.push((format!("value/{name}"), tensor));
    }
    for (name, parameter) in &optimizer.parameters {
        for (kind, tensor) in &parameter.state {
            tensors.push((format!("{kind}/{name}"), tensor));
        }
    }
    tensors
}

/// Writes a checkpoint after `step` finished steps. `experiment` names recipe, data,
/// teacher and start.
pub(super) fn save(
    path: &Path,
    experiment: Fingerprint,
    step: usize,
    network: &TorchNetwork,
    objective: &Objective,
    optimizer: &Optimizer,
) -> Result<(), CheckpointError> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(network, objective, optimizer)
        .into_iter()
        .map(|(name, tensor)| {
            let shape = tensor
                .size()
                .iter()
                .map(|&extent| extent as usize)
                .collect();
            (name, shape, quant::f32_bytes(&values_of(tensor)))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data);
        (name.as_str(), view.expect("values fill the shape"))
    });
    let metadata = HashMap::from([
        ("step".to_owned(), step.to_string()),
        ("experiment".to_owned(), experiment.to_string()),
    ]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .expect("names, shapes and metadata have a JSON form");
    Ok(files::replace(path, &bytes)?)
}

/// Restores what [`save`] wrote and returns the number of finished steps.
pub(super) fn restore(
    path: &Path,
    experiment: Fingerprint,
    network: &TorchNetwork,
    objective: &Objective,
    optimizer: &Optimizer,
) -> Result<usize, CheckpointError> {
    let shown = || path.display().to_string();
    let damaged = |what: String| CheckpointError::Damaged {
        path: shown(),
        what,
    };
    let bytes = files::read(path, MAX_BYTES)?;
    let (_, metadata) =
        SafeTensors::read_metadata(&bytes).map_err(|err| damaged(err.to_string()))?;
    let stored = SafeTensors::deserialize(&bytes).map_err(|err| damaged(err.to_string()))?;
    let entry = |key: &str| metadata.metadata().as_ref()?.get(key).cloned();
    if entry("experiment") != Some(experiment.to_string()) {
        return Err(CheckpointError::OtherExperiment { path: shown() });
    }
    let step = entry("step").and_then(|step| step.parse().ok());
    let step = step.ok_or_else(|| damaged("it names no step".to_owned()))?;
    for (name, tensor) in tensors(network, objective, optimizer) {
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
    Ok(step)
}
