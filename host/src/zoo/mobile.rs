//! Networks of inverted residual blocks under torchvision's weight names, without
//! classifier: MobileNetV2 (Sandler et al., CVPR 2018), MobileNetV3 (Howard et al., ICCV
//! 2019) and EfficientNet (Tan and Le, ICML 2019).

use super::builder::Builder;
use super::{Activation, Network, NodeIdx, Op};

/// What torchvision adds to the variance in MobileNetV3.
const MOBILENET_V3_EPSILON: f64 = 1e-3;

/// A layer of torchvision's `Conv2dNormActivation`: convolution `NAME.0`, norm `NAME.1`.
struct Layer {
    outputs: usize,
    kernel: usize,
    stride: usize,
    activation: Activation,
}

fn layer(builder: &mut Builder, name: &str, layer: &Layer, from: NodeIdx) -> NodeIdx {
    let geometry = [layer.kernel, layer.stride, layer.kernel / 2];
    let conv = builder.conv(&format!("{name}.0"), layer.outputs, geometry, from);
    let norm = builder.norm(format!("{name}.1"), conv);
    builder.activate(layer.activation, norm)
}

/// Convolution of 1x1, batch norm and activation.
fn pointwise(
    builder: &mut Builder,
    name: &str,
    outputs: usize,
    activation: Activation,
    from: NodeIdx,
) -> NodeIdx {
    let one = Layer {
        outputs,
        kernel: 1,
        stride: 1,
        activation,
    };
    layer(builder, name, &one, from)
}

/// Depthwise convolution, batch norm and activation.
fn depthwise(
    builder: &mut Builder,
    name: &str,
    [kernel, stride]: [usize; 2],
    activation: Activation,
    from: NodeIdx,
) -> NodeIdx {
    let geometry = [kernel, stride, kernel / 2];
    let conv = builder.depthwise(&format!("{name}.0"), geometry, from);
    let norm = builder.norm(format!("{name}.1"), conv);
    builder.activate(activation, norm)
}

/// Squeeze and excitation (Hu et al., CVPR 2018): every channel scaled by a gate that two
/// layers compute from the channels' means.
struct Squeeze {
    channels: usize,
    hidden: Activation,
    gate: Activation,
}

fn squeeze_excite(builder: &mut Builder, name: &str, squeeze: &Squeeze, from: NodeIdx) -> NodeIdx {
    let channels = builder.channels(from);
    let point = [1, 1, 0];
    let mean = builder.push(format!("{name}.avgpool"), Op::SpatialMean, &[from]);
    let hidden = builder.biased_conv(&format!("{name}.fc1"), squeeze.channels, point, mean);
    let hidden = builder.activate(squeeze.hidden, hidden);
    let gate = builder.biased_conv(&format!("{name}.fc2"), channels, point, hidden);
    let gate = builder.activate(squeeze.gate, gate);
    builder.push(format!("{name}.scale"), Op::ScaleChannels, &[from, gate])
}

/// One inverted residual block: expansion, depthwise layer, perhaps squeeze and
/// excitation, linear projection; added to its input where shapes agree.
struct Block {
    expanded: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    activation: Activation,
    squeeze: Option<Squeeze>,
}

/// `parts` is the list of torchvision's that holds the block's layers. The projection is a
/// list in it, or, as in MobileNetV2, two entries of it.
fn block(
    builder: &mut Builder,
    [name, parts]: [&str; 2],
    block: &Block,
    projection_is_list: bool,
    from: NodeIdx,
) -> NodeIdx {
    let mut n_parts = 0;
    let mut part = || {
        n_parts += 1;
        format!("{name}.{parts}.{}", n_parts - 1)
    };
    let mut at = from;
    if block.expanded != builder.channels(from) {
        at = pointwise(builder, &part(), block.expanded, block.activation, at);
    }
    let geometry = [block.kernel, block.stride];
    at = depthwise(builder, &part(), geometry, block.activation, at);
    if let Some(squeeze) = &block.squeeze {
        at = squeeze_excite(builder, &part(), squeeze, at);
    }
    let (conv, norm) = if projection_is_list {
        let list = part();
        (format!("{list}.0"), format!("{list}.1"))
    } else {
        (part(), part())
    };
    let projection = builder.conv(&conv, block.outputs, [1, 1, 0], at);
    let projection = builder.norm(norm, projection);
    if block.stride == 1 && builder.channels(from) == block.outputs {
        builder.push(format!("{name}.add"), Op::Add, &[projection, from])
    } else {
        projection
    }
}

