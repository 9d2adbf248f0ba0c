//! What a result follows from, key by key: a run goes on only with the very same, and
//! otherwise says what changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;

/// All that the result of a run follows from, as keys with values for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Experiment(BTreeMap<String, String>);

impl Experiment {
    /// Every key of a recipe, such as `recipe.loss[0].kind`.
    pub(super) fn of_recipe(recipe: &Recipe) -> Self {
        let form = toml::Value::try_from(recipe).expect("a recipe has a TOML form");
        let mut experiment = Self::default();
        experiment.add("recipe".to_owned(), &form);
        experiment
    }

    fn add(&mut self, key: String, value: &toml::Value) {
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    self.add(format!("{key}.{name}"), value);
                }
            }
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                for (idx, value) in items.iter().enumerate() {
                    self.add(format!("{key}[{idx}]"), value);
                }
            }
            _ => {
                self.0.insert(key, value.to_string());
            }
        }
    }

    /// Adds something else that the result follows from.
    #[must_use]
    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.0.insert(key.to_owned(), value.to_string());
        self
    }

    /// What differs, one line per key: `recipe.seed: 3 -> 4`.
    pub(super) fn changes_to(&self, new: &Self) -> Vec<String> {
        let mut keys: Vec<&String> = self.0.keys().chain(new.0.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let shown = |value: Option<&String>| value.map_or("(nothing)".to_owned(), Clone::clone);
        keys.into_iter()
            .filter(|key| self.0.get(*key) != new.0.get(*key))
            .map(|key| {
                let (old, new) = (self.0.get(key), new.0.get(key));
                format!("{key}: {} -> {}", shown(old), shown(new))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_key_is_named_with_both_values() {
        let recipe = crate::recipe::example();
        let mut other = recipe.clone();
        other.seed = 4;
        other.loss[0].weight = 2.0;
        other.stabilize.freeze = vec!["stem".to_owned()];
        let old = Experiment::of_recipe(&recipe).with("compute", "CPU, 2 threads");
        let new = Experiment::of_recipe(&other).with("compute", "GPU 0");
        assert_eq!(old.changes_to(&old), Vec::<String>::new());
        assert_eq!(
            old.changes_to(&new),
            [
                "compute: CPU, 2 threads -> GPU 0",
                "recipe.loss[0].weight: 1.0 -> 2.0",
                "recipe.seed: 1 -> 4",
                r#"recipe.stabilize.freeze: [] -> ["stem"]"#,
            ]
        );
    }

    #[test]
    fn a_key_that_one_side_lacks_is_a_change() {
        let old = Experiment::default().with("teacher", "a");
        let changes = old.changes_to(&Experiment::default());
        assert_eq!(changes, ["teacher: a -> (nothing)"]);
    }
}
