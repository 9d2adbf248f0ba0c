//! The tuples of an epoch: which images are queries, positives and negatives.
//!
//! They follow from the seed, the epoch and, where negatives are hard ones, the weights that
//! the network has when the epoch begins. Those weights are gone later in the epoch, so its
//! tuples are part of every checkpoint.

use eyas_shared::random::Random;
use tch::{Device, Kind, Tensor};

use super::distance::l2_normalize;
use super::embed::head_outputs;
use super::network::values_of;
use super::run::LearnError;
use super::sampler::Rounds;
use super::trainer::Training;
use crate::recipe::loss::Positives;
use crate::recipe::{EpochMining, PoolEmbedder, StudentSees, TupleBatch};

/// Queries whose similarities are looked at together.
const QUERIES_AT_ONCE: usize = 256;

/// Draws of an image that may be refused before the rest is looked through in order.
const TRIES: usize = 64;

/// Tuples as positions in the training set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EpochTuples {
    /// Images of a tuple.
    size: usize,
    /// Query, positive and negatives of each tuple.
    images: Vec<usize>,
}

impl EpochTuples {
    /// A place for the tuples of a checkpoint: T x size, f32, exact up to 2^24.
    pub(super) fn no_tuples(batch: &TupleBatch) -> Tensor {
        let size = [batch.tuples_per_epoch as i64, batch.size() as i64];
        Tensor::zeros(size, (Kind::Float, Device::Cpu))
    }

    pub(super) fn from_tensor(tensor: &Tensor) -> Self {
        Self {
            size: tensor.size()[1] as usize,
            images: values_of(tensor).iter().map(|&x| x as usize).collect(),
        }
    }

    pub(super) fn to_tensor(&self) -> Tensor {
        let images: Vec<f32> = self.images.iter().map(|&image| image as f32).collect();
        Tensor::from_slice(&images).view([-1, self.size as i64])
    }

    /// The tuples of one step of the epoch.
    pub(super) fn of_step(&self, batch: &TupleBatch, step: usize) -> &[usize] {
        let n_images = batch.tuples * self.size;
        &self.images[step * n_images..][..n_images]
    }

    /// The images of the tuples that the network in training embeds.
    pub(super) fn seen(batch: &TupleBatch, tuples: &[usize]) -> Vec<usize> {
        match batch.student_sees {
            StudentSees::Tuples => tuples.to_vec(),
            StudentSees::Queries => tuples.iter().step_by(batch.size()).copied().collect(),
        }
    }
}

/// Makes the tuples of an epoch, with the network as it is.
///
/// # Errors
/// If an image can not be read.
pub(super) fn of_epoch(
    training: &Training<'_>,
    batch: &TupleBatch,
    epoch: usize,
) -> Result<EpochTuples, LearnError> {
    let labels = training.set.images.iter().map(|image| image.label);
    let images = Images::new(labels.collect());
    let random = Random::new(training.recipe.seed)
        .fork("tuples")
        .at(epoch as u64);
    let neighbors: Vec<Vec<usize>>;
    let mut tuples = match batch.positives {
        Positives::Listed => listed_pairs(&training.set.pairs, batch, &random)?,
        Positives::Label => images.pairs(&images.queries(batch, &random), &[], &random),
        Positives::Teacher { nearest } => {
            let queries = images.queries(batch, &random);
            neighbors = teacher_neighbors(&teacher(training), &queries, nearest);
            images.pairs(&queries, &neighbors, &random)
        }
    };
    let queries: Vec<usize> = tuples.iter().map(|tuple| tuple.images[0]).collect();
    if let EpochMining::Hard { pool, embedded_by } = batch.mining {
        let pool = images.pool(pool, &random);
        let embed = |chosen: &[usize]| -> Result<Tensor, LearnError> {
            let chosen = chosen.iter().copied();
            let (store, spec) = (&training.batches.store, &training.recipe.input);
            let outputs = head_outputs(training.network, store, chosen, spec, training.compute)?;
            Ok(l2_normalize(&outputs).to_device(Device::Cpu))
        };
        let of_pool = match embedded_by {
            PoolEmbedder::Student => embed(&pool)?,
            PoolEmbedder::Teacher => rows_of(&teacher(training), &pool),
        };
        let embedded = Embedded {
            queries: embed(&queries)?,
            pool: of_pool,
        };
        images.add_hardest(&mut tuples, &embedded, &pool, batch.negatives);
    }
    images.fill_up(&mut tuples, batch.size(), &random);
    Ok(EpochTuples {
        size: batch.size(),
        images: tuples.into_iter().flat_map(|tuple| tuple.images).collect(),
    })
}

