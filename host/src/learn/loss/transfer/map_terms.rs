//! Losses of feature maps as terms, with the layers that they train.

use eyas_shared::random::Random;
use tch::Tensor;

use super::feature_maps::{
    Flow, MIN_VARIANCE, Regressor, feature_hint, solution_flow, variational_information,
};
use crate::learn::loss::{Owned, Rows, Setting, Term};
use crate::learn::network::tensor_of;
use crate::recipe::loss::{MapHint, SolutionFlow, VariationalInformation};
use crate::weights::Weight;

/// Bound of the hint layer's first weights, as RC's authors start it.
const HINT_BOUND: f64 = 0.005;

/// A 1x1 convolution without bias, uniform in +-`bound`.
fn first_layer(setting: &Setting, name: &str, channels: [usize; 2], bound: f64) -> Tensor {
    let mut random = Random::new(setting.seed)
        .fork("map layers")
        .at(setting.term_idx as u64)
        .fork(name);
    let [inputs, outputs] = channels;
    let values = (0..inputs * outputs)
        .map(|_| random.range(-bound, bound) as f32)
        .collect();
    let shape = vec![outputs, inputs, 1, 1];
    tensor_of(&Weight { shape, values }, setting.device).set_requires_grad(true)
}

/// [`feature_hint`] with its layer.
pub(in crate::learn) struct MapHintTerm {
    settings: MapHint,
    layer: Tensor,
}

impl MapHintTerm {
    pub(in crate::learn) fn new(settings: &MapHint, setting: &Setting) -> Self {
        let [student, teacher] = setting.channels(&settings.student, &settings.teacher);
        Self {
            settings: settings.clone(),
            layer: first_layer(setting, "hint", [student, teacher], HINT_BOUND),
        }
    }
}

impl Term for MapHintTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        let maps = rows.maps();
        let student = maps.student(&self.settings.student);
        feature_hint(student, maps.teacher(&self.settings.teacher), &self.layer)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        vec![Owned {
            name: "layer",
            tensor: &self.layer,
            rate_factor: Some(self.settings.rate_factor),
        }]
    }
}

/// [`solution_flow`] between named nodes.
pub(in crate::learn) fn flow_of(rows: &Rows<'_>, settings: &SolutionFlow) -> Tensor {
    let maps = rows.maps();
    let ([s1, s2], [t1, t2]) = (&settings.student, &settings.teacher);
    let student = Flow {
        from: maps.student(s1),
        to: maps.student(s2),
    };
    let teacher = Flow {
        from: maps.teacher(t1),
        to: maps.teacher(t2),
    };
    solution_flow(&student, &teacher)
}

/// [`variational_information`] with its regressor.
pub(in crate::learn) struct VariationalInformationTerm {
    settings: VariationalInformation,
    layers: [Tensor; 3],
    log_scale: Tensor,
}

impl VariationalInformationTerm {
    pub(in crate::learn) fn new(settings: &VariationalInformation, setting: &Setting) -> Self {
        let [student, teacher] = setting.channels(&settings.student, &settings.teacher);
        let layer = |name: &str, inputs: usize| {
            let bound = 1.0 / (inputs as f64).sqrt();
            first_layer(setting, name, [inputs, teacher], bound)
        };
        // softplus(log_scale) + MIN_VARIANCE is the variance.
        let log_scale = (settings.variance - MIN_VARIANCE).exp_m1().ln() as f32;
        let log_scale = Weight {
            shape: vec![teacher],
            values: vec![log_scale; teacher],
        };
        Self {
            settings: settings.clone(),
            layers: [
                layer("first", student),
                layer("second", teacher),
                layer("last", teacher),
            ],
            log_scale: tensor_of(&log_scale, setting.device).set_requires_grad(true),
        }
    }
}

impl Term for VariationalInformationTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        let maps = rows.maps();
        let regressor = Regressor {
            layers: self.layers.each_ref(),
            log_scale: &self.log_scale,
        };
        let student = maps.student(&self.settings.student);
        variational_information(student, maps.teacher(&self.settings.teacher), &regressor)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        let owned = |name, tensor| Owned {
            name,
            tensor,
            rate_factor: Some(self.settings.rate_factor),
        };
        let [first, second, last] = &self.layers;
        vec![
            owned("first", first),
            owned("second", second),
            owned("last", last),
            owned("log_scale", &self.log_scale),
        ]
    }
}
