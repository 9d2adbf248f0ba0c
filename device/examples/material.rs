//! Writes bundles and galleries that two builds of `eyas-device` can be compared on: the same
//! on every machine, but for the probes, which are what this build computes.
//!
//! ```text
//! material FOLDER
//! ```
//!
//! Bundles hold untrained networks, stored in every precision. The rows of `axes.gallery` are
//! the axes of the space, so that the scores there are the components of a query's embedding;
//! the other galleries hold random rows, coded in every way. `tests/arm/compare.py` shows how
//! they are used.

#![expect(clippy::unwrap_used, reason = "helpers of the tests are used")]

use std::fs;
use std::io::{Error, Write};
use std::path::Path;
use std::process::ExitCode;

use eyas_device::{encoder, selftest};
use eyas_shared::bundle::{Bundle, Precision};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Codes;
use eyas_shared::quant;
use eyas_shared::random::Random;
use prost::Message;
use tract_onnx::pb;

#[allow(dead_code, reason = "the tests of the library use the rest")]
#[path = "../src/test_data.rs"]
mod test_data;

use test_data::{
    bundle_around, embeddings, float, gallery_with, int, ints, model, node, raw_tensor, tensor,
    value,
};

/// Side of the images that the networks read.
const SIDE: u32 = 40;

/// Components of the embeddings.
const DIM: usize = 48;

const N_PROBES: usize = 4;

/// Rows of the random galleries.
const N_ROWS: usize = 400;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let written = match (arguments.next(), arguments.next()) {
        (Some(folder), None) => write_all(Path::new(&folder)),
        _ => Err(Error::other("usage: material FOLDER")),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

fn write_all(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder)?;
    for precision in [
        Precision::F32,
        Precision::F16,
        Precision::Int8,
        Precision::FullInt8,
    ] {
        for (name, onnx) in [
            ("dense", dense(precision)),
            ("depthwise", depthwise(precision)),
            ("remainder", remainder(precision)),
        ] {
            let path = folder.join(format!("{name}-{precision}.bundle"));
            fs::write(path, bundle(&onnx, precision))?;
        }
    }
    let mut axes = Embeddings::new(DIM);
    for axis in 0..DIM {
        let mut row = [0.0; DIM];
        row[axis] = 1.0;
        axes.push(&row);
    }
    fs::write(folder.join("axes.gallery"), gallery(&axes, Codes::F32))?;
    let rows = embeddings(N_ROWS, DIM, 3);
    for (name, codes) in [
        ("f32", Codes::F32),
        ("f16", Codes::F16),
        ("int8", Codes::INT8),
        ("int8-f16", Codes::INT8_F16),
        ("int2-f16", Codes::INT2_F16),
        ("int2-int8", Codes::INT2_INT8),
    ] {
        let path = folder.join(format!("{name}.gallery"));
        fs::write(path, gallery(&rows, codes))?;
    }
    Ok(())
}

fn gallery(rows: &Embeddings, codes: Codes) -> Vec<u8> {
    let ids = (0..rows.n_rows()).map(|row| ImageId::of_file(&row.to_le_bytes()));
    gallery_with(rows, &ids.collect::<Vec<_>>(), codes)
}

fn bundle(onnx: &[u8], precision: Precision) -> Vec<u8> {
    let draft = bundle_around(onnx, DIM as u32, embeddings(N_PROBES, DIM, 1));
    let mut draft = Bundle::read(&draft).unwrap();
    draft.header.precision = precision;
    draft.header.preprocess.resize_shorter = SIDE + 4;
    draft.header.preprocess.crop = SIDE;
    let encoder = encoder::Encoder::load(&draft).unwrap();
    let mut hasher = selftest::ProbeHasher::new();
    let mut probes = Embeddings::new(DIM);
    for pixels in selftest::probe_pixels(&draft.header.preprocess, N_PROBES) {
        hasher.update(&pixels);
        probes.push(&encoder.encode(&pixels).unwrap());
    }
    draft.header.probe_pixels = hasher.finish();
    draft.probe_embeddings = probes;
    draft.to_bytes()
}

