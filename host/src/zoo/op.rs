//! What a node can compute.

use serde::{Deserialize, Serialize};

use super::Places;

/// What a node computes. Tensors are N x C x H x W up to the global pooling, N x C after
/// it; where a network works with tokens, they are N x T x C from [`Tokens`](Self::Tokens)
/// to [`FirstToken`](Self::FirstToken).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The image, N x 3 x side x side.
    Input,
    /// 2-D convolution with square kernel, equal stride and zero padding on all sides;
    /// weight `[outputs, inputs / groups, kernel, kernel]`.
    Conv {
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
        /// Height and width of the kernel.
        kernel: usize,
        /// Step in both directions.
        stride: usize,
        /// Zeros on every side.
        padding: usize,
        /// Equal parts of the channels that do not see each other; divides inputs and
        /// outputs. As many as there are inputs is a depthwise convolution.
        groups: usize,
        /// Whether `NAME.bias` exists.
        bias: bool,
    },
    /// Batch norm over channels.
    BatchNorm {
        /// Channels.
        channels: usize,
        /// Added to the variance.
        epsilon: f64,
    },
    /// A function of every value on its own.
    Activation(Activation),
    /// Maximum over a square window; what is padded never is the maximum.
    MaxPool {
        /// Height and width of the window.
        kernel: usize,
        /// Step in both directions, at most `kernel`.
        stride: usize,
        /// Rows and columns added on every side, at most half of `kernel`.
        padding: usize,
        /// Whether windows may hang over the lower and right edge.
        ceil: bool,
    },
    /// Mean over a square window; padding counts, as zeros.
    AveragePool {
        /// Height and width of the window.
        kernel: usize,
        /// Step in both directions.
        stride: usize,
        /// Zeros on every side.
        padding: usize,
    },
    /// Sum of two tensors.
    Add,
    /// Tensors one after the other along the channels.
    Concat,
    /// Some of the channels, in order.
    Slice {
        /// The first of them.
        start: usize,
        /// How many.
        channels: usize,
    },
    /// Channels dealt out anew: of `groups` equal groups, one after the other, first the
    /// first channel of each, then the second, and so on.
    Shuffle {
        /// Channels; a multiple of `groups`.
        channels: usize,
        /// Groups.
        groups: usize,
    },
    /// Mean over height and width: N x C x H x W to N x C x 1 x 1.
    SpatialMean,
    /// N x C x H x W times N x C x 1 x 1: every channel scaled by a number of its own.
    ScaleChannels,
    /// The places of a map as tokens, row by row: N x C x H x W to N x HW x C.
    Tokens,
    /// One learned token before the others: N x T x C to N x (1 + T) x C; weight
    /// `NAME.value` of shape `[1, 1, channels]`.
    ClassToken {
        /// Channels.
        channels: usize,
    },
    /// A learned vector added to each token; weight `NAME.value` of shape
    /// `[1, tokens, channels]`. The only operation that knows the side of the image: see
    /// [`Network::for_side`](super::Network::for_side).
    Positions {
        /// Channels.
        channels: usize,
        /// Tokens, the class token included.
        tokens: usize,
    },
    /// Every token by itself shifted to mean 0 and scaled to variance 1 (that of all its
    /// channels, not n - 1), then times `NAME.weight` plus `NAME.bias`.
    LayerNorm {
        /// Channels.
        channels: usize,
        /// Added to the variance.
        epsilon: f64,
    },
    /// softmax(q k^T / sqrt(d)) v in `heads` equal parts of the channels, each of d. The
    /// input is q, k and v beside each other: N x T x 3 C to N x T x C.
    Attention {
        /// Channels of the output.
        channels: usize,
        /// Parts; a divisor of `channels`.
        heads: usize,
    },
    /// Every channel times a number of its own, `NAME.gamma` (layer scale).
    LayerScale {
        /// Channels.
        channels: usize,
    },
    /// The first token as a map of one place: N x T x C to N x C x 1 x 1.
    FirstToken {
        /// Channels.
        channels: usize,
    },
    /// From a map to one vector: N x C x H x W to N x C.
    GlobalPool(Pooling),
    /// x W^T + b for a vector, or for each token; weight `[outputs, inputs]`, bias
    /// `[outputs]`.
    Linear {
        /// Input components.
        inputs: usize,
        /// Output components.
        outputs: usize,
    },
    /// x / max(|x|, 1e-12): the embedding.
    L2Normalize,
}

/// Functions of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x times [`HardSigmoid`](Self::HardSigmoid) (Howard et al., ICCV 2019).
    HardSwish,
    /// min(max(x + 3, 0), 6) / 6.
    HardSigmoid,
    /// x times [`Sigmoid`](Self::Sigmoid).
    Silu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x (1 + erf(x / sqrt(2))) / 2 (Hendrycks and Gimpel, 2016), not its approximation by
    /// tanh.
    Gelu,
}

