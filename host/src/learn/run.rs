//! From inputs to a trained network: start, train, map, and the reference embeddings that
//! export compares with.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eyas_shared::bundle::probe_image;
use eyas_shared::embedding::{self, Embeddings};
use eyas_shared::fingerprint::{Fingerprint, SpaceId};
use eyas_shared::preprocess::{self, Pixels};
use tch::Tensor;
use thiserror::Error;

use super::alignment;
use super::batches::{BatchMaker, ImageStore, TrainingImage, TrainingSet};
use super::checkpoint::CheckpointError;
use super::compute::Compute;
use super::distance::l2_normalize;
use super::embed;
use super::experiment::Experiment;
use super::freeze;
use super::network::{self, InTraining, TorchNetwork, values_of};
use super::targets::Targets;
use super::trainer::{self, Training, Watch};
use crate::data::manifest::{Image, Manifest};
use crate::export::{ExportError, grid};
use crate::recipe::{Keep, Map, Recipe, WhiteningPairs};
use crate::student::{N_PROBES, ReferenceEmbeddings, TrainedStudent};
use crate::teacher::Teacher;
use crate::teacher::projection::Projection;
use crate::weights::{Weights, WeightsError};
use crate::zoo;

/// Real images that are embedded after training for export to compare with: 256 lines in a
/// student's description, and a quarter of a megabyte of embeddings at most.
const N_REFERENCE_IMAGES: usize = 256;

/// Why training stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LearnError {
    /// An image can not be read.
    #[error("{0}")]
    Image(String),
    /// Starting weights do not fit the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The checkpoint can not be used or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The precision can not be had here.
    #[error("{0}")]
    Precision(String),
    /// The data can not be trained on.
    #[error("{0}")]
    Data(String),
    /// The loss is infinite or not a number.
    #[error(
        "the loss is {loss} at step {step}: lower the learning rate, lengthen the warm-up or \
         clip the gradients"
    )]
    Diverged {
        /// Step, from 0.
        step: usize,
        /// Its value.
        loss: f64,
    },
    /// A gradient is infinite or not a number, and no loss scale helps.
    #[error(
        "the gradient of `{name}` is not finite at step {step}: lower the learning rate, \
         lengthen the warm-up or clip the gradients"
    )]
    BrokenGradient {
        /// Step, from 0.
        step: usize,
        /// Name of the weight.
        name: String,
    },
    /// The weights can not be rounded.
    #[error("the weights can not be rounded at step {step}: {fault}; lower the learning rate")]
    Rounding {
        /// Step, from 0.
        step: usize,
        /// Why.
        fault: ExportError,
    },
    /// The weights of a finished training, with the map in them, can not be rounded.
    #[error("the weights can not be rounded: {0}; lower the learning rate")]
    RoundingAtEnd(ExportError),
    /// A weight, a running statistic, or what an optimizer keeps, is infinite or not a number.
    #[error(
        "`{name}` is no longer finite after step {step}, and no checkpoint was written: lower \
         the learning rate"
    )]
    BrokenWeight {
        /// Step, from 0.
        step: usize,
        /// Name of the tensor in a checkpoint.
        name: String,
    },
    /// Numbers that stopped being finite, with the batch that they came of.
    #[error("{fault}; the batch was {}", images.join(", "))]
    OfBatch {
        /// What happened.
        fault: Box<LearnError>,
        /// Files of the batch.
        images: Vec<String>,
    },
}

impl LearnError {
    /// With the batch after which it happened, where that has to do with it.
    pub(super) fn of_batch(self, images: impl FnOnce() -> Vec<String>) -> Self {
        match self {
            Self::Diverged { .. }
            | Self::BrokenGradient { .. }
            | Self::Rounding { .. }
            | Self::BrokenWeight { .. } => Self::OfBatch {
                fault: Box::new(self),
                images: images(),
            },
            other => other,
        }
    }
}

