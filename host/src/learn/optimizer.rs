//! Optimizers with their whole state in plain tensors and two counters, so that a checkpoint
//! holds all of it and training goes on bit by bit (tch can not save libtorch's own).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use crate::recipe::{self, Moments};

/// How one tensor is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    /// Rate in multiples of the schedule's.
    pub(super) rate_factor: f64,
    /// Whether weight decay (and LARS's rate by norm) is for it.
    pub(super) decays: bool,
    /// Whether it rests in the first steps, when only head and losses move.
    pub(super) rests_first: bool,
}

/// A trained tensor with the optimizer's memory of it.
pub(super) struct Parameter {
    pub(super) value: Tensor,
    /// By name, such as `first_moment`; of the shape of `value`.
    pub(super) state: Vec<(&'static str, Tensor)>,
    group: Group,
}

/// Finished steps, from which moments are corrected for their start at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Steps that moved the head and the losses' own tensors.
    pub(super) of_head: u64,
    /// Steps that moved all others too.
    pub(super) of_rest: u64,
}

/// The rule that turns gradients into steps, and what it remembers.
pub(super) struct Optimizer {
    rule: recipe::Optimizer,
    /// By name; iterated in this order.
    pub(super) parameters: BTreeMap<String, Parameter>,
    pub(super) counts: Counts,
}

