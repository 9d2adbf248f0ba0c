//! Losses as formulas: tensors in, one scalar out. Which rows are compared is decided by
//! the caller.
//!
//! `student` and `teacher` are N x D; gradient never flows into `teacher`.

mod proxy_anchor;
mod regression;
mod relaxed_contrastive;

pub(super) use proxy_anchor::{ProxyAnchor, proxy_anchor};
pub(super) use regression::regression;
pub(super) use relaxed_contrastive::{RelaxedContrastive, relaxed_contrastive};

#[cfg(test)]
mod golden;
