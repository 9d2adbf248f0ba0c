//! The training loop.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use eyas_shared::fingerprint::Fingerprint;
use tch::{Kind, Tensor};

use super::batches::{Batch, ImageStore, Loader, TrainingSet, steps_per_epoch};
use super::compute::Compute;
use super::loss::{Memory, Rows};
use super::network::{Mode, TorchNetwork};
use super::objective::Objective;
use super::optimizer::AdamW;
use super::run::LearnError;
use super::{checkpoint, schedule};
use crate::recipe::Recipe;

/// Who is told of progress; the trainer prints nothing itself.
pub trait Watch {
    /// Training starts or goes on at `step` of `n_steps`, `per_epoch` of them an epoch.
    fn started(&mut self, step: usize, n_steps: usize, per_epoch: usize);
    /// A step is done; `loss` is the batch's.
    fn stepped(&mut self, step: usize, loss: f64, rate: f64);
    /// An epoch is done: mean loss, recall_at_1 on the held-out part if there is one, seconds.
    fn epoch_ended(
        &mut self,
        epoch: usize,
        loss: f64,
        validation_recall_at_1: Option<f64>,
        seconds: f64,
    );
}

/// A network in training.
pub(super) struct Training<'a> {
    pub(super) recipe: &'a Arc<Recipe>,
    pub(super) set: &'a TrainingSet,
    pub(super) store: &'a Arc<ImageStore>,
    pub(super) network: &'a TorchNetwork,
    pub(super) compute: Compute,
    /// Names recipe, data, teacher and start.
    pub(super) experiment: Fingerprint,
    pub(super) checkpoint: &'a Path,
}

/// Trains to the end, from the checkpoint if there is one. `validate` scores the network
/// after an epoch.
pub(super) fn train(
    training: &Training<'_>,
    validate: &mut dyn FnMut() -> Result<Option<f64>, LearnError>,
    watch: &mut dyn Watch,
) -> Result<(), LearnError> {
    let Training {
        recipe,
        set,
        network,
        compute,
        ..
    } = training;
    let (n_labels, n_images) = (set.n_labels, set.images.len());
    let mut objective = Objective::new(recipe, n_labels, n_images, compute.device);
    let mut optimizer = optimizer_for(recipe, network, &objective);
    let per_epoch = steps_per_epoch(set.images.len(), recipe);
    let n_steps = per_epoch * recipe.epochs;
    let mut first_step = 0;
    if training.checkpoint.exists() {
        let path = training.checkpoint;
        first_step =
            checkpoint::restore(path, training.experiment, network, &objective, &optimizer)?
                .min(n_steps);
    }
    watch.started(first_step, n_steps, per_epoch);

    let n_workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    let mut loader = Loader::start(training.store, recipe, first_step, n_steps, n_workers);
    let teacher = set.teacher.as_ref().map(|embeddings| {
        let size = [embeddings.n_rows() as i64, embeddings.dim() as i64];
        Tensor::from_slice(embeddings.values())
            .view(size)
            .to_device(compute.device)
    });
    let labels: Vec<i64> = set.images.iter().map(|image| image.label).collect();
    let labels = Tensor::from_slice(&labels).to_device(compute.device);
    let memory = teacher.as_ref().map(|teacher| Memory {
        teacher,
        labels: &labels,
    });
    let (mut loss_sum, mut losses, mut since) = (0.0, 0, Instant::now());
    for step in first_step..n_steps {
        let batch = loader.next().map_err(LearnError::Image)?;
        let rate = schedule::rate_at(&recipe.rate, step, n_steps);
        optimizer.zero_gradients();
        let loss = batch_loss(
            training,
            &mut objective,
            &labels,
            memory.as_ref(),
            &batch,
            step,
        );
        loss.backward();
        let loss = loss.double_value(&[]);
        if !loss.is_finite() {
            return Err(LearnError::Diverged { step, loss });
        }
        optimizer.step(step + 1, rate);
        watch.stepped(step, loss, rate);
        (loss_sum, losses) = (loss_sum + loss, losses + 1);

        let done = step + 1;
        if done % per_epoch == 0 {
            if let Some(name) = optimizer.first_broken() {
                return Err(LearnError::BrokenWeight {
                    step,
                    name: name.to_owned(),
                });
            }
            let seconds = since.elapsed().as_secs_f64();
            watch.epoch_ended(
                done / per_epoch,
                loss_sum / f64::from(losses),
                validate()?,
                seconds,
            );
            (loss_sum, losses, since) = (0.0, 0, Instant::now());
        }
        if done % recipe.checkpoint_steps == 0 || done == n_steps {
            let path = training.checkpoint;
            checkpoint::save(
                path,
                training.experiment,
                done,
                network,
                &objective,
                &optimizer,
            )?;
        }
    }
    Ok(())
}

fn optimizer_for(recipe: &Recipe, network: &TorchNetwork, objective: &Objective) -> AdamW {
    let mut optimizer = AdamW::new();
    for shape in network
        .description
        .weights()
        .iter()
        .filter(|shape| shape.trained)
    {
        let is_head = shape.name.starts_with(crate::zoo::HEAD);
        let factor = if is_head {
            recipe.rate.head_factor
        } else {
            1.0
        };
        let decay = if shape.shape.len() > 1 {
            recipe.weight_decay
        } else {
            0.0
        };
        optimizer.add(&shape.name, &network.tensors[&shape.name], factor, decay);
    }
    objective.register(&mut optimizer);
    optimizer
}

fn batch_loss(
    training: &Training<'_>,
    objective: &mut Objective,
    labels: &Tensor,
    memory: Option<&Memory<'_>>,
    batch: &Batch,
    step: usize,
) -> Tensor {
    let Training {
        recipe,
        network,
        compute,
        ..
    } = training;
    let side = i64::from(recipe.input.crop);
    let images = Tensor::from_slice(&batch.pixels)
        .view([-1, 3, side, side])
        .to_device(compute.device);
    let student = network.head_output(&images, Mode::Train);

    let image_idx: Vec<i64> = batch.image_idx.iter().map(|&idx| idx as i64).collect();
    let image_idx = Tensor::from_slice(&image_idx)
        .repeat([recipe.batch.views as i64])
        .to_device(compute.device);
    let teacher = memory.map(|memory| memory.teacher.index_select(0, &image_idx));
    let rows = Rows {
        student: &student,
        teacher: teacher.as_ref(),
        labels: &labels.index_select(0, &image_idx),
        image_idx: &image_idx,
        step,
        n_views: recipe.batch.views,
        memory,
    };
    objective.value(&rows).to_kind(Kind::Float)
}