/// What a run starts from.
pub struct Inputs<'a> {
    /// The method.
    pub recipe: Recipe,
    /// Images to train with.
    pub training: &'a Manifest,
    /// Images held out to watch recall; may be empty.
    pub validation: &'a Manifest,
    /// Weights to start from, if the recipe wants them.
    pub start: Option<Weights>,
    /// Weights of the network whose maps losses compare with, if the recipe names one.
    pub teacher_network: Option<Weights>,
    /// Positions in `training` that the data lists as showing the same, query and match;
    /// empty unless [`Recipe::needs_listed_pairs`].
    pub pairs: Vec<(usize, usize)>,
    /// CPU or GPU.
    pub compute: Compute,
    /// Where the checkpoint lies.
    pub checkpoint: PathBuf,
}

/// The teacher of a student.
pub struct TeacherOf<'a> {
    /// The teacher; its networks are run only for `teacher_views` that are embedded while
    /// training.
    pub teacher: &'a Arc<Teacher>,
    /// Its unit embeddings of the training images, in order.
    pub training: Embeddings,
}

pub(super) fn training_set(
    manifest: &Manifest,
    teacher: Option<Embeddings>,
) -> Result<TrainingSet, LearnError> {
    let labels = manifest.labels();
    if manifest.images.is_empty() {
        return Err(LearnError::Data(
            "no image is left to train with".to_owned(),
        ));
    }
    let images = manifest.images.iter().map(|image| {
        let label = labels
            .binary_search(&image.label.as_str())
            .expect("labels() has them all");
        TrainingImage {
            path: manifest.path(image),
            id: image.id,
            label: label as i64,
        }
    });
    Ok(TrainingSet {
        images: images.collect(),
        n_labels: labels.len(),
        teacher,
        pairs: Vec::new(),
    })
}

fn start_weights(inputs: &Inputs<'_>, network: &zoo::Network) -> Result<Weights, LearnError> {
    let seed = inputs.recipe.seed;
    Ok(match &inputs.start {
        Some(given) => zoo::init::start_from(network, given, seed)?,
        None => zoo::init::random_weights(network, seed),
    })
}

/// Trains a student and maps it into its teacher's space.
///
/// # Errors
/// [`LearnError`] says what stopped it; the checkpoint stays.
pub fn train_student(
    inputs: &Inputs<'_>,
    teacher: TeacherOf<'_>,
    watch: &mut dyn Watch,
) -> Result<TrainedStudent, LearnError> {
    let manifest = inputs.training.fingerprint();
    let set = training_set(inputs.training, Some(teacher.training))?.with_pairs(&inputs.pairs);
    let trained = train(inputs, &set, Some(teacher.teacher), watch)?;
    let weights = match set.teacher.as_ref() {
        Some(embeddings) => {
            let student = head_outputs(&trained.network, &trained.store, &set, inputs)?;
            let size = [embeddings.n_rows() as i64, embeddings.dim() as i64];
            let target = Tensor::from_slice(embeddings.values())
                .view(size)
                .to_device(inputs.compute.device);
            match inputs.recipe.map {
                Map::Whitening { pairs } => {
                    alignment::whiten(&trained.network, &student, &pairs_of(&set, pairs))
                        .map_err(|err| LearnError::Data(format!("map: {err}")))?
                }
                map => alignment::align(&trained.network, &student, &target, map),
            }
        }
        None => trained.network.weights(),
    };
    let network = trained.network.description.clone();
    // A map changes the head, which was rounded before.
    let weights = match (inputs.recipe.quantize, inputs.recipe.map) {
        (None, _) | (Some(_), Map::None) => weights,
        (Some(_), _) => grid::on_grid(&network, &weights).map_err(LearnError::RoundingAtEnd)?,
    };
    let aligned = TorchNetwork::new(network.clone(), &weights, inputs.compute.device)?;
    let recipe = &inputs.recipe;
    let (space, embedder) = match recipe.shares_the_teachers_space() {
        true => (teacher.teacher.space(), teacher.teacher.name().to_owned()),
        false => (own_space(recipe, &weights), recipe.name.clone()),
    };
    Ok(TrainedStudent {
        name: recipe.name.clone(),
        reference: reference_embeddings(&aligned, inputs)?,
        network,
        weights,
        preprocess: inputs.recipe.input.clone(),
        space,
        teacher: embedder,
        recipe: inputs.recipe.fingerprint(),
        seed: inputs.recipe.seed,
        manifest,
    })
}

