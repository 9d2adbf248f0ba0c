//! What each training step sees, prepared ahead by worker threads.
//!
//! A step's images and their random changes follow from seed, epoch and position alone, so
//! neither the number of workers nor an interruption changes them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use eyas_shared::embedding::Embeddings;
use eyas_shared::files;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::preprocess::{self, Limits, RgbImage};

use super::sampler::Sampler;
use super::targets::{Place, Targets};
use super::tuples::{self, EpochTuples};
use crate::recipe::{self, Recipe};

/// Decoded images are kept up to this many bytes; others are decoded every time.
const DECODED_BUDGET: usize = 1 << 30;

/// Batches that a worker may be ahead.
const AHEAD: usize = 2;

/// An image to train with.
#[derive(Clone, Debug)]
pub struct TrainingImage {
    /// Where it lies.
    pub path: PathBuf,
    /// Identity of its content.
    pub id: ImageId,
    /// Number of its label, from 0 without gaps.
    pub label: i64,
}

/// What is trained on.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    /// The images.
    pub images: Vec<TrainingImage>,
    /// Number of labels.
    pub n_labels: usize,
    /// The teacher's embedding of each image, in order; none when training a teacher.
    pub teacher: Option<Embeddings>,
    /// Pairs of images that the data lists as showing the same: query, match.
    pub pairs: Vec<(usize, usize)>,
}

impl TrainingSet {
    /// The same with pairs that the data lists.
    pub(super) fn with_pairs(self, pairs: &[(usize, usize)]) -> Self {
        Self {
            pairs: pairs.to_vec(),
            ..self
        }
    }
}

/// The input of one step; row `view * n_images + i` is a view of image `image_idx[i]`.
pub(super) struct Batch {
    /// (views * images) x 3 x crop x crop.
    pub(super) pixels: Vec<f32>,
    /// Positions in [`TrainingSet::images`].
    pub(super) image_idx: Vec<usize>,
    /// The teacher's embeddings of these very views, (views * images) x dim; empty if the
    /// images' own embeddings are the target.
    pub(super) teacher: Vec<f32>,
    /// Positions of the images of the step's tuples, tuple after tuple; empty if the batch
    /// is not made of tuples.
    pub(super) tuples: Vec<usize>,
}

/// Images of a set, decoded when first needed.
pub(super) struct ImageStore {
    images: Vec<TrainingImage>,
    decoded: Vec<OnceLock<Arc<RgbImage>>>,
    kept_bytes: AtomicUsize,
}

impl ImageStore {
    pub(super) fn new(images: &[TrainingImage]) -> Self {
        Self {
            images: images.to_vec(),
            decoded: images.iter().map(|_| OnceLock::new()).collect(),
            kept_bytes: AtomicUsize::new(0),
        }
    }

