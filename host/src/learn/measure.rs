//! How fast a recipe trains: its loader alone, its steps alone, and both together.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use eyas_shared::embedding::Embeddings;
use eyas_shared::random::Random;

use super::batches::{Batch, BatchMaker, Loader};
use super::experiment::Experiment;
use super::freeze;
use super::run::{Inputs, LearnError, batch_maker, first_network, teacher_network, training_set};
use super::state::State;
use super::trainer::{Known, Training, first_rounded_step, first_state, one_step, workers};
use super::tuples;
use crate::recipe::{self, TeacherViews};

/// Steps before the clock starts: memory is allocated, kernels are chosen.
const WARMUP_STEPS: usize = 3;

/// Inputs of the network (images times views) per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Images read, decoded and augmented, without training.
    pub loader: f64,
    /// Steps on one batch of random numbers, without a loader.
    pub training: f64,
    /// Training on the images.
    pub together: f64,
    /// When `training` was measured.
    pub training_window: Window,
    /// When `together` was measured.
    pub together_window: Window,
}

/// When something was measured, in seconds since 1970: samples that others took meanwhile,
/// such as a GPU's busy share, are laid beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Its beginning.
    pub since: f64,
    /// Its end.
    pub until: f64,
}

/// Seconds of some work, and when it was done.
fn timed(work: impl FnOnce() -> Result<(), LearnError>) -> Result<(f64, Window), LearnError> {
    let now = || {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.map_or(0.0, |since| since.as_secs_f64())
    };
    let (since, started) = (now(), Instant::now());
    work()?;
    let seconds = started.elapsed().as_secs_f64();
    let window = Window {
        since,
        until: now(),
    };
    Ok((seconds, window))
}

/// Measures `n_steps` steps of each kind. Every image is decoded anew, as in a first epoch.
/// A student's targets are random directions: no teacher is needed.
///
/// # Errors
/// [`LearnError`] if an image can not be read, or the recipe lets the teacher embed views.
pub fn measure(inputs: &Inputs<'_>, n_steps: usize) -> Result<Speed, LearnError> {
    let recipe = Arc::new(inputs.recipe.clone());
    let teacher = match recipe.teacher_views {
        TeacherViews::None => None,
        TeacherViews::Cached => Some(random_directions(inputs)),
        TeacherViews::Online | TeacherViews::CachedViews(_) => {
            return Err(LearnError::Data(
                "the speed of views that the teacher embeds is the teacher's: measure a recipe \
                 whose teacher_views is cached"
                    .to_owned(),
            ));
        }
    };
    let set = training_set(inputs.training, teacher)?.with_pairs(&inputs.pairs);
    let (network, _) = first_network(inputs)?;
    let batches = batch_maker(&recipe, &set, None)?;
    let teacher_network = teacher_network(inputs)?;
    let training = Training {
        recipe: &recipe,
        set: &set,
        batches: &batches,
        network: &network,
        teacher_network: teacher_network.as_ref(),
        compute: inputs.compute,
        first_rounded_step: first_rounded_step(&recipe, &batches),
        experiment: Experiment::default(),
        checkpoint: &inputs.checkpoint,
    };
    freeze::ask_for_gradients(&network, &recipe.stabilize, false);
    let known = Known::new(&training);
    let mut state = first_state(&training);
    if let Some(fault) = batches.fault() {
        return Err(LearnError::Data(fault));
    }
    let tuples = match &recipe.batch {
        recipe::Batch::Tuples(batch) => Some(Arc::new(tuples::of_epoch(&training, batch, 0)?)),
        _ => None,
    };
    // Images that nobody has decoded yet.
    let fresh = || -> Result<BatchMaker, LearnError> {
        let batches = batch_maker(&recipe, &set, None)?;
        Ok(match &tuples {
            Some(tuples) => batches.with_tuples(Arc::clone(tuples)),
            None => batches,
        })
    };
    let random = random_batch(&fresh()?);
    let rows = (n_steps * recipe.batch.rows()) as f64;

    let (seconds_of_steps, training_window) =
        on_random(&training, &mut state, &known, &random, n_steps)?;
    let seconds_of_loader = loading(&fresh()?, n_steps)?;
    let mut loader = Loader::start(&fresh()?, 0, n_steps, workers());
    let (seconds_of_both, together_window) = timed(|| {
        for _ in 0..n_steps {
            let batch = loader.next().map_err(LearnError::Image)?;
            one_step(&training, &mut state, &known, &batch, RATE)?;
        }
        Ok(())
    })?;
    Ok(Speed {
        loader: rows / seconds_of_loader,
        training: rows / seconds_of_steps,
        together: rows / seconds_of_both,
        training_window,
        together_window,
    })
}

/// Far too small to diverge on random targets.
const RATE: f64 = 1e-9;

fn random_directions(inputs: &Inputs<'_>) -> Embeddings {
    let mut random = Random::new(inputs.recipe.seed).fork("directions");
    let n_values = inputs.training.images.len() * inputs.recipe.dim;
    let values = (0..n_values).map(|_| random.normal() as f32).collect();
    let mut rows = Embeddings::from_values(inputs.recipe.dim, values)
        .expect("as many values as rows of this dimension");
    rows.normalize_rows();
    rows
}

/// The images of the first step, with random numbers as pixels.
fn random_batch(batches: &BatchMaker) -> Batch {
    let image_idx = batches.sampler().images_of_step(0).to_vec();
    let side = batches.recipe.input.crop as usize;
    let n_rows = image_idx.len() * batches.recipe.batch.views();
    let mut random = Random::new(batches.recipe.seed).fork("pixels");
    let pixels = (0..n_rows * 3 * side * side).map(|_| random.normal() as f32);
    Batch {
        pixels: pixels.collect(),
        image_idx,
        teacher: Vec::new(),
        tuples: batches.tuples_of_step(0),
    }
}

/// Seconds of `n_steps` steps on one batch. Each step's loss is read, so that a GPU is
/// waited for.
fn on_random(
    training: &Training<'_>,
    state: &mut State<'_>,
    known: &Known,
    batch: &Batch,
    n_steps: usize,
) -> Result<(f64, Window), LearnError> {
    for _ in 0..WARMUP_STEPS {
        one_step(training, state, known, batch, RATE)?;
    }
    timed(|| {
        for _ in 0..n_steps {
            one_step(training, state, known, batch, RATE)?;
        }
        Ok(())
    })
}

/// Seconds of preparing the batches of `n_steps` steps.
fn loading(batches: &BatchMaker, n_steps: usize) -> Result<f64, LearnError> {
    let mut loader = Loader::start(batches, 0, n_steps, workers());
    let since = Instant::now();
    for _ in 0..n_steps {
        loader.next().map_err(LearnError::Image)?;
    }
    Ok(since.elapsed().as_secs_f64())
}
