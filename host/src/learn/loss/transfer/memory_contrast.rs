//! Neighborhood components analysis (Goldberger et al., NIPS 2004) asked asymmetrically: the
//! student's query against the teacher's embeddings of all training images, which are
//! known once and never go stale.

use tch::{Kind, Tensor};

use crate::learn::distance::l2_normalize;

/// The teacher's embeddings of all training images.
pub(in crate::learn) struct Memory<'a> {
    /// M x D.
    pub(in crate::learn) teacher: &'a Tensor,
    /// M class numbers.
    pub(in crate::learn) labels: &'a Tensor,
}

/// Minus the logarithm of the probability that a student embedding picks an image of its
/// label from the memory, in proportion to exp(cosine / `temperature`); mean over rows.
///
/// `own_rows` holds the position of each row's own image in the memory, which is left out.
/// Rows whose label no other image has count as 0.
pub(in crate::learn) fn memory_contrast(
    student: &Tensor,
    labels: &Tensor,
    own_rows: &Tensor,
    memory: &Memory<'_>,
    temperature: f64,
) -> Tensor {
    let teacher = l2_normalize(memory.teacher);
    let scores = l2_normalize(student).matmul(&teacher.transpose(0, 1)) / temperature;
    let own = own_rows.one_hot(teacher.size()[0]).to_kind(Kind::Bool);
    let scores = scores.masked_fill(&own, f64::NEG_INFINITY);
    let same = labels
        .unsqueeze(1)
        .eq_tensor(&memory.labels.unsqueeze(0))
        .logical_and(&own.logical_not());
    let has_others = same.any_dim(1, false);
    let of_label = scores.masked_fill(&same.logical_not(), f64::NEG_INFINITY);
    let missed =
        scores.logsumexp([1].as_slice(), false) - of_label.logsumexp([1].as_slice(), false);
    let zero = missed.zeros_like();
    missed.where_self(&has_others, &zero).mean(student.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_the_probability_counted_by_hand() {
        let student = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 2.0]).view([2, 2]);
        let teacher = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 1.0, 0.6, 0.8]).view([3, 2]);
        let memory = Memory {
            teacher: &teacher,
            labels: &Tensor::from_slice(&[0_i64, 1, 0]),
        };
        let labels = Tensor::from_slice(&[0_i64, 1]);
        let own_rows = Tensor::from_slice(&[0_i64, 1]);
        let value = memory_contrast(&student, &labels, &own_rows, &memory, 0.5);
        // Row 0 sees images 1 (other label, cosine 0) and 2 (its label, cosine 0.6); row 1 is
        // alone with its label.
        let (right, wrong) = (1.2_f64.exp(), 1.0);
        let expected = -(right / (right + wrong)).ln() / 2.0;
        assert!((value.double_value(&[]) - expected).abs() < 1e-12);
    }

    #[test]
    fn no_gradient_is_lost_to_images_without_others_of_their_label() {
        let student = Tensor::from_slice(&[0.3_f64, 0.4])
            .view([1, 2])
            .set_requires_grad(true);
        let teacher = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 1.0]).view([2, 2]);
        let memory = Memory {
            teacher: &teacher,
            labels: &Tensor::from_slice(&[0_i64, 1]),
        };
        let zero = Tensor::from_slice(&[0_i64]);
        memory_contrast(&student, &zero, &zero, &memory, 0.1).backward();
        let gradient = student.grad();
        assert!(
            gradient.isfinite().all().int64_value(&[]) == 1,
            "{gradient:?}"
        );
    }
}
