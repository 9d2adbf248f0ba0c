//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use eyas_shared::files;
use tch::{Kind, Tensor, no_grad};

use super::average::MovingAverage;
use super::batches::{Batch, BatchMaker, Loader, Pace, TrainingSet, Workers};
use super::compute::Compute;
use super::experiment::Experiment;
use super::loss::{Maps, Memory, Rows};
use super::loss_scale::{LossScale, Verdict};
use super::network::{Mode, TorchNetwork};
use super::objective::Objective;
use super::optimizer::{Group, Optimizer};
use super::run::LearnError;
use super::state::{Best, Mean, Progress, State};
use super::tuples::{self, EpochTuples};
use super::{checkpoint, freeze, gradients, quantize, schedule};
use crate::export::grid;
use crate::recipe::{self, Average, Keep, Recipe};
use crate::weights::Weights;

/// Who is told of progress; the trainer prints nothing itself.
pub trait Watch {
    /// Training starts or goes on at `step` of `n_steps`, `per_epoch` of them an epoch.
    fn started(&mut self, step: usize, n_steps: usize, per_epoch: usize);
    /// The tuples of an epoch, from 1, are about to be made; that can take as long as many
    /// steps.
    fn mining(&mut self, epoch: usize);
    /// A step is done; `loss` is the batch's.
    fn stepped(&mut self, step: usize, loss: f64, rate: f64);
    /// An epoch is done: mean loss of all its steps, also those before an interruption,
    /// recall_at_1 on the held-out part if there is one, seconds since the epoch or this
    /// process began.
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
    pub(super) batches: &'a BatchMaker,
    pub(super) network: &'a TorchNetwork,
    /// The network whose maps losses compare with.
    pub(super) teacher_network: Option<&'a TorchNetwork>,
    pub(super) compute: Compute,
    /// The step, from 0, from which weights are rounded.
    pub(super) first_rounded_step: Option<usize>,
    /// Names recipe, data, teacher and start.
    pub(super) experiment: Experiment,
    pub(super) checkpoint: &'a Path,
}

impl Training<'_> {
    /// Whether this step, from 0, sees rounded weights.
    fn rounds(&self, step: usize) -> bool {
        self.first_rounded_step.is_some_and(|first| first <= step)
    }
}

/// The step, from 0, from which weights are rounded, if the recipe has such steps.
pub(super) fn first_rounded_step(recipe: &Recipe, batches: &BatchMaker) -> Option<usize> {
    let epoch = recipe.first_rounded_epoch()?;
    Some(epoch * batches.steps_per_epoch())
}

/// Scores a network on the held-out part, if there is one.
pub(super) type Validate<'a> = dyn FnMut(&TorchNetwork) -> Result<Option<f64>, LearnError> + 'a;

/// What a step compares with, on the device that computes.
pub(super) struct Known {
    /// The teacher's embeddings of all images.
    teacher: Option<Tensor>,
    labels: Tensor,
}

/// Trains to the end, from the checkpoint if there is one, and returns the weights that
/// the recipe keeps.
pub(super) fn train(
    training: &Training<'_>,
    validate: &mut Validate<'_>,
    watch: &mut dyn Watch,
) -> Result<Weights, LearnError> {
    let Training { recipe, .. } = training;
    if let Some(fault) = training.batches.fault() {
        return Err(LearnError::Data(fault));
    }
    let per_epoch = training.batches.steps_per_epoch();
    let n_steps = per_epoch * recipe.epochs;
    let mut state = first_state(training);
    if training.checkpoint.exists() {
        checkpoint::restore(training.checkpoint, &training.experiment, &mut state)?;
    }
    let first_step = state.progress.step;
    watch.started(first_step, n_steps, per_epoch);

    let known = Known::new(training);
    let mut loader = loader_from(training, &mut state, n_steps, watch)?;
    let mut since = Instant::now();
    for step in first_step..n_steps {
        if step > first_step && step % per_epoch == 0 && state.tuples.is_some() {
            loader = loader_from(training, &mut state, n_steps, watch)?;
        }
        if step == first_step || step == recipe.stabilize.head_steps {
            let only_head = step < recipe.stabilize.head_steps;
            freeze::ask_for_gradients(training.network, &recipe.stabilize, only_head);
        }
        let batch = loader.next().map_err(LearnError::Image)?;
        let rate = schedule::rate_at(&recipe.schedule, step, n_steps);
        let of_batch =
            |fault: LearnError| fault.of_batch(|| training.batches.paths(&batch.image_idx));
        let loss = one_step(training, &mut state, &known, &batch, rate).map_err(of_batch)?;
        watch.stepped(step, loss, rate);
        let done = step + 1;
        if done % per_epoch == 0 {
            let loss = std::mem::take(&mut state.progress.epoch_loss).value();
            let epoch = done / per_epoch;
            let recall = end_epoch(training, &mut state, epoch, validate).map_err(of_batch)?;
            let seconds = since.elapsed().as_secs_f64();
            watch.epoch_ended(epoch, loss, recall, seconds);
            since = Instant::now();
        }
        if done % recipe.checkpoint_steps == 0 || done == n_steps {
            save(training, &state).map_err(of_batch)?;
        }
    }
    match recipe.keep {
        Keep::Last => current_weights(training, &state),
        Keep::Best => Ok(Weights::read(&best_path(training.checkpoint))?),
    }
}

