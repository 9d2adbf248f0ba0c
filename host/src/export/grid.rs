//! Weights that an int8 file holds as they are, for training that sees what rounding does.
//!
//! A layer is rounded as it will be stored, which is folded. What that changes goes back into
//! the kernels before folding, so the network keeps its batch norms and its branches and
//! folds to layers of rounded weights. Export rounds those by [`ScaleRule::MinMax`] to the
//! very numbers: a channel's largest code is 127, whatever its scale.
//!
//! [`ScaleRule::MinMax`]: super::ScaleRule::MinMax

use eyas_shared::bundle::Precision;

use super::ExportError;
use super::fold::{self, Linear, Plan};
use super::stored::{Rounding, StoredWeights};
use crate::weights::{Weights, WeightsError};
use crate::zoo::{Network, Op};

/// The nearest weights whose folded layers int8 holds without loss, up to the last bits of
/// f32. Only kernels and matrices differ from the given ones.
///
/// # Errors
/// As [`fold::fold`], or if a weight is not finite.
pub fn on_grid(network: &Network, weights: &Weights) -> Result<Weights, ExportError> {
    let (folded, exact) = fold::fold(network, weights)?;
    let stored = StoredWeights::of(&folded, &exact, Precision::Int8, &Rounding::default())?;
    let plan = Plan::new(network);
    let mut moved = weights.clone();
    for (node_idx, node) in network.nodes.iter().enumerate() {
        let rounded = |layer: &str| {
            let name = format!("{layer}.weight");
            (&exact.0[&name].values, stored.0[&name].widened())
        };
        match &plan.linear[node_idx] {
            Some(linear) if !plan.is_absorbed[node_idx] => {
                let layer = linear.convolution(network, node_idx)?;
                let (exact, rounded) = rounded(&layer.name);
                move_kernels(network, linear, [exact, &rounded], &mut moved)?;
            }
            None if matches!(node.op, Op::Linear { .. }) => {
                let (_, rounded) = rounded(&node.name);
                let matrix = moved.0.get_mut(&format!("{}.weight", node.name));
                matrix.expect("it was folded").values = rounded;
            }
            _ => {}
        }
    }
    Ok(moved)
}

/// Changes the branches' kernels so that they fold to the rounded kernel and no longer to
/// the exact one. In each channel that branch changes which has all taps and scales most.
fn move_kernels(
    network: &Network,
    linear: &Linear,
    [exact, rounded]: [&[f32]; 2],
    moved: &mut Weights,
) -> Result<(), WeightsError> {
    let mut whole = Vec::new();
    for branch in &linear.branches {
        let Some(conv) = branch.conv.map(|conv| &network.nodes[conv]) else {
            continue;
        };
        let name = format!("{}.weight", conv.name);
        let kernel = &moved.0[&name];
        if kernel.values.len() == exact.len() {
            let (scales, _) = fold::affine(network, moved, branch.norm, kernel.shape[0])?;
            whole.push((name, scales));
        }
    }
    let n_channels = whole.first().map_or(1, |(_, scales)| scales.len());
    let per_channel = (exact.len() / n_channels).max(1);
    for channel in 0..n_channels {
        let size = |(_, scales): &&(String, Vec<f64>)| scales[channel].abs();
        let widest = whole.iter().max_by(|a, b| size(a).total_cmp(&size(b)));
        let (name, scales) = widest.expect("one branch has the shape of the whole");
        let row = channel * per_channel..(channel + 1) * per_channel;
        let kernel = moved.0.get_mut(name).expect("its scales were found");
        let pairs = exact[row.clone()].iter().zip(&rounded[row.clone()]);
        for (x, (&from, &to)) in kernel.values[row].iter_mut().zip(pairs) {
            let change = (f64::from(to) - f64::from(from)) / scales[channel];
            let changed = (f64::from(*x) + change) as f32;
            // A scale of 0 leaves nothing of the kernel, and nothing to change.
            if changed.is_finite() {
                *x = changed;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::stored::Data;
    use super::*;
    use crate::zoo::{ARCHITECTURES, by_name};

    /// A few roundings to f32, in parts of the channel's largest magnitude.
    const LAST_BITS: f32 = 1e-6;

    fn stored(network: &Network, weights: &Weights) -> StoredWeights {
        let (folded, exact) = fold::fold(network, weights).unwrap();
        let rounding = Rounding::default();
        StoredWeights::of(&folded, &exact, Precision::Int8, &rounding).unwrap()
    }

    #[test]
    fn weights_on_the_grid_fold_to_what_int8_holds_of_the_given_ones() {
        for (name, _) in ARCHITECTURES {
            let network = by_name(name, 8).unwrap();
            let weights = reference::random_weights(&network, 5);
            let moved = on_grid(&network, &weights).unwrap();
            let (_, folded) = fold::fold(&network, &moved).unwrap();
            let (expected, again) = (stored(&network, &weights), stored(&network, &moved));
            let mut n_rounded = 0;
            for (layer, weight) in &expected.0 {
                let Data::Int8 { codes, scales } = &weight.data else {
                    assert_eq!(weight, &again.0[layer], "{name} {layer}");
                    continue;
                };
                n_rounded += 1;
                let Data::Int8 { codes: found, .. } = &again.0[layer].data else {
                    panic!("{name} {layer} is stored in int8");
                };
                assert!(codes == found, "{name} {layer}: other codes");
                let per_channel = codes.len() / scales.len();
                let pairs = weight.widened().into_iter().zip(&folded.0[layer].values);
                for (at, (a, b)) in pairs.enumerate() {
                    let bound = LAST_BITS * 127.0 * scales[at / per_channel];
                    assert!((a - b).abs() <= bound, "{name} {layer}: {a} and {b}");
                }
            }
            assert!(n_rounded > 5, "{name}");
        }
    }

    #[test]
    fn a_channel_without_gain_stays_as_it_is() {
        let network = by_name("eyas-xs", 8).unwrap();
        let mut weights = reference::random_weights(&network, 5);
        for norm in ["stem.norm", "body.0.dense.norm"] {
            let gain = weights.0.get_mut(&format!("{norm}.weight")).unwrap();
            gain.values[3] = 0.0;
        }
        let moved = on_grid(&network, &weights).unwrap();
        for layer in ["stem.conv", "body.0.dense.conv"] {
            let name = format!("{layer}.weight");
            let (before, after) = (&weights.0[&name], &moved.0[&name]);
            let per_channel = before.values.len() / before.shape[0];
            let channel = |weight: &crate::weights::Weight, at: usize| {
                weight.values[at * per_channel..][..per_channel].to_vec()
            };
            assert_eq!(channel(before, 3), channel(after, 3), "{layer}");
            assert_ne!(channel(before, 4), channel(after, 4), "{layer}");
        }
    }
}
