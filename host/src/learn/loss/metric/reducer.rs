//! Many values, one number.

use tch::{Kind, Tensor};

use crate::recipe::loss::Reducer;

/// Reduces the entries of `values` that `keep` (of the same shape) marks; 0 if there are
/// none.
pub(in crate::learn) fn reduce(reducer: Reducer, values: &Tensor, keep: &Tensor) -> Tensor {
    let kept = values.masked_fill(&keep.logical_not(), 0.0);
    let sum = kept.sum(values.kind());
    let count = |marked: &Tensor| marked.sum(values.kind()).clamp_min(1.0);
    match reducer {
        Reducer::Sum => sum,
        Reducer::Mean => sum / count(keep),
        Reducer::MeanOfNonZero => sum / count(&kept.gt(0.0)),
    }
}

/// [`reduce`] of one value for each anchor.
pub(super) fn reduce_all(reducer: Reducer, values: &Tensor) -> Tensor {
    reduce(reducer, values, &values.ones_like().to_kind(Kind::Bool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reducers_count_what_they_say() {
        let values = Tensor::from_slice(&[0.0_f64, 3.0, 5.0, 100.0]);
        let keep = Tensor::from_slice(&[true, true, true, false]);
        let of = |reducer, keep: &Tensor| reduce(reducer, &values, keep).double_value(&[]);
        assert_eq!(of(Reducer::Sum, &keep), 8.0);
        assert_eq!(of(Reducer::Mean, &keep), 8.0 / 3.0);
        assert_eq!(of(Reducer::MeanOfNonZero, &keep), 4.0);
        let none = keep.zeros_like();
        for reducer in [Reducer::Sum, Reducer::Mean, Reducer::MeanOfNonZero] {
            assert_eq!(of(reducer, &none), 0.0);
        }
    }
}
