//! The typed form of `models/recipes/*.toml`: one file describes one experiment.
//!
//! A recipe states the method, every value of it; paths to data, teacher and starting
//! weights are given on the command line. There are no defaults: an unknown or missing key
//! is an error, and what is run is what is written.

pub mod loss;

use std::path::Path;

use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::preprocess::PreprocessSpec;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::zoo;
pub use loss::{Loss, WeightedLoss};

const MAX_BYTES: u64 = 1 << 20;

/// Far beyond any training, and far below where steps would overflow.
const MAX_EPOCHS: usize = 1_000_000;

/// One experiment: how a network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the result, for people and files.
    pub name: String,
    /// Root of all randomness.
    pub seed: u64,
    /// Name in the zoo.
    pub architecture: String,
    /// Components of the embedding; a student's are its teacher's.
    pub dim: usize,
    /// Where the weights come from.
    pub start: Start,
    /// The pixels that the network reads.
    pub input: PreprocessSpec,
    /// Passes over the training images.
    pub epochs: usize,
    /// What one step sees.
    pub batch: Batch,
    /// Learning rate over the steps.
    pub rate: Rate,
    /// AdamW's decoupled weight decay; not applied to biases, batch norm and proxies.
    pub weight_decay: f64,
    /// Share of the training images, 0 to below 1, held out of every class to watch recall.
    pub validation_fraction: f64,
    /// Random changes of training images.
    pub augmentation: Augmentation,
    /// Weighted sum that is minimized.
    pub loss: Vec<WeightedLoss>,
    /// Closed-form map into the teacher's space after training.
    pub map: Map,
    /// Steps between two checkpoints.
    pub checkpoint_steps: usize,
}

/// Where the first weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Random weights from the seed.
    Scratch,
    /// A safetensors file given with `--start`; a head that it lacks starts at random.
    Weights,
}

/// What one step sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Different images.
    pub images: usize,
    /// Augmented views of each; the network sees `images * views` inputs.
    pub views: usize,
}

/// Learning rate: linear warm-up, then half a cosine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Highest rate, reached after the warm-up.
    pub peak: f64,
    /// Rate of the last step.
    pub end: f64,
    /// Steps of the warm-up.
    pub warmup_steps: usize,
    /// The head's rate in multiples of the others'.
    pub head_factor: f64,
}

/// Random changes of training images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Smallest and largest share of the area that a random crop keeps, in (0, 1].
    pub crop_area: [f64; 2],
    /// Smallest and largest width / height of the crop.
    pub crop_aspect: [f64; 2],
    /// Whether half of the views are mirrored left to right.
    pub mirror: bool,
    /// Largest relative change of brightness, contrast and saturation.
    pub jitter: f64,
}

/// Closed-form map of a trained student into its teacher's space, folded into the head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Map {
    /// Leave the student as it is.
    None,
    /// Affine least squares with a penalty on the linear part.
    Ridge {
        /// Penalty, relative to the mean variance of the student's components.
        penalty: f64,
    },
    /// The best rotation (orthogonal Procrustes) after centring.
    Procrustes,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainee {
    /// From labels.
    Teacher,
    /// From a teacher's embeddings.
    Student,
}

