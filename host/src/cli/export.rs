//! `eyas export`: bundles from a finished run.

mod explain;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_device::hints::human_bytes;
use eyas_device::matcher::Matcher;
use eyas_device::store::MappedFile;
use eyas_shared::bundle::Precision;
use eyas_shared::files;
use serde_json::{Value, json};

use super::{Answer, Progress, note, say, say_raw};
use crate::data;
use crate::data::manifest::{Manifest, Selection};
use crate::evaluate;
use crate::evaluate::paired::Difference;
use crate::export::recall::{RecallCheck, RecallLoss};
use crate::export::verify::{N_BUNDLED_PROBES, N_WANTED};
use crate::export::{self, Cause, ExportError, Exporter, Reference, Verified};
use crate::student::{StoredStudent, TrainedStudent};

/// Turn a trained student into bundles that the device encoder has verified.
///
/// A bundle is only written after the device encoder, fed with the bundle's bytes, has
/// reproduced the embeddings that libtorch computed after training. Rounded weights may cost
/// a little: which way of rounding costs the least is measured. Exit code 1 says that a
/// bundle was refused, and why: the worst image, and the first layer that differs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas export runs/shelf --precision f32 --precision f16 --out bundles
  eyas export runs/shelf --precision int8 --precision full-int8 --explain
  eyas export runs/shelf --precision int8 --out bundles \\
      --manifest photos --split val --gallery photos.gallery")]
pub(super) struct Args {
    /// Run directory of a finished `eyas train`.
    pub(super) run: PathBuf,
    /// How weights are stored; can be given several times. All but full-int8 are computed
    /// in f32.
    #[arg(long = "precision", value_enum, default_values = ["f32", "f16"])]
    pub(super) precisions: Vec<PrecisionArg>,
    /// Where the images of training lie, if they have moved: a folder or a CSV file.
    #[arg(long)]
    pub(super) data: Option<PathBuf>,
    /// More images to hold rounded students against the f32 student with, where training kept
    /// fewer than 256: a folder or a CSV file.
    #[arg(long)]
    pub(super) manifest: Option<PathBuf>,
    /// Only the images of this split of --manifest.
    #[arg(long, requires = "manifest")]
    pub(super) split: Option<String>,
    /// Gallery that labelled images of --manifest ask (those of --split, or with the query
    /// role): also refuses a bundle that loses more than 0.005 of the f32 student's
    /// recall_at_1.
    #[arg(long, requires = "manifest")]
    pub(super) gallery: Option<PathBuf>,
    /// Folder for the bundles, named NAME-PRECISION.bundle.
    #[arg(long, required_unless_present = "explain")]
    pub(super) out: Option<PathBuf>,
    /// Write nothing; print what the student costs, layer by layer and precision by
    /// precision: bytes, multiply-adds, milliseconds, and what rounding changes.
    #[arg(long, conflicts_with_all = ["out", "onnx"])]
    pub(super) explain: bool,
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
    /// The same, with activations rounded to bytes: for boards that multiply bytes (VNNI, Arm
    /// dot product).
    FullInt8,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::F16 => Self::F16,
            PrecisionArg::Int8 => Self::Int8,
            PrecisionArg::FullInt8 => Self::FullInt8,
        }
    }
}

/// A bundle that was written.
struct Written {
    path: PathBuf,
    onnx: Option<PathBuf>,
    verified: Verified,
    recall: Option<RecallLoss>,
}

/// A precision for which no bundle was written, and why.
struct Failure {
    precision: Precision,
    why: ExportError,
}

/// What there is to say in the end.
#[derive(Default)]
struct Outcome {
    written: Vec<Written>,
    failures: Vec<Failure>,
}

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
    let mut reference = Reference::read(&student, &images_root).with_context(|| {
        format!(
            "reading the images that the student is checked with, in `{}` (`--data` names another place)",
            images_root.display()
        )
    })?;
    let manifest = args.manifest.as_deref().map(data::open).transpose()?;
    if let Some(manifest) = &manifest {
        reference.add_images(&of_split(manifest, args))?;
    }
    say_if_few(&reference);
    if let Some(out) = &args.out {
        files::create_folder(out)?;
    }
    match Exporter::new(&student, &reference) {
        Ok(exporter) => export_all(args, &exporter, manifest.as_ref()),
        Err(why) => {
            let mut outcome = Outcome::default();
            outcome.refuse(Precision::F32, why)?;
            print(args, &outcome)
        }
    }
}

fn of_split(manifest: &Manifest, args: &Args) -> Manifest {
    manifest.select(&Selection {
        split: args.split.clone(),
        role: None,
    })
}

/// Fewer images than wanted show less; all there are were used.
fn say_if_few(reference: &Reference) {
    let n_images = reference.n_images();
    if n_images < N_WANTED + N_BUNDLED_PROBES {
        note(&format!(
            "{n_images} images to compare with, {N_WANTED} photographs are wanted: `--manifest` adds some"
        ));
    }
}

