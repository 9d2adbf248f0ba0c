//! `eyas teacher train`: a teacher from labels, kept as ONNX like every other.

use std::path::PathBuf;

use super::Answer;
use super::train::ComputeArgs;

/// Train a teacher from labels.
///
/// The run directory keeps the resolved recipe, a log, metrics and a checkpoint. The same
/// command goes on with a run that was interrupted and ends with the same bytes.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas teacher train models/recipes/shelf-teacher.toml --data shelves --run runs/teacher --out shelf.teacher")]
pub(super) struct Args {
    /// What to do, such as models/recipes/shelf-teacher.toml.
    pub(super) recipe: PathBuf,
    /// Images: a folder or a CSV file.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// The split to train on.
    #[arg(long, default_value = "train")]
    pub(super) split: String,
    /// Run directory: new, or one to go on with.
    #[arg(long)]
    pub(super) run: PathBuf,
    /// Teacher file to write.
    #[arg(long)]
    pub(super) out: PathBuf,
    /// Weights to start from (safetensors), if the recipe says `start = "weights"`.
    #[arg(long)]
    pub(super) start: Option<PathBuf>,
    /// Use this seed instead of the recipe's.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    #[command(flatten)]
    pub(super) compute: ComputeArgs,
}

#[cfg(not(feature = "torch"))]
pub(super) fn run(_args: &Args) -> anyhow::Result<Answer> {
    anyhow::bail!("this build has no libtorch; rebuild with the `torch` feature to train")
}

#[cfg(feature = "torch")]
pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    use eyas_shared::bundle::Precision;
    use eyas_shared::files;

    use super::run_log::RunLog;
    use super::say;
    use super::train::with_torch::{choose_compute, naming_start, split, start_weights};
    use crate::export::{fold, onnx};
    use crate::learn::{Inputs, checkpoint_path, train_teacher};
    use crate::recipe::{Recipe, Trainee};
    use crate::teacher::{Member, Teacher};

    let mut recipe = Recipe::read(&args.recipe, Trainee::Teacher)?;
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    let split = split(&args.data, &args.split)?;
    let (training, validation) = split.split_validation(recipe.validation_fraction, recipe.seed);
    let compute = choose_compute(args.compute)?;
    let start = start_weights(&recipe, args.start.as_deref())?;
    let facts = [
        (
            "recipe",
            format!("{} ({})", recipe.name, recipe.fingerprint().short()),
        ),
        ("seed", recipe.seed.to_string()),
        (
            "images",
            format!(
                "{} to train, {} held out",
                training.images.len(),
                validation.images.len()
            ),
        ),
        ("labels", training.labels().len().to_string()),
        ("compute", compute.to_string()),
    ];
    for (name, value) in &facts {
        say(&format!("{name:8} {value}"));
    }
    let mut log = RunLog::open(&args.run, &recipe, &facts)?;
    let inputs = Inputs {
        recipe,
        training: &training,
        validation: &validation,
        start,
        compute,
        checkpoint: checkpoint_path(&args.run),
    };
    let (network, weights) =
        train_teacher(&inputs, &mut log).map_err(|err| naming_start(err, args.start.as_deref()))?;
    let recipe = &inputs.recipe;
    let (network, weights) = fold::fold(&network, &weights)?;
    let onnx = onnx::write(&network, &weights, recipe.input.crop, Precision::F32, &[])?;
    let member = Member::new(&recipe.name, onnx, recipe.input.clone(), None)?;
    let manifest = Some(training.fingerprint());
    let teacher = Teacher::from_onnx(&recipe.name, vec![member], None, manifest)?;
    files::replace(&args.out, &teacher.to_bytes())?;
    log.finish()?;
    say(&format!(
        "teacher  {} (space {})",
        args.out.display(),
        teacher.space()
    ));
    Ok(Answer::Yes)
}
