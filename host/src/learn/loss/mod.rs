//! Losses as formulas: tensors in, one scalar out; and as terms of an objective, with the
//! tensors that they own.
//!
//! Rows are images or views of them: `student` and `teacher` are N x D. Formulas follow
//! gradients wherever tensors ask for them: a teacher's embeddings do not ask.

mod metric;
mod transfer;
mod tuple;

pub(super) use metric::{
    Comparison, PairTerm, ProxyAnchorTerm, ProxyNcaTerm, SoftTripleTerm, circle, contrastive,
    cosine_contrastive, generalized_lifted, lifted, margin, multi_similarity, n_pair, nt_xent,
    proxy_anchor, proxy_nca, soft_triple, triplet, tuplet_margin,
};
pub(super) use transfer::*;

pub(super) use tuple::{
    TupleRows, TupleTerm, shifted_normalize, tuple_contrastive, tuple_distance_regression,
    tuple_multi_similarity, tuple_triplet,
};

use std::collections::BTreeMap;

use eyas_shared::random::Random;
use tch::{Device, Tensor};

use super::distance::l2_normalize;
use crate::recipe::Loss;
use crate::recipe::loss::References;

/// What the losses of a step compare; rows are views of images.
pub(super) struct Rows<'a> {
    /// Head output, N x D.
    pub(super) student: &'a Tensor,
    /// The teacher's embedding of the same images, N x D.
    pub(super) teacher: Option<&'a Tensor>,
    /// N class numbers.
    pub(super) labels: &'a Tensor,
    /// N positions of the images in the training set.
    pub(super) image_idx: &'a Tensor,
    /// Steps before this one.
    pub(super) step: usize,
    /// Views of each image; row `view * images + i` is a view of image `i` of the batch.
    pub(super) n_views: usize,
    /// The teacher's embeddings of the whole training set.
    pub(super) memory: Option<&'a Memory<'a>>,
    /// Maps of the rows within the networks.
    pub(super) maps: Option<&'a Maps>,
    /// The tuples that the batch was made of: positions in the training set, T x (query,
    /// positive, negatives). Rows of a view are their images, tuple after tuple, or the
    /// queries alone.
    pub(super) tuples: Option<&'a Tensor>,
}

/// Outputs of nodes, N x C x H x W each, by the node's name.
#[derive(Default)]
pub(super) struct Maps {
    pub(super) student: BTreeMap<String, Tensor>,
    pub(super) teacher: BTreeMap<String, Tensor>,
}

impl Maps {
    fn student(&self, node: &str) -> &Tensor {
        &self.student[node]
    }

    fn teacher(&self, node: &str) -> &Tensor {
        &self.teacher[node]
    }
}

impl<'a> Rows<'a> {
    /// The teacher's embeddings of the rows, N x D.
    pub(super) fn teacher(&self) -> &'a Tensor {
        self.teacher
            .expect("a recipe with teacher losses is given a teacher")
    }

    /// The teacher's embeddings of the whole training set.
    pub(super) fn memory(&self) -> &'a Memory<'a> {
        self.memory.expect("a teacher comes with its memory")
    }

    /// Maps within the networks.
    fn maps(&self) -> &'a Maps {
        self.maps
            .expect("a recipe with losses of maps is given a teacher's network")
    }
}

/// A tensor that a loss owns: part of every checkpoint.
pub(super) struct Owned<'a> {
    /// Unique within the loss, such as `proxies`.
    pub(super) name: &'static str,
    pub(super) tensor: &'a Tensor,
    /// The rate in multiples of the network's if gradients move it; `None` for a memory
    /// that the loss itself writes.
    pub(super) rate_factor: Option<f64>,
}

/// One loss in training.
pub(super) trait Term {
    /// The loss of a step, a scalar.
    fn value(&mut self, rows: &Rows<'_>) -> Tensor;

    /// The tensors that it owns, always the same ones with the same shapes.
    fn owned(&self) -> Vec<Owned<'_>> {
        Vec::new()
    }
}

/// What the tensors of a loss are made from.
pub(super) struct Setting {
    /// Root of all randomness.
    pub(super) seed: u64,
    /// Position of the term in its recipe: equal losses start with other numbers.
    pub(super) term_idx: usize,
    /// Components of an embedding.
    pub(super) dim: usize,
    /// Number of labels in the training set.
    pub(super) n_labels: usize,
    /// Images in the training set.
    pub(super) n_images: usize,
    /// Channels of the maps that the recipe's losses compare, by node: student, teacher.
    pub(super) channels: [BTreeMap<String, usize>; 2],
    pub(super) device: Device,
}

