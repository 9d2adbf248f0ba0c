//! What an ONNX graph may hold: checked on the parsed file before tract builds anything.
//!
//! A bundle's hash says that the network is the one its header names, not that it is
//! harmless. After these checks tract sees allowed operators only, in order, with tensors
//! that are whole and in the file; [`check_shapes`] bounds what lies between operators.

use std::collections::{BTreeMap, HashMap};

use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::nn::Softmax;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;

use super::{EncodeError, graph_fault};

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
    "Erf",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mul",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "ReduceL2",
    "ReduceMean",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
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

/// Refuses everything that this project's networks do not need, and leaves only the wanted
/// output; returns the operators with their number of uses.
pub(super) fn check(
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
    } else if matches!(&operator[..], "QuantizeLinear" | "DequantizeLinear") {
        check_one_scale(node, values)?;
    }
    for output in node.output.iter().filter(|output| !output.is_empty()) {
        values.insert(output, shape);
    }
    Ok(())
}

/// Activations have one scale and one zero point for all channels: others would be broadcast,
/// which makes data grow, and no kernel of integers knows them.
fn check_one_scale(
    node: &pb::NodeProto,
    values: &HashMap<&str, ConstantShape<'_>>,
) -> Result<(), EncodeError> {
    for name in node.input.iter().skip(1).filter(|name| !name.is_empty()) {
        if !matches!(values.get(name.as_str()), Some(Some([] | [1]))) {
            return graph_fault(format!(
                "a {} node of activations has `{name}`, which is not one constant",
                node.op_type
            ));
        }
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
pub(super) fn check_shapes(model: &InferenceModel) -> TractResult<()> {
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

/// Axes that tract takes as a file says them, before it counts with them.
pub(super) fn check_axes(model: &TypedModel) -> TractResult<()> {
    for node in model.nodes() {
        let Some(Softmax { axes, .. }) = node.op_as() else {
            continue;
        };
        let rank = model.outlet_fact(node.inputs[0])?.rank();
        if axes.is_empty() || axes.iter().any(|axis| *axis >= rank) {
            anyhow::bail!("`{}` is a softmax over axes {axes:?} of {rank}", node.name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::{node, tensor};

    #[test]
    fn activations_are_rounded_with_one_constant_scale() {
        let fault = |scale: &pb::TensorProto, input: &str| {
            let quantize = node("QuantizeLinear", &["image", input], "codes", Vec::new());
            let mut values: HashMap<&str, ConstantShape<'_>> =
                [("image", None), ("computed", None)].into();
            values.insert(&scale.name, Some(&scale.dims));
            let outcome = check_node(&quantize, &mut values);
            outcome.err().map(|err| err.to_string())
        };
        let one = tensor("scale", &[], &[0.1]);
        assert_eq!(fault(&one, "scale"), None);
        assert_eq!(fault(&tensor("scale", &[1], &[0.1]), "scale"), None);
        let three = fault(&tensor("scale", &[3], &[0.1; 3]), "scale").unwrap();
        assert!(three.contains("`scale`, which is not one"), "{three}");
        let computed = fault(&one, "computed").unwrap();
        assert!(computed.contains("`computed`, which is not"), "{computed}");
    }
}
