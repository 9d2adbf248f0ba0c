//! Proxy Anchor loss (Kim et al., CVPR 2020).

use tch::{Kind, Tensor};

use crate::learn::distance::l2_normalize;

/// Settings of [`proxy_anchor`].
#[derive(Clone, Copy, Debug)]
pub(in crate::learn) struct ProxyAnchor {
    /// Scale of the cosines.
    pub(in crate::learn) alpha: f64,
    /// Margin of the cosines.
    pub(in crate::learn) margin: f64,
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
    config: ProxyAnchor,
) -> Tensor {
    let n_classes = proxies.size()[0];
    let cosines = l2_normalize(embeddings).matmul(&l2_normalize(proxies).transpose(0, 1));
    let own = labels.one_hot(n_classes).to_kind(Kind::Bool);
    let attraction = (&cosines - config.margin) * -config.alpha;
    let repulsion = (&cosines + config.margin) * config.alpha;
    let n_present = own.any_dim(0, false).sum(Kind::Int64).int64_value(&[]) as f64;
    let of_class = |exponents: Tensor, keep: &Tensor| {
        // log(1 + sum of exp) as a logsumexp with one zero: nothing overflows.
        let kept = exponents.masked_fill(&keep.logical_not(), f64::NEG_INFINITY);
        let zero = Tensor::zeros([1, n_classes], (embeddings.kind(), embeddings.device()));
        Tensor::cat(&[kept, zero], 0).logsumexp([0].as_slice(), false)
    };
    let attracted = of_class(attraction, &own).sum(embeddings.kind()) / n_present;
    let repelled = of_class(repulsion, &own.logical_not()).sum(embeddings.kind());
    attracted + repelled / n_classes as f64
}
