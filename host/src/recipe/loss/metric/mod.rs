//! Settings of losses that learn from labels.
//!
//! Pair and triplet losses compose: a [`Distance`], a [`Miner`] and [`PairReferences`] choose
//! what is compared, the loss rates it, a [`Reducer`] makes one number of it.

mod compose;
mod pairs;
mod proxies;
mod tuples;

pub use compose::{Distance, Gallery, Memory, Miner, OwnImage, PairReferences, Pairs, Reducer};
pub use pairs::{
    Circle, Contrastive, CosineContrastive, GeneralizedLifted, Lifted, Margin, MultiSimilarity,
    NPair, NtXent, OneSided, Similarity, Triplet, TupletMargin,
};
pub use proxies::{ProxyAnchor, ProxyNca, SoftTriple};
pub use tuples::{
    Mining, Positives, TupleContrastive, TupleMultiSimilarity, TupleReferences, TupleTriplet,
    Tuples,
};

#[cfg(test)]
mod tests {
    use crate::recipe::WeightedLoss;

    fn fault(loss: &str) -> Option<String> {
        let loss: WeightedLoss = toml::from_str(&format!("weight = 1\n{loss}"))
            .unwrap_or_else(|err| panic!("{loss}: {err}"));
        loss.fault()
    }

    fn triplet(references: &str, miner: &str) -> Option<String> {
        fault(&format!(
            "kind = \"triplet\"\nmargin = 0.2\ndistance = \"euclidean\"\n\
             pairs = {{ references = {references}, miner = {miner}, reducer = \"mean\" }}"
        ))
    }

    #[test]
    fn settings_that_can_not_work_are_named() {
        let gallery = r#"{ gallery = { pool = 4096, own_image = "positive" } }"#;
        assert_eq!(triplet("\"batch\"", "\"all\""), None);
        assert_eq!(triplet(gallery, "\"batch-hard\""), None);
        let expected = [
            (gallery, "\"all\"", "triplets in a gallery or memory"),
            (
                gallery,
                "{ semi-hard = { margin = 0.1 } }",
                "references batch or teacher",
            ),
            (
                "\"batch\"",
                "{ semi-hard = { margin = 0.0 } }",
                "margin of semi-hard",
            ),
            (
                "\"teacher\"",
                "{ distance-weighted = { nearest = 1.5, farthest = 1.4 } }",
                "nearest < farthest",
            ),
            (
                "{ memory = { size = 0, start_step = 0 } }",
                "\"batch-hard\"",
                "size of the memory",
            ),
        ];
        for (references, miner, message) in expected {
            let fault = triplet(references, miner).unwrap_or_default();
            assert!(fault.contains(message), "{references} {miner}: {fault:?}");
        }
    }

    #[test]
    fn only_references_of_the_teacher_tie_a_student_to_its_frame() {
        for (references, aligns) in [
            ("\"batch\"", false),
            ("\"teacher\"", true),
            ("{ memory = { size = 9, start_step = 0 } }", false),
        ] {
            let text = format!(
                "weight = 1\nkind = \"n-pair\"\nsimilarity = \"dot\"\nreferences = {references}"
            );
            let term: WeightedLoss = toml::from_str(&text).unwrap();
            assert_eq!(term.loss.settings().aligns(), aligns, "{references}");
            assert_eq!(term.loss.settings().needs_teacher(), aligns, "{references}");
        }
    }

    #[test]
    fn an_unknown_setting_of_a_part_is_refused() {
        let text = "weight = 1\nkind = \"n-pair\"\nsimilarity = \"dot\"\n\
                    references = { memory = { size = 9, start_step = 0, sise = 1 } }";
        let err = toml::from_str::<WeightedLoss>(text).unwrap_err();
        assert!(err.message().contains("sise"), "{err}");
    }
}
