//! Contrastive representation distillation (Tian et al., ICLR 2020).

use eyas_shared::random::Random;
use tch::{Kind, Tensor, no_grad};

use crate::learn::distance::l2_normalize;
use crate::learn::loss::{Owned, Rows, Setting, Term};
use crate::learn::network::tensor_of;
use crate::recipe::loss::ContrastiveRepresentation;
use crate::weights::Weight;

/// Added to probabilities before the logarithm, as the authors do.
const EPSILON: f64 = 1e-7;

/// What contrastive representation distillation remembers of all images.
pub(in crate::learn) struct ImageMemories {
    /// Projected students, images x F.
    pub(in crate::learn) student: Tensor,
    /// Projected teachers, images x F.
    pub(in crate::learn) teacher: Tensor,
    /// What the exponentials of student and of teacher are divided by; 0 before the first
    /// step fixes it.
    pub(in crate::learn) scales: Tensor,
}

/// The images of a step.
pub(in crate::learn) struct Drawn<'a> {
    /// N positions of the rows' own images.
    pub(in crate::learn) own: &'a Tensor,
    /// N x (1 + K) positions: the own image, then K others.
    pub(in crate::learn) compared: &'a Tensor,
}

impl ImageMemories {
    /// The loss of projected rows (N x F each), and the memories moved towards them.
    ///
    /// A student row is to find its image among the remembered teachers, a teacher row
    /// among the remembered students: noise contrastive estimation with K noise images.
    /// `momentum` is the share of a memory that stays.
    pub(in crate::learn) fn step(
        &mut self,
        student: &Tensor,
        teacher: &Tensor,
        drawn: &Drawn<'_>,
        temperature: f64,
        momentum: f64,
    ) -> Tensor {
        let (student, teacher) = (l2_normalize(student), l2_normalize(teacher));
        let exponentials = |rows: &Tensor, memory: &Tensor| {
            let scores = rows.matmul(&memory.detach().copy().transpose(0, 1));
            (scores.gather(1, drawn.compared, false) / temperature).exp()
        };
        let found = exponentials(&student, &self.teacher);
        let found_back = exponentials(&teacher, &self.student);
        let n_images = self.student.size()[0] as f64;
        no_grad(|| {
            let kind = found.kind();
            let means = Tensor::stack(&[found.mean(kind), found_back.mean(kind)], 0) * n_images;
            let fixed = self.scales.gt(0.0);
            let scales = self.scales.where_self(&fixed, &means);
            self.scales.copy_(&scales);
        });
        let scale = |side: i64| self.scales.get(side).copy();
        let loss = noise_contrast(&(found / scale(0)), n_images)
            + noise_contrast(&(found_back / scale(1)), n_images);
        no_grad(|| {
            remember(&mut self.student, drawn.own, &student, momentum);
            remember(&mut self.teacher, drawn.own, &teacher, momentum);
        });
        loss
    }
}

/// Minus the log probability that the first column is the image and the others are noise;
/// summed over columns, mean over rows.
fn noise_contrast(densities: &Tensor, n_images: f64) -> Tensor {
    let n_noise = densities.size()[1] - 1;
    let noise = n_noise as f64 / n_images;
    let own = densities.narrow(1, 0, 1);
    let others = densities.narrow(1, 1, n_noise);
    let hit: Tensor = &own / (&own + (noise + EPSILON));
    let rejected: Tensor = (others + (noise + EPSILON)).reciprocal() * noise;
    let kind = densities.kind();
    (hit.log().sum(kind) + rejected.log().sum(kind)) / -(densities.size()[0] as f64)
}

/// Moves the memories of the images `own` towards `rows`; several rows of an image count
/// as their mean.
fn remember(memory: &mut Tensor, own: &Tensor, rows: &Tensor, momentum: f64) {
    let same = own.unsqueeze(1).eq_tensor(&own.unsqueeze(0));
    let share = same.to_kind(rows.kind());
    let counts = share.sum_dim_intlist([1].as_slice(), true, None::<Kind>);
    let means = share.matmul(rows) / counts;
    let moved = memory.index_select(0, own) * momentum + means * (1.0 - momentum);
    let _ = memory.index_copy_(0, own, &l2_normalize(&moved));
}

/// [`ImageMemories`] with trained projections of student and teacher.
pub(in crate::learn) struct ContrastiveRepresentationTerm {
    settings: ContrastiveRepresentation,
    random: Random,
    /// Weight and bias of the student's projection, then of the teacher's.
    projections: [(Tensor, Tensor); 2],
    memories: ImageMemories,
}

