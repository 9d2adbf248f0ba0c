//! `eyas bench-training`: how fast a recipe trains here.

use std::path::PathBuf;

use super::Answer;
use super::training::TrainingArgs;

/// Measure how fast a recipe trains.
///
/// Says inputs (images times views) per second of the loader alone (read, decode, augment),
/// of training on random numbers, and of both together. Writes nothing; a student is
/// measured with random targets, so no teacher is needed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas bench-training models/recipes/photos-student.toml --data photos --steps 50 --threads 2
  eyas bench-training maps.toml --data photos --teacher-network resnet18.safetensors")]
pub(super) struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// Weights (safetensors) of the recipe's teacher_network, for losses that compare maps.
    #[arg(long, value_name = "FILE")]
    teacher_network: Option<PathBuf>,
    /// Steps of each measurement; an image is decoded once in so many steps as an epoch has.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// The recipe trains a teacher.
    #[arg(long)]
    of_teacher: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "torch"))]
pub(super) fn run(_args: &Args) -> anyhow::Result<Answer> {
    super::training::no_torch()
}

#[cfg(feature = "torch")]
pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    use super::say;
    use super::training::{naming_start, prepare, teacher_network};
    use crate::learn::{Inputs, measure};
    use crate::recipe::Trainee;

    let trainee = if args.of_teacher {
        Trainee::Teacher
    } else {
        Trainee::Student
    };
    let recipe = args.training.recipe(trainee)?;
    let teacher_network = teacher_network(&recipe, args.teacher_network.as_deref())?;
    let prepared = prepare(&args.training, &recipe)?;
    let inputs = Inputs {
        recipe,
        training: &prepared.training,
        validation: &prepared.validation,
        start: prepared.start,
        teacher_network,
        compute: prepared.compute,
        checkpoint: PathBuf::new(),
    };
    let n_steps = args.steps as usize;
    let speed = measure(&inputs, n_steps)
        .map_err(|err| naming_start(err, args.training.start.as_deref()))?;
    if args.json {
        let answer = serde_json::json!({
            "schema": "eyas.bench-training/1",
            "recipe": inputs.recipe.name,
            "compute": inputs.compute.to_string(),
            "n_steps": n_steps,
            "rows_per_step": inputs.recipe.batch.rows(),
            "loader_per_second": speed.loader,
            "training_per_second": speed.training,
            "together_per_second": speed.together,
        });
        say(&answer.to_string());
        return Ok(Answer::Yes);
    }
    say(&format!("compute   {}", inputs.compute));
    say(&format!("loader    {:.1} images/s", speed.loader));
    say(&format!("training  {:.1} images/s", speed.training));
    let slower = speed.loader.min(speed.training);
    say(&format!(
        "together  {:.1} images/s, {:.0} % of the slower part",
        speed.together,
        100.0 * speed.together / slower
    ));
    Ok(Answer::Yes)
}
