//! Who is compared with whom.

use tch::{Kind, Tensor};

use crate::learn::distance::{l2_normalize, squared_distances};
use crate::recipe::loss::Distance;

/// torch adds this to every component of a difference.
const DIFFERENCE_EPSILON: f64 = 1e-6;

/// Squared distances below this count as this, so that the root has a gradient.
const MIN_SQUARED: f64 = 1e-12;

/// Anchors and references, and which pairs of them have the same label.
pub(in crate::learn) struct Comparison {
    /// N x D, as they came.
    pub(super) anchors: Tensor,
    /// M x D, as they came.
    references: Tensor,
    /// N x D, of length 1.
    unit_anchors: Tensor,
    /// M x D, of length 1.
    unit_references: Tensor,
    /// Class numbers of the anchors, N.
    pub(super) labels: Tensor,
    /// Same label, N x M.
    pub(super) positive: Tensor,
    /// Other label, N x M.
    pub(super) negative: Tensor,
    /// Whether reference `i` is of the image of anchor `i`.
    pub(super) paired: bool,
}

impl Comparison {
    /// Rows with each other; none with itself.
    pub(in crate::learn) fn within(rows: &Tensor, labels: &Tensor) -> Self {
        let own = Tensor::eye(rows.size()[0], (Kind::Bool, rows.device()));
        let mut comparison = Self::with(rows, labels, rows, labels, Some(&own));
        comparison.paired = true;
        comparison
    }

    /// Rows with what the teacher makes of the same images; a row's own is a positive.
    pub(in crate::learn) fn with_teacher(rows: &Tensor, teacher: &Tensor, labels: &Tensor) -> Self {
        let mut comparison = Self::with(rows, labels, teacher, labels, None);
        comparison.paired = true;
        comparison
    }

    /// Rows with any references; `left_out` (N x M) marks pairs that are neither positive
    /// nor negative.
    pub(in crate::learn) fn with(
        anchors: &Tensor,
        labels: &Tensor,
        references: &Tensor,
        reference_labels: &Tensor,
        left_out: Option<&Tensor>,
    ) -> Self {
        let same = labels
            .unsqueeze(1)
            .eq_tensor(&reference_labels.unsqueeze(0));
        let (positive, negative) = match left_out {
            Some(left_out) => {
                let kept = left_out.logical_not();
                let negative = same.logical_not().logical_and(&kept);
                (same.logical_and(&kept), negative)
            }
            None => (same.shallow_clone(), same.logical_not()),
        };
        Self {
            anchors: anchors.shallow_clone(),
            references: references.shallow_clone(),
            unit_anchors: l2_normalize(anchors),
            unit_references: l2_normalize(references),
            labels: labels.shallow_clone(),
            positive,
            negative,
            paired: false,
        }
    }

    /// Takes the embeddings for unit vectors, which some published code leaves to its
    /// network; their gradients are then not brought back to the sphere.
    pub(in crate::learn) fn of_unit_vectors(self) -> Self {
        Self {
            unit_anchors: self.anchors.shallow_clone(),
            unit_references: self.references.shallow_clone(),
            ..self
        }
    }

    /// N x M.
    pub(super) fn cosines(&self) -> Tensor {
        self.unit_anchors
            .matmul(&self.unit_references.transpose(0, 1))
    }

    /// Dot products of the embeddings as they came, N x M.
    pub(super) fn dots(&self) -> Tensor {
        self.anchors.matmul(&self.references.transpose(0, 1))
    }

    /// N x M, lower is nearer. A Euclidean distance below 1e-6 is 1e-6, without gradient.
    pub(super) fn distances(&self, distance: Distance) -> Tensor {
        match distance {
            Distance::Euclidean => self.squared().clamp_min(MIN_SQUARED).sqrt(),
            Distance::SquaredEuclidean => self.squared().clamp_min(0.0),
            Distance::ShiftedEuclidean => self.shifted(),
            Distance::Cosine => 1.0 - self.cosines(),
            Distance::Dot => -self.dots(),
        }
    }

    fn squared(&self) -> Tensor {
        squared_distances(&self.unit_anchors, &self.unit_references)
    }

    /// |a - b + e|^2 = |a - b|^2 + 2 e sum(a - b) + D e^2 with e in every component.
    fn shifted(&self) -> Tensor {
        let (anchors, references) = (&self.unit_anchors, &self.unit_references);
        let kind = anchors.kind();
        let sums = |rows: &Tensor| rows.sum_dim_intlist([1].as_slice(), true, kind);
        let shift = sums(anchors) - sums(references).transpose(0, 1);
        let constant = anchors.size()[1] as f64 * DIFFERENCE_EPSILON * DIFFERENCE_EPSILON;
        let squared = squared_distances(anchors, references) + shift * (2.0 * DIFFERENCE_EPSILON);
        (squared + constant).clamp_min(MIN_SQUARED).sqrt()
    }
}
