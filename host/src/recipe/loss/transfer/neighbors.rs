//! Settings of losses that compare a student's query with references in the teacher's
//! space: all of them align.

use serde::{Deserialize, Serialize};

use super::settings;
use crate::recipe::{is_positive, is_zero_or_more};

/// Neighborhood components of a student's query in the teacher's embeddings of all
/// training images, by label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryContrast {
    /// Cosines are divided by it.
    pub temperature: f64,
}

settings!(MemoryContrast, aligns: true, |loss| [
    (is_positive(loss.temperature), "temperature is not positive"),
]);

/// What a student's query is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum References {
    /// The teacher's embeddings of the rows of the step.
    Batch,
    /// The teacher's embeddings of all training images.
    Gallery,
}

/// Contextual similarity distillation (Wu et al., CVPR 2022).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextualSimilarity {
    /// Where neighbors are looked for.
    pub references: References,
    /// Nearest references of the teacher that are compared.
    pub n_neighbors: usize,
    /// The student's cosines are divided by it.
    pub student_temperature: f64,
    /// The teacher's cosines are divided by it.
    pub teacher_temperature: f64,
}

settings!(ContextualSimilarity, aligns: true, |loss| [
    (loss.n_neighbors >= 2, "n_neighbors is below 2"),
    (is_positive(loss.student_temperature), "student_temperature is not positive"),
    (is_positive(loss.teacher_temperature), "teacher_temperature is not positive"),
]);

/// Rank order preservation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankOrder {
    /// Nearest rows of the teacher that are compared, a row itself among them.
    pub n_neighbors: usize,
    /// Softness of the student's indicators.
    pub temperature: f64,
    /// How much similarity counts in a place's weight.
    pub rank_weight: f64,
}

settings!(RankOrder, aligns: true, |loss| [
    (loss.n_neighbors >= 2, "n_neighbors is below 2"),
    (is_positive(loss.temperature), "temperature is not positive"),
    (is_zero_or_more(loss.rank_weight), "rank_weight is negative"),
]);

/// Decoupled differential distillation, `D3still` (Xie et al., CVPR 2024).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoupledDifferential {
    /// Nearest rows of the teacher that are compared, a row itself counted.
    pub n_neighbors: usize,
    /// Weight of the distance to the own teacher embedding.
    pub alpha: f64,
    /// Weight of pairs that the student ranks the other way.
    pub beta: f64,
    /// Weight of pairs that the student ranks as the teacher.
    pub gamma: f64,
}

settings!(DecoupledDifferential, aligns: true, |loss| [
    (loss.n_neighbors >= 3, "n_neighbors is below 3"),
    (is_zero_or_more(loss.alpha), "alpha is negative"),
    (is_zero_or_more(loss.beta), "beta is negative"),
    (is_zero_or_more(loss.gamma), "gamma is negative"),
]);

/// Structure similarity preserving (Wu et al., arXiv 2403.00648).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StructureSimilarity {
    /// Parts that an embedding is cut into.
    pub sub_spaces: usize,
    /// Centroids of each part.
    pub centroids: usize,
    /// Cosines are multiplied by it.
    pub scale: f64,
    /// k-means iterations that make the codebook.
    pub iterations: usize,
}

settings!(StructureSimilarity, aligns: true, |loss| [
    (loss.sub_spaces >= 1, "sub_spaces is 0"),
    ((2..=65_536).contains(&loss.centroids), "centroids is not in 2..=65536"),
    (is_positive(loss.scale), "scale is not positive"),
    (loss.iterations <= 1000, "iterations is above 1000"),
]);

/// Knowledge distillation (Hinton et al., 2015) over labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnowledgeDistillation {
    /// Logits are divided by it.
    pub temperature: f64,
    /// Logits are cosines with label centers times it.
    pub scale: f64,
}

settings!(KnowledgeDistillation, aligns: true, |loss| [
    (is_positive(loss.temperature), "temperature is not positive"),
    (is_positive(loss.scale), "scale is not positive"),
]);