/// Expansion, output channels, number of blocks, stride of the first.
const MOBILENET_V2: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// torchvision's at full width or, by its rounding of channels, at width 0.35.
pub(super) fn mobilenet_v2(name: &str, dim: usize) -> Network {
    let width = match name {
        "mobilenet_v2_035" => 0.35,
        _ => 1.0,
    };
    let channels = |at_full_width: usize| near_multiple_of_8(at_full_width as f64 * width);
    let mut builder = Builder::new();
    let activation = Activation::Relu6;
    let stem = Layer {
        outputs: channels(32),
        kernel: 3,
        stride: 2,
        activation,
    };
    let mut at = layer(&mut builder, "features.0", &stem, 0);
    let mut n_layers = 1;
    for [expansion, outputs, n_blocks, stride] in MOBILENET_V2 {
        for block_idx in 0..n_blocks {
            let one = Block {
                expanded: expansion * builder.channels(at),
                outputs: channels(outputs),
                kernel: 3,
                stride: if block_idx == 0 { stride } else { 1 },
                activation,
                squeeze: None,
            };
            let list = format!("features.{n_layers}");
            at = block(&mut builder, [&list, "conv"], &one, false, at);
            n_layers += 1;
        }
    }
    let last = format!("features.{n_layers}");
    // Narrow networks keep the last layer's width.
    at = pointwise(&mut builder, &last, 1280, activation, at);
    builder.finish(name, dim, at)
}

/// Kernel, expanded channels, output channels, stride; whether it squeezes; its activation.
type V3Block = ([usize; 4], bool, Activation);

const MOBILENET_V3_SMALL: &[V3Block] = &[
    ([3, 16, 16, 2], true, Activation::Relu),
    ([3, 72, 24, 2], false, Activation::Relu),
    ([3, 88, 24, 1], false, Activation::Relu),
    ([5, 96, 40, 2], true, Activation::HardSwish),
    ([5, 240, 40, 1], true, Activation::HardSwish),
    ([5, 240, 40, 1], true, Activation::HardSwish),
    ([5, 120, 48, 1], true, Activation::HardSwish),
    ([5, 144, 48, 1], true, Activation::HardSwish),
    ([5, 288, 96, 2], true, Activation::HardSwish),
    ([5, 576, 96, 1], true, Activation::HardSwish),
    ([5, 576, 96, 1], true, Activation::HardSwish),
];

const MOBILENET_V3_LARGE: &[V3Block] = &[
    ([3, 16, 16, 1], false, Activation::Relu),
    ([3, 64, 24, 2], false, Activation::Relu),
    ([3, 72, 24, 1], false, Activation::Relu),
    ([5, 72, 40, 2], true, Activation::Relu),
    ([5, 120, 40, 1], true, Activation::Relu),
    ([5, 120, 40, 1], true, Activation::Relu),
    ([3, 240, 80, 2], false, Activation::HardSwish),
    ([3, 200, 80, 1], false, Activation::HardSwish),
    ([3, 184, 80, 1], false, Activation::HardSwish),
    ([3, 184, 80, 1], false, Activation::HardSwish),
    ([3, 480, 112, 1], true, Activation::HardSwish),
    ([3, 672, 112, 1], true, Activation::HardSwish),
    ([5, 672, 160, 2], true, Activation::HardSwish),
    ([5, 960, 160, 1], true, Activation::HardSwish),
    ([5, 960, 160, 1], true, Activation::HardSwish),
];

