//! What a graph stores, widened to f32.

use std::collections::HashMap;

use half::f16;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// Tensors that do not depend on the image, by name.
pub(super) struct Constants<'p> {
    tensors: HashMap<&'p str, &'p pb::TensorProto>,
    nodes: HashMap<&'p str, &'p pb::NodeProto>,
}

/// A tensor with its shape.
pub(super) struct Constant {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Weights that are int8 codes with a scale for each output channel, not yet read.
pub(super) struct Codes<'p> {
    tensor: &'p pb::TensorProto,
    scales: &'p str,
}

impl Codes<'_> {
    pub(super) fn shape(&self) -> Option<Vec<usize>> {
        extents(self.tensor)
    }

    pub(super) fn codes(&self) -> Option<Vec<i8>> {
        let Constant { values, .. } = floats(self.tensor)?;
        Some(values.iter().map(|&code| code as i8).collect())
    }

    /// One for each of so many output channels.
    pub(super) fn scales(&self, constants: &Constants<'_>, n: usize) -> Option<Vec<f32>> {
        let scales = constants.floats(self.scales)?.values;
        match scales[..] {
            [one] => Some(vec![one; n]),
            _ => (scales.len() == n).then_some(scales),
        }
    }
}

/// Casts of casts that are followed; a file of this project has one.
const MAX_DEPTH: usize = 8;

impl<'p> Constants<'p> {
    pub(super) fn new(graph: &'p pb::GraphProto) -> Self {
        let tensors = graph.initializer.iter();
        let mut this = Self {
            tensors: tensors
                .map(|tensor| (tensor.name.as_str(), tensor))
                .collect(),
            nodes: HashMap::new(),
        };
        for node in &graph.node {
            let mut inputs = node.input.iter().filter(|input| !input.is_empty());
            if let [output] = &node.output[..]
                && inputs.all(|input| this.contains(input))
            {
                this.nodes.insert(output, node);
            }
        }
        this
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.nodes.contains_key(name)
    }

    /// A tensor of numbers as f32; `None` for one that is computed in a way unknown here.
    pub(super) fn floats(&self, name: &str) -> Option<Constant> {
        self.floats_within(name, MAX_DEPTH)
    }

    fn floats_within(&self, name: &str, depth: usize) -> Option<Constant> {
        let depth = depth.checked_sub(1)?;
        if let Some(tensor) = self.stored(name) {
            return floats(tensor);
        }
        let node = self.nodes.get(name)?;
        let input = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
        match node.op_type.as_str() {
            "Identity" => self.floats_within(input(0)?, depth),
            "Cast" => {
                let to = node.attribute.iter().find(|a| a.name == "to")?.i;
                let widens = to == i64::from(DataType::Float as i32);
                widens.then(|| self.floats_within(input(0)?, depth))?
            }
            "DequantizeLinear" => {
                let axis = node.attribute.iter().find(|a| a.name == "axis");
                let codes = self.floats_within(input(0)?, depth)?;
                let scales = self.floats_within(input(1)?, depth)?;
                let zeros = match input(2) {
                    Some(name) => Some(self.floats_within(name, depth)?),
                    None => None,
                };
                dequantize(
                    codes,
                    axis.map_or(1, |axis| axis.i),
                    &scales,
                    zeros.as_ref(),
                )
            }
            _ => None,
        }
    }

