//! Which tuple each row of a batch is the query of.

use eyas_shared::random::Random;
use tch::{Kind, Tensor, no_grad};

use super::TupleRows;
use crate::learn::distance::l2_normalize;
use crate::learn::loss::metric::{pool_of, reduce};
use crate::learn::loss::{Rows, Setting, Term};
use crate::recipe::loss::{Mining, Positives, TupleReferences, Tuples};

type Formula = Box<dyn Fn(&TupleRows) -> Tensor>;

/// A loss over tuples with the tuples that it mines at each step.
pub(in crate::learn) struct TupleTerm {
    formula: Formula,
    tuples: Tuples,
    random: Random,
}

impl TupleTerm {
    /// `formula` gives one value for each tuple.
    pub(in crate::learn) fn boxed(
        tuples: Tuples,
        setting: &Setting,
        formula: impl Fn(&TupleRows) -> Tensor + 'static,
    ) -> Box<dyn Term> {
        Box::new(Self {
            formula: Box::new(formula),
            tuples,
            random: setting.random("tuples"),
        })
    }
}

impl Term for TupleTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        let tuples = match (rows.tuples, self.tuples.references) {
            (Some(images), TupleReferences::Batch | TupleReferences::Teacher) => {
                of_batch(rows, images, self.tuples)
            }
            _ => {
                let mut random = self.random.at(rows.step as u64);
                Candidates::of(rows, self.tuples).mine(rows, self.tuples, &mut random)
            }
        };
        let values = (self.formula)(&tuples);
        // A tuple without positives teaches nothing.
        let whole = tuples.positive.any_dim(1, false);
        reduce(self.tuples.reducer, &values, &whole)
    }
}

/// The tuples (images, T x S) that the batch was made of, once for each view.
///
/// Rows are all images of the tuples, or the queries alone, which the teacher's gallery
/// completes.
fn of_batch(rows: &Rows<'_>, images: &Tensor, tuples: Tuples) -> TupleRows {
    let (n_tuples, size) = (images.size()[0], images.size()[1]);
    let n_views = rows.n_views as i64;
    let is_whole = rows.student.size()[0] == n_views * n_tuples * size;
    // Rows of each tuple, the query first.
    let by_tuple = |rows: &Tensor| {
        let unit = l2_normalize(rows);
        unit.view([n_views * n_tuples, -1, unit.size()[1]])
    };
    let without_query = |whole: &Tensor| whole.narrow(1, 1, size - 1);
    let student = by_tuple(rows.student);
    let others = match tuples.references {
        TupleReferences::Batch => without_query(&student),
        _ if is_whole => without_query(&by_tuple(rows.teacher())),
        _ => {
            let memory = rows.memory().teacher;
            let chosen = memory.index_select(0, &without_query(images).reshape(-1));
            let chosen = l2_normalize(&chosen).view([n_tuples, size - 1, memory.size()[1]]);
            chosen.repeat([n_views, 1, 1])
        }
    };
    let filled = Tensor::ones(&others.size()[..2], (Kind::Bool, others.device()));
    let own = tuples
        .own_teacher
        .then(|| by_tuple(rows.teacher()).narrow(1, 0, 1));
    assemble(student.narrow(1, 0, 1), &others, &filled, own)
}

/// Tuples of queries (N x 1 x D) and others (N x (1 + K) x D, positive first) of which
/// `filled` (N x (1 + K)) marks those that are there; `own_teacher` (N x 1 x D) is a second
/// positive.
fn assemble(
    query: Tensor,
    others: &Tensor,
    filled: &Tensor,
    own_teacher: Option<Tensor>,
) -> TupleRows {
    let n_negatives = filled.size()[1] - 1;
    let mut positive = filled.narrow(1, 0, 1);
    let negative = filled.narrow(1, 1, n_negatives);
    let others = match own_teacher {
        Some(own) => {
            positive = Tensor::cat(&[positive.ones_like(), positive], 1);
            Tensor::cat(&[&own, others], 1)
        }
        None => others.shallow_clone(),
    };
    let n_positives = positive.size()[1];
    TupleRows {
        query,
        others,
        positive: positive.constant_pad_nd([0, n_negatives]),
        negative: negative.constant_pad_nd([n_positives, 0]),
    }
}

