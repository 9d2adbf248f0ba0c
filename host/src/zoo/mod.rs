//! Architectures by name: one description that libtorch runs and the ONNX writer reads.
//!
//! A [`Network`] is data. `learn::network` interprets it with gradients, `export` folds
//! batch norm and writes it as ONNX, and parameters and multiply-adds are counted from it:
//! what ships is what was trained because both read the same list of nodes.

use thiserror::Error;

mod op;
mod places;

mod builder;
mod eyas;
mod inception;
mod mobile;
mod resnet;
mod shufflenet;
mod squeezenet;
mod vgg;
mod vit;

pub mod init;
mod positions;

pub use op::{Activation, GEM_MIN, GEM_START, Op, Pooling};
pub use places::Places;

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
/// Counts of parameters are of what is exported, without the head. Names with an underscore
/// but for `dinov2_...`, `resnetN` and `vgg16` carry torchvision's weight names.
pub const ARCHITECTURES: [(&str, &str); 23] = [
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
    ("vit_b_16", "transformer teacher, 85.8 M parameters"),
    (
        "dinov2_vits14",
        "transformer teacher, 22.1 M parameters; weight names of DINOv2's checkpoints",
    ),
    (
        "dinov2_vitb14",
        "transformer teacher, 86.6 M parameters; weight names of DINOv2's checkpoints",
    ),
];

/// The architecture of this name with an embedding of `dim` components. It pools by the
/// mean; [`Network::with_pooling`] changes that. Whoever knows the side of the images says it
/// to [`Network::for_side`].
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
        "vit_b_16" => vit::vit_b_16(dim),
        "dinov2_vits14" | "dinov2_vitb14" => vit::dinov2(name, dim),
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
    /// Learned positions for images of another side.
    #[error(
        "`{node}` holds {positions} positions, but images of {image} pixels a side have {tokens} tokens: the network was made for another side"
    )]
    Positions {
        /// The node.
        node: String,
        /// Positions that it holds.
        positions: usize,
        /// Tokens that it reads.
        tokens: usize,
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

    /// The same network for images of `side` x `side`: with as many learned positions as
    /// there are tokens. Networks without tokens read any side as they are.
    #[must_use]
    pub fn for_side(mut self, side: usize) -> Self {
        let places = self.output_places(side);
        for (node, places) in self.nodes.iter_mut().zip(places) {
            if let Op::Positions { tokens, .. } = &mut node.op {
                *tokens = places.n();
            }
        }
        self
    }

    /// Whether there is something to pool: of a class token every pooling but the mean would
    /// make something else.
    #[must_use]
    pub fn pools_places(&self) -> bool {
        let pooled = self.nodes[self.pool_idx()].inputs[0];
        !matches!(self.nodes[pooled].op, Op::FirstToken { .. })
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
        let is_map = matches!(
            self.output_places(MIN_SIDE as usize)[node_idx],
            Places::Map { .. }
        );
        is_map.then(|| self.output_channels()[node_idx])
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

    /// Multiply-adds of convolutions, linear layers and attentions for one image of `side` x
    /// `side`.
    #[must_use]
    pub fn multiply_adds(&self, side: usize) -> u64 {
        let places = self.output_places(side);
        let of_node = |(node, places): (&Node, Places)| node.op.multiply_adds(places.n()) as u64;
        self.nodes.iter().zip(places).map(of_node).sum()
    }

    /// Whether it can read images of `side` x `side`: every window fits into what it slides
    /// over, maps that are joined have one size, and every token has a position.
    ///
    /// # Errors
    /// [`SideFault`] names the first node that can not work.
    pub fn check_side(&self, side: usize) -> Result<(), SideFault> {
        let places = self.output_places(side);
        for node in &self.nodes {
            let Some(&first) = node.inputs.first() else {
                continue;
            };
            let input = places[first];
            if let Some((window, padding)) = node.op.least_window()
                && input.side() + 2 * padding < window
            {
                return Err(SideFault::TooSmall {
                    node: node.name.clone(),
                    window,
                    input: input.side() + 2 * padding,
                });
            }
            if let Op::Positions { tokens, .. } = node.op
                && tokens != input.n()
            {
                return Err(SideFault::Positions {
                    node: node.name.clone(),
                    positions: tokens,
                    tokens: input.n(),
                    image: side,
                });
            }
            let joins = matches!(node.op, Op::Add | Op::Concat);
            let other = node.inputs.iter().find(|&&idx| places[idx] != input);
            if let (true, Some(&other)) = (joins, other) {
                return Err(SideFault::Differ {
                    node: node.name.clone(),
                    sides: [input.side(), places[other].side()],
                    image: side,
                });
            }
        }
        Ok(())
    }

    /// Where every node's output lies for an image of `side` x `side`.
    #[must_use]
    pub fn output_places(&self, side: usize) -> Vec<Places> {
        let mut places: Vec<Places> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let image = Places::Map { side };
            let input = node.inputs.first().map_or(image, |&input| places[input]);
            places.push(node.op.output_places(input));
        }
        places
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
            Op::Slice { channels, .. } | Op::Attention { channels, .. } => channels,
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
        let published: [(&str, u64, &[u64]); 18] = [
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
            ("vit_b_16", 86_567_656, &[768, 1000]),
            // Checkpoints of DINOv2 without classifier, and without the mask token.
            ("dinov2_vits14", 22_056_576 - 384, &[]),
            ("dinov2_vitb14", 86_580_480 - 768, &[]),
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
            ("vit_b_16", 224, 17.56),
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
            for side in [MIN_SIDE as usize, 64, 96, 128, 160, 192, 224, 256, 448] {
                let network = by_name(name, 8).unwrap().for_side(side);
                assert_eq!(network.check_side(side), Ok(()), "{name} {side}");
            }
        }
        let network = by_name("bninception", 8).unwrap();
        let message = network.check_side(40).unwrap_err().to_string();
        let parts = ["`inception_3c_output`", "3 and 2", "multiple of 32"];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }

    #[test]
    fn positions_belong_to_a_side() {
        let network = by_name("dinov2_vits14", 8).unwrap();
        assert_eq!(network.check_side(518), Ok(()));
        let message = network.check_side(224).unwrap_err().to_string();
        let parts = ["`pos_embed` holds 1370", "224 pixels", "257 tokens"];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        let network = network.for_side(224);
        assert_eq!(network.check_side(224), Ok(()));
        // A border of 6 pixels holds no whole patch.
        assert_eq!(network.check_side(230), Ok(()));
    }

    #[test]
    fn tokens_are_no_maps_and_a_class_token_is_not_pooled() {
        let network = by_name("vit_b_16", 8).unwrap();
        assert_eq!(network.map_channels("conv_proj"), Some(768));
        assert_eq!(network.map_channels("conv_proj.tokens"), None);
        assert_eq!(network.map_channels("encoder.ln"), None);
        assert!(!network.pools_places());
        assert!(by_name("resnet18", 8).unwrap().pools_places());
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
            let found = op.output_places(Places::Map { side });
            assert_eq!(found.side(), expected, "{op:?} of {side}");
        }
    }
}
