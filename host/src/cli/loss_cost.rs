//! `eyas losses cost`: what each loss takes of a training step.

use super::training::ComputeArgs;

/// Measure what each loss costs, beside a training step of ResNet-18.
///
/// Value and gradients of every loss with its published settings (`eyas losses list`), on
/// random embeddings: two views of two images of each label, against a gallery of random
/// images. Maps are those of eyas-s and resnet18 at 224 pixels. On a CPU once with one thread
/// and once with all that were asked for. What a loss makes once in a run (codebooks, centers)
/// is not counted. A step of ResNet-18 is forward, backward and AdamW on images of 224 pixels;
/// it is measured with fewer images and taken times as many.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas losses cost --threads 2
  eyas losses cost --rows 64 --dim 128 --json")]
pub(super) struct Args {
    /// Rows of a batch.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u32).range(4..=4096))]
    rows: u32,
    /// Components of an embedding.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    dim: u32,
    /// Images of the training set, which are the teacher's gallery.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(4..=1_000_000))]
    gallery: u32,
    /// Labels of the training set.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    labels: u32,
    /// Images with which the step of ResNet-18 is measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1024))]
    step_images: u32,
    #[command(flatten)]
    compute: ComputeArgs,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "torch"))]
pub(super) fn run(_args: &Args) -> anyhow::Result<super::Answer> {
    super::training::no_torch()
}

#[cfg(feature = "torch")]
pub(super) use with_torch::run;

#[cfg(feature = "torch")]
mod with_torch {
    use anyhow::bail;
    use eyas_shared::timing::Figures;
    use serde_json::{Value, json};

    use super::Args;
    use crate::cli::training::{ComputeArgs, choose_compute};
    use crate::cli::{Answer, Progress, say};
    use crate::learn::cost::{
        self, CostSizes, LossCost, MAP_NETWORKS, SIDE, STEP_NETWORK, compared_maps,
    };
    use crate::recipe::loss::CATALOG;

    /// What was measured on one number of threads, or on a GPU.
    struct Column {
        compute: String,
        /// Of all rows, in milliseconds.
        step: [f64; 2],
        losses: Vec<LossCost>,
    }

    impl Column {
        fn measure(args: &Args, sizes: &CostSizes, compute: ComputeArgs) -> anyhow::Result<Self> {
            let compute = choose_compute(compute)?;
            let name = compute.to_string();
            let n_images = args.step_images as usize;
            let step = cost::cost_of_step(n_images, sizes.dim, compute)?;
            let progress = Progress::new(&format!("measuring on {name}"), CATALOG.len());
            let losses = cost::cost_of_losses(sizes, compute, || progress.step());
            let times = sizes.rows as f64 / n_images as f64;
            Ok(Self {
                compute: name,
                step: [step.min_ms, step.median_ms].map(|ms| ms * times),
                losses,
            })
        }

        fn share(&self, loss: &Figures) -> f64 {
            loss.median_ms / self.step[1]
        }
    }

    pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
        let sizes = CostSizes {
            rows: args.rows as usize,
            dim: args.dim as usize,
            gallery: args.gallery as usize,
            labels: args.labels as usize,
        };
        if let Some(fault) = sizes.fault() {
            bail!("{fault}");
        }
        let columns: Vec<Column> = computes(args.compute)?
            .into_iter()
            .map(|compute| Column::measure(args, &sizes, compute))
            .collect::<anyhow::Result<_>>()?;
        if args.json {
            say(&as_json(args, &sizes, &columns).to_string());
        } else {
            show(args, &sizes, &columns);
        }
        Ok(Answer::Yes)
    }

    /// One thread and all that were asked for; a GPU as it is.
    fn computes(asked: ComputeArgs) -> anyhow::Result<Vec<ComputeArgs>> {
        let chosen = choose_compute(asked)?;
        let n_threads = chosen.n_cpu_threads();
        Ok(if n_threads.is_none_or(|n| n == 1) {
            vec![asked]
        } else {
            let threads = Some(1);
            vec![ComputeArgs { threads, ..asked }, asked]
        })
    }

    fn show(args: &Args, sizes: &CostSizes, columns: &[Column]) {
        for column in columns {
            say(&format!(
                "{}: a step of {STEP_NETWORK} with {} images of {SIDE} pixels takes {:.2} s \
                 (measured with {})",
                column.compute,
                sizes.rows,
                column.step[1] / 1e3,
                args.step_images
            ));
        }
        let heads: Vec<String> = columns
            .iter()
            .map(|column| format!("{:>32}", column.compute))
            .collect();
        let parts =
            format!("{:>12}{:>11}{:>9}", "min ms", "median", "of step").repeat(columns.len());
        say(&format!("{:26}{}", "", heads.concat()));
        say(&format!("{:26}{parts}", "loss"));
        for (idx, description) in CATALOG.iter().enumerate() {
            let cells = columns.iter().map(|column| {
                let time = column.losses[idx].time;
                format!(
                    "{:>12.2}{:>11.2}{:>7.2} %",
                    time.min_ms,
                    time.median_ms,
                    100.0 * column.share(&time)
                )
            });
            let cells: Vec<String> = cells.collect();
            say(&format!("{:26}{}", description.kind, cells.concat()));
        }
    }

    fn as_json(args: &Args, sizes: &CostSizes, columns: &[Column]) -> Value {
        let of_column = |column: &Column| {
            let losses = column.losses.iter().map(|loss| {
                json!({
                    "kind": loss.kind,
                    "n": loss.time.n,
                    "min_ms": loss.time.min_ms,
                    "median_ms": loss.time.median_ms,
                    "of_step": column.share(&loss.time),
                })
            });
            json!({
                "compute": column.compute,
                "step_min_ms": column.step[0],
                "step_median_ms": column.step[1],
                "losses": losses.collect::<Vec<_>>(),
            })
        };
        let maps: serde_json::Map<String, Value> = CATALOG
            .iter()
            .flat_map(|description| compared_maps(&description.term().loss))
            .map(|(node, channels, side)| (node, json!([channels, side, side])))
            .collect();
        json!({
            "schema": "eyas.losses-cost/1",
            "rows": sizes.rows,
            "dim": sizes.dim,
            "gallery": sizes.gallery,
            "labels": sizes.labels,
            "step_network": STEP_NETWORK,
            "step_images": args.step_images,
            "side": SIDE,
            "map_networks": MAP_NETWORKS,
            "maps": maps,
            "columns": columns.iter().map(of_column).collect::<Vec<_>>(),
        })
    }
}
