//! Losses that compare feature maps (N x C x H x W) within the networks.
//!
//! Where the maps' sides differ, the larger one is averaged down to the smaller.

use tch::{Kind, Reduction, Tensor};

/// Smallest variance that variational information distillation assumes.
pub(super) const MIN_VARIANCE: f64 = 1e-5;

/// Both maps at the smaller of their sides.
fn at_same_size(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let side = |x: &Tensor, axis: usize| x.size()[axis];
    let smaller = [2, 3].map(|axis| side(a, axis).min(side(b, axis)));
    let fit = |x: &Tensor| {
        if x.size()[2..] == smaller {
            x.shallow_clone()
        } else {
            x.adaptive_avg_pool2d(smaller)
        }
    };
    (fit(a), fit(b))
}

/// Scales slices along the last axis to length 1.
fn unit(x: &Tensor) -> Tensor {
    let lengths = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
    x / lengths.clamp_min(f64::from(eyas_shared::embedding::MIN_NORM))
}

/// Mean over channels of a map's powers, as a unit vector of H x W: N x HW.
fn attention(map: &Tensor, power: f64) -> Tensor {
    let strengths = map.pow_tensor_scalar(power);
    unit(
        &strengths
            .mean_dim([1].as_slice(), false, None::<Kind>)
            .flatten(1, -1),
    )
}

/// FitNets' hint (Romero et al., ICLR 2015): mean squared error of the student's map, put
/// through a 1x1 convolution (teacher channels x student channels x 1 x 1).
pub(in crate::learn) fn feature_hint(student: &Tensor, teacher: &Tensor, layer: &Tensor) -> Tensor {
    let (student, teacher) = at_same_size(student, teacher);
    one_by_one(&student, layer).mse_loss(&teacher, Reduction::Mean)
}

fn one_by_one(map: &Tensor, layer: &Tensor) -> Tensor {
    map.conv2d(layer, None::<Tensor>, 1, 0, 1, 1)
}

/// Attention transfer (Zagoruyko and Komodakis, ICLR 2017): mean squared difference of the
/// maps of where a network's activations are strong.
pub(in crate::learn) fn attention_transfer(
    student: &Tensor,
    teacher: &Tensor,
    power: f64,
) -> Tensor {
    let (student, teacher) = at_same_size(student, teacher);
    attention(&student, power).mse_loss(&attention(&teacher, power), Reduction::Mean)
}

/// Factor transfer (Kim et al., NeurIPS 2018) as RepDistiller runs it, without the trained
/// factor extractors: mean absolute difference, raised to `outer_power`, of attention maps.
pub(in crate::learn) fn factor_transfer(
    student: &Tensor,
    teacher: &Tensor,
    power: f64,
    outer_power: f64,
) -> Tensor {
    let (student, teacher) = at_same_size(student, teacher);
    let difference = attention(&student, power) - attention(&teacher, power);
    let kind = difference.kind();
    difference.abs().pow_tensor_scalar(outer_power).mean(kind)
}

/// Neuron selectivity transfer (Huang and Wang, 2017): squared maximum mean discrepancy of
/// channels as unit vectors of H x W, with a squared-dot-product kernel.
pub(in crate::learn) fn neuron_selectivity(student: &Tensor, teacher: &Tensor) -> Tensor {
    let (student, teacher) = at_same_size(student, teacher);
    let channels = |map: &Tensor| unit(&map.flatten(2, 3));
    let (student, teacher) = (channels(&student), channels(&teacher));
    let kernel = |a: &Tensor, b: &Tensor| a.bmm(&b.transpose(1, 2)).square().mean(a.kind());
    // The teacher's part is a constant also where the teacher asks for a gradient.
    kernel(&teacher, &teacher).detach() + kernel(&student, &student)
        - kernel(&student, &teacher) * 2.0
}

/// Two maps of one network, the input and the output of a stage.
pub(in crate::learn) struct Flow<'a> {
    pub(in crate::learn) from: &'a Tensor,
    pub(in crate::learn) to: &'a Tensor,
}

impl Flow<'_> {
    /// Products of channels, mean over places: N x C1 x C2.
    fn matrix(&self) -> Tensor {
        let (from, to) = at_same_size(self.from, self.to);
        let places = (from.size()[2] * from.size()[3]) as f64;
        let (from, to) = (from.flatten(2, 3), to.flatten(2, 3));
        from.bmm(&to.transpose(1, 2)) / places
    }
}

/// Flow of solution procedure (Yim et al., CVPR 2017): mean squared difference of the
/// products between the channels of two stages. Both networks have as many channels there.
pub(in crate::learn) fn solution_flow(student: &Flow<'_>, teacher: &Flow<'_>) -> Tensor {
    student
        .matrix()
        .mse_loss(&teacher.matrix(), Reduction::Mean)
}

/// What variational information distillation trains.
pub(in crate::learn) struct Regressor<'a> {
    /// Three 1x1 convolutions with ReLU between.
    pub(in crate::learn) layers: [&'a Tensor; 3],
    /// Inverse softplus of each teacher channel's variance.
    pub(in crate::learn) log_scale: &'a Tensor,
}

/// Variational information distillation (Ahn et al., CVPR 2019): minus the Gaussian log
/// likelihood of the teacher's map around a regression from the student's, with a variance
/// per channel; mean over all values, without the constant.
pub(in crate::learn) fn variational_information(
    student: &Tensor,
    teacher: &Tensor,
    regressor: &Regressor<'_>,
) -> Tensor {
    let (student, teacher) = at_same_size(student, teacher);
    let [first, second, last] = regressor.layers;
    let hidden = one_by_one(&one_by_one(&student, first).relu(), second).relu();
    let mean = one_by_one(&hidden, last);
    let variance = (regressor.log_scale.softplus() + MIN_VARIANCE).view([1, -1, 1, 1]);
    let errors = (mean - teacher).square() / &variance;
    (errors + variance.log()).mean(student.kind()) * 0.5
}