    /// The extents of a tensor that [`floats`](Self::floats) knows, without reading it.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let mut name = name;
        for _ in 0..MAX_DEPTH {
            if let Some(tensor) = self.stored(name) {
                return extents(tensor);
            }
            name = self.nodes.get(name)?.input.first()?;
        }
        None
    }

    /// A tensor that lies in the file as it is.
    fn stored(&self, name: &str) -> Option<&'p pb::TensorProto> {
        if let Some(tensor) = self.tensors.get(name) {
            return Some(tensor);
        }
        let node = self
            .nodes
            .get(name)
            .filter(|node| node.op_type == "Constant")?;
        node.attribute
            .iter()
            .find_map(|attribute| attribute.t.as_ref())
    }

    /// Weights that are int8 codes with a scale for each output channel, and no zero points.
    pub(super) fn codes(&self, name: &str) -> Option<Codes<'p>> {
        let node = self.nodes.get(name)?;
        let axis = node.attribute.iter().find(|a| a.name == "axis");
        if node.op_type != "DequantizeLinear" || axis.map_or(1, |axis| axis.i) != 0 {
            return None;
        }
        let tensor = self.stored(node.input.first()?)?;
        let scales = node.input.get(1)?;
        let is_int8 = DataType::try_from(tensor.data_type) == Ok(DataType::Int8);
        let zeros = node.input.get(2).filter(|name| !name.is_empty());
        // No more zero points than a graph is checked to have.
        let is_symmetric = match zeros {
            None => true,
            Some(zeros) => self.floats(zeros)?.values.iter().all(|zero| *zero == 0.0),
        };
        (is_int8 && is_symmetric).then_some(Codes { tensor, scales })
    }

    /// A single unsigned byte.
    pub(super) fn byte(&self, name: &str) -> Option<u8> {
        let tensor = self.stored(name)?;
        let is_byte = DataType::try_from(tensor.data_type) == Ok(DataType::Uint8);
        is_byte.then(|| self.number(name))?.map(|byte| byte as u8)
    }

    /// A single number.
    pub(super) fn number(&self, name: &str) -> Option<f32> {
        let is_single = self.shape(name)?.iter().product::<usize>() == 1;
        is_single
            .then(|| self.floats(name))??
            .values
            .first()
            .copied()
    }

    /// A tensor of whole numbers.
    pub(super) fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.stored(name)?;
        if DataType::try_from(tensor.data_type) != Ok(DataType::Int64) {
            return None;
        }
        if tensor.raw_data.is_empty() {
            return Some(tensor.int64_data.clone());
        }
        let chunks = tensor.raw_data.as_chunks::<8>().0.iter();
        Some(chunks.map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }
}

/// (code - zero) x scale, with one zero and scale, or one of each along an axis.
fn dequantize(
    mut codes: Constant,
    axis: i64,
    scales: &Constant,
    zeros: Option<&Constant>,
) -> Option<Constant> {
    let rank = codes.shape.len() as i64;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let channels = codes.shape.get(axis).copied().unwrap_or(1);
    let fits =
        |parameters: &Constant| matches!(parameters.values.len(), n if n == 1 || n == channels);
    if !fits(scales) || !zeros.is_none_or(fits) {
        return None;
    }
    let inner: usize = codes
        .shape
        .get(axis + 1..)
        .unwrap_or_default()
        .iter()
        .product();
    let of = |parameters: &Constant, channel: usize| match parameters.values[..] {
        [one] => one,
        _ => parameters.values[channel],
    };
    let parts = codes.values.chunks_exact_mut(inner.max(1)).enumerate();
    for (at, part) in parts {
        let channel = at % channels.max(1);
        let (scale, zero) = (
            of(scales, channel),
            zeros.map_or(0.0, |zeros| of(zeros, channel)),
        );
        for value in part {
            *value = (*value - zero) * scale;
        }
    }
    Some(codes)
}

fn extents(tensor: &pb::TensorProto) -> Option<Vec<usize>> {
    let extents = tensor.dims.iter();
    extents.map(|&dim| usize::try_from(dim).ok()).collect()
}

fn floats(tensor: &pb::TensorProto) -> Option<Constant> {
    let shape = extents(tensor)?;
    let raw = &tensor.raw_data;
    let listed = || tensor.int32_data.iter();
    let values: Vec<f32> = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float if raw.is_empty() => tensor.float_data.clone(),
        DataType::Float => eyas_shared::quant::f32_from_bytes(raw),
        // Listed f16 are their bits.
        DataType::Float16 if raw.is_empty() => listed()
            .map(|&bits| f16::from_bits(bits as u16).to_f32())
            .collect(),
        DataType::Float16 => {
            let chunks = raw.as_chunks::<2>().0.iter();
            chunks
                .map(|bytes| f16::from_bits(u16::from_le_bytes(*bytes)).to_f32())
                .collect()
        }
        DataType::Int8 | DataType::Uint8 | DataType::Int32 if raw.is_empty() => {
            listed().map(|&value| value as f32).collect()
        }
        DataType::Int32 => {
            let chunks = raw.as_chunks::<4>().0.iter();
            chunks
                .map(|bytes| i32::from_le_bytes(*bytes) as f32)
                .collect()
        }
        DataType::Int8 => raw
            .iter()
            .map(|&byte| f32::from(byte.cast_signed()))
            .collect(),
        DataType::Uint8 => raw.iter().map(|&byte| f32::from(byte)).collect(),
        _ => return None,
    };
    (shape.iter().product::<usize>() == values.len()).then_some(Constant { shape, values })
}
