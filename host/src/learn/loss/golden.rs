//! Losses against values and gradients of their authors' code (`shared/golden` beside the
//! checkout; the tests say so when it is absent).

use std::collections::HashMap;
use std::path::PathBuf;

use tch::{Kind, Tensor};

use super::*;

/// Largest relative difference of a value in f64.
const VALUE_TOLERANCE: f64 = 1e-9;
/// Largest difference of a gradient in f64, relative to its largest component.
const GRADIENT_TOLERANCE: f64 = 1e-8;
/// Largest relative difference of a value in f32.
const F32_TOLERANCE: f64 = 5e-6;

struct Golden {
    folder: PathBuf,
    case: &'static str,
}

impl Golden {
    fn open(case: &'static str) -> Option<Self> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden"));
        if folder.is_dir() {
            return Some(Self { folder, case });
        }
        eprintln!("skipped: {} is not there", folder.display());
        None
    }

    fn file(&self, stem: &str) -> HashMap<String, Tensor> {
        let path = self.folder.join(format!("{stem}_{}.npz", self.case));
        Tensor::read_npz(path).unwrap().into_iter().collect()
    }
}

/// Compares value, gradient and f32 value of one loss with the entry's.
fn check(
    name: &str,
    outputs: &HashMap<String, Tensor>,
    inputs: &[(&str, Tensor)],
    loss: &dyn Fn(&[Tensor]) -> Tensor,
) {
    let golden = |key: &str| &outputs[&format!("{name}/{key}")];
    let tensors: Vec<Tensor> = inputs
        .iter()
        .map(|(gradient, tensor)| tensor.copy().set_requires_grad(!gradient.is_empty()))
        .collect();
    let value = loss(&tensors);
    value.backward();
    let expected = golden("loss").double_value(&[0]);
    let relative = (value.double_value(&[]) - expected).abs() / expected.abs();
    assert!(
        relative < VALUE_TOLERANCE,
        "{name}: value off by {relative:e}"
    );
    for ((gradient, _), tensor) in inputs.iter().zip(&tensors) {
        if gradient.is_empty() {
            continue;
        }
        let expected = golden(gradient);
        let off = (tensor.grad() - expected).abs().max().double_value(&[]);
        let largest = expected.abs().max().double_value(&[]);
        assert!(
            off < GRADIENT_TOLERANCE * largest,
            "{name}: {gradient} off by {off:e}"
        );
    }
    let floats: Vec<Tensor> = inputs
        .iter()
        .map(|(_, tensor)| match tensor.kind() {
            Kind::Double => tensor.to_kind(Kind::Float),
            _ => tensor.shallow_clone(),
        })
        .collect();
    let relative = (loss(&floats).double_value(&[]) - expected).abs() / expected.abs();
    assert!(
        relative < F32_TOLERANCE,
        "{name}: f32 value off by {relative:e}"
    );
}

#[test]
fn relaxed_contrastive_agrees_with_its_authors() {
    for golden in ["a", "b"].into_iter().filter_map(Golden::open) {
        let (inputs, outputs) = (golden.file("inputs"), golden.file("lr"));
        for (sigma, delta) in [(1.0, 1.0), (0.5, 1.5)] {
            check(
                &format!("rc_sigma{sigma:.1}_delta{delta:.1}"),
                &outputs,
                &[
                    ("grad_student", inputs["s"].copy()),
                    ("", inputs["t"].copy()),
                ],
                &|x| relaxed_contrastive(&x[0], &x[1], RelaxedContrastive { sigma, delta }),
            );
        }
    }
}

#[test]
fn proxy_anchor_agrees_with_its_authors() {
    for golden in ["a", "b"].into_iter().filter_map(Golden::open) {
        let (inputs, outputs) = (golden.file("inputs"), golden.file("lr"));
        let labels = inputs["labels"].copy();
        check(
            "lr_proxy_anchor",
            &outputs,
            &[
                ("grad_student", inputs["s"].copy()),
                ("grad_proxies", inputs["proxies"].copy()),
            ],
            &|x| {
                proxy_anchor(
                    &x[0],
                    &labels,
                    &x[1],
                    ProxyAnchor {
                        alpha: 32.0,
                        margin: 0.1,
                    },
                )
            },
        );
    }
}

#[test]
fn regression_agrees_with_its_authors() {
    for golden in ["a", "b"].into_iter().filter_map(Golden::open) {
        let outputs = golden.file("aml");
        // Columns: student, teacher. The authors' gradient flows into both and stops at the
        // unit vectors; only the value has the same meaning here.
        let columns = outputs["aml_reg/in_x"].transpose(0, 1).contiguous();
        let value = regression(&columns.narrow(0, 0, 1), &columns.narrow(0, 1, 1));
        let expected = outputs["aml_reg/loss"].double_value(&[0]);
        let relative = (value.double_value(&[]) - expected).abs() / expected;
        assert!(relative < VALUE_TOLERANCE, "value off by {relative:e}");
    }
}

#[test]
fn proxy_anchor_does_not_overflow_where_exponentials_would() {
    let embeddings = Tensor::from_slice(&[1.0_f32, 0.0, -1.0, 0.0]).view([2, 2]);
    let labels = Tensor::from_slice(&[0_i64, 1]);
    let config = ProxyAnchor {
        alpha: 1e4,
        margin: 0.1,
    };
    let value = proxy_anchor(&embeddings, &labels, &embeddings.neg(), config);
    assert!(value.double_value(&[]).is_finite());
}
