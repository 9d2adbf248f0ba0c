//! The weighted sum of losses that a recipe asks for, with the weights that losses own.

use std::collections::BTreeMap;

use eyas_shared::random::Random;
use tch::{Device, Kind, Tensor};

use super::loss::{
    Memory, ProxyAnchor, RelaxedContrastive, memory_contrast, proxy_anchor, regression,
    relaxed_contrastive,
};
use super::network::tensor_of;
use super::optimizer::AdamW;
use crate::recipe::{Loss, Recipe};
use crate::weights::Weight;

/// A recipe's losses.
pub(super) struct Objective {
    terms: Vec<(f64, Loss)>,
    /// Proxies of each proxy loss, by name.
    pub(super) tensors: BTreeMap<String, Tensor>,
}

/// What the losses compare; rows are views of images.
pub(super) struct Rows<'a> {
    /// Head output, N x D.
    pub(super) student: &'a Tensor,
    /// The teacher's embedding of the same images, N x D.
    pub(super) teacher: Option<&'a Tensor>,
    /// N class numbers.
    pub(super) labels: &'a Tensor,
    /// N positions of the images in the training set.
    pub(super) image_idx: &'a Tensor,
    /// The teacher's embeddings of the whole training set.
    pub(super) memory: Option<&'a Memory<'a>>,
}

impl Objective {
    pub(super) fn new(recipe: &Recipe, n_labels: usize, device: Device) -> Self {
        let terms: Vec<(f64, Loss)> = recipe
            .loss
            .iter()
            .map(|term| (term.weight, term.loss))
            .collect();
        let mut tensors = BTreeMap::new();
        for (term_idx, (_, loss)) in terms.iter().enumerate() {
            if let Loss::ProxyAnchor { .. } = loss {
                let proxies = first_proxies(recipe, term_idx, n_labels);
                let tensor = tensor_of(&proxies, device).set_requires_grad(true);
                tensors.insert(proxies_name(term_idx), tensor);
            }
        }
        Self { terms, tensors }
    }

    /// Puts the losses' own weights under the optimizer.
    pub(super) fn register(&self, optimizer: &mut AdamW) {
        for (term_idx, (_, loss)) in self.terms.iter().enumerate() {
            if let Loss::ProxyAnchor {
                proxy_rate_factor, ..
            } = loss
            {
                let name = proxies_name(term_idx);
                optimizer.add(&name, &self.tensors[&name], *proxy_rate_factor, 0.0);
            }
        }
    }

    /// The weighted sum over the batch.
    pub(super) fn value(&self, rows: &Rows<'_>) -> Tensor {
        let teacher = || {
            rows.teacher
                .expect("a recipe with teacher losses is given a teacher")
        };
        let mut sum = Tensor::zeros([], (Kind::Float, rows.student.device()));
        for (term_idx, (weight, loss)) in self.terms.iter().enumerate() {
            let value = match *loss {
                Loss::Regression => regression(rows.student, teacher()),
                Loss::RelaxedContrastive { sigma, delta } => {
                    let config = RelaxedContrastive { sigma, delta };
                    relaxed_contrastive(rows.student, teacher(), config)
                }
                Loss::MemoryContrast { temperature } => {
                    let memory = rows.memory.expect("a teacher comes with its memory");
                    let (student, own_rows) = (rows.student, rows.image_idx);
                    memory_contrast(student, rows.labels, own_rows, memory, temperature)
                }
                Loss::ProxyAnchor { alpha, margin, .. } => {
                    let proxies = &self.tensors[&proxies_name(term_idx)];
                    let config = ProxyAnchor { alpha, margin };
                    proxy_anchor(rows.student, rows.labels, proxies, config)
                }
            };
            sum += value * *weight;
        }
        sum
    }
}

fn proxies_name(term_idx: usize) -> String {
    format!("loss.{term_idx}.proxies")
}

/// Normal with variance 2 / labels, as the authors' code starts them.
fn first_proxies(recipe: &Recipe, term_idx: usize, n_labels: usize) -> Weight {
    let mut random = Random::new(recipe.seed).fork("proxies").at(term_idx as u64);
    let deviation = (2.0 / n_labels as f64).sqrt();
    let values = (0..n_labels * recipe.dim)
        .map(|_| (random.normal() * deviation) as f32)
        .collect();
    Weight {
        shape: vec![n_labels, recipe.dim],
        values,
    }
}