/// Pairs that the data lists, in random order: each once before any comes again.
fn listed_pairs<'a>(
    pairs: &[(usize, usize)],
    batch: &TupleBatch,
    random: &Random,
) -> Result<Vec<Tuple<'a>>, LearnError> {
    if pairs.is_empty() {
        let what = "positives are listed, but the data lists no pair of training images";
        return Err(LearnError::Data(what.to_owned()));
    }
    let drawn = Rounds::new(pairs.len(), random.fork("queries")).take(batch.tuples_per_epoch);
    let tuple = |at: usize| Tuple {
        images: vec![pairs[at].0, pairs[at].1],
        neighbors: None,
    };
    Ok(drawn.into_iter().map(tuple).collect())
}

/// What tuples ask for and the images, by their labels, can not give.
pub(super) fn fault(batch: &TupleBatch, labels: &[i64]) -> Option<String> {
    let n_images = labels.len();
    match batch.positives {
        Positives::Label | Positives::Listed => {
            let images = Images::new(labels.to_vec());
            let n_labels = images.of_label.iter().filter(|own| !own.is_empty()).count();
            let of_label = batch.positives == Positives::Label;
            // A listed match may be of another label than its query.
            let n_own = if of_label { 1 } else { 2 };
            if of_label && images.of_label.iter().all(|own| own.len() < 2) {
                Some("no label has two images: there is no positive for any query".to_owned())
            } else if n_labels < batch.negatives + n_own {
                Some(format!(
                    "tuples of {} negatives, each of another label, are asked for, but the \
                     training images have {n_labels} labels",
                    batch.negatives
                ))
            } else {
                None
            }
        }
        Positives::Teacher { nearest } => {
            let n_wanted = nearest + 1 + batch.negatives;
            (n_images < n_wanted).then(|| {
                format!(
                    "tuples of a query, one of its {nearest} nearest images and {} others need \
                     {n_wanted} training images, but there are {n_images}",
                    batch.negatives
                )
            })
        }
    }
}

/// The teacher's embeddings of the training set on the CPU, unit rows.
fn teacher(training: &Training<'_>) -> Tensor {
    let embeddings = training.set.teacher.as_ref();
    let embeddings = embeddings.expect("a checked recipe has a teacher where tuples need one");
    let size = [embeddings.n_rows() as i64, embeddings.dim() as i64];
    l2_normalize(&Tensor::from_slice(embeddings.values()).view(size))
}

fn rows_of(embeddings: &Tensor, chosen: &[usize]) -> Tensor {
    let chosen: Vec<i64> = chosen.iter().map(|&image| image as i64).collect();
    embeddings.index_select(0, &Tensor::from_slice(&chosen))
}

/// The `nearest` other images of each query in the teacher's space, in rising order of
/// their positions.
fn teacher_neighbors(teacher: &Tensor, queries: &[usize], nearest: usize) -> Vec<Vec<usize>> {
    let mut neighbors = Vec::with_capacity(queries.len());
    for queries in queries.chunks(QUERIES_AT_ONCE) {
        let own: Vec<i64> = queries.iter().map(|&query| query as i64).collect();
        let own = Tensor::from_slice(&own).unsqueeze(1);
        let cosines = rows_of(teacher, queries).matmul(&teacher.transpose(0, 1));
        let cosines = cosines.scatter_value(1, &own, f64::NEG_INFINITY);
        let (_, places) = cosines.topk(nearest as i64, 1, true, false);
        let flat: Vec<i64> = Vec::try_from(places.reshape(-1)).expect("places are i64");
        neighbors.extend(flat.chunks(nearest).map(|of_query| {
            let mut of_query: Vec<usize> = of_query.iter().map(|&image| image as usize).collect();
            of_query.sort_unstable();
            of_query
        }));
    }
    neighbors
}

