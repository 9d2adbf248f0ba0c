//! Closed-form maps from a student's own frame into its teacher's space, or into a whitened
//! one of its own, folded into the head: they cost the device nothing.
//!
//! Relational losses see only distances within the student's space, so its frame is
//! arbitrary until it is mapped.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::network::{TorchNetwork, values_of};
use crate::linear_algebra::Matrix;
use crate::recipe::Map;
use crate::teacher::whitening::{self, Whitening, WhiteningError};
use crate::weights::{Weight, Weights};
use crate::zoo::HEAD;

/// y = x matrix + offset, with `matrix` dim x dim.
struct AffineMap {
    matrix: Tensor,
    offset: Tensor,
}

/// Fits a map from head outputs `student` (N x D) to unit teacher embeddings `teacher`
/// (N x D) and folds it into the network's head. Whitening is no map to a teacher: see
/// [`whiten`].
pub(super) fn align(
    network: &TorchNetwork,
    student: &Tensor,
    teacher: &Tensor,
    map: Map,
) -> Weights {
    let mut weights = network.weights();
    let (student, teacher) = (student.to_kind(Kind::Double), teacher.to_kind(Kind::Double));
    let fitted = match map {
        Map::None | Map::Whitening { .. } => return weights,
        Map::Ridge { penalty } => fit_ridge(&student, &teacher, penalty),
        Map::Procrustes => fit_procrustes(&student, &teacher),
    };
    fold_into_head(&mut weights, &fitted);
    weights
}

/// Learns a whitening from head outputs `student` (N x D) of pairs that show the same, and
/// folds it into the network's head.
///
/// It is learned before embeddings are scaled to length 1, as only such a map can be folded.
///
/// # Errors
/// If there are no pairs, or too few for so many dimensions.
pub(super) fn whiten(
    network: &TorchNetwork,
    student: &Tensor,
    pairs: &[(usize, usize)],
) -> Result<Weights, WhiteningError> {
    let learned = whitening::learn_from_pairs(&matrix_of(student), pairs)?;
    let mut weights = network.weights();
    fold_into_head(&mut weights, &AffineMap::of(&learned));
    Ok(weights)
}

/// Each image with the next one of its label, the last with the first; none of labels that
/// stand once.
pub(super) fn neighbors_of_labels(labels: &[i64]) -> Vec<(usize, usize)> {
    let mut of_label: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (image, label) in labels.iter().enumerate() {
        of_label.entry(*label).or_default().push(image);
    }
    let several = of_label.values().filter(|images| images.len() > 1);
    several
        .flat_map(|images| {
            let next = images.iter().cycle().skip(1);
            images.iter().copied().zip(next.copied())
        })
        .collect()
}

fn matrix_of(rows: &Tensor) -> Matrix {
    let (n_rows, dim) = (rows.size()[0] as usize, rows.size()[1] as usize);
    let mut matrix = Matrix::zeros(n_rows, dim);
    for (row_idx, row) in values_of(rows).chunks(dim).enumerate() {
        let out = matrix.row_mut(row_idx).iter_mut();
        out.zip(row).for_each(|(out, x)| *out = f64::from(*x));
    }
    matrix
}

impl AffineMap {
    /// P (x - m) is x P^T - m P^T.
    fn of(whitening: &Whitening) -> Self {
        let rows: Vec<f64> = whitening.matrix.rows().flatten().copied().collect();
        let dim = whitening.mean.len() as i64;
        let matrix = Tensor::from_slice(&rows).view([-1, dim]).transpose(0, 1);
        let mean = Tensor::from_slice(&whitening.mean).unsqueeze(0);
        let offset = mean.matmul(&matrix).neg();
        Self { matrix, offset }
    }
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
    fn each_image_is_paired_with_the_next_of_its_label() {
        let pairs = neighbors_of_labels(&[4, 0, 4, 1, 0, 4]);
        assert_eq!(pairs, [(1, 4), (4, 1), (0, 2), (2, 5), (5, 0)]);
    }

    /// Weights are f32, and whitening enlarges the directions that vary least.
    const FOLDED: f64 = 1e-4;

    #[test]
    fn a_whitened_student_is_the_student_followed_by_the_whitening() {
        use super::super::network::Mode;
        let dim = 6;
        let description = crate::zoo::by_name("eyas-xs", dim).unwrap();
        let weights = crate::zoo::init::random_weights(&description, 3);
        let cpu = tch::Device::Cpu;
        let network = TorchNetwork::new(description.clone(), &weights, cpu).unwrap();
        tch::manual_seed(4);
        let images = Tensor::randn([40, 3, 32, 32], (Kind::Float, cpu));
        let outputs =
            |network: &TorchNetwork| tch::no_grad(|| network.head_output(&images, Mode::Evaluate));
        let student = outputs(&network);
        let labels: Vec<i64> = (0..40).map(|image| image % 8).collect();
        let pairs = neighbors_of_labels(&labels);
        let folded = whiten(&network, &student, &pairs).unwrap();
        assert_ne!(folded.0["head.weight"], weights.0["head.weight"]);
        let folded = TorchNetwork::new(description, &folded, cpu).unwrap();

        let rows = matrix_of(&student);
        let learned = whitening::learn_from_pairs(&rows, &pairs).unwrap();
        let found = super::super::distance::l2_normalize(&outputs(&folded));
        for (row_idx, found) in values_of(&found).chunks(dim).enumerate() {
            let expected = learned.apply(rows.row(row_idx), dim);
            for (a, b) in expected.iter().zip(found) {
                assert!((a - f64::from(*b)).abs() < FOLDED, "{expected:?} {found:?}");
            }
        }
        // Differences within pairs are white, before embeddings are scaled to length 1.
        let mapped = matrix_of(&outputs(&folded));
        let covariance = |i: usize, j: usize| -> f64 {
            let difference =
                |k: usize, pair: &(usize, usize)| mapped.row(pair.0)[k] - mapped.row(pair.1)[k];
            let products = pairs
                .iter()
                .map(|pair| difference(i, pair) * difference(j, pair));
            products.sum::<f64>() / pairs.len() as f64
        };
        for (i, j) in (0..dim).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            let expected = f64::from(u8::from(i == j));
            assert!((covariance(i, j) - expected).abs() < 1e-2, "{i} {j}");
        }
        assert!(whiten(&network, &student, &[]).is_err());
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
