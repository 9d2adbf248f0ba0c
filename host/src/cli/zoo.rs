//! `eyas zoo`: what a student of each architecture would cost, before one is trained.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use eyas_device::encoder::{EncodeError, Network as Loaded, OperatorTime};
use eyas_device::hints::human_bytes;
use eyas_shared::bundle::Precision;
use eyas_shared::files;
use eyas_shared::preprocess::Pixels;
use serde_json::json;

use super::export::PrecisionArg;
use super::{Answer, Progress, note, say};
use crate::export::{ExportError, fold, onnx};
use crate::memory;
use crate::zoo::{self, init};

/// Say what architectures there are, and what each costs on this machine.
///
/// Networks start from random weights: what they cost does not depend on weights. Times
/// are of the device encoder on one thread, from pixels to embedding.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas zoo --side 160
  eyas zoo eyas-s mobilenet_v3_small --side 160 --layers
  eyas zoo eyas-s --side 128 --precision full-int8
  eyas zoo squeezenet1_1 --side 224 --onnx untrained")]
pub(super) struct Args {
    /// Architectures; all students (at most 5 M parameters) if none is named.
    names: Vec<String>,
    /// Height and width of the images, in pixels.
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u32).range(32..=2048))]
    side: u32,
    /// Components of the embedding.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=8192))]
    dim: u32,
    /// How many times each is run.
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// Which precision is timed, and written by --onnx. full-int8 is for machines that
    /// multiply bytes (VNNI, Arm dot product); here its activations have the range of one
    /// made-up image.
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    /// Print what every layer takes.
    #[arg(long)]
    layers: bool,
    /// Write the networks, untrained, as NAME.onnx into this folder, for other tools; with
    /// another precision than f32 as NAME-PRECISION.onnx.
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Without names, architectures up to so many parameters are shown.
const MOST_PARAMETERS: u64 = 5_000_000;

/// Precisions whose bytes are counted.
const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::F16,
    Precision::Int8,
    Precision::FullInt8,
];

/// What an architecture costs.
struct Cost {
    name: String,
    n_parameters: u64,
    multiply_adds: u64,
    /// Of ONNX files; full-int8 is left out where nothing would be multiplied in integers.
    bytes: Vec<(Precision, usize)>,
    /// Load and first run.
    load_ms: f64,
    median_ms: f64,
    min_ms: f64,
    /// Allocated to load and run it.
    memory_bytes: u64,
    layers: Vec<OperatorTime>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let names: Vec<&str> = match args.names.is_empty() {
        false => args.names.iter().map(String::as_str).collect(),
        true => students(args.dim as usize),
    };
    let progress = Progress::new("measuring", names.len());
    let mut costs = Vec::new();
    for name in names {
        costs.push(cost(name, args).with_context(|| format!("architecture `{name}`"))?);
        progress.step();
    }
    drop(progress);
    if args.json {
        let rows: Vec<_> = costs.iter().map(as_json).collect();
        let (side, dim) = (args.side, args.dim);
        let schema = "eyas.zoo/1";
        let whole = json!({ "schema": schema, "side": side, "dim": dim, "networks": rows });
        say(&whole.to_string());
    } else {
        show(&costs);
    }
    Ok(Answer::Yes)
}

/// Names of the architectures that are small enough to be students.
fn students(dim: usize) -> Vec<&'static str> {
    let small = |name: &&str| {
        let network = zoo::by_name(name, dim);
        network.is_some_and(|network| network.n_parameters() <= MOST_PARAMETERS)
    };
    let names = zoo::ARCHITECTURES.iter().map(|(name, _)| *name);
    names.filter(small).collect()
}

