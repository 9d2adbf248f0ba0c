//! `eyas-device info`: what a bundle or gallery says of itself.

use std::path::PathBuf;

use anyhow::Context;
use eyas_shared::bundle::{Bundle, Precision, VERSION as BUNDLE_VERSION};
use eyas_shared::calibration::{Calibration, GalleryIdentity};
use eyas_shared::container::{Container, ContainerError, Kind};
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::gallery::Gallery;
use serde_json::{Value, json};

use super::{Answer, human_bytes, print};
use crate::encoder::{Encoder, Isa};
use crate::store::{MappedFile, load_student};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas-device info student.bundle")]
pub(super) struct Args {
    /// A bundle or a gallery.
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.file)?;
    let facts = match kind_of(file.bytes()) {
        Ok(Kind::Bundle) => {
            let bundle = file.bundle()?;
            bundle_facts(&file, &bundle, &load_student(&file, &bundle)?)?
        }
        Ok(Kind::Gallery) => gallery_facts(&file, &file.verified_gallery()?)?,
        Ok(other) => anyhow::bail!(
            "`{}` is a {other}; a board reads bundles and galleries",
            args.file.display()
        ),
        Err(err) => {
            return Err(err).with_context(|| format!("can not use `{}`", args.file.display()));
        }
    };
    if args.json {
        print(&format!("{}\n", as_json(&facts)))?;
    } else {
        print(&as_text(&facts))?;
    }
    Ok(Answer::Yes)
}

/// The kind that the file says it is; its content is checked afterwards.
fn kind_of(bytes: &[u8]) -> Result<Kind, ContainerError> {
    match Container::read(bytes, Kind::Bundle, u16::MAX) {
        Err(ContainerError::OtherKind { found, .. }) => Ok(found),
        Err(err @ (ContainerError::NotEyas { .. } | ContainerError::UnknownKind { .. })) => {
            Err(err)
        }
        // Other faults of a bundle are told by reading it as one.
        _ => Ok(Kind::Bundle),
    }
}