/// Prepares batches from the next step on: to the end, or to the end of the epoch if its
/// tuples are made with the network as it is at its beginning.
fn loader_from(
    training: &Training<'_>,
    state: &mut State<'_>,
    n_steps: usize,
    watch: &mut dyn Watch,
) -> Result<Loader, LearnError> {
    let step = state.progress.step;
    let (recipe::Batch::Tuples(batch), Some(kept)) = (&training.recipe.batch, &mut state.tuples)
    else {
        return Ok(Loader::start(training.batches, step, n_steps, workers()));
    };
    let (epoch, within) = (
        step / batch.steps_per_epoch(),
        step % batch.steps_per_epoch(),
    );
    if within == 0 && step < n_steps {
        watch.mining(epoch + 1);
        *kept = tuples::of_epoch(training, batch, epoch)?.to_tensor();
    }
    let tuples = Arc::new(EpochTuples::from_tensor(kept));
    let end = n_steps.min((epoch + 1) * batch.steps_per_epoch());
    let batches = training.batches.with_tuples(tuples);
    Ok(Loader::start(&batches, step, end, workers()))
}

/// Threads that prepare batches: on a CPU as many as were asked for, beside a GPU those of
/// the machine.
pub(super) fn n_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = tch::get_num_threads().max(1) as usize;
    let n_workers = match tch::Cuda::is_available() {
        true => cores,
        false => asked,
    };
    n_workers.min(MAX_WORKERS)
}

/// Who prepares batches, and when: on a CPU whose cores all compute steps, between them.
pub(super) fn workers() -> Workers {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let free = tch::Cuda::is_available() || (tch::get_num_threads() as usize) < cores;
    Workers {
        n: n_workers(),
        pace: match free {
            true => Pace::BesideSteps,
            false => Pace::BetweenSteps,
        },
    }
}

/// More threads than this wait for the disk or for memory.
const MAX_WORKERS: usize = 8;

/// The best weights lie beside the checkpoint.
fn best_path(checkpoint: &Path) -> PathBuf {
    checkpoint.with_file_name("best.safetensors")
}

pub(super) fn first_state<'a>(training: &Training<'a>) -> State<'a> {
    let (recipe, set, network) = (training.recipe, training.set, training.network);
    let device = training.compute.device;
    let objective = Objective::new(recipe, set.n_labels, set.images.len(), device);
    State {
        network,
        optimizer: optimizer_for(recipe, network, &objective),
        objective,
        average: match recipe.stabilize.average {
            Average::None => None,
            Average::Ema(kept) => Some(MovingAverage::new(network, kept)),
        },
        tuples: match &recipe.batch {
            recipe::Batch::Tuples(batch) => Some(EpochTuples::no_tuples(batch)),
            _ => None,
        },
        progress: Progress {
            step: 0,
            optimizer: super::optimizer::Counts::default(),
            loss_scale: LossScale::new(recipe.precision),
            epoch_loss: Mean::default(),
            best: None,
        },
    }
}

