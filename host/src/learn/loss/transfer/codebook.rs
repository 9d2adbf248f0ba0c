//! Structure similarity preserving (Wu et al., arXiv 2403.00648): a product-quantization
//! codebook of the teacher's embeddings is what both sides are compared by.

use eyas_shared::random::Random;
use tch::{Device, Kind, Tensor, no_grad};

use crate::learn::distance::{l2_normalize, squared_distances};
use crate::learn::loss::{Memory, Owned, Rows, Setting, Term};
use crate::recipe::loss::StructureSimilarity;

/// Images per centroid that the codebook is made from at most.
const POINTS_PER_CENTROID: usize = 256;

/// Divergence of the student's from the teacher's softmax over the centroids of each
/// sub-space, scores being `scale` times the cosine; summed over centroids, mean over rows
/// and sub-spaces.
///
/// `codebook` is M x C x W: M sub-spaces of W components with C centroids. Rows have M x W
/// components or fewer, and are taken as if zeros followed.
pub(in crate::learn) fn structure_similarity(
    student: &Tensor,
    teacher: &Tensor,
    codebook: &Tensor,
    scale: f64,
) -> Tensor {
    let [m, _, width] = codebook.size()[..] else {
        unreachable!("a codebook has three axes");
    };
    let unit = |x: &Tensor| {
        let lengths = x.norm_scalaropt_dim(2.0, [2].as_slice(), true);
        x / lengths.clamp_min(f64::from(eyas_shared::embedding::MIN_NORM))
    };
    let centroids = unit(codebook).transpose(1, 2);
    let scores = |rows: &Tensor| {
        let parts = sub_vectors(rows, m, width);
        (unit(&parts).bmm(&centroids) * scale).log_softmax(2, None::<Kind>)
    };
    let (found, wanted) = (scores(student), scores(teacher));
    let terms = wanted.exp() * (&wanted - found);
    terms.sum(student.kind()) / (m * student.size()[0]) as f64
}

/// M x N x W from N x D rows.
fn sub_vectors(rows: &Tensor, m: i64, width: i64) -> Tensor {
    let [n, dim] = rows.size()[..] else {
        unreachable!("embeddings are rows");
    };
    let missing = [0, m * width - dim];
    let padded = rows.constant_pad_nd(missing);
    padded.view([n, m, width]).transpose(0, 1).contiguous()
}

/// [`structure_similarity`] with a codebook made from the teacher's gallery at the first
/// step.
pub(in crate::learn) struct StructureSimilarityTerm {
    settings: StructureSimilarity,
    random: Random,
    /// Sub-spaces x centroids x components, zeros before the first step.
    codebook: Tensor,
    /// 1 once the codebook is made.
    made: Tensor,
}

impl StructureSimilarityTerm {
    pub(in crate::learn) fn new(settings: StructureSimilarity, setting: &Setting) -> Self {
        let m = settings.sub_spaces.min(setting.dim);
        let width = setting.dim.div_ceil(m);
        let options = (Kind::Float, setting.device);
        let size = [m, settings.centroids, width].map(|extent| extent as i64);
        let random = Random::new(setting.seed).fork("codebook");
        Self {
            settings,
            random: random.at(setting.term_idx as u64),
            codebook: Tensor::zeros(size, options),
            made: Tensor::zeros([1], options),
        }
    }

    fn make_codebook(&mut self, memory: &Memory<'_>) {
        let size = self.codebook.size();
        let gallery = memory.teacher.detach().to_device(Device::Cpu);
        let mut points: Vec<usize> = (0..gallery.size()[0] as usize).collect();
        self.random.shuffle(&mut points);
        points.truncate(POINTS_PER_CENTROID * self.settings.centroids);
        let points: Vec<i64> = points.into_iter().map(|point| point as i64).collect();
        let gallery = gallery.index_select(0, &Tensor::from_slice(&points));
        let parts = sub_vectors(&l2_normalize(&gallery), size[0], size[2]);
        let made: Vec<Tensor> = (0..size[0])
            .map(|part| k_means(&parts.get(part), size[1], self.settings.iterations))
            .collect();
        self.codebook.copy_(&Tensor::stack(&made, 0));
        let _ = self.made.fill_(1.0);
    }
}

/// Centroids (C x W) of shuffled points (N x W), by Lloyd's iterations from the first
/// points; a centroid that no point is nearest to stays where it is.
fn k_means(points: &Tensor, n_centroids: i64, iterations: usize) -> Tensor {
    let n = points.size()[0];
    let start = Tensor::arange(n_centroids, (Kind::Int64, Device::Cpu)).remainder(n);
    let mut centroids = points.index_select(0, &start);
    for _ in 0..iterations {
        let nearest = squared_distances(points, &centroids).argmin(1, false);
        let sums = centroids.zeros_like().index_add(0, &nearest, points);
        let ones = Tensor::ones([n, 1], (points.kind(), Device::Cpu));
        let counts = Tensor::zeros([n_centroids, 1], (points.kind(), Device::Cpu));
        let counts = counts.index_add(0, &nearest, &ones);
        let means = sums / counts.clamp_min(1.0);
        centroids = means.where_self(&counts.gt(0.0), &centroids);
    }
    centroids
}

impl Term for StructureSimilarityTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        if self.made.double_value(&[0]) == 0.0 {
            no_grad(|| self.make_codebook(rows.memory()));
        }
        let scale = self.settings.scale;
        structure_similarity(rows.student, rows.teacher(), &self.codebook, scale)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        let owned = |name, tensor| Owned {
            name,
            tensor,
            rate_factor: None,
        };
        vec![
            owned("codebook", &self.codebook),
            owned("codebook_made", &self.made),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_heaps_of_points_become_the_centroids() {
        let points = Tensor::from_slice(&[0.0_f32, 10.0, 1.0, 11.0, 2.0, 12.0]).view([6, 1]);
        let centroids = k_means(&points, 2, 10).view([2]);
        assert_eq!(Vec::<f32>::try_from(centroids).unwrap(), [1.0, 11.0]);
    }

    #[test]
    fn more_centroids_than_points_are_points_again() {
        let points = Tensor::from_slice(&[1.0_f32, 4.0]).view([2, 1]);
        let centroids = k_means(&points, 3, 5).view([3]);
        assert_eq!(Vec::<f32>::try_from(centroids).unwrap(), [1.0, 4.0, 1.0]);
    }

    #[test]
    fn missing_components_are_zeros() {
        let rows = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        let parts = sub_vectors(&rows, 2, 2);
        assert_eq!(parts.size(), [2, 2, 2]);
        assert_eq!(parts.double_value(&[1, 0, 0]), 2.0);
        assert_eq!(parts.double_value(&[1, 0, 1]), 0.0);
    }
}
