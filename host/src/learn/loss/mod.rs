//! Losses as formulas: tensors in, one scalar out. Which rows are compared is decided by
//! the caller.
//!
//! `student` and `teacher` are N x D; gradient never flows into `teacher`.

mod memory_contrast;
mod proxy_anchor;
mod regression;
mod relaxed_contrastive;

pub(super) use memory_contrast::{Memory, memory_contrast};
pub(super) use proxy_anchor::{ProxyAnchor, proxy_anchor};
pub(super) use regression::regression;
pub(super) use relaxed_contrastive::{RelaxedContrastive, relaxed_contrastive};

#[cfg(test)]
mod golden;
