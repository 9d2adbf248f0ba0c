//! The weighted sum of losses that a recipe asks for, with the tensors that losses own.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::distance::l2_normalize;
use super::loss::{self, Memory, Rows, Setting, Term};
use super::optimizer::{Group, Optimizer};
use crate::recipe::Recipe;
use crate::zoo;

/// A recipe's losses.
pub(super) struct Objective {
    terms: Vec<WeightedTerm>,
    /// Lengths of the prefixes that are embeddings of their own.
    nested: Vec<usize>,
}

struct WeightedTerm {
    weight: f64,
    term: Box<dyn Term>,
    /// Whether its value is the mean over the embedding and its prefixes.
    is_nested: bool,
}

/// The first components of a step's embeddings.
struct Prefix {
    student: Tensor,
    /// Of length 1, as the other embeddings of the teacher.
    teacher: Option<Tensor>,
    memory: Option<Tensor>,
}

impl Prefix {
    fn of(rows: &Rows<'_>, dim: usize) -> Self {
        let first = |whole: &Tensor| whole.narrow(1, 0, dim as i64);
        let unit = |whole: &Tensor| l2_normalize(&first(whole));
        Self {
            student: first(rows.student),
            teacher: rows.teacher.map(unit),
            memory: rows.memory.map(|memory| unit(memory.teacher)),
        }
    }

    fn value(&self, term: &mut dyn Term, whole: &Rows<'_>) -> Tensor {
        let memory = self.memory.as_ref().zip(whole.memory);
        let memory = memory.map(|(teacher, whole)| Memory {
            teacher,
            labels: whole.labels,
        });
        term.value(&Rows {
            student: &self.student,
            teacher: self.teacher.as_ref(),
            memory: memory.as_ref(),
            ..*whole
        })
    }
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
            WeightedTerm {
                weight: term.weight,
                term: loss::term(&term.loss, &setting),
                is_nested: term.loss.is_nested(),
            }
        });
        Self {
            terms: terms.collect(),
            nested: recipe.nested.clone(),
        }
    }

    /// All tensors of the losses, by name, such as `loss.0.proxies`.
    pub(super) fn tensors(&self) -> Vec<(String, &Tensor)> {
        self.owned()
            .map(|(name, owned)| (name, owned.tensor))
            .collect()
    }

    fn owned(&self) -> impl Iterator<Item = (String, loss::Owned<'_>)> {
        self.terms.iter().enumerate().flat_map(|(idx, term)| {
            let name = move |owned: &loss::Owned<'_>| format!("loss.{idx}.{}", owned.name);
            let named = term.term.owned().into_iter();
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
        let prefix = |&dim: &usize| Prefix::of(rows, dim);
        let prefixes: Vec<Prefix> = self.nested.iter().map(prefix).collect();
        for weighted in &mut self.terms {
            let mut value = weighted.term.value(rows);
            if weighted.is_nested {
                for prefix in &prefixes {
                    value += prefix.value(weighted.term.as_mut(), rows);
                }
                value /= (1 + prefixes.len()) as f64;
            }
            sum += value * weighted.weight;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_share_the_loss_with_the_whole() {
        let mut recipe = crate::recipe::example();
        recipe.dim = 3;
        let student = Tensor::from_slice(&[1.0_f32, 2.0, 2.0, -1.0, 0.5, 3.0]).view([2, 3]);
        let teacher = Tensor::from_slice(&[0.6_f32, 0.0, 0.8, 0.0, 1.0, 0.0]).view([2, 3]);
        let numbers = Tensor::from_slice(&[0_i64, 1]);
        let value = |nested: &[usize], dim: i64| {
            let mut recipe = recipe.clone();
            recipe.nested = nested.to_vec();
            let cut = |whole: &Tensor| whole.narrow(1, 0, dim);
            let (student, teacher) = (cut(&student), l2_normalize(&cut(&teacher)));
            let rows = Rows {
                student: &student,
                teacher: Some(&teacher),
                labels: &numbers,
                image_idx: &numbers,
                step: 0,
                n_views: 1,
                memory: None,
                maps: None,
                tuples: None,
            };
            let mut objective = Objective::new(&recipe, 2, 2, Device::Cpu);
            objective.value(&rows).double_value(&[])
        };
        let (whole, two, one) = (value(&[], 3), value(&[], 2), value(&[], 1));
        assert!(whole != two && two != one);
        let mean = (whole + two + one) / 3.0;
        assert!((value(&[2, 1], 3) - mean).abs() < 1e-6);
    }
}
