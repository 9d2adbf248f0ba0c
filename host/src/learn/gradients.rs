//! What happens to gradients between the backward pass and the optimizer's step.

use tch::{Tensor, no_grad};

use super::optimizer::Parameter;
use crate::recipe::Clip;

/// The gradients that a step brought, with the names of their tensors.
fn present<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a Parameter)>,
) -> Vec<(&'a str, Tensor)> {
    let gradients = parameters
        .into_iter()
        .map(|(name, parameter)| (&**name, parameter.value.grad()));
    gradients
        .filter(|(_, gradient)| gradient.defined())
        .collect()
}

/// Multiplies all gradients, such as by 1 / loss scale.
pub(super) fn scale<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a Parameter)>,
    factor: f64,
) {
    no_grad(|| {
        for (_, mut gradient) in present(parameters) {
            let _ = gradient.g_mul_scalar_(factor);
        }
    });
}

/// First tensor whose gradient is not finite everywhere. One answer is waited for, not one
/// per tensor.
pub(super) fn first_broken<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a Parameter)>,
) -> Option<String> {
    let gradients = present(parameters);
    if gradients.is_empty() {
        return None;
    }
    let largest = |gradient: &Tensor| gradient.detach().abs().max();
    let each: Vec<Tensor> = gradients.iter().map(|(_, g)| largest(g)).collect();
    if super::optimizer::is_finite(&Tensor::stack(&each, 0)) {
        return None;
    }
    let broken = gradients
        .iter()
        .zip(&each)
        .find(|(_, largest)| !super::optimizer::is_finite(largest));
    broken.map(|((name, _), _)| (*name).to_owned())
}

/// Keeps finite gradients within the limit.
pub(super) fn clip<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a Parameter)>,
    limit: Clip,
) {
    let gradients = present(parameters);
    no_grad(|| match limit {
        Clip::None => {}
        Clip::Value(limit) => {
            for (_, mut gradient) in gradients {
                let _ = gradient.clamp_(-limit, limit);
            }
        }
        Clip::Norm(limit) => {
            let each: Vec<Tensor> = gradients.iter().map(|(_, g)| g.norm()).collect();
            if each.is_empty() {
                return;
            }
            let factor = (Tensor::stack(&each, 0).norm().reciprocal() * limit).clamp_max(1.0);
            for (_, mut gradient) in gradients {
                let _ = gradient.g_mul_(&factor);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::learn::optimizer::{Group, Optimizer};
    use crate::recipe;

    /// Gradients (3, 0) and (-4): norm 5.
    fn optimizer(factor: f64) -> Optimizer {
        let rule = recipe::Optimizer::Sgd {
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        };
        let mut optimizer = Optimizer::new(rule);
        let group = Group {
            rate_factor: 1.0,
            decays: false,
            rests_first: false,
        };
        let slopes = [("a", &[3.0, 0.0][..]), ("b", &[-4.0]), ("c", &[])];
        for (name, slope) in slopes {
            let slope = Tensor::from_slice(slope);
            let value = slope.zeros_like().set_requires_grad(true);
            optimizer.add(name, &value, group);
            if name != "c" {
                (&value * slope * factor).sum(Kind::Double).backward();
            }
        }
        optimizer
    }

    fn gradients(optimizer: &Optimizer) -> Vec<f64> {
        let all = present(&optimizer.parameters).into_iter();
        all.flat_map(|(_, gradient)| Vec::<f64>::try_from(gradient).unwrap())
            .collect()
    }

    #[test]
    fn a_norm_above_the_limit_is_scaled_down_and_one_below_is_left() {
        for (limit, expected) in [(2.5, [1.5, 0.0, -2.0]), (6.0, [3.0, 0.0, -4.0])] {
            let optimizer = optimizer(1.0);
            clip(&optimizer.parameters, Clip::Norm(limit));
            assert_eq!(gradients(&optimizer), expected);
        }
    }

    #[test]
    fn a_gradient_of_zero_stays_zero() {
        let optimizer = optimizer(0.0);
        clip(&optimizer.parameters, Clip::Norm(1.0));
        assert_eq!(gradients(&optimizer), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn values_beyond_the_limit_are_cut() {
        let optimizer = optimizer(1.0);
        clip(&optimizer.parameters, Clip::Value(3.5));
        assert_eq!(gradients(&optimizer), [3.0, 0.0, -3.5]);
    }

    #[test]
    fn a_broken_gradient_is_named_and_a_scaled_one_is_not() {
        let optimizer_of = optimizer;
        let optimizer = optimizer_of(2.0);
        scale(&optimizer.parameters, 0.5);
        assert_eq!(gradients(&optimizer), [3.0, 0.0, -4.0]);
        assert_eq!(first_broken(&optimizer.parameters), None);
        for factor in [f64::INFINITY, f64::NAN] {
            let broken = first_broken(&optimizer_of(factor).parameters);
            assert_eq!(broken.as_deref(), Some("a"));
        }
    }
}
