//! The losses that a recipe can ask for, and what `eyas losses list` tells of each.
//!
//! Settings only: the formulas are in `learn::loss`.

mod catalog;
mod metric;
mod transfer;

use serde::{Deserialize, Serialize};

pub use catalog::{CATALOG, Description};
pub use metric::*;
pub use transfer::*;

/// One term of the weighted sum that a recipe minimizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightedLoss {
    /// Factor of the term.
    pub weight: f64,
    /// The term.
    #[serde(flatten)]
    pub loss: Loss,
}

/// The losses that can be trained with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Loss {
    /// Regression of the teacher's embedding.
    Regression(Regression),
    /// Relaxed contrastive.
    RelaxedContrastive(RelaxedContrastive),
    /// Neighborhood components in the teacher's gallery.
    MemoryContrast(MemoryContrast),
    /// Proxy Anchor.
    ProxyAnchor(ProxyAnchor),

    /// Relaxed multi-similarity.
    RelaxedMultiSimilarity(RelaxedMultiSimilarity),
    /// RKD-D.
    RkdDistance(RkdDistance),
    /// RKD-A.
    RkdAngle(RkdAngle),
    /// Hard DarkRank.
    DarkRank(DarkRank),
    /// PKT.
    ProbabilisticTransfer(ProbabilisticTransfer),
    /// LMT, relative teacher.
    RelativeTeacher(RelativeTeacher),
    /// SP.
    SimilarityPreserving(SimilarityPreserving),
    /// CC.
    CorrelationCongruence(CorrelationCongruence),
    /// LMT, absolute teacher.
    AbsoluteTeacher(AbsoluteTeacher),
    /// FitNets' hint on embeddings.
    Hint(Hint),
    /// RepDistiller's form of CC.
    SuccessiveDifferences(SuccessiveDifferences),
    /// RAML.
    SecondOrder(SecondOrder),
    /// CSD.
    ContextualSimilarity(ContextualSimilarity),
    /// ROP.
    RankOrder(RankOrder),
    /// D3.
    DecoupledDifferential(DecoupledDifferential),
    /// SSP.
    StructureSimilarity(StructureSimilarity),
    /// KD.
    KnowledgeDistillation(KnowledgeDistillation),
    /// CRD.
    ContrastiveRepresentation(ContrastiveRepresentation),
    /// FitNets' hint on maps.
    MapHint(MapHint),
    /// AT.
    AttentionTransfer(AttentionTransfer),
    /// FT.
    FactorTransfer(FactorTransfer),
    /// NST.
    NeuronSelectivity(NeuronSelectivity),
    /// FSP.
    SolutionFlow(SolutionFlow),
    /// VID.
    VariationalInformation(VariationalInformation),

    /// Proxy NCA.
    ProxyNca(ProxyNca),
    /// SoftTriple.
    SoftTriple(SoftTriple),
    /// Contrastive.
    Contrastive(Contrastive),
    /// Contrastive on cosines.
    CosineContrastive(CosineContrastive),
    /// Triplet.
    Triplet(Triplet),
    /// Margin.
    Margin(Margin),
    /// N-pair.
    NPair(NPair),
    /// Lifted structure.
    Lifted(Lifted),
    /// Generalized lifted structure.
    GeneralizedLifted(GeneralizedLifted),
    /// Tuplet margin.
    TupletMargin(TupletMargin),
    /// Multi-similarity.
    MultiSimilarity(MultiSimilarity),
    /// Normalized temperature-scaled cross entropy.
    NtXent(NtXent),
    /// Circle.
    Circle(Circle),
    /// Contrastive over tuples.
    TupleContrastive(TupleContrastive),
    /// Triplet over tuples.
    TupleTriplet(TupleTriplet),
    /// Multi-similarity over tuples.
    TupleMultiSimilarity(TupleMultiSimilarity),
}

/// What is the same for every loss.
pub trait Settings {
    /// What is wrong with a value, such as `sigma is not positive`.
    fn fault(&self) -> Option<&'static str>;

    /// Whether it compares with teacher embeddings.
    fn needs_teacher(&self) -> bool;

    /// Whether it moves the student into the teacher's own frame; a relational loss does
    /// not, and its student scores at chance against a teacher gallery until it is mapped.
    fn aligns(&self) -> bool;

    /// The nodes within the networks that it compares, if it compares maps.
    fn nodes(&self) -> Option<ComparedNodes<'_>> {
        None
    }
}

/// Nodes whose outputs, maps of N x C x H x W, a loss compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedNodes<'a> {
    /// Nodes of the student.
    pub student: Vec<&'a str>,
    /// Nodes of the teacher's network, one for each of the student's.
    pub teacher: Vec<&'a str>,
    /// Whether the two of a pair need the same number of channels.
    pub as_many_channels: bool,
}

