//! What training a teacher and training a student have in common on the command line.

use std::path::PathBuf;

// No documentation: it would become the text of the commands that have these arguments.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TrainingArgs {
    /// What to do: a file such as models/recipes/shelf-student.toml.
    pub(super) recipe: PathBuf,
    /// Images: a folder or a CSV file.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// The split to train on.
    #[arg(long, default_value = "train")]
    pub(super) split: String,
    /// Weights to start from (safetensors), if the recipe says `start = "weights"`.
    #[arg(long)]
    pub(super) start: Option<PathBuf>,
    /// Use this seed instead of the recipe's.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    #[command(flatten)]
    pub(super) compute: ComputeArgs,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct ComputeArgs {
    /// Where to compute; `auto` takes a GPU if there is one.
    #[arg(long, value_enum, default_value_t)]
    pub(super) compute: ComputeWish,
    /// CPU threads; the same number gives the same bits. All cores if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ComputeWish {
    /// A GPU if there is one.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or an error.
    Gpu,
}

#[cfg(not(feature = "torch"))]
pub(super) fn no_torch<T>() -> anyhow::Result<T> {
    anyhow::bail!("this build has no libtorch; rebuild with the `torch` feature to train")
}

#[cfg(feature = "torch")]
pub(super) use with_torch::{choose_compute, naming_start, prepare, teacher_network};

#[cfg(feature = "torch")]
mod with_torch {
    use std::collections::HashMap;
    use std::path::Path;

    use super::{ComputeArgs, ComputeWish, TrainingArgs};
    use crate::data;
    use crate::data::manifest::{Manifest, Selection};
    use crate::learn::{Compute, ComputeChoice, LearnError};
    use crate::recipe::{Quantize, Recipe, RecipeError, Start, Trainee};
    use crate::weights::Weights;

    impl TrainingArgs {
        /// The recipe, with the seed that was asked for.
        pub(in crate::cli) fn recipe(&self, trainee: Trainee) -> Result<Recipe, RecipeError> {
            let mut recipe = Recipe::read(&self.recipe, trainee)?;
            recipe.seed = self.seed.unwrap_or(recipe.seed);
            Ok(recipe)
        }
    }

    /// What the arguments name, read.
    pub(in crate::cli) struct Prepared {
        /// All images of the split.
        pub(in crate::cli) split: Manifest,
        /// Those to train with.
        pub(in crate::cli) training: Manifest,
        /// Those held out.
        pub(in crate::cli) validation: Manifest,
        /// Positions in `training` that the data lists as showing the same, if the recipe
        /// asks for them.
        pub(in crate::cli) pairs: Vec<(usize, usize)>,
        pub(in crate::cli) start: Option<Weights>,
        pub(in crate::cli) compute: Compute,
    }

    pub(in crate::cli) fn prepare(
        args: &TrainingArgs,
        recipe: &Recipe,
    ) -> anyhow::Result<Prepared> {
        let split = split(&args.data, &args.split)?;
        let (training, validation) =
            split.split_validation(recipe.validation_fraction, recipe.seed);
        let compute = choose_compute(args.compute)?;
        let pairs = match recipe.needs_listed_pairs() {
            true => listed_pairs(args, &training)?,
            false => Vec::new(),
        };
        Ok(Prepared {
            split,
            training,
            validation,
            pairs,
            start: start_weights(recipe, args.start.as_deref())?,
            compute,
        })
    }

    impl Prepared {
        /// What a run says of itself at its start, by name.
        pub(in crate::cli) fn facts(
            &self,
            recipe: &Recipe,
            more: (&'static str, String),
        ) -> Vec<(&'static str, String)> {
            let named = format!("{} ({})", recipe.name, recipe.fingerprint().short());
            let images = format!(
                "{} to train, {} held out",
                self.training.images.len(),
                self.validation.images.len()
            );
            let mut facts = vec![
                ("recipe", named),
                ("seed", recipe.seed.to_string()),
                more,
                ("images", images),
                ("compute", self.compute.to_string()),
            ];
            if let Some(Quantize::Int8 { last_epochs }) = recipe.quantize {
                let n_epochs = recipe.epochs;
                let rounded = format!("in int8 in the last {last_epochs} of {n_epochs} epochs");
                facts.push(("weights", rounded));
            }
            facts
        }
    }

