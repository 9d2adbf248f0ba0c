//! The references of a step: the batch, the teacher's embeddings, or a memory.

use eyas_shared::random::Random;
use tch::{Device, Kind, Tensor, no_grad};

use super::{Comparison, no_loss};
use crate::learn::loss::{Owned, Rows, Setting, Term};
use crate::recipe::loss::{Gallery, Memory, OwnImage, PairReferences};

/// Marks a slot of a [`Ring`] that nothing has been written to.
const EMPTY: f64 = -1.0;

type Formula = Box<dyn Fn(&mut Comparison, &mut Random) -> Tensor>;

/// A loss over pairs or triplets with what it compares the batch with.
pub(in crate::learn) struct PairTerm {
    formula: Formula,
    references: PairReferences,
    random: Random,
    /// With [`PairReferences::Memory`].
    ring: Option<Ring>,
}

impl PairTerm {
    pub(in crate::learn) fn boxed(
        references: PairReferences,
        setting: &Setting,
        formula: impl Fn(&mut Comparison, &mut Random) -> Tensor + 'static,
    ) -> Box<dyn Term> {
        let ring = match references {
            PairReferences::Memory(memory) => Some(Ring::new(memory, setting)),
            _ => None,
        };
        Box::new(Self {
            formula: Box::new(formula),
            references,
            random: setting.random("pairs"),
            ring,
        })
    }
}

impl Term for PairTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        let mut random = self.random.at(rows.step as u64);
        let (student, labels) = (rows.student, rows.labels);
        let mut comparison = match self.references {
            PairReferences::Batch => Comparison::within(student, labels),
            PairReferences::Teacher => Comparison::with_teacher(student, rows.teacher(), labels),
            PairReferences::Gallery(gallery) => with_gallery(rows, gallery, &mut random),
            PairReferences::Memory(memory) => {
                let ring = self.ring.as_mut().expect("a memory has a ring");
                let comparison = ring.compare(student, labels);
                if rows.step < memory.start_step {
                    return no_loss(student);
                }
                comparison
            }
        };
        (self.formula)(&mut comparison, &mut random)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        self.ring.as_ref().map(Ring::owned).unwrap_or_default()
    }
}

fn with_gallery(rows: &Rows<'_>, gallery: Gallery, random: &mut Random) -> Comparison {
    let memory = rows.memory();
    let pool = pool_of(
        memory.teacher.size()[0],
        gallery.pool,
        random,
        rows.student.device(),
    );
    let own = rows.image_idx.unsqueeze(1).eq_tensor(&pool.unsqueeze(0));
    let left_out = (gallery.own_image == OwnImage::LeftOut).then_some(&own);
    Comparison::with(
        rows.student,
        rows.labels,
        &memory.teacher.index_select(0, &pool),
        &memory.labels.index_select(0, &pool),
        left_out,
    )
}

/// `wanted` different rows of `n`, drawn evenly, or all in order if there are not more.
pub(in crate::learn) fn pool_of(
    n: i64,
    wanted: usize,
    random: &mut Random,
    device: Device,
) -> Tensor {
    if n <= wanted as i64 {
        return Tensor::arange(n, (Kind::Int64, device));
    }
    let mut rows: Vec<i64> = (0..n).collect();
    for place in 0..wanted {
        let from = place + random.below(rows.len() - place);
        rows.swap(place, from);
    }
    rows.truncate(wanted);
    Tensor::from_slice(&rows).to_device(device)
}

/// The student's embeddings of the last steps.
struct Ring {
    /// Size x D.
    embeddings: Tensor,
    /// Class numbers, [`EMPTY`] where nothing was written; f32, exact up to 2^24.
    labels: Tensor,
    /// The slot that is written next, 1 number.
    next: Tensor,
}

impl Ring {
    fn new(memory: Memory, setting: &Setting) -> Self {
        let (size, options) = (memory.size as i64, (Kind::Float, setting.device));
        Self {
            embeddings: Tensor::zeros([size, setting.dim as i64], options),
            labels: Tensor::full([size], EMPTY, options),
            next: Tensor::zeros([1], options),
        }
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        let owned = |name, tensor| Owned {
            name,
            tensor,
            rate_factor: None,
        };
        vec![
            owned("embeddings", &self.embeddings),
            owned("labels", &self.labels),
            owned("next", &self.next),
        ]
    }

