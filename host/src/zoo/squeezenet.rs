//! SqueezeNet 1.1 (Iandola et al. 2016; version 1.1 of its repository) without classifier,
//! under torchvision's weight names, so that published weights load.

use super::{Builder, Network, NodeIdx, Op};

/// Channels of a fire module: into, squeezed, out of each of its two expansions.
const FIRES: [(usize, [usize; 3]); 8] = [
    (3, [64, 16, 64]),
    (4, [128, 16, 64]),
    (6, [128, 32, 128]),
    (7, [256, 32, 128]),
    (9, [256, 48, 192]),
    (10, [384, 48, 192]),
    (11, [384, 64, 256]),
    (12, [512, 64, 256]),
];

pub(super) fn network(dim: usize) -> Network {
    let mut builder = Builder::new();
    let mut at = builder.conv("features.0", [3, 64], [3, 2, 0], true, builder.input());
    at = builder.relu(at);
    at = pool(&mut builder, "features.2", at);
    for (layer, [inputs, squeezed, expanded]) in FIRES {
        at = fire(
            &mut builder,
            &format!("features.{layer}"),
            [inputs, squeezed, expanded],
            at,
        );
        if layer == 4 || layer == 7 {
            at = pool(&mut builder, &format!("features.{}", layer + 1), at);
        }
    }
    builder.finish("squeezenet1_1", 512, dim, at)
}

fn pool(builder: &mut Builder, name: &str, from: NodeIdx) -> NodeIdx {
    builder.push(
        name,
        Op::MaxPool {
            kernel: 3,
            stride: 2,
            ceil: true,
        },
        &[from],
    )
}

fn fire(
    builder: &mut Builder,
    name: &str,
    [inputs, squeezed, expanded]: [usize; 3],
    from: NodeIdx,
) -> NodeIdx {
    let point = [1, 1, 0];
    let squeeze = builder.conv(
        &format!("{name}.squeeze"),
        [inputs, squeezed],
        point,
        true,
        from,
    );
    let squeeze = builder.relu(squeeze);
    let expansions = [("expand1x1", point), ("expand3x3", [3, 1, 1])].map(|(part, geometry)| {
        let name = format!("{name}.{part}");
        let expand = builder.conv(&name, [squeezed, expanded], geometry, true, squeeze);
        builder.relu(expand)
    });
    builder.push(format!("{name}.concat"), Op::Concat, &expansions)
}
