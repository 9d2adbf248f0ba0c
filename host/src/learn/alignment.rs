//! Closed-form maps from a student's own frame into its teacher's space, folded into the
//! head: they cost the device nothing.
//!
//! Relational losses see only distances within the student's space, so its frame is
//! arbitrary until it is mapped.

use tch::{Kind, Tensor};

use super::network::{TorchNetwork, values_of};
use crate::recipe::Map;
use crate::weights::{Weight, Weights};
use crate::zoo::HEAD;

/// y = x matrix + offset, with `matrix` dim x dim.
struct AffineMap {
    matrix: Tensor,
    offset: Tensor,
}

/// Fits a map from head outputs `student` (N x D) to unit teacher embeddings `teacher`
/// (N x D) and folds it into the network's head.
pub(super) fn align(
    network: &TorchNetwork,
    student: &Tensor,
    teacher: &Tensor,
    map: Map,
) -> Weights {
    let mut weights = network.weights();
    let (student, teacher) = (student.to_kind(Kind::Double), teacher.to_kind(Kind::Double));
    let fitted = match map {
        Map::None => return weights,
        Map::Ridge { penalty } => fit_ridge(&student, &teacher, penalty),
        Map::Procrustes => fit_procrustes(&student, &teacher),
    };
    fold_into_head(&mut weights, &fitted);
    weights
}

fn column_means(rows: &Tensor) -> Tensor {
    rows.mean_dim([0].as_slice(), true, None::<Kind>)
}

/// Minimizes |S W + b - T|^2 + penalty * v * |W|^2, v = N * mean variance of S's columns.
fn fit_ridge(student: &Tensor, teacher: &Tensor, penalty: f64) -> AffineMap {
    let (student_mean, teacher_mean) = (column_means(student), column_means(teacher));
    let (s, t) = (student - &student_mean, teacher - &teacher_mean);
    let gram = s.transpose(0, 1).matmul(&s);
    let dim = gram.size()[0];
    let ridge =
        Tensor::eye(dim, (gram.kind(), gram.device())) * (gram.trace() / dim as f64) * penalty;
    let matrix = Tensor::linalg_solve(&(gram + ridge), &s.transpose(0, 1).matmul(&t), true);
    let offset = teacher_mean - student_mean.matmul(&matrix);
    AffineMap { matrix, offset }
}

/// Minimizes |scale * (S - mean) R + mean - T|^2 over rotations R and the scale (Schönemann
/// 1966; Schönemann and Carroll 1970).
fn fit_procrustes(student: &Tensor, teacher: &Tensor) -> AffineMap {
    let (student_mean, teacher_mean) = (column_means(student), column_means(teacher));
    let (s, t) = (student - &student_mean, teacher - &teacher_mean);
    let (u, singular_values, v) = s.transpose(0, 1).matmul(&t).svd(true, true);
    let scale = singular_values.sum(Kind::Double) / s.square().sum(Kind::Double);
    let matrix = u.matmul(&v.transpose(0, 1)) * scale;
    let offset = teacher_mean - student_mean.matmul(&matrix);
    AffineMap { matrix, offset }
}

/// The head computes x A^T + a; afterwards (x A^T + a) W + b = x (W^T A)^T + (a W + b).
fn fold_into_head(weights: &mut Weights, map: &AffineMap) {
    let tensor = |name: &str| {
        let weight = &weights.0[name];
        let shape: Vec<i64> = weight.shape.iter().map(|&extent| extent as i64).collect();
        Tensor::from_slice(&weight.values)
            .view(shape.as_slice())
            .to_kind(Kind::Double)
    };
    let (weight_name, bias_name) = (format!("{HEAD}.weight"), format!("{HEAD}.bias"));
    let matrix = map.matrix.to_device(tch::Device::Cpu);
    let offset = map.offset.to_device(tch::Device::Cpu);
    let weight = matrix.transpose(0, 1).matmul(&tensor(&weight_name));
    let bias = tensor(&bias_name).unsqueeze(0).matmul(&matrix) + offset;
    for (name, folded) in [(weight_name, weight), (bias_name, bias)] {
        let shape = weights.0[&name].shape.clone();
        weights.0.insert(
            name,
            Weight {
                shape,
                values: values_of(&folded),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(rows: i64, columns: i64, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([rows, columns], (Kind::Double, tch::Device::Cpu))
    }

    fn largest(difference: &Tensor) -> f64 {
        difference.abs().max().double_value(&[])
    }

    #[test]
    fn a_rotated_scaled_and_shifted_space_is_found_back() {
        let teacher = normal(50, 6, 1);
        let (rotation, _) = Tensor::linalg_qr(&normal(6, 6, 2), "reduced");
        let student = teacher.matmul(&rotation) * 3.0 + 5.0;
        for fitted in [
            fit_procrustes(&student, &teacher),
            fit_ridge(&student, &teacher, 0.0),
        ] {
            let mapped = student.matmul(&fitted.matrix) + &fitted.offset;
            assert!(largest(&(mapped - &teacher)) < 1e-9);
        }
    }

    #[test]
    fn procrustes_only_rotates_and_scales() {
        let fitted = fit_procrustes(&normal(40, 5, 3), &normal(40, 5, 4));
        let gram = fitted.matrix.transpose(0, 1).matmul(&fitted.matrix);
        let scale = gram.get(0).double_value(&[0]);
        let identity = Tensor::eye(5, (Kind::Double, tch::Device::Cpu)) * scale;
        assert!(largest(&(gram - identity)) < 1e-12);
    }

    #[test]
    fn a_folded_head_puts_out_mapped_embeddings() {
        let description = crate::zoo::by_name("eyas-xs", 6).unwrap();
        let weights = crate::zoo::init::random_weights(&description, 3);
        let network = TorchNetwork::new(description, &weights, tch::Device::Cpu).unwrap();
        let pooled = normal(9, 192, 5).to_kind(Kind::Float);
        let head = |weights: &Weights| {
            let part =
                |name: &str| super::super::network::tensor_of(&weights.0[name], tch::Device::Cpu);
            pooled.linear(&part("head.weight"), Some(&part("head.bias")))
        };
        let student = head(&network.weights());
        let teacher = normal(9, 6, 6);
        let fitted = fit_ridge(&student.to_kind(Kind::Double), &teacher, 0.1);
        let aligned = align(&network, &student, &teacher, Map::Ridge { penalty: 0.1 });
        let expected = student.to_kind(Kind::Double).matmul(&fitted.matrix) + fitted.offset;
        assert!(largest(&(head(&aligned).to_kind(Kind::Double) - expected)) < 1e-5);
    }
}
