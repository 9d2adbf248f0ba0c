//! `eyas export`: bundles from a finished run.

use std::path::PathBuf;

use anyhow::{Context, bail};
use eyas_shared::bundle::Precision;
use eyas_shared::files;

use super::{Answer, Progress, note, say, say_raw};
use crate::export::{self, ExportError, Reference, Verified};
use crate::student::{StoredStudent, TrainedStudent};
use eyas_device::hints::human_bytes;

/// Turn a trained student into bundles that the device encoder has verified.
///
/// A bundle is only written after the device encoder, fed with the bundle's bytes, has
/// reproduced the embeddings that libtorch computed after training. Exit code 1 says that
/// it did not.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas export runs/shelf --precision f32 --precision f16 --out bundles")]
pub(super) struct Args {
    /// Run directory of a finished `eyas train`.
    pub(super) run: PathBuf,
    /// How weights are stored; can be given several times. All are computed in f32.
    #[arg(long = "precision", value_enum, default_values = ["f32", "f16"])]
    pub(super) precisions: Vec<PrecisionArg>,
    /// Where the images of training lie, if they have moved: a folder or a CSV file.
    #[arg(long)]
    pub(super) data: Option<PathBuf>,
    /// Folder for the bundles, named NAME-PRECISION.bundle.
    #[arg(long)]
    pub(super) out: PathBuf,
    /// Name of the bundles; the student's if not given.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Write the networks as plain ONNX files too, for other tools.
    #[arg(long)]
    pub(super) onnx: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}

/// A [`Precision`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum PrecisionArg {
    /// As trained.
    F32,
    /// Rounded to f16: half the size.
    F16,
    /// int8 with a scale per channel: a quarter of the size.
    Int8,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::F16 => Self::F16,
            PrecisionArg::Int8 => Self::Int8,
        }
    }
}

/// A bundle that was written.
struct Written {
    path: PathBuf,
    onnx: Option<PathBuf>,
    verified: Verified,
}

/// A precision for which no bundle was written, and why.
type Failure = (PrecisionArg, ExportError);

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let StoredStudent {
        mut student,
        images_root,
    } = TrainedStudent::open(&args.run)?;
    if let Some(name) = &args.name {
        student.name.clone_from(name);
    }
    check_name(&student.name)?;
    let images_root = match &args.data {
        Some(data) if data.is_file() => files::folder_of(data).to_owned(),
        Some(data) => data.clone(),
        None => images_root,
    };
    let reference = Reference::read(&student, &images_root).with_context(|| {
        format!(
            "reading the images that the student is checked with, in `{}` (`--data` names another place)",
            images_root.display()
        )
    })?;
    files::create_folder(&args.out)?;

    let mut written = Vec::new();
    let mut failures = Vec::new();
    let progress = Progress::new("exporting", args.precisions.len());
    for &precision in &args.precisions {
        match export::export(&student, &reference, precision.into()) {
            Ok(verified) => {
                let verified = verified.with_declared_memory()?;
                written.push(write(args, &student.name, verified)?);
            }
            Err(err) if err.is_disagreement() => failures.push((precision, err)),
            Err(err) => return Err(err.into()),
        }
        progress.step();
    }
    drop(progress);
    print(args, &written, &failures)?;
    Ok(if failures.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// The name becomes part of a file's name.
fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        bail!("`{name}` can not be the name of a file; give another one with `--name`");
    }
    Ok(())
}

fn write(args: &Args, name: &str, verified: Verified) -> anyhow::Result<Written> {
    let precision = verified.header().precision;
    let path = args.out.join(format!("{name}-{precision}.bundle"));
    verified.save(&path)?;
    let onnx = args
        .onnx
        .then(|| args.out.join(format!("{name}-{precision}.onnx")));
    if let Some(onnx) = &onnx {
        files::replace(onnx, verified.onnx())?;
    }
    Ok(Written {
        path,
        onnx,
        verified,
    })
}

fn print(args: &Args, written: &[Written], failures: &[Failure]) -> anyhow::Result<()> {
    if args.json {
        say(&serde_json::to_string(&json(written, failures))?);
        return Ok(());
    }
    if !written.is_empty() {
        say_raw(&table(written));
    }
    for failure in failures {
        let (precision, failure) = failure;
        let precision = Precision::from(*precision);
        note(&format!("error: no {precision} bundle: {failure}"));
    }
    Ok(())
}

