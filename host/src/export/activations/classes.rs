//! Which values of a network lie on u8 grids, and which of them share one.
//!
//! Rounded is what is read by sums that can be of integers: of dense convolutions, and of
//! means over maps. A maximum and a concatenation hand codes on as they are if all around
//! them lie on one grid, so what they read is rounded too, to the grid of what they put out.
//! The image is among them: its pixels were bytes before they were resized and normalized.

use crate::zoo::{Network, Node, NodeIdx, Op, Pooling};

/// For each node the first node of those that share a grid with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes(Vec<Option<NodeIdx>>);

impl Classes {
    /// Those of a network whose batch norm is folded.
    #[must_use]
    pub fn of(network: &Network) -> Self {
        let is_image = |idx: NodeIdx| network.nodes[idx].op == Op::Input;
        let mut firsts: Vec<Option<NodeIdx>> = vec![None; network.nodes.len()];
        for node in &network.nodes {
            let inputs = node.inputs.iter().filter(|_| sums_integers(node.op));
            for &input in inputs {
                firsts[input] = Some(input);
            }
        }
        let mut classes = Self(firsts);
        // Inputs come before outputs, so all readers of a node have been asked before it is.
        for (node_idx, node) in network.nodes.iter().enumerate().rev() {
            let hands_on = matches!(node.op, Op::MaxPool { .. } | Op::Concat);
            if !hands_on
                || classes.0[node_idx].is_none()
                || node.inputs.iter().any(|&it| is_image(it))
            {
                continue;
            }
            for &input in &node.inputs {
                classes.0[input].get_or_insert(input);
                classes.join(input, node_idx);
            }
        }
        for node_idx in 0..network.nodes.len() {
            classes.0[node_idx] = classes.first(node_idx);
        }
        classes
    }

    /// The first of the nodes whose outputs share a grid with this one's; `None` if its
    /// output is not rounded.
    #[must_use]
    pub fn first(&self, node_idx: NodeIdx) -> Option<NodeIdx> {
        let mut at = node_idx;
        loop {
            match self.0[at]? {
                before if before == at => return Some(at),
                before => at = before,
            }
        }
    }

    /// Whether a convolution behind another layer would multiply integers: sums alone, and
    /// the image's patches alone, are not worth rounding for.
    #[must_use]
    pub fn has_integer_layer(&self, network: &Network) -> bool {
        let is_behind = |node: &Node| {
            let is_dense = matches!(node.op, Op::Conv { groups: 1, .. });
            is_dense && network.nodes[node.inputs[0]].op != Op::Input
        };
        let mut dense = network.nodes.iter().filter(|node| is_behind(node));
        dense.any(|node| self.0[node.inputs[0]].is_some())
    }

    /// Lets two rounded values share a grid.
    fn join(&mut self, a: NodeIdx, b: NodeIdx) {
        if let (Some(a), Some(b)) = (self.first(a), self.first(b)) {
            self.0[a.max(b)] = Some(a.min(b));
        }
    }
}

/// Whether an operation adds up values of its input, or products of them with weights.
fn sums_integers(op: Op) -> bool {
    matches!(
        op,
        Op::Conv { groups: 1, .. } | Op::GlobalPool(Pooling::Average) | Op::SpatialMean
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{fold, reference};
    use crate::zoo::by_name;

    /// Groups of names that share a grid, in order, of a network as it is exported.
    fn groups(name: &str) -> Vec<Vec<String>> {
        let network = by_name(name, 8).unwrap();
        let weights = reference::random_weights(&network, 1);
        let (network, _) = fold::fold(&network, &weights).unwrap();
        let classes = Classes::of(&network);
        let mut groups: Vec<Vec<String>> = Vec::new();
        let mut firsts = Vec::new();
        for (node_idx, node) in network.nodes.iter().enumerate() {
            let Some(first) = classes.first(node_idx) else {
                continue;
            };
            match firsts.iter().position(|it| *it == first) {
                Some(at) => groups[at].push(node.name.clone()),
                None => {
                    firsts.push(first);
                    groups.push(vec![node.name.clone()]);
                }
            }
        }
        groups
    }

    /// The same but for the first, which is that of the image.
    fn behind_the_image(name: &str) -> Vec<Vec<String>> {
        let mut groups = groups(name);
        assert_eq!(groups.remove(0), ["image"]);
        groups
    }

    #[test]
    fn branches_that_are_joined_share_a_grid_through_poolings() {
        let groups = behind_the_image("squeezenet1_1");
        assert_eq!(groups[0], ["features.0.relu", "features.2"]);
        assert_eq!(groups[1], ["features.3.squeeze.relu"]);
        let fire = ["expand1x1.relu", "expand3x3.relu", "concat"];
        assert_eq!(groups[2], fire.map(|part| format!("features.3.{part}")));
        let mut pooled = fire.map(|part| format!("features.4.{part}")).to_vec();
        pooled.push("features.5".to_owned());
        assert_eq!(groups[4], pooled);
        // The last is read by the mean over the map.
        let last = groups.last().unwrap();
        assert_eq!(*last, fire.map(|part| format!("features.12.{part}")));
    }

    #[test]
    fn a_chain_has_a_grid_behind_every_activation() {
        let groups = behind_the_image("eyas-s");
        assert!(groups.iter().all(|group| group.len() == 1), "{groups:?}");
        let is_activation = |group: &Vec<String>| group[0].ends_with(".relu");
        assert!(groups.iter().all(is_activation), "{groups:?}");
    }

    #[test]
    fn a_residual_sum_is_rounded_behind_its_activation() {
        let groups = behind_the_image("resnet18");
        let names: Vec<&str> = groups.iter().flatten().map(String::as_str).collect();
        assert_eq!(groups[0], ["bn1.relu", "maxpool"], "{names:?}");
        assert_eq!(groups[1], ["layer1.0.bn1.relu"], "{names:?}");
        // What is added is not: no convolution reads it.
        assert_eq!(groups[2], ["layer1.0.add.relu"], "{names:?}");
    }

    #[test]
    fn what_only_a_depthwise_convolution_reads_stays_as_it_is() {
        let groups = behind_the_image("mobilenet_v2");
        let names: Vec<&str> = groups.iter().flatten().map(String::as_str).collect();
        let has = |name: &str| names.contains(&name);
        // Expanded, depthwise, projected; projected and added.
        assert!(!has("features.2.conv.0.1.relu6"), "{names:?}");
        assert!(has("features.2.conv.1.1.relu6"), "{names:?}");
        assert!(has("features.2.conv.2"), "{names:?}");
        assert!(!has("features.3.conv.2"), "{names:?}");
        assert!(has("features.3.add"), "{names:?}");
    }

    #[test]
    fn transformers_have_nothing_to_multiply_in_integers() {
        for (name, expected) in [
            ("vit_b_16", false),
            ("dinov2_vits14", false),
            ("eyas-xs", true),
        ] {
            let network = by_name(name, 8).unwrap();
            let found = Classes::of(&network).has_integer_layer(&network);
            assert_eq!(found, expected, "{name}");
        }
    }
}
