//! A narrow residual network (He et al., CVPR 2016) for inputs of about 96 pixels: a
//! teacher that a CPU trains in minutes.

use super::{Builder, Network, NodeIdx, Op};

/// Channels of the four stages; each but the first halves the side.
const STAGES: [usize; 4] = [32, 64, 128, 192];

pub(super) fn network(dim: usize) -> Network {
    let mut builder = Builder::new();
    let mut at = builder.conv_norm_relu("stem", [3, STAGES[0]], [4, 4, 0], builder.input());
    let mut channels = STAGES[0];
    for (stage, outputs) in STAGES.into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("stage{}.{block}", stage + 1);
            at = basic_block(&mut builder, &name, [channels, outputs], stride, at);
            channels = outputs;
        }
    }
    builder.finish("resnet-narrow", channels, dim, at)
}

fn basic_block(
    builder: &mut Builder,
    name: &str,
    [inputs, outputs]: [usize; 2],
    stride: usize,
    from: NodeIdx,
) -> NodeIdx {
    let first = format!("{name}.first");
    let hidden = builder.conv_norm_relu(&first, [inputs, outputs], [3, stride, 1], from);
    let second = format!("{name}.second");
    let residual = builder.conv_norm(&second, [outputs; 2], [3, 1, 1], hidden);
    let shortcut = if inputs == outputs && stride == 1 {
        from
    } else {
        let name = format!("{name}.shortcut");
        builder.conv_norm(&name, [inputs, outputs], [1, stride, 0], from)
    };
    let sum = builder.push(format!("{name}.add"), Op::Add, &[residual, shortcut]);
    builder.relu(sum)
}