/// The pairs that a whitening is learned from.
fn pairs_of(set: &TrainingSet, pairs: WhiteningPairs) -> Cow<'_, [(usize, usize)]> {
    match pairs {
        WhiteningPairs::Listed => Cow::Borrowed(&set.pairs),
        WhiteningPairs::Label => {
            let labels: Vec<i64> = set.images.iter().map(|image| image.label).collect();
            Cow::Owned(alignment::neighbors_of_labels(&labels))
        }
    }
}

/// The space of a student that has left its teacher's: it is its own teacher, so whatever
/// another network embedded is refused.
fn own_space(recipe: &Recipe, weights: &Weights) -> SpaceId {
    SpaceId::of_teacher(
        weights.fingerprint(),
        recipe.input.fingerprint(),
        Projection::none_fingerprint(),
        recipe.dim as u32,
    )
}

/// Trains a teacher from labels; returns its network and weights.
///
/// # Errors
/// [`LearnError`] says what stopped it; the checkpoint stays.
pub fn train_teacher(
    inputs: &Inputs<'_>,
    watch: &mut dyn Watch,
) -> Result<(zoo::Network, Weights), LearnError> {
    let set = training_set(inputs.training, None)?.with_pairs(&inputs.pairs);
    if set.n_labels < 2 {
        return Err(LearnError::Data(format!(
            "a teacher is trained to tell labels apart, but there is only one: `{}`",
            inputs.training.images[0].label
        )));
    }
    let trained = train(inputs, &set, None, watch)?;
    let weights = trained.network.weights();
    Ok((trained.network.description, weights))
}

/// The network whose maps losses compare with, without its head.
pub(super) fn teacher_network(inputs: &Inputs<'_>) -> Result<Option<TorchNetwork>, LearnError> {
    let faulty = |what: String| LearnError::Data(format!("teacher network: {what}"));
    match (inputs.recipe.teacher_trunk(), &inputs.teacher_network) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(faulty(
            "the recipe names one, but no weights are given".into(),
        )),
        (Some(trunk), Some(weights)) => {
            let weights = zoo::init::start_from(&trunk, weights, inputs.recipe.seed)
                .map_err(|err| faulty(err.to_string()))?;
            let network = TorchNetwork::new(trunk, &weights, inputs.compute.device);
            network.map(Some).map_err(|err| faulty(err.to_string()))
        }
    }
}

struct Trained {
    network: TorchNetwork,
    store: Arc<ImageStore>,
}

