//! AdamW with its whole state in plain tensors, so that a checkpoint holds all of it and
//! training goes on bit by bit (tch can not save libtorch's own optimizers).

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// A trained tensor with its moments.
pub(super) struct Parameter {
    pub(super) value: Tensor,
    pub(super) first_moment: Tensor,
    pub(super) second_moment: Tensor,
    rate_factor: f64,
    weight_decay: f64,
}

/// AdamW (Loshchilov and Hutter, ICLR 2019): decay is decoupled from the gradient and
/// scaled by the learning rate; moments are corrected for their start at zero.
pub(super) struct AdamW {
    /// By name; iterated in this order.
    pub(super) parameters: BTreeMap<String, Parameter>,
}

impl AdamW {
    pub(super) fn new() -> Self {
        Self {
            parameters: BTreeMap::new(),
        }
    }

    /// Adds a tensor that requires a gradient, with its rate in multiples of the schedule's.
    pub(super) fn add(&mut self, name: &str, value: &Tensor, rate_factor: f64, weight_decay: f64) {
        let parameter = Parameter {
            value: value.shallow_clone(),
            first_moment: value.detach().zeros_like(),
            second_moment: value.detach().zeros_like(),
            rate_factor,
            weight_decay,
        };
        self.parameters.insert(name.to_owned(), parameter);
    }

    /// Forgets the gradients of the last step.
    pub(super) fn zero_gradients(&mut self) {
        for parameter in self.parameters.values_mut() {
            parameter.value.zero_grad();
        }
    }

    /// Moves every parameter by its gradient; `step` counts from 1.
    pub(super) fn step(&mut self, step: usize, rate: f64) {
        let step = i32::try_from(step).unwrap_or(i32::MAX);
        let (correction1, correction2) = (1.0 - BETA1.powi(step), 1.0 - BETA2.powi(step));
        no_grad(|| {
            for parameter in self.parameters.values_mut() {
                let gradient = parameter.value.grad();
                if !gradient.defined() {
                    continue;
                }
                let rate = rate * parameter.rate_factor;
                let _ = parameter
                    .value
                    .g_mul_scalar_(1.0 - rate * parameter.weight_decay);
                let _ = parameter.first_moment.g_mul_scalar_(BETA1);
                parameter.first_moment += &gradient * (1.0 - BETA1);
                let _ = parameter.second_moment.g_mul_scalar_(BETA2);
                parameter.second_moment += gradient.square() * (1.0 - BETA2);
                let deviation = (&parameter.second_moment / correction2).sqrt() + EPSILON;
                parameter.value -= &parameter.first_moment / deviation * (rate / correction1);
            }
        });
    }

    /// First parameter whose value is no longer finite.
    pub(super) fn first_broken(&self) -> Option<&str> {
        let finite = |parameter: &Parameter| {
            parameter
                .value
                .isfinite()
                .all()
                .to_kind(Kind::Int64)
                .int64_value(&[])
                == 1
        };
        self.parameters
            .iter()
            .find(|(_, parameter)| !finite(parameter))
            .map(|(name, _)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten steps on |x - 3|^2 / 2 by the formulas of the paper, in f64.
    fn by_hand(weight_decay: f64) -> f64 {
        let (mut x, mut m, mut v) = (1.0_f64, 0.0_f64, 0.0_f64);
        for step in 1..=10 {
            let gradient = x - 3.0;
            x -= 0.1 * weight_decay * x;
            m = BETA1 * m + (1.0 - BETA1) * gradient;
            v = BETA2 * v + (1.0 - BETA2) * gradient * gradient;
            let (m_hat, v_hat) = (m / (1.0 - BETA1.powi(step)), v / (1.0 - BETA2.powi(step)));
            x -= 0.1 * m_hat / (v_hat.sqrt() + EPSILON);
        }
        x
    }

    #[test]
    fn steps_follow_the_formulas_of_the_paper() {
        for weight_decay in [0.0, 0.3] {
            let x = Tensor::from_slice(&[1.0_f64]).set_requires_grad(true);
            let mut optimizer = AdamW::new();
            optimizer.add("x", &x, 2.0, weight_decay);
            for step in 1..=10 {
                optimizer.zero_gradients();
                let loss: Tensor = (&x - 3.0).square() * 0.5;
                loss.sum(Kind::Double).backward();
                optimizer.step(step, 0.05);
            }
            let difference = (x.double_value(&[0]) - by_hand(weight_decay)).abs();
            assert!(difference < 1e-12, "{difference}");
        }
    }

    #[test]
    fn a_broken_parameter_is_named() {
        let mut optimizer = AdamW::new();
        optimizer.add("fine", &Tensor::from_slice(&[1.0_f32]), 1.0, 0.0);
        assert_eq!(optimizer.first_broken(), None);
        optimizer.add("broken", &Tensor::from_slice(&[f32::NAN]), 1.0, 0.0);
        assert_eq!(optimizer.first_broken(), Some("broken"));
    }
}
