//! What every loss of the catalog costs in a step: its value and gradients on random
//! embeddings, beside a training step of ResNet-18.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use eyas_shared::timing::Figures;
use tch::{Kind, Tensor};

use super::compute::Compute;
use super::distance::l2_normalize;
use super::loss::{Maps, Memory, Rows, Setting, Term, term};
use super::network::{Mode, TorchNetwork};
use super::optimizer::{Group, Optimizer};
use super::run::LearnError;
use crate::recipe::loss::{CATALOG, Loss};
use crate::recipe::{self, Moments};
use crate::zoo::{self, Network, init};

/// The network whose step is the measure.
pub const STEP_NETWORK: &str = "resnet18";

/// Networks of the maps that the catalog's examples compare: student, teacher.
pub const MAP_NETWORKS: [&str; 2] = ["eyas-s", "resnet18"];

/// Pixels a side of the images of a step, and of those that maps are of.
pub const SIDE: u32 = 224;

/// Images of a label in a batch, and views of an image, as RC's authors sample.
pub const IMAGES_PER_LABEL: usize = 2;
/// See [`IMAGES_PER_LABEL`].
pub const VIEWS: usize = 2;

/// A first value makes codebooks and centers, a second one finds memory allocated.
const WARMUP_RUNS: usize = 2;

const MIN_RUNS: usize = 5;

const MAX_RUNS: usize = 200;

/// A loss is measured for at least so long, within the limits on runs.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// Steps of ResNet-18, after one to warm up.
const STEP_RUNS: usize = 3;

/// Late enough that memories of earlier steps count.
const FIRST_STEP: usize = 5000;

const SEED: u64 = 1;

/// Sizes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostSizes {
    /// Rows of a batch: [`VIEWS`] of each image, [`IMAGES_PER_LABEL`] of each label.
    pub rows: usize,
    /// Components of an embedding.
    pub dim: usize,
    /// Images in the training set, which are the teacher's gallery.
    pub gallery: usize,
    /// Labels of the training set.
    pub labels: usize,
}

impl CostSizes {
    /// What does not fit together.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let group = VIEWS * IMAGES_PER_LABEL;
        if self.rows == 0 || !self.rows.is_multiple_of(group) {
            return Some(format!(
                "rows is {}, but a batch has {VIEWS} views of {IMAGES_PER_LABEL} images of each \
                 label: take a multiple of {group}",
                self.rows
            ));
        }
        if self.labels < self.rows / group {
            return Some(format!(
                "a batch of {} rows has {} labels, but labels is {}",
                self.rows,
                self.rows / group,
                self.labels
            ));
        }
        (self.gallery < IMAGES_PER_LABEL * self.labels).then(|| {
            format!(
                "{} labels with {IMAGES_PER_LABEL} images each need a gallery of {} or more",
                self.labels,
                IMAGES_PER_LABEL * self.labels
            )
        })
    }
}

/// Value and gradients of a loss.
#[derive(Clone, Copy, Debug)]
pub struct LossCost {
    /// Its name in a recipe.
    pub kind: &'static str,
    /// What a step with it takes for it.
    pub time: Figures,
}

/// Measures a step of [`STEP_NETWORK`] with `n_images`: forward, backward, optimizer.
///
/// # Errors
/// Never, unless the zoo and its weights disagree.
pub fn cost_of_step(n_images: usize, dim: usize, compute: Compute) -> Result<Figures, LearnError> {
    let description = zoo::by_name(STEP_NETWORK, dim).expect("the zoo has it");
    let weights = init::random_weights(&description, SEED);
    let network = TorchNetwork::new(description, &weights, compute.device)?;
    let mut optimizer = Optimizer::new(recipe::Optimizer::AdamW(Moments {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 1e-2,
    }));
    for shape in network.description.weights() {
        if shape.trained {
            let group = Group {
                rate_factor: 1.0,
                decays: shape.shape.len() > 1,
                rests_first: false,
            };
            optimizer.add(&shape.name, &network.tensors[&shape.name], group);
        }
    }
    let size = [n_images as i64, 3, i64::from(SIDE), i64::from(SIDE)];
    let images = Tensor::randn(size, (Kind::Float, compute.device));
    let mut step = || {
        optimizer.zero_gradients();
        let output = network.head_output(&images, Mode::Train);
        let loss = output.square().mean(Kind::Float);
        loss.backward();
        optimizer.step(1e-9, false);
        // Reading waits for a GPU.
        loss.double_value(&[])
    };
    step();
    let nanos: Vec<u64> = (0..STEP_RUNS).map(|_| nanos_of(&mut step)).collect();
    Ok(Figures::of(&nanos).expect("steps were measured"))
}

