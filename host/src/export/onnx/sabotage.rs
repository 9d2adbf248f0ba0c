//! Files and students that are wrong in one place: the gate stops each, and names the place.
//!
//! Here because a file is broken by editing its protobuf, which only the writer's module
//! names.

use std::path::Path;

use eyas_shared::bundle::Precision;
use eyas_shared::preprocess::Filter;
use prost::Message;
use tract_onnx::pb;

use super::super::diagnose::Trained;
use super::super::tests::student;
use super::super::{Cause, ExportError, Exporter, Reference, verify};
use crate::student::TrainedStudent;
use crate::weights::Weight;
use eyas_shared::quant;

/// Convolutions of 48 and 80 channels at two sizes, batch norm, ReLU, residual sums.
const ARCHITECTURE: &str = "eyas-xs";

/// Runs the gate on a file that was changed after it had been written.
fn of_changed_file(
    precision: Precision,
    change: impl Fn(&mut pb::GraphProto, &TrainedStudent),
) -> ExportError {
    let folder = tempfile::tempdir().unwrap();
    let student = student(ARCHITECTURE, folder.path());
    let reference = Reference::read(&student, folder.path()).unwrap();
    let exporter = Exporter::new(&student, &reference).unwrap();
    let candidate = exporter.candidate(precision).unwrap();
    let right = exporter.verified(&candidate).unwrap();
    let mut model = pb::ModelProto::decode(right.onnx()).unwrap();
    change(model.graph.as_mut().unwrap(), &student);
    let file = model.encode_to_vec();
    assert_ne!(file, right.onnx(), "nothing was changed");
    let trained = match precision {
        Precision::F32 => Trained {
            network: &student.network,
            weights: &student.weights,
            folded: &exporter.folded,
        },
        _ => Trained {
            network: &exporter.folded,
            weights: &candidate.choice.weights,
            folded: &exporter.folded,
        },
    };
    let writer = exporter.writer();
    let draft = writer.draft(&file, precision);
    match verify::gate(&draft, &exporter.samples(), trained) {
        Ok(_) => panic!("the gate let it pass"),
        Err(err) => err,
    }
}

/// Exports a student that is not the one that libtorch embedded with.
fn of_changed_student(change: impl Fn(&mut TrainedStudent)) -> ExportError {
    let folder = tempfile::tempdir().unwrap();
    let mut student = student(ARCHITECTURE, folder.path());
    change(&mut student);
    let reference = Reference::read(&student, folder.path()).unwrap();
    match Exporter::new(&student, &reference) {
        Ok(_) => panic!("the gate let it pass"),
        Err(err) => err,
    }
}

#[track_caller]
fn blames(err: &ExportError, layer: &str) {
    assert!(err.is_disagreement(), "{err}");
    let ExportError::Disagreement {
        cause, agreement, ..
    } = err
    else {
        panic!("{err}");
    };
    assert!(!agreement.worst_image.is_empty());
    match cause {
        Some(Cause::Layer { name, .. }) => assert_eq!(name, layer, "{err}"),
        other => panic!("{other:?}"),
    }
    let text = err.to_string();
    assert!(text.contains(&format!("differs is `{layer}`")), "{text}");
    assert!(text.contains(&agreement.worst_image), "{text}");
}

#[track_caller]
fn blames_the_student(err: &ExportError) {
    let ExportError::Disagreement { cause, .. } = err else {
        panic!("{err}");
    };
    assert_eq!(*cause, Some(Cause::NotTheTrained), "{err}");
    assert!(err.to_string().contains("those that libtorch had"), "{err}");
}

fn tensor<'g>(graph: &'g mut pb::GraphProto, name: &str) -> &'g mut pb::TensorProto {
    let mut tensors = graph.initializer.iter_mut();
    tensors.find(|tensor| tensor.name == name).expect(name)
}

fn tensor_of<'g>(graph: &'g pb::GraphProto, name: &str) -> &'g pb::TensorProto {
    let mut tensors = graph.initializer.iter();
    tensors.find(|tensor| tensor.name == name).expect(name)
}

