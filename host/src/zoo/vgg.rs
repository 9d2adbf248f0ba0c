//! VGG-16 (Simonyan and Zisserman, ICLR 2015) up to its last convolution, under
//! torchvision's weight names. The pooling behind that convolution is left out, as image
//! retrieval does: the global pooling reads a map of twice the side.

use super::Network;
use super::builder::Builder;

/// Channels of the convolutions between two poolings.
const STAGES: [&[usize]; 5] = [
    &[64, 64],
    &[128, 128],
    &[256, 256, 256],
    &[512, 512, 512],
    &[512, 512, 512],
];

pub(super) fn network(dim: usize) -> Network {
    let mut builder = Builder::new();
    let mut at = builder.input();
    // Position in torchvision's list of convolutions, activations and poolings.
    let mut layer = 0;
    for (stage, channels) in STAGES.into_iter().enumerate() {
        if stage > 0 {
            at = builder.max_pool(&format!("features.{layer}"), [2, 2, 0], at);
            layer += 1;
        }
        for &outputs in channels {
            let conv = builder.biased_conv(&format!("features.{layer}"), outputs, [3, 1, 1], at);
            at = builder.relu(conv);
            layer += 2;
        }
    }
    builder.finish("vgg16", dim, at)
}