/// Measures every loss of the catalog with its example's settings; `done` is called after
/// each.
pub fn cost_of_losses(sizes: &CostSizes, compute: Compute, done: impl Fn()) -> Vec<LossCost> {
    let batch = RandomBatch::new(sizes, compute);
    let measure = |description: &crate::recipe::loss::Description| {
        let loss = description.term().loss;
        let time = batch.cost(&loss, sizes, compute);
        done();
        LossCost {
            kind: description.kind,
            time,
        }
    };
    CATALOG.iter().map(measure).collect()
}

/// Channels and sides of the maps that a loss compares.
#[must_use]
pub fn compared_maps(loss: &Loss) -> Vec<(String, usize, usize)> {
    let Some(nodes) = loss.settings().nodes() else {
        return Vec::new();
    };
    let [student, teacher] = map_networks();
    let sized = |network: &Network, node: &str| {
        let [channels, side] = map_size(network, node);
        (format!("{}: {node}", network.name), channels, side)
    };
    let of_student = nodes.student.iter().map(|node| sized(&student, node));
    let of_teacher = nodes.teacher.iter().map(|node| sized(&teacher, node));
    of_student.chain(of_teacher).collect()
}

fn map_networks() -> [Network; 2] {
    MAP_NETWORKS.map(|name| zoo::by_name(name, 1).expect("the zoo has them"))
}

/// Channels, and height and width.
fn map_size(network: &Network, node: &str) -> [usize; 2] {
    let channels = network.map_channels(node);
    let node_idx = network.nodes.iter().position(|n| n.name == node);
    let (channels, node_idx) = channels.zip(node_idx).expect("examples name nodes");
    [
        channels,
        network.output_places(SIDE as usize)[node_idx].side(),
    ]
}

