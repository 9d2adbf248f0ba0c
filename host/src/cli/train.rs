//! `eyas train`: a student from a recipe.

use std::path::PathBuf;

use super::Answer;

/// Train a student from a recipe.
///
/// The run directory keeps the resolved recipe, a log, metrics and a checkpoint. The same
/// command goes on with a run that was interrupted and ends with the same bytes.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas train models/recipes/shelf-student.toml --data shelves --teacher shelf.teacher --out runs/shelf")]
pub(super) struct Args {
    /// What to do, such as models/recipes/shelf-student.toml.
    pub(super) recipe: PathBuf,
    /// Images: a folder or a CSV file.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// The split to train on.
    #[arg(long, default_value = "train")]
    pub(super) split: String,
    /// The teacher whose space the student learns.
    #[arg(long)]
    pub(super) teacher: PathBuf,
    /// Run directory: new, or one to go on with.
    #[arg(long)]
    pub(super) out: PathBuf,
    /// Weights to start from (safetensors), if the recipe says `start = "weights"`.
    #[arg(long)]
    pub(super) start: Option<PathBuf>,
    /// Use this seed instead of the recipe's.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Folder of cached teacher embeddings.
    #[arg(long, default_value = "cache")]
    pub(super) cache: PathBuf,
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

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    train(args, &super::say)?;
    Ok(Answer::Yes)
}

#[cfg(not(feature = "torch"))]
pub(super) fn train(_args: &Args, _tell: &dyn Fn(&str)) -> anyhow::Result<()> {
    anyhow::bail!("this build has no libtorch; rebuild with the `torch` feature to train")
}

#[cfg(feature = "torch")]
pub(super) use with_torch::train;

#[cfg(feature = "torch")]
pub(super) mod with_torch {
    use std::path::Path;

    use anyhow::Context;

    use super::{Args, ComputeArgs, ComputeWish};
    use crate::cli::run_log::RunLog;
    use crate::data;
    use crate::data::manifest::{Manifest, Selection};
    use crate::embeddings::EmbeddedImages;
    use crate::embeddings::cache::embed_images;
    use crate::learn::{
        Compute, ComputeChoice, Inputs, LearnError, TeacherOf, checkpoint_path, train_student,
    };
    use crate::recipe::{Recipe, Start, Trainee};
    use crate::teacher::Teacher;
    use crate::weights::Weights;

    /// Trains what `args` say; `tell` hears what a user would read.
    pub(in crate::cli) fn train(args: &Args, tell: &dyn Fn(&str)) -> anyhow::Result<()> {
        let mut recipe = Recipe::read(&args.recipe, Trainee::Student)?;
        recipe.seed = args.seed.unwrap_or(recipe.seed);
        let teacher = Teacher::open(&args.teacher)?;
        if teacher.dim() != recipe.dim {
            anyhow::bail!(
                "the recipe's dim is {}, but teacher `{}` embeds into {}",
                recipe.dim,
                args.teacher.display(),
                teacher.dim()
            );
        }
        let split = split(&args.data, &args.split)?;
        let embedded = embed(&teacher, &split, &args.cache)?;
        let (training, validation) =
            split.split_validation(recipe.validation_fraction, recipe.seed);
        let of_training = TeacherOf {
            name: teacher.name(),
            space: teacher.space(),
            training: embedded.matrix_for(&training)?,
        };

        let compute = choose_compute(args.compute)?;
        let start = start_weights(&recipe, args.start.as_deref())?;
        let facts = [
            (
                "recipe",
                format!("{} ({})", recipe.name, recipe.fingerprint().short()),
            ),
            ("seed", recipe.seed.to_string()),
            (
                "teacher",
                format!("{} (space {})", teacher.name(), teacher.space()),
            ),
            (
                "images",
                format!(
                    "{} to train, {} held out",
                    training.images.len(),
                    validation.images.len()
                ),
            ),
            ("compute", compute.to_string()),
        ];
        for (name, value) in &facts {
            tell(&format!("{name:8} {value}"));
        }
        let mut log = RunLog::open(&args.out, &recipe, &facts)?;
        let inputs = Inputs {
            recipe,
            training: &training,
            validation: &validation,
            start,
            compute,
            checkpoint: checkpoint_path(&args.out),
        };
        let student = train_student(&inputs, of_training, &mut log)
            .map_err(|err| naming_start(err, args.start.as_deref()))?;
        student.save(&args.out, &split.root)?;
        log.finish()?;
        tell(&format!("student  {}", args.out.display()));
        Ok(())
    }

    /// The teacher's embeddings of all images, or the first that has none.
    fn embed(teacher: &Teacher, images: &Manifest, cache: &Path) -> anyhow::Result<EmbeddedImages> {
        let progress = crate::cli::Progress::new("embedding", images.images.len());
        let embedded = embed_images(teacher, images, Some(cache), &|| progress.step())
            .context("embedding the training images")?;
        match embedded.faults.first() {
            None => Ok(embedded.images),
            Some(fault) => anyhow::bail!(
                "{fault}; {} of {} images could not be embedded: `eyas data check` names all",
                embedded.faults.len(),
                images.images.len()
            ),
        }
    }

    /// The images of one split.
    pub(in crate::cli) fn split(data: &Path, split: &str) -> anyhow::Result<Manifest> {
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
        Compute::choose(choice, args.threads.map(usize::from)).map_err(anyhow::Error::msg)
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

    pub(in crate::cli) fn start_weights(
        recipe: &Recipe,
        path: Option<&Path>,
    ) -> anyhow::Result<Option<Weights>> {
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
}
