//! From pixels to embeddings: runs networks stored as ONNX through tract.
//!
//! This is the only file that names tract's runtime. [`Network`] runs any network from one
//! square image to one vector (teachers too); [`Encoder`] is the network of a bundle with
//! all that the bundle promises of it. Neither reads image files: pixels come from
//! [`eyas_shared::preprocess`].
//!
//! One thread, no state between two runs: the same pixels give the same bits every time
//! on one machine.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use eyas_shared::bundle::Bundle;
use eyas_shared::embedding::{MAX_DIM, MIN_NORM, l2_normalize};
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::preprocess::{Pixels, PreprocessSpec};
use thiserror::Error;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::Cost;
use tract_onnx::tract_core::ops::cnn::Conv;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_hir::infer::{Factoid, InferenceModelExt};
use tract_onnx::tract_hir::internal::DimLike;

/// Largest ONNX file that is read.
pub const MAX_ONNX_BYTES: usize = 256 << 20;

/// Most nodes in a network.
const MAX_NODES: usize = 10_000;

/// Most values in one tensor between two operators: 512 MiB of f32.
const MAX_TENSOR_VALUES: usize = 1 << 27;

/// Operators that a network may use. All are pure functions whose output is bounded by
/// their inputs' shapes; none loops, branches, draws or reads files.
const ALLOWED_OPERATORS: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mul",
    "Pad",
    "ReduceL2",
    "ReduceMean",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];

/// Operators that may be applied to constants alone. tract evaluates those while it reads
/// the graph, before any shape can be checked, so these keep the shape of their first
/// input.
const ALLOWED_ON_CONSTANTS: &[&str] = &["Cast", "Constant", "DequantizeLinear", "Identity"];

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

/// Runs a step in tract; its errors and panics become [`EncodeError`]s.
fn in_tract<T>(
    step: &'static str,
    work: impl FnOnce() -> TractResult<T>,
) -> Result<T, EncodeError> {
    // Nothing that a panic may have left half-done is used afterwards: every step either
    // hands over its result or drops all it touched.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|source| EncodeError::Tract { step, source }),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("an unknown panic")
                .to_owned();
            Err(EncodeError::Panic { step, message })
        }
    }
}

/// A network from one image of 3 x `side` x `side` to one vector, ready to run.
///
/// Can be shared between threads; each [`run`](Self::run) uses one.
pub struct Network {
    plan: Arc<TypedRunnableModel>,
    side: u32,
    dim: usize,
    multiply_adds: u64,
    operators: BTreeMap<String, usize>,
}

impl Network {
    /// Checks and builds a network.
    ///
    /// `output` names one of several outputs; without it the first is taken. Only the part
    /// of the graph that leads to it is kept.
    ///
    /// # Errors
    /// [`EncodeError`] if the bytes are not an ONNX graph of allowed operators from one
    /// image of that size to one vector.
    pub fn load(onnx: &[u8], side: u32, output: Option<&str>) -> Result<Self, EncodeError> {
        if onnx.len() > MAX_ONNX_BYTES {
            return Err(EncodeError::TooLarge { bytes: onnx.len() });
        }
        let framework = tract_onnx::onnx()
            .with_ignore_output_shapes(true)
            .with_ignore_output_types(true)
            .with_ignore_value_info(true);
        let mut proto = in_tract("read", || framework.proto_model_for_read(&mut &onnx[..]))?;
        let operators = check_proto(&mut proto, side, output)?;
        let typed = in_tract("built", || {
            let fact = f32::fact([1, 3, side as usize, side as usize]);
            let mut model = framework.model_for_proto_model(&proto)?;
            model.set_input_fact(0, fact.into())?;
            model.analyse(false)?;
            check_shapes(&model)?;
            model.into_typed()?.into_decluttered()
        })?;
        let multiply_adds = in_tract("built", || count_multiply_adds(&typed))?;
        let (plan, dim) = in_tract("built", || {
            let plan = typed.into_optimized()?.into_runnable()?;
            let dim = plan.model().output_fact(0)?.shape.volume().to_usize()?;
            Ok((plan, dim))
        })?;
        if !(1..=MAX_DIM).contains(&dim) {
            return graph_fault(format!(
                "it gives {dim} values; embeddings have 1 to {MAX_DIM}"
            ));
        }
        Ok(Self {
            plan,
            side,
            dim,
            multiply_adds,
            operators,
        })
    }

    /// The network's output for one image, flattened; as it comes, not normalized.
    ///
    /// # Errors
    /// If the pixels have another size, or tract fails.
    pub fn run(&self, pixels: &Pixels) -> Result<Vec<f32>, EncodeError> {
        if pixels.side != self.side {
            let (expected, found) = (self.side, pixels.side);
            return Err(EncodeError::OtherSide { expected, found });
        }
        in_tract("run", || {
            let side = self.side as usize;
            let input = Tensor::from_shape(&[1, 3, side, side], &pixels.values_chw)?;
            let outputs = self.plan.run(tvec!(input.into_tvalue()))?;
            let output = outputs[0].cast_to::<f32>()?;
            Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        })
    }

