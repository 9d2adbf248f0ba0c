//! Proxy Anchor loss (Kim et al., CVPR 2020).

use eyas_shared::random::Random;
use tch::{Kind, Tensor};

use crate::learn::distance::l2_normalize;
use crate::learn::loss::{Owned, Rows, Setting, Term, log1p_sum_exp};
use crate::learn::network::tensor_of;
use crate::recipe::loss::ProxyAnchor;
use crate::weights::Weight;

/// [`proxy_anchor`] with its proxies.
pub(in crate::learn) struct ProxyAnchorTerm {
    settings: ProxyAnchor,
    /// C x D.
    proxies: Tensor,
}

impl ProxyAnchorTerm {
    pub(in crate::learn) fn new(settings: ProxyAnchor, setting: &Setting) -> Self {
        let proxies = first_proxies(setting, setting.n_labels);
        Self { settings, proxies }
    }
}

impl Term for ProxyAnchorTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        proxy_anchor(rows.student, rows.labels, &self.proxies, self.settings)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        vec![Owned {
            name: "proxies",
            tensor: &self.proxies,
            rate_factor: Some(self.settings.proxy_rate_factor),
        }]
    }
}

/// `n` x D, normal with variance 2 / n, as the authors' code starts them.
pub(super) fn first_proxies(setting: &Setting, n: usize) -> Tensor {
    let mut random = Random::new(setting.seed)
        .fork("proxies")
        .at(setting.term_idx as u64);
    let deviation = (2.0 / n as f64).sqrt();
    let values = (0..n * setting.dim)
        .map(|_| (random.normal() * deviation) as f32)
        .collect();
    let shape = vec![n, setting.dim];
    tensor_of(&Weight { shape, values }, setting.device).set_requires_grad(true)
}

/// Every class has a proxy that attracts its own images and repels all others.
///
/// `embeddings` N x D and `proxies` C x D are normalized here; `labels` holds N class
/// numbers. The attraction is averaged over the classes of the batch, the repulsion over
/// all classes.
pub(in crate::learn) fn proxy_anchor(
    embeddings: &Tensor,
    labels: &Tensor,
    proxies: &Tensor,
    settings: ProxyAnchor,
) -> Tensor {
    let n_classes = proxies.size()[0];
    let cosines = l2_normalize(embeddings).matmul(&l2_normalize(proxies).transpose(0, 1));
    let own = labels.one_hot(n_classes).to_kind(Kind::Bool);
    let attraction = (&cosines - settings.margin) * -settings.alpha;
    let repulsion = (&cosines + settings.margin) * settings.alpha;
    let n_present = own.any_dim(0, false).sum(Kind::Int64).int64_value(&[]) as f64;
    let attracted = log1p_sum_exp(&attraction, &own, 0).sum(embeddings.kind()) / n_present;
    let repelled = log1p_sum_exp(&repulsion, &own.logical_not(), 0).sum(embeddings.kind());
    attracted + repelled / n_classes as f64
}