/// Dense convolutions, those of 3x3 among them with stride 1, in a residual block.
fn dense(precision: Precision) -> Vec<u8> {
    let mut net = Net::new(1, precision);
    let image = net.rounded("image");
    let stem = net.conv(&image, [3, 24], [3, 2, 1], 1);
    let stem = net.push("Relu", &[&stem], vec![]);
    let stem = net.rounded(&stem);
    let inner = net.conv(&stem, [24, 24], [3, 1, 1], 1);
    let inner = net.gated("HardSigmoid", &inner);
    let inner = net.rounded(&inner);
    let inner = net.conv(&inner, [24, 24], [3, 1, 1], 1);
    let sum = net.push("Add", &[&stem, &inner], vec![]);
    let sum = net.rounded(&sum);
    let wide = net.conv(&sum, [24, 70], [1, 1, 0], 1);
    let wide = net.push("Relu", &[&wide], vec![]);
    let wide = net.rounded(&wide);
    let down = net.conv(&wide, [70, 33], [3, 2, 1], 1);
    let down = net.rounded(&down);
    let pooled = net.push("GlobalAveragePool", &[&down], vec![]);
    net.head(&pooled, 33)
}

/// Depthwise convolutions, gates and pools.
fn depthwise(precision: Precision) -> Vec<u8> {
    let mut net = Net::new(2, precision);
    let stem = net.conv("image", [3, 16], [3, 1, 1], 1);
    let stem = net.gated("HardSigmoid", &stem);
    let wide = net.conv(&stem, [16, 51], [1, 1, 0], 1);
    let wide = net.push("Relu", &[&wide], vec![]);
    let deep = net.conv(&wide, [51, 51], [5, 2, 2], 51);
    let deep = net.gated("Sigmoid", &deep);
    let mean = net.push("GlobalAveragePool", &[&deep], vec![]);
    let scale = net.conv(&mean, [51, 51], [1, 1, 0], 1);
    let scale = net.push("HardSigmoid", &[&scale], vec![float("alpha", 0.2)]);
    let excited = net.push("Mul", &[&deep, &scale], vec![]);
    let deep = net.conv(&excited, [51, 51], [3, 1, 1], 51);
    let window = vec![ints("kernel_shape", &[3; 2]), ints("strides", &[2; 2])];
    let deep = net.rounded(&deep);
    let deep = net.push("MaxPool", &[&deep], window);
    let narrow = net.conv(&deep, [51, 20], [1, 1, 0], 1);
    let pooled = net.push("GlobalMaxPool", &[&narrow], vec![]);
    net.head(&pooled, 20)
}

/// A generalized mean, which is left to tract.
fn remainder(precision: Precision) -> Vec<u8> {
    let mut net = Net::new(3, precision);
    let map = net.conv("image", [3, 32], [3, 2, 1], 1);
    let map = net.push("Relu", &[&map], vec![]);
    let three = tensor("three", &[1, 1, 1, 1], &[3.0]);
    net.graph.initializer.push(three);
    let powers = net.push("Pow", &[&map, "three"], vec![]);
    let pooled = net.push("GlobalAveragePool", &[&powers], vec![]);
    net.head(&pooled, 32)
}

/// A network that grows.
struct Net {
    graph: pb::GraphProto,
    random: Random,
    precision: Precision,
}

impl Net {
    fn new(seed: u64, precision: Precision) -> Self {
        let side = i64::from(SIDE);
        Self {
            graph: pb::GraphProto {
                name: "material".to_owned(),
                input: vec![value("image", &[1, 3, side, side])],
                ..Default::default()
            },
            random: Random::new(seed),
            precision,
        }
    }

    fn push(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<pb::AttributeProto>,
    ) -> String {
        let name = format!("n{}", self.graph.node.len());
        let node = node(operator, inputs, &name, attributes);
        self.graph.node.push(node);
        name
    }