    /// Multiply-adds of one run: those of its convolutions and matrix products.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds
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
}

/// Refuses everything that this project's networks do not need, and leaves only the wanted
/// output; returns the operators with their number of uses.
fn check_proto(
    proto: &mut pb::ModelProto,
    side: u32,
    output: Option<&str>,
) -> Result<BTreeMap<String, usize>, EncodeError> {
    if !proto.functions.is_empty() {
        return graph_fault("it defines functions of its own");
    }
    let Some(graph) = proto.graph.as_mut() else {
        return graph_fault("the ONNX file holds no graph");
    };
    if graph.node.len() > MAX_NODES {
        return graph_fault(format!(
            "it has {} nodes; at most {MAX_NODES} are built",
            graph.node.len()
        ));
    }
    select_output(graph, output)?;
    check_input(graph, side)?;
    check_nodes(graph)
}

fn select_output(graph: &mut pb::GraphProto, wanted: Option<&str>) -> Result<(), EncodeError> {
    let names: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    let position = match wanted {
        None if names.is_empty() => return graph_fault("it has no output"),
        None => 0,
        Some(wanted) => match names.iter().position(|name| *name == wanted) {
            Some(position) => position,
            None => {
                return graph_fault(format!(
                    "it has no output `{wanted}`, only `{}`",
                    names.join("`, `")
                ));
            }
        },
    };
    graph.output = vec![graph.output.swap_remove(position)];
    Ok(())
}

/// One input that is not a stored tensor, f32, 3 x `side` x `side` where it says.
fn check_input(graph: &pb::GraphProto, side: u32) -> Result<(), EncodeError> {
    let stored: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let images: Vec<_> = graph
        .input
        .iter()
        .filter(|input| !stored.contains(&input.name.as_str()))
        .collect();
    let [image] = images[..] else {
        return graph_fault(format!("it has {} inputs instead of one", images.len()));
    };
    let tensor = image.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(pb::type_proto::Value::TensorType(tensor)) = tensor else {
        return graph_fault(format!("its input `{}` has no type", image.name));
    };
    if tensor.elem_type != pb::tensor_proto::DataType::Float as i32 {
        return graph_fault(format!("its input `{}` is not f32", image.name));
    }
    let Some(shape) = &tensor.shape else {
        return Ok(());
    };
    let wanted = [1, 3, i64::from(side), i64::from(side)];
    let fits = shape.dim.len() == 4
        && shape.dim.iter().zip(wanted).all(|(dim, wanted)| {
            use pb::tensor_shape_proto::dimension::Value;
            !matches!(dim.value, Some(Value::DimValue(value)) if value != wanted)
        });
    if fits {
        Ok(())
    } else {
        graph_fault(format!(
            "its input `{}` is not one image of 3x{side}x{side}",
            image.name
        ))
    }
}

/// What the checker knows of a value: the shape if it is constant.
type ConstantShape<'p> = Option<&'p [i64]>;

fn check_nodes(graph: &pb::GraphProto) -> Result<BTreeMap<String, usize>, EncodeError> {
    let mut values: HashMap<&str, ConstantShape<'_>> = HashMap::new();
    for input in &graph.input {
        values.insert(&input.name, None);
    }
    for tensor in &graph.initializer {
        check_tensor(tensor)?;
        values.insert(&tensor.name, Some(&tensor.dims));
    }
    if !graph.sparse_initializer.is_empty() {
        return graph_fault("it holds sparse tensors");
    }
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        let operator = node.op_type.as_str();
        let default_domain = matches!(node.domain.as_str(), "" | "ai.onnx");
        if !default_domain || !ALLOWED_OPERATORS.contains(&operator) {
            let domain = if default_domain { "" } else { &node.domain };
            let dot = if default_domain { "" } else { "." };
            return Err(EncodeError::Operator {
                operator: format!("{domain}{dot}{operator}"),
            });
        }
        *operators.entry(operator.to_owned()).or_insert(0) += 1;
        check_node(node, &mut values)?;
    }
    if !values.contains_key(graph.output[0].name.as_str()) {
        return graph_fault(format!(
            "nothing computes its output `{}`",
            graph.output[0].name
        ));
    }
    Ok(operators)
}

fn check_node<'p>(
    node: &'p pb::NodeProto,
    values: &mut HashMap<&'p str, ConstantShape<'p>>,
) -> Result<(), EncodeError> {
    let operator = &node.op_type;
    for attribute in &node.attribute {
        if attribute.g.is_some()
            || !attribute.graphs.is_empty()
            || attribute.sparse_tensor.is_some()
            || !attribute.tensors.is_empty()
        {
            return graph_fault(format!(
                "a {operator} node carries a graph or sparse tensors"
            ));
        }
        if let Some(tensor) = &attribute.t {
            check_tensor(tensor)?;
        }
    }
    let mut all_constant = true;
    for input in node.input.iter().filter(|input| !input.is_empty()) {
        match values.get(input.as_str()) {
            None => {
                return graph_fault(format!(
                    "`{input}` is used by a {operator} before it exists"
                ));
            }
            Some(constant) => all_constant &= constant.is_some(),
        }
    }
    let mut shape = None;
    if all_constant {
        if !ALLOWED_ON_CONSTANTS.contains(&operator.as_str()) {
            return graph_fault(format!("a {operator} node has only constants as inputs"));
        }
        shape = Some(constant_shape(node, values)?);
    }
    for output in node.output.iter().filter(|output| !output.is_empty()) {
        values.insert(output, shape);
    }
    Ok(())
}