/// A tuple in the making.
struct Tuple<'a> {
    /// The query, its positive, negatives so far.
    images: Vec<usize>,
    /// The teacher's neighbors of the query, which are no negatives; without them labels
    /// say what is one.
    neighbors: Option<&'a [usize]>,
}

impl Tuple<'_> {
    /// Whether an image may be the next negative.
    fn takes(&self, image: usize, label_of: &[i64]) -> bool {
        match self.neighbors {
            Some(neighbors) => {
                neighbors.binary_search(&image).is_err() && !self.images.contains(&image)
            }
            None => {
                let label = label_of[image];
                self.images.iter().all(|&other| label_of[other] != label)
            }
        }
    }
}

/// Unit rows of queries and of the pool.
struct Embedded {
    queries: Tensor,
    pool: Tensor,
}

/// The training images by their labels.
struct Images {
    label_of: Vec<i64>,
    of_label: Vec<Vec<usize>>,
}

impl Images {
    fn new(label_of: Vec<i64>) -> Self {
        let n_labels = label_of.iter().max().map_or(0, |&label| label as usize + 1);
        let mut of_label = vec![Vec::new(); n_labels];
        for (image, &label) in label_of.iter().enumerate() {
            of_label[label as usize].push(image);
        }
        Self { label_of, of_label }
    }

    /// Images that have a positive, in random order: each once before any comes again.
    fn queries(&self, batch: &TupleBatch, random: &Random) -> Vec<usize> {
        let has_positive = |image: &usize| match batch.positives {
            Positives::Label => self.of_label[self.label_of[*image] as usize].len() > 1,
            Positives::Listed | Positives::Teacher { .. } => true,
        };
        let able: Vec<usize> = (0..self.label_of.len()).filter(has_positive).collect();
        let drawn = Rounds::new(able.len(), random.fork("queries")).take(batch.tuples_per_epoch);
        drawn.into_iter().map(|at| able[at]).collect()
    }

