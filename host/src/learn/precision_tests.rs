//! Real steps in 16 bits, beside the same steps in f32: what a CPU can show of training on a
//! GPU.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::random::Random;
use tch::Tensor;

use super::batches::Batch;
use super::compute::{Compute, ComputeChoice};
use super::experiment::Experiment;
use super::freeze;
use super::loss_scale::LossScale;
use super::network::values_of;
use super::optimizer::Counts;
use super::run::{Inputs, batch_maker, first_network, training_set};
use super::state::State;
use super::trainer::{Known, Training, first_rounded_step, first_state, one_step};
use crate::data::manifest::{Image, Manifest};
use crate::recipe::{self, Average, Precision, Recipe};
use crate::zoo::Op;

const N_IMAGES: u8 = 8;

/// A small student of everything that a step can change: moments, averages, running
/// statistics.
fn recipe(precision: Precision) -> Recipe {
    let mut recipe = recipe::example();
    recipe.architecture = "eyas-xs".to_owned();
    recipe.dim = 16;
    (recipe.input.resize_shorter, recipe.input.crop) = (64, 64);
    recipe.precision = precision;
    recipe.stabilize.average = Average::Ema(0.9);
    recipe
}

/// Lets `check` take steps of a recipe from its first weights, always with the same batch.
/// No image is read.
fn in_training<T>(
    recipe: Recipe,
    check: impl FnOnce(&Training<'_>, &mut State<'_>, &Known, &Batch) -> T,
) -> T {
    let image = |i: u8| Image {
        path: format!("{i}.jpg"),
        label: (i / 2).to_string(),
        split: "train".to_owned(),
        is_query: false,
        is_gallery: true,
        id: ImageId([i; 16]),
    };
    let manifest = Manifest {
        root: PathBuf::new(),
        images: (0..N_IMAGES).map(image).collect(),
    };
    let validation = Manifest {
        root: PathBuf::new(),
        images: Vec::new(),
    };
    let inputs = Inputs {
        recipe,
        training: &manifest,
        validation: &validation,
        start: None,
        teacher_network: None,
        pairs: Vec::new(),
        compute: Compute::choose(ComputeChoice::Cpu, None).unwrap(),
        checkpoint: PathBuf::new(),
    };
    let recipe = Arc::new(inputs.recipe.clone());
    let mut random = Random::new(7);
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| random.normal() as f32).collect() };
    let mut teacher =
        Embeddings::from_values(recipe.dim, normal(usize::from(N_IMAGES) * recipe.dim)).unwrap();
    teacher.normalize_rows();
    let set = training_set(&manifest, Some(teacher)).unwrap();
    let (network, _) = first_network(&inputs).unwrap();
    let batches = batch_maker(&recipe, &set, None).unwrap();
    let training = Training {
        recipe: &recipe,
        set: &set,
        batches: &batches,
        network: &network,
        teacher_network: None,
        compute: inputs.compute,
        first_rounded_step: first_rounded_step(&recipe, &batches),
        experiment: Experiment::default(),
        checkpoint: &inputs.checkpoint,
    };
    freeze::ask_for_gradients(&network, &recipe.stabilize, false);
    let known = Known::new(&training);
    let mut state = first_state(&training);
    let side = recipe.input.crop as usize;
    let batch = Batch {
        pixels: normal(usize::from(N_IMAGES) * 3 * side * side),
        image_idx: (0..usize::from(N_IMAGES)).collect(),
        teacher: Vec::new(),
        tuples: Vec::new(),
    };
    check(&training, &mut state, &known, &batch)
}

/// Loss and gradients of one step that moves nothing, and the number of convolutions.
fn loss_and_gradients(precision: Precision) -> (f64, Vec<f32>, usize) {
    in_training(recipe(precision), |training, state, known, batch| {
        let loss = one_step(training, state, known, batch, 0.0).unwrap();
        let gradients = state.optimizer.parameters.values();
        let gradients = gradients.flat_map(|parameter| values_of(&parameter.value.grad()));
        let nodes = &training.network.description.nodes;
        let n_convolutions = nodes
            .iter()
            .filter(|node| matches!(node.op, Op::Conv { .. }));
        (loss, gradients.collect(), n_convolutions.count())
    })
}

/// Length of the difference in multiples of the length of `exact`.
fn relative_error(found: &[f32], exact: &[f32]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = found.iter().zip(exact);
    let mut apart = pairs.map(|(a, b)| f64::from(*a) - f64::from(*b));
    length(&mut apart) / length(&mut exact.iter().map(|x| f64::from(*x)))
}

