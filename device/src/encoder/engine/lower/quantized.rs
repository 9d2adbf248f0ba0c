//! Maps that a graph quantizes (ONNX `QuantizeLinear` and `DequantizeLinear` around them).
//!
//! The two operators between a layer and its readers say that the readers see values of a
//! grid. Here the map is stored as its bytes, and what is read of it means the same values.

use tract_onnx::pb;

use super::super::quantization::Quantization;
use super::super::quantized::MAX_TERMS;
use super::attributes::{int, window};
use super::{Bound, IMAGE, Kind, Lowering, QuantizedConvolution};

impl<'p> Lowering<'p> {
    /// The parameters of one of the two operators, where they are one scale and one byte.
    fn quantization(&self, node: &pb::NodeProto) -> Option<Quantization> {
        let [_, scale, zero] = &node.input[..] else {
            return None;
        };
        Quantization::new(self.constants.number(scale)?, self.constants.byte(zero)?)
    }

    pub(super) fn quantize(&mut self, node: &'p pb::NodeProto) -> Option<Bound> {
        let wanted = self.quantization(node)?;
        let name = node.input.first()?;
        let value = self.value(name)?;
        if value == IMAGE {
            return Some(Bound::ImageCodes(wanted));
        }
        if self.values[value].quantization == Some(wanted) {
            return Some(Bound::Codes(value));
        }
        if self.stores_bytes(name, value) {
            self.values[value].quantization = Some(wanted);
            return Some(Bound::Codes(value));
        }
        let value = self.dequantized(value, &node.name)?;
        let shape = self.values[value].shape;
        let output = self.push(&node.name, Kind::Quantize, vec![value], shape)?;
        self.values[output].quantization = Some(wanted);
        Some(Bound::Codes(output))
    }

    /// Whether the layer that gives a value can round it as it stores it, and nobody wants it
    /// otherwise.
    fn stores_bytes(&self, name: &str, value: usize) -> bool {
        let layer = self.layers.iter().find(|layer| layer.output == value);
        let can = layer.is_some_and(|layer| {
            let of_kind = match layer.kind {
                Kind::Dense(_) => layer.inputs == [IMAGE],
                Kind::Quantized(_) => true,
                _ => false,
            };
            of_kind && layer.activation.bounds().is_some()
        });
        let stored = &self.values[value];
        let is_free = stored.quantization.is_none() && stored.part_of.is_none();
        can && is_free && self.is_read_once(name) && !self.shared.contains(&value)
    }

    pub(super) fn dequantize(&mut self, node: &'p pb::NodeProto) -> Option<Bound> {
        let (stored, bound) = match *self.bound.get(node.input.first()?.as_str())? {
            Bound::Codes(value) => (self.values[value].quantization?, Bound::Value(value)),
            Bound::ImageCodes(stored) => (stored, Bound::RoundedImage(stored)),
            _ => return None,
        };
        (self.quantization(node)? == stored).then_some(bound)
    }

    /// A dense convolution whose input and weights are bytes.
    pub(super) fn quantized_conv(&mut self, node: &pb::NodeProto) -> Option<Bound> {
        let name = node.input.first()?;
        let (input, quantization) = match *self.bound.get(name.as_str())? {
            Bound::RoundedImage(quantization) => (IMAGE, quantization),
            _ => {
                let input = self.stored_map(name)?;
                (input, self.values[input].quantization?)
            }
        };
        let weights = self.constants.codes(node.input.get(1)?)?;
        let [outputs, inputs, height, width] = weights.shape()?[..] else {
            return None;
        };
        let window = window(node, Some([height, width]))?;
        let [rows, columns, channels] = self.values[input].shape;
        let [rows, columns] = window.output([rows, columns])?;
        let n_taps = height.checked_mul(width)?;
        let n_terms = n_taps.checked_mul(inputs)?;
        if int(node, "group", 1) != 1 || inputs != channels || !(1..=MAX_TERMS).contains(&n_terms) {
            return None;
        }
        let bias = self.bias(node.input.get(2), outputs)?;
        self.index(rows.checked_mul(columns)?, n_taps)?;
        self.take_weights(&[outputs, n_terms])?;
        let kind = Kind::Quantized(QuantizedConvolution {
            window,
            codes: weights.codes()?,
            scales: weights.scales(&self.constants, outputs)?,
            bias,
            input: quantization,
        });
        let shape = [rows, columns, outputs];
        self.push(&node.name, kind, vec![input], shape)
            .map(Bound::Value)
    }
}
