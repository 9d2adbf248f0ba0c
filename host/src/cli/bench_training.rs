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
  eyas bench-training photos.toml --data photos --compute gpu --precision bf16 --json
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
    /// Compute in this precision instead of the recipe's.
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    /// The recipe trains a teacher.
    #[arg(long)]
    of_teacher: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Precision of the arithmetic, as recipes name it.
#[derive(Clone, Copy, clap::ValueEnum)]
enum PrecisionName {
    F32,
    Bf16,
    F16,
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
    use crate::recipe::{Precision, Trainee};

    let trainee = if args.of_teacher {
        Trainee::Teacher
    } else {
        Trainee::Student
    };
    let mut recipe = args.training.recipe(trainee)?;
    if let Some(asked) = args.precision {
        recipe.precision = match asked {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::Bf16 => Precision::Bf16,
            PrecisionName::F16 => Precision::F16,
        };
        if recipe.quantize.is_some() && recipe.precision != Precision::F32 {
            anyhow::bail!("a recipe with `quantize` trains in f32 only");
        }
    }
    let teacher_network = teacher_network(&recipe, args.teacher_network.as_deref())?;
    let prepared = prepare(&args.training, &recipe)?;
    let inputs = Inputs {
        recipe,
        training: &prepared.training,
        validation: &prepared.validation,
        start: prepared.start,
        teacher_network,
        pairs: prepared.pairs,
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
            "precision": inputs.recipe.precision,
            "n_steps": n_steps,
            "rows_per_step": inputs.recipe.batch.rows(),
            "loader_per_second": speed.loader,
            "training_per_second": speed.training,
            "together_per_second": speed.together,
            "training_window": [speed.training_window.since, speed.training_window.until],
            "together_window": [speed.together_window.since, speed.together_window.until],
        });
        say(&answer.to_string());
        return Ok(Answer::Yes);
    }
    let precision = serde_json::json!(inputs.recipe.precision);
    let precision = precision.as_str().unwrap_or_default();
    say(&format!("compute   {}, {precision}", inputs.compute));
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
