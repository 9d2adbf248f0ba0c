//! Architectures by name: one description that libtorch runs and the ONNX writer reads.
//!
//! A [`Network`] is data. `learn::network` interprets it with gradients, `export` folds
//! batch norm and writes it as ONNX, and parameters and multiply-adds are counted from it:
//! what ships is what was trained because both read the same list of nodes.

use thiserror::Error;

mod op;

mod builder;
mod eyas;
mod inception;
mod mobile;
mod resnet;
mod shufflenet;
mod squeezenet;
mod vgg;

pub mod init;

pub use op::{Activation, GEM_MIN, GEM_START, Op, Pooling};

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

/// Smallest side that every architecture accepts.
pub const MIN_SIDE: u32 = 32;

/// Name of the last linear layer, which puts out the embedding.
pub const HEAD: &str = "head";

/// Name of the global pooling.
pub const POOL: &str = "pool";

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
///
/// Counts of parameters are of what is exported, without the head. Names with an underscore, `resnetN` and
/// `vgg16` carry torchvision's weight names.
pub const ARCHITECTURES: [(&str, &str); 20] = [
    (
        "eyas-xs",
        "dense student for small inputs, 0.3 M parameters",
    ),
    ("eyas-s", "dense student, 1.0 M parameters"),
    ("eyas-m", "dense student, 2.7 M parameters"),
    (
        "squeezenet1_1",
        "student with pretrained weights, no batch norm, 0.7 M parameters",
    ),
    (
        "mobilenet_v3_small",
        "student with pretrained weights, depthwise, 0.9 M parameters",
    ),
    (
        "mobilenet_v2",
        "student with pretrained weights, depthwise, 2.2 M parameters; AML's student",
    ),
    (
        "mobilenet_v2_035",
        "student of few multiply-adds, depthwise, 0.4 M parameters; torchvision's at width 0.35",
    ),
    (
        "shufflenet_v2_x0_5",
        "student of few multiply-adds, depthwise, 0.3 M parameters",
    ),
    (
        "mobilenet_v3_large",
        "student with pretrained weights, depthwise, 3.0 M parameters",
    ),
    (
        "efficientnet_b0",
        "student or light teacher, depthwise, 4.0 M parameters",
    ),
    (
        "efficientnet_b1",
        "light teacher, depthwise, 6.5 M parameters",
    ),
    (
        "efficientnet_b2",
        "light teacher, depthwise, 7.7 M parameters",
    ),
    (
        "efficientnet_b3",
        "light teacher, depthwise, 10.7 M parameters; AML's second student",
    ),
    (
        "resnet-narrow",
        "ResNet-18 at half width with a 4x4 stem: a teacher for small data",
    ),
    (
        "bninception",
        "teacher and student of RC, 10.3 M parameters; weight names of Cadene's port",
    ),
    ("resnet18", "student of RC, or teacher, 11.2 M parameters"),
    ("resnet34", "teacher, 21.3 M parameters"),
    ("resnet50", "teacher, 23.5 M parameters"),
    ("resnet101", "teacher of AML, 42.5 M parameters"),
    (
        "vgg16",
        "teacher of AML, 14.7 M parameters; without its last pooling, no batch norm",
    ),
];

/// The architecture of this name with an embedding of `dim` components. It pools by the
/// mean; [`Network::with_pooling`] changes that.
#[must_use]
pub fn by_name(name: &str, dim: usize) -> Option<Network> {
    Some(match name {
        "eyas-xs" | "eyas-s" | "eyas-m" => eyas::network(name, dim),
        "squeezenet1_1" => squeezenet::network(dim),
        "mobilenet_v2" | "mobilenet_v2_035" => mobile::mobilenet_v2(name, dim),
        "shufflenet_v2_x0_5" => shufflenet::network(dim),
        "mobilenet_v3_small" | "mobilenet_v3_large" => mobile::mobilenet_v3(name, dim),
        "efficientnet_b0" | "efficientnet_b1" | "efficientnet_b2" | "efficientnet_b3" => {
            mobile::efficientnet(name, dim)
        }
        "resnet-narrow" => resnet::narrow(dim),
        "resnet18" | "resnet34" | "resnet50" | "resnet101" => resnet::network(name, dim),
        "bninception" => inception::network(dim),
        "vgg16" => vgg::network(dim),
        _ => return None,
    })
}

