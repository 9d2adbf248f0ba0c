//! Losses that compare what rows of a batch have to do with each other: similarity
//! preserving, correlation congruence; and plain hints on embeddings.

use tch::{Kind, Reduction, Tensor};

use crate::learn::distance::l2_normalize;
use crate::recipe::loss::CorrelationCongruence;

/// Similarity preserving (Tung and Mori, ICCV 2019): squared difference of the Gram
/// matrices, whose rows are scaled to length 1; mean over all N^2 entries.
pub(in crate::learn) fn similarity_preserving(student: &Tensor, teacher: &Tensor) -> Tensor {
    let similarities = |rows: &Tensor| l2_normalize(&rows.matmul(&rows.transpose(0, 1)));
    similarities(student).mse_loss(&similarities(teacher), Reduction::Mean)
}

/// Correlation congruence (Peng et al., ICCV 2019): squared difference of the matrices of
/// Gaussian kernels of unit rows, expanded to a Taylor series as the paper does; mean over
/// all N^2 entries.
pub(in crate::learn) fn correlation_congruence(
    student: &Tensor,
    teacher: &Tensor,
    settings: &CorrelationCongruence,
) -> Tensor {
    let kernel = |rows: &Tensor| {
        let unit = l2_normalize(rows);
        let dots = unit.matmul(&unit.transpose(0, 1));
        let two_gamma = 2.0 * settings.gamma;
        let (mut term, mut sum) = (dots.ones_like(), dots.ones_like());
        for power in 1..=settings.order {
            term = &term * &dots * (two_gamma / power as f64);
            sum += &term;
        }
        // exp(-gamma |a - b|^2) = exp(-2 gamma) exp(2 gamma a.b) for unit rows.
        sum * (-two_gamma).exp()
    };
    kernel(student).mse_loss(&kernel(teacher), Reduction::Mean)
}

/// What RepDistiller runs under the name of correlation congruence: products of the
/// absolute differences |s - t| of rows that follow each other in the batch, summed over
/// components; mean over the N - 1 pairs.
pub(in crate::learn) fn successive_differences(student: &Tensor, teacher: &Tensor) -> Tensor {
    let pairs = student.size()[0] - 1;
    let differences = (student - teacher).abs();
    let products = differences.narrow(0, 0, pairs) * differences.narrow(0, 1, pairs);
    products
        .sum_dim_intlist([1].as_slice(), false, None::<Kind>)
        .mean(student.kind())
}

/// Squared difference of embeddings; mean over all components (FitNets' hint without a
/// layer between).
pub(in crate::learn) fn hint(student: &Tensor, teacher: &Tensor) -> Tensor {
    student.mse_loss(teacher, Reduction::Mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::distance::squared_distances;

    #[test]
    fn a_long_series_is_the_gaussian_kernel() {
        tch::manual_seed(1);
        let options = (Kind::Double, tch::Device::Cpu);
        let student = Tensor::randn([7, 5], options);
        let teacher = Tensor::randn([7, 9], options);
        let settings = CorrelationCongruence {
            gamma: 0.4,
            order: 30,
        };
        let kernel = |rows: &Tensor| {
            let unit = l2_normalize(rows);
            (squared_distances(&unit, &unit) * -0.4).exp()
        };
        let expected = kernel(&student).mse_loss(&kernel(&teacher), Reduction::Mean);
        let found = correlation_congruence(&student, &teacher, &settings);
        assert!((found - expected).double_value(&[]).abs() < 1e-12);
    }
}
