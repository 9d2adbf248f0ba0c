//! Knowledge distillation (Hinton et al., 2015).

use tch::{Kind, Tensor, no_grad};

use crate::learn::distance::l2_normalize;
use crate::learn::loss::{Memory, Rows, Setting, Term};
use crate::recipe::loss::KnowledgeDistillation;

/// Divergence of the student's from the teacher's softmax of logits (N x C each) that are
/// divided by `temperature`; mean over rows, times the squared temperature.
pub(in crate::learn) fn distill(student: &Tensor, teacher: &Tensor, temperature: f64) -> Tensor {
    let log_softmax = |logits: &Tensor| (logits / temperature).log_softmax(1, None::<Kind>);
    let (found, wanted) = (log_softmax(student), log_softmax(teacher));
    let terms = wanted.exp() * (&wanted - found);
    let factor = temperature * temperature / student.size()[0] as f64;
    terms.sum(student.kind()) * factor
}

/// [`distill`] with logits that are scaled cosines with the teacher's mean embedding of
/// each label: a classifier that both sides share and nobody trains.
pub(in crate::learn) struct KnowledgeDistillationTerm {
    settings: KnowledgeDistillation,
    n_labels: i64,
    /// Labels x D, from the teacher's gallery, which never changes: made at the first step.
    centers: Option<Tensor>,
}

impl KnowledgeDistillationTerm {
    pub(in crate::learn) fn new(settings: KnowledgeDistillation, setting: &Setting) -> Self {
        Self {
            settings,
            n_labels: setting.n_labels as i64,
            centers: None,
        }
    }
}

fn label_centers(memory: &Memory<'_>, n_labels: i64) -> Tensor {
    let unit = l2_normalize(memory.teacher);
    let own = memory.labels.one_hot(n_labels).to_kind(unit.kind());
    l2_normalize(&own.transpose(0, 1).matmul(&unit))
}

impl Term for KnowledgeDistillationTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        let n_labels = self.n_labels;
        let centers = self
            .centers
            .get_or_insert_with(|| no_grad(|| label_centers(rows.memory(), n_labels)))
            .transpose(0, 1);
        let scale = self.settings.scale;
        let logits = |embeddings: &Tensor| l2_normalize(embeddings).matmul(&centers) * scale;
        let temperature = self.settings.temperature;
        distill(&logits(rows.student), &logits(rows.teacher()), temperature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centers_are_the_directions_of_the_labels() {
        let teacher = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 2.0, 0.0, 1.0]).view([3, 2]);
        let memory = Memory {
            teacher: &teacher,
            labels: &Tensor::from_slice(&[1_i64, 0, 1]),
        };
        let centers = label_centers(&memory, 2);
        assert_eq!(centers.double_value(&[0, 1]), 1.0);
        assert!((centers.double_value(&[1, 0]) - 0.5_f64.sqrt()).abs() < 1e-12);
    }
}
