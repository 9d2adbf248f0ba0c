//! From pixels to embeddings: runs networks stored as ONNX.
//!
//! [`Network`] runs any network from one square image to one vector (teachers too): what
//! `engine` knows of it there, the rest in tract. [`Encoder`] is the network of a bundle
//! with all that the bundle promises of it. Neither reads image files: pixels come from
//! [`eyas_shared::preprocess`].
//!
//! No state between two runs, and threads share out rows, never sums: the same pixels give
//! the same bits every time on one machine, whatever the number of threads.

mod engine;
mod graph;
mod guard;
mod layers;
mod profile;
mod remainder;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use eyas_shared::bundle::Bundle;
use eyas_shared::embedding::{MAX_DIM, MIN_NORM, l2_normalize};
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::preprocess::{Pixels, PreprocessSpec};
use thiserror::Error;
use tract_onnx::prelude::*;

pub use engine::Isa;
use engine::{Engine, Team};
use guard::in_tract;
pub use layers::Layers;
pub use profile::OperatorTime;
use remainder::Remainder;

/// Largest ONNX file that is read.
pub const MAX_ONNX_BYTES: usize = 512 << 20;

/// Why a network can not be loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// More bytes than any network of this project has.
    #[error("the ONNX network has {bytes} bytes; at most {MAX_ONNX_BYTES} are read")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// An operator that is not on the list.
    #[error("the network uses the operator `{operator}`, which is not allowed")]
    Operator {
        /// As ONNX names it, with its domain unless that is the default one.
        operator: String,
    },
    /// A graph that is malformed, or has a shape that this project does not use.
    #[error("the network can not be used: {what}")]
    Graph {
        /// Why.
        what: String,
    },
    /// tract can not build or run the network.
    #[error("the network can not be {step}")]
    Tract {
        /// `read`, `built` or `run`.
        step: &'static str,
        /// What tract said.
        source: TractError,
    },
    /// tract panicked.
    #[error("the network can not be {step}: tract stopped with `{message}`")]
    Panic {
        /// `read`, `built` or `run`.
        step: &'static str,
        /// Text of the panic.
        message: String,
    },
    /// Pixels of another size than the network reads.
    #[error("the network reads images of {expected}x{expected} pixels, not {found}x{found}")]
    OtherSide {
        /// Side that the network reads.
        expected: u32,
        /// Side of the pixels.
        found: u32,
    },
    /// The network's output is no embedding of the declared dimension.
    #[error("the network gives {found} values, but its bundle promises embeddings of {expected}")]
    OtherDim {
        /// Dimension in the header.
        expected: usize,
        /// Values that come out.
        found: usize,
    },
    /// A bundle with more probes than a self-test computes.
    #[error(
        "the bundle holds {found} probes; at most {} are computed",
        crate::selftest::MAX_PROBES
    )]
    TooManyProbes {
        /// Probes in the bundle.
        found: usize,
    },
    /// An embedding without direction.
    #[error("the network's output for this image is {what}")]
    NoDirection {
        /// `zero` or `not finite`.
        what: &'static str,
    },
}

fn graph_fault<T>(what: impl Into<String>) -> Result<T, EncodeError> {
    Err(EncodeError::Graph { what: what.into() })
}

/// Who runs a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Runtime {
    /// The engine, with these instructions, as far as it knows the operators; tract from
    /// there on.
    Engine(Isa),
    /// tract alone: the reference.
    Tract,
}

/// A network from one image of 3 x `side` x `side` to one vector, ready to run.
///
/// Can be shared between threads; each [`run`](Self::run) uses one, or as many as
/// [`set_threads`](Self::set_threads) says.
pub struct Network {
    engine: Option<Engine>,
    remainder: Option<Remainder>,
    team: Team,
    side: u32,
    dim: usize,
    operators: BTreeMap<String, usize>,
    layers: Vec<String>,
}

impl Network {
    /// Checks and builds a network for the fastest instructions of this CPU.
    ///
    /// `output` names one of several outputs; without it the first is taken. Only the part
    /// of the graph that leads to it is kept.
    ///
    /// # Errors
    /// [`EncodeError`] if the bytes are not an ONNX graph of allowed operators from one
    /// image of that size to one vector.
    pub fn load(onnx: &[u8], side: u32, output: Option<&str>) -> Result<Self, EncodeError> {
        Self::load_for(Runtime::Engine(Isa::best()), onnx, side, output)
    }

