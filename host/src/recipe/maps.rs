//! Whether the nodes that losses compare are there.

use super::Recipe;
use super::loss::{ComparedNodes, Loss};
use crate::zoo::{self, Network, Op};

impl Recipe {
    /// The nodes that losses compare, of the student and of the teacher's network, each
    /// once and in order.
    #[must_use]
    pub fn compared_nodes(&self) -> [Vec<String>; 2] {
        let mut nodes = [Vec::new(), Vec::new()];
        for compared in self.loss.iter().filter_map(|term| nodes_of(&term.loss)) {
            nodes[0].extend(compared.student.into_iter().map(str::to_owned));
            nodes[1].extend(compared.teacher.into_iter().map(str::to_owned));
        }
        for side in &mut nodes {
            side.sort_unstable();
            side.dedup();
        }
        nodes
    }

    /// The network of the zoo that losses of maps compare with.
    #[must_use]
    pub fn teacher_trunk(&self) -> Option<Network> {
        let architecture = self.teacher_network.as_deref()?;
        // The head is left away, whatever its size.
        let network = zoo::by_name(architecture, 1)?;
        Some(network.for_side(self.input.crop as usize).trunk())
    }

    /// What is wrong with the teacher's network or the nodes that are compared.
    pub(super) fn maps_fault(&self, student: &Network) -> Option<String> {
        let terms = || {
            self.loss
                .iter()
                .filter(|term| nodes_of(&term.loss).is_some())
        };
        let Some(architecture) = &self.teacher_network else {
            return terms().next().map(|term| {
                let kind = term.loss.kind();
                format!("{kind} compares maps: name the architecture in teacher_network")
            });
        };
        let Some(teacher) = self.teacher_trunk() else {
            return Some(format!(
                "teacher_network: `{architecture}` is not in the zoo"
            ));
        };
        if terms().next().is_none() {
            return Some("teacher_network is named, but no loss compares maps".to_owned());
        }
        terms().find_map(|term| {
            let nodes = nodes_of(&term.loss)?;
            let fault = nodes_fault(&nodes, student, &teacher)?;
            Some(format!("{}: {fault}", term.loss.kind()))
        })
    }
}

fn nodes_of(loss: &Loss) -> Option<ComparedNodes<'_>> {
    loss.settings().nodes()
}

fn nodes_fault(nodes: &ComparedNodes<'_>, student: &Network, teacher: &Network) -> Option<String> {
    let sides = [(student, &nodes.student), (teacher, &nodes.teacher)];
    for (network, names) in sides {
        let missing = names
            .iter()
            .find(|name| network.map_channels(name).is_none());
        if let Some(name) = missing {
            return Some(format!(
                "`{}` has no map `{name}`; it has {}",
                network.name,
                activations(network).join(", ")
            ));
        }
    }
    if !nodes.as_many_channels {
        return None;
    }
    nodes.student.iter().zip(&nodes.teacher).find_map(|(s, t)| {
        let (ours, theirs) = (student.map_channels(s)?, teacher.map_channels(t)?);
        (ours != theirs).then(|| format!("`{s}` has {ours} channels, `{t}` has {theirs}"))
    })
}

/// Names of the maps that people compare: those after an activation.
fn activations(network: &Network) -> Vec<&str> {
    let nodes = network.nodes.iter();
    nodes
        .filter(|node| matches!(node.op, Op::Activation(_)))
        .filter(|node| network.map_channels(&node.name).is_some())
        .map(|node| node.name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::loss::{AttentionTransfer, CATALOG, SolutionFlow, WeightedLoss};

    fn with(loss: Loss, teacher_network: Option<&str>) -> Recipe {
        let mut recipe = crate::recipe::example();
        recipe.loss.push(WeightedLoss { weight: 1.0, loss });
        recipe.teacher_network = teacher_network.map(str::to_owned);
        recipe
    }

    fn fault(recipe: &Recipe) -> Option<String> {
        let student = zoo::by_name(&recipe.architecture, recipe.dim).unwrap();
        recipe.maps_fault(&student)
    }

    fn attention(student: &str) -> Loss {
        Loss::AttentionTransfer(AttentionTransfer {
            student: student.to_owned(),
            teacher: "layer4.1.add.relu".to_owned(),
            power: 2,
        })
    }

    #[test]
    fn examples_of_the_catalog_name_nodes_of_the_zoo() {
        let mut n_compared = 0;
        for description in CATALOG {
            let loss = description.term().loss;
            if loss.settings().nodes().is_some() {
                let recipe = with(loss, Some("resnet18"));
                assert_eq!(fault(&recipe), None, "{}", description.kind);
                n_compared += 1;
            }
        }
        assert_eq!(n_compared, 6);
    }

    #[test]
    fn a_network_and_the_losses_that_need_it_come_together() {
        let message = fault(&with(attention("body.3.relu"), None)).unwrap();
        assert!(
            message.contains("name the architecture in teacher_network"),
            "{message}"
        );
        let mut alone = crate::recipe::example();
        alone.teacher_network = Some("resnet18".to_owned());
        assert!(fault(&alone).unwrap().contains("no loss compares maps"));
        let message = fault(&with(attention("body.3.relu"), Some("resnet"))).unwrap();
        assert!(message.contains("`resnet` is not in the zoo"), "{message}");
    }

    #[test]
    fn a_node_that_is_not_there_is_named_with_those_that_are() {
        let message = fault(&with(attention("body.9"), Some("resnet18"))).unwrap();
        assert!(message.contains("has no map `body.9`"), "{message}");
        assert!(message.contains("body.3.relu"), "{message}");
        // The head puts out a vector.
        assert!(fault(&with(attention("head"), Some("resnet18"))).is_some());
    }

    #[test]
    fn flows_need_as_many_channels_on_both_sides() {
        let pair = |a: &str, b: &str| [a, b].map(str::to_owned);
        let flow = SolutionFlow {
            student: pair("body.0.relu", "body.3.relu"),
            teacher: pair("layer2.0.add.relu", "layer4.1.add.relu"),
        };
        let message = fault(&with(Loss::SolutionFlow(flow), Some("resnet18"))).unwrap();
        assert!(
            message.contains("has 128 channels, `layer4.1.add.relu` has 512"),
            "{message}"
        );
    }
}