/// Rewrites the f32 values of a stored tensor.
fn rewrite(graph: &mut pb::GraphProto, name: &str, change: impl Fn(&[f32]) -> Vec<f32>) {
    let tensor = tensor(graph, name);
    let changed = change(&quant::f32_from_bytes(&tensor.raw_data));
    assert_eq!(changed.len() * 4, tensor.raw_data.len());
    tensor.raw_data = quant::f32_bytes(&changed);
}

fn node<'g>(graph: &'g mut pb::GraphProto, name: &str) -> &'g mut pb::NodeProto {
    let mut nodes = graph.node.iter_mut();
    nodes.find(|node| node.name == name).expect(name)
}

fn weight<'s>(student: &'s mut TrainedStudent, name: &str) -> &'s mut Weight {
    student.weights.0.get_mut(name).expect(name)
}

#[test]
fn a_transposed_weight_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        rewrite(graph, "body.1.weight", |values| {
            let (n, area) = (96, 9);
            let at = |i: usize| ((i / area % n) * n + i / area / n) * area + i % area;
            (0..values.len()).map(|i| values[at(i)]).collect()
        });
    });
    blames(&err, "body.1");
}

#[test]
fn a_batch_norm_that_was_not_folded_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, student| {
        let unfolded = &student.weights.0["stem.conv.weight"].values;
        rewrite(graph, "stem.conv.weight", |_| unfolded.clone());
        rewrite(graph, "stem.conv.bias", |bias| vec![0.0; bias.len()]);
    });
    blames(&err, "stem.conv");
}

#[test]
fn padding_on_the_wrong_sides_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        let conv = node(graph, "body.0");
        let mut attributes = conv.attribute.iter_mut();
        let pads = attributes.find(|it| it.name == "pads").unwrap();
        pads.ints = vec![0, 0, 2, 2];
    });
    blames(&err, "body.0");
}

#[test]
fn blue_in_the_place_of_red_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        rewrite(graph, "stem.conv.weight", |values| {
            let planes: Vec<&[f32]> = values.chunks_exact(16).collect();
            let swapped = planes
                .chunks_exact(3)
                .flat_map(|rgb| [rgb[2], rgb[1], rgb[0]]);
            swapped.flatten().copied().collect()
        });
    });
    blames(&err, "stem.conv");
}

#[test]
fn an_embedding_without_normalization_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        let head = graph.node.iter().position(|node| node.name == "head");
        graph.node.truncate(head.unwrap() + 1);
        graph.node.last_mut().unwrap().output[0] = super::OUTPUT.to_owned();
    });
    // The encoder would normalize it and hide the fault from everybody but other readers.
    assert!(err.is_disagreement());
    let text = err.to_string();
    assert!(text.contains("not normalized in the graph"), "{text}");
}

#[test]
fn scales_of_other_channels_are_stopped() {
    let err = of_changed_file(Precision::Int8, |graph, _| {
        rewrite(graph, "body.1.weight.scale", |scales| {
            scales.iter().rev().copied().collect()
        });
    });
    blames(&err, "body.1");
}

#[test]
fn weights_of_another_step_are_stopped() {
    let err = of_changed_student(|student| {
        for weight in student.weights.0.values_mut() {
            for (i, value) in weight.values.iter_mut().enumerate() {
                *value *= if i % 2 == 0 { 1.03 } else { 0.97 };
            }
        }
    });
    blames_the_student(&err);
}

#[test]
fn a_dropped_bias_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        rewrite(graph, "body.0.bias", |bias| vec![0.0; bias.len()]);
    });
    blames(&err, "body.0");
}

#[test]
fn a_kernel_upside_down_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        rewrite(graph, "body.1.weight", |values| {
            let taps = values.chunks_exact(9);
            taps.flat_map(|taps| taps.iter().rev()).copied().collect()
        });
    });
    blames(&err, "body.1");
}

#[test]
fn an_activation_left_out_is_stopped() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        node(graph, "to_body.relu").op_type = "Identity".to_owned();
    });
    blames(&err, "to_body.relu");
}