impl Activation {
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::HardSwish => "hard_swish",
            Self::HardSigmoid => "hard_sigmoid",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
            Self::Gelu => "gelu",
        }
    }
}

/// How the last map becomes one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Mean over height and width.
    #[default]
    Average,
    /// Maximum over height and width.
    Max,
    /// Mean plus maximum (Kim et al., CVPR 2021).
    AverageMax,
    /// Generalized mean (Radenović, Tolias, Chum; TPAMI 2019): (mean max(x, 1e-6)^p)^(1/p)
    /// with one trained exponent, weight `NAME.p` of shape `[1]`, which starts at 3.
    Gem,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Average, Self::Max, Self::AverageMax, Self::Gem];
}

/// Smaller values count as this in [`Pooling::Gem`].
pub const GEM_MIN: f32 = 1e-6;

/// Where the exponent of [`Pooling::Gem`] starts.
pub const GEM_START: f32 = 3.0;

impl Op {
    /// Where the output lies for an input that lies there.
    pub(super) fn output_places(self, input: Places) -> Places {
        let side = input.side();
        let side = match self {
            Self::Conv {
                kernel,
                stride,
                padding,
                ..
            }
            | Self::AveragePool {
                kernel,
                stride,
                padding,
            } => (side + 2 * padding).saturating_sub(kernel) / stride + 1,
            Self::MaxPool {
                kernel,
                stride,
                padding,
                ceil,
            } => {
                let span = (side + 2 * padding).saturating_sub(kernel);
                if ceil {
                    // A window that begins in the padding behind the map is left out.
                    let most = (side + padding).div_ceil(stride);
                    (span.div_ceil(stride) + 1).min(most)
                } else {
                    span / stride + 1
                }
            }
            Self::SpatialMean | Self::FirstToken { .. } | Self::GlobalPool(_) => 1,
            Self::Tokens => return Places::Tokens { n: input.n() },
            Self::ClassToken { .. } => return Places::Tokens { n: input.n() + 1 },
            _ => return input,
        };
        Places::Map { side }
    }

    /// The smallest padded side that the operation's window slides over, and the padding.
    pub(super) fn least_window(self) -> Option<(usize, usize)> {
        match self {
            Self::Conv {
                kernel, padding, ..
            }
            | Self::AveragePool {
                kernel, padding, ..
            } => Some((kernel, padding)),
            Self::MaxPool {
                kernel,
                stride,
                padding,
                ceil,
            } => {
                let overhang = if ceil { stride - 1 } else { 0 };
                Some((kernel - overhang, padding))
            }
            _ => None,
        }
    }

    /// Multiply-adds for an output at so many places: those of convolutions, linear layers
    /// and the two products of an attention.
    #[must_use]
    pub fn multiply_adds(self, n_places: usize) -> usize {
        match self {
            Self::Conv {
                inputs,
                outputs,
                kernel,
                groups,
                ..
            } => inputs / groups * outputs * kernel * kernel * n_places,
            Self::Linear { inputs, outputs } => inputs * outputs * n_places,
            Self::Attention { channels, .. } => 2 * channels * n_places * n_places,
            _ => 0,
        }
    }

    /// The weights that the operation needs: suffix, shape, whether gradients move it.
    pub(super) fn weights(self) -> Vec<(&'static str, Vec<usize>, bool)> {
        match self {
            Self::Conv {
                inputs,
                outputs,
                kernel,
                groups,
                bias,
                ..
            } => {
                let shape = vec![outputs, inputs / groups, kernel, kernel];
                let mut weights = vec![("weight", shape, true)];
                if bias {
                    weights.push(("bias", vec![outputs], true));
                }
                weights
            }
            Self::BatchNorm { channels, .. } => vec![
                ("weight", vec![channels], true),
                ("bias", vec![channels], true),
                ("running_mean", vec![channels], false),
                ("running_var", vec![channels], false),
            ],
            Self::Linear { inputs, outputs } => vec![
                ("weight", vec![outputs, inputs], true),
                ("bias", vec![outputs], true),
            ],
            Self::LayerNorm { channels, .. } => vec![
                ("weight", vec![channels], true),
                ("bias", vec![channels], true),
            ],
            Self::LayerScale { channels } => vec![("gamma", vec![channels], true)],
            Self::ClassToken { channels } => vec![("value", vec![1, 1, channels], true)],
            Self::Positions { channels, tokens } => {
                vec![("value", vec![1, tokens, channels], true)]
            }
            Self::GlobalPool(Pooling::Gem) => vec![("p", vec![1], true)],
            _ => Vec::new(),
        }
    }
}
