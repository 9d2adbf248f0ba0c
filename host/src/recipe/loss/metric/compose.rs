//! What pair and triplet losses are composed of.

use serde::{Deserialize, Serialize};

use crate::recipe::is_positive;
use crate::recipe::loss::first_fault;

/// How far apart two embeddings are; lower is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// Between unit vectors, 0..=2.
    Euclidean,
    /// Its square, 0..=4.
    SquaredEuclidean,
    /// Between unit vectors, with 1e-6 added to every component of the difference: torch's
    /// pairwise distance.
    ShiftedEuclidean,
    /// 1 - cosine, 0..=2.
    Cosine,
    /// Minus the dot product of the embeddings as they are.
    Dot,
}

/// Which pairs or triplets count. Distances are the loss's own, without gradient.
///
/// A loss of pairs takes each pair of the chosen triplets once; a loss of triplets takes
/// all triplets that the chosen pairs make.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Miner {
    /// Everything.
    All,
    /// Triplets whose negative is farther than the positive, by at most `margin` (Schroff
    /// et al., CVPR 2015).
    SemiHard {
        /// In units of the distance.
        margin: f64,
    },
    /// For each anchor its farthest positive and its nearest negative (Hermans et al.,
    /// 2017).
    BatchHard,
    /// For each positive pair the anchor's nearest negative.
    NearestNegative,
    /// For each positive pair the nearest negative that is farther than the positive, or
    /// the farthest one if none is.
    NextNegative,
    /// Negatives nearer than the farthest positive and positives farther than the nearest
    /// negative, by cosines with a slack (Wang et al., CVPR 2019).
    MultiSimilarity {
        /// Slack.
        epsilon: f64,
    },
    /// For each positive pair one negative, drawn so that all distances are equally likely
    /// (Wu et al., ICCV 2017).
    DistanceWeighted {
        /// Nearer ones count as this near, 0 to 2.
        nearest: f64,
        /// Farther ones are not drawn while there are others, 0 to 2.
        farthest: f64,
    },
    /// For each positive pair one negative, drawn evenly.
    RandomNegative,
}

impl Miner {
    /// Whether it weighs every positive pair against every reference.
    fn crosses_pairs(self) -> bool {
        matches!(self, Self::SemiHard { .. } | Self::NextNegative)
    }

    /// Whether it chooses pairs, of which triplets have to be made.
    fn chooses_pairs(self) -> bool {
        matches!(self, Self::All | Self::MultiSimilarity { .. })
    }

    fn fault(self) -> Option<&'static str> {
        match self {
            Self::SemiHard { margin } => {
                first_fault(&[(is_positive(margin), "margin of semi-hard is not positive")])
            }
            Self::MultiSimilarity { epsilon } => {
                first_fault(&[(epsilon.is_finite(), "epsilon of the miner is not finite")])
            }
            Self::DistanceWeighted { nearest, farthest } => first_fault(&[(
                0.0 < nearest && nearest < farthest && farthest <= 2.0,
                "distance-weighted wants 0 < nearest < farthest <= 2",
            )]),
            _ => None,
        }
    }
}

/// How many values become one; 0 if there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reducer {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// The mean of those above 0.
    MeanOfNonZero,
}

/// What the student's embeddings of a batch are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairReferences {
    /// Each other.
    Batch,
    /// The teacher's embeddings of the batch; a row's own is a positive.
    Teacher,
    /// The teacher's embeddings of the training set, which never go stale.
    Gallery(Gallery),
    /// The student's embeddings of the last steps (Wang et al., CVPR 2020).
    Memory(Memory),
}

/// The teacher's embeddings of the training set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gallery {
    /// Images drawn anew at each step; all of them if there are not more.
    pub pool: usize,
    /// What the row's own image is.
    pub own_image: OwnImage,
}

/// What the teacher's embedding of a row's own image is to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnImage {
    /// A positive.
    Positive,
    /// Nothing.
    LeftOut,
}

/// A cross-batch memory. The batch enters it before it is compared; a row is not compared
/// with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Rows that are kept.
    pub size: usize,
    /// The loss is 0 before this step; the memory fills from the first.
    pub start_step: usize,
}

/// Largest memory or pool: each row of a batch is compared with all of it.
const MAX_REFERENCES: usize = 1 << 20;

impl PairReferences {
    pub(super) fn needs_teacher(self) -> bool {
        matches!(self, Self::Teacher | Self::Gallery(_))
    }

    pub(super) fn fault(self) -> Option<&'static str> {
        let sizes = 1..=MAX_REFERENCES;
        match self {
            Self::Gallery(gallery) => {
                first_fault(&[(sizes.contains(&gallery.pool), "pool is not 1 to 1048576")])
            }
            Self::Memory(memory) => first_fault(&[(
                sizes.contains(&memory.size),
                "size of the memory is not 1 to 1048576",
            )]),
            _ => None,
        }
    }

    fn is_large(self) -> bool {
        matches!(self, Self::Gallery(_) | Self::Memory(_))
    }
}

/// What a pair or triplet loss is composed with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairs {
    /// What the student's embeddings are compared with.
    pub references: PairReferences,
    /// Which pairs or triplets count.
    pub miner: Miner,
    /// How their losses become one number.
    pub reducer: Reducer,
}

impl Pairs {
    pub(super) fn fault(&self) -> Option<&'static str> {
        let fits = !(self.references.is_large() && self.miner.crosses_pairs());
        let of_both = self.references.fault().or(self.miner.fault());
        of_both.or(first_fault(&[(
            fits,
            "semi-hard and next-negative need references batch or teacher",
        )]))
    }

    /// What is wrong with it for a loss of triplets.
    pub(super) fn triplet_fault(&self) -> Option<&'static str> {
        let fits = !(self.references.is_large() && self.miner.chooses_pairs());
        self.fault().or(first_fault(&[(
            fits,
            "triplets in a gallery or memory need the miner batch-hard, nearest-negative, \
             distance-weighted or random-negative",
        )]))
    }
}
