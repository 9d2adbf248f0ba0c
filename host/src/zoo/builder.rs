//! Builds a network node by node.

use super::{Activation, HEAD, Network, Node, NodeIdx, Op, POOL, Pooling};

/// Added to the variance in batch norm unless an architecture says otherwise.
const NORM_EPSILON: f64 = 1e-5;

/// Kernel, stride and padding of a convolution or a pooling window.
pub(super) type Geometry = [usize; 3];

/// A list of nodes that grows; every method returns the node that it added last.
pub(super) struct Builder {
    nodes: Vec<Node>,
    /// Channels of every node's output.
    channels: Vec<usize>,
    norm_epsilon: f64,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self::with_norm_epsilon(NORM_EPSILON)
    }

    pub(super) fn with_norm_epsilon(norm_epsilon: f64) -> Self {
        Self {
            nodes: vec![Node {
                name: "image".to_owned(),
                op: Op::Input,
                inputs: Vec::new(),
            }],
            channels: vec![3],
            norm_epsilon,
        }
    }

    pub(super) fn input(&self) -> NodeIdx {
        0
    }

    pub(super) fn channels(&self, of: NodeIdx) -> usize {
        self.channels[of]
    }

    pub(super) fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeIdx]) -> NodeIdx {
        let node = Node {
            name: name.into(),
            op,
            inputs: inputs.to_vec(),
        };
        self.channels.push(node.output_channels(&self.channels));
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn grouped(
        &mut self,
        name: &str,
        outputs: usize,
        [kernel, stride, padding]: Geometry,
        groups: usize,
        from: NodeIdx,
    ) -> NodeIdx {
        let op = Op::Conv {
            inputs: self.channels[from],
            outputs,
            kernel,
            stride,
            padding,
            groups,
            bias: false,
        };
        self.push(name, op, &[from])
    }

    /// Convolution without bias.
    pub(super) fn conv(
        &mut self,
        name: &str,
        outputs: usize,
        geometry: Geometry,
        from: NodeIdx,
    ) -> NodeIdx {
        self.grouped(name, outputs, geometry, 1, from)
    }

    /// Convolution of every channel on its own, without bias.
    pub(super) fn depthwise(&mut self, name: &str, geometry: Geometry, from: NodeIdx) -> NodeIdx {
        let channels = self.channels[from];
        self.grouped(name, channels, geometry, channels, from)
    }

    /// Convolution with bias.
    pub(super) fn biased_conv(
        &mut self,
        name: &str,
        outputs: usize,
        geometry: Geometry,
        from: NodeIdx,
    ) -> NodeIdx {
        let conv = self.conv(name, outputs, geometry, from);
        if let Op::Conv { bias, .. } = &mut self.nodes[conv].op {
            *bias = true;
        }
        conv
    }

    pub(super) fn norm(&mut self, name: impl Into<String>, from: NodeIdx) -> NodeIdx {
        let op = Op::BatchNorm {
            channels: self.channels[from],
            epsilon: self.norm_epsilon,
        };
        self.push(name, op, &[from])
    }

    /// Linear layer of a vector, or of every token.
    pub(super) fn linear(&mut self, name: &str, outputs: usize, from: NodeIdx) -> NodeIdx {
        let inputs = self.channels[from];
        self.push(name, Op::Linear { inputs, outputs }, &[from])
    }

    pub(super) fn activate(&mut self, activation: Activation, from: NodeIdx) -> NodeIdx {
        let name = format!("{}.{}", self.nodes[from].name, activation.suffix());
        self.push(name, Op::Activation(activation), &[from])
    }

    pub(super) fn relu(&mut self, from: NodeIdx) -> NodeIdx {
        self.activate(Activation::Relu, from)
    }

    /// Convolution `NAME.conv` without bias, batch norm `NAME.norm`.
    pub(super) fn conv_norm(
        &mut self,
        name: &str,
        outputs: usize,
        geometry: Geometry,
        from: NodeIdx,
    ) -> NodeIdx {
        let conv = self.conv(&format!("{name}.conv"), outputs, geometry, from);
        self.norm(format!("{name}.norm"), conv)
    }

    /// Convolution, batch norm, ReLU.
    pub(super) fn conv_norm_relu(
        &mut self,
        name: &str,
        outputs: usize,
        geometry: Geometry,
        from: NodeIdx,
    ) -> NodeIdx {
        let norm = self.conv_norm(name, outputs, geometry, from);
        self.relu(norm)
    }

    /// Maximum over windows that stay inside the padded map.
    pub(super) fn max_pool(
        &mut self,
        name: &str,
        [kernel, stride, padding]: Geometry,
        from: NodeIdx,
    ) -> NodeIdx {
        let op = Op::MaxPool {
            kernel,
            stride,
            padding,
            ceil: false,
        };
        self.push(name, op, &[from])
    }

    /// Maximum over windows of 3x3 with stride 2 that may hang over the edge.
    pub(super) fn ceil_pool(&mut self, name: &str, from: NodeIdx) -> NodeIdx {
        let op = Op::MaxPool {
            kernel: 3,
            stride: 2,
            padding: 0,
            ceil: true,
        };
        self.push(name, op, &[from])
    }

    /// Global average pool, linear head, unit length.
    pub(super) fn finish(mut self, name: &str, dim: usize, from: NodeIdx) -> Network {
        let pooled = self.push(POOL, Op::GlobalPool(Pooling::Average), &[from]);
        let head = self.linear(HEAD, dim, pooled);
        self.push("embedding", Op::L2Normalize, &[head]);
        Network {
            name: name.to_owned(),
            nodes: self.nodes,
        }
    }
}
