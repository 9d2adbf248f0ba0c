//! The typed form of `models/recipes/*.toml`: one file describes one experiment.
//!
//! A recipe states the method, every value of it; paths to data, teacher and starting
//! weights are given on the command line. There are no defaults: an unknown or missing key
//! is an error, and what is run is what is written.

pub mod loss;
mod maps;
mod nested;
mod optimizer;
mod quantize;
mod sampling;
mod stabilize;
mod tuple_batch;

use std::path::Path;

use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::preprocess::PreprocessSpec;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::zoo;
pub use loss::{Loss, WeightedLoss};
pub use optimizer::{Moments, Optimizer, Precision, RateFactors, Schedule};
pub use quantize::Quantize;
pub use sampling::{Augmentation, Batch, TeacherViews};
pub use stabilize::{Average, BatchNorm, Clip, Stabilize};
pub use tuple_batch::{EpochMining, PoolEmbedder, StudentSees, TupleBatch};

const MAX_BYTES: u64 = 1 << 20;

/// Far beyond any training, and far below where steps would overflow.
const MAX_EPOCHS: usize = 1_000_000;

/// Most embeddings that are kept of one image.
const MAX_VIEWS: usize = 1024;

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
    /// How the last map becomes one vector.
    pub pooling: zoo::Pooling,
    /// Name in the zoo of the network whose maps losses compare with the student's; given
    /// only with such losses. It reads the very pixels that the student reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_network: Option<String>,
    /// Components of the embedding; a student's are its teacher's.
    pub dim: usize,
    /// Falling numbers of first components that are to be embeddings of their own
    /// (Matryoshka: Kusupati et al., NeurIPS 2022). Losses with [`Loss::is_nested`] are the
    /// mean over the whole and these prefixes, each scaled to length 1, student's and
    /// teacher's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<usize>,
    /// Where the weights come from.
    pub start: Start,
    /// The pixels that the network reads.
    pub input: PreprocessSpec,
    /// Passes over the training images, or rounds of tuples.
    pub epochs: usize,
    /// What one step sees.
    pub batch: Batch,
    /// Which of the teacher's embeddings are the target.
    pub teacher_views: TeacherViews,
    /// The rule that turns gradients into steps.
    pub optimizer: Optimizer,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Rates of some tensors in multiples of the schedule's.
    pub rate_factors: RateFactors,
    /// What keeps training steady.
    pub stabilize: Stabilize,
    /// Precision of the arithmetic.
    pub precision: Precision,
    /// Weights that are rounded in training; given only where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantize>,
    /// Share of the training images, 0 to below 1, held out of every class to watch recall.
    pub validation_fraction: f64,
    /// Random changes of training images.
    pub augmentation: Augmentation,
    /// Weighted sum that is minimized.
    pub loss: Vec<WeightedLoss>,
    /// Closed-form map after training.
    pub map: Map,
    /// Steps between two checkpoints.
    pub checkpoint_steps: usize,
    /// Which weights are the result.
    pub keep: Keep,
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

/// Which weights are the result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Those of the last step.
    Last,
    /// Those of the epoch with the best recall on the held-out part; the first such epoch.
    Best,
}

/// Closed-form map of a trained student, folded into the head: into its teacher's space, or
/// into one of its own.
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
    /// Learned whitening of the student by itself (Mikolajczyk and Matas, ICCV 2007;
    /// Radenović et al., TPAMI 2019): differences of pairs that show the same become equally
    /// large in all directions, then components are turned to fall by variance.
    ///
    /// It leaves the teacher's space. The student is of a space of its own and answers from
    /// galleries that it has embedded itself, and no others.
    Whitening {
        /// Which pairs.
        pairs: WhiteningPairs,
    },
}

