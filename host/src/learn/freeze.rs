//! Which parts of a network learn in a step: tensors without gradient cost nothing in the
//! backward pass, down to the first one that needs it.

use std::collections::BTreeSet;

use super::network::TorchNetwork;
use crate::recipe::{BatchNorm, Stabilize};
use crate::zoo::{HEAD, Op};

/// Names of the batch norm layers that keep their running statistics.
pub(super) fn frozen_statistics(network: &TorchNetwork, stabilize: &Stabilize) -> BTreeSet<String> {
    let all = stabilize.batch_norm != BatchNorm::Train;
    batch_norms(network)
        .filter(|name| all || stabilize.freezes(name))
        .map(str::to_owned)
        .collect()
}

fn batch_norms(network: &TorchNetwork) -> impl Iterator<Item = &str> {
    let nodes = network.description.nodes.iter();
    nodes
        .filter(|node| matches!(node.op, Op::BatchNorm { .. }))
        .map(|node| &*node.name)
}

/// Asks for gradients where the recipe wants them; with `only_head` in the head alone.
pub(super) fn ask_for_gradients(network: &TorchNetwork, stabilize: &Stabilize, only_head: bool) {
    let affine_frozen: Vec<String> = match stabilize.batch_norm {
        BatchNorm::Frozen => batch_norms(network)
            .map(|name| format!("{name}."))
            .collect(),
        BatchNorm::Train | BatchNorm::FrozenStatistics => Vec::new(),
    };
    for shape in network.description.weights() {
        let rests = only_head && !shape.name.starts_with(HEAD);
        let of_norm = affine_frozen
            .iter()
            .any(|norm| shape.name.starts_with(norm));
        let learns = shape.trained && !rests && !of_norm && !stabilize.freezes(&shape.name);
        // The flag belongs to the tensor, which the clone shares.
        let _ = network.tensors[&shape.name].set_requires_grad(learns);
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::learn::network::Mode;
    use crate::zoo;

    fn network() -> TorchNetwork {
        let description = zoo::by_name("eyas-xs", 8).unwrap();
        let weights = zoo::init::random_weights(&description, 3);
        TorchNetwork::new(description, &weights, Device::Cpu).unwrap()
    }

    fn stabilize(change: impl FnOnce(&mut Stabilize)) -> Stabilize {
        let mut stabilize = crate::recipe::example().stabilize;
        change(&mut stabilize);
        stabilize
    }

    /// Names of the tensors that one step in training gave a gradient, and of those that it
    /// changed in place (running statistics).
    fn touched(stabilize: &Stabilize, only_head: bool) -> (Vec<String>, Vec<String>) {
        let mut network = network();
        network.training.frozen_statistics = frozen_statistics(&network, stabilize);
        ask_for_gradients(&network, stabilize, only_head);
        let before = network.weights();
        tch::manual_seed(1);
        let images = Tensor::randn([4, 3, 32, 32], (Kind::Float, Device::Cpu));
        let output = network.head_output(&images, Mode::Train);
        output.square().sum(Kind::Float).backward();
        let after = network.weights();
        let tensors = network.tensors.iter();
        let learned = tensors.filter(|(_, tensor)| tensor.grad().defined());
        let changed = after
            .0
            .iter()
            .filter(|(name, weight)| before.0[*name] != **weight);
        (
            learned.map(|(name, _)| name.clone()).collect(),
            changed.map(|(name, _)| name.clone()).collect(),
        )
    }

    #[test]
    fn everything_learns_unless_it_is_frozen() {
        let (learned, changed) = touched(&stabilize(|_| ()), false);
        let trained = network().description.weights();
        let n_trained = trained.iter().filter(|shape| shape.trained).count();
        assert_eq!(learned.len(), n_trained);
        assert_eq!(changed.len(), trained.len() - n_trained);
    }

    #[test]
    fn a_frozen_layer_has_no_gradient_and_keeps_its_statistics() {
        let all = network().description.weights();
        let norm = all.iter().find(|shape| !shape.trained).unwrap();
        let layer = norm.name.split('.').next().unwrap().to_owned();
        let of_layer = |name: &String| name.split('.').next() == Some(&*layer);
        let frozen = stabilize(|stabilize| stabilize.freeze = vec![layer.clone()]);
        let (learned, changed) = touched(&frozen, false);
        assert!(!learned.iter().any(of_layer) && !changed.iter().any(of_layer));
        assert!(!learned.is_empty() && !changed.is_empty());
    }

    #[test]
    fn frozen_batch_norm_keeps_its_statistics_and_if_asked_its_affine_part() {
        let everything = touched(&stabilize(|_| ()), false).0;
        let statistics = stabilize(|s| s.batch_norm = BatchNorm::FrozenStatistics);
        let (learned, changed) = touched(&statistics, false);
        assert_eq!((learned, changed), (everything.clone(), Vec::new()));
        let (learned, changed) = touched(&stabilize(|s| s.batch_norm = BatchNorm::Frozen), false);
        assert!(changed.is_empty());
        let norms: Vec<String> = batch_norms(&network()).map(str::to_owned).collect();
        let of_norm = |name: &String| {
            norms
                .iter()
                .any(|norm| name.starts_with(&format!("{norm}.")))
        };
        let expected: Vec<String> = everything
            .into_iter()
            .filter(|name| !of_norm(name))
            .collect();
        assert_eq!(learned, expected);
    }

    #[test]
    fn in_the_first_steps_only_the_head_learns() {
        let (learned, _) = touched(&stabilize(|_| ()), true);
        assert_eq!(learned, ["head.bias", "head.weight"]);
    }
}
