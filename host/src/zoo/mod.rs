//! Architectures by name: one description that libtorch runs and the ONNX writer reads.
//!
//! A [`Network`] is data. `learn::network` interprets it with gradients, `export` folds
//! batch norm and writes it as ONNX, and parameters and multiply-adds are counted from it:
//! what ships is what was trained because both read the same list of nodes.

mod eyas;
pub mod init;
mod resnet;
mod squeezenet;

/// A network as a list of nodes in order of evaluation; the last one is the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Name in the zoo, such as `eyas-s`.
    pub name: String,
    /// Nodes; inputs of a node come before it. Node 0 is [`Op::Input`].
    pub nodes: Vec<Node>,
}

/// Position of a node in [`Network::nodes`].
pub type NodeIdx = usize;

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Prefix of its weights, such as `features.3.squeeze`: weights are `NAME.weight`,
    /// `NAME.bias`, and for batch norm also `NAME.running_mean` and `NAME.running_var`.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// What it computes it from.
    pub inputs: Vec<NodeIdx>,
}

/// What a node computes. Tensors are N x C x H x W up to the pooling, N x C after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The image, N x 3 x side x side.
    Input,
    /// 2-D convolution with square kernel, equal stride and zero padding on all sides;
    /// weight `[outputs, inputs, kernel, kernel]`.
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
        /// Whether `NAME.bias` exists.
        bias: bool,
    },
    /// Batch norm over channels, epsilon [`BATCH_NORM_EPSILON`].
    BatchNorm {
        /// Channels.
        channels: usize,
    },
    /// max(x, 0).
    Relu,
    /// Maximum over a square window without padding; with `ceil` a window may hang over
    /// the lower and right edge.
    MaxPool {
        /// Height and width of the window.
        kernel: usize,
        /// Step in both directions.
        stride: usize,
        /// Whether windows may hang over the edge.
        ceil: bool,
    },
    /// Sum of two tensors.
    Add,
    /// Tensors one after the other along the channels.
    Concat,
    /// Mean over height and width: N x C x H x W to N x C.
    GlobalAveragePool,
    /// x W^T + b; weight `[outputs, inputs]`, bias `[outputs]`.
    Linear {
        /// Input components.
        inputs: usize,
        /// Output components.
        outputs: usize,
    },
    /// x / max(|x|, 1e-12): the embedding.
    L2Normalize,
}

/// Added to the variance in batch norm.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Smallest side that every architecture accepts.
pub const MIN_SIDE: u32 = 32;

/// Name of the last linear layer, which puts out the embedding.
pub const HEAD: &str = "head";

/// Shape of a weight and whether gradients move it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightShape {
    /// Full name, such as `head.bias`.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// False for the running statistics of batch norm.
    pub trained: bool,
}

/// Names of all architectures, with what they are for.
pub const ARCHITECTURES: [(&str, &str); 5] = [
    (
        "eyas-xs",
        "dense student for small inputs, about 0.3 M parameters",
    ),
    ("eyas-s", "dense student, about 0.8 M parameters"),
    ("eyas-m", "dense student, about 1.3 M parameters"),
    (
        "squeezenet1_1",
        "SqueezeNet 1.1 trunk, torchvision's weight names, 0.8 M parameters",
    ),
    (
        "resnet-narrow",
        "ResNet-18 at half width with a 3x3 stem: a teacher for small data",
    ),
];

/// The architecture of this name with an embedding of `dim` components.
#[must_use]
pub fn by_name(name: &str, dim: usize) -> Option<Network> {
    Some(match name {
        "eyas-xs" | "eyas-s" | "eyas-m" => eyas::network(name, dim),
        "squeezenet1_1" => squeezenet::network(dim),
        "resnet-narrow" => resnet::network(dim),
        _ => return None,
    })
}

impl Network {
    /// Components of the output.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.output_channels().pop().unwrap_or_default()
    }

    /// The network up to its pooled features, scaled to unit length: what a backbone gives
    /// without a head of its own.
    #[must_use]
    pub fn trunk(&self) -> Self {
        let pool = |node: &Node| node.op == Op::GlobalAveragePool;
        let pool_idx = self
            .nodes
            .iter()
            .position(pool)
            .expect("networks of the zoo pool");
        let mut nodes = self.nodes[..=pool_idx].to_vec();
        let embedding = "embedding".to_owned();
        nodes.push(Node {
            name: embedding,
            op: Op::L2Normalize,
            inputs: vec![pool_idx],
        });
        Self {
            name: self.name.clone(),
            nodes,
        }
    }

    /// Channels, or components, of every node's output.
    fn output_channels(&self) -> Vec<usize> {
        let mut channels: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let of_inputs = || node.inputs.iter().map(|&input| channels[input]);
            let of_node = match node.op {
                Op::Input => 3,
                Op::Conv { outputs, .. } | Op::Linear { outputs, .. } => outputs,
                Op::Concat => of_inputs().sum(),
                _ => of_inputs().next().unwrap_or_default(),
            };
            channels.push(of_node);
        }
        channels
    }

    /// Every weight in order of the nodes.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightShape> {
        self.nodes.iter().flat_map(Node::weights).collect()
    }

    /// Number of weights that are trained.
    #[must_use]
    pub fn n_parameters(&self) -> u64 {
        let trained = self.weights().into_iter().filter(|weight| weight.trained);
        trained
            .map(|weight| weight.shape.iter().product::<usize>() as u64)
            .sum()
    }

    /// Multiply-adds of convolutions and linear layers for one image of `side` x `side`.
    #[must_use]
    pub fn multiply_adds(&self, side: usize) -> u64 {
        let sides = self.output_sides(side);
        let of_node = |(node_idx, node): (usize, &Node)| match node.op {
            Op::Conv {
                inputs,
                outputs,
                kernel,
                ..
            } => inputs * outputs * kernel * kernel * sides[node_idx] * sides[node_idx],
            Op::Linear { inputs, outputs } => inputs * outputs,
            _ => 0,
        };
        self.nodes.iter().enumerate().map(of_node).sum::<usize>() as u64
    }

    /// Height and width of every node's output for an image of `side` x `side`; 1 after
    /// the pooling.
    #[must_use]
    pub fn output_sides(&self, side: usize) -> Vec<usize> {
        let mut sides: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let input = node.inputs.first().map_or(side, |&input| sides[input]);
            sides.push(match node.op {
                Op::Conv {
                    kernel,
                    stride,
                    padding,
                    ..
                } => (input + 2 * padding).saturating_sub(kernel) / stride + 1,
                Op::MaxPool {
                    kernel,
                    stride,
                    ceil,
                } => {
                    let span = input.saturating_sub(kernel);
                    (if ceil {
                        span.div_ceil(stride)
                    } else {
                        span / stride
                    }) + 1
                }
                Op::GlobalAveragePool => 1,
                _ => input,
            });
        }
        sides
    }
}