pub(super) fn mobilenet_v3(name: &str, dim: usize) -> Network {
    let blocks = match name {
        "mobilenet_v3_small" => MOBILENET_V3_SMALL,
        _ => MOBILENET_V3_LARGE,
    };
    let mut builder = Builder::with_norm_epsilon(MOBILENET_V3_EPSILON);
    let stem = Layer {
        outputs: 16,
        kernel: 3,
        stride: 2,
        activation: Activation::HardSwish,
    };
    let mut at = layer(&mut builder, "features.0", &stem, 0);
    for (block_idx, &([kernel, expanded, outputs, stride], squeezes, activation)) in
        blocks.iter().enumerate()
    {
        let squeeze = squeezes.then(|| Squeeze {
            channels: near_multiple_of_8(expanded as f64 / 4.0),
            hidden: Activation::Relu,
            gate: Activation::HardSigmoid,
        });
        let one = Block {
            expanded,
            outputs,
            kernel,
            stride,
            activation,
            squeeze,
        };
        let name = format!("features.{}", block_idx + 1);
        at = block(&mut builder, [&name, "block"], &one, true, at);
    }
    let last = format!("features.{}", blocks.len() + 1);
    let channels = 6 * builder.channels(at);
    at = pointwise(&mut builder, &last, channels, Activation::HardSwish, at);
    builder.finish(name, dim, at)
}

/// Expansion, kernel, stride of the first block, output channels, number of blocks: B0.
const EFFICIENTNET: [[usize; 5]; 7] = [
    [1, 3, 1, 16, 1],
    [6, 3, 2, 24, 2],
    [6, 5, 2, 40, 2],
    [6, 3, 2, 80, 3],
    [6, 5, 1, 112, 3],
    [6, 5, 2, 192, 4],
    [6, 3, 1, 320, 1],
];

pub(super) fn efficientnet(name: &str, dim: usize) -> Network {
    let (width, depth) = match name {
        "efficientnet_b0" => (1.0, 1.0),
        "efficientnet_b1" => (1.0, 1.1),
        "efficientnet_b2" => (1.1, 1.2),
        _ => (1.2, 1.4),
    };
    let channels = |of_b0: usize| near_multiple_of_8(of_b0 as f64 * width);
    let activation = Activation::Silu;
    let mut builder = Builder::new();
    let stem = Layer {
        outputs: channels(32),
        kernel: 3,
        stride: 2,
        activation,
    };
    let mut at = layer(&mut builder, "features.0", &stem, 0);
    for (stage, [expansion, kernel, stride, outputs, n_blocks]) in
        EFFICIENTNET.into_iter().enumerate()
    {
        let n_blocks = (n_blocks as f64 * depth).ceil() as usize;
        for block_idx in 0..n_blocks {
            let inputs = builder.channels(at);
            let one = Block {
                expanded: expansion * inputs,
                outputs: channels(outputs),
                kernel,
                stride: if block_idx == 0 { stride } else { 1 },
                activation,
                squeeze: Some(Squeeze {
                    channels: inputs / 4,
                    hidden: Activation::Silu,
                    gate: Activation::Sigmoid,
                }),
            };
            let name = format!("features.{}.{block_idx}", stage + 1);
            at = block(&mut builder, [&name, "block"], &one, true, at);
        }
    }
    let channels = 4 * builder.channels(at);
    at = pointwise(&mut builder, "features.8", channels, activation, at);
    builder.finish(name, dim, at)
}

/// The multiple of 8 that is nearest, but no more than a tenth below and at least 8: how
/// these papers round numbers of channels.
fn near_multiple_of_8(channels: f64) -> usize {
    let nearest = ((channels + 4.0) / 8.0).floor().max(1.0) * 8.0;
    let rounded = if nearest < 0.9 * channels {
        nearest + 8.0
    } else {
        nearest
    };
    rounded as usize
}