fn optimizer_for(recipe: &Recipe, network: &TorchNetwork, objective: &Objective) -> Optimizer {
    let mut optimizer = Optimizer::new(recipe.optimizer);
    for shape in network.description.weights() {
        if !shape.trained {
            continue;
        }
        let is_head = shape.name.starts_with(crate::zoo::HEAD);
        let group = Group {
            rate_factor: if is_head {
                recipe.rate_factors.head
            } else if shape.name.starts_with("pool.") {
                recipe.rate_factors.pool
            } else {
                1.0
            },
            decays: shape.shape.len() > 1,
            rests_first: !is_head,
        };
        optimizer.add(&shape.name, &network.tensors[&shape.name], group);
    }
    objective.register(&mut optimizer);
    optimizer
}

/// One step with a batch; returns its loss. Nothing moves if a number is not finite.
pub(super) fn one_step(
    training: &Training<'_>,
    state: &mut State<'_>,
    known: &Known,
    batch: &Batch,
    rate: f64,
) -> Result<f64, LearnError> {
    let (stabilize, step) = (&training.recipe.stabilize, state.progress.step);
    state.optimizer.zero_gradients();
    let loss_tensor = batch_loss(training, &mut state.objective, known, batch, step)?;
    let scale = state.progress.loss_scale.scale();
    (&loss_tensor * scale).backward();
    let loss = loss_tensor.double_value(&[]);
    if !loss.is_finite() {
        return Err(LearnError::Diverged { step, loss });
    }
    let parameters = &state.optimizer.parameters;
    if scale != 1.0 {
        gradients::scale(parameters, 1.0 / scale);
    }
    let broken = gradients::first_broken(parameters);
    match state.progress.loss_scale.judge(broken.is_none()) {
        Verdict::Take => {
            gradients::clip(parameters, stabilize.clip);
            state.optimizer.step(rate, step < stabilize.head_steps);
            if let Some(average) = &mut state.average {
                average.add(state.network, state.optimizer.counts.of_head);
            }
        }
        Verdict::Skip => {}
        Verdict::Stop => {
            return Err(LearnError::BrokenGradient {
                step,
                name: broken.unwrap_or_default(),
            });
        }
    }
    state.progress.step += 1;
    state.progress.epoch_loss.add(loss);
    Ok(loss)
}

fn batch_loss(
    training: &Training<'_>,
    objective: &mut Objective,
    known: &Known,
    batch: &Batch,
    step: usize,
) -> Result<Tensor, LearnError> {
    let Training {
        recipe, compute, ..
    } = training;
    let side = i64::from(recipe.input.crop);
    let images = Tensor::from_slice(&batch.pixels)
        .view([-1, 3, side, side])
        .to_device(compute.device);
    let rounded = match training.rounds(step) {
        true => {
            let rounded = quantize::as_int8(training.network);
            Some(rounded.map_err(|fault| LearnError::Rounding { step, fault })?)
        }
        false => None,
    };
    let network = rounded.as_ref().unwrap_or(training.network);
    let (student, maps) = student_and_maps(training, network, &images);
    let student = student.to_kind(Kind::Float);

    let image_idx = positions(&batch.image_idx, compute).repeat([recipe.batch.views() as i64]);
    let of_rows = known.teacher.as_ref().map(|teacher| {
        if batch.teacher.is_empty() {
            teacher.index_select(0, &image_idx)
        } else {
            Tensor::from_slice(&batch.teacher)
                .view([-1, teacher.size()[1]])
                .to_device(compute.device)
        }
    });
    let memory = known.teacher.as_ref().map(|teacher| Memory {
        teacher,
        labels: &known.labels,
    });
    let tuples = match recipe.batch {
        recipe::Batch::Tuples(of) => {
            Some(positions(&batch.tuples, compute).view([of.tuples as i64, of.size() as i64]))
        }
        _ => None,
    };
    let rows = Rows {
        student: &student,
        teacher: of_rows.as_ref(),
        labels: &known.labels.index_select(0, &image_idx),
        image_idx: &image_idx,
        step,
        n_views: recipe.batch.views(),
        memory: memory.as_ref(),
        maps: maps.as_ref(),
        tuples: tuples.as_ref(),
    };
    Ok(objective.value(&rows).to_kind(Kind::Float))
}