impl ContrastiveRepresentationTerm {
    pub(in crate::learn) fn new(settings: ContrastiveRepresentation, setting: &Setting) -> Self {
        let random = Random::new(setting.seed)
            .fork("representation")
            .at(setting.term_idx as u64);
        let uniform = |name: &str, shape: Vec<usize>, bound: f64| {
            let mut random = random.fork(name);
            let n = shape.iter().product::<usize>();
            let values = (0..n).map(|_| random.range(-bound, bound) as f32).collect();
            tensor_of(&Weight { shape, values }, setting.device)
        };
        let features = settings.features;
        let bound = 1.0 / (setting.dim as f64).sqrt();
        let projection = |side: &str| {
            let weight = uniform(side, vec![features, setting.dim], bound);
            let bias = uniform(&format!("{side} bias"), vec![features], bound);
            (weight.set_requires_grad(true), bias.set_requires_grad(true))
        };
        let remembered = |side: &str| {
            let bound = 1.0 / (features as f64 / 3.0).sqrt();
            uniform(side, vec![setting.n_images, features], bound)
        };
        Self {
            projections: [projection("student"), projection("teacher")],
            memories: ImageMemories {
                student: remembered("student memory"),
                teacher: remembered("teacher memory"),
                scales: Tensor::zeros([2], (Kind::Float, setting.device)),
            },
            random,
            settings,
        }
    }

    /// For each row its own image, then noise images of other labels; of any label if there
    /// are no others.
    fn draw(&self, rows: &Rows<'_>) -> Tensor {
        let numbers = |tensor: &Tensor| -> Vec<i64> {
            let flat = tensor.to_device(tch::Device::Cpu).to_kind(Kind::Int64);
            Vec::try_from(flat).expect("positions and labels are vectors")
        };
        let mut random = self.random.fork("noise").at(rows.step as u64);
        let image_labels = numbers(rows.memory().labels);
        let mixed = image_labels.iter().any(|label| *label != image_labels[0]);
        let own = numbers(rows.image_idx);
        let n_noise = self.settings.negatives;
        let mut compared = Vec::with_capacity(own.len() * (1 + n_noise));
        for (&image, label) in own.iter().zip(numbers(rows.labels)) {
            compared.push(image);
            while compared.len() % (1 + n_noise) != 0 {
                let drawn = random.below(image_labels.len());
                if !mixed || image_labels[drawn] != label {
                    compared.push(drawn as i64);
                }
            }
        }
        Tensor::from_slice(&compared)
            .view([own.len() as i64, 1 + n_noise as i64])
            .to_device(rows.student.device())
    }
}

impl Term for ContrastiveRepresentationTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        let compared = self.draw(rows);
        let drawn = Drawn {
            own: rows.image_idx,
            compared: &compared,
        };
        let [(ws, bs), (wt, bt)] = &self.projections;
        let (student, teacher) = (
            rows.student.linear(ws, Some(bs)),
            rows.teacher().linear(wt, Some(bt)),
        );
        let ContrastiveRepresentation {
            temperature,
            momentum,
            ..
        } = self.settings;
        self.memories
            .step(&student, &teacher, &drawn, temperature, momentum)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        let owned = |name, tensor, rate_factor| Owned {
            name,
            tensor,
            rate_factor,
        };
        let [(ws, bs), (wt, bt)] = &self.projections;
        let rate = Some(self.settings.rate_factor);
        vec![
            owned("student_projection.weight", ws, rate),
            owned("student_projection.bias", bs, rate),
            owned("teacher_projection.weight", wt, rate),
            owned("teacher_projection.bias", bt, rate),
            owned("student_memory", &self.memories.student, None),
            owned("teacher_memory", &self.memories.teacher, None),
            owned("scales", &self.memories.scales, None),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_views_of_an_image_are_remembered_as_their_mean() {
        let mut memory = Tensor::from_slice(&[0.0_f64, 1.0, 1.0, 0.0]).view([2, 2]);
        let rows = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 1.0]).view([2, 2]);
        let own = Tensor::from_slice(&[0_i64, 0]);
        remember(&mut memory, &own, &rows, 0.5);
        // 0.5 (0, 1) + 0.5 (0.5, 0.5), scaled to length 1.
        let length = (0.25_f64 * 0.25 + 0.75 * 0.75).sqrt();
        assert!((memory.double_value(&[0, 0]) - 0.25 / length).abs() < 1e-12);
        assert!((memory.double_value(&[0, 1]) - 0.75 / length).abs() < 1e-12);
        assert_eq!(memory.double_value(&[1, 0]), 1.0);
    }
}