    /// The same for a runtime of the caller's choice.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(
        runtime: Runtime,
        onnx: &[u8],
        side: u32,
        output: Option<&str>,
    ) -> Result<Self, EncodeError> {
        if onnx.len() > MAX_ONNX_BYTES {
            return Err(EncodeError::TooLarge { bytes: onnx.len() });
        }
        let framework = remainder::framework();
        let mut proto = in_tract("read", || framework.proto_model_for_read(&mut &onnx[..]))?;
        let operators = graph::check(&mut proto, side, output)?;
        let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
        let layers = nodes.map(|node| node.name.clone()).collect();
        let image = vec![1, 3, side as usize, side as usize];
        let (mut engine, mut remainder, mut dim) = (None, None, 0);
        let mut inputs = Some(vec![image]);
        if let (Runtime::Engine(isa), Some(graph)) = (runtime, &proto.graph)
            && let Some((taken, handover)) = Engine::take(graph, side as usize, isa)
        {
            engine = Some(taken);
            dim = handover.shapes[0].iter().product();
            inputs = handover.rest.is_some().then_some(handover.shapes);
            if let Some(rest) = handover.rest {
                proto.graph = Some(rest);
            }
        }
        if let Some(inputs) = inputs {
            let rest = Remainder::build(&framework, &proto, inputs)?;
            dim = rest.dim();
            remainder = Some(rest);
        }
        if !(1..=MAX_DIM).contains(&dim) {
            return graph_fault(format!(
                "it gives {dim} values; embeddings have 1 to {MAX_DIM}"
            ));
        }
        Ok(Self {
            engine,
            remainder,
            team: Team::alone(),
            side,
            dim,
            operators,
            layers,
        })
    }

    /// Runs on so many threads from now on: those of one pool, which every layer is shared
    /// out to.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn set_threads(&mut self, n_threads: usize) -> Result<(), EncodeError> {
        let step = "run on several threads";
        self.team = in_tract(step, || Ok(Team::of(n_threads)?))?;
        if let Some(remainder) = &mut self.remainder {
            in_tract(step, || {
                remainder.set_threads(n_threads);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The network's output for one image, flattened; as it comes, not normalized.
    ///
    /// # Errors
    /// If the pixels have another size, or tract fails.
    pub fn run(&self, pixels: &Pixels) -> Result<Vec<f32>, EncodeError> {
        let image = image(pixels, self.side)?;
        let mut values = match &self.engine {
            Some(engine) => engine.run(image, &self.team),
            None => vec![image.to_vec()],
        };
        match &self.remainder {
            Some(remainder) => remainder.run(&values),
            None => Ok(values.swap_remove(0)),
        }
    }

    /// Multiply-adds of one run: those of its convolutions and matrix products.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let engine = self.engine.as_ref().map_or(0, Engine::multiply_adds);
        let rest = self.remainder.as_ref().map_or(0, Remainder::multiply_adds);
        engine + rest
    }

    /// Number of values that [`run`](Self::run) gives.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Height and width of the images that it reads, in pixels.
    #[must_use]
    pub fn side(&self) -> u32 {
        self.side
    }

    /// ONNX operators of the file with their number of uses, by name.
    #[must_use]
    pub fn operators(&self) -> &BTreeMap<String, usize> {
        &self.operators
    }

    /// Names of the file's nodes, with which names of timed operators begin.
    #[must_use]
    pub fn layers(&self) -> &[String] {
        &self.layers
    }
}

/// The values of an image of this side.
fn image(pixels: &Pixels, side: u32) -> Result<&[f32], EncodeError> {
    let (expected, found) = (side, pixels.side);
    if expected != found {
        return Err(EncodeError::OtherSide { expected, found });
    }
    let n_values = 3 * (side as usize).pow(2);
    if pixels.values_chw.len() != n_values {
        let n = pixels.values_chw.len();
        return graph_fault(format!("{n} values are no image of 3x{side}x{side}"));
    }
    Ok(&pixels.values_chw)
}

/// The network of a bundle: from pixels to unit embeddings in the teacher's space.
///
/// Can be shared between threads; each [`encode`](Self::encode) uses one, or as many as
/// [`set_threads`](Self::set_threads) says.
pub struct Encoder {
    network: Network,
    preprocess: PreprocessSpec,
    space: SpaceId,
}

impl Encoder {
    /// Builds the network of a bundle and checks what the bundle says of it.
    ///
    /// # Errors
    /// If the network can not be built or gives embeddings of another dimension.
    pub fn load(bundle: &Bundle<'_>) -> Result<Self, EncodeError> {
        let network = Network::load(bundle.onnx, bundle.header.preprocess.crop, None)?;
        let expected = bundle.header.dim as usize;
        if network.dim() != expected {
            let found = network.dim();
            return Err(EncodeError::OtherDim { expected, found });
        }
        Ok(Self {
            network,
            preprocess: bundle.header.preprocess.clone(),
            space: bundle.header.space,
        })
    }

    /// See [`Network::set_threads`].
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn set_threads(&mut self, n_threads: usize) -> Result<(), EncodeError> {
        self.network.set_threads(n_threads)
    }

    /// The unit embedding of one image.
    ///
    /// # Errors
    /// If the pixels have another size, tract fails, or the output has no direction.
    pub fn encode(&self, pixels: &Pixels) -> Result<Vec<f32>, EncodeError> {
        let mut embedding = self.network.run(pixels)?;
        if !embedding.iter().all(|x| x.is_finite()) {
            return Err(EncodeError::NoDirection { what: "not finite" });
        }
        if l2_normalize(&mut embedding) < MIN_NORM {
            return Err(EncodeError::NoDirection { what: "zero" });
        }
        Ok(embedding)
    }

    /// The pixels that it reads.
    #[must_use]
    pub fn preprocess(&self) -> &PreprocessSpec {
        &self.preprocess
    }

    /// The space that its embeddings live in.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// Components of its embeddings.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.network.dim()
    }

    /// The network itself, for facts about it.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }
}
