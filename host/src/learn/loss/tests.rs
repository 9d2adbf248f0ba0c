//! What holds for every loss of the catalog.

use tch::{Device, Kind, Tensor};

use super::{Memory, Rows, Setting, term};
use crate::recipe::WeightedLoss;
use crate::recipe::loss::CATALOG;

const N_IMAGES: i64 = 12;
const N_LABELS: i64 = 5;
const DIM: i64 = 6;
const VIEWS: i64 = 2;

fn example(kind: &str, text: &str) -> WeightedLoss {
    toml::from_str::<toml::Table>(&format!("loss = {text}"))
        .and_then(|line| line["loss"].clone().try_into())
        .unwrap_or_else(|err| panic!("{kind}: {err}"))
}

/// Images of the training set by the teacher, their labels, and the images of a batch.
struct Set {
    teacher: Tensor,
    labels: Tensor,
}

impl Set {
    fn with_labels(labels: &[i64]) -> Self {
        tch::manual_seed(5);
        let teacher = Tensor::randn([labels.len() as i64, DIM], (Kind::Float, Device::Cpu));
        Self {
            teacher,
            labels: Tensor::from_slice(labels),
        }
    }

    /// Value and gradient of two steps in a row.
    fn check(&self, text: &str, kind: &str, student: &Tensor) {
        let loss = example(kind, text).loss;
        let setting = Setting {
            seed: 3,
            term_idx: 0,
            dim: DIM as usize,
            n_labels: N_LABELS as usize,
            n_images: N_IMAGES as usize,
            n_rows: (N_IMAGES * VIEWS) as usize,
            device: Device::Cpu,
        };
        let mut term = term(&loss, &setting);
        let memory = Memory {
            teacher: &self.teacher,
            labels: &self.labels,
        };
        let image_idx = Tensor::arange(N_IMAGES, (Kind::Int64, Device::Cpu)).repeat([VIEWS]);
        let teacher = self.teacher.index_select(0, &image_idx);
        for step in [0, 5000] {
            let student = student.copy().set_requires_grad(true);
            let rows = Rows {
                student: &student,
                teacher: Some(&teacher),
                labels: &self.labels.index_select(0, &image_idx),
                image_idx: &image_idx,
                step,
                n_views: VIEWS as usize,
                memory: Some(&memory),
            };
            let value = term.value(&rows);
            let number = value.double_value(&[]);
            assert!(number.is_finite(), "{kind}: {number} at step {step}");
            value.backward();
            let gradient = student.grad();
            let finite = gradient.defined() && gradient.isfinite().all().int64_value(&[]) == 1;
            assert!(finite, "{kind}: the gradient is not finite at step {step}");
            for owned in term.owned() {
                let gradient = owned.tensor.grad();
                let finite = !gradient.defined() || gradient.isfinite().all().int64_value(&[]) == 1;
                assert!(
                    finite,
                    "{kind}: the gradient of {} is not finite",
                    owned.name
                );
            }
        }
    }
}

fn check_all(labels: &[i64]) {
    let set = Set::with_labels(labels);
    let options = (Kind::Float, Device::Cpu);
    tch::manual_seed(8);
    let usual = Tensor::randn([N_IMAGES * VIEWS, DIM], options);
    // Both views of every image alike, and exactly what the teacher makes of it.
    let as_teacher = set.teacher.repeat([VIEWS, 1]);
    let all_alike = Tensor::ones([N_IMAGES * VIEWS, DIM], options);
    for entry in CATALOG {
        for student in [&usual, &as_teacher, &all_alike] {
            set.check(entry.example, entry.kind, student);
        }
    }
}

#[test]
fn every_loss_is_finite_where_labels_have_several_images() {
    check_all(&[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
}

#[test]
fn every_loss_is_finite_where_all_images_have_one_label() {
    check_all(&[2; N_IMAGES as usize]);
}

#[test]
fn every_loss_is_finite_where_most_labels_have_one_image() {
    check_all(&[0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]);
}
