//! Which images a step sees, as a pure function of seed, epoch and step; or of an epoch's
//! tuples.

use eyas_shared::random::Random;

use super::tuples::EpochTuples;
use crate::recipe::{Batch, Recipe, TupleBatch};

/// Plans epochs over a set of images.
pub(super) struct Sampler {
    batch: Batch,
    random: Random,
    n_images: usize,
    /// Positions of the images of each label.
    of_label: Vec<Vec<usize>>,
    /// The epoch planned last, with the images of its steps.
    planned: Option<(usize, Vec<Vec<usize>>)>,
}

impl Sampler {
    /// `labels` holds the label of each image, from 0 without gaps.
    pub(super) fn new(recipe: &Recipe, labels: impl IntoIterator<Item = i64>) -> Self {
        let mut of_label: Vec<Vec<usize>> = Vec::new();
        let mut n_images = 0;
        for (image_idx, label) in labels.into_iter().enumerate() {
            let label = label as usize;
            if of_label.len() <= label {
                of_label.resize_with(label + 1, Vec::new);
            }
            of_label[label].push(image_idx);
            n_images = image_idx + 1;
        }
        Self {
            batch: recipe.batch,
            random: Random::new(recipe.seed),
            n_images,
            of_label,
            planned: None,
        }
    }

    /// Goes through the tuples of one epoch, and again.
    pub(super) fn of_tuples(recipe: &Recipe, batch: &TupleBatch, tuples: &EpochTuples) -> Self {
        let steps = (0..batch.steps_per_epoch())
            .map(|step| EpochTuples::seen(batch, tuples.of_step(batch, step)));
        Self {
            batch: recipe.batch,
            random: Random::new(recipe.seed),
            n_images: 0,
            of_label: Vec::new(),
            planned: Some((0, steps.collect())),
        }
    }

    /// What the batch asks for and the images can not give.
    pub(super) fn fault(&self) -> Option<String> {
        let n_labels = self.of_label.len();
        match self.batch {
            Batch::PerLabel { labels, .. } if labels > n_labels => Some(format!(
                "a batch of {labels} labels is asked for, but the training images have {n_labels}"
            )),
            _ => None,
        }
    }

    /// The images of a step, counted from 0 over all epochs.
    pub(super) fn images_of_step(&mut self, step: usize) -> &[usize] {
        let per_epoch = self.batch.steps_per_epoch(self.n_images);
        let (epoch, step) = (step / per_epoch, step % per_epoch);
        let epoch = match self.batch {
            Batch::Tuples(_) => 0,
            _ => epoch,
        };
        if self.planned.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.planned = Some((epoch, self.plan(epoch)));
        }
        let (_, steps) = self.planned.as_ref().expect("it was planned above");
        &steps[step]
    }

    fn plan(&self, epoch: usize) -> Vec<Vec<usize>> {
        let n_steps = self.batch.steps_per_epoch(self.n_images);
        let place = |purpose: &str| self.random.fork(purpose).at(epoch as u64);
        match self.batch {
            Batch::Shuffled { images, .. } => {
                let mut order: Vec<usize> = (0..self.n_images).collect();
                place("order").shuffle(&mut order);
                order
                    .chunks(images)
                    .take(n_steps)
                    .map(<[_]>::to_vec)
                    .collect()
            }
            Batch::PerLabel {
                labels,
                images_per_label,
                ..
            } => self.by_label(n_steps, labels, images_per_label, &place("labels")),
            Batch::Balanced { images, .. } => self.by_label(n_steps, images, 1, &place("labels")),
            Batch::Tuples(_) => unreachable!("the only epoch of tuples is planned at the start"),
        }
    }

    /// Steps of `n_groups` groups of `size` images of one label each.
    fn by_label(
        &self,
        n_steps: usize,
        n_groups: usize,
        size: usize,
        random: &Random,
    ) -> Vec<Vec<usize>> {
        let mut labels = Rounds::new(self.of_label.len(), random.fork("which"));
        let mut images: Vec<Rounds> = self
            .of_label
            .iter()
            .enumerate()
            .map(|(label, images)| Rounds::new(images.len(), random.at(label as u64)))
            .collect();
        let step = |_| {
            let of_step = labels.take(n_groups).into_iter().flat_map(|label| {
                let positions = images[label].take(size);
                positions
                    .into_iter()
                    .map(move |at| self.of_label[label][at])
            });
            of_step.collect()
        };
        (0..n_steps).map(step).collect()
    }
}

/// An endless sequence over `0..n` in rounds: each round holds every number once.
pub(super) struct Rounds {
    n: usize,
    random: Random,
    n_rounds: u64,
    rest: Vec<usize>,
}

impl Rounds {
    pub(super) fn new(n: usize, random: Random) -> Self {
        Self {
            n,
            random,
            n_rounds: 0,
            rest: Vec::new(),
        }
    }

    /// The next `count` numbers; different ones if there are so many.
    pub(super) fn take(&mut self, count: usize) -> Vec<usize> {
        let mut taken: Vec<usize> = Vec::with_capacity(count);
        while taken.len() < count {
            if self.rest.is_empty() {
                self.begin_round(&taken);
            }
            let left = self.rest.len();
            let more = left.min(count - taken.len());
            taken.extend(self.rest.drain(left - more..));
        }
        taken
    }

