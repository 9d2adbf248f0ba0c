//! Nested embeddings: prefixes that are embeddings of their own.

use super::Recipe;

impl Recipe {
    /// What is wrong with `nested`.
    pub(super) fn nested_fault(&self) -> Option<&'static str> {
        let longer = std::iter::once(&self.dim).chain(&self.nested);
        let mut pairs = longer.zip(&self.nested);
        if self.nested.contains(&0) || !pairs.all(|(longer, shorter)| shorter < longer) {
            return Some("nested does not fall from below dim to 1 or more");
        }
        let is_used = self.loss.iter().any(|term| term.loss.is_nested());
        (!self.nested.is_empty() && !is_used)
            .then_some("nested: no loss is applied to prefixes; add regression or memory-contrast")
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::example;

    #[test]
    fn prefixes_get_shorter_and_some_loss_must_use_them() {
        let mut recipe = example();
        for (nested, is_sound) in [
            (vec![], true),
            (vec![32], true),
            (vec![32, 16, 1], true),
            (vec![64], false),
            (vec![16, 32], false),
            (vec![16, 16], false),
            (vec![16, 0], false),
        ] {
            recipe.nested = nested;
            assert_eq!(
                recipe.nested_fault().is_none(),
                is_sound,
                "{:?}",
                recipe.nested
            );
        }
        recipe.nested = vec![32];
        recipe.loss.clear();
        let fault = recipe.nested_fault().unwrap_or_default();
        assert!(fault.contains("regression"), "{fault}");
    }
}