/// Shape of what a node computes from constants: that of its first input.
fn constant_shape<'p>(
    node: &'p pb::NodeProto,
    values: &HashMap<&'p str, ConstantShape<'p>>,
) -> Result<&'p [i64], EncodeError> {
    let input = |at: usize| -> Option<&'p [i64]> {
        values.get(node.input.get(at)?.as_str()).copied().flatten()
    };
    let Some(data) = input(0) else {
        let stored = node.attribute.iter().find_map(|a| a.t.as_ref());
        return Ok(stored.map_or(&[], |tensor| &tensor.dims));
    };
    if node.op_type == "DequantizeLinear" {
        // Scales of other shapes would be broadcast, which makes data grow.
        let axis = node.attribute.iter().find(|a| a.name == "axis");
        let axis = axis.map_or(1, |axis| axis.i);
        let axis = if axis < 0 {
            axis + data.len() as i64
        } else {
            axis
        };
        let n_channels = usize::try_from(axis).ok().and_then(|axis| data.get(axis));
        for parameter in [input(1), input(2)].into_iter().flatten() {
            let fits = match parameter {
                [] | [1] => true,
                [n] => Some(n) == n_channels,
                _ => false,
            };
            if !fits {
                return graph_fault(format!(
                    "a DequantizeLinear node has scales of shape {parameter:?} for data of {data:?}"
                ));
            }
        }
    }
    Ok(data)
}

/// A stored tensor of a known type that has exactly the bytes its shape needs, in the file.
fn check_tensor(tensor: &pb::TensorProto) -> Result<(), EncodeError> {
    use pb::tensor_proto::{DataLocation, DataType};
    let name = &tensor.name;
    if tensor.data_location == Some(DataLocation::External as i32)
        || !tensor.external_data.is_empty()
    {
        return graph_fault(format!("tensor `{name}` is stored in another file"));
    }
    let (value_bytes, listed) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => (4, tensor.float_data.len()),
        Ok(DataType::Int64) => (8, tensor.int64_data.len()),
        Ok(DataType::Int32) => (4, tensor.int32_data.len()),
        Ok(DataType::Float16) => (2, tensor.int32_data.len()),
        Ok(DataType::Int8 | DataType::Uint8) => (1, tensor.int32_data.len()),
        _ => {
            return graph_fault(format!(
                "tensor `{name}` has the element type {}, which is not used here",
                tensor.data_type
            ));
        }
    };
    let n_values = tensor
        .dims
        .iter()
        .try_fold(1_usize, |n, dim| n.checked_mul(usize::try_from(*dim).ok()?));
    let found = if tensor.raw_data.is_empty() {
        listed.checked_mul(value_bytes)
    } else {
        Some(tensor.raw_data.len())
    };
    if n_values.and_then(|n| n.checked_mul(value_bytes)) == found && tensor.dims.len() <= 8 {
        Ok(())
    } else {
        graph_fault(format!(
            "tensor `{name}` has a shape ({:?}) that its data does not fill",
            tensor.dims
        ))
    }
}

/// Bounds the memory of a run before anything is folded or allocated.
fn check_shapes(model: &InferenceModel) -> TractResult<()> {
    for node in model.nodes() {
        for outlet in &node.outputs {
            let shape = outlet.fact.shape.concretize();
            let n_values = shape.as_ref().and_then(|shape| {
                shape
                    .iter()
                    .try_fold(1_usize, |n, dim| n.checked_mul(dim.to_usize().ok()?))
            });
            match n_values {
                Some(n) if n <= MAX_TENSOR_VALUES => {}
                Some(n) => anyhow::bail!(
                    "`{}` would have {n} values; at most {MAX_TENSOR_VALUES} are computed",
                    node.name
                ),
                None => anyhow::bail!("the shape of `{}` is not known", node.name),
            }
        }
    }
    Ok(())
}

/// Multiply-adds of convolutions and matrix products, as tract counts them. Additions and
/// activations are left out, as is usual.
fn count_multiply_adds(model: &TypedModel) -> TractResult<u64> {
    let mut total = 0;
    for node in model.nodes() {
        if !(node.op_is::<Conv>() || node.op_is::<EinSum>()) {
            continue;
        }
        for (cost, count) in node.op.cost(&model.node_input_facts(node.id)?)? {
            if matches!(cost, Cost::FMA(_)) {
                total += u64::try_from(count.to_i64()?)?;
            }
        }
    }
    Ok(total)
}

/// The network of a bundle: from pixels to unit embeddings in the teacher's space.
///
/// Can be shared between threads; each [`encode`](Self::encode) uses one.
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
