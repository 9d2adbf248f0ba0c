//! Students made for the device's encoder: a patchify stem, dense 3x3 layers at an eighth
//! and a sixteenth of the input's side, a wide 1x1 layer, ReLU.
//!
//! In training every dense layer is the sum of three branches (Ding et al., CVPR 2021:
//! RepVGG), which export folds into one convolution: what ships is a plain chain.

use super::builder::Builder;
use super::{Network, NodeIdx, Op};

/// Channels and numbers of layers. All channels are multiples of 16.
struct Size {
    stem: usize,
    fine: usize,
    n_fine_layers: usize,
    body: usize,
    n_body_layers: usize,
    wide: usize,
}

pub(super) fn network(name: &str, dim: usize) -> Network {
    let size = match name {
        "eyas-xs" => Size {
            stem: 32,
            fine: 64,
            n_fine_layers: 1,
            body: 96,
            n_body_layers: 2,
            wide: 192,
        },
        "eyas-s" => Size {
            stem: 48,
            fine: 96,
            n_fine_layers: 2,
            body: 128,
            n_body_layers: 4,
            wide: 320,
        },
        _ => Size {
            stem: 64,
            fine: 128,
            n_fine_layers: 2,
            body: 192,
            n_body_layers: 6,
            wide: 640,
        },
    };
    let mut builder = Builder::new();
    let mut at = builder.input();
    at = builder.conv_norm_relu("stem", size.stem, [4, 4, 0], at);
    at = branched(&mut builder, "to_fine", size.fine, 2, at);
    for layer in 0..size.n_fine_layers {
        at = branched(&mut builder, &format!("fine.{layer}"), size.fine, 1, at);
    }
    at = branched(&mut builder, "to_body", size.body, 2, at);
    for layer in 0..size.n_body_layers {
        at = branched(&mut builder, &format!("body.{layer}"), size.body, 1, at);
    }
    at = builder.conv_norm_relu("wide", size.wide, [1, 1, 0], at);
    builder.finish(name, dim, at)
}

/// A 3x3 and a 1x1 convolution and, where shapes allow, the input itself, each with a batch
/// norm of its own; their sum, then ReLU.
fn branched(b: &mut Builder, name: &str, outputs: usize, stride: usize, from: NodeIdx) -> NodeIdx {
    let dense = b.conv_norm(&format!("{name}.dense"), outputs, [3, stride, 1], from);
    let point = b.conv_norm(&format!("{name}.point"), outputs, [1, stride, 0], from);
    if stride > 1 || b.channels(from) != outputs {
        let sum = b.push(name, Op::Add, &[dense, point]);
        return b.relu(sum);
    }
    let identity = b.norm(format!("{name}.identity"), from);
    let convolved = b.push(format!("{name}.convolved"), Op::Add, &[dense, point]);
    let sum = b.push(name, Op::Add, &[convolved, identity]);
    b.relu(sum)
}