/// Why a recipe can not be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not TOML, or not this recipe's keys.
    #[error("recipe `{path}`: {message}")]
    Syntax {
        /// Which file.
        path: String,
        /// Where and what, over several lines.
        message: String,
        /// A key that was probably meant.
        suggestion: Option<String>,
    },
    /// A value that makes no sense.
    #[error("recipe `{path}`: {what}")]
    Value {
        /// Which file.
        path: String,
        /// What is wrong.
        what: String,
    },
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// If it can not be read, has unknown or missing keys, or values that make no sense.
    pub fn read(path: &Path, trainee: Trainee) -> Result<Self, RecipeError> {
        let shown = path.display().to_string();
        let bytes = files::read(path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| RecipeError::Value {
            path: shown.clone(),
            what: "it is not UTF-8 text".to_owned(),
        })?;
        Self::parse(&text, &shown, trainee)
    }

    /// Checks a recipe's text; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &str, trainee: Trainee) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|err| RecipeError::Syntax {
            path: path.to_owned(),
            message: err.to_string().trim_end().to_owned(),
            suggestion: suggestion(err.message()),
        })?;
        match recipe.fault(trainee) {
            None => Ok(recipe),
            Some(what) => Err(RecipeError::Value {
                path: path.to_owned(),
                what,
            }),
        }
    }

    fn fault(&self, trainee: Trainee) -> Option<String> {
        if zoo::by_name(&self.architecture, self.dim.max(1)).is_none() {
            let names: Vec<&str> = zoo::ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            return Some(format!(
                "architecture `{}` is not in the zoo; there are {}",
                self.architecture,
                names.join(", ")
            ));
        }
        if let Some(fault) = self.input.fault() {
            return Some(format!("input: {fault}"));
        }
        if self.input.crop < zoo::MIN_SIDE {
            return Some(format!(
                "input: the crop is smaller than {} pixels",
                zoo::MIN_SIDE
            ));
        }
        let [small, large] = self.augmentation.crop_area;
        let [narrow, broad] = self.augmentation.crop_aspect;
        let faults = [
            (
                self.name.is_empty() || self.name.contains('/'),
                "name is empty or holds a `/`",
            ),
            (
                !(1..=eyas_shared::embedding::MAX_DIM).contains(&self.dim),
                "dim is out of range",
            ),
            (
                !(1..=MAX_EPOCHS).contains(&self.epochs),
                "epochs is 0 or above a million",
            ),
            (
                self.batch.images < 2 || self.batch.views == 0,
                "batch needs 2 images and 1 view",
            ),
            (
                !(is_positive(self.rate.peak) && is_zero_or_more(self.rate.end)),
                "rate is not positive",
            ),
            (
                !is_positive(self.rate.head_factor),
                "rate.head_factor is not positive",
            ),
            (
                !is_zero_or_more(self.weight_decay),
                "weight_decay is negative",
            ),
            (
                !(0.0..1.0).contains(&self.validation_fraction),
                "validation_fraction is not in 0..1",
            ),
            (
                !(0.0 < small && small <= large && large <= 1.0),
                "crop_area is not in (0, 1]",
            ),
            (
                !(0.0 < narrow && narrow <= broad && broad.is_finite()),
                "crop_aspect is empty",
            ),
            (
                !(0.0..1.0).contains(&self.augmentation.jitter),
                "jitter is not in 0..1",
            ),
            (self.loss.is_empty(), "no loss is given"),
            (self.checkpoint_steps == 0, "checkpoint_steps is 0"),
        ];
        if let Some((_, what)) = faults.iter().find(|(wrong, _)| *wrong) {
            return Some((*what).to_owned());
        }
        self.loss_fault(trainee)
    }

    fn loss_fault(&self, trainee: Trainee) -> Option<String> {
        let losses = || self.loss.iter().map(|term| &term.loss);
        if let Some(fault) = self.loss.iter().find_map(WeightedLoss::fault) {
            return Some(fault);
        }
        if matches!(self.map, Map::Ridge { penalty } if !is_positive(penalty)) {
            return Some("map: penalty is not positive".to_owned());
        }
        let fault = match trainee {
            Trainee::Teacher if losses().any(|loss| loss.settings().needs_teacher()) => {
                "a teacher is trained from labels; this loss compares with another teacher"
            }
            Trainee::Teacher if self.map != Map::None => "a teacher is not mapped: set map to none",
            Trainee::Student if !losses().any(|loss| loss.settings().needs_teacher()) => {
                "no loss compares with the teacher"
            }
            Trainee::Student
                if self.map == Map::None && !losses().any(|loss| loss.settings().aligns()) =>
            {
                "relational losses leave the student in a frame of its own, where it scores at \
                 chance against a teacher gallery: set map to ridge or procrustes, or add a \
                 regression loss"
            }
            _ => return None,
        };
        Some(fault.to_owned())
    }

    /// The recipe as it was understood, every key in order.
    ///
    /// # Panics
    /// Never: every recipe has a TOML form.
    #[must_use]
    pub fn resolved(&self) -> String {
        toml::to_string(self).expect("a recipe has a TOML form")
    }

    /// SHA-256 of the resolved recipe.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_bytes(self.resolved().as_bytes())
    }
}

