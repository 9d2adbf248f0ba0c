//! Every loss of the catalog, as a recipe asks for it, on batches of all kinds.

use tch::{Device, Kind, Tensor};

use std::collections::BTreeMap;

use super::{Maps, Memory, Rows, Setting, term};
use crate::learn::distance::l2_normalize;
use crate::recipe::loss::{CATALOG, Description};

const DIM: i64 = 16;

/// Images in the training set, five of each label.
const N_IMAGES: i64 = 20;

const N_LABELS: i64 = 4;

struct Batch {
    student: Tensor,
    teacher: Tensor,
    /// Positions in the training set: two views of each image.
    image_idx: Vec<i64>,
    labels: Vec<i64>,
}

impl Batch {
    /// Two views of each image; views differ for the student, not for the teacher.
    fn of(images: &[i64], kind: Kind) -> Self {
        tch::manual_seed(7);
        let image_idx = [images, images].concat();
        let options = (kind, Device::Cpu);
        let student = Tensor::randn([image_idx.len() as i64, DIM], options);
        let teacher = gallery(kind).index_select(0, &Tensor::from_slice(&image_idx));
        let labels = image_idx.iter().map(|image| image % N_LABELS).collect();
        Self {
            student,
            teacher,
            image_idx,
            labels,
        }
    }
}

fn gallery(kind: Kind) -> Tensor {
    let angles = Tensor::arange(N_IMAGES * DIM, (kind, Device::Cpu)).view([N_IMAGES, DIM]);
    l2_normalize(&(&angles * &angles * 0.37).sin())
}

/// Channels of every map.
const CHANNELS: i64 = 6;

/// Maps of all nodes that a loss compares, which follow the rows of the student.
fn maps_for(loss: &crate::recipe::Loss, student: &Tensor) -> (Maps, [BTreeMap<String, usize>; 2]) {
    let (mut maps, mut channels) = (Maps::default(), [BTreeMap::new(), BTreeMap::new()]);
    let Some(nodes) = loss.settings().nodes() else {
        return (maps, channels);
    };
    let n = student.size()[0];
    for node in nodes.student {
        let map = student.view([n, 1, 4, 4]).repeat([1, CHANNELS, 1, 1]);
        maps.student.insert(node.to_owned(), map.relu());
        channels[0].insert(node.to_owned(), CHANNELS as usize);
    }
    for node in nodes.teacher {
        let map = Tensor::randn([n, CHANNELS, 8, 8], (student.kind(), Device::Cpu));
        maps.teacher.insert(node.to_owned(), map.relu());
        channels[1].insert(node.to_owned(), CHANNELS as usize);
    }
    (maps, channels)
}

/// The value of two steps, far enough apart that a memory is full, with the gradients of
/// the second in `student`.
fn two_steps(description: &Description, batch: &Batch) -> [f64; 2] {
    let loss = description.term().loss;
    let (_, channels) = maps_for(&loss, &batch.student);
    let setting = Setting {
        seed: 1,
        term_idx: 0,
        dim: DIM as usize,
        n_labels: N_LABELS as usize,
        n_images: N_IMAGES as usize,
        channels,
        device: Device::Cpu,
    };
    let gallery = gallery(batch.student.kind());
    let gallery_labels: Vec<i64> = (0..N_IMAGES).map(|image| image % N_LABELS).collect();
    let memory = Memory {
        teacher: &gallery,
        labels: &Tensor::from_slice(&gallery_labels),
    };
    let rows = Rows {
        student: &batch.student,
        teacher: Some(&batch.teacher),
        labels: &Tensor::from_slice(&batch.labels),
        image_idx: &Tensor::from_slice(&batch.image_idx),
        step: 0,
        n_views: 2,
        memory: Some(&memory),
        maps: None,
        tuples: None,
    };
    let mut term = term(&loss, &setting);
    [0, 5000].map(|step| {
        let (maps, _) = maps_for(&loss, &batch.student);
        let value = term.value(&Rows {
            step,
            maps: Some(&maps),
            ..rows
        });
        assert_eq!(value.numel(), 1, "{}", description.kind);
        batch.student.shallow_clone().zero_grad();
        if value.requires_grad() {
            value.backward();
        }
        let finite = |what: &str, tensor: &Tensor| {
            let all = !tensor.defined() || tensor.isfinite().all().int64_value(&[]) == 1;
            assert!(all, "{}: {what} {tensor:?}", description.kind);
        };
        finite("gradient of the student", &batch.student.grad());
        for owned in term.owned() {
            finite(owned.name, owned.tensor);
            if owned.rate_factor.is_some() {
                finite(owned.name, &owned.tensor.grad());
            }
        }
        value.double_value(&[])
    })
}

#[test]
fn every_loss_of_the_catalog_has_finite_values_and_gradients_on_any_batch() {
    let equal_rows = |kind| {
        let mut batch = Batch::of(&[0, 1, 4, 5], kind);
        batch.student = Tensor::ones([8, DIM], (kind, Device::Cpu));
        batch
    };
    let equal_teachers = |kind| {
        let mut batch = Batch::of(&[0, 1, 4, 5], kind);
        batch.teacher = Tensor::ones([8, DIM], (kind, Device::Cpu)) * 0.25;
        batch
    };
    let as_teacher = |kind| {
        let mut batch = Batch::of(&[0, 1, 4, 5], kind);
        batch.student = batch.teacher.copy();
        batch
    };
    let kind = Kind::Float;
    let batches = [
        ("random", Batch::of(&[0, 1, 4, 5, 8, 9, 2, 3], kind)),
        ("equal rows", equal_rows(kind)),
        ("equal teachers", equal_teachers(kind)),
        ("what the teacher makes of it", as_teacher(kind)),
        ("one label", Batch::of(&[0, 4, 8, 12], kind)),
        ("all labels different", Batch::of(&[0, 1, 2, 3], kind)),
        ("two rows", Batch::of(&[5], kind)),
    ];
    for (name, mut batch) in batches {
        batch.student = batch.student.set_requires_grad(true);
        for description in CATALOG {
            let values = two_steps(description, &batch);
            assert!(
                values.iter().all(|value| value.is_finite()),
                "{} of {name}: {values:?}",
                description.kind
            );
        }
    }
}

#[test]
fn relational_losses_do_not_change_with_the_frame_of_the_student() {
    let relational = [
        "relaxed-contrastive",
        "rkd-distance",
        "rkd-angle",
        "dark-rank",
        "probabilistic-transfer",
    ];
    let batch = Batch::of(&[0, 1, 4, 5, 8, 9], Kind::Double);
    let (rotation, _) = Tensor::linalg_qr(
        &Tensor::randn([DIM, DIM], (Kind::Double, Device::Cpu)),
        "reduced",
    );
    let mut turned = Batch::of(&[0, 1, 4, 5, 8, 9], Kind::Double);
    turned.student = batch.student.matmul(&rotation) * 3.7;
    for description in CATALOG {
        if !relational.contains(&description.kind) {
            continue;
        }
        let [value, _] = two_steps(description, &batch);
        let [same, _] = two_steps(description, &turned);
        // Rounding of sums over all pairs in f64; PKT adds 1e-7 to every length.
        let difference = (value - same).abs() / value.abs();
        let tolerance = if description.kind == "probabilistic-transfer" {
            1e-6
        } else {
            1e-10
        };
        assert!(
            difference < tolerance,
            "{}: {value} {same}",
            description.kind
        );
    }
}