#[test]
fn other_statistics_of_pixels_are_stopped() {
    let err = of_changed_student(|student| {
        student.preprocess.mean = [0.5; 3];
        student.preprocess.std = [0.5; 3];
    });
    blames_the_student(&err);
}

#[test]
fn another_filter_and_another_crop_are_stopped() {
    blames_the_student(&of_changed_student(|student| {
        student.preprocess.filter = Filter::Bicubic;
    }));
    blames_the_student(&of_changed_student(|student| {
        student.preprocess.resize_shorter += 4;
    }));
}

#[test]
fn two_swapped_layers_are_stopped_at_the_first() {
    let err = of_changed_file(Precision::F32, |graph, _| {
        for suffix in ["weight", "bias"] {
            let names = [0, 1].map(|layer| format!("body.{layer}.{suffix}"));
            let [a, b] = names
                .each_ref()
                .map(|name| tensor(graph, name).raw_data.clone());
            tensor(graph, &names[0]).raw_data = b;
            tensor(graph, &names[1]).raw_data = a;
        }
    });
    blames(&err, "body.0");
}

#[test]
fn a_zero_point_that_is_not_zero_is_stopped() {
    let err = of_changed_file(Precision::Int8, |graph, _| {
        let zero = tensor(graph, "wide.conv.weight.zero_point");
        zero.raw_data.iter_mut().for_each(|byte| *byte = 3);
    });
    blames(&err, "wide.conv");
}

#[test]
fn swapped_scales_of_activations_are_stopped() {
    let err = of_changed_file(Precision::FullInt8, |graph, _| {
        let mut scales: Vec<(f32, String)> = Vec::new();
        for node in graph
            .node
            .iter()
            .filter(|it| it.op_type == "QuantizeLinear")
        {
            let stored = tensor_of(graph, &node.input[1]);
            let scale = quant::f32_from_bytes(&stored.raw_data)[0];
            scales.push((scale, node.input[1].clone()));
        }
        scales.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (least, most) = (&scales[0], &scales[scales.len() - 1]);
        rewrite(graph, &least.1, |_| vec![most.0]);
        rewrite(graph, &most.1, |_| vec![least.0]);
    });
    assert!(err.is_disagreement(), "{err}");
    let text = err.to_string();
    assert!(text.contains("first layer that differs"), "{text}");
}

#[test]
fn a_grid_that_reaches_nowhere_near_is_stopped() {
    let err = of_changed_file(Precision::FullInt8, |graph, _| {
        rewrite(graph, "to_body.relu.scale", |scale| vec![0.1 * scale[0]]);
    });
    blames(&err, "to_body.relu");
}

#[test]
fn a_zero_point_of_activations_that_was_moved_is_stopped() {
    let err = of_changed_file(Precision::FullInt8, |graph, _| {
        tensor(graph, "body.0.relu.zero_point").raw_data = vec![250];
    });
    blames(&err, "body.0.relu");
}

#[test]
fn rounding_that_adds_up_names_the_layer_that_is_off_the_most() {
    let err = of_changed_file(Precision::Int8, |graph, _| {
        let is_code = |it: &&mut pb::TensorProto| it.name.ends_with(".weight");
        for codes in graph.initializer.iter_mut().filter(is_code) {
            for byte in &mut codes.raw_data {
                let code = i8::from_le_bytes([*byte]);
                *byte = (code / 2 * 2).to_le_bytes()[0];
            }
        }
    });
    let text = err.to_string();
    assert!(text.contains("rounding adds up"), "{text}");
    assert!(text.contains("` is off the most"), "{text}");
}

#[test]
fn a_stale_weight_file_beside_a_reference_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut student = student(ARCHITECTURE, folder.path());
    weight(&mut student, "wide.norm.bias").values[0] += 0.5;
    let reference = Reference::read(&student, folder.path()).unwrap();
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        // There is no bundle that could be saved.
        let err = super::super::export(&student, &reference, precision).unwrap_err();
        blames_the_student(&err);
    }
    assert_eq!(files_in(folder.path()), ["a"], "the pictures' folder alone");
}

fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}
