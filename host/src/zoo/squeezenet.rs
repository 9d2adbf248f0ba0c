//! SqueezeNet 1.1 (Iandola et al. 2016; version 1.1 of its repository) without classifier,
//! under torchvision's weight names, so that published weights load.

use super::builder::Builder;
use super::{Network, NodeIdx, Op};

/// Position and channels of a fire module: squeezed, out of each of its two expansions.
const FIRES: [(usize, [usize; 2]); 8] = [
    (3, [16, 64]),
    (4, [16, 64]),
    (6, [32, 128]),
    (7, [32, 128]),
    (9, [48, 192]),
    (10, [48, 192]),
    (11, [64, 256]),
    (12, [64, 256]),
];

pub(super) fn network(dim: usize) -> Network {
    let mut builder = Builder::new();
    let mut at = builder.biased_conv("features.0", 64, [3, 2, 0], builder.input());
    at = builder.relu(at);
    at = builder.ceil_pool("features.2", at);
    for (layer, channels) in FIRES {
        at = fire(&mut builder, &format!("features.{layer}"), channels, at);
        if layer == 4 || layer == 7 {
            at = builder.ceil_pool(&format!("features.{}", layer + 1), at);
        }
    }
    builder.finish("squeezenet1_1", dim, at)
}

fn fire(
    builder: &mut Builder,
    name: &str,
    [squeezed, expanded]: [usize; 2],
    from: NodeIdx,
) -> NodeIdx {
    let point = [1, 1, 0];
    let squeeze = builder.biased_conv(&format!("{name}.squeeze"), squeezed, point, from);
    let squeeze = builder.relu(squeeze);
    let expansions = [("expand1x1", point), ("expand3x3", [3, 1, 1])].map(|(part, geometry)| {
        let name = format!("{name}.{part}");
        let expand = builder.biased_conv(&name, expanded, geometry, squeeze);
        builder.relu(expand)
    });
    builder.push(format!("{name}.concat"), Op::Concat, &expansions)
}