    /// The pairs that the data lists, as positions among the training images; those with a
    /// held-out image are left out.
    fn listed_pairs(
        args: &TrainingArgs,
        training: &Manifest,
    ) -> anyhow::Result<Vec<(usize, usize)>> {
        let listed = data::landmarks::listed_pairs(&args.data, &args.split)?;
        let Some(listed) = listed else {
            anyhow::bail!(
                "the recipe asks for listed pairs, but `{}` lists none for its split `{}`: only \
                 SfM-120k as it was published does",
                args.data.display(),
                args.split
            );
        };
        let paths = training.images.iter().map(|image| image.path.as_str());
        let position: HashMap<&str, usize> = paths.zip(0..).collect();
        let of_training = |[query, matched]: &[String; 2]| {
            Some((
                *position.get(query.as_str())?,
                *position.get(matched.as_str())?,
            ))
        };
        let pairs: Vec<(usize, usize)> = listed.iter().filter_map(of_training).collect();
        if pairs.is_empty() {
            anyhow::bail!(
                "none of the {} pairs that `{}` lists has both images among the {} to train with",
                listed.len(),
                args.data.display(),
                training.images.len()
            );
        }
        Ok(pairs)
    }

    /// The images of one split.
    fn split(data: &Path, split: &str) -> anyhow::Result<Manifest> {
        let manifest = data::open(data)?;
        let selected = manifest.select(&Selection {
            split: Some(split.to_owned()),
            role: None,
        });
        if selected.images.is_empty() {
            let mut splits: Vec<&str> = manifest
                .images
                .iter()
                .map(|image| image.split.as_str())
                .collect();
            splits.sort_unstable();
            splits.dedup();
            anyhow::bail!(
                "`{}` has no split `{split}`; it has {}",
                data.display(),
                splits.join(", ")
            );
        }
        Ok(selected)
    }

    pub(in crate::cli) fn choose_compute(args: ComputeArgs) -> anyhow::Result<Compute> {
        let choice = match args.compute {
            ComputeWish::Auto => ComputeChoice::Auto,
            ComputeWish::Cpu => ComputeChoice::Cpu,
            ComputeWish::Gpu => ComputeChoice::Gpu,
        };
        Ok(Compute::choose(choice, args.threads.map(usize::from))?)
    }

    /// Adds the file of the starting weights to an error that is about them.
    pub(in crate::cli) fn naming_start(err: LearnError, start: Option<&Path>) -> anyhow::Error {
        let about_start = matches!(err, LearnError::Weights(_));
        let err = anyhow::Error::from(err);
        match start {
            Some(path) if about_start => {
                err.context(format!("can not start from `{}`", path.display()))
            }
            _ => err,
        }
    }

    fn start_weights(recipe: &Recipe, path: Option<&Path>) -> anyhow::Result<Option<Weights>> {
        match (recipe.start, path) {
            (Start::Scratch, None) => Ok(None),
            (Start::Weights, Some(path)) => Ok(Some(Weights::read(path)?)),
            (Start::Weights, None) => anyhow::bail!(
                "recipe `{}` starts from given weights: name the file with --start",
                recipe.name
            ),
            (Start::Scratch, Some(path)) => anyhow::bail!(
                "recipe `{}` starts from scratch, but --start names `{}`",
                recipe.name,
                path.display()
            ),
        }
    }

    /// The weights of the network whose maps losses compare with.
    pub(in crate::cli) fn teacher_network(
        recipe: &Recipe,
        path: Option<&Path>,
    ) -> anyhow::Result<Option<Weights>> {
        match (&recipe.teacher_network, path) {
            (None, None) => Ok(None),
            (Some(_), Some(path)) => Ok(Some(Weights::read(path)?)),
            (Some(name), None) => anyhow::bail!(
                "recipe `{}` compares maps with those of {name}: name its weights with \
                 --teacher-network",
                recipe.name
            ),
            (None, Some(path)) => anyhow::bail!(
                "recipe `{}` has no teacher_network, but --teacher-network names `{}`",
                recipe.name,
                path.display()
            ),
        }
    }
}