impl Node {
    /// The weights that this node needs.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightShape> {
        let weight = |suffix: &str, shape: &[usize], trained| WeightShape {
            name: format!("{}.{suffix}", self.name),
            shape: shape.to_vec(),
            trained,
        };
        match self.op {
            Op::Conv {
                inputs,
                outputs,
                kernel,
                bias,
                ..
            } => {
                let mut weights = vec![weight("weight", &[outputs, inputs, kernel, kernel], true)];
                if bias {
                    weights.push(weight("bias", &[outputs], true));
                }
                weights
            }
            Op::BatchNorm { channels } => vec![
                weight("weight", &[channels], true),
                weight("bias", &[channels], true),
                weight("running_mean", &[channels], false),
                weight("running_var", &[channels], false),
            ],
            Op::Linear { inputs, outputs } => {
                vec![
                    weight("weight", &[outputs, inputs], true),
                    weight("bias", &[outputs], true),
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// Builds a [`Network`] node by node.
struct Builder {
    nodes: Vec<Node>,
}

impl Builder {
    fn new() -> Self {
        Self {
            nodes: vec![Node {
                name: "image".to_owned(),
                op: Op::Input,
                inputs: Vec::new(),
            }],
        }
    }

    fn input(&self) -> NodeIdx {
        0
    }

    fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeIdx]) -> NodeIdx {
        self.nodes.push(Node {
            name: name.into(),
            op,
            inputs: inputs.to_vec(),
        });
        self.nodes.len() - 1
    }

    /// Convolution with padding that keeps the side at stride 1.
    fn conv(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [kernel, stride, padding]: [usize; 3],
        bias: bool,
        from: NodeIdx,
    ) -> NodeIdx {
        let op = Op::Conv {
            inputs,
            outputs,
            kernel,
            stride,
            padding,
            bias,
        };
        self.push(name, op, &[from])
    }

    fn relu(&mut self, from: NodeIdx) -> NodeIdx {
        let name = format!("{}.relu", self.nodes[from].name);
        self.push(name, Op::Relu, &[from])
    }

    /// Convolution without bias, batch norm.
    fn conv_norm(
        &mut self,
        name: &str,
        channels: [usize; 2],
        geometry: [usize; 3],
        from: NodeIdx,
    ) -> NodeIdx {
        let conv = self.conv(&format!("{name}.conv"), channels, geometry, false, from);
        self.push(
            format!("{name}.norm"),
            Op::BatchNorm {
                channels: channels[1],
            },
            &[conv],
        )
    }

    /// Convolution, batch norm, ReLU.
    fn conv_norm_relu(
        &mut self,
        name: &str,
        channels: [usize; 2],
        geometry: [usize; 3],
        from: NodeIdx,
    ) -> NodeIdx {
        let norm = self.conv_norm(name, channels, geometry, from);
        self.relu(norm)
    }

    /// Global average pool, linear head, unit length.
    fn finish(mut self, name: &str, channels: usize, dim: usize, from: NodeIdx) -> Network {
        let pooled = self.push("pool", Op::GlobalAveragePool, &[from]);
        let head = self.push(
            HEAD,
            Op::Linear {
                inputs: channels,
                outputs: dim,
            },
            &[pooled],
        );
        self.push("embedding", Op::L2Normalize, &[head]);
        Network {
            name: name.to_owned(),
            nodes: self.nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_is_consistent() {
        for (name, _) in &ARCHITECTURES {
            let network = by_name(name, 128).unwrap();
            assert_eq!(network.name, *name);
            assert_eq!(network.dim(), 128);
            for (node_idx, node) in network.nodes.iter().enumerate() {
                assert!(
                    node.inputs.iter().all(|&input| input < node_idx),
                    "{name} {}",
                    node.name
                );
            }
            let mut names: Vec<_> = network.nodes.iter().map(|node| &node.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(
                names.len(),
                network.nodes.len(),
                "{name} has two nodes of one name"
            );
        }
    }

    #[test]
    fn counts_agree_with_published_ones() {
        // torchvision's SqueezeNet 1.1 without classifier: 722,496 parameters.
        let network = by_name("squeezenet1_1", 128).unwrap();
        assert_eq!(network.n_parameters(), 722_496 + 512 * 128 + 128);
        assert_eq!(network.trunk().n_parameters(), 722_496);
        assert_eq!(network.trunk().dim(), 512);
    }
}