/// Every wished precision, explained, or verified and written; held against f32 in
/// retrieval if there is a gallery.
fn export_all(
    args: &Args,
    exporter: &Exporter<'_>,
    manifest: Option<&Manifest>,
) -> anyhow::Result<Answer> {
    let asked = match (manifest, &args.gallery) {
        (Some(manifest), Some(_)) => evaluate::select_queries(manifest, args.split.as_deref())?,
        _ => Manifest {
            root: PathBuf::new(),
            images: Vec::new(),
        },
    };
    let file = args.gallery.as_deref().map(MappedFile::open).transpose()?;
    let matcher = match &file {
        Some(file) => Some(Matcher::new(file.verified_gallery()?)),
        None => None,
    };
    let exact = exporter.exact();
    let check = matcher
        .as_ref()
        .map(|matcher| RecallCheck::new(exact, &asked, matcher));
    let check = check.transpose()?;
    let precisions: Vec<Precision> = args.precisions.iter().map(|&it| it.into()).collect();
    let Some(out) = &args.out else {
        let all_pass = explain::run(exporter, &precisions, check.as_ref(), args.json)?;
        return Ok(if all_pass { Answer::Yes } else { Answer::No });
    };
    let progress = Progress::new("exporting", precisions.len());
    let mut outcome = Outcome::default();
    for precision in precisions {
        match export_one(exporter, precision, check.as_ref()) {
            Ok((verified, recall)) => {
                let written = write(args, out, exporter.name(), verified, recall)?;
                outcome.written.push(written);
            }
            Err(why) => outcome.refuse(precision, why)?,
        }
        progress.step();
    }
    drop(progress);
    print(args, &outcome)
}

fn export_one(
    exporter: &Exporter<'_>,
    precision: Precision,
    check: Option<&RecallCheck<'_>>,
) -> Result<(Verified, Option<RecallLoss>), ExportError> {
    let verified = exporter.bundle(precision)?;
    let recall = check.map(|check| check.check(&verified)).transpose()?;
    Ok((verified.with_declared_memory()?, recall))
}

impl Outcome {
    /// Notes an answer that is no; hands on what could not be done.
    fn refuse(&mut self, precision: Precision, why: ExportError) -> Result<(), ExportError> {
        if !why.is_disagreement() {
            return Err(why);
        }
        self.failures.push(Failure { precision, why });
        Ok(())
    }
}

/// The name becomes part of a file's name.
fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        bail!("`{name}` can not be the name of a file; give another one with `--name`");
    }
    Ok(())
}

fn write(
    args: &Args,
    out: &Path,
    name: &str,
    verified: Verified,
    recall: Option<RecallLoss>,
) -> anyhow::Result<Written> {
    let precision = verified.header().precision;
    let path = out.join(format!("{name}-{precision}.bundle"));
    verified.save(&path)?;
    let onnx = args
        .onnx
        .then(|| out.join(format!("{name}-{precision}.onnx")));
    if let Some(onnx) = &onnx {
        files::replace(onnx, verified.onnx())?;
    }
    Ok(Written {
        path,
        onnx,
        verified,
        recall,
    })
}

fn print(args: &Args, outcome: &Outcome) -> anyhow::Result<Answer> {
    if args.json {
        say(&serde_json::to_string(&json(outcome))?);
    } else {
        if !outcome.written.is_empty() {
            say_raw(&table(&outcome.written));
        }
        for Failure { precision, why } in &outcome.failures {
            note(&format!("error: no {precision} bundle: {why}"));
        }
    }
    Ok(match outcome.failures.is_empty() {
        true => Answer::Yes,
        false => Answer::No,
    })
}

fn table(written: &[Written]) -> String {
    let mut text = format!(
        "{:9}  {:>10}  {:>10}  {:>11}  {:>11}  {:>8}  {:>10}  {:>13}  {}\n",
        "precision",
        "bytes",
        "memory",
        "min cosine",
        "mean cosine",
        "n images",
        "parameters",
        "multiply-adds",
        "bundle"
    );
    for Written { path, verified, .. } in written {
        let (header, agreement) = (verified.header(), verified.agreement());
        text += &format!(
            "{:9}  {:>10}  {:>10}  {:>11.8}  {:>11.8}  {:>8}  {:>10}  {:>13}  {}\n",
            header.precision.to_string(),
            verified.bytes().len(),
            verified
                .memory_bytes()
                .map_or_else(String::new, human_bytes),
            agreement.min_cosine,
            agreement.mean_cosine,
            agreement.n_images,
            header.n_parameters,
            header.multiply_adds,
            path.display(),
        );
    }
    text += "memory: what it takes to load and run it; cosine: between the device encoder's \
             embedding of an image and libtorch's\n";
    for it in written {
        text += &remarks(it);
    }
    text
}