/// Half a unit in the last of 8 and of 11 bits: the rounding of one number.
const UNIT_ROUNDOFFS: [(Precision, f64); 2] = [
    (Precision::Bf16, 1.0 / 256.0),
    (Precision::F16, 1.0 / 2048.0),
];

/// Of the loss, a mean over the batch in which roundings average out, in unit roundoffs.
const OF_LOSS: f64 = 4.0;

/// Roundings on the way forward through one convolution: input, weights, output. Where they
/// change the sign that a ReLU sees, the whole gradient of that place comes or goes, and the
/// share of such places is at most the relative error of what the ReLU reads. So the square of
/// the gradients' relative error is bounded by all convolutions' roundings, and three bits more
/// make it smaller by the square root of 8.
const ROUNDINGS: f64 = 3.0;

#[test]
fn a_step_in_16_bits_agrees_with_f32_within_its_rounding() {
    let (exact_loss, exact, _) = loss_and_gradients(Precision::F32);
    let mut errors = Vec::new();
    for (precision, unit) in UNIT_ROUNDOFFS {
        let (loss, gradients, n_convolutions) = loss_and_gradients(precision);
        let of_loss = (loss - exact_loss).abs() / exact_loss;
        assert!(of_loss < OF_LOSS * unit, "{precision:?} loss: {of_loss}");
        let error = relative_error(&gradients, &exact);
        let bound = (ROUNDINGS * n_convolutions as f64 * unit).sqrt();
        println!("{precision:?}: loss {of_loss:.5}, gradients {error:.3}, at most {bound:.2}");
        assert!(error < bound, "{precision:?} gradients: {error}, {bound}");
        // Nearer than one number's rounding, nothing would have been rounded.
        assert!(error > unit, "{precision:?} gradients: {error}");
        errors.push(error);
    }
    let ratio = errors[0] / errors[1];
    assert!((2.0..4.0).contains(&ratio), "{errors:?}");
}

/// All tensors of a checkpoint by name. Running statistics follow the forward pass, also of a
/// step that is skipped, as PyTorch's do beside its gradient scaler.
fn tensors(state: &State<'_>) -> BTreeMap<String, Vec<f32>> {
    let is_statistic = |name: &str| name.starts_with("value/") && name.contains(".running_");
    let named = state.tensors().into_iter();
    named
        .filter(|(name, _)| !is_statistic(name))
        .map(|(name, tensor): (String, &Tensor)| (name, values_of(tensor)))
        .collect()
}

/// Far above the first scale, so that gradients overflow whatever they are.
const TOO_LARGE: i32 = 60;

#[test]
fn a_step_whose_gradients_overflow_moves_nothing_and_halves_the_scale() {
    in_training(recipe(Precision::F16), |training, state, known, batch| {
        state.progress.loss_scale = LossScale::at(TOO_LARGE);
        let before = tensors(state);
        assert!(before.keys().any(|name| name.starts_with("first_moment/")));
        assert!(before.keys().any(|name| name.starts_with("average/")));
        let mut n_skipped = 0;
        let scale = loop {
            let scale = state.progress.loss_scale.scale();
            let loss = one_step(training, state, known, batch, 1e-3).unwrap();
            assert!(loss.is_finite());
            if state.optimizer.counts != Counts::default() {
                break scale;
            }
            n_skipped += 1;
            assert!(n_skipped < 2 * TOO_LARGE as usize, "it never fits");
            assert!(tensors(state) == before, "a skipped step moved something");
            assert_eq!(state.progress.loss_scale.scale(), scale / 2.0);
            assert_eq!(state.progress.step, n_skipped);
        };
        assert!(n_skipped > 0);
        // The step after the last skipped one is a whole step at the halved scale.
        let halvings = TOO_LARGE - n_skipped as i32;
        assert_eq!(scale, 2.0_f64.powi(halvings));
        assert_eq!(state.progress.loss_scale.scale(), scale);
        let once = Counts {
            of_head: 1,
            of_rest: 1,
        };
        assert_eq!(state.optimizer.counts, once);
        let after = tensors(state);
        for (name, values) in &before {
            let is_statistic = name.contains(".running_");
            assert!(
                is_statistic || after[name] != *values,
                "`{name}` did not move"
            );
            assert!(after[name].iter().all(|x| x.is_finite()), "{name}");
        }
    });
}