    /// Writes the batch over the oldest rows and compares it with all; of a batch larger
    /// than the memory its first rows are kept.
    fn compare(&mut self, student: &Tensor, labels: &Tensor) -> Comparison {
        let size = self.labels.size()[0];
        let n_written = student.size()[0].min(size);
        let start = self.next.double_value(&[0]) as i64;
        let device = student.device();
        let slots = (Tensor::arange(n_written, (Kind::Int64, device)) + start).remainder(size);
        no_grad(|| {
            let written = student.detach().narrow(0, 0, n_written);
            let written = written.to_kind(Kind::Float);
            let _ = self.embeddings.index_copy_(0, &slots, &written);
            let classes = labels.narrow(0, 0, n_written).to_kind(Kind::Float);
            let _ = self.labels.index_copy_(0, &slots, &classes);
            let _ = self.next.fill_(((start + n_written) % size) as f64);
        });
        let own = slots.one_hot(size).to_kind(Kind::Bool);
        let unwritten = student.size()[0] - n_written;
        let own = own.constant_pad_nd([0, 0, 0, unwritten]);
        let left_out = own.logical_or(&self.labels.eq(EMPTY).unsqueeze(0));
        // A copy: the next step writes while gradients of this one may still be asked.
        let references = self.embeddings.copy();
        let classes = self.labels.to_kind(Kind::Int64);
        Comparison::with(student, labels, &references, &classes, Some(&left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(size: usize) -> Ring {
        let setting = Setting {
            seed: 1,
            term_idx: 0,
            dim: 2,
            n_labels: 9,
            n_images: 9,
            channels: Default::default(),
            device: Device::Cpu,
        };
        let start_step = 0;
        Ring::new(Memory { size, start_step }, &setting)
    }

    fn compare(ring: &mut Ring, values: &[f32], labels: &[i64]) -> Comparison {
        let student = Tensor::from_slice(values).view([-1, 2]);
        ring.compare(&student, &Tensor::from_slice(labels))
    }

    fn flat<T>(tensor: &Tensor) -> Vec<T>
    where
        Vec<T>: TryFrom<Tensor, Error: std::fmt::Debug>,
    {
        Vec::try_from(tensor.contiguous().view(-1)).unwrap()
    }

    #[test]
    fn a_memory_is_written_in_rounds_and_rows_do_not_meet_themselves() {
        let mut ring = ring(3);
        let first = compare(&mut ring, &[1.0, 0.0, 0.0, 1.0], &[7, 8]);
        // Slot 2 is empty: neither positive nor negative.
        assert_eq!(flat::<bool>(&first.positive), [false; 6]);
        let negative = [false, true, false, true, false, false];
        assert_eq!(flat::<bool>(&first.negative), negative);
        let second = compare(&mut ring, &[3.0, 0.0, 0.0, 3.0], &[8, 8]);
        assert_eq!(
            flat::<f32>(&ring.embeddings),
            [0.0, 3.0, 0.0, 1.0, 3.0, 0.0]
        );
        assert_eq!(flat::<f32>(&ring.labels), [8.0, 8.0, 8.0]);
        let positive = [true, true, false, false, true, true];
        assert_eq!(flat::<bool>(&second.positive), positive);
        assert_eq!(flat::<f32>(&ring.next), [1.0]);
    }

    #[test]
    fn a_batch_larger_than_the_memory_fills_it() {
        let mut ring = ring(1);
        let comparison = compare(&mut ring, &[1.0, 0.0, 0.0, 1.0], &[7, 7]);
        assert_eq!(flat::<bool>(&comparison.positive), [false, true]);
        assert_eq!(flat::<f32>(&ring.embeddings), [1.0, 0.0]);
    }

    #[test]
    fn a_pool_has_different_rows_and_changes_with_the_step() {
        let pool = |step| {
            let random = &mut Random::new(4).at(step);
            let mut rows = flat::<i64>(&pool_of(50, 20, random, Device::Cpu));
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), 20);
            rows
        };
        assert_ne!(pool(0), pool(1));
        assert_eq!(pool(2), pool(2));
        let all = pool_of(5, 20, &mut Random::new(4), Device::Cpu);
        assert_eq!(flat::<i64>(&all), [0, 1, 2, 3, 4]);
    }
}