/// Why a network can not read images of some side.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SideFault {
    /// A node whose window does not fit into what it reads.
    #[error("`{node}` has a window of {window}, but reads a picture of only {input} pixels a side")]
    TooSmall {
        /// The node.
        node: String,
        /// Side of its window.
        window: usize,
        /// Side of its input with padding.
        input: usize,
    },
    /// A node that joins maps of different sizes.
    #[error(
        "`{node}` joins maps of {} and {} pixels a side for images of {image}; take a multiple of 32",
        sides[0],
        sides[1]
    )]
    Differ {
        /// The node.
        node: String,
        /// Sides of two of its inputs.
        sides: [usize; 2],
        /// Side of the image.
        image: usize,
    },
}

impl Network {
    /// Components of the output.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.output_channels().pop().unwrap_or_default()
    }

    fn pool_idx(&self) -> NodeIdx {
        let pool = |node: &Node| matches!(node.op, Op::GlobalPool(_));
        let pool_idx = self.nodes.iter().position(pool);
        pool_idx.expect("networks of the zoo pool")
    }

    /// How its last map becomes one vector.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        match self.nodes[self.pool_idx()].op {
            Op::GlobalPool(pooling) => pooling,
            _ => Pooling::default(),
        }
    }

    /// The same network with another global pooling.
    #[must_use]
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        let pool_idx = self.pool_idx();
        self.nodes[pool_idx].op = Op::GlobalPool(pooling);
        self
    }

    /// The network up to its pooled features, scaled to unit length: what a backbone gives
    /// without a head of its own.
    #[must_use]
    pub fn trunk(&self) -> Self {
        let pool_idx = self.pool_idx();
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
    #[must_use]
    pub fn output_channels(&self) -> Vec<usize> {
        let mut channels: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            channels.push(node.output_channels(&channels));
        }
        channels
    }

    /// Channels of a node's output, if the node is there and puts out a map.
    #[must_use]
    pub fn map_channels(&self, name: &str) -> Option<usize> {
        let before_pool = &self.nodes[..self.pool_idx()];
        let node_idx = before_pool.iter().position(|node| node.name == name)?;
        Some(self.output_channels()[node_idx])
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
        let of_node = |(node, side): (&Node, usize)| node.op.multiply_adds(side) as u64;
        self.nodes.iter().zip(sides).map(of_node).sum()
    }

    /// Whether it can read images of `side` x `side`: every window fits into what it slides
    /// over, and maps that are joined have one size.
    ///
    /// # Errors
    /// [`SideFault`] names the first node that can not work.
    pub fn check_side(&self, side: usize) -> Result<(), SideFault> {
        let sides = self.output_sides(side);
        for node in &self.nodes {
            let Some(&first) = node.inputs.first() else {
                continue;
            };
            if let Some((window, padding)) = node.op.least_window()
                && sides[first] + 2 * padding < window
            {
                return Err(SideFault::TooSmall {
                    node: node.name.clone(),
                    window,
                    input: sides[first] + 2 * padding,
                });
            }
            let joins = matches!(node.op, Op::Add | Op::Concat);
            let other = node.inputs.iter().find(|&&idx| sides[idx] != sides[first]);
            if let (true, Some(&other)) = (joins, other) {
                return Err(SideFault::Differ {
                    node: node.name.clone(),
                    sides: [sides[first], sides[other]],
                    image: side,
                });
            }
        }
        Ok(())
    }

    /// Height and width of every node's output for an image of `side` x `side`; 1 after
    /// the pooling.
    #[must_use]
    pub fn output_sides(&self, side: usize) -> Vec<usize> {
        let mut sides: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let input = node.inputs.first().map_or(side, |&input| sides[input]);
            sides.push(node.op.output_side(input));
        }
        sides
    }
}