fn train(
    inputs: &Inputs<'_>,
    set: &TrainingSet,
    teacher: Option<&Arc<Teacher>>,
    watch: &mut dyn Watch,
) -> Result<Trained, LearnError> {
    let recipe = Arc::new(inputs.recipe.clone());
    if recipe.keep == Keep::Best && inputs.validation.images.is_empty() {
        return Err(LearnError::Data(
            "keep is best, but no image is held out to judge by: every label has too few"
                .to_owned(),
        ));
    }
    let device = inputs.compute.device;
    let (network, start) = first_network(inputs)?;
    let batches = batch_maker(&recipe, set, teacher)?;
    let store = Arc::clone(&batches.store);
    let teacher_network = teacher_network(inputs)?;
    let training = Training {
        recipe: &recipe,
        set,
        batches: &batches,
        network: &network,
        teacher_network: teacher_network.as_ref(),
        compute: inputs.compute,
        first_rounded_step: trainer::first_rounded_step(&recipe, &batches),
        experiment: experiment(inputs, set, teacher, &start),
        checkpoint: &inputs.checkpoint,
    };
    let held_out = training_set(inputs.validation, None).ok();
    let held_out = held_out.map(|set| (ImageStore::new(&set.images), set));
    let mut validate = |network: &TorchNetwork| {
        let Some((held_out_store, held_out)) = &held_out else {
            return Ok(None);
        };
        let queries = head_outputs(network, held_out_store, held_out, inputs)?;
        // Before its map a student only knows its own frame.
        let gallery = match &set.teacher {
            Some(teacher) if recipe.map == Map::None => {
                let size = [teacher.n_rows() as i64, teacher.dim() as i64];
                Tensor::from_slice(teacher.values())
                    .view(size)
                    .to_device(device)
            }
            _ => head_outputs(network, &store, set, inputs)?,
        };
        Ok(Some(recall_at_1(inputs, &queries, &gallery)))
    };
    let kept = trainer::train(&training, &mut validate, watch)?;
    let network = TorchNetwork::new(network.description.clone(), &kept, device)?;
    Ok(Trained { network, store })
}

/// The network with the weights that it starts from.
pub(super) fn first_network(inputs: &Inputs<'_>) -> Result<(TorchNetwork, Weights), LearnError> {
    let recipe = &inputs.recipe;
    let description = recipe
        .network()
        .expect("a checked recipe names an architecture of the zoo");
    let start = start_weights(inputs, &description)?;
    let mut network = TorchNetwork::new(description, &start, inputs.compute.device)?;
    network.training = InTraining {
        kind: inputs.compute.kind_for(recipe.precision)?,
        frozen_statistics: freeze::frozen_statistics(&network, &recipe.stabilize),
    };
    Ok((network, start))
}

pub(super) fn batch_maker(
    recipe: &Arc<Recipe>,
    set: &TrainingSet,
    teacher: Option<&Arc<Teacher>>,
) -> Result<BatchMaker, LearnError> {
    let targets = Targets::new(recipe.teacher_views, teacher, set.images.len());
    Ok(BatchMaker {
        store: Arc::new(ImageStore::new(&set.images)),
        recipe: Arc::clone(recipe),
        targets: targets.map_err(LearnError::Data)?,
        tuples: None,
    })
}

/// Names all that the result follows from; other hardware or another number of threads
/// adds in another order and gives other bits.
fn experiment(
    inputs: &Inputs<'_>,
    set: &TrainingSet,
    teacher: Option<&Arc<Teacher>>,
    start: &Weights,
) -> Experiment {
    let named = |manifest: &Manifest| {
        let n_images = manifest.images.len();
        format!("{n_images} images, {}", manifest.fingerprint())
    };
    let experiment = Experiment::of_recipe(&inputs.recipe)
        .with("training images", named(inputs.training))
        .with("held-out images", named(inputs.validation))
        .with("compute", inputs.compute)
        .with("maps in memory", network::LAYOUT)
        .with("starting weights", start.fingerprint());
    let experiment = match set.pairs.len() {
        0 => experiment,
        n_pairs => experiment.with(
            "listed pairs",
            format!("{n_pairs} pairs, {}", fingerprint_of(&set.pairs)),
        ),
    };
    let experiment = match &inputs.teacher_network {
        Some(weights) => experiment.with("teacher network", weights.fingerprint()),
        None => experiment,
    };
    match (teacher, &set.teacher) {
        (Some(teacher), Some(embeddings)) => {
            let bytes = eyas_shared::quant::f32_bytes(embeddings.values());
            experiment
                .with("teacher's space", teacher.space())
                .with("teacher's embeddings", Fingerprint::of_bytes(&bytes))
        }
        _ => experiment,
    }
}