impl Optimizer {
    pub(super) fn new(rule: recipe::Optimizer) -> Self {
        Self {
            rule,
            parameters: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Adds a tensor that requires a gradient.
    pub(super) fn add(&mut self, name: &str, value: &Tensor, group: Group) {
        let names: &[&str] = match self.rule {
            recipe::Optimizer::AdamW(_) | recipe::Optimizer::Adam(_) => {
                &["first_moment", "second_moment"]
            }
            recipe::Optimizer::Sgd { .. } | recipe::Optimizer::Lars { .. } => &["velocity"],
        };
        let zeros = |name: &&'static str| (*name, value.detach().zeros_like());
        let parameter = Parameter {
            value: value.shallow_clone(),
            state: names.iter().map(zeros).collect(),
            group,
        };
        self.parameters.insert(name.to_owned(), parameter);
    }

    /// Forgets the gradients of the last step.
    pub(super) fn zero_gradients(&mut self) {
        for parameter in self.parameters.values_mut() {
            parameter.value.zero_grad();
        }
    }

    /// Moves every parameter by its gradient; those without one stay. With `only_head` the
    /// parameters that rest first are not moved.
    pub(super) fn step(&mut self, rate: f64, only_head: bool) {
        self.counts.of_head += 1;
        self.counts.of_rest += u64::from(!only_head);
        no_grad(|| {
            for parameter in self.parameters.values_mut() {
                let rests = parameter.group.rests_first;
                let gradient = parameter.value.grad();
                if !gradient.defined() || (rests && only_head) {
                    continue;
                }
                let done = if rests {
                    self.counts.of_rest
                } else {
                    self.counts.of_head
                };
                move_parameter(parameter, &gradient, &self.rule, rate, done);
            }
        });
    }
}

/// Whether every number is finite.
pub(super) fn is_finite(tensor: &Tensor) -> bool {
    let all = tensor.isfinite().all().to_kind(Kind::Int64);
    all.int64_value(&[]) == 1
}

/// Step number `done`, counted from 1.
fn move_parameter(
    parameter: &mut Parameter,
    gradient: &Tensor,
    rule: &recipe::Optimizer,
    rate: f64,
    done: u64,
) {
    let Parameter {
        value,
        state,
        group,
    } = parameter;
    let rate = rate * group.rate_factor;
    let decay = if group.decays {
        rule.weight_decay()
    } else {
        0.0
    };
    let decayed = || {
        if decay > 0.0 {
            gradient + &*value * decay
        } else {
            gradient.shallow_clone()
        }
    };
    match (*rule, &mut state[..]) {
        (recipe::Optimizer::AdamW(moments), [(_, first), (_, second)]) => {
            let _ = value.g_mul_scalar_(1.0 - rate * decay);
            move_by_moments(value, gradient, first, second, moments, rate, done);
        }
        (recipe::Optimizer::Adam(moments), [(_, first), (_, second)]) => {
            let gradient = decayed();
            move_by_moments(value, &gradient, first, second, moments, rate, done);
        }
        (
            recipe::Optimizer::Sgd {
                momentum, nesterov, ..
            },
            [(_, velocity)],
        ) => {
            let gradient = decayed();
            let _ = velocity.g_mul_scalar_(momentum);
            *velocity += &gradient;
            if nesterov {
                *value -= (gradient + &*velocity * momentum) * rate;
            } else {
                *value -= &*velocity * rate;
            }
        }
        (
            recipe::Optimizer::Lars {
                momentum, trust, ..
            },
            [(_, velocity)],
        ) => {
            let mut step = decayed() * rate;
            if group.decays {
                step *= trust_ratio(value, gradient, trust, decay);
            }
            let _ = velocity.g_mul_scalar_(momentum);
            *velocity += step;
            *value -= &*velocity;
        }
        _ => unreachable!("`add` made the state that the rule needs"),
    }
}

fn move_by_moments(
    value: &mut Tensor,
    gradient: &Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    moments: Moments,
    rate: f64,
    done: u64,
) {
    let done = i32::try_from(done).unwrap_or(i32::MAX);
    let correction1 = 1.0 - moments.beta1.powi(done);
    let correction2 = 1.0 - moments.beta2.powi(done);
    let _ = first.g_mul_scalar_(moments.beta1);
    *first += gradient * (1.0 - moments.beta1);
    let _ = second.g_mul_scalar_(moments.beta2);
    *second += gradient.square() * (1.0 - moments.beta2);
    let deviation = (&*second / correction2).sqrt() + moments.epsilon;
    *value -= &*first / deviation * (rate / correction1);
}

/// LARS: the tensor's norm over that of its step, times `trust`; 1 where either is 0. A
/// scalar tensor, so that a GPU is not waited for.
fn trust_ratio(value: &Tensor, gradient: &Tensor, trust: f64, decay: f64) -> Tensor {
    let (of_value, of_gradient) = (value.norm(), gradient.norm());
    let ratio = &of_value * trust / (&of_gradient + &of_value * decay);
    let both = of_value.gt(0.0).logical_and(&of_gradient.gt(0.0));
    ratio.where_self(&both, &ratio.ones_like())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENTS: Moments = Moments {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.3,
    };

    const GROUP: Group = Group {
        rate_factor: 2.0,
        decays: true,
        rests_first: false,
    };

    /// In f64 an optimizer and the formulas differ by rounding only.
    const TOLERANCE: f64 = 1e-12;

    /// Schedule's rate of a test; `GROUP` doubles it.
    const RATE: f64 = 0.05;

    /// Ten steps on the sum of (x - 3)^2 / 2 from (1, -2).
    fn steps(rule: recipe::Optimizer, group: Group) -> [f64; 2] {
        let x = Tensor::from_slice(&[1.0_f64, -2.0]).set_requires_grad(true);
        let mut optimizer = Optimizer::new(rule);
        optimizer.add("x", &x, group);
        for _ in 0..10 {
            optimizer.zero_gradients();
            let loss: Tensor = (&x - 3.0).square() * 0.5;
            loss.sum(Kind::Double).backward();
            optimizer.step(RATE, false);
        }
        [x.double_value(&[0]), x.double_value(&[1])]
    }

    #[track_caller]
    fn check(rule: recipe::Optimizer, group: Group, expected: [f64; 2]) {
        let found = steps(rule, group);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < TOLERANCE, "{found} {expected}");
        }
    }

    /// One number by the formulas of the papers; `decoupled` is AdamW.
    fn moments_by_hand(mut x: f64, decay: f64, decoupled: bool) -> f64 {
        let (mut m, mut v, rate) = (0.0_f64, 0.0_f64, 2.0 * RATE);
        for step in 1..=10 {
            let mut gradient = x - 3.0;
            if decoupled {
                x -= rate * decay * x;
            } else {
                gradient += decay * x;
            }
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            let (m_hat, v_hat) = (
                m / (1.0 - 0.9_f64.powi(step)),
                v / (1.0 - 0.999_f64.powi(step)),
            );
            x -= rate * m_hat / (v_hat.sqrt() + 1e-8);
        }
        x
    }

