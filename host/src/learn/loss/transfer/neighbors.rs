//! Losses that hold a student's query to the teacher's own ranking of the nearest
//! references: CSD, rank order preservation and decoupled differential distillation.
//!
//! References are the teacher's embeddings of the batch or of its whole gallery, so these
//! losses move the student into the teacher's frame. Similarities are computed in f64:
//! small temperatures and quotients of small differences leave nothing of f32.

use tch::{Kind, Tensor, no_grad};

use crate::learn::distance::{l2_normalize, off_diagonal};
use crate::recipe::loss::{ContextualSimilarity, DecoupledDifferential, RankOrder};

/// Both sides' cosines with the teacher's nearest references, nearest first.
struct Neighborhood {
    /// N x K.
    student: Tensor,
    /// N x K, without gradient.
    teacher: Tensor,
}

/// The `k` of `references` (M x D) that are nearest to each of the teacher's rows (N x D),
/// all of them if there are fewer; entries that `without` marks (N x M) are left out.
fn neighborhood(
    student: &Tensor,
    teacher: &Tensor,
    references: &Tensor,
    k: i64,
    without: Option<&Tensor>,
) -> Neighborhood {
    let unit = |rows: &Tensor| l2_normalize(rows).to_kind(Kind::Double);
    let references = unit(references).transpose(0, 1);
    let (teacher, nearest) = no_grad(|| {
        let similarities = unit(teacher).matmul(&references);
        let similarities = match without {
            Some(marked) => similarities.masked_fill(marked, f64::NEG_INFINITY),
            None => similarities,
        };
        similarities.topk(k.min(similarities.size()[1]), 1, true, true)
    });
    let student = unit(student).matmul(&references).gather(1, &nearest, false);
    Neighborhood { student, teacher }
}

/// Contextual similarity distillation (Wu et al., CVPR 2022): divergence of the student's
/// from the teacher's softmax over the teacher's `n_neighbors` nearest references, each
/// side with its temperature; mean over rows.
///
/// A row's own teacher embedding, if it is among `references`, is one of them.
pub(in crate::learn) fn contextual_similarity(
    student: &Tensor,
    teacher: &Tensor,
    references: &Tensor,
    settings: &ContextualSimilarity,
) -> Tensor {
    let n_neighbors = settings.n_neighbors as i64;
    let near = neighborhood(student, teacher, references, n_neighbors, None);
    let found = (near.student / settings.student_temperature).log_softmax(1, None::<Kind>);
    let wanted = (near.teacher / settings.teacher_temperature).log_softmax(1, None::<Kind>);
    let terms = wanted.exp() * (&wanted - found);
    (terms.sum(Kind::Double) / student.size()[0] as f64).to_kind(student.kind())
}

/// Teacher similarities this far apart are in order beyond doubt.
const TEACHER_SOFTNESS: f64 = 1e-6;

/// Rank order preservation: squared difference of the soft indicators "reference l is
/// nearer than reference j", where the student's similarity to l is held against the
/// teacher's to j; weighted by j's place in the ranking and its similarity, divided by the
/// number of neighbors, mean over rows.
pub(in crate::learn) fn rank_order(
    student: &Tensor,
    teacher: &Tensor,
    settings: &RankOrder,
) -> Tensor {
    let n_neighbors = settings.n_neighbors as i64;
    let near = neighborhood(student, teacher, teacher, n_neighbors, None);
    let k = near.teacher.size()[1];
    let of_j = near.teacher.unsqueeze(2);
    let wanted = ((near.teacher.unsqueeze(1) - &of_j) / TEACHER_SOFTNESS).sigmoid();
    let found = ((near.student.unsqueeze(1) - &of_j) / settings.temperature).sigmoid();
    let places = Tensor::arange_start(1, k + 1, (Kind::Double, student.device()));
    let weights = (&near.teacher * settings.rank_weight).softmax(1, None::<Kind>) * places;
    let terms = (wanted - found).square() * weights.unsqueeze(2);
    let rows = student.size()[0] as f64;
    (terms.sum(Kind::Double) / (rows * k as f64)).to_kind(student.kind())
}

/// Keeps quotients of small teacher differences in bounds.
const DIFFERENCE_SOFTENING: f64 = 0.1;

/// Decoupled differential distillation (Xie et al., CVPR 2024): distance of 1 - cosine over
/// the batch times `alpha` / N, plus relative errors of the differences between
/// similarities to the teacher's nearest `n_neighbors` - 1 other rows, of which pairs that
/// the student ranks the other way weigh `beta` and the others `gamma`; their length per
/// row is divided by the number of neighbors, mean over rows.
///
/// Pairs between which either side sees no difference are left out.
pub(in crate::learn) fn decoupled_differential(
    student: &Tensor,
    teacher: &Tensor,
    settings: &DecoupledDifferential,
) -> Tensor {
    let n = student.size()[0];
    let cosines = (l2_normalize(student) * l2_normalize(teacher)).to_kind(Kind::Double);
    let own: Tensor = 1.0 - cosines.sum_dim_intlist([1].as_slice(), false, Kind::Double);
    let absolute = own.norm() * (settings.alpha / n as f64);

    let itself = off_diagonal(n, teacher).eq(0.0);
    let others = (settings.n_neighbors as i64 - 1).min(n - 1);
    let near = neighborhood(student, teacher, teacher, others, Some(&itself));
    let differences = |x: &Tensor| x.unsqueeze(1) - x.unsqueeze(2);
    let (found, wanted) = (differences(&near.student), differences(&near.teacher));
    let errors = (&found - &wanted) / (wanted.abs() + DIFFERENCE_SOFTENING);
    let agreement = (found * wanted).detach();
    let relative = |keep: Tensor| {
        let kept = &errors * keep.to_kind(Kind::Double);
        let lengths = kept.norm_scalaropt_dim(2.0, [1, 2].as_slice(), false);
        lengths.mean(Kind::Double) / others as f64
    };
    let reversed = relative(agreement.lt(0.0)) * settings.beta;
    let ordered = relative(agreement.gt(0.0)) * settings.gamma;
    (absolute + reversed + ordered).to_kind(student.kind())
}