fn fingerprint_of(pairs: &[(usize, usize)]) -> Fingerprint {
    let positions = pairs.iter().flat_map(|&(query, matched)| [query, matched]);
    let bytes: Vec<u8> = positions.flat_map(|at| (at as u64).to_le_bytes()).collect();
    Fingerprint::of_bytes(&bytes)
}

/// Share of held-out images whose nearest training image has their label.
fn recall_at_1(inputs: &Inputs<'_>, queries: &Tensor, gallery: &Tensor) -> f64 {
    let scores = l2_normalize(queries).matmul(&l2_normalize(gallery).transpose(0, 1));
    let nearest: Vec<i64> = Vec::try_from(scores.argmax(1, false).to_device(tch::Device::Cpu))
        .expect("argmax gives a flat i64 tensor");
    let pairs = inputs.validation.images.iter().zip(nearest);
    let hits =
        pairs.filter(|(query, row)| inputs.training.images[*row as usize].label == query.label);
    hits.count() as f64 / inputs.validation.images.len() as f64
}

/// Head outputs of a set's images, in order, without augmentation.
fn head_outputs(
    network: &TorchNetwork,
    store: &ImageStore,
    set: &TrainingSet,
    inputs: &Inputs<'_>,
) -> Result<Tensor, LearnError> {
    let all = 0..set.images.len();
    embed::head_outputs(network, store, all, &inputs.recipe.input, inputs.compute)
}

fn unit_rows(rows: &Tensor) -> Embeddings {
    let dim = rows.size()[1] as usize;
    let values = values_of(rows);
    let mut embeddings = Embeddings::from_values(dim, values).expect("a matrix holds whole rows");
    embeddings.normalize_rows();
    embeddings
}

/// Embeds the probes and some images, spread over the training and held-out parts.
fn reference_embeddings(
    network: &TorchNetwork,
    inputs: &Inputs<'_>,
) -> Result<ReferenceEmbeddings, LearnError> {
    let spec = &inputs.recipe.input;
    let probes: Vec<Pixels> = (0..N_PROBES)
        .map(|index| preprocess::prepare(&probe_image(index), spec))
        .collect();
    let probes = unit_rows(&embed::forward(network, spec, &probes, inputs.compute));

    let chosen = reference_images(inputs.training, inputs.validation);
    let set = training_set(&chosen, None)?;
    let store = ImageStore::new(&set.images);
    let of_images = unit_rows(&head_outputs(network, &store, &set, inputs)?);
    if let Some(row_idx) = of_images.first_unusable_row() {
        return Err(LearnError::Data(format!(
            "the student's embedding of `{}` has no direction",
            chosen.images[row_idx].path
        )));
    }
    debug_assert_eq!(of_images.dim(), embedding_dim(network));
    let images = chosen
        .images
        .into_iter()
        .map(|image| (image.id, image.path))
        .collect();
    Ok(ReferenceEmbeddings {
        probes,
        images,
        of_images,
    })
}

/// So many images as are wanted, evenly spread: held-out ones as far as there are any.
fn reference_images(training: &Manifest, validation: &Manifest) -> Manifest {
    let spread = |source: &Manifest, n: usize| -> Vec<Image> {
        let n = n.min(source.images.len());
        let every = |at: usize| source.images[at * source.images.len() / n].clone();
        (0..n).map(every).collect()
    };
    let mut images = spread(validation, N_REFERENCE_IMAGES);
    let mut root = &validation.root;
    if images.is_empty() || validation.root == training.root {
        root = &training.root;
        images.extend(spread(training, N_REFERENCE_IMAGES - images.len()));
    }
    Manifest {
        root: root.clone(),
        images,
    }
}

fn embedding_dim(network: &TorchNetwork) -> usize {
    network.description.dim().min(embedding::MAX_DIM)
}

/// Path of the checkpoint in a run directory.
#[must_use]
pub fn checkpoint_path(run: &Path) -> PathBuf {
    run.join("checkpoint.safetensors")
}