/// Positions in the training set, where the rest is computed.
fn positions(image_idx: &[usize], compute: &Compute) -> Tensor {
    let image_idx: Vec<i64> = image_idx.iter().map(|&idx| idx as i64).collect();
    Tensor::from_slice(&image_idx).to_device(compute.device)
}

/// Output of the head, and the maps that losses compare if the recipe has such losses.
fn student_and_maps(
    training: &Training<'_>,
    network: &TorchNetwork,
    images: &Tensor,
) -> (Tensor, Option<Maps>) {
    let Some(teacher_network) = training.teacher_network else {
        return (network.head_output(images, Mode::Train), None);
    };
    let [of_student, of_teacher] = training.recipe.compared_nodes();
    let (output, student) = network.head_output_and_maps(images, Mode::Train, &of_student);
    let evaluate = || teacher_network.head_output_and_maps(images, Mode::Evaluate, &of_teacher);
    let (_, teacher) = no_grad(evaluate);
    (output, Some(Maps { student, teacher }))
}

impl Known {
    pub(super) fn new(training: &Training<'_>) -> Self {
        let device = training.compute.device;
        let teacher = training.set.teacher.as_ref().map(|embeddings| {
            let size = [embeddings.n_rows() as i64, embeddings.dim() as i64];
            Tensor::from_slice(embeddings.values())
                .view(size)
                .to_device(device)
        });
        let images = training.set.images.iter();
        let labels: Vec<i64> = images.map(|image| image.label).collect();
        Self {
            teacher,
            labels: Tensor::from_slice(&labels).to_device(device),
        }
    }
}

/// The weights that are validated and exported now.
fn current_weights(training: &Training<'_>, state: &State<'_>) -> Result<Weights, LearnError> {
    let exact = match &state.average {
        Some(average) => average.weights(),
        None => state.network.weights(),
    };
    Ok(match training.rounds(last_step(state)) {
        true => grid::on_grid(&training.network.description, &exact).map_err(|fault| {
            LearnError::Rounding {
                step: last_step(state),
                fault,
            }
        })?,
        false => exact,
    })
}

/// The step, from 0, that was taken last.
fn last_step(state: &State<'_>) -> usize {
    state.progress.step.saturating_sub(1)
}

/// Running statistics count, too: they are in the best weights, and training never reads them.
fn all_finite(state: &State<'_>) -> Result<(), LearnError> {
    let step = last_step(state);
    let broken = |name| LearnError::BrokenWeight { step, name };
    state
        .first_broken()
        .map_or(Ok(()), |name| Err(broken(name)))
}

/// Writes a checkpoint in place of the last one, or nothing if a number would be lost in it.
fn save(training: &Training<'_>, state: &State<'_>) -> Result<(), LearnError> {
    all_finite(state)?;
    checkpoint::save(training.checkpoint, &training.experiment, state)?;
    Ok(())
}

/// Validates, and keeps the weights if they are the best so far.
fn end_epoch(
    training: &Training<'_>,
    state: &mut State<'_>,
    epoch: usize,
    validate: &mut Validate<'_>,
) -> Result<Option<f64>, LearnError> {
    all_finite(state)?;
    let weights = current_weights(training, state)?;
    let description = training.network.description.clone();
    let network = TorchNetwork::new(description, &weights, training.compute.device)?;
    let Some(recall_at_1) = validate(&network)? else {
        return Ok(None);
    };
    let best = state.progress.best.map(|best| best.recall_at_1);
    // Exact weights are no rival of rounded ones: they are not what is asked for.
    let counts = training.first_rounded_step.is_none() || training.rounds(last_step(state));
    let keeps = training.recipe.keep == Keep::Best && counts;
    if keeps && best.is_none_or(|best| recall_at_1 > best) {
        let bytes = weights.to_bytes();
        files::replace(&best_path(training.checkpoint), &bytes)
            .map_err(checkpoint::CheckpointError::from)?;
        state.progress.best = Some(Best { epoch, recall_at_1 });
    }
    Ok(Some(recall_at_1))
}