    /// Numbers taken just now come last (they stand first: numbers are taken from the end).
    fn begin_round(&mut self, taken: &[usize]) {
        let mut order: Vec<usize> = (0..self.n).collect();
        self.random.at(self.n_rounds).shuffle(&mut order);
        self.n_rounds += 1;
        let mut is_taken = vec![false; self.n];
        // Only the unfinished part matters: whole rounds hold every number.
        let unfinished = taken.len() % self.n.max(1);
        for &number in &taken[taken.len() - unfinished..] {
            is_taken[number] = true;
        }
        let (first, last): (Vec<usize>, Vec<usize>) =
            order.into_iter().partition(|&number| is_taken[number]);
        self.rest = [first, last].concat();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 7 labels with 1 to 13 images each.
    fn labels() -> Vec<i64> {
        let sizes = [5, 1, 13, 8, 2, 3, 8];
        let label = |(label, &size): (usize, &usize)| vec![label as i64; size];
        sizes.iter().enumerate().flat_map(label).collect()
    }

    fn sampler(batch: Batch, seed: u64) -> Sampler {
        let mut recipe = crate::recipe::example();
        recipe.batch = batch;
        recipe.seed = seed;
        Sampler::new(&recipe, labels())
    }

    fn steps(batch: Batch, seed: u64, n_steps: usize) -> Vec<Vec<usize>> {
        let mut sampler = sampler(batch, seed);
        (0..n_steps)
            .map(|step| sampler.images_of_step(step).to_vec())
            .collect()
    }

    fn counts<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<usize> {
        let mut counted = std::collections::BTreeMap::new();
        for item in items {
            *counted.entry(item).or_insert(0) += 1;
        }
        counted.into_values().collect()
    }

    fn spread(counts: &[usize]) -> usize {
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    const SHUFFLED: Batch = Batch::Shuffled {
        images: 6,
        views: 1,
    };
    const PER_LABEL: Batch = Batch::PerLabel {
        labels: 4,
        images_per_label: 3,
        views: 1,
    };
    const BALANCED: Batch = Batch::Balanced {
        images: 10,
        views: 1,
    };

    #[test]
    fn a_step_follows_from_seed_epoch_and_step_alone() {
        for batch in [SHUFFLED, PER_LABEL, BALANCED] {
            let in_order = steps(batch, 1, 30);
            let mut alone = sampler(batch, 1);
            for step in (0..30).rev() {
                assert_eq!(alone.images_of_step(step), in_order[step], "{batch:?}");
            }
            assert_ne!(steps(batch, 2, 30), in_order, "{batch:?}");
            let per_epoch = batch.steps_per_epoch(40);
            assert_ne!(in_order[..per_epoch], in_order[per_epoch..2 * per_epoch]);
        }
    }

    #[test]
    fn a_shuffled_epoch_sees_no_image_twice() {
        let epoch = steps(SHUFFLED, 1, 6);
        assert_eq!(epoch.concat().len(), 36);
        assert_eq!(spread(&counts(epoch.concat())), 0);
    }

    #[test]
    fn a_batch_per_label_has_the_asked_labels_and_different_images_of_each() {
        let labels = labels();
        for step in steps(PER_LABEL, 3, 60) {
            let mut of_step: Vec<i64> = step.iter().map(|&image| labels[image]).collect();
            assert!(
                of_step
                    .chunks(3)
                    .all(|group| group.iter().all(|l| *l == group[0]))
            );
            of_step.sort_unstable();
            assert_eq!(counts(of_step), [3; 4]);
            for group in step.chunks(3) {
                let n_images = labels.iter().filter(|l| **l == labels[group[0]]).count();
                assert_eq!(counts(group).len(), n_images.min(3), "{group:?}");
            }
        }
    }

    #[test]
    fn labels_and_the_images_of_a_label_are_drawn_equally_often() {
        let labels = labels();
        for batch in [PER_LABEL, BALANCED] {
            let mut sampler = sampler(batch, 5);
            // Many steps of one epoch, as a large set has.
            sampler.n_images = 50 * batch.images();
            let plan = sampler.plan(0);
            assert_eq!(plan.len(), 50);
            let images = plan.concat();
            let group = if batch == PER_LABEL { 3 } else { 1 };
            let of_labels = counts(images.iter().map(|&image| labels[image]));
            assert!(spread(&of_labels) <= group, "{batch:?}: {of_labels:?}");
            for label in 0..7 {
                let own = images.iter().filter(|image| labels[**image] == label);
                let own = counts(own);
                assert!(spread(&own) <= 1, "{batch:?}, label {label}: {own:?}");
            }
        }
    }

    #[test]
    fn a_balanced_batch_has_every_label_as_often_as_it_fits() {
        let labels = labels();
        for step in steps(BALANCED, 4, 20) {
            let of_labels = counts(step.iter().map(|&image| labels[image]));
            assert_eq!(of_labels.len(), 7);
            assert!(spread(&of_labels) <= 1, "{of_labels:?}");
        }
    }

    #[test]
    fn more_labels_than_there_are_can_not_be_asked_for() {
        assert_eq!(sampler(PER_LABEL, 1).fault(), None);
        let too_many = Batch::PerLabel {
            labels: 8,
            images_per_label: 2,
            views: 1,
        };
        let fault = sampler(too_many, 1).fault().unwrap();
        assert!(
            fault.contains("8 labels") && fault.contains("have 7"),
            "{fault}"
        );
    }
}