    #[test]
    fn adam_and_adamw_follow_their_formulas() {
        for decays in [true, false] {
            let group = Group { decays, ..GROUP };
            let decay = if decays { 0.3 } else { 0.0 };
            let by_hand = |decoupled| [1.0, -2.0].map(|x| moments_by_hand(x, decay, decoupled));
            check(recipe::Optimizer::AdamW(MOMENTS), group, by_hand(true));
            check(recipe::Optimizer::Adam(MOMENTS), group, by_hand(false));
        }
    }

    #[test]
    fn sgd_follows_its_formulas() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let by_hand = [1.0, -2.0].map(|start: f64| {
                let (mut x, mut velocity) = (start, 0.0);
                for _ in 0..10 {
                    let gradient = x - 3.0 + 0.3 * x;
                    velocity = momentum * velocity + gradient;
                    let ahead = gradient + momentum * velocity;
                    x -= 2.0 * RATE * if nesterov { ahead } else { velocity };
                }
                x
            });
            let rule = recipe::Optimizer::Sgd {
                momentum,
                nesterov,
                weight_decay: 0.3,
            };
            check(rule, GROUP, by_hand);
        }
    }

    #[test]
    fn lars_follows_its_formulas() {
        let rule = recipe::Optimizer::Lars {
            momentum: 0.9,
            trust: 0.02,
            weight_decay: 0.3,
        };
        for decays in [true, false] {
            let (mut x, mut velocity) = ([1.0_f64, -2.0], [0.0_f64; 2]);
            for _ in 0..10 {
                let gradient = x.map(|x| x - 3.0);
                let norm = |v: [f64; 2]| v[0].hypot(v[1]);
                let (ratio, decay) = if decays {
                    let ratio = 0.02 * norm(x) / (norm(gradient) + 0.3 * norm(x));
                    (ratio, 0.3)
                } else {
                    (1.0, 0.0)
                };
                for i in 0..2 {
                    let step = 2.0 * RATE * ratio * (gradient[i] + decay * x[i]);
                    velocity[i] = 0.9 * velocity[i] + step;
                    x[i] -= velocity[i];
                }
            }
            check(rule, Group { decays, ..GROUP }, x);
        }
    }

    #[test]
    fn lars_moves_a_tensor_of_zeros() {
        let zero = Tensor::zeros([3], (Kind::Double, tch::Device::Cpu));
        let ratio = trust_ratio(&zero, &zero.ones_like(), 0.1, 0.0);
        assert_eq!(ratio.double_value(&[]), 1.0);
    }

    #[test]
    fn tensors_that_rest_first_stay_and_then_start_as_from_step_one() {
        let (late, head) = (
            Tensor::from_slice(&[1.0_f64]).set_requires_grad(true),
            Tensor::from_slice(&[1.0_f64]).set_requires_grad(true),
        );
        let mut optimizer = Optimizer::new(recipe::Optimizer::AdamW(MOMENTS));
        let rests = Group {
            rests_first: true,
            ..GROUP
        };
        optimizer.add("late", &late, rests);
        optimizer.add("head", &head, GROUP);
        for step in 0..13 {
            optimizer.zero_gradients();
            let loss: Tensor = (&late - 3.0).square() * 0.5 + (&head - 3.0).square() * 0.5;
            loss.sum(Kind::Double).backward();
            optimizer.step(RATE, step < 3);
            if step < 3 {
                assert_eq!(late.double_value(&[0]), 1.0);
            }
        }
        let expected = moments_by_hand(1.0, 0.3, true);
        assert!((late.double_value(&[0]) - expected).abs() < TOLERANCE);
        let counts = Counts {
            of_head: 13,
            of_rest: 10,
        };
        assert_eq!(optimizer.counts, counts);
    }

    #[test]
    fn one_number_makes_a_tensor_broken() {
        assert!(is_finite(&Tensor::from_slice(&[1.0_f32, f32::MAX])));
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!is_finite(&Tensor::from_slice(&[1.0, broken])));
        }
    }
}