fn table(written: &[Written]) -> String {
    let mut text = format!(
        "{:9}  {:>10}  {:>10}  {:>12}  {:>8}  {:>10}  {:>13}  {}\n",
        "precision",
        "bytes",
        "memory",
        "min cosine",
        "n images",
        "parameters",
        "multiply-adds",
        "bundle"
    );
    for Written { path, verified, .. } in written {
        let header = verified.header();
        text += &format!(
            "{:9}  {:>10}  {:>10}  {:>12.8}  {:>8}  {:>10}  {:>13}  {}\n",
            header.precision.to_string(),
            verified.bytes().len(),
            verified
                .memory_bytes()
                .map_or_else(String::new, human_bytes),
            header.verification.min_cosine,
            header.verification.n_images,
            header.n_parameters,
            header.multiply_adds,
            path.display(),
        );
    }
    text + "memory: what it takes to load and run it; min cosine: smallest cosine between libtorch's embedding of an image and the device encoder's\n"
}

/// The f64 with the digits that the f32 is written with: 0.999, not 0.9990000128746033.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn json(written: &[Written], failures: &[Failure]) -> serde_json::Value {
    let bundle = |Written {
                      path,
                      onnx,
                      verified,
                  }: &Written| {
        let header = verified.header();
        serde_json::json!({
            "path": path,
            "onnx": onnx,
            "precision": header.precision,
            "bytes": verified.bytes().len(),
            "memory_bytes": verified.memory_bytes(),
            "min_cosine": shortest(header.verification.min_cosine),
            "tolerance": shortest(header.verification.tolerance),
            "worst_image": verified.worst_image(),
            "n_images": header.verification.n_images,
            "n_parameters": header.n_parameters,
            "multiply_adds": header.multiply_adds,
        })
    };
    let failure = |(wished, failure): &Failure| match failure {
        ExportError::Disagreement {
            image,
            precision,
            found,
            needed,
        } => serde_json::json!({
            "precision": Precision::from(*wished),
            "checked_in": precision,
            "image": image,
            "min_cosine": shortest(*found),
            "tolerance": shortest(*needed),
        }),
        other => serde_json::json!({ "error": other.to_string() }),
    };
    serde_json::json!({
        "schema": "eyas.export/1",
        "bundles": written.iter().map(bundle).collect::<Vec<_>>(),
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use std::path::Path;

    use super::*;
    use crate::export::tests::student;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn export(words: &[&str]) -> anyhow::Result<Answer> {
        let words = ["export"].iter().chain(words);
        run(&Cli::try_parse_from(words)?.args)
    }

    #[test]
    fn a_run_becomes_bundles_and_a_broken_one_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let images = folder.path().join("images");
        let mut student = student("eyas-xs", &images);
        student.save(Path::new(&at("run")), &images).unwrap();
        let files = |name: &str| -> Vec<String> {
            let entries = std::fs::read_dir(at(name)).unwrap();
            let mut names: Vec<String> = entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };

        let answer = export(&[&at("run"), "--out", &at("out"), "--onnx", "--name", "s"]).unwrap();
        assert_eq!(answer, Answer::Yes);
        let expected = ["s-f16.bundle", "s-f16.onnx", "s-f32.bundle", "s-f32.onnx"];
        assert_eq!(files("out"), expected);

        // The images have moved.
        std::fs::rename(&images, at("moved")).unwrap();
        let message = format!(
            "{:#}",
            export(&[&at("run"), "--out", &at("out")]).unwrap_err()
        );
        assert!(
            message.contains("--data") && message.contains("picture.jpg"),
            "{message}"
        );
        let moved = at("moved");
        let json = ["--data", &moved, "--precision", "int8", "--json"];
        let run_dir = at("run");
        let out = at("out2");
        let words = [&[run_dir.as_str(), "--out", out.as_str()][..], &json].concat();
        assert_eq!(export(&words).unwrap(), Answer::Yes);
        assert_eq!(files("out2"), ["shelf-int8.bundle"]);

        let name = export(&[&at("run"), "--out", &at("out"), "--name", "../s"]).unwrap_err();
        assert!(name.to_string().contains("--name"), "{name}");

        student.weights.0.get_mut("wide.norm.bias").unwrap().values[0] += 0.5;
        student
            .save(Path::new(&at("broken")), Path::new(&moved))
            .unwrap();
        let answer = export(&[&at("broken"), "--out", &at("none")]).unwrap();
        assert_eq!(answer, Answer::No);
        assert!(files("none").is_empty());
    }
}
