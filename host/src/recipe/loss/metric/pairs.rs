//! Settings of losses over pairs and triplets.

use serde::{Deserialize, Serialize};

use super::compose::{Distance, PairReferences, Pairs};
use crate::recipe::loss::{Settings, first_fault};
use crate::recipe::{is_positive, is_zero_or_more};

/// Contrastive: positives nearer and negatives farther than their margins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contrastive {
    /// Positives nearer than it cost nothing.
    pub positive_margin: f64,
    /// Negatives farther than it cost nothing.
    pub negative_margin: f64,
    /// Distance of the margins.
    pub distance: Distance,
    /// What is compared.
    pub pairs: Pairs,
}

/// Contrastive on cosines, as the authors of cross-batch memory use it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosineContrastive {
    /// Negatives of a lower cosine cost nothing.
    pub margin: f64,
    /// What is compared.
    pub references: PairReferences,
}

/// Triplet loss (Schroff et al., CVPR 2015).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triplet {
    /// By how much a negative has to be farther than the positive.
    pub margin: f64,
    /// Distance of the margin.
    pub distance: Distance,
    /// What is compared.
    pub pairs: Pairs,
}

/// Margin loss (Wu et al., ICCV 2017) with a fixed boundary; the sum is divided by the
/// number of sides of triplets that cost something.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margin {
    /// Half the width of the gap around the boundary.
    pub margin: f64,
    /// Distance that parts positives from negatives.
    pub boundary: f64,
    /// Distance of both.
    pub distance: Distance,
    /// What is compared; the reducer is not asked.
    pub pairs: Pairs,
}

/// What rates a pair in [`NPair`]; higher is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// Cosine.
    Cosine,
    /// Dot product of the embeddings as they are.
    Dot,
}

/// N-pair loss (Sohn, NIPS 2016): the first positive pair of each class against those of
/// all others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NPair {
    /// Of anchors and positives.
    pub similarity: Similarity,
    /// Where the positives come from.
    pub references: PairReferences,
}

/// Lifted structure (Song et al., CVPR 2016).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifted {
    /// Taken from the distance of positives.
    pub positive_margin: f64,
    /// Distance that negatives should have.
    pub negative_margin: f64,
    /// Distance of both.
    pub distance: Distance,
    /// What is compared.
    pub pairs: Pairs,
}

/// Generalized lifted structure (Hermans et al., 2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneralizedLifted {
    /// Taken from the distance of positives.
    pub positive_margin: f64,
    /// Distance that negatives should have.
    pub negative_margin: f64,
    /// Distance of both.
    pub distance: Distance,
    /// What is compared.
    pub pairs: Pairs,
}

/// Tuplet margin (Yu and Tao, ICCV 2019).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TupletMargin {
    /// Slack of a positive's angle, in degrees.
    pub margin_degrees: f64,
    /// Factor of the cosines.
    pub scale: f64,
    /// What is compared.
    pub pairs: Pairs,
}

/// What happens to anchors that miners left without positives or without negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OneSided {
    /// The side that they have counts.
    Kept,
    /// They count as 0. Positives of a cosine of 1 are no positives, as in the authors'
    /// code.
    LeftOut,
}

/// Multi-similarity (Wang et al., CVPR 2019).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiSimilarity {
    /// Scale of positives.
    pub alpha: f64,
    /// Scale of negatives.
    pub beta: f64,
    /// Cosine that parts them.
    pub base: f64,
    /// Anchors with one side only.
    pub one_sided: OneSided,
    /// What is compared; an anchor is one value of the reducer.
    pub pairs: Pairs,
}

/// Normalized temperature-scaled cross entropy (Chen et al., ICML 2020), with labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NtXent {
    /// Cosines are divided by it.
    pub temperature: f64,
    /// What is compared.
    pub pairs: Pairs,
}

/// Circle loss (Sun et al., CVPR 2020).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circle {
    /// Relaxation: positives should reach 1 - m, negatives stay below m.
    pub m: f64,
    /// Scale.
    pub gamma: f64,
    /// What is compared; an anchor is one value of the reducer.
    pub pairs: Pairs,
}

/// A loss that has [`PairReferences`] asks of a teacher what they do.
macro_rules! settings {
    ($loss:ty, $references:expr, $fault:expr) => {
        impl Settings for $loss {
            fn fault(&self) -> Option<&'static str> {
                let fault: fn(&$loss) -> Option<&'static str> = $fault;
                fault(self)
            }

            fn needs_teacher(&self) -> bool {
                let references: fn(&$loss) -> PairReferences = $references;
                references(self).needs_teacher()
            }

            /// Distances to the teacher's embeddings tie the student to their frame.
            fn aligns(&self) -> bool {
                self.needs_teacher()
            }
        }
    };
}

fn finite_margins(margins: &[f64]) -> Option<&'static str> {
    let finite = margins.iter().all(|margin| margin.is_finite());
    first_fault(&[(finite, "a margin is not finite")])
}

settings!(Contrastive, |loss| loss.pairs.references, |loss| {
    finite_margins(&[loss.positive_margin, loss.negative_margin]).or(loss.pairs.fault())
});
settings!(CosineContrastive, |loss| loss.references, |loss| {
    finite_margins(&[loss.margin]).or(loss.references.fault())
});
settings!(Triplet, |loss| loss.pairs.references, |loss| {
    finite_margins(&[loss.margin]).or(loss.pairs.triplet_fault())
});
settings!(Margin, |loss| loss.pairs.references, |loss| {
    finite_margins(&[loss.margin, loss.boundary]).or(loss.pairs.triplet_fault())
});
settings!(NPair, |loss| loss.references, |loss| loss
    .references
    .fault());
settings!(Lifted, |loss| loss.pairs.references, |loss| {
    finite_margins(&[loss.positive_margin, loss.negative_margin]).or(loss.pairs.fault())
});
settings!(GeneralizedLifted, |loss| loss.pairs.references, |loss| {
    finite_margins(&[loss.positive_margin, loss.negative_margin]).or(loss.pairs.fault())
});
settings!(TupletMargin, |loss| loss.pairs.references, |loss| {
    first_fault(&[
        (
            is_zero_or_more(loss.margin_degrees) && loss.margin_degrees < 180.0,
            "margin_degrees is not 0 to below 180",
        ),
        (is_positive(loss.scale), "scale is not positive"),
    ])
    .or(loss.pairs.fault())
});
settings!(MultiSimilarity, |loss| loss.pairs.references, |loss| {
    first_fault(&[
        (is_positive(loss.alpha), "alpha is not positive"),
        (is_positive(loss.beta), "beta is not positive"),
        (loss.base.is_finite(), "base is not finite"),
    ])
    .or(loss.pairs.fault())
});
settings!(NtXent, |loss| loss.pairs.references, |loss| {
    first_fault(&[(is_positive(loss.temperature), "temperature is not positive")])
        .or(loss.pairs.fault())
});
settings!(Circle, |loss| loss.pairs.references, |loss| {
    first_fault(&[
        (loss.m.is_finite(), "m is not finite"),
        (is_positive(loss.gamma), "gamma is not positive"),
    ])
    .or(loss.pairs.fault())
});
