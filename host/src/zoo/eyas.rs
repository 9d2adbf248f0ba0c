//! Students made for tract: a patchify stem and dense 3x3 and wide 1x1 convolutions at an
//! eighth and a sixteenth of the input's side, ReLU, no depthwise layers, few nodes.

use super::builder::Builder;
use super::{Network, Op};

struct Size {
    stem: usize,
    n_stem_blocks: usize,
    body: usize,
    n_body_blocks: usize,
    wide: usize,
}

pub(super) fn network(name: &str, dim: usize) -> Network {
    let size = match name {
        "eyas-xs" => Size {
            stem: 48,
            n_stem_blocks: 1,
            body: 80,
            n_body_blocks: 3,
            wide: 256,
        },
        "eyas-s" => Size {
            stem: 64,
            n_stem_blocks: 2,
            body: 128,
            n_body_blocks: 4,
            wide: 384,
        },
        _ => Size {
            stem: 96,
            n_stem_blocks: 2,
            body: 160,
            n_body_blocks: 4,
            wide: 512,
        },
    };
    let mut builder = Builder::new();
    let same = [3, 1, 1];
    let mut at = builder.input();
    at = builder.conv_norm_relu("stem", size.stem, [8, 8, 0], at);
    for block in 0..size.n_stem_blocks {
        let from = at;
        let conv = builder.conv_norm(&format!("fine.{block}"), size.stem, same, from);
        let sum = builder.push(format!("fine.{block}.add"), Op::Add, &[conv, from]);
        at = builder.relu(sum);
    }
    at = builder.conv_norm_relu("reduce", size.body, [3, 2, 1], at);
    for block in 0..size.n_body_blocks {
        let from = at;
        let conv = builder.conv_norm(&format!("body.{block}"), size.body, same, from);
        let sum = builder.push(format!("body.{block}.add"), Op::Add, &[conv, from]);
        at = builder.relu(sum);
    }
    at = builder.conv_norm_relu("wide", size.wide, [1, 1, 0], at);
    builder.finish(name, dim, at)
}