fn cost(name: &str, args: &Args) -> anyhow::Result<Cost> {
    let Some(network) = zoo::by_name(name, args.dim as usize) else {
        let known: Vec<&str> = zoo::ARCHITECTURES.iter().map(|(name, _)| *name).collect();
        bail!("there is none of this name; there are {}", known.join(", "));
    };
    let network = network.for_side(args.side as usize);
    let weights = init::random_weights(&network, 1);
    let (network, weights) = fold::fold(&network, &weights)?;
    let side = args.side as usize;
    let pixels = Pixels {
        side: args.side,
        values_chw: (0..3 * side * side)
            .map(|at| (at % 255) as f32 / 127.5 - 1.0)
            .collect(),
    };
    let write = |precision| match precision {
        Precision::FullInt8 => {
            onnx::write_full_int8(&network, &weights, args.side, &[&pixels], &[])
        }
        _ => onnx::write(&network, &weights, args.side, precision, &[]),
    };
    let timed = Precision::from(args.precision);
    let file = write(timed)?;
    if let Some(folder) = &args.onnx {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(match timed {
            Precision::F32 => format!("{name}.onnx"),
            _ => format!("{name}-{timed}.onnx"),
        });
        files::replace(&path, &file)?;
        note(&path.display().to_string());
    }
    let mut bytes = Vec::new();
    for precision in PRECISIONS {
        match write(precision) {
            Ok(file) => bytes.push((precision, file.len())),
            Err(ExportError::NothingInteger { .. }) => {}
            Err(why) => return Err(why.into()),
        }
    }
    let began = Instant::now();
    let (loaded, memory_bytes) = memory::peak_of(|| -> Result<Loaded, EncodeError> {
        let loaded = Loaded::load(&file, args.side, None)?;
        loaded.run(&pixels)?;
        Ok(loaded)
    });
    let (loaded, load_ms) = (loaded?, began.elapsed().as_secs_f64() * 1e3);
    let mut times = Vec::new();
    for _ in 0..args.runs.max(1) {
        let began = Instant::now();
        loaded.run(&pixels)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let layers = match args.layers || args.json {
        true => loaded.profile(&pixels, args.runs)?,
        false => Vec::new(),
    };
    Ok(Cost {
        name: name.to_owned(),
        n_parameters: network.n_parameters(),
        multiply_adds: loaded.multiply_adds(),
        bytes,
        load_ms,
        median_ms: times[(times.len() - 1) / 2],
        min_ms: times[0],
        memory_bytes,
        layers,
    })
}

fn show(costs: &[Cost]) {
    say(
        "architecture          parameters     MMAC       f32       f16      int8 full-int8  load ms  median    min    memory",
    );
    for cost in costs {
        let bytes = PRECISIONS.map(|precision| {
            let bytes = cost.bytes.iter().find(|(it, _)| *it == precision);
            let text = bytes.map_or_else(String::new, |(_, bytes)| human_bytes(*bytes as u64));
            format!("{text:>9}")
        });
        say(&format!(
            "{:<20} {:>11} {:>8.1} {} {:>8.1} {:>7.2} {:>6.2} {:>9}",
            cost.name,
            cost.n_parameters,
            cost.multiply_adds as f64 / 1e6,
            bytes.join(" "),
            cost.load_ms,
            cost.median_ms,
            cost.min_ms,
            human_bytes(cost.memory_bytes),
        ));
        for layer in &cost.layers {
            let micros = layer.nanos as f64 / 1e3;
            say(&format!(
                "    {micros:>9.1} us  {}: {}",
                layer.node, layer.kind
            ));
        }
    }
}

fn as_json(cost: &Cost) -> serde_json::Value {
    let bytes = cost.bytes.iter();
    let bytes: serde_json::Map<_, _> = bytes
        .map(|(precision, bytes)| (precision.to_string(), json!(bytes)))
        .collect();
    let layers = cost.layers.iter();
    let layers: Vec<_> = layers
        .map(|layer| json!({ "node": layer.node, "kind": layer.kind, "nanos": layer.nanos }))
        .collect();
    json!({
        "name": cost.name,
        "parameters": cost.n_parameters,
        "multiply_adds": cost.multiply_adds,
        "bytes": bytes,
        "load_ms": cost.load_ms,
        "median_ms": cost.median_ms,
        "min_ms": cost.min_ms,
        "memory_bytes": cost.memory_bytes,
        "layers": layers,
    })
}
