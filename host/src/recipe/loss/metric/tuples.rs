//! Settings of losses over tuples of a query, its positives and its negatives (Budnik and
//! Avrithis, CVPR 2021, AML).

use serde::{Deserialize, Serialize};

use super::compose::Reducer;
use crate::recipe::is_positive;
use crate::recipe::loss::{Settings, first_fault};

/// Which tuple each row of a batch is the query of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuples {
    /// Who embeds positives and negatives, and where they are looked for.
    pub references: TupleReferences,
    /// What is a positive.
    pub positives: Positives,
    /// How negatives are chosen.
    pub mining: Mining,
    /// Negatives of a tuple; fewer if there are not so many labels.
    pub negatives: usize,
    /// Whether the teacher's embedding of the query itself is a second positive (Contr+).
    pub own_teacher: bool,
    /// How the losses of the tuples become one number.
    pub reducer: Reducer,
}

/// Who embeds positives and negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TupleReferences {
    /// The student: other rows of the batch (symmetric). A batch of tuples is taken as it
    /// is, each with its own positive and negatives.
    Batch,
    /// The teacher: its embeddings of other rows of the batch, or of the batch's tuples
    /// (asymmetric).
    Teacher,
    /// The teacher: its embeddings of the training set (asymmetric).
    Gallery {
        /// Images drawn anew at each step among which negatives are looked for.
        pool: usize,
    },
}

/// What is a positive; one is drawn for each tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Positives {
    /// Another image of the query's label. Negatives have other labels, each another one.
    Label,
    /// The image that stands beside the query in the pairs that the data lists (SfM-120k),
    /// for tuples that batches are made of. Negatives as with `Label`.
    Listed,
    /// One of the images that the teacher sees nearest to the query; labels are not asked,
    /// and negatives are not among them.
    Teacher {
        /// How many.
        nearest: usize,
    },
}

/// How negatives are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mining {
    /// Those nearest to the student's query.
    Hard,
    /// Drawn evenly.
    Random,
}

impl Tuples {
    fn fault(&self) -> Option<&'static str> {
        let pool = match self.references {
            TupleReferences::Batch | TupleReferences::Teacher => 1,
            TupleReferences::Gallery { pool } => pool,
        };
        let nearest = match self.positives {
            Positives::Label | Positives::Listed => 1,
            Positives::Teacher { nearest } => nearest,
        };
        first_fault(&[
            (
                (1..=1024).contains(&self.negatives),
                "negatives is not 1 to 1024",
            ),
            ((1..=1 << 20).contains(&pool), "pool is not 1 to 1048576"),
            (
                (1..=1 << 20).contains(&nearest),
                "nearest is not 1 to 1048576",
            ),
        ])
    }

    fn is_asymmetric(&self) -> bool {
        self.references != TupleReferences::Batch || self.own_teacher
    }
}

/// Contrastive over tuples: Contr, and with `own_teacher` Contr+.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TupleContrastive {
    /// Negatives farther than it cost nothing; Euclidean, of unit vectors.
    pub margin: f64,
    /// The tuples.
    pub tuples: Tuples,
}

/// Triplet loss over tuples, on squared distances.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TupleTriplet {
    /// By how much a negative's squared distance has to be larger than the positive's.
    pub margin: f64,
    /// The tuples.
    pub tuples: Tuples,
}

/// Multi-similarity over tuples; only the query is an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TupleMultiSimilarity {
    /// Scale of positives.
    pub alpha: f64,
    /// Scale of negatives.
    pub beta: f64,
    /// Cosine that parts them.
    pub base: f64,
    /// The tuples.
    pub tuples: Tuples,
}

/// All losses over tuples ask the same of a teacher.
macro_rules! settings {
    ($loss:ty, $own_fault:expr) => {
        impl Settings for $loss {
            fn fault(&self) -> Option<&'static str> {
                let own_fault: fn(&$loss) -> Option<&'static str> = $own_fault;
                own_fault(self).or(self.tuples.fault())
            }

            fn needs_teacher(&self) -> bool {
                let pseudo_labels = matches!(self.tuples.positives, Positives::Teacher { .. });
                self.tuples.is_asymmetric() || pseudo_labels
            }

            fn aligns(&self) -> bool {
                self.tuples.is_asymmetric()
            }
        }
    };
}

settings!(TupleContrastive, |loss| first_fault(&[(
    loss.margin.is_finite(),
    "margin is not finite"
)]));
settings!(TupleTriplet, |loss| first_fault(&[(
    loss.margin.is_finite(),
    "margin is not finite"
)]));
settings!(TupleMultiSimilarity, |loss| first_fault(&[
    (is_positive(loss.alpha), "alpha is not positive"),
    (is_positive(loss.beta), "beta is not positive"),
    (loss.base.is_finite(), "base is not finite"),
]));