/// What positives and negatives are chosen among.
struct Candidates {
    /// M x D, unit; the student's with gradient.
    embeddings: Tensor,
    /// Class numbers, M.
    labels: Tensor,
    /// What a row may have as positive, N x M.
    positive: Tensor,
    /// What a row may have as negative, N x M.
    negative: Tensor,
}

impl Candidates {
    fn of(rows: &Rows<'_>, tuples: Tuples) -> Self {
        let (embeddings, labels, own) = match tuples.references {
            TupleReferences::Batch | TupleReferences::Teacher => {
                let embeddings = match tuples.references {
                    TupleReferences::Batch => rows.student,
                    _ => rows.teacher(),
                };
                let n_rows = rows.labels.size()[0];
                let own = Tensor::eye(n_rows, (Kind::Bool, rows.labels.device()));
                (l2_normalize(embeddings), rows.labels.shallow_clone(), own)
            }
            TupleReferences::Gallery { .. } => {
                let memory = rows.memory();
                let images =
                    Tensor::arange(memory.labels.size()[0], (Kind::Int64, rows.labels.device()));
                let own = rows.image_idx.unsqueeze(1).eq_tensor(&images.unsqueeze(0));
                (
                    l2_normalize(memory.teacher),
                    memory.labels.shallow_clone(),
                    own,
                )
            }
        };
        let same = match tuples.positives {
            Positives::Label => rows.labels.unsqueeze(1).eq_tensor(&labels.unsqueeze(0)),
            Positives::Teacher { nearest } => {
                teacher_neighbors(rows, tuples.references, &own, nearest)
            }
            Positives::Listed => {
                unreachable!("a checked recipe takes listed positives from the batch's tuples")
            }
        };
        let others = own.logical_not();
        Self {
            positive: same.logical_and(&others),
            negative: same.logical_not().logical_and(&others),
            embeddings,
            labels,
        }
    }

    /// One tuple for each row.
    fn mine(&self, rows: &Rows<'_>, tuples: Tuples, random: &mut Random) -> TupleRows {
        let query = l2_normalize(rows.student);
        let (chosen, filled) = no_grad(|| self.choose(&query, tuples, random));
        let size = [query.size()[0], -1, query.size()[1]];
        let others = self.embeddings.index_select(0, &chosen.reshape(-1));
        let own = tuples
            .own_teacher
            .then(|| l2_normalize(rows.teacher()).unsqueeze(1));
        assemble(query.unsqueeze(1), &others.view(size), &filled, own)
    }

    /// Rows of candidates, N x (1 + K), and whether there was one to choose.
    fn choose(&self, query: &Tensor, tuples: Tuples, random: &mut Random) -> (Tensor, Tensor) {
        let (positive, has_positive) = draw_one(&self.positive, random);
        let (mut chosen, mut filled) = (vec![positive], vec![has_positive]);
        let (pool, mut eligible) = match tuples.references {
            TupleReferences::Batch | TupleReferences::Teacher => {
                (None, self.negative.shallow_clone())
            }
            TupleReferences::Gallery { pool } => {
                let (n, device) = (self.labels.size()[0], query.device());
                let pool = pool_of(n, pool, random, device);
                let eligible = self.negative.index_select(1, &pool);
                (Some(pool), eligible)
            }
        };
        let in_pool = |of_all: &Tensor| match &pool {
            Some(pool) => of_all.index_select(0, pool),
            None => of_all.shallow_clone(),
        };
        let labels = in_pool(&self.labels);
        let scores = query.matmul(&in_pool(&self.embeddings).transpose(0, 1));
        for _ in 0..tuples.negatives {
            let (place, found) = match tuples.mining {
                Mining::Hard => highest(&scores, &eligible),
                Mining::Random => draw_one(&eligible, random),
            };
            let taken = match tuples.positives {
                Positives::Label | Positives::Listed => labels
                    .index_select(0, &place)
                    .unsqueeze(1)
                    .eq_tensor(&labels.unsqueeze(0)),
                Positives::Teacher { .. } => place.one_hot(labels.size()[0]).to_kind(Kind::Bool),
            };
            eligible = eligible.logical_and(&taken.logical_not());
            chosen.push(match &pool {
                Some(pool) => pool.index_select(0, &place),
                None => place,
            });
            filled.push(found);
        }
        (Tensor::stack(&chosen, 1), Tensor::stack(&filled, 1))
    }
}