/// Pairs of training images that a whitening is learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhiteningPairs {
    /// Each image and the next of its label, the last and the first.
    Label,
    /// Those that the data lists (SfM-120k).
    Listed,
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

    /// The network that is trained; `None` if its architecture is not in the zoo.
    #[must_use]
    pub fn network(&self) -> Option<zoo::Network> {
        let network = zoo::by_name(&self.architecture, self.dim.max(1))?;
        let network = network.for_side(self.input.crop as usize);
        Some(network.with_pooling(self.pooling))
    }

    fn fault(&self, trainee: Trainee) -> Option<String> {
        let Some(network) = self.network() else {
            let names: Vec<&str> = zoo::ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            return Some(format!(
                "architecture `{}` is not in the zoo; there are {}",
                self.architecture,
                names.join(", ")
            ));
        };
        if let Some(fault) = self.freeze_fault(&network) {
            return Some(fault);
        }
        if self.pooling != zoo::Pooling::Average && !network.pools_places() {
            return Some(format!(
                "pooling: the features of `{}` are those of its class token: set it to average",
                self.architecture
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
        if let Err(fault) = network.check_side(self.input.crop as usize) {
            return Some(format!("input: crop: {fault}"));
        }
        let wrong = [
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
                !(0.0..1.0).contains(&self.validation_fraction),
                "validation_fraction is not in 0..1",
            ),
            (
                self.keep == Keep::Best && self.validation_fraction == 0.0,
                "keep is best, but validation_fraction holds no image out to judge by",
            ),
            (self.loss.is_empty(), "no loss is given"),
            (self.checkpoint_steps == 0, "checkpoint_steps is 0"),
        ];
        let own = wrong.iter().find(|(wrong, _)| *wrong);
        let fault = own
            .map(|(_, what)| *what)
            .or_else(|| self.batch.fault())
            .or_else(|| self.augmentation.fault())
            .or_else(|| self.optimizer.fault())
            .or_else(|| self.schedule.fault())
            .or_else(|| self.rate_factors.fault())
            .or_else(|| self.stabilize.fault())
            .or_else(|| self.teacher_views_fault(trainee))
            .or_else(|| self.nested_fault())
            .or_else(|| self.quantize_fault(trainee));
        match fault {
            Some(what) => Some(what.to_owned()),
            None => self
                .loss_fault(trainee)
                .or_else(|| self.tuples_fault(trainee))
                .or_else(|| self.maps_fault(&network)),
        }
    }

    fn freeze_fault(&self, network: &zoo::Network) -> Option<String> {
        let weights = network.weights();
        let unmatched = self.stabilize.freeze.iter().find(|name| {
            let alone = Stabilize {
                freeze: vec![(*name).clone()],
                ..self.stabilize.clone()
            };
            !weights.iter().any(|weight| alone.freezes(&weight.name))
        });
        if let Some(name) = unmatched {
            return Some(format!(
                "stabilize.freeze: `{}` has no layer `{name}`",
                self.architecture
            ));
        }
        let frozen = |name: &str| self.stabilize.freezes(name);
        let all_frozen = weights.iter().all(|w| !w.trained || frozen(&w.name));
        all_frozen.then(|| "stabilize.freeze leaves nothing to train".to_owned())
    }

    fn teacher_views_fault(&self, trainee: Trainee) -> Option<&'static str> {
        match (trainee, self.teacher_views) {
            (Trainee::Teacher, TeacherViews::None) => None,
            (Trainee::Teacher, _) => {
                Some("a teacher is trained without a teacher: set teacher_views to none")
            }
            (Trainee::Student, TeacherViews::None) => {
                Some("a student learns from a teacher: teacher_views can not be none")
            }
            (Trainee::Student, TeacherViews::CachedViews(n)) if !(1..=MAX_VIEWS).contains(&n) => {
                Some("teacher_views: cached-views is not in 1..=1024")
            }
            (Trainee::Student, _) => None,
        }
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
                 regression loss; for a student that only searches what it has embedded itself, \
                 set map to whitening"
            }
            _ => return None,
        };
        Some(fault.to_owned())
    }

    /// Whether it needs the pairs of images that the data lists.
    #[must_use]
    pub fn needs_listed_pairs(&self) -> bool {
        let of_map = Map::Whitening {
            pairs: WhiteningPairs::Listed,
        };
        let of_tuples = matches!(&self.batch, Batch::Tuples(batch) if batch.positives == loss::Positives::Listed);
        of_tuples || self.map == of_map
    }

    /// Whether the student stays in its teacher's space, so that it can search the teacher's
    /// galleries.
    #[must_use]
    pub fn shares_the_teachers_space(&self) -> bool {
        !matches!(self.map, Map::Whitening { .. })
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
pub(crate) fn suggestion(message: &str) -> Option<String> {
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

/// A student's recipe for tests.
#[cfg(test)]
pub(crate) fn example() -> Recipe {
    Recipe::parse(tests::EXAMPLE, "example.toml", Trainee::Student).expect("it is a recipe")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const EXAMPLE: &str = r#"
        name = "example"
        seed = 1
        architecture = "eyas-s"
        pooling = "average"
        dim = 64
        start = "scratch"
        epochs = 2
        precision = "f32"
        validation_fraction = 0.1
        checkpoint_steps = 10
        keep = "last"
        batch = { kind = "shuffled", images = 8, views = 1 }
        teacher_views = "cached"
        optimizer = { kind = "adamw", beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.01 }
        schedule = { kind = "cosine", peak = 1e-3, end = 0.0, warmup_steps = 5 }
        rate_factors = { head = 1.0, pool = 1.0 }
        stabilize = { clip = "none", average = "none", batch_norm = "train", freeze = [], head_steps = 0 }
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
        assert!(parse(&mapped).unwrap().shares_the_teachers_space());
        let whitening = r#"{ kind = "whitening", pairs = "label" }"#;
        let whitened = relational.replace(r#"{ kind = "none" }"#, whitening);
        assert!(!parse(&whitened).unwrap().shares_the_teachers_space());
    }

    #[test]
    fn every_recipe_of_the_models_folder_is_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/recipes");
        let mut n_recipes = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let of_teacher = path.to_string_lossy().contains("teacher");
            let trainee = if of_teacher {
                Trainee::Teacher
            } else {
                Trainee::Student
            };
            if let Err(err) = Recipe::read(&path, trainee) {
                panic!("{err}");
            }
            n_recipes += 1;
        }
        assert!(n_recipes > 0);
    }

    #[test]
    fn every_way_to_train_can_be_written() {
        let ways = [
            (
                r#"{ kind = "shuffled", images = 8, views = 1 }"#,
                r#"{ kind = "per-label", labels = 4, images_per_label = 2, views = 2 }"#,
            ),
            (
                r#"{ kind = "shuffled", images = 8, views = 1 }"#,
                r#"{ kind = "balanced", images = 8, views = 1 }"#,
            ),
            (
                r#"{ kind = "shuffled", images = 8, views = 1 }"#,
                r#"{ kind = "tuples", tuples = 2, tuples_per_epoch = 8, student_sees = "queries", positives = { teacher = { nearest = 9 } }, negatives = 3, mining = "random", views = 2 }"#,
            ),
            (r#""cached""#, r#"{ cached-views = 4 }"#),
            (r#""cached""#, r#""online""#),
            (r#"kind = "adamw""#, r#"kind = "adam""#),
            (
                r#"kind = "adamw", beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8,"#,
                r#"kind = "sgd", momentum = 0.9, nesterov = true,"#,
            ),
            (
                r#"kind = "adamw", beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8,"#,
                r#"kind = "lars", momentum = 0.9, trust = 1e-3,"#,
            ),
            (
                r#"kind = "cosine", peak = 1e-3, end = 0.0,"#,
                r#"kind = "warm-restarts", peak = 1e-3, end = 0.0, period_steps = 10, period_factor = 2.0,"#,
            ),
            (
                r#"kind = "cosine", peak = 1e-3, end = 0.0,"#,
                r#"kind = "step", peak = 1e-3, every_steps = 10, factor = 0.1,"#,
            ),
            (
                r#"kind = "cosine", peak = 1e-3, end = 0.0,"#,
                r#"kind = "exponential", peak = 1e-3, every_steps = 10, factor = 0.1,"#,
            ),
            (
                r#"kind = "cosine", peak = 1e-3, end = 0.0,"#,
                r#"kind = "constant", peak = 1e-3,"#,
            ),
            (r#"clip = "none""#, r#"clip = { norm = 10.0 }"#),
            (r#"clip = "none""#, r#"clip = { value = 10.0 }"#),
            (r#"average = "none""#, r#"average = { ema = 0.999 }"#),
            (
                r#"batch_norm = "train""#,
                r#"batch_norm = "frozen-statistics""#,
            ),
            (r#"batch_norm = "train""#, r#"batch_norm = "frozen""#),
            ("freeze = []", r#"freeze = ["stem"]"#),
            (r#"precision = "f32""#, r#"precision = "bf16""#),
            (r#"precision = "f32""#, r#"precision = "f16""#),
            (
                r#"precision = "f32""#,
                "precision = \"f32\"\nquantize = { kind = \"int8\", last_epochs = 1 }",
            ),
            (r#"keep = "last""#, r#"keep = "best""#),
            (
                r#"map = { kind = "none" }"#,
                r#"map = { kind = "whitening", pairs = "listed" }"#,
            ),
            (r#"pooling = "average""#, r#"pooling = "average-max""#),
            (r#"pooling = "average""#, r#"pooling = "gem""#),
        ];
        for (from, to) in ways {
            let text = EXAMPLE.replace(from, to);
            assert_ne!(text, EXAMPLE, "{from}");
            let recipe = parse(&text).unwrap_or_else(|err| panic!("{to}: {err}"));
            assert_eq!(parse(&recipe.resolved()).unwrap(), recipe, "{to}");
        }
    }

    #[test]
    fn senseless_values_are_named() {
        let message =
            |from: &str, to: &str| parse(&EXAMPLE.replace(from, to)).unwrap_err().to_string();
        assert!(message("eyas-s", "vgg").contains("architecture `vgg` is not in the zoo"));
        assert!(message("epochs = 2", "epochs = 0").contains("epochs is 0 or"));
        assert!(message("peak = 1e-3", "peak = -1").contains("schedule.peak"));
        assert!(message("images = 8", "images = 1").contains("batch needs 2"));
        assert!(message("\"none\", average", "{ norm = 0.0 }, average").contains("clip"));
        assert!(message("average = \"none\"", "average = { ema = 1.0 }").contains("average"));
        assert!(message("\"cached\"", "\"none\"").contains("teacher_views"));
        assert!(message("\"cached\"", "{ cached-views = 0 }").contains("cached-views"));
        assert!(message("beta2 = 0.999", "beta2 = 1.0").contains("beta2"));
        assert!(message("crop = 64", "crop = 640").contains("crop"));
    }
}
