//! What training hands over: a student as plain numbers, with the embeddings that libtorch
//! computed, so that export can compare without libtorch.

use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::preprocess::PreprocessSpec;

use crate::weights::Weights;
use crate::zoo::Network;

/// Number of [`eyas_shared::bundle::probe_image`]s that every student is checked with.
pub const N_PROBES: u32 = 8;

/// A student after training, mapped into the teacher's space.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedStudent {
    /// Name for people.
    pub name: String,
    /// Its architecture.
    pub network: Network,
    /// Its weights, batch norm not folded.
    pub weights: Weights,
    /// The pixels it reads.
    pub preprocess: PreprocessSpec,
    /// The teacher's space that its embeddings live in.
    pub space: SpaceId,
    /// Name of the teacher.
    pub teacher: String,
    /// SHA-256 of the resolved recipe.
    pub recipe: Fingerprint,
    /// The recipe's seed.
    pub seed: u64,
    /// Fingerprint of the manifest that it was trained on.
    pub manifest: Fingerprint,
    /// What libtorch computed.
    pub reference: ReferenceEmbeddings,
}

/// Unit embeddings computed by libtorch after training.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceEmbeddings {
    /// Of the probe images, in order, [`N_PROBES`] rows.
    pub probes: Embeddings,
    /// Identity and root-relative path of the real images that follow.
    pub images: Vec<(ImageId, String)>,
    /// Of these images, in order.
    pub of_images: Embeddings,
}