    /// The same values on a grid of bytes, in full-int8.
    fn rounded(&mut self, from: &str) -> String {
        use pb::tensor_proto::DataType;
        if self.precision != Precision::FullInt8 {
            return from.to_owned();
        }
        let (scale, zero) = (format!("{from}.scale"), format!("{from}.zero_point"));
        self.graph.initializer.extend([
            tensor(&scale, &[], &[6.0 / 255.0]),
            raw_tensor(&zero, &[], DataType::Uint8, vec![127]),
        ]);
        let codes = self.push("QuantizeLinear", &[from, &scale, &zero], vec![]);
        self.push("DequantizeLinear", &[&codes, &scale, &zero], vec![])
    }

    fn gated(&mut self, gate: &str, from: &str) -> String {
        let gate = self.push(gate, &[from], vec![]);
        self.push("Mul", &[from, &gate], vec![])
    }

    /// A convolution of so many channels to so many, with kernel, stride and padding.
    fn conv(
        &mut self,
        from: &str,
        [inputs, outputs]: [i64; 2],
        [kernel, stride, padding]: [i64; 3],
        groups: i64,
    ) -> String {
        let weights = self.weights(&[outputs, inputs / groups, kernel, kernel]);
        let bias = self.bias(outputs);
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("strides", &[stride; 2]),
            ints("pads", &[padding; 4]),
            int("group", groups),
        ];
        self.push("Conv", &[from, &weights, &bias], attributes)
    }

    /// A linear layer ends the network; its ONNX file.
    fn head(mut self, pooled: &str, channels: i64) -> Vec<u8> {
        let flat = self.push("Flatten", &[pooled], vec![int("axis", 1)]);
        let weights = self.weights(&[DIM as i64, channels]);
        let bias = self.bias(DIM as i64);
        let transposed = vec![int("transB", 1)];
        let output = self.push("Gemm", &[&flat, &weights, &bias], transposed);
        self.graph.output = vec![value(&output, &[1, DIM as i64])];
        let mut whole = model(DIM as i64);
        whole.graph = Some(self.graph);
        whole.encode_to_vec()
    }

    fn bias(&mut self, channels: i64) -> String {
        let name = format!("b{}", self.graph.initializer.len());
        let values: Vec<f32> = (0..channels)
            .map(|_| self.random.range(-0.2, 0.2) as f32)
            .collect();
        self.graph
            .initializer
            .push(tensor(&name, &[channels], &values));
        name
    }

    /// Weights with a row of terms per output, stored as the exporter stores them.
    fn weights(&mut self, shape: &[i64]) -> String {
        use pb::tensor_proto::DataType;
        let name = format!("w{}", self.graph.initializer.len());
        let n_terms = shape[1..].iter().product::<i64>() as usize;
        let scale = (n_terms as f64).sqrt().recip();
        let values: Vec<f32> = (0..shape[0] as usize * n_terms)
            .map(|_| (self.random.normal() * scale) as f32)
            .collect();
        match self.precision {
            Precision::F32 => {
                self.graph.initializer.push(tensor(&name, shape, &values));
                name
            }
            Precision::F16 => {
                let bytes = quant::f16_bytes(&quant::to_f16(&values));
                let stored = raw_tensor(&name, shape, DataType::Float16, bytes);
                self.graph.initializer.push(stored);
                let to = int("to", DataType::Float as i64);
                self.push("Cast", &[&name], vec![to])
            }
            Precision::Int8 | Precision::FullInt8 => {
                let rows = values.chunks_exact(n_terms);
                let scales: Vec<f32> = rows.clone().map(quant::symmetric_scale).collect();
                let codes = rows.zip(&scales).flat_map(|(row, &scale)| {
                    row.iter()
                        .map(move |&x| quant::to_i8(x, scale).to_le_bytes()[0])
                });
                let codes = raw_tensor(&name, shape, DataType::Int8, codes.collect());
                let scale = format!("{name}.scale");
                let scales = tensor(&scale, &shape[..1], &scales);
                let zero = format!("{name}.zero_point");
                let zeros = vec![0; shape[0] as usize];
                let zeros = raw_tensor(&zero, &shape[..1], DataType::Int8, zeros);
                self.graph.initializer.extend([codes, scales, zeros]);
                let inputs = [&name[..], &scale, &zero];
                self.push("DequantizeLinear", &inputs, vec![int("axis", 0)])
            }
        }
    }
}
