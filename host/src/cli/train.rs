//! `eyas train`: a student from a recipe.

use std::path::PathBuf;

use super::Answer;
use super::training::TrainingArgs;

/// Train a student from a recipe.
///
/// The run directory keeps the resolved recipe, a log, metrics and a checkpoint. The same
/// command goes on with a run that was interrupted and ends with the same bytes.
///
/// The recipe's `map` says what is folded into the last layer afterwards: `none`; `ridge` or
/// `procrustes`, fitted into the teacher's space; or `whitening`, learned from the student's
/// own embeddings of pairs that show the same (`pairs = "label"` or `"listed"`). Whitening
/// leaves the teacher's space: that student searches what it has embedded itself, and the
/// teacher's galleries refuse it.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas train models/recipes/shelf-student.toml --data shelves --teacher shelf.teacher --out runs/shelf")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) training: TrainingArgs,
    /// The teacher whose space the student learns.
    #[arg(long)]
    pub(super) teacher: PathBuf,
    /// Weights (safetensors) of the recipe's teacher_network, for losses that compare maps.
    #[arg(long, value_name = "FILE")]
    pub(super) teacher_network: Option<PathBuf>,
    /// Run directory: new, or one to go on with.
    #[arg(long)]
    pub(super) out: PathBuf,
    /// Folder of cached teacher embeddings.
    #[arg(long, default_value = "cache")]
    pub(super) cache: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    train(args, &super::say)?;
    Ok(Answer::Yes)
}

#[cfg(not(feature = "torch"))]
pub(super) fn train(_args: &Args, _tell: &dyn Fn(&str)) -> anyhow::Result<()> {
    super::training::no_torch()
}

#[cfg(feature = "torch")]
pub(super) use with_torch::train;

#[cfg(feature = "torch")]
mod with_torch {
    use std::path::Path;
    use std::sync::Arc;

    use anyhow::Context;

    use super::Args;
    use crate::cli::run_lock::RunLock;
    use crate::cli::run_log::RunLog;
    use crate::cli::training::{naming_start, prepare, teacher_network};
    use crate::data::manifest::Manifest;
    use crate::embeddings::EmbeddedImages;
    use crate::embeddings::cache::embed_images;
    use crate::learn::{Inputs, TeacherOf, checkpoint_path, train_student};
    use crate::recipe::Trainee;
    use crate::teacher::Teacher;

    /// Trains what `args` say; `tell` hears what a user would read.
    pub(in crate::cli) fn train(args: &Args, tell: &dyn Fn(&str)) -> anyhow::Result<()> {
        let recipe = args.training.recipe(Trainee::Student)?;
        let teacher = Arc::new(Teacher::open(&args.teacher)?);
        if teacher.dim() != recipe.dim {
            anyhow::bail!(
                "the recipe's dim is {}, but teacher `{}` embeds into {}",
                recipe.dim,
                args.teacher.display(),
                teacher.dim()
            );
        }
        let teacher_network = teacher_network(&recipe, args.teacher_network.as_deref())?;
        let prepared = prepare(&args.training, &recipe)?;
        let _lock = RunLock::take(&args.out)?;
        let embedded = embed(&teacher, &prepared.split, &args.cache)?;
        let of_training = TeacherOf {
            teacher: &teacher,
            training: embedded.matrix_for(&prepared.training)?,
        };
        let about = format!("{} (space {})", teacher.name(), teacher.space());
        let mut facts = prepared.facts(&recipe, ("teacher", about));
        if !recipe.shares_the_teachers_space() {
            let what = "of its own after whitening: galleries of the teacher refuse this student";
            facts.push(("space", what.to_owned()));
        }
        for (name, value) in &facts {
            tell(&format!("{name:8} {value}"));
        }
        let mut log = RunLog::open(&args.out, &recipe, facts)?;
        let inputs = Inputs {
            recipe,
            training: &prepared.training,
            validation: &prepared.validation,
            start: prepared.start,
            teacher_network,
            pairs: prepared.pairs,
            compute: prepared.compute,
            checkpoint: checkpoint_path(&args.out),
        };
        let student = train_student(&inputs, of_training, &mut log)
            .map_err(|err| naming_start(err, args.training.start.as_deref()))?;
        student.save(&args.out, &prepared.split.root)?;
        log.finish()?;
        tell(&format!("student  {}", args.out.display()));
        Ok(())
    }

    /// The teacher's embeddings of all images, or the first that has none.
    fn embed(teacher: &Teacher, images: &Manifest, cache: &Path) -> anyhow::Result<EmbeddedImages> {
        let progress = crate::cli::Progress::of_images("embedding", images.images.len());
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
}
