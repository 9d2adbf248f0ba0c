//! SoftTriple (Qian et al., ICCV 2019).

use tch::{Kind, Reduction, Tensor};

use super::proxy_anchor::first_proxies;
use crate::learn::distance::l2_normalize;
use crate::learn::loss::{Owned, Rows, Setting, Term};
use crate::recipe::loss::SoftTriple;

/// Added to squared distances of centers, so that the root has a gradient.
const EPSILON: f64 = 1e-5;

/// [`soft_triple`] with its centers.
pub(in crate::learn) struct SoftTripleTerm {
    settings: SoftTriple,
    /// (C * K) x D, the centers of a class side by side.
    centers: Tensor,
}

impl SoftTripleTerm {
    pub(in crate::learn) fn new(settings: SoftTriple, setting: &Setting) -> Self {
        let centers = first_proxies(setting, setting.n_labels * settings.centers);
        Self { settings, centers }
    }
}

impl Term for SoftTripleTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        soft_triple(rows.student, rows.labels, &self.centers, &self.settings)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        vec![Owned {
            name: "centers",
            tensor: &self.centers,
            rate_factor: Some(self.settings.proxy_rate_factor),
        }]
    }
}

/// Cross entropy of the classes' similarities, each a softmax-weighted mean of the cosines
/// with the class's centers; plus tau times the mean distance of centers of a class.
///
/// `embeddings` N x D and `centers` (C * K) x D, those of a class side by side, are
/// normalized here.
pub(in crate::learn) fn soft_triple(
    embeddings: &Tensor,
    labels: &Tensor,
    centers: &Tensor,
    settings: &SoftTriple,
) -> Tensor {
    let kind = embeddings.kind();
    let n_centers = settings.centers as i64;
    let n_classes = centers.size()[0] / n_centers;
    let centers = l2_normalize(centers);
    let cosines = l2_normalize(embeddings)
        .matmul(&centers.transpose(0, 1))
        .view([-1, n_classes, n_centers]);
    let weights = (&cosines / settings.gamma).softmax(2, kind);
    let similarities = (weights * cosines).sum_dim_intlist([2].as_slice(), false, kind);
    let own = labels.one_hot(n_classes).to_kind(kind);
    let scores = (similarities - own * settings.margin) * settings.lambda;
    let picked = scores.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
    if n_centers == 1 || settings.tau == 0.0 {
        return picked;
    }
    picked + spread_of(&centers.view([n_classes, n_centers, -1])) * settings.tau
}

/// Sum of the distances between the centers (C x K x D) of a class over C K (K - 1).
fn spread_of(centers: &Tensor) -> Tensor {
    let size = centers.size();
    let (n_classes, n_centers) = (size[0], size[1]);
    let cosines = centers.matmul(&centers.transpose(1, 2));
    let distances = (2.0 + EPSILON - cosines * 2.0)
        .clamp_min(0.1 * EPSILON)
        .sqrt();
    let pairs = Tensor::ones([n_centers, n_centers], (Kind::Bool, centers.device())).triu(1);
    let sum = (distances * pairs.to_kind(centers.kind())).sum(centers.kind());
    sum / (n_classes * n_centers * (n_centers - 1)) as f64
}
