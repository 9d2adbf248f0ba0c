//! The weighted sum of losses that a recipe asks for, with the tensors that losses own.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::loss::{self, Rows, Setting, Term};
use super::optimizer::{Group, Optimizer};
use crate::recipe::Recipe;
use crate::zoo;

/// A recipe's losses.
pub(super) struct Objective {
    terms: Vec<(f64, Box<dyn Term>)>,
}

impl Objective {
    pub(super) fn new(recipe: &Recipe, n_labels: usize, n_images: usize, device: Device) -> Self {
        let channels = compared_channels(recipe);
        let terms = recipe.loss.iter().enumerate().map(|(term_idx, term)| {
            let setting = Setting {
                seed: recipe.seed,
                term_idx,
                dim: recipe.dim,
                n_labels,
                n_images,
                channels: channels.clone(),
                device,
            };
            (term.weight, loss::term(&term.loss, &setting))
        });
        Self {
            terms: terms.collect(),
        }
    }

    /// All tensors of the losses, by name, such as `loss.0.proxies`.
    pub(super) fn tensors(&self) -> Vec<(String, &Tensor)> {
        self.owned()
            .map(|(name, owned)| (name, owned.tensor))
            .collect()
    }

    fn owned(&self) -> impl Iterator<Item = (String, loss::Owned<'_>)> {
        self.terms.iter().enumerate().flat_map(|(idx, (_, term))| {
            let name = move |owned: &loss::Owned<'_>| format!("loss.{idx}.{}", owned.name);
            let named = term.owned().into_iter();
            named.map(move |owned| (name(&owned), owned))
        })
    }

    /// Puts the losses' own weights under the optimizer.
    pub(super) fn register(&self, optimizer: &mut Optimizer) {
        for (name, owned) in self.owned() {
            if let Some(rate_factor) = owned.rate_factor {
                let group = Group {
                    rate_factor,
                    decays: false,
                    rests_first: false,
                };
                optimizer.add(&name, owned.tensor, group);
            }
        }
    }

    /// The weighted sum over the batch.
    pub(super) fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        let mut sum = Tensor::zeros([], (Kind::Float, rows.student.device()));
        for (weight, term) in &mut self.terms {
            sum += term.value(rows) * *weight;
        }
        sum
    }
}

/// Channels of the maps that losses compare, of the student and of the teacher's network.
fn compared_channels(recipe: &Recipe) -> [BTreeMap<String, usize>; 2] {
    let student = zoo::by_name(&recipe.architecture, recipe.dim);
    let mut networks = [student, recipe.teacher_trunk()].into_iter();
    recipe.compared_nodes().map(|nodes| {
        let network = networks.next().flatten();
        let channels = |node: String| {
            let channels = network.as_ref()?.map_channels(&node)?;
            Some((node, channels))
        };
        nodes.into_iter().filter_map(channels).collect()
    })
}
