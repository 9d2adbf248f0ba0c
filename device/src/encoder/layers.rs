//! What a network computes between its layers, for those who look for a fault or count
//! what rounding costs.
//!
//! Not for encoding: values that are handed out can not be fused away, so this is slower
//! than [`Network`](super::Network). A network cut off behind one layer ([`Layers::load`]
//! with one name) keeps what is fused before it.

use eyas_shared::preprocess::Pixels;
use tract_onnx::pb;
use tract_onnx::prelude::Framework;

use super::engine::{Engine, Isa, Team};
use super::remainder::{self, Remainder};
use super::{EncodeError, MAX_ONNX_BYTES, graph, graph_fault, in_tract};

/// Values between the layers of a network, by name, for one image after the other.
pub struct Layers {
    runner: Runner,
    side: u32,
}

/// Who computes them.
enum Runner {
    Engine(Engine),
    /// All of it, if the engine does not know every node.
    Tract(Remainder),
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
        let framework = remainder::framework();
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
        let taken = Engine::take(graph, side as usize, Isa::best());
        let runner = match taken {
            Some((engine, handover)) if handover.rest.is_none() => Runner::Engine(engine),
            _ => {
                let image = vec![1, 3, side as usize, side as usize];
                Runner::Tract(Remainder::build(&framework, &proto, vec![image])?)
            }
        };
        Ok(Self { runner, side })
    }

    /// The values for one image, each flattened in the order of its axes (N, C, H, W).
    ///
    /// # Errors
    /// If the pixels have another size, or tract fails.
    pub fn run(&self, pixels: &Pixels) -> Result<Vec<Vec<f32>>, EncodeError> {
        let image = super::image(pixels, self.side)?;
        match &self.runner {
            Runner::Engine(engine) => Ok(engine.run(image, &Team::alone())),
            Runner::Tract(tract) => tract.run_all(&[image.to_vec()]),
        }
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
