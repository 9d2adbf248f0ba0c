//! Metric learning: distances, miners, reducers and references that compose with the
//! losses over pairs and triplets; losses with proxies.
//!
//! [`Comparison`] knows what is a positive and what a negative; [`mine`](miner::mine)
//! chooses among them; a loss rates the chosen ones; [`reduce`](reducer::reduce) makes one
//! number. [`PairTerm`] brings the references of a step.

mod comparison;
mod lifted;
mod miner;
mod pair;
mod proxy_anchor;
mod proxy_nca;
mod reducer;
mod references;
mod soft_triple;
mod triplet;

pub(in crate::learn) use comparison::Comparison;
pub(in crate::learn) use lifted::{generalized_lifted, lifted};
pub(in crate::learn) use pair::{
    circle, contrastive, cosine_contrastive, multi_similarity, n_pair, nt_xent, tuplet_margin,
};
pub(in crate::learn) use proxy_anchor::{ProxyAnchorTerm, proxy_anchor};
pub(in crate::learn) use proxy_nca::{ProxyNcaTerm, proxy_nca};
pub(in crate::learn) use references::{PairTerm, pool_of};
pub(in crate::learn) use soft_triple::{SoftTripleTerm, soft_triple};
pub(in crate::learn) use triplet::{margin, triplet};

pub(in crate::learn) use reducer::reduce;

use tch::Tensor;

/// Stands for minus infinity where an infinity would make gradients NaN.
const NEVER: f64 = -1e30;

/// log sum exp of each row over the entries that `keep` marks, N x 1; about [`NEVER`],
/// without gradient, where there are none.
fn masked_logsumexp(exponents: &Tensor, keep: &Tensor) -> Tensor {
    exponents
        .masked_fill(&keep.logical_not(), NEVER)
        .logsumexp([1].as_slice(), true)
}

/// log(1 + exp(x)), exact for large x too.
fn log1p_exp(x: &Tensor) -> Tensor {
    x.logaddexp(&x.zeros_like())
}

/// A loss of 0 that hangs on the embeddings like any other.
fn no_loss(embeddings: &Tensor) -> Tensor {
    embeddings.sum(embeddings.kind()) * 0.0
}
