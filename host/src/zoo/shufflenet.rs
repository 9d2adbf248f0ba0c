//! ShuffleNetV2 (Ma et al., ECCV 2018) at width 0.5 without classifier, under torchvision's
//! weight names.

use super::builder::Builder;
use super::{Network, NodeIdx, Op};

/// Output channels and number of blocks of stages 2 to 4.
const STAGES: [[usize; 2]; 3] = [[48, 4], [96, 8], [192, 4]];

pub(super) fn network(dim: usize) -> Network {
    let mut builder = Builder::new();
    let image = builder.input();
    let stem = layer(&mut builder, ["conv1", "0", "1"], 24, [3, 2, 1], image);
    let stem = builder.relu(stem);
    let mut at = builder.max_pool("maxpool", [3, 2, 1], stem);
    for (stage_idx, [outputs, n_blocks]) in STAGES.into_iter().enumerate() {
        for block in 0..n_blocks {
            let name = format!("stage{}.{block}", stage_idx + 2);
            at = if block == 0 {
                reducing_block(&mut builder, &name, outputs, at)
            } else {
                block_of_half(&mut builder, &name, at)
            };
        }
    }
    let last = layer(&mut builder, ["conv5", "0", "1"], 1024, [1, 1, 0], at);
    let last = builder.relu(last);
    builder.finish("shufflenet_v2_x0_5", dim, last)
}

/// Convolution `LIST.CONV` and batch norm `LIST.NORM` of one of torchvision's lists.
fn layer(
    b: &mut Builder,
    [list, conv, norm]: [&str; 3],
    outputs: usize,
    geometry: [usize; 3],
    from: NodeIdx,
) -> NodeIdx {
    let conv = b.conv(&format!("{list}.{conv}"), outputs, geometry, from);
    b.norm(format!("{list}.{norm}"), conv)
}

fn depthwise(
    b: &mut Builder,
    [list, conv, norm]: [&str; 3],
    stride: usize,
    at: NodeIdx,
) -> NodeIdx {
    let conv = b.depthwise(&format!("{list}.{conv}"), [3, stride, 1], at);
    b.norm(format!("{list}.{norm}"), conv)
}

/// 1x1, depthwise, 1x1.
fn branch2(b: &mut Builder, name: &str, outputs: usize, stride: usize, from: NodeIdx) -> NodeIdx {
    let list = &format!("{name}.branch2");
    let point = layer(b, [list, "0", "1"], outputs, [1, 1, 0], from);
    let point = b.relu(point);
    let deep = depthwise(b, [list, "3", "4"], stride, point);
    let point = layer(b, [list, "5", "6"], outputs, [1, 1, 0], deep);
    b.relu(point)
}

/// Halves the side; both branches read everything.
fn reducing_block(b: &mut Builder, name: &str, outputs: usize, from: NodeIdx) -> NodeIdx {
    let list = &format!("{name}.branch1");
    let deep = depthwise(b, [list, "0", "1"], 2, from);
    let point = layer(b, [list, "2", "3"], outputs / 2, [1, 1, 0], deep);
    let first = b.relu(point);
    let second = branch2(b, name, outputs / 2, 2, from);
    join(b, name, [first, second])
}

/// Half of the channels go past the branch.
fn block_of_half(b: &mut Builder, name: &str, from: NodeIdx) -> NodeIdx {
    let half = b.channels(from) / 2;
    let [first, second] = [("kept", 0), ("read", half)].map(|(part, start)| {
        let slice = Op::Slice {
            start,
            channels: half,
        };
        b.push(format!("{name}.{part}"), slice, &[from])
    });
    let second = branch2(b, name, half, 1, second);
    join(b, name, [first, second])
}

fn join(b: &mut Builder, name: &str, parts: [NodeIdx; 2]) -> NodeIdx {
    let joined = b.push(format!("{name}.concat"), Op::Concat, &parts);
    let shuffle = Op::Shuffle {
        channels: b.channels(joined),
        groups: 2,
    };
    b.push(format!("{name}.shuffle"), shuffle, &[joined])
}
