//! `eyas teacher train`: a teacher from labels, kept as ONNX like every other.

use std::path::PathBuf;

use super::Answer;
use super::training::TrainingArgs;

/// Weights of a trained teacher in its run directory, batch norm not folded.
#[cfg(feature = "torch")]
const WEIGHTS_FILE: &str = "teacher.safetensors";

/// Train a teacher from labels.
///
/// The run directory keeps the resolved recipe, a log, metrics and a checkpoint. The same
/// command goes on with a run that was interrupted and ends with the same bytes. In the end
/// `teacher.safetensors` lies there as well: weights that a student of the same architecture
/// can `--start` from, and that losses of maps take as `--teacher-network`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas teacher train models/recipes/shelf-teacher.toml --data shelves --run runs/teacher --out shelf.teacher")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) training: TrainingArgs,
    /// Run directory: new, or one to go on with.
    #[arg(long)]
    pub(super) run: PathBuf,
    /// Teacher file to write.
    #[arg(long)]
    pub(super) out: PathBuf,
}

#[cfg(not(feature = "torch"))]
pub(super) fn run(_args: &Args) -> anyhow::Result<Answer> {
    super::training::no_torch()
}

#[cfg(feature = "torch")]
pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    use eyas_shared::bundle::Precision;
    use eyas_shared::files;

    use super::run_lock::RunLock;
    use super::run_log::RunLog;
    use super::say;
    use super::training::{naming_start, prepare};
    use crate::export::{fold, onnx};
    use crate::learn::{Inputs, checkpoint_path, train_teacher};
    use crate::recipe::Trainee;
    use crate::teacher::{Member, Teacher};

    let recipe = args.training.recipe(Trainee::Teacher)?;
    let prepared = prepare(&args.training, &recipe)?;
    let _lock = RunLock::take(&args.run)?;
    let n_labels = prepared.training.labels().len().to_string();
    let facts = prepared.facts(&recipe, ("labels", n_labels));
    for (name, value) in &facts {
        say(&format!("{name:8} {value}"));
    }
    let mut log = RunLog::open(&args.run, &recipe, facts)?;
    let inputs = Inputs {
        recipe,
        training: &prepared.training,
        validation: &prepared.validation,
        start: prepared.start,
        teacher_network: None,
        pairs: prepared.pairs,
        compute: prepared.compute,
        checkpoint: checkpoint_path(&args.run),
    };
    let (network, weights) = train_teacher(&inputs, &mut log)
        .map_err(|err| naming_start(err, args.training.start.as_deref()))?;
    let recipe = &inputs.recipe;
    files::replace(&args.run.join(WEIGHTS_FILE), &weights.to_bytes())?;
    let (network, weights) = fold::fold(&network, &weights)?;
    let onnx = onnx::write(&network, &weights, recipe.input.crop, Precision::F32, &[])?;
    let member = Member::new(&recipe.name, onnx, recipe.input.clone(), None)?;
    let manifest = Some(prepared.training.fingerprint());
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
