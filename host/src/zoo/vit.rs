//! Vision transformers (Dosovitskiy et al., ICLR 2021): torchvision's ViT-B/16 and the
//! backbones of DINOv2 (Oquab et al., TMLR 2024), each under its published weight names.
//!
//! The embedding is the class token behind the last layer norm; pooling sees it as a map of
//! one place. Patches that do not fit whole into the image, at its right and lower edge, are
//! not looked at. The description by name is that of the side that the published weights
//! were trained at; [`Network::for_side`] makes it another's.
//!
//! DINOv2's checkpoints also hold `mask_token`, which only their training needs.

use super::builder::Builder;
use super::{Activation, Network, NodeIdx, Op};

/// Added to the variance in every layer norm of both families.
const NORM_EPSILON: f64 = 1e-6;

/// Channels of a head in every published size.
const HEAD_CHANNELS: usize = 64;

/// Blocks of the sizes S and B.
const N_BLOCKS: usize = 12;

/// What the published weights call the parts.
struct Names {
    patches: &'static str,
    class_token: &'static str,
    positions: &'static str,
    /// Before the number of a block; the others up to `layer_scales` come after it.
    block: &'static str,
    norms: [&'static str; 2],
    attention: &'static str,
    /// Of q, k and v at once, and behind the attention.
    projections: [&'static str; 2],
    mlp: [&'static str; 2],
    layer_scales: Option<[&'static str; 2]>,
    last_norm: &'static str,
}

const TORCHVISION: Names = Names {
    patches: "conv_proj",
    class_token: "class_token",
    positions: "encoder.pos_embedding",
    block: "encoder.layers.encoder_layer_",
    norms: ["ln_1", "ln_2"],
    attention: "self_attention",
    projections: ["self_attention.in_proj", "self_attention.out_proj"],
    mlp: ["mlp.0", "mlp.3"],
    layer_scales: None,
    last_norm: "encoder.ln",
};

const DINOV2: Names = Names {
    patches: "patch_embed.proj",
    class_token: "cls_token",
    positions: "pos_embed",
    block: "blocks.",
    norms: ["norm1", "norm2"],
    attention: "attn",
    projections: ["attn.qkv", "attn.proj"],
    mlp: ["mlp.fc1", "mlp.fc2"],
    layer_scales: Some(["ls1", "ls2"]),
    last_norm: "norm",
};

/// torchvision's ViT-B/16, for 224 pixels.
pub(super) fn vit_b_16(dim: usize) -> Network {
    network("vit_b_16", &TORCHVISION, [16, 768], dim).for_side(224)
}

/// DINOv2's backbone of this name, for 518 pixels.
pub(super) fn dinov2(name: &str, dim: usize) -> Network {
    let channels = match name {
        "dinov2_vits14" => 384,
        _ => 768,
    };
    network(name, &DINOV2, [14, channels], dim).for_side(518)
}

fn network(name: &str, names: &Names, [patch, channels]: [usize; 2], dim: usize) -> Network {
    let mut builder = Builder::new();
    let map = builder.biased_conv(names.patches, channels, [patch, patch, 0], builder.input());
    let mut at = builder.push(format!("{}.tokens", names.patches), Op::Tokens, &[map]);
    at = builder.push(names.class_token, Op::ClassToken { channels }, &[at]);
    // Set by `for_side`.
    let tokens = 0;
    at = builder.push(names.positions, Op::Positions { channels, tokens }, &[at]);
    for block in 0..N_BLOCKS {
        at = encoder_block(&mut builder, names, &format!("{}{block}", names.block), at);
    }
    at = norm(&mut builder, names.last_norm.to_owned(), at);
    at = builder.push("class", Op::FirstToken { channels }, &[at]);
    builder.finish(name, dim, at)
}

/// x + attention of its norm, then x + MLP of its norm.
fn encoder_block(builder: &mut Builder, names: &Names, name: &str, from: NodeIdx) -> NodeIdx {
    let channels = builder.channels(from);
    let part = |part: &str| format!("{name}.{part}");
    let [qkv, projection] = names.projections.map(part);
    let normal = norm(builder, part(names.norms[0]), from);
    let qkv = builder.linear(&qkv, 3 * channels, normal);
    let heads = channels / HEAD_CHANNELS;
    let attention = Op::Attention { channels, heads };
    let attended = builder.push(part(names.attention), attention, &[qkv]);
    let projected = builder.linear(&projection, channels, attended);
    let at = residual(builder, names, name, 0, [from, projected]);

    let [widen, narrow] = names.mlp.map(part);
    let normal = norm(builder, part(names.norms[1]), at);
    let wide = builder.linear(&widen, 4 * channels, normal);
    let active = builder.activate(Activation::Gelu, wide);
    let narrow = builder.linear(&narrow, channels, active);
    residual(builder, names, name, 1, [at, narrow])
}

fn norm(builder: &mut Builder, name: String, from: NodeIdx) -> NodeIdx {
    let op = Op::LayerNorm {
        channels: builder.channels(from),
        epsilon: NORM_EPSILON,
    };
    builder.push(name, op, &[from])
}

/// What a block's first or second half gives, scaled where the family scales, and added.
fn residual(
    builder: &mut Builder,
    names: &Names,
    block: &str,
    half: usize,
    [from, mut change]: [NodeIdx; 2],
) -> NodeIdx {
    if let Some(scales) = names.layer_scales {
        let channels = builder.channels(change);
        let name = format!("{block}.{}", scales[half]);
        change = builder.push(name, Op::LayerScale { channels }, &[change]);
    }
    let name = format!("{block}.add{}", half + 1);
    builder.push(name, Op::Add, &[from, change])
}
