//! Small networks, bundles and galleries for the tests of this crate.

use eyas_shared::bundle::{Bundle, BundleHeader, Precision, Provenance, Verification};
use eyas_shared::calibration::{
    Calibration, CurveBin, Evidence, GalleryIdentity, NO_SCORE, Thresholds,
};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource};
use eyas_shared::preprocess::{Filter, IMAGENET_MEAN, IMAGENET_STD, Pixels, PreprocessSpec};
use eyas_shared::quant::f32_bytes;
use eyas_shared::random::Random;
use prost::Message;
use tract_onnx::pb;

use crate::encoder::Encoder;
use crate::selftest::{ProbeHasher, probe_pixels};

/// Side of the images that the test networks read.
pub(crate) const SIDE: u32 = 16;

/// Channels of the test network's convolution.
pub(crate) const CHANNELS: i64 = 4;

/// The space of test bundles and galleries.
pub(crate) fn space(byte: u8) -> SpaceId {
    SpaceId(Fingerprint([byte; 32]))
}

/// Unit vectors in random directions.
pub(crate) fn embeddings(n_rows: usize, dim: usize, seed: u64) -> Embeddings {
    let mut random = Random::new(seed);
    let values = (0..n_rows * dim)
        .map(|_| random.normal() as f32 + 1e-3)
        .collect();
    let mut rows = Embeddings::from_values(dim, values).unwrap();
    rows.normalize_rows();
    rows
}

/// A gallery of the space 7 whose rows have the identities of `ids`.
pub(crate) fn gallery_of(rows: &Embeddings, ids: &[u8], codes: Codes) -> Vec<u8> {
    gallery_in(space(7), rows, ids, codes)
}

pub(crate) fn gallery_in(space: SpaceId, rows: &Embeddings, ids: &[u8], codes: Codes) -> Vec<u8> {
    let ids: Vec<ImageId> = ids.iter().map(|id| ImageId([*id; 16])).collect();
    gallery_between(space, rows, &ids, codes)
}

/// A gallery of the space 7 whose rows have these identities.
pub(crate) fn gallery_with(rows: &Embeddings, ids: &[ImageId], codes: Codes) -> Vec<u8> {
    gallery_between(space(7), rows, ids, codes)
}

fn gallery_between(space: SpaceId, rows: &Embeddings, ids: &[ImageId], codes: Codes) -> Vec<u8> {
    let names: Vec<String> = (0..ids.len()).map(|i| format!("{i}.jpg")).collect();
    let entries: Vec<Entry<'_>> = names
        .iter()
        .zip(ids)
        .map(|(name, id)| Entry {
            id: *id,
            label: ["pear", "apple"][usize::from(id.0[0]) % 2],
            name,
        })
        .collect();
    let source = GallerySource {
        space,
        teacher: "teacher".to_owned(),
        manifest: Fingerprint([1; 32]),
        codes,
    };
    gallery::write(&source, rows, &entries).unwrap()
}

pub(crate) fn pixels(seed: u64) -> Pixels {
    let mut random = Random::new(seed);
    let n_values = (3 * SIDE * SIDE) as usize;
    Pixels {
        side: SIDE,
        values_chw: (0..n_values).map(|_| random.normal() as f32).collect(),
    }
}

pub(crate) fn node(
    op_type: &str,
    inputs: &[&str],
    output: &str,
    attribute: Vec<pb::AttributeProto>,
) -> pb::NodeProto {
    pb::NodeProto {
        op_type: op_type.to_owned(),
        name: output.to_owned(),
        input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    }
}

pub(crate) fn int(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: pb::attribute_proto::AttributeType::Int as i32,
        i: value,
        ..Default::default()
    }
}

pub(crate) fn float(name: &str, f: f32) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: pb::attribute_proto::AttributeType::Float as i32,
        f,
        ..Default::default()
    }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: pb::attribute_proto::AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn tensor(name: &str, dims: &[i64], values: &[f32]) -> pb::TensorProto {
    raw_tensor(
        name,
        dims,
        pb::tensor_proto::DataType::Float,
        f32_bytes(values),
    )
}

pub(crate) fn raw_tensor(
    name: &str,
    dims: &[i64],
    data_type: pb::tensor_proto::DataType,
    raw_data: Vec<u8>,
) -> pb::TensorProto {
    pb::TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: data_type as i32,
        raw_data,
        ..Default::default()
    }
}