impl Setting {
    /// The stream of a purpose of this term; fork it by step.
    fn random(&self, purpose: &str) -> Random {
        let of_losses = Random::new(self.seed).fork("loss");
        of_losses.at(self.term_idx as u64).fork(purpose)
    }

    /// Channels of a node of the student and of one of the teacher's network.
    fn channels(&self, student: &str, teacher: &str) -> [usize; 2] {
        let [of_student, of_teacher] = &self.channels;
        [of_student[student], of_teacher[teacher]]
    }
}

/// A loss without tensors of its own.
struct Stateless<F>(F);

impl<F: Fn(&Rows<'_>) -> Tensor> Term for Stateless<F> {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        (self.0)(rows)
    }
}

fn stateless(value: impl Fn(&Rows<'_>) -> Tensor + 'static) -> Box<dyn Term> {
    Box::new(Stateless(value))
}

/// The loss that a recipe names.
pub(super) fn term(loss: &Loss, setting: &Setting) -> Box<dyn Term> {
    match *loss {
        Loss::Regression(_) => stateless(|rows| regression(rows.student, rows.teacher())),
        Loss::RelaxedContrastive(settings) => {
            stateless(move |rows| relaxed_contrastive(rows.student, rows.teacher(), settings))
        }
        Loss::MemoryContrast(settings) => stateless(move |rows| {
            let (student, own_rows) = (rows.student, rows.image_idx);
            let temperature = settings.temperature;
            memory_contrast(student, rows.labels, own_rows, rows.memory(), temperature)
        }),
        Loss::ProxyAnchor(settings) => Box::new(ProxyAnchorTerm::new(settings, setting)),

        // Relations within each space.
        Loss::RelaxedMultiSimilarity(settings) => stateless(move |rows| {
            relaxed_multi_similarity(rows.student, rows.teacher(), rows.n_views, &settings)
        }),
        Loss::RkdDistance(_) => stateless(|rows| rkd_distance(rows.student, rows.teacher())),
        Loss::RkdAngle(_) => stateless(|rows| rkd_angle(rows.student, rows.teacher())),
        Loss::DarkRank(settings) => {
            unit_rows(move |student, teacher| dark_rank(student, teacher, &settings))
        }
        Loss::ProbabilisticTransfer(_) => unit_rows(probabilistic_transfer),
        Loss::RelativeTeacher(_) => unit_rows(relative_teacher),
        Loss::SimilarityPreserving(_) => {
            stateless(|rows| similarity_preserving(rows.student, rows.teacher()))
        }
        Loss::CorrelationCongruence(settings) => {
            stateless(move |rows| correlation_congruence(rows.student, rows.teacher(), &settings))
        }
        // The own teacher embedding.
        Loss::AbsoluteTeacher(_) => unit_rows(absolute_teacher),
        Loss::Hint(_) => stateless(|rows| hint(rows.student, rows.teacher())),
        Loss::SuccessiveDifferences(_) => {
            stateless(|rows| successive_differences(rows.student, rows.teacher()))
        }
        Loss::SecondOrder(settings) => {
            unit_rows(move |student, teacher| second_order(student, teacher, &settings))
        }
        // References in the teacher's space.
        Loss::ContextualSimilarity(settings) => stateless(move |rows| {
            let references = match settings.references {
                References::Batch => rows.teacher(),
                References::Gallery => rows.memory().teacher,
            };
            contextual_similarity(rows.student, rows.teacher(), references, &settings)
        }),
        Loss::RankOrder(settings) => {
            stateless(move |rows| rank_order(rows.student, rows.teacher(), &settings))
        }
        Loss::DecoupledDifferential(settings) => {
            stateless(move |rows| decoupled_differential(rows.student, rows.teacher(), &settings))
        }
        Loss::StructureSimilarity(settings) => {
            Box::new(StructureSimilarityTerm::new(settings, setting))
        }
        Loss::KnowledgeDistillation(settings) => {
            Box::new(KnowledgeDistillationTerm::new(settings, setting))
        }
        // Projections of both sides.
        Loss::ContrastiveRepresentation(settings) => {
            Box::new(ContrastiveRepresentationTerm::new(settings, setting))
        }
        // Maps within the networks.
        Loss::MapHint(ref settings) => Box::new(MapHintTerm::new(settings, setting)),
        Loss::AttentionTransfer(ref settings) => {
            let power = f64::from(settings.power);
            of_maps(&settings.student, &settings.teacher, move |s, t| {
                attention_transfer(s, t, power)
            })
        }
        Loss::FactorTransfer(ref settings) => {
            let powers = [settings.power, settings.outer_power].map(f64::from);
            of_maps(&settings.student, &settings.teacher, move |s, t| {
                factor_transfer(s, t, powers[0], powers[1])
            })
        }
        Loss::NeuronSelectivity(ref settings) => {
            of_maps(&settings.student, &settings.teacher, neuron_selectivity)
        }
        Loss::SolutionFlow(ref settings) => {
            let settings = settings.clone();
            stateless(move |rows| flow_of(rows, &settings))
        }
        Loss::VariationalInformation(ref settings) => {
            Box::new(VariationalInformationTerm::new(settings, setting))
        }

        // Metric learning.
        Loss::ProxyNca(settings) => Box::new(ProxyNcaTerm::new(settings, setting)),
        Loss::SoftTriple(settings) => Box::new(SoftTripleTerm::new(settings, setting)),
        Loss::Contrastive(l) => PairTerm::boxed(l.pairs.references, setting, move |c, r| {
            contrastive(c, &l, r)
        }),
        Loss::CosineContrastive(l) => {
            PairTerm::boxed(l.references, setting, move |c, _| cosine_contrastive(c, &l))
        }
        Loss::Triplet(l) => {
            PairTerm::boxed(l.pairs.references, setting, move |c, r| triplet(c, &l, r))
        }
        Loss::Margin(l) => {
            PairTerm::boxed(l.pairs.references, setting, move |c, r| margin(c, &l, r))
        }
        Loss::NPair(l) => PairTerm::boxed(l.references, setting, move |c, _| n_pair(c, &l)),
        Loss::Lifted(l) => {
            PairTerm::boxed(l.pairs.references, setting, move |c, r| lifted(c, &l, r))
        }
        Loss::GeneralizedLifted(l) => PairTerm::boxed(l.pairs.references, setting, move |c, r| {
            generalized_lifted(c, &l, r)
        }),
        Loss::TupletMargin(l) => PairTerm::boxed(l.pairs.references, setting, move |c, r| {
            tuplet_margin(c, &l, r)
        }),
        Loss::MultiSimilarity(l) => PairTerm::boxed(l.pairs.references, setting, move |c, r| {
            multi_similarity(c, &l, r)
        }),
        Loss::NtXent(l) => {
            PairTerm::boxed(l.pairs.references, setting, move |c, r| nt_xent(c, &l, r))
        }
        Loss::Circle(l) => {
            PairTerm::boxed(l.pairs.references, setting, move |c, r| circle(c, &l, r))
        }
        Loss::TupleContrastive(l) => {
            TupleTerm::boxed(l.tuples, setting, move |t| tuple_contrastive(t, &l))
        }
        Loss::TupleTriplet(l) => TupleTerm::boxed(l.tuples, setting, move |t| tuple_triplet(t, &l)),
        Loss::TupleMultiSimilarity(l) => {
            TupleTerm::boxed(l.tuples, setting, move |t| tuple_multi_similarity(t, &l))
        }
    }
}

/// A loss of a map of the student and one of the teacher's network.
fn of_maps(
    student: &str,
    teacher: &str,
    value: impl Fn(&Tensor, &Tensor) -> Tensor + 'static,
) -> Box<dyn Term> {
    let (student, teacher) = (student.to_owned(), teacher.to_owned());
    stateless(move |rows| {
        let maps = rows.maps();
        value(maps.student(&student), maps.teacher(&teacher))
    })
}

/// A loss of unit rows, student and teacher.
fn unit_rows(value: impl Fn(&Tensor, &Tensor) -> Tensor + 'static) -> Box<dyn Term> {
    stateless(move |rows| value(&l2_normalize(rows.student), &l2_normalize(rows.teacher())))
}

/// log(1 + sum of exp) over `dim` of the entries that `keep` marks: nothing overflows, and
/// a slice without entries gives 0 with no gradient.
pub(super) fn log1p_sum_exp(exponents: &Tensor, keep: &Tensor, dim: i64) -> Tensor {
    let kept = exponents.masked_fill(&keep.logical_not(), f64::NEG_INFINITY);
    let mut size = kept.size();
    size[dim as usize] = 1;
    let zero = Tensor::zeros(size, (exponents.kind(), exponents.device()));
    Tensor::cat(&[kept, zero], dim).logsumexp([dim].as_slice(), false)
}

#[cfg(test)]
mod tests;
