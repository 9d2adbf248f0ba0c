//! What each training step sees, prepared ahead by worker threads.
//!
//! A step's images and their random changes follow from seed, epoch and position alone, so
//! neither the number of workers nor an interruption changes them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
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

/// When workers make batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As soon as there is room, beside the steps: on cores that steps leave free.
    BesideSteps,
    /// All at once, while no step computes. Where steps use every core, a worker that takes
    /// one of them for a while makes the others wait in the middle of a step.
    BetweenSteps,
}

/// Threads that make batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workers {
    pub(super) n: usize,
    pub(super) pace: Pace,
}

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

    /// Lets the system have the file of an image in memory, if it has to be decoded. What is
    /// wrong with it will be told by [`get`](Self::get).
    fn read_ahead(&self, image_idx: usize) {
        if self.decoded[image_idx].get().is_none()
            && let Ok(file) = File::open(&self.images[image_idx].path)
        {
            let _ = io::copy(&mut file.take(Limits::DEFAULT.max_bytes), &mut io::sink());
        }
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

    fn read_ahead(&self, sampler: &mut Sampler, step: usize) {
        let images = sampler.images_of_step(step).iter();
        images.for_each(|&image_idx| self.store.read_ahead(image_idx));
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
    workers: Vec<Worker>,
    next_step: usize,
    /// Batches of the next steps, where they are made between steps.
    made: VecDeque<Result<Batch, String>>,
}

struct Worker {
    batches: Receiver<Result<Batch, String>>,
    /// Lets it make one batch; none if it need not be asked.
    start: Option<SyncSender<()>>,
}

impl Loader {
    /// Prepares the steps `first_step..n_steps`.
    pub(super) fn start(
        maker: &BatchMaker,
        first_step: usize,
        n_steps: usize,
        workers: Workers,
    ) -> Self {
        let start = |worker| {
            let (sender, batches) = sync_channel(AHEAD);
            let (start, started) = match workers.pace {
                Pace::BesideSteps => (None, None),
                Pace::BetweenSteps => {
                    let (start, started) = sync_channel(1);
                    (Some(start), Some(started))
                }
            };
            let maker = maker.clone();
            std::thread::spawn(move || {
                let steps = (first_step + worker..n_steps).step_by(workers.n);
                send_batches(&maker, steps, started.as_ref(), &sender);
            });
            Worker { batches, start }
        };
        Self {
            workers: (0..workers.n).map(start).collect(),
            next_step: 0,
            made: VecDeque::new(),
        }
    }

    /// The next step's batch.
    ///
    /// # Errors
    /// If an image can not be read; the message names it.
    pub(super) fn next(&mut self) -> Result<Batch, String> {
        if self.made.is_empty() {
            self.make_one_each();
        }
        let waiting = &self.workers[self.next_step % self.workers.len()];
        self.next_step += 1;
        let stopped = |_| Err("a loader thread stopped early".to_owned());
        let made = self.made.pop_front();
        made.unwrap_or_else(|| waiting.batches.recv().unwrap_or_else(stopped))
    }

    /// Lets those workers that wait for it make a batch each, and waits for all of them.
    fn make_one_each(&mut self) {
        // A worker that has made its last batch does not listen.
        let begun = |worker: &&Worker| {
            let start = worker.start.as_ref();
            start.is_some_and(|start| start.send(()).is_ok())
        };
        let begun: Vec<&Worker> = self.workers.iter().filter(begun).collect();
        let batches = begun.iter().filter_map(|worker| worker.batches.recv().ok());
        self.made.extend(batches);
    }
}

fn send_batches(
    maker: &BatchMaker,
    steps: impl Iterator<Item = usize>,
    started: Option<&Receiver<()>>,
    sender: &SyncSender<Result<Batch, String>>,
) {
    let mut sampler = maker.sampler();
    for step in steps {
        if let Some(started) = started {
            maker.read_ahead(&mut sampler, step);
            if started.recv().is_err() {
                return;
            }
        }
        let batch = maker.batch(&mut sampler, step);
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use crate::data::tests::images;
    use crate::learn::run::{batch_maker, training_set};

    const N_STEPS: usize = 7;

    fn workers(n: usize, pace: Pace) -> Workers {
        Workers { n, pace }
    }

    /// What a loader gives for the steps from `first_step` on, up to the first fault.
    fn made(maker: &BatchMaker, first_step: usize, workers: Workers) -> Result<Vec<Batch>, String> {
        let mut loader = Loader::start(maker, first_step, N_STEPS, workers);
        (first_step..N_STEPS).map(|_| loader.next()).collect()
    }

    #[test]
    fn batches_do_not_depend_on_who_makes_them_and_when() {
        let folder = images(&["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"]);
        let manifest = data::open(folder.path()).unwrap();
        let mut recipe = recipe::example();
        recipe.batch = recipe::Batch::Shuffled {
            images: 2,
            views: 1,
        };
        let set = training_set(&manifest, None).unwrap();
        let maker = || batch_maker(&Arc::new(recipe.clone()), &set, None).unwrap();
        let expected = made(&maker(), 0, workers(1, Pace::BesideSteps)).unwrap();
        assert!(expected[0].pixels != expected[1].pixels);
        for (n, pace) in [
            (3, Pace::BesideSteps),
            (1, Pace::BetweenSteps),
            (2, Pace::BetweenSteps),
            (10, Pace::BetweenSteps),
        ] {
            for first_step in [0, 3, N_STEPS - 1] {
                let batches = made(&maker(), first_step, workers(n, pace)).unwrap();
                for (batch, expected) in batches.iter().zip(&expected[first_step..]) {
                    assert_eq!(batch.image_idx, expected.image_idx, "{n} {pace:?}");
                    assert_eq!(batch.pixels, expected.pixels, "{n} {pace:?}");
                }
            }
        }

        std::fs::remove_file(&set.images[0].path).unwrap();
        for pace in [Pace::BesideSteps, Pace::BetweenSteps] {
            let fault = made(&maker(), 0, workers(2, pace)).err().unwrap();
            assert!(fault.contains("1.jpg"), "{pace:?}: {fault}");
        }
    }
}
