//! Proxy NCA (Movshovitz-Attias et al., ICCV 2017).

use tch::Tensor;

use super::proxy_anchor::first_proxies;
use crate::learn::distance::{l2_normalize, squared_distances};
use crate::learn::loss::{Owned, Rows, Setting, Term};
use crate::recipe::loss::ProxyNca;

/// [`proxy_nca`] with its proxies.
pub(in crate::learn) struct ProxyNcaTerm {
    settings: ProxyNca,
    /// C x D.
    proxies: Tensor,
}

impl ProxyNcaTerm {
    pub(in crate::learn) fn new(settings: ProxyNca, setting: &Setting) -> Self {
        let proxies = first_proxies(setting, setting.n_labels);
        Self { settings, proxies }
    }
}

impl Term for ProxyNcaTerm {
    fn value(&mut self, rows: &Rows<'_>) -> Tensor {
        proxy_nca(rows.student, rows.labels, &self.proxies, &self.settings)
    }

    fn owned(&self) -> Vec<Owned<'_>> {
        vec![Owned {
            name: "proxies",
            tensor: &self.proxies,
            rate_factor: Some(self.settings.proxy_rate_factor),
        }]
    }
}

/// Cross entropy of picking the proxy of the own class among all, in proportion to
/// exp(-scale * squared distance); mean over rows.
///
/// `embeddings` N x D and `proxies` C x D are brought to their lengths here. The target is
/// 1 - smoothing for the own class, the rest spread evenly over the others.
pub(in crate::learn) fn proxy_nca(
    embeddings: &Tensor,
    labels: &Tensor,
    proxies: &Tensor,
    settings: &ProxyNca,
) -> Tensor {
    let rows = l2_normalize(embeddings) * settings.embedding_length;
    let points = l2_normalize(proxies) * settings.proxy_length;
    let kind = embeddings.kind();
    let scores = squared_distances(&rows, &points) * -settings.softmax_scale;
    let n_classes = proxies.size()[0];
    let spread = settings.smoothing / (n_classes - 1).max(1) as f64;
    let own = labels.one_hot(n_classes).to_kind(kind);
    let target = own * (1.0 - settings.smoothing - spread) + spread;
    let crossed = target * scores.log_softmax(1, kind);
    -crossed
        .sum_dim_intlist([1].as_slice(), false, kind)
        .mean(kind)
}