    pub(super) fn get(&self, image_idx: usize) -> Result<Arc<RgbImage>, String> {
        let slot = &self.decoded[image_idx];
        if let Some(image) = slot.get() {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(load(&self.images[image_idx])?);
        let bytes = image.samples.len();
        let kept = self.kept_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Over the budget, or another thread has decoded it at the same time.
        if kept > DECODED_BUDGET || slot.set(Arc::clone(&image)).is_err() {
            self.kept_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(image)
    }
}

fn load(image: &TrainingImage) -> Result<RgbImage, String> {
    let bytes =
        files::read(&image.path, Limits::DEFAULT.max_bytes).map_err(|err| err.to_string())?;
    if ImageId::of_file(&bytes) != image.id {
        return Err(format!(
            "`{}` changed since the data was listed",
            image.path.display()
        ));
    }
    preprocess::decode(&bytes, &Limits::DEFAULT)
        .map_err(|err| format!("`{}`: {err}", image.path.display()))
}

/// Makes the batch of any step.
#[derive(Clone)]
pub(super) struct BatchMaker {
    pub(super) store: Arc<ImageStore>,
    pub(super) recipe: Arc<Recipe>,
    pub(super) targets: Targets,
    /// The tuples that batches are made of, if the recipe wants such.
    pub(super) tuples: Option<Arc<EpochTuples>>,
}

impl BatchMaker {
    /// Makes batches of these tuples.
    pub(super) fn with_tuples(&self, tuples: Arc<EpochTuples>) -> Self {
        Self {
            tuples: Some(tuples),
            ..self.clone()
        }
    }

    fn labels(&self) -> impl Iterator<Item = i64> {
        self.store.images.iter().map(|image| image.label)
    }

    /// What the recipe's batch asks for and the images can not give.
    pub(super) fn fault(&self) -> Option<String> {
        match &self.recipe.batch {
            recipe::Batch::Tuples(batch) => {
                tuples::fault(batch, &self.labels().collect::<Vec<_>>())
            }
            _ => self.sampler().fault(),
        }
    }

    /// Steps of one epoch.
    pub(super) fn steps_per_epoch(&self) -> usize {
        self.recipe.batch.steps_per_epoch(self.store.images.len())
    }

    /// Plans over the images of the store, or over the tuples.
    pub(super) fn sampler(&self) -> Sampler {
        match (&self.recipe.batch, &self.tuples) {
            (recipe::Batch::Tuples(batch), Some(tuples)) => {
                Sampler::of_tuples(&self.recipe, batch, tuples)
            }
            _ => Sampler::new(&self.recipe, self.labels()),
        }
    }

    /// The tuples of a step.
    pub(super) fn tuples_of_step(&self, step: usize) -> Vec<usize> {
        match (&self.recipe.batch, &self.tuples) {
            (recipe::Batch::Tuples(batch), Some(tuples)) => tuples
                .of_step(batch, step % batch.steps_per_epoch())
                .to_vec(),
            _ => Vec::new(),
        }
    }

    /// Where the images of a step lie.
    pub(super) fn paths(&self, image_idx: &[usize]) -> Vec<String> {
        let path = |&idx: &usize| self.store.images[idx].path.display().to_string();
        image_idx.iter().map(path).collect()
    }

    pub(super) fn batch(&self, sampler: &mut Sampler, step: usize) -> Result<Batch, String> {
        let image_idx = sampler.images_of_step(step).to_vec();
        let mut batch = Batch {
            pixels: Vec::new(),
            image_idx,
            teacher: Vec::new(),
            tuples: self.tuples_of_step(step),
        };
        for view_idx in 0..self.recipe.batch.views() {
            for (position, &image_idx) in batch.image_idx.iter().enumerate() {
                let image = self.store.get(image_idx)?;
                let place = Place {
                    step,
                    position,
                    view_idx,
                };
                let (view, target) = self.targets.view(&self.recipe, &image, image_idx, place)?;
                let pixels = view.pixels(&image, &self.recipe.input);
                batch.pixels.extend(pixels.values_chw);
                batch.teacher.extend(target.as_deref().unwrap_or_default());
            }
        }
        Ok(batch)
    }
}

/// Batches in order of their steps, made by threads that end when this is dropped.
pub(super) struct Loader {
    receivers: Vec<Receiver<Result<Batch, String>>>,
    next_step: usize,
}

impl Loader {
    /// Prepares the steps `first_step..n_steps`.
    pub(super) fn start(
        maker: &BatchMaker,
        first_step: usize,
        n_steps: usize,
        n_workers: usize,
    ) -> Self {
        let receivers = (0..n_workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(AHEAD);
                let maker = maker.clone();
                std::thread::spawn(move || {
                    let steps = (first_step + worker..n_steps).step_by(n_workers);
                    send_batches(&maker, steps, &sender);
                });
                receiver
            })
            .collect();
        Self {
            receivers,
            next_step: 0,
        }
    }

    /// The next step's batch.
    ///
    /// # Errors
    /// If an image can not be read; the message names it.
    pub(super) fn next(&mut self) -> Result<Batch, String> {
        let worker = self.next_step % self.receivers.len();
        self.next_step += 1;
        let stopped = |_| Err("a loader thread stopped early".to_owned());
        self.receivers[worker].recv().unwrap_or_else(stopped)
    }
}

fn send_batches(
    maker: &BatchMaker,
    steps: impl Iterator<Item = usize>,
    sender: &SyncSender<Result<Batch, String>>,
) {
    let mut sampler = maker.sampler();
    for step in steps {
        let batch = maker.batch(&mut sampler, step);
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}
