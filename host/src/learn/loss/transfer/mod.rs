//! Losses that compare a student with a teacher.

mod codebook;
mod correlation;
mod dark_rank;
mod distillation;
mod feature_maps;
mod learned_metrics;
mod map_terms;
mod memory_contrast;
mod neighbors;
mod pkt;
mod regression;
mod relaxed_contrastive;
mod representation;
mod rkd;
mod second_order;

pub(in crate::learn) use codebook::{StructureSimilarityTerm, structure_similarity};
pub(in crate::learn) use correlation::{
    correlation_congruence, hint, similarity_preserving, successive_differences,
};
pub(in crate::learn) use dark_rank::dark_rank;
pub(in crate::learn) use distillation::{KnowledgeDistillationTerm, distill};
pub(in crate::learn) use feature_maps::{
    Flow, Regressor, attention_transfer, factor_transfer, feature_hint, neuron_selectivity,
    solution_flow, variational_information,
};
pub(in crate::learn) use learned_metrics::{absolute_teacher, relative_teacher};
pub(in crate::learn) use map_terms::{MapHintTerm, VariationalInformationTerm, flow_of};
pub(in crate::learn) use memory_contrast::{Memory, memory_contrast};
pub(in crate::learn) use neighbors::{contextual_similarity, decoupled_differential, rank_order};
pub(in crate::learn) use pkt::probabilistic_transfer;
pub(in crate::learn) use regression::regression;
pub(in crate::learn) use relaxed_contrastive::{relaxed_contrastive, relaxed_multi_similarity};
pub(in crate::learn) use representation::{ContrastiveRepresentationTerm, Drawn, ImageMemories};
pub(in crate::learn) use rkd::{rkd_angle, rkd_distance};
pub(in crate::learn) use second_order::second_order;