/// Name, value for a script, and text for people, in order.
type Facts = Vec<(&'static str, Value, String)>;

fn fact(name: &'static str, value: impl Into<Value>) -> (&'static str, Value, String) {
    let value = value.into();
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    (name, value, text)
}

/// All digits for a script; for people those that messages show.
fn space_fact(space: SpaceId) -> (&'static str, Value, String) {
    ("space_id", space.0.to_string().into(), space.to_string())
}

fn file_facts(kind: &str, version: u16, file: &MappedFile) -> Facts {
    let bytes = file.bytes().len() as u64;
    vec![
        fact("kind", kind),
        fact("format_version", version),
        fact("path", file.path().display().to_string()),
        ("bytes", bytes.into(), human_bytes(bytes)),
    ]
}

fn section_facts(sections: impl Iterator<Item = (String, usize)>) -> Facts {
    let (mut objects, mut texts) = (Vec::new(), Vec::new());
    for (name, bytes) in sections {
        texts.push(format!("{} {}", name.trim_end(), human_bytes(bytes as u64)));
        objects.push(json!({ "name": name.trim_end(), "bytes": bytes }));
    }
    vec![("sections", objects.into(), texts.join(", "))]
}

fn bundle_facts(
    file: &MappedFile,
    bundle: &Bundle<'_>,
    encoder: &Encoder,
) -> anyhow::Result<Facts> {
    let container = Container::read(file.bytes(), Kind::Bundle, BUNDLE_VERSION)?;
    let header = &bundle.header;
    let network = encoder.network();
    let operators: Vec<String> = network
        .operators()
        .iter()
        .map(|(name, n)| format!("{name} x{n}"))
        .collect();
    let spec = &header.preprocess;
    let pixels = format!(
        "shorter side to {} ({}), center crop {}, mean {:?}, std {:?}",
        spec.resize_shorter,
        serde_json::to_value(spec.filter)?
            .as_str()
            .unwrap_or_default(),
        spec.crop,
        spec.mean,
        spec.std
    );
    let checked = &header.verification;
    let verification = format!(
        "{} images, smallest cosine {:.7}, allowed {:.7}",
        checked.n_images, checked.min_cosine, checked.tolerance
    );
    let from = &header.provenance;
    let mut facts = file_facts("bundle", container.version, file);
    facts.extend([
        fact("name", header.name.as_str()),
        fact("architecture", header.architecture.as_str()),
        fact("precision", header.precision.to_string()),
        instructions_fact(header.precision),
        fact("dim", header.dim),
        space_fact(header.space),
        memory_fact(bundle.memory_bytes),
        fact("n_parameters", header.n_parameters),
        fact("multiply_adds", header.multiply_adds),
        fact("multiply_adds_counted", network.multiply_adds()),
        (
            "operators",
            json!(network.operators()),
            operators.join(", "),
        ),
        ("preprocess", serde_json::to_value(spec)?, pixels),
        fact("onnx", header.onnx.to_string()),
        fact("probe_pixels", header.probe_pixels.to_string()),
        fact("n_probes", bundle.probe_embeddings.n_rows()),
        ("verification", serde_json::to_value(checked)?, verification),
        fact("eyas_version", from.eyas_version.as_str()),
        fact("teacher", from.teacher.as_str()),
        fact("recipe", from.recipe.to_string()),
        fact("seed", from.seed),
        fact("manifest", from.manifest.to_string()),
    ]);
    facts.extend(bundle.calibrations.iter().map(calibration_fact));
    facts.extend(section_facts(
        container.sections().map(|(name, data)| (name, data.len())),
    ));
    Ok(facts)
}

/// What this machine computes with, and whether that suits the precision.
fn instructions_fact(precision: Precision) -> (&'static str, Value, String) {
    let isa = Isa::best();
    let mut text = isa.to_string();
    if precision == Precision::FullInt8 && !isa.multiplies_bytes() {
        text += ", which do not multiply bytes: the student may be quicker here in int8";
    }
    ("instructions", isa.to_string().into(), text)
}

/// What it takes to load and run the student.
fn memory_fact(bytes: Option<u64>) -> (&'static str, Value, String) {
    let text = bytes.map_or_else(|| "not declared".to_owned(), human_bytes);
    ("memory_bytes", json!(bytes), text)
}

/// Thresholds for one gallery, with the counts that they rest on.
fn calibration_fact(calibration: &Calibration) -> (&'static str, Value, String) {
    let (gallery, evidence) = (&calibration.gallery, &calibration.evidence);
    let thresholds = &calibration.thresholds;
    let value = json!({
        "gallery_content": gallery.content.to_string(),
        "gallery_rows": gallery.n_rows,
        "gallery_precision": calibration.row_encoding,
        "thresholds": thresholds,
        "offsets": calibration.offsets,
        "evidence": evidence,
        "n_witnesses": calibration.witnesses.len(),
    });
    let text = format!(
        "for gallery {} of {} rows: match from {:.4} on with a lead of {:.4}, unknown below {:.4}; \
         {} known and {} unknown queries, false-match rate {} wanted, at most {:.4}",
        gallery.content.short(),
        gallery.n_rows,
        thresholds.match_score,
        thresholds.margin,
        thresholds.unknown_score,
        evidence.n_known,
        evidence.n_unknown,
        evidence.wanted_false_match_rate,
        evidence.false_match_bound,
    );
    ("calibration", value, text)
}

fn gallery_facts(file: &MappedFile, gallery: &Gallery<'_>) -> anyhow::Result<Facts> {
    let container = Container::read(file.bytes(), Kind::Gallery, eyas_shared::gallery::VERSION)?;
    let header = &gallery.header;
    let mut facts = file_facts("gallery", container.version, file);
    facts.extend([
        fact("n_rows", header.n_rows),
        fact("n_labels", header.n_labels),
        fact("dim", header.dim),
        fact("codes", header.codes.to_string()),
        space_fact(header.space),
        fact("teacher", header.teacher.as_str()),
        fact("manifest", header.manifest.to_string()),
        content_fact(gallery),
    ]);
    facts.extend(section_facts(gallery.sections()));
    Ok(facts)
}

/// What a calibration names a gallery by.
fn content_fact(gallery: &Gallery<'_>) -> (&'static str, Value, String) {
    let content = GalleryIdentity::of(gallery).content;
    ("content", content.to_string().into(), content.short())
}

fn as_json(facts: &Facts) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("schema".to_owned(), "eyas.info/1".into());
    for (name, value, _) in facts {
        if *name == "calibration" {
            let list = object.entry("calibrations").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(value.clone());
            }
        } else {
            object.insert((*name).to_owned(), value.clone());
        }
    }
    object.into()
}

fn as_text(facts: &Facts) -> String {
    let width = facts.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    facts
        .iter()
        .map(|(name, _, text)| format!("{name:width$}  {text}\n"))
        .collect()
}
