//! BN-Inception (Ioffe and Szegedy, ICML 2015), the backbone of much of the metric
//! learning literature, without classifier. torchvision has none: weight names are those
//! of the widely used port of its Caffe weights (`bninception` of Cadene's
//! pretrained-models), `inception_3a_1x1` and `inception_3a_1x1_bn`.
//!
//! Those published weights read B, G, R from 0 to 255: convert them by reversing the input
//! channels of `conv1_7x7_s2.weight`, and give mean and deviation in 0..1 for R, G, B:
//! 128/255, 117/255, 104/255 and 1/255 each.

use super::builder::Builder;
use super::{Network, NodeIdx, Op};

/// The last branch of a module.
enum Pool {
    /// 3x3 mean, then a projection to this many channels.
    Average(usize),
    /// 3x3 maximum, then a projection to this many channels.
    Max(usize),
}

/// Channels of a module that keeps the side: the 1x1 branch, the 3x3 branch (reduction,
/// output), the double 3x3 branch (reduction, then both), the pooling branch.
struct Keep(usize, [usize; 2], [usize; 2], Pool);

/// Channels of a module that halves the side: the 3x3 branch and the double 3x3 branch as
/// above; the maximum beside them has no projection.
struct Halve([usize; 2], [usize; 2]);

pub(super) fn network(dim: usize) -> Network {
    use Pool::{Average, Max};
    let mut b = Builder::new();
    let mut at = layer(&mut b, "conv1_7x7_s2", 64, [7, 2, 3], 0);
    at = b.ceil_pool("pool1_3x3_s2", at);
    at = layer(&mut b, "conv2_3x3_reduce", 64, [1, 1, 0], at);
    at = layer(&mut b, "conv2_3x3", 192, [3, 1, 1], at);
    at = b.ceil_pool("pool2_3x3_s2", at);
    at = keep(&mut b, "3a", &Keep(64, [64, 64], [64, 96], Average(32)), at);
    at = keep(&mut b, "3b", &Keep(64, [64, 96], [64, 96], Average(64)), at);
    at = halve(&mut b, "3c", &Halve([128, 160], [64, 96]), at);
    let modules = [
        ("4a", Keep(224, [64, 96], [96, 128], Average(128))),
        ("4b", Keep(192, [96, 128], [96, 128], Average(128))),
        ("4c", Keep(160, [128, 160], [128, 160], Average(128))),
        ("4d", Keep(96, [128, 192], [160, 192], Average(128))),
    ];
    for (name, module) in &modules {
        at = keep(&mut b, name, module, at);
    }
    at = halve(&mut b, "4e", &Halve([128, 192], [192, 256]), at);
    let module = Keep(352, [192, 320], [160, 224], Average(128));
    at = keep(&mut b, "5a", &module, at);
    let module = Keep(352, [192, 320], [192, 224], Max(128));
    at = keep(&mut b, "5b", &module, at);
    b.finish("bninception", dim, at)
}

/// Convolution `NAME` with bias, batch norm `NAME_bn`, ReLU.
fn layer(
    builder: &mut Builder,
    name: &str,
    outputs: usize,
    geometry: [usize; 3],
    from: NodeIdx,
) -> NodeIdx {
    let conv = builder.biased_conv(name, outputs, geometry, from);
    let norm = builder.norm(format!("{name}_bn"), conv);
    builder.relu(norm)
}

/// Reduction to fewer channels, then 3x3.
fn single(
    builder: &mut Builder,
    name: &str,
    [reduced, outputs]: [usize; 2],
    stride: usize,
    from: NodeIdx,
) -> NodeIdx {
    let reduce = format!("{name}_3x3_reduce");
    let at = layer(builder, &reduce, reduced, [1, 1, 0], from);
    let geometry = [3, stride, 1];
    layer(builder, &format!("{name}_3x3"), outputs, geometry, at)
}

/// Reduction to fewer channels, then 3x3 twice.
fn double(
    builder: &mut Builder,
    name: &str,
    [reduced, outputs]: [usize; 2],
    stride: usize,
    from: NodeIdx,
) -> NodeIdx {
    let name = format!("{name}_double_3x3");
    let reduce = format!("{name}_reduce");
    let at = layer(builder, &reduce, reduced, [1, 1, 0], from);
    let at = layer(builder, &format!("{name}_1"), outputs, [3, 1, 1], at);
    layer(builder, &format!("{name}_2"), outputs, [3, stride, 1], at)
}

fn keep(builder: &mut Builder, name: &str, module: &Keep, from: NodeIdx) -> NodeIdx {
    let name = &format!("inception_{name}");
    let Keep(point, three, twice, pool) = module;
    let point = layer(builder, &format!("{name}_1x1"), *point, [1, 1, 0], from);
    let three = single(builder, name, *three, 1, from);
    let twice = double(builder, name, *twice, 1, from);
    let pool_name = format!("{name}_pool");
    let (pooled, outputs) = match *pool {
        Pool::Max(outputs) => (builder.max_pool(&pool_name, [3, 1, 1], from), outputs),
        Pool::Average(outputs) => {
            let op = Op::AveragePool {
                kernel: 3,
                stride: 1,
                padding: 1,
            };
            (builder.push(pool_name, op, &[from]), outputs)
        }
    };
    let projected = format!("{name}_pool_proj");
    let pooled = layer(builder, &projected, outputs, [1, 1, 0], pooled);
    let branches = [point, three, twice, pooled];
    builder.push(format!("{name}_output"), Op::Concat, &branches)
}

fn halve(builder: &mut Builder, name: &str, module: &Halve, from: NodeIdx) -> NodeIdx {
    let name = &format!("inception_{name}");
    let three = single(builder, name, module.0, 2, from);
    let twice = double(builder, name, module.1, 2, from);
    let pooled = builder.ceil_pool(&format!("{name}_pool"), from);
    builder.push(
        format!("{name}_output"),
        Op::Concat,
        &[three, twice, pooled],
    )
}
