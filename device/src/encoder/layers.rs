//! What a network computes between its layers, for those who look for a fault or count
//! what rounding costs.
//!
//! Not for encoding: values that are handed out can not be fused away, so this is slower
//! than [`Network`](super::Network), and only as right as the parts that both share. A
//! network cut off behind one layer ([`Layers::load`] with one name) keeps what is fused
//! before it.

use std::sync::Arc;

use eyas_shared::preprocess::Pixels;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceModelExt;

use super::{EncodeError, MAX_ONNX_BYTES, graph, graph_fault, in_tract};

/// Values between the layers of a network, by name, for one image after the other.
pub struct Layers {
    plan: Arc<TypedRunnableModel>,
    side: u32,
}

impl Layers {
    /// Checks and builds a network that puts out the values of these names, in this order:
    /// an ONNX file names a value by the output of the node that computes it.
    ///
    /// # Errors
    /// As [`Network::load`](super::Network::load), or if no node computes a value of a name.
    pub fn load(onnx: &[u8], side: u32, names: &[&str]) -> Result<Self, EncodeError> {
        if onnx.len() > MAX_ONNX_BYTES {
            return Err(EncodeError::TooLarge { bytes: onnx.len() });
        }
        let framework = tract_onnx::onnx()
            .with_ignore_output_shapes(true)
            .with_ignore_output_types(true)
            .with_ignore_value_info(true);
        let mut proto = in_tract("read", || framework.proto_model_for_read(&mut &onnx[..]))?;
        graph::check(&mut proto, side, None)?;
        let Some(graph) = proto.graph.as_mut() else {
            return graph_fault("the ONNX file holds no graph");
        };
        for name in names {
            let computes = |node: &pb::NodeProto| node.output.iter().any(|output| output == name);
            if !graph.node.iter().any(computes) {
                return graph_fault(format!("no node of it computes `{name}`"));
            }
        }
        let value = |name: &&str| pb::ValueInfoProto {
            name: (*name).to_owned(),
            ..Default::default()
        };
        graph.output = names.iter().map(value).collect();
        let plan = in_tract("built", || {
            let fact = f32::fact([1, 3, side as usize, side as usize]);
            let mut model = framework.model_for_proto_model(&proto)?;
            model.set_input_fact(0, fact.into())?;
            model.analyse(false)?;
            graph::check_shapes(&model)?;
            model.into_optimized()?.into_runnable()
        })?;
        Ok(Self { plan, side })
    }

    /// The values for one image, each flattened in the order of its axes (N, C, H, W).
    ///
    /// # Errors
    /// If the pixels have another size, or tract fails.
    pub fn run(&self, pixels: &Pixels) -> Result<Vec<Vec<f32>>, EncodeError> {
        if pixels.side != self.side {
            let (expected, found) = (self.side, pixels.side);
            return Err(EncodeError::OtherSide { expected, found });
        }
        let side = self.side as usize;
        in_tract("run", || {
            let input = Tensor::from_shape(&[1, 3, side, side], &pixels.values_chw)?;
            let outputs = self.plan.run(tvec!(input.into_tvalue()))?;
            let flat = |output: &TValue| -> TractResult<Vec<f32>> {
                let output = output.cast_to::<f32>()?;
                Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            };
            outputs.iter().map(flat).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use eyas_shared::embedding::dot;

    use super::super::Network;
    use super::*;
    use crate::test_data::{CHANNELS, SIDE, onnx, pixels, weights};

    #[test]
    fn values_between_layers_are_handed_out_in_the_order_asked_for() {
        let (onnx, pixels) = (onnx(5), pixels(1));
        let layers = Layers::load(&onnx, SIDE, &["embedding", "conv", "flat"]).unwrap();
        let [embedding, conv, flat] = <[_; 3]>::try_from(layers.run(&pixels).unwrap()).unwrap();
        let (channels, area) = (CHANNELS as usize, (SIDE * SIDE / 4) as usize);
        assert_eq!(
            [embedding.len(), conv.len(), flat.len()],
            [5, channels * area, channels]
        );
        let whole = Network::load(&onnx, SIDE, None).unwrap();
        for (a, b) in embedding.iter().zip(whole.run(&pixels).unwrap()) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
        // What lies between fits together: the mean of what is positive, and the head.
        let [_, _, head_w, head_b] = weights(5);
        for (c, flat) in flat.iter().enumerate() {
            let sum: f32 = conv[c * area..][..area].iter().map(|x| x.max(0.0)).sum();
            assert!((flat - sum / area as f32).abs() < 1e-5);
        }
        for (d, found) in embedding.iter().enumerate() {
            let expected = head_b[d] + dot(&head_w[d * channels..][..channels], &flat);
            assert!((found - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn a_value_that_nothing_computes_and_other_pixels_are_refused() {
        let load = |names: &[&str]| Layers::load(&onnx(5), SIDE, names);
        let message = load(&["conv", "nothing"]).err().unwrap().to_string();
        assert!(message.contains("computes `nothing`"), "{message}");
        let small = Pixels {
            side: 2,
            values_chw: vec![0.0; 12],
        };
        assert!(load(&["conv"]).unwrap().run(&small).is_err());
    }
}