/// False for NaN and infinity too.
fn is_positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

/// False for NaN and infinity too.
fn is_zero_or_more(x: f64) -> bool {
    x.is_finite() && x >= 0.0
}

/// The known name nearest to the unknown one in serde's message.
fn suggestion(message: &str) -> Option<String> {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (unknown, known) = quoted.split_first()?;
    if !message.starts_with("unknown") {
        return None;
    }
    known
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(unknown, name), *name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.5)
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        name = "example"
        seed = 1
        architecture = "eyas-s"
        dim = 64
        start = "scratch"
        epochs = 2
        weight_decay = 0.01
        validation_fraction = 0.1
        checkpoint_steps = 10
        batch = { images = 8, views = 1 }
        rate = { peak = 1e-3, end = 0.0, warmup_steps = 5, head_factor = 1.0 }
        augmentation = { crop_area = [0.5, 1.0], crop_aspect = [0.75, 1.3], mirror = true, jitter = 0.2 }
        loss = [{ kind = "regression", weight = 1.0 }]
        map = { kind = "none" }
        [input]
        resize_shorter = 72
        crop = 64
        filter = "bilinear"
        mean = [0.5, 0.5, 0.5]
        std = [0.2, 0.2, 0.2]
    "#;

    fn parse(text: &str) -> Result<Recipe, RecipeError> {
        Recipe::parse(text, "r.toml", Trainee::Student)
    }

    #[test]
    fn the_resolved_recipe_reads_back_as_itself() {
        let recipe = parse(EXAMPLE).unwrap();
        assert_eq!(parse(&recipe.resolved()).unwrap(), recipe);
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_suggestion() {
        let Err(RecipeError::Syntax {
            message,
            suggestion,
            ..
        }) = parse(&EXAMPLE.replace("epochs", "epoch"))
        else {
            panic!("it was accepted");
        };
        assert!(message.contains("unknown field `epoch`"), "{message}");
        assert_eq!(suggestion.as_deref(), Some("epochs"));
        let Err(RecipeError::Syntax { suggestion, .. }) =
            parse(&EXAMPLE.replace("\"regression\"", "\"regresion\""))
        else {
            panic!("it was accepted");
        };
        assert_eq!(suggestion.as_deref(), Some("regression"));
    }

    #[test]
    fn a_relational_student_without_map_is_refused() {
        let relational = EXAMPLE.replace(
            r#"kind = "regression""#,
            r#"kind = "relaxed-contrastive", sigma = 1.0, delta = 1.0"#,
        );
        let message = parse(&relational).unwrap_err().to_string();
        assert!(message.contains("frame of its own"), "{message}");
        let mapped = relational.replace(r#"{ kind = "none" }"#, r#"{ kind = "procrustes" }"#);
        parse(&mapped).unwrap();
    }

    #[test]
    fn senseless_values_are_named() {
        let message =
            |from: &str, to: &str| parse(&EXAMPLE.replace(from, to)).unwrap_err().to_string();
        assert!(message("eyas-s", "vgg").contains("architecture `vgg` is not in the zoo"));
        assert!(message("epochs = 2", "epochs = 0").contains("epochs is 0 or"));
        assert!(message("peak = 1e-3", "peak = -1").contains("rate"));
        assert!(message("crop = 64", "crop = 640").contains("crop"));
    }
}