/// The images, `nearest` of them, that the teacher sees nearest to each row's image; not
/// the image itself. N x M.
fn teacher_neighbors(
    rows: &Rows<'_>,
    references: TupleReferences,
    own: &Tensor,
    nearest: usize,
) -> Tensor {
    let teacher = l2_normalize(rows.teacher());
    let others = match references {
        TupleReferences::Batch | TupleReferences::Teacher => teacher.shallow_clone(),
        TupleReferences::Gallery { .. } => l2_normalize(rows.memory().teacher),
    };
    let cosines = teacher.matmul(&others.transpose(0, 1));
    let cosines = cosines.masked_fill(own, f64::NEG_INFINITY);
    let n_nearest = (nearest as i64).min(cosines.size()[1]);
    let (_, places) = cosines.topk(n_nearest, 1, true, false);
    own.zeros_like().scatter_value(1, &places, 1)
}

/// One of the marked columns of each row (N x M), drawn evenly, and whether there is one.
fn draw_one(marks: &Tensor, random: &mut Random) -> (Tensor, Tensor) {
    let nth = marks.cumsum(1, Kind::Int64);
    let counts = nth.select(1, -1);
    let draws: Vec<f64> = (0..marks.size()[0]).map(|_| random.unit()).collect();
    let draws = Tensor::from_slice(&draws).to_device(marks.device());
    let wanted = (draws * counts.to_kind(Kind::Double))
        .floor()
        .to_kind(Kind::Int64)
        + 1;
    let hit = nth.eq_tensor(&wanted.unsqueeze(1)).logical_and(marks);
    (hit.to_kind(Kind::Int).argmax(1, false), counts.gt(0))
}