fn nanos_of<T>(work: &mut impl FnMut() -> T) -> u64 {
    let since = Instant::now();
    let _ = work();
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Random embeddings of a batch and of the gallery.
struct RandomBatch {
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    image_idx: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
}

impl RandomBatch {
    fn new(sizes: &CostSizes, compute: Compute) -> Self {
        tch::manual_seed(SEED as i64);
        let options = (Kind::Float, compute.device);
        let integers = |values: Vec<i64>| Tensor::from_slice(&values).to_device(compute.device);
        let dim = sizes.dim as i64;
        let n_images = sizes.rows / VIEWS;
        // Image g of the gallery has label g modulo the labels.
        let image =
            |i: usize| (i / IMAGES_PER_LABEL + (i % IMAGES_PER_LABEL) * sizes.labels) as i64;
        let images: Vec<i64> = (0..n_images).map(image).collect();
        let label = |&image: &i64| image % sizes.labels as i64;
        let image_idx = images.repeat(VIEWS);
        let labels = image_idx.iter().map(label).collect();
        let gallery = l2_normalize(&Tensor::randn([sizes.gallery as i64, dim], options));
        let image_idx = integers(image_idx);
        Self {
            student: Tensor::randn([sizes.rows as i64, dim], options).set_requires_grad(true),
            teacher: gallery.index_select(0, &image_idx),
            labels: integers(labels),
            image_idx,
            gallery,
            gallery_labels: integers((0..sizes.gallery as i64).map(|g| label(&g)).collect()),
        }
    }

    /// Value and gradients of a loss.
    fn cost(&self, loss: &Loss, sizes: &CostSizes, compute: Compute) -> Figures {
        let (maps, channels) = random_maps(loss, sizes.rows, compute);
        let setting = Setting {
            seed: SEED,
            term_idx: 0,
            dim: sizes.dim,
            n_labels: sizes.labels,
            n_images: sizes.gallery,
            channels,
            device: compute.device,
        };
        let mut term = term(loss, &setting);
        let mut step = FIRST_STEP;
        let mut run = || {
            step += 1;
            self.one_value(term.as_mut(), &maps, step)
        };
        for _ in 0..WARMUP_RUNS {
            run();
        }
        let since = Instant::now();
        let mut nanos = Vec::new();
        while nanos.len() < MIN_RUNS || (since.elapsed() < LEAST_TIME && nanos.len() < MAX_RUNS) {
            nanos.push(nanos_of(&mut run));
        }
        Figures::of(&nanos).expect("runs were measured")
    }

    fn one_value(&self, term: &mut dyn Term, maps: &Maps, step: usize) -> f64 {
        let memory = Memory {
            teacher: &self.gallery,
            labels: &self.gallery_labels,
        };
        let value = term.value(&Rows {
            student: &self.student,
            teacher: Some(&self.teacher),
            labels: &self.labels,
            image_idx: &self.image_idx,
            step,
            n_views: VIEWS,
            memory: Some(&memory),
            maps: Some(maps),
            tuples: None,
        });
        for tensor in maps.student.values().chain([&self.student]) {
            tensor.shallow_clone().zero_grad();
        }
        // A loss of mined pairs is a constant where none was found.
        if value.requires_grad() {
            value.backward();
        }
        // Reading waits for a GPU.
        value.double_value(&[])
    }
}

/// Positive numbers as the maps that a loss compares, and their channels.
fn random_maps(loss: &Loss, rows: usize, compute: Compute) -> (Maps, [BTreeMap<String, usize>; 2]) {
    let (mut maps, mut channels) = (Maps::default(), [BTreeMap::new(), BTreeMap::new()]);
    let Some(nodes) = loss.settings().nodes() else {
        return (maps, channels);
    };
    let networks = map_networks();
    let sides = [
        (&mut maps.student, nodes.student, true),
        (&mut maps.teacher, nodes.teacher, false),
    ];
    for ((into, nodes, trained), (network, channels)) in
        sides.into_iter().zip(networks.iter().zip(&mut channels))
    {
        for node in nodes {
            let [n_channels, side] = map_size(network, node);
            let size = [rows, n_channels, side, side].map(|extent| extent as i64);
            let map = Tensor::randn(size, (Kind::Float, compute.device)).relu();
            into.insert(node.to_owned(), map.set_requires_grad(trained));
            channels.insert(node.to_owned(), n_channels);
        }
    }
    (maps, channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::ComputeChoice;

    const SMALL: CostSizes = CostSizes {
        rows: 8,
        dim: 8,
        gallery: 40,
        labels: 4,
    };

    #[test]
    fn a_batch_has_two_views_of_two_images_of_each_label() {
        assert_eq!(SMALL.fault(), None);
        let compute = Compute::choose(ComputeChoice::Cpu, None).unwrap();
        let batch = RandomBatch::new(&SMALL, compute);
        let numbers = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
        assert_eq!(numbers(&batch.labels), [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(numbers(&batch.image_idx), [0, 4, 1, 5, 0, 4, 1, 5]);
        let of_gallery = batch.gallery_labels.index_select(0, &batch.image_idx);
        assert_eq!(numbers(&of_gallery), numbers(&batch.labels));
        let apart = &batch.teacher - batch.gallery.index_select(0, &batch.image_idx);
        assert_eq!(apart.abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_named() {
        let fault = |sizes: CostSizes| sizes.fault().unwrap();
        assert!(fault(CostSizes { rows: 6, ..SMALL }).contains("multiple of 4"));
        assert!(fault(CostSizes { labels: 1, ..SMALL }).contains("has 2 labels"));
        assert!(
            fault(CostSizes {
                gallery: 7,
                ..SMALL
            })
            .contains("gallery of 8")
        );
    }

    #[test]
    fn maps_have_the_shapes_that_their_networks_put_out() {
        let hint = CATALOG.iter().find(|entry| entry.kind == "map-hint");
        let loss = hint.unwrap().term().loss;
        let compared = compared_maps(&loss);
        let sizes: Vec<(usize, usize)> = compared.iter().map(|(_, c, side)| (*c, *side)).collect();
        assert_eq!(sizes, [(128, 14), (512, 7)]);
        let compute = Compute::choose(ComputeChoice::Cpu, None).unwrap();
        let (maps, channels) = random_maps(&loss, 4, compute);
        assert_eq!(maps.student["body.3.relu"].size(), [4, 128, 14, 14]);
        assert_eq!(maps.teacher["layer4.1.add.relu"].size(), [4, 512, 7, 7]);
        assert_eq!(channels[1]["layer4.1.add.relu"], 512);
    }
}
