//! Residual networks (He et al., CVPR 2016): torchvision's, under its weight names, and a
//! narrow one for inputs of about 96 pixels that a CPU trains in minutes.

use super::builder::Builder;
use super::{Network, NodeIdx, Op};

/// Channels of the narrow network's four stages; each but the first halves the side.
const NARROW: [usize; 4] = [32, 64, 128, 192];

pub(super) fn narrow(dim: usize) -> Network {
    let mut builder = Builder::new();
    let mut at = builder.conv_norm_relu("stem", NARROW[0], [4, 4, 0], builder.input());
    for (stage, outputs) in NARROW.into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("stage{}.{block}", stage + 1);
            at = narrow_block(&mut builder, &name, outputs, stride, at);
        }
    }
    builder.finish("resnet-narrow", dim, at)
}

fn narrow_block(
    builder: &mut Builder,
    name: &str,
    outputs: usize,
    stride: usize,
    from: NodeIdx,
) -> NodeIdx {
    let first = format!("{name}.first");
    let hidden = builder.conv_norm_relu(&first, outputs, [3, stride, 1], from);
    let second = format!("{name}.second");
    let residual = builder.conv_norm(&second, outputs, [3, 1, 1], hidden);
    let shortcut = if builder.channels(from) == outputs && stride == 1 {
        from
    } else {
        let name = format!("{name}.shortcut");
        builder.conv_norm(&name, outputs, [1, stride, 0], from)
    };
    let sum = builder.push(format!("{name}.add"), Op::Add, &[residual, shortcut]);
    builder.relu(sum)
}

/// torchvision's ResNet of this depth.
pub(super) fn network(name: &str, dim: usize) -> Network {
    let (n_blocks, is_bottleneck) = match name {
        "resnet18" => ([2, 2, 2, 2], false),
        "resnet34" => ([3, 4, 6, 3], false),
        "resnet50" => ([3, 4, 6, 3], true),
        _ => ([3, 4, 23, 3], true),
    };
    let mut builder = Builder::new();
    let conv = builder.conv("conv1", 64, [7, 2, 3], builder.input());
    let norm = builder.norm("bn1", conv);
    let mut at = builder.relu(norm);
    at = builder.max_pool("maxpool", [3, 2, 1], at);
    for (stage, n_blocks) in n_blocks.into_iter().enumerate() {
        let channels = 64 << stage;
        for block in 0..n_blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            at = if is_bottleneck {
                bottleneck(&mut builder, &name, channels, stride, at)
            } else {
                basic(&mut builder, &name, channels, stride, at)
            };
        }
    }
    builder.finish(name, dim, at)
}

/// Convolution `NAME.convN`, batch norm `NAME.bnN`.
fn layer(
    builder: &mut Builder,
    [name, number]: [&str; 2],
    outputs: usize,
    geometry: [usize; 3],
    from: NodeIdx,
) -> NodeIdx {
    let conv = builder.conv(&format!("{name}.conv{number}"), outputs, geometry, from);
    builder.norm(format!("{name}.bn{number}"), conv)
}

fn basic(b: &mut Builder, name: &str, channels: usize, stride: usize, from: NodeIdx) -> NodeIdx {
    let first = layer(b, [name, "1"], channels, [3, stride, 1], from);
    let first = b.relu(first);
    let residual = layer(b, [name, "2"], channels, [3, 1, 1], first);
    join(b, name, stride, residual, from)
}

/// The stride is in the 3x3 layer, as torchvision has it ("version 1.5").
fn bottleneck(
    b: &mut Builder,
    name: &str,
    channels: usize,
    stride: usize,
    from: NodeIdx,
) -> NodeIdx {
    let first = layer(b, [name, "1"], channels, [1, 1, 0], from);
    let first = b.relu(first);
    let second = layer(b, [name, "2"], channels, [3, stride, 1], first);
    let second = b.relu(second);
    let residual = layer(b, [name, "3"], 4 * channels, [1, 1, 0], second);
    join(b, name, stride, residual, from)
}

/// Adds the input, or a projection of it where shapes differ.
fn join(
    builder: &mut Builder,
    name: &str,
    stride: usize,
    residual: NodeIdx,
    from: NodeIdx,
) -> NodeIdx {
    let outputs = builder.channels(residual);
    let shortcut = if builder.channels(from) == outputs && stride == 1 {
        from
    } else {
        let name = format!("{name}.downsample");
        let conv = builder.conv(&format!("{name}.0"), outputs, [1, stride, 0], from);
        builder.norm(format!("{name}.1"), conv)
    };
    let sum = builder.push(format!("{name}.add"), Op::Add, &[residual, shortcut]);
    builder.relu(sum)
}