/// The marked column of the highest score in each row, and whether there is one.
fn highest(scores: &Tensor, marks: &Tensor) -> (Tensor, Tensor) {
    let kept = scores.masked_fill(&marks.logical_not(), f64::NEG_INFINITY);
    (kept.argmax(1, false), marks.any_dim(1, false))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::recipe::loss::Reducer;

    fn tuples(mining: Mining, positives: Positives) -> Tuples {
        Tuples {
            references: TupleReferences::Gallery { pool: 100 },
            positives,
            mining,
            negatives: 3,
            own_teacher: false,
            reducer: Reducer::Mean,
        }
    }

    /// 12 images on a quarter circle, two neighbors a label; queries are what the teacher
    /// makes of images 0 and 5.
    fn choose(tuples: Tuples) -> (Vec<Vec<i64>>, Vec<Vec<bool>>) {
        let angles = Tensor::arange(12, (Kind::Double, Device::Cpu)) * 0.1;
        let teacher = Tensor::stack(&[angles.cos(), angles.sin()], 1);
        let labels = Tensor::arange(12, (Kind::Int64, Device::Cpu)).floor_divide_scalar(2);
        let image_idx = Tensor::from_slice(&[0_i64, 5]);
        let student = teacher.index_select(0, &image_idx);
        let rows = Rows {
            student: &student,
            teacher: Some(&student),
            labels: &labels.index_select(0, &image_idx),
            image_idx: &image_idx,
            step: 0,
            n_views: 1,
            memory: Some(&crate::learn::loss::Memory {
                teacher: &teacher,
                labels: &labels,
            }),
            maps: None,
            tuples: None,
        };
        let candidates = Candidates::of(&rows, tuples);
        let (chosen, filled) = candidates.choose(&student, tuples, &mut Random::new(3));
        (
            Vec::<Vec<i64>>::try_from(chosen).unwrap(),
            Vec::<Vec<bool>>::try_from(filled).unwrap(),
        )
    }

    #[test]
    fn hard_negatives_are_the_nearest_one_of_a_label() {
        let (chosen, filled) = choose(tuples(Mining::Hard, Positives::Label));
        // Of labels 1, 2, 3 the nearest to image 0; of 3, 1, 4 the nearest to image 5.
        assert_eq!(chosen, [[1, 2, 4, 6], [4, 6, 3, 8]]);
        assert!(filled.iter().flatten().all(|&found| found));
    }

    #[test]
    fn random_negatives_have_other_labels_and_each_another_one() {
        let (chosen, _) = choose(tuples(Mining::Random, Positives::Label));
        for (row, own_label) in chosen.iter().zip([0, 2]) {
            let mut labels: Vec<i64> = row[1..].iter().map(|image| image / 2).collect();
            assert!(!labels.contains(&own_label), "{row:?}");
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), 3, "{row:?}");
        }
    }

    #[test]
    fn pseudo_positives_are_neighbors_of_the_teacher_and_never_negatives() {
        let positives = Positives::Teacher { nearest: 2 };
        let (chosen, _) = choose(tuples(Mining::Hard, positives));
        assert!([1, 2].contains(&chosen[0][0]));
        assert_eq!(chosen[0][1..], [3, 4, 5]);
        assert!([4, 6].contains(&chosen[1][0]));
    }

    #[test]
    fn places_stay_empty_where_labels_run_out() {
        let mut wanted = tuples(Mining::Hard, Positives::Label);
        wanted.negatives = 7;
        let (_, filled) = choose(wanted);
        let expected = [true, true, true, true, true, true, false, false];
        assert_eq!(filled[0], expected);
    }

    /// Two tuples of one negative, two views: what a batch of tuples gives. Component `x` of
    /// image `i` is 2 for `x = i`, 1 elsewhere, so that every row tells its image.
    fn batch_of_tuples(references: TupleReferences, is_whole: bool) -> TupleRows {
        let images = Tensor::from_slice(&[3_i64, 1, 0, 2, 4, 3]).view([2, 3]);
        let gallery = Tensor::ones([5, 5], (Kind::Double, Device::Cpu))
            + Tensor::eye(5, (Kind::Double, Device::Cpu));
        let shown = if is_whole {
            images.reshape(-1)
        } else {
            images.select(1, 0)
        };
        let image_idx = shown.repeat([2]);
        let teacher = gallery.index_select(0, &image_idx);
        let labels = Tensor::zeros([5], (Kind::Int64, Device::Cpu));
        let rows = Rows {
            student: &(&teacher * -1.0),
            teacher: Some(&teacher),
            labels: &labels.index_select(0, &image_idx),
            image_idx: &image_idx,
            step: 0,
            n_views: 2,
            memory: Some(&crate::learn::loss::Memory {
                teacher: &gallery,
                labels: &labels,
            }),
            maps: None,
            tuples: Some(&images),
        };
        let tuples = Tuples {
            references,
            negatives: 1,
            own_teacher: true,
            ..tuples(Mining::Hard, Positives::Label)
        };
        of_batch(&rows, &images, tuples)
    }

    /// Sign (student negative) and image of every row.
    fn told(rows: &Tensor) -> Vec<i64> {
        let strongest = rows.abs().argmax(-1, false) + 1;
        let signs = rows
            .sum_dim_intlist([-1].as_slice(), false, Kind::Double)
            .sign();
        let told = (strongest * signs.to_kind(Kind::Int64)).reshape(-1);
        Vec::try_from(told).unwrap()
    }

    #[test]
    fn a_batch_of_tuples_is_taken_as_it_is() {
        let symmetric = batch_of_tuples(TupleReferences::Batch, true);
        // Queries 3 and 2 of each view, by the student; numbers from 1.
        assert_eq!(told(&symmetric.query), [-4, -3, -4, -3]);
        // The teacher's embedding of the query, then positive and negative.
        assert_eq!(
            told(&symmetric.others),
            [4, -2, -1, 3, -5, -4, 4, -2, -1, 3, -5, -4]
        );
        for is_whole in [true, false] {
            let asymmetric = batch_of_tuples(TupleReferences::Teacher, is_whole);
            assert_eq!(told(&asymmetric.query), [-4, -3, -4, -3]);
            assert_eq!(
                told(&asymmetric.others),
                [4, 2, 1, 3, 5, 4, 4, 2, 1, 3, 5, 4]
            );
            let marks = |marks: &Tensor| Vec::<Vec<bool>>::try_from(marks).unwrap();
            assert_eq!(
                marks(&asymmetric.positive),
                vec![vec![true, true, false]; 4]
            );
            assert_eq!(
                marks(&asymmetric.negative),
                vec![vec![false, false, true]; 4]
            );
        }
    }
}