impl Loss {
    /// What it has in common with the others.
    #[must_use]
    pub fn settings(&self) -> &dyn Settings {
        match self {
            Self::Regression(settings) => settings,
            Self::RelaxedContrastive(settings) => settings,
            Self::MemoryContrast(settings) => settings,
            Self::ProxyAnchor(settings) => settings,

            Self::RelaxedMultiSimilarity(settings) => settings,
            Self::RkdDistance(settings) => settings,
            Self::RkdAngle(settings) => settings,
            Self::DarkRank(settings) => settings,
            Self::ProbabilisticTransfer(settings) => settings,
            Self::RelativeTeacher(settings) => settings,
            Self::SimilarityPreserving(settings) => settings,
            Self::CorrelationCongruence(settings) => settings,
            Self::AbsoluteTeacher(settings) => settings,
            Self::Hint(settings) => settings,
            Self::SuccessiveDifferences(settings) => settings,
            Self::SecondOrder(settings) => settings,
            Self::ContextualSimilarity(settings) => settings,
            Self::RankOrder(settings) => settings,
            Self::DecoupledDifferential(settings) => settings,
            Self::StructureSimilarity(settings) => settings,
            Self::KnowledgeDistillation(settings) => settings,
            Self::ContrastiveRepresentation(settings) => settings,
            Self::MapHint(settings) => settings,
            Self::AttentionTransfer(settings) => settings,
            Self::FactorTransfer(settings) => settings,
            Self::NeuronSelectivity(settings) => settings,
            Self::SolutionFlow(settings) => settings,
            Self::VariationalInformation(settings) => settings,

            Self::ProxyNca(settings) => settings,
            Self::SoftTriple(settings) => settings,
            Self::Contrastive(settings) => settings,
            Self::CosineContrastive(settings) => settings,
            Self::Triplet(settings) => settings,
            Self::Margin(settings) => settings,
            Self::NPair(settings) => settings,
            Self::Lifted(settings) => settings,
            Self::GeneralizedLifted(settings) => settings,
            Self::TupletMargin(settings) => settings,
            Self::MultiSimilarity(settings) => settings,
            Self::NtXent(settings) => settings,
            Self::Circle(settings) => settings,
            Self::TupleContrastive(settings) => settings,
            Self::TupleTriplet(settings) => settings,
            Self::TupleMultiSimilarity(settings) => settings,
        }
    }

    /// Whether a recipe's `nested` prefixes get this loss too: it compares every student's
    /// embedding with the teacher's, so it means the same for fewer components.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        matches!(self, Self::Regression(_) | Self::MemoryContrast(_))
    }

    /// Its name in a recipe, such as `relaxed-contrastive`.
    ///
    /// # Panics
    /// Never: every loss has a TOML form with its kind.
    #[must_use]
    pub fn kind(&self) -> String {
        let form = toml::Table::try_from(self).expect("a loss has a TOML form");
        let kind = form.get("kind").and_then(toml::Value::as_str);
        kind.expect("the form of a loss has its kind").to_owned()
    }
}

impl WeightedLoss {
    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let fault = if self.weight.is_finite() {
            self.loss.settings().fault()?
        } else {
            "weight is not finite"
        };
        Some(format!("{}: {fault}", self.loss.kind()))
    }
}

/// The message of the first condition that does not hold.
pub(super) fn first_fault(conditions: &[(bool, &'static str)]) -> Option<&'static str> {
    let broken = conditions.iter().find(|(holds, _)| !holds);
    broken.map(|(_, message)| *message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_the_catalog_is_the_loss_that_it_explains() {
        for description in CATALOG {
            let term = description.term();
            assert_eq!(term.loss.kind(), description.kind);
            assert_eq!(term.fault(), None, "{}", description.kind);
        }
    }

    #[test]
    fn every_loss_is_in_the_catalog_once() {
        let message = toml::from_str::<WeightedLoss>("weight = 1\nkind = \"?\"").unwrap_err();
        // "unknown variant `?`, expected one of `a`, `b`"
        let known: Vec<&str> = message.message().split('`').skip(3).step_by(2).collect();
        let mut explained: Vec<&str> = CATALOG.iter().map(|entry| entry.kind).collect();
        explained.sort_unstable();
        let mut known = known;
        known.sort_unstable();
        assert_eq!(explained, known);
    }

    #[test]
    fn an_unknown_setting_of_a_loss_is_refused() {
        let text = "weight = 1\nkind = \"relaxed-contrastive\"\nsigma = 1\ndelta = 1\nsgima = 1";
        let err = toml::from_str::<WeightedLoss>(text).unwrap_err();
        assert!(err.message().contains("sgima"), "{err}");
    }
}