/// What rounding needed and cost, a line each.
fn remarks(written: &Written) -> String {
    let (header, rounding) = (written.verified.header(), written.verified.rounding());
    let precision = header.precision;
    let mut text = String::new();
    if precision != Precision::F32 {
        let how = export::rounding_json(precision, rounding);
        text += &format!("{precision}: rounding {how}\n");
    }
    if let Some(loss) = &written.recall {
        text += &recall_text(precision, loss);
    }
    text
}

fn recall_text(precision: Precision, loss: &RecallLoss) -> String {
    let Difference { mean, low, high, n } = loss.difference;
    format!(
        "{precision}: recall_at_1 {:.4}, {mean:+.4} [{low:+.4}, {high:+.4}] to f32 on {n} queries\n",
        loss.recall_at_1
    )
}

fn recall_json(loss: &RecallLoss) -> Value {
    let Difference { mean, low, high, n } = loss.difference;
    let value = loss.recall_at_1;
    json!({ "recall_at_1": value, "difference": mean, "low": low, "high": high, "n": n })
}

/// The f64 with the digits that the f32 is written with: 0.999, not 0.9990000128746033.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn bundle_json(written: &Written) -> Value {
    let verified = &written.verified;
    let (header, agreement) = (verified.header(), verified.agreement());
    json!({
        "path": written.path,
        "onnx": written.onnx,
        "precision": header.precision,
        "bytes": verified.bytes().len(),
        "memory_bytes": verified.memory_bytes(),
        "min_cosine": shortest(agreement.min_cosine),
        "mean_cosine": shortest(agreement.mean_cosine),
        "tolerance": shortest(header.verification.tolerance),
        "worst_image": agreement.worst_image,
        "n_images": agreement.n_images,
        "n_parameters": header.n_parameters,
        "multiply_adds": header.multiply_adds,
        "rounding": export::rounding_json(header.precision, verified.rounding()),
        "recall": written.recall.as_ref().map(recall_json),
    })
}

fn failure_json(Failure { precision, why }: &Failure) -> Value {
    let mut json = json!({ "precision": precision, "error": why.to_string() });
    if let ExportError::Disagreement {
        agreement,
        precision,
        needed,
        cause,
    } = why
    {
        json["checked_in"] = json!(precision);
        json["image"] = json!(agreement.worst_image);
        json["min_cosine"] = json!(shortest(agreement.min_cosine));
        json["mean_cosine"] = json!(shortest(agreement.mean_cosine));
        json["tolerance"] = json!(shortest(needed.min));
        json["mean_tolerance"] = json!(shortest(needed.mean));
        json["layer"] = match cause {
            Some(Cause::Layer { name, .. } | Cause::Rounding { worst: name, .. }) => json!(name),
            _ => Value::Null,
        };
    }
    json
}

fn json(outcome: &Outcome) -> Value {
    json!({
        "schema": "eyas.export/1",
        "bundles": outcome.written.iter().map(bundle_json).collect::<Vec<_>>(),
        "failures": outcome.failures.iter().map(failure_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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
        let precisions = ["--precision", "int8", "--precision", "full-int8"];
        let json = [&["--data", &moved, "--json"][..], &precisions].concat();
        let run_dir = at("run");
        let out = at("out2");
        let words = [&[run_dir.as_str(), "--out", out.as_str()][..], &json].concat();
        assert_eq!(export(&words).unwrap(), Answer::Yes);
        assert_eq!(
            files("out2"),
            ["shelf-full-int8.bundle", "shelf-int8.bundle"]
        );
        let bytes = std::fs::read(folder.path().join("out2/shelf-full-int8.bundle")).unwrap();
        let bundle = eyas_shared::bundle::Bundle::read(&bytes).unwrap();
        assert_eq!(bundle.header.precision, Precision::FullInt8);

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

    #[test]
    fn a_budget_is_printed_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let images = folder.path().join("images");
        let student = student("eyas-xs", &images);
        student.save(Path::new(&at("run")), &images).unwrap();
        for json in [&[][..], &["--json"]] {
            let run = at("run");
            let explain = [run.as_str(), "--explain", "--precision", "full-int8"];
            assert_eq!(export(&[&explain[..], json].concat()).unwrap(), Answer::Yes);
        }
        let entries = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(entries.count(), 2, "the images and the run");
        let refused = export(&[&at("run"), "--explain", "--out", &at("out")]).unwrap_err();
        assert!(
            refused.to_string().contains("cannot be used with"),
            "{refused}"
        );
        assert!(
            export(&[&at("run")])
                .unwrap_err()
                .to_string()
                .contains("--out")
        );
        let gallery = export(&[&at("run"), "--out", &at("out"), "--gallery", "g"]).unwrap_err();
        assert!(gallery.to_string().contains("--manifest"), "{gallery}");
    }
}