    /// Each query with a positive: one of its neighbors if there are such lists, otherwise
    /// another image of its label.
    fn pairs<'a>(
        &self,
        queries: &[usize],
        neighbors: &'a [Vec<usize>],
        random: &Random,
    ) -> Vec<Tuple<'a>> {
        let random = random.fork("positives");
        let pair = |(at, &query): (usize, &usize)| {
            let mut random = random.at(at as u64);
            let neighbors = neighbors.get(at).map(Vec::as_slice);
            let positive = match neighbors {
                Some(neighbors) => neighbors[random.below(neighbors.len())],
                None => {
                    let same = &self.of_label[self.label_of[query] as usize];
                    let drawn = random.below(same.len() - 1);
                    // The last one stands in for the query.
                    let last = same[same.len() - 1];
                    if same[drawn] == query {
                        last
                    } else {
                        same[drawn]
                    }
                }
            };
            Tuple {
                images: vec![query, positive],
                neighbors,
            }
        };
        queries.iter().enumerate().map(pair).collect()
    }

    /// Different images among which negatives are looked for.
    fn pool(&self, wanted: usize, random: &Random) -> Vec<usize> {
        let n_images = self.label_of.len();
        Rounds::new(n_images, random.fork("pool")).take(wanted.min(n_images))
    }

    /// Walks down each query's ranking of the pool and takes what may be a negative.
    fn add_hardest(
        &self,
        tuples: &mut [Tuple<'_>],
        embedded: &Embedded,
        pool: &[usize],
        negatives: usize,
    ) {
        let to_pool = embedded.pool.transpose(0, 1);
        for (chunk_idx, chunk) in tuples.chunks_mut(QUERIES_AT_ONCE).enumerate() {
            let start = (chunk_idx * QUERIES_AT_ONCE) as i64;
            let queries = embedded.queries.narrow(0, start, chunk.len() as i64);
            let scores = values_of(&queries.matmul(&to_pool));
            for (tuple, scores) in chunk.iter_mut().zip(scores.chunks(pool.len())) {
                for _ in 0..negatives {
                    let Some(hardest) = self.hardest(tuple, scores, pool) else {
                        break;
                    };
                    tuple.images.push(hardest);
                }
            }
        }
    }

    /// The image of the pool with the highest score that the tuple takes; of equal ones the
    /// first.
    fn hardest(&self, tuple: &Tuple<'_>, scores: &[f32], pool: &[usize]) -> Option<usize> {
        let mut best: Option<(f32, usize)> = None;
        for (&score, &image) in scores.iter().zip(pool) {
            let is_higher = best.is_none_or(|(highest, _)| score > highest);
            if is_higher && tuple.takes(image, &self.label_of) {
                best = Some((score, image));
            }
        }
        best.map(|(_, image)| image)
    }

    /// Draws what is missing of each tuple.
    fn fill_up(&self, tuples: &mut [Tuple<'_>], size: usize, random: &Random) {
        let random = random.fork("negatives");
        let n_images = self.label_of.len();
        for (at, tuple) in tuples.iter_mut().enumerate() {
            let mut random = random.at(at as u64);
            while tuple.images.len() < size {
                let mut tries = (0..TRIES).map(|_| random.below(n_images));
                let drawn = tries.find(|&image| tuple.takes(image, &self.label_of));
                // Nearly all images have few labels: look through all from a random one on.
                let negative = drawn.or_else(|| {
                    let start = random.below(n_images);
                    let mut all = (start..n_images).chain(0..start);
                    all.find(|&image| tuple.takes(image, &self.label_of))
                });
                tuple
                    .images
                    .push(negative.expect("there are as many labels as tuples need"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels 0 to 6 with 1 to 13 images, in turns.
    fn images() -> Images {
        let mut labels = Vec::new();
        for round in 0..13 {
            for (label, size) in [5, 1, 13, 8, 2, 3, 8].into_iter().enumerate() {
                if round < size {
                    labels.push(label as i64);
                }
            }
        }
        Images::new(labels)
    }

    fn batch(positives: Positives) -> TupleBatch {
        TupleBatch {
            tuples: 5,
            tuples_per_epoch: 60,
            student_sees: StudentSees::Tuples,
            positives,
            negatives: 4,
            mining: EpochMining::Random,
            views: 1,
        }
    }

    fn place(seed: u64, epoch: u64) -> Random {
        Random::new(seed).fork("tuples").at(epoch)
    }

    /// Unit rows without ties, no two alike.
    fn directions(n: usize, seed: u64) -> Tensor {
        let mut random = Random::new(seed).fork("directions");
        let values: Vec<f32> = (0..n * 6).map(|_| random.normal() as f32).collect();
        l2_normalize(&Tensor::from_slice(&values).view([-1, 6]))
    }

    fn drawn(images: &Images, batch: &TupleBatch, random: &Random) -> Vec<Vec<usize>> {
        let queries = images.queries(batch, random);
        let mut tuples = images.pairs(&queries, &[], random);
        images.fill_up(&mut tuples, batch.size(), random);
        tuples.into_iter().map(|tuple| tuple.images).collect()
    }

    fn is_sound(images: &Images, tuple: &[usize]) -> bool {
        let label = |at: usize| images.label_of[tuple[at]];
        let mut labels: Vec<i64> = (1..tuple.len()).map(label).collect();
        let n_labels = labels.len();
        labels.sort_unstable();
        labels.dedup();
        tuple[0] != tuple[1] && label(0) == label(1) && labels.len() == n_labels
    }

    #[test]
    fn tuples_follow_from_seed_and_epoch() {
        let (images, batch) = (images(), batch(Positives::Label));
        let of = |seed, epoch| drawn(&images, &batch, &place(seed, epoch));
        assert_eq!(of(1, 2), of(1, 2));
        assert_ne!(of(1, 2), of(1, 3));
        assert_ne!(of(1, 2), of(2, 2));
    }

    #[test]
    fn a_positive_has_the_querys_label_and_negatives_have_others_each_another() {
        let (images, batch) = (images(), batch(Positives::Label));
        let tuples = drawn(&images, &batch, &place(3, 0));
        assert_eq!(tuples.len(), 60);
        for tuple in &tuples {
            assert_eq!(tuple.len(), 6);
            assert!(is_sound(&images, tuple), "{tuple:?}");
        }
        // 39 images have a positive; each is a query before any is one again.
        let mut queries: Vec<usize> = tuples.iter().map(|tuple| tuple[0]).collect();
        queries[..39].sort_unstable();
        queries[..39]
            .windows(2)
            .for_each(|two| assert!(two[0] < two[1]));
        let positives: std::collections::BTreeSet<usize> =
            tuples.iter().map(|tuple| tuple[1]).collect();
        assert!(positives.len() > 20, "{positives:?}");
    }

    #[test]
    fn listed_pairs_are_drawn_once_before_any_comes_again() {
        let (images, batch) = (images(), batch(Positives::Listed));
        let of = |label: usize, at: usize| images.of_label[label][at];
        // One query with three matches, and one whose match is of another label.
        let pairs = [
            (of(0, 0), of(0, 3)),
            (of(2, 1), of(2, 5)),
            (of(2, 1), of(2, 7)),
            (of(2, 1), of(2, 0)),
            (of(4, 1), of(5, 2)),
        ];
        let random = place(4, 0);
        let mut tuples = listed_pairs(&pairs, &batch, &random).unwrap();
        images.fill_up(&mut tuples, batch.size(), &random);
        assert_eq!(tuples.len(), 60);
        for round in tuples.chunks(pairs.len()) {
            let mut drawn: Vec<_> = round.iter().map(|t| (t.images[0], t.images[1])).collect();
            drawn.sort_unstable();
            let mut expected = pairs;
            expected.sort_unstable();
            assert_eq!(drawn, expected);
        }
        for tuple in &tuples {
            let of_pair = [tuple.images[0], tuple.images[1]].map(|image| images.label_of[image]);
            let mut others: Vec<i64> = tuple.images[2..]
                .iter()
                .map(|&image| images.label_of[image])
                .collect();
            assert!(
                others.iter().all(|label| !of_pair.contains(label)),
                "{others:?}"
            );
            others.sort_unstable();
            others.dedup();
            assert_eq!(others.len(), batch.negatives);
        }
        let again = listed_pairs(&pairs, &batch, &place(4, 1)).unwrap();
        let queries = |tuples: &[Tuple<'_>]| tuples.iter().map(|t| t.images[1]).collect::<Vec<_>>();
        assert_ne!(queries(&again), queries(&tuples));
        assert!(listed_pairs(&[], &batch, &random).is_err());
    }

    /// The ranking of the pool by f64 dot products, walked down label by label.
    fn hardest_by_sorting(
        images: &Images,
        query: (usize, &[f32]),
        pool: &[(usize, &[f32])],
        negatives: usize,
    ) -> Vec<usize> {
        let dot = |row: &[f32]| -> f64 {
            let products = row.iter().zip(query.1);
            products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut ranking: Vec<(f64, usize)> =
            pool.iter().map(|(image, row)| (dot(row), *image)).collect();
        ranking.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut labels = vec![images.label_of[query.0]];
        let mut taken = Vec::new();
        for (_, image) in ranking {
            let label = images.label_of[image];
            if taken.len() < negatives && !labels.contains(&label) {
                labels.push(label);
                taken.push(image);
            }
        }
        taken
    }

    #[test]
    fn hard_negatives_are_those_that_a_plain_ranking_gives() {
        let (images, batch, random) = (images(), batch(Positives::Label), place(5, 1));
        let embeddings = directions(images.label_of.len(), 8);
        let values = values_of(&embeddings);
        let row = |image: usize| &values[image * 6..][..6];
        let queries = images.queries(&batch, &random);
        let pool = images.pool(25, &random);
        assert_eq!(pool.len(), 25);
        let embedded = Embedded {
            queries: rows_of(&embeddings, &queries),
            pool: rows_of(&embeddings, &pool),
        };
        let mut tuples = images.pairs(&queries, &[], &random);
        images.add_hardest(&mut tuples, &embedded, &pool, batch.negatives);
        let with_rows: Vec<_> = pool.iter().map(|&image| (image, row(image))).collect();
        for tuple in &tuples {
            let query = tuple.images[0];
            let expected = hardest_by_sorting(&images, (query, row(query)), &with_rows, 4);
            assert_eq!(tuple.images[2..], expected, "query {query}");
            assert!(is_sound(&images, &tuple.images));
        }
    }

    #[test]
    fn a_pool_of_too_few_labels_is_made_up_for_from_all_images() {
        let (images, batch, random) = (images(), batch(Positives::Label), place(5, 1));
        let embeddings = directions(images.label_of.len(), 8);
        let queries = images.queries(&batch, &random);
        let pool = images.of_label[2].clone();
        let embedded = Embedded {
            queries: rows_of(&embeddings, &queries),
            pool: rows_of(&embeddings, &pool),
        };
        let mut tuples = images.pairs(&queries, &[], &random);
        images.add_hardest(&mut tuples, &embedded, &pool, batch.negatives);
        images.fill_up(&mut tuples, batch.size(), &random);
        for tuple in &tuples {
            assert_eq!(tuple.images.len(), batch.size());
            assert!(is_sound(&images, &tuple.images));
            let has_label_2 = images.label_of[tuple.images[2]] == 2;
            assert!(has_label_2 || images.label_of[tuple.images[0]] == 2);
        }
    }

    #[test]
    fn a_rare_label_is_found_among_many_images_of_another() {
        let mut labels = vec![0; 5000];
        labels[4000] = 1;
        labels.extend([2, 2]);
        let images = Images::new(labels);
        let mut tuple = [Tuple {
            images: vec![5000, 5001],
            neighbors: None,
        }];
        images.fill_up(&mut tuple, 4, &place(1, 0));
        assert!(
            tuple[0].images[2..].contains(&4000),
            "{:?}",
            tuple[0].images
        );
    }

    #[test]
    fn pseudo_positives_are_the_teachers_nearest_and_negatives_are_not() {
        let images = Images::new(vec![0; 40]);
        let batch = batch(Positives::Teacher { nearest: 7 });
        let teacher = directions(40, 2);
        let values = values_of(&teacher);
        let random = place(2, 0);
        let queries = images.queries(&batch, &random);
        let neighbors = teacher_neighbors(&teacher, &queries, 7);
        let mut tuples = images.pairs(&queries, &neighbors, &random);
        let embedded = Embedded {
            queries: rows_of(&teacher, &queries),
            pool: teacher.shallow_clone(),
        };
        let pool: Vec<usize> = (0..40).collect();
        images.add_hardest(&mut tuples, &embedded, &pool, batch.negatives);
        for tuple in &tuples {
            let [query, positive, negatives @ ..] = &tuple.images[..] else {
                panic!("a tuple has a query and a positive");
            };
            let dot = |image: usize| -> f64 {
                let rows = values[image * 6..][..6]
                    .iter()
                    .zip(&values[query * 6..][..6]);
                rows.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let mut ranking: Vec<usize> = (0..40).filter(|image| image != query).collect();
            ranking.sort_by(|a, b| dot(*b).total_cmp(&dot(*a)));
            assert!(ranking[..7].contains(positive), "{ranking:?} {positive}");
            assert_eq!(negatives, &ranking[7..11]);
        }
    }

    #[test]
    fn what_the_images_can_not_give_is_named() {
        let mut wanted = batch(Positives::Label);
        assert_eq!(fault(&wanted, &images().label_of), None);
        assert!(
            fault(&wanted, &[0, 1, 2, 3, 4])
                .unwrap()
                .contains("two images")
        );
        wanted.negatives = 7;
        let message = fault(&wanted, &images().label_of).unwrap();
        assert!(
            message.contains("7 negatives") && message.contains("7 labels"),
            "{message}"
        );
        wanted.positives = Positives::Teacher { nearest: 33 };
        let message = fault(&wanted, &images().label_of).unwrap();
        assert!(
            message.contains("41") && message.contains("40"),
            "{message}"
        );
    }

    #[test]
    fn tuples_come_back_from_their_tensor() {
        let tuples = EpochTuples {
            size: 3,
            images: vec![0, 16_777_215, 2, 3, 4, 5],
        };
        assert_eq!(EpochTuples::from_tensor(&tuples.to_tensor()), tuples);
        let batch = TupleBatch {
            tuples: 1,
            negatives: 1,
            student_sees: StudentSees::Queries,
            ..batch(Positives::Label)
        };
        let second = tuples.of_step(&batch, 1);
        assert_eq!(second, [3, 4, 5]);
        assert_eq!(EpochTuples::seen(&batch, second), [3]);
    }
}