pub(crate) fn value(name: &str, dims: &[i64]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |&extent: &i64| Dimension {
        value: Some(Value::DimValue(extent)),
        ..Default::default()
    };
    let tensor = pb::type_proto::Tensor {
        elem_type: pb::tensor_proto::DataType::Float as i32,
        shape: Some(pb::TensorShapeProto {
            dim: dims.iter().map(dim).collect(),
        }),
    };
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Weights of the test network in the order of their use.
pub(crate) fn weights(dim: i64) -> [Vec<f32>; 4] {
    let mut random = Random::new(11);
    [CHANNELS * 27, CHANNELS, dim * CHANNELS, dim]
        .map(|n| (0..n).map(|_| random.range(-0.5, 0.5) as f32).collect())
}

/// Conv 3x3 (stride 2, padding 1), ReLU, global average pool, linear.
pub(crate) fn model(dim: i64) -> pb::ModelProto {
    let side = i64::from(SIDE);
    let [conv_w, conv_b, head_w, head_b] = weights(dim);
    let conv = vec![
        ints("kernel_shape", &[3, 3]),
        ints("pads", &[1; 4]),
        ints("strides", &[2; 2]),
    ];
    let graph = pb::GraphProto {
        name: "test".to_owned(),
        node: vec![
            node("Conv", &["image", "conv_w", "conv_b"], "conv", conv),
            node("Relu", &["conv"], "relu", vec![]),
            node("GlobalAveragePool", &["relu"], "pool", vec![]),
            node("Flatten", &["pool"], "flat", vec![int("axis", 1)]),
            node(
                "Gemm",
                &["flat", "head_w", "head_b"],
                "embedding",
                vec![int("transB", 1)],
            ),
        ],
        initializer: vec![
            tensor("conv_w", &[CHANNELS, 3, 3, 3], &conv_w),
            tensor("conv_b", &[CHANNELS], &conv_b),
            tensor("head_w", &[dim, CHANNELS], &head_w),
            tensor("head_b", &[dim], &head_b),
        ],
        input: vec![value("image", &[1, 3, side, side])],
        output: vec![value("embedding", &[1, dim])],
        ..Default::default()
    };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto {
            domain: String::new(),
            version: 13,
        }],
        graph: Some(graph),
        ..Default::default()
    }
}

/// The bytes of a [`model`] after a change to its graph.
pub(crate) fn onnx_with(dim: i64, change: impl FnOnce(&mut pb::GraphProto)) -> Vec<u8> {
    let mut model = model(dim);
    change(model.graph.as_mut().unwrap());
    model.encode_to_vec()
}

pub(crate) fn onnx(dim: i64) -> Vec<u8> {
    onnx_with(dim, |_| {})
}

/// A bundle around these ONNX bytes that fits them in all but what they compute.
pub(crate) fn bundle_around(onnx: &[u8], dim: u32, probes: Embeddings) -> Vec<u8> {
    let preprocess = PreprocessSpec {
        resize_shorter: 20,
        crop: SIDE,
        filter: Filter::Bilinear,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    };
    let mut hasher = ProbeHasher::new();
    for pixels in probe_pixels(&preprocess, probes.n_rows()) {
        hasher.update(&pixels);
    }
    let header = BundleHeader {
        name: "test".to_owned(),
        architecture: "test".to_owned(),
        precision: Precision::F32,
        preprocess,
        dim,
        space: space(7),
        n_parameters: 1,
        multiply_adds: 1,
        onnx: Fingerprint::of_bytes(onnx),
        probe_pixels: hasher.finish(),
        verification: Verification {
            n_images: 1,
            min_cosine: 1.0,
            tolerance: 0.9999,
        },
        provenance: Provenance {
            eyas_version: "0".to_owned(),
            recipe: Fingerprint([2; 32]),
            seed: 1,
            teacher: "teacher".to_owned(),
            manifest: Fingerprint([1; 32]),
        },
    };
    Bundle {
        header,
        onnx,
        probe_embeddings: probes,
        calibrations: Vec::new(),
        memory_bytes: None,
    }
    .to_bytes()
}

/// A calibration for this gallery with these thresholds, and with the least that makes sense
/// beside them: no offsets, no witnesses, no probes.
pub(crate) fn calibration_of(
    gallery: &Gallery<'_>,
    match_score: f32,
    unknown_score: f32,
    margin: f32,
) -> Calibration {
    Calibration {
        gallery: GalleryIdentity::of(gallery),
        row_encoding: gallery.codes().scoring(),
        thresholds: Thresholds {
            match_score,
            unknown_score,
            margin,
        },
        offsets: Vec::new(),
        evidence: Evidence {
            wanted_false_match_rate: 0.01,
            wanted_false_reject_rate: 0.05,
            wanted_wrong_match_rate: 0.05,
            unknown_share: 0.5,
            confidence: 0.95,
            n_known: 1,
            n_known_labels: 1,
            n_unknown: 1,
            n_unknown_labels: 1,
            design_effect: 1.0,
            false_matches: 0,
            false_match_bound: 0.95,
            right_matches: 1,
            wrong_matches: 0,
            false_rejects: 0,
        },
        curve: vec![CurveBin {
            from: NO_SCORE,
            probability: 0.5,
            low: 0.1,
            high: 0.9,
            n_right: 1,
            n_wrong: 0,
            n_unknown: 1,
        }],
        witnesses: Vec::new(),
        witness_embeddings: Vec::new(),
        probe_scores: Vec::new(),
        manifest: Fingerprint([0; 32]),
        eyas_version: "0".to_owned(),
    }
}

/// A whole bundle whose probes are right.
pub(crate) fn bundle(dim: u32) -> Vec<u8> {
    let onnx = onnx(i64::from(dim));
    let draft = bundle_around(&onnx, dim, embeddings(2, dim as usize, 1));
    let draft = Bundle::read(&draft).unwrap();
    let encoder = Encoder::load(&draft).unwrap();
    let mut probes = Embeddings::new(dim as usize);
    for pixels in probe_pixels(encoder.preprocess(), 2) {
        probes.push(&encoder.encode(&pixels).unwrap());
    }
    bundle_around(&onnx, dim, probes)
}