impl Node {
    /// The weights that this node needs.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightShape> {
        let weight = |(suffix, shape, trained): (&str, _, _)| WeightShape {
            name: format!("{}.{suffix}", self.name),
            shape,
            trained,
        };
        self.op.weights().into_iter().map(weight).collect()
    }

    /// Channels of its output, given those of the nodes before it.
    fn output_channels(&self, before: &[usize]) -> usize {
        let mut of_inputs = self.inputs.iter().map(|&input| before[input]);
        match self.op {
            Op::Input => 3,
            Op::Conv { outputs, .. } | Op::Linear { outputs, .. } => outputs,
            Op::Slice { channels, .. } => channels,
            Op::Concat => of_inputs.sum(),
            _ => of_inputs.next().unwrap_or_default(),
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
        // Parameters and input components of the published classifier, as torchvision's
        // documentation of its weights lists the former; Cadene's port for BN-Inception.
        let published: [(&str, u64, &[u64]); 15] = [
            ("squeezenet1_1", 1_235_496, &[512, 1000]),
            ("mobilenet_v2", 3_504_872, &[1280, 1000]),
            ("shufflenet_v2_x0_5", 1_366_792, &[1024, 1000]),
            ("mobilenet_v3_small", 2_542_856, &[576, 1024, 1000]),
            ("mobilenet_v3_large", 5_483_032, &[960, 1280, 1000]),
            ("efficientnet_b0", 5_288_548, &[1280, 1000]),
            ("efficientnet_b1", 7_794_184, &[1280, 1000]),
            ("efficientnet_b2", 9_109_994, &[1408, 1000]),
            ("efficientnet_b3", 12_233_232, &[1536, 1000]),
            ("resnet18", 11_689_512, &[512, 1000]),
            ("resnet34", 21_797_672, &[512, 1000]),
            ("resnet50", 25_557_032, &[2048, 1000]),
            ("resnet101", 44_549_160, &[2048, 1000]),
            ("vgg16", 138_357_544, &[512 * 7 * 7, 4096, 4096, 1000]),
            ("bninception", 11_295_240, &[1024, 1000]),
        ];
        for (name, all, classifier) in published {
            let layers = classifier.windows(2);
            let of_classifier: u64 = layers.map(|sides| (sides[0] + 1) * sides[1]).sum();
            let network = by_name(name, 128).unwrap();
            let trunk = network.trunk();
            assert_eq!(trunk.n_parameters(), all - of_classifier, "{name}");
            let head = (trunk.dim() as u64 + 1) * 128;
            assert_eq!(network.n_parameters(), all - of_classifier + head);
        }
    }

    #[test]
    fn multiply_adds_agree_with_published_ones() {
        // Billions at the side of the published weights, classifier included, as
        // torchvision's documentation lists them (two decimals at most).
        let published = [
            ("mobilenet_v2", 224, 0.30),
            // The paper's table of widths, without classifier weights in torchvision.
            ("mobilenet_v2_035", 224, 0.059),
            ("shufflenet_v2_x0_5", 224, 0.04),
            ("mobilenet_v3_small", 224, 0.06),
            ("mobilenet_v3_large", 224, 0.22),
            ("efficientnet_b0", 224, 0.39),
            ("resnet18", 224, 1.81),
            ("resnet50", 224, 4.09),
            ("resnet101", 224, 7.80),
        ];
        for (name, side, billions) in published {
            let found = by_name(name, 1000).unwrap().multiply_adds(side) as f64 / 1e9;
            assert!((found - billions).abs() < 0.0101, "{name}: {found}");
        }
    }

    #[test]
    fn pooling_is_chosen_for_any_architecture() {
        for (name, _) in ARCHITECTURES {
            let network = by_name(name, 8).unwrap();
            assert_eq!(network.pooling(), Pooling::Average);
            let n_weights = network.weights().len();
            for pooling in Pooling::ALL {
                let network = network.clone().with_pooling(pooling);
                assert_eq!(network.pooling(), pooling);
                let n_more = usize::from(pooling == Pooling::Gem);
                assert_eq!(network.weights().len(), n_weights + n_more, "{name}");
            }
        }
    }

    #[test]
    fn pooling_is_written_in_kebab_case() {
        let names = Pooling::ALL.map(|pooling| serde_json::to_string(&pooling).unwrap());
        let expected = [r#""average""#, r#""max""#, r#""average-max""#, r#""gem""#];
        assert_eq!(names, expected);
    }

    #[test]
    fn every_architecture_reads_the_smallest_and_the_usual_sides() {
        for (name, _) in ARCHITECTURES {
            let network = by_name(name, 8).unwrap();
            for side in [MIN_SIDE as usize, 64, 96, 128, 160, 192, 224, 256, 448] {
                assert_eq!(network.check_side(side), Ok(()), "{name} {side}");
            }
        }
        let network = by_name("bninception", 8).unwrap();
        let message = network.check_side(40).unwrap_err().to_string();
        let parts = ["`inception_3c_output`", "3 and 2", "multiple of 32"];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }

    #[test]
    fn windows_that_hang_over_are_counted_as_libtorch_does() {
        // Rounded up, but without a window that would begin behind the map.
        let pool = |kernel, stride, padding| Op::MaxPool {
            kernel,
            stride,
            padding,
            ceil: true,
        };
        for (op, side, expected) in [
            (pool(3, 2, 0), 112, 56),
            (pool(3, 2, 0), 111, 55),
            (pool(3, 2, 0), 2, 1),
            (pool(2, 2, 1), 3, 2),
            (pool(2, 2, 1), 4, 3),
        ] {
            assert_eq!(op.output_side(side), expected, "{op:?} of {side}");
        }
    }
}
