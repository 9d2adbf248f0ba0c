//! `eyas teacher`: import networks or embeddings, and show what a teacher is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use eyas_shared::bundle::Precision;
use eyas_shared::embedding::Embeddings;
use eyas_shared::files;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::preprocess::{Filter, PreprocessSpec};
use serde_json::json;

use super::{Answer, Progress, say};
use crate::data::manifest::{Manifest, Selection};
use crate::data::{self};
use crate::embeddings::{EmbeddedImages, cache};
use crate::export::{fold, onnx};
use crate::teacher::projection::{LearnedWhitening, Projection, Whitening};
use crate::teacher::{Member, Teacher, npy};
use crate::weights::Weights;
use crate::zoo::{self, Pooling};

/// Largest network file that is read.
const MAX_NETWORK_BYTES: u64 = 1 << 30;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a teacher of networks, of other teachers, or of embeddings made elsewhere.
    Import(Box<ImportArgs>),
    Train(super::teacher_train::Args),
    /// Show what a teacher is.
    Info(InfoArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas teacher import backbone.onnx --data photos --dim 128 --out photos.teacher
  eyas teacher import a.onnx b.onnx --output feature --whiten 0.5 --cache cache \\
      --data photos --dim 128 --out ensemble.teacher
  eyas teacher import squeezenet1_1.safetensors --architecture squeezenet1_1 \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --data photos --out squeeze.teacher
  eyas teacher import dinov2_vits14.safetensors --architecture dinov2_vits14 --crop 224 \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --data photos --out dinov2.teacher
  eyas teacher import tuned.teacher backbone.onnx --data photos --out both.teacher
  eyas teacher import resnet50.safetensors --architecture resnet50 --pooling gem \\
      --crop 256 --scales 1,0.7071,0.5 --data photos --out three.teacher
  eyas teacher import resnet101.safetensors --architecture resnet101 --pooling gem --dim 2048 \
      --data SfM-120k --whitening-pairs SfM-120k/retrieval-SfM-120k-whiten.pkl --out sfm.teacher
  eyas teacher import network.pt --crop 224 --data photos --out script.teacher
  eyas teacher import embeddings.npy --data photos.csv --no-projection --out other.teacher

Weights of torchvision become a .safetensors file in Python:
  from torchvision.models import resnet50; from safetensors.torch import save_file
  save_file(resnet50(weights=\"DEFAULT\").state_dict(), \"resnet50.safetensors\")")]
pub(super) struct ImportArgs {
    /// ONNX networks, weights (.safetensors) and .teacher files, whose outputs are put one
    /// after the other: the networks of a .teacher keep the pixels that they read, its
    /// projection is left behind. Or one matrix (.npy, .npz, .safetensors) with a row for each
    /// image of the data, in its order; or one TorchScript network (.pt), which embeds the data once: as with
    /// .npy, the teacher then knows these images and no others. A TorchScript file is a
    /// program: run only what you trust.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder or CSV list of images: the projection is fitted on their training split, unless
    /// --whitening-pairs names others.
    #[arg(long)]
    data: PathBuf,
    /// Split that the projection is fitted on.
    #[arg(long, default_value = "train")]
    split: String,
    /// Components of the embeddings.
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// Whitening: 0 keeps distances, 1 makes the variances of all components equal.
    #[arg(long, default_value_t = 0.5, value_name = "EXPONENT")]
    whiten: f32,
    /// Learn the whitening from labels instead: differences within a label become equally
    /// large in all directions.
    #[arg(long, conflicts_with = "whiten")]
    learned_whitening: bool,
    /// Principal components that are kept before the whitening is learned.
    #[arg(
        long,
        default_value_t = 512,
        value_name = "N",
        requires = "learned_whitening"
    )]
    components: u32,
    /// Added to the covariance within labels, in multiples of its mean variance.
    #[arg(
        long,
        default_value_t = 0.03,
        value_name = "SHARE",
        requires = "learned_whitening"
    )]
    shrinkage: f32,
    /// Learn the whitening from the pairs that a file such as retrieval-SfM-120k-whiten.pkl
    /// lists; its images lie below its folder, as published. Without --components and
    /// --shrinkage: the published method keeps all features until it turns to their axes.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["whiten", "learned_whitening"])]
    whitening_pairs: Option<PathBuf>,
    /// Keep the networks' features as they are.
    #[arg(long, conflicts_with_all = ["dim", "whiten", "learned_whitening", "whitening_pairs"])]
    no_projection: bool,
    /// Architecture of the zoo that .safetensors files hold the weights of.
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// How the last map of that architecture becomes features.
    #[arg(long, value_enum, default_value_t = PoolingName::Average, requires = "architecture")]
    pooling: PoolingName,
    /// Sizes at which each network looks, in multiples of --resize and --crop, each made of
    /// the photograph itself: the unit outputs of all are averaged, and the mean is scaled to
    /// length 1. That is cirtorch's multi-scale descriptor with msp = 1; the power mean that
    /// it takes of GeM descriptors, with their exponent, is not offered. Students look at one
    /// size, so queries do. A network that is named as .onnx must take images of every size.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1",
        value_name = "FACTOR,..."
    )]
    scales: Vec<f64>,
    /// Teacher file to write.
    #[arg(long)]
    out: PathBuf,
    /// Name of the teacher; the output's file name without extension if not given.
    #[arg(long)]
    name: Option<String>,
    /// Folder that keeps features, so that nothing is embedded twice.
    #[arg(long)]
    cache: Option<PathBuf>,
    #[command(flatten)]
    pixels: PixelArgs,
    /// Output of the ONNX networks to take; their first if not given.
    #[arg(long)]
    output: Option<String>,
    #[command(flatten)]
    compute: super::training::ComputeArgs,
}

#[derive(clap::Args)]
struct PixelArgs {
    /// Shorter side after the resize.
    #[arg(long, default_value_t = 256, value_name = "PIXELS")]
    resize: u32,
    /// Side of the centred square that the networks read.
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    crop: u32,
    /// Filter of the resize.
    #[arg(long, value_enum, default_value_t = FilterName::Bilinear)]
    filter: FilterName,
    /// Subtracted from pixels in 0..1, for red, green, blue.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,0,0",
        allow_negative_numbers = true
    )]
    mean: Vec<f32>,
    /// Pixels are divided by these, for red, green, blue.
    #[arg(long, value_delimiter = ',', default_value = "1,1,1")]
    std: Vec<f32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingName {
    /// Mean.
    Average,
    /// Maximum.
    Max,
    /// Mean plus maximum.
    AverageMax,
    /// Generalized mean; exponent `pool.p` of the weights, or 3.
    Gem,
}

impl From<PoolingName> for Pooling {
    fn from(name: PoolingName) -> Self {
        match name {
            PoolingName::Average => Self::Average,
            PoolingName::Max => Self::Max,
            PoolingName::AverageMax => Self::AverageMax,
            PoolingName::Gem => Self::Gem,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum FilterName {
    Bilinear,
    Bicubic,
}

impl PixelArgs {
    fn spec(&self) -> anyhow::Result<PreprocessSpec> {
        let three = |name: &str, values: &[f32]| -> anyhow::Result<[f32; 3]> {
            <[f32; 3]>::try_from(values).ok().with_context(|| {
                let n = values.len();
                format!("--{name} has {n} numbers, it needs one each for red, green, blue")
            })
        };
        Ok(PreprocessSpec {
            resize_shorter: self.resize,
            crop: self.crop,
            filter: match self.filter {
                FilterName::Bilinear => Filter::Bilinear,
                FilterName::Bicubic => Filter::Bicubic,
            },
            mean: three("mean", &self.mean)?,
            std: three("std", &self.std)?,
        })
    }
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas teacher info photos.teacher")]
pub(super) struct InfoArgs {
    /// Teacher file.
    teacher: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Import(args) => import(&args),
        Command::Train(args) => super::teacher_train::run(&args),
        Command::Info(args) => info(&args),
    }
}

fn import(args: &ImportArgs) -> anyhow::Result<Answer> {
    let manifest = data::open(&args.data)?;
    // Weights of a network come with its architecture; embeddings are one matrix.
    let is_tensor = |path: &Path| {
        is(path, "safetensors") && args.architecture.is_none() && npy::read(path).is_ok()
    };
    let holds_embeddings =
        |path: &PathBuf| npy::is_matrix(path) || is(path, "pt") || is_tensor(path);
    let teacher = if args.files.iter().any(holds_embeddings) {
        if args.scales != [1.0] {
            bail!("--scales is for networks; embeddings are what they are");
        }
        let [path] = &args.files[..] else {
            bail!(
                "a teacher of embeddings is made of one .npy, .npz, .safetensors or .pt file, {} files are named",
                args.files.len()
            );
        };
        import_embeddings(args, path, &manifest)?
    } else {
        import_networks(args)?
    };
    let teacher = if args.no_projection {
        teacher
    } else if let Some(pairs) = &args.whitening_pairs {
        fit_to_pairs(args, teacher, pairs)?
    } else {
        let fitted = manifest.select(&Selection {
            split: Some(args.split.clone()),
            role: None,
        });
        fit(args, teacher, &fitted)?
    };
    files::replace(&args.out, &teacher.to_bytes())?;
    say(&format!(
        "{}\nwritten to {}",
        describe(&teacher),
        args.out.display()
    ));
    Ok(Answer::Yes)
}

/// Whether a file's name ends in this extension.
fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn import_networks(args: &ImportArgs) -> anyhow::Result<Teacher> {
    let spec = args.pixels.spec()?;
    let mut groups = Vec::new();
    for path in &args.files {
        if is(path, "teacher") {
            groups.extend(groups_of(path)?);
            continue;
        }
        let at_scale = |&scale: &f64| {
            let member = member_at(path, args, scaled(&spec, scale)?, scale);
            member.with_context(|| match args.scales[..] {
                [_] => format!("`{}`", path.display()),
                _ => format!("`{}` at scale {scale}", path.display()),
            })
        };
        groups.push(
            args.scales
                .iter()
                .map(at_scale)
                .collect::<anyhow::Result<_>>()?,
        );
    }
    Ok(Teacher::from_groups(name(args), groups, None, None)?)
}

/// Largest factor of [`ImportArgs::scales`].
const MAX_SCALE: f64 = 4.0;

/// The same part of the image in so many times as many pixels a side, rounded.
fn scaled(spec: &PreprocessSpec, scale: f64) -> anyhow::Result<PreprocessSpec> {
    if !(scale > 0.0 && scale <= MAX_SCALE) {
        bail!("--scales holds {scale}, which is not above 0 and at most {MAX_SCALE}");
    }
    let pixels = |side: u32| (f64::from(side) * scale).round() as u32;
    Ok(PreprocessSpec {
        resize_shorter: pixels(spec.resize_shorter),
        crop: pixels(spec.crop),
        ..spec.clone()
    })
}

fn member_at(
    path: &Path,
    args: &ImportArgs,
    spec: PreprocessSpec,
    scale: f64,
) -> anyhow::Result<Member> {
    let onnx = if is(path, "safetensors") {
        onnx_of_weights(path, args, spec.crop)?
    } else {
        files::read(path, MAX_NETWORK_BYTES)?
    };
    let name = match args.scales[..] {
        [_] => stem(path),
        _ => format!("{} x{scale}", stem(path)),
    };
    Ok(Member::new(name, onnx, spec, args.output.clone())?)
}

/// The networks of another teacher, to join an ensemble.
fn groups_of(path: &Path) -> anyhow::Result<Vec<Vec<Member>>> {
    let teacher = Teacher::open(path)?;
    if let Some(images) = teacher.imported() {
        bail!(
            "`{}` holds embeddings of {} images and no network: it can not join others",
            path.display(),
            images.n_images()
        );
    }
    let mut members = teacher.members().iter().cloned();
    let sizes = teacher.groups().iter();
    Ok(sizes
        .map(|size| members.by_ref().take(*size).collect())
        .collect())
}

/// The pooled features of a zoo architecture with weights from elsewhere, as ONNX.
fn onnx_of_weights(path: &Path, args: &ImportArgs, side: u32) -> anyhow::Result<Vec<u8>> {
    let names = || zoo::ARCHITECTURES.map(|(name, _)| name).join(", ");
    let Some(architecture) = &args.architecture else {
        bail!(
            "`{}` holds weights: name their --architecture: {}",
            path.display(),
            names()
        );
    };
    let network = zoo::by_name(architecture, 1).with_context(|| {
        format!(
            "architecture `{architecture}` is not in the zoo; there are {}",
            names()
        )
    })?;
    if side < zoo::MIN_SIDE {
        bail!(
            "networks of the zoo read at least {} pixels a side, not {side}",
            zoo::MIN_SIDE
        );
    }
    let pooling: Pooling = args.pooling.into();
    if pooling != Pooling::Average && !network.pools_places() {
        bail!("the features of {architecture} are those of its class token: leave --pooling away");
    }
    let network = network.for_side(side as usize).with_pooling(pooling);
    let trunk = network.trunk();
    let given = Weights::read(path)?;
    let weights = zoo::init::start_from(&trunk, &given, 0)
        .with_context(|| format!("weights `{}` for {architecture}", path.display()))?;
    let (folded, weights) = fold::fold(&trunk, &weights)?;
    Ok(onnx::write(&folded, &weights, side, Precision::F32, &[])?)
}

fn import_embeddings(
    args: &ImportArgs,
    path: &Path,
    manifest: &Manifest,
) -> anyhow::Result<Teacher> {
    if is(path, "pt") {
        let spec = args.pixels.spec()?;
        let images = super::teacher_script::embed(path, &spec, manifest, args.compute)?;
        return Ok(Teacher::from_embeddings(name(args), images, None, None)?);
    }
    let rows = npy::read(path)?;
    if rows.n_rows() != manifest.images.len() {
        bail!(
            "`{}` has {} rows, `{}` lists {} images: row i belongs to image i",
            path.display(),
            rows.n_rows(),
            args.data.display(),
            manifest.images.len()
        );
    }
    let images = by_image(manifest, &rows);
    Ok(Teacher::from_embeddings(name(args), images, None, None)?)
}

fn by_image(manifest: &Manifest, rows: &Embeddings) -> EmbeddedImages {
    // The teacher names its space itself, by this table's content.
    let unnamed = SpaceId(Fingerprint::of_bytes(b""));
    let mut images = EmbeddedImages::new(unnamed, rows.dim());
    for (image, row) in manifest.images.iter().zip(rows.rows()) {
        images.insert(image.id, row);
    }
    images
}

fn fit(args: &ImportArgs, teacher: Teacher, fitted: &Manifest) -> anyhow::Result<Teacher> {
    if fitted.images.is_empty() {
        bail!(
            "`{}` has no image in split `{}` to fit the projection on",
            args.data.display(),
            args.split
        );
    }
    // Copies of a file are one image.
    let distinct = fitted.distinct();
    let features = features_of(args, &teacher, &distinct)?;
    let projection = if args.learned_whitening {
        let settings = LearnedWhitening {
            components: args.components.min(features.dim() as u32),
            shrinkage: args.shrinkage,
        };
        Projection::fit_to_labels(&features, &label_numbers(&distinct), args.dim, settings)?
    } else {
        Projection::fit(&features, args.dim, args.whiten)?
    };
    Ok(teacher.with_projection(Some(projection), Some(fitted.fingerprint()))?)
}

/// Whitening by the pairs that a file lists.
fn fit_to_pairs(args: &ImportArgs, teacher: Teacher, path: &Path) -> anyhow::Result<Teacher> {
    let (listed, pairs) = data::landmarks::open_whitening(path)?;
    let distinct = listed.distinct();
    let features = features_of(args, &teacher, &distinct)?;
    let ids = distinct.images.iter().map(|image| image.id);
    let row_of: HashMap<ImageId, usize> = ids.zip(0..).collect();
    let row = |at: usize| row_of[&listed.images[at].id];
    let pairs: Vec<(usize, usize)> = { pairs.into_iter() }
        .map(|(query, matched)| (row(query), row(matched)))
        .collect();
    let projection = Projection::fit_to_pairs(&features, &pairs, args.dim)
        .with_context(|| format!("the pairs of `{}`", path.display()))?;
    Ok(teacher.with_projection(Some(projection), Some(listed.fingerprint()))?)
}

/// One row for each of some different images.
fn features_of(
    args: &ImportArgs,
    teacher: &Teacher,
    distinct: &Manifest,
) -> anyhow::Result<Embeddings> {
    let n_images = distinct.images.len();
    let progress = Progress::of_images("embedding", n_images);
    let cache = args.cache.as_deref();
    let (features, faults) =
        cache::concatenated_features(teacher, distinct, cache, &|| progress.step())?;
    if let Some(fault) = faults.first() {
        bail!(
            "the projection is fitted on whole data: {} of {n_images} images can not be embedded, the first is {fault}",
            faults.len(),
        );
    }
    Ok(features)
}

/// The position of each image's label among all labels.
fn label_numbers(images: &Manifest) -> Vec<usize> {
    let labels = images.labels();
    let number = |label: &str| labels.binary_search(&label).unwrap_or_default();
    let of_images = images.images.iter();
    of_images.map(|image| number(&image.label)).collect()
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn name(args: &ImportArgs) -> String {
    args.name.clone().unwrap_or_else(|| stem(&args.out))
}

fn info(args: &InfoArgs) -> anyhow::Result<Answer> {
    let teacher = Teacher::open(&args.teacher)?;
    if args.json {
        say(&as_json(&teacher).to_string());
    } else {
        say(&describe(&teacher));
    }
    Ok(Answer::Yes)
}

fn as_json(teacher: &Teacher) -> serde_json::Value {
    let members: Vec<_> = teacher
        .members()
        .iter()
        .map(|member| {
            json!({
                "name": member.name(),
                "dim": member.dim(),
                "multiply_adds": member.multiply_adds(),
                "preprocess": member.preprocess(),
            })
        })
        .collect();
    json!({
        "schema": "eyas.teacher/1",
        "name": teacher.name(),
        "dim": teacher.dim(),
        "space_id": teacher.space().0.to_string(),
        "multiply_adds": teacher.multiply_adds(),
        "members": members,
        "averaged": teacher.groups(),
        "whitening": teacher.projection().map(|map| match map.whitening {
            Whitening::Variance(exponent) => json!(exponent),
            Whitening::Labels(settings) => json!(settings),
            Whitening::Pairs(n_pairs) => json!({ "pairs": n_pairs }),
        }),
        "imported_images": teacher.imported().map(EmbeddedImages::n_images),
        "manifest": teacher.manifest().map(|print| print.to_string()),
    })
}

fn describe(teacher: &Teacher) -> String {
    let mut lines = vec![format!(
        "teacher {}: {} dimensions, space {}",
        teacher.name(),
        teacher.dim(),
        teacher.space()
    )];
    for member in teacher.members() {
        let spec = member.preprocess();
        lines.push(format!(
            "  network {}: {} features, {:.1} million multiply-adds, {}x{} pixels of {}",
            member.name(),
            member.dim(),
            member.multiply_adds() as f64 / 1e6,
            spec.crop,
            spec.crop,
            spec.resize_shorter
        ));
    }
    if teacher.groups().iter().any(|size| *size > 1) {
        let sizes = teacher.groups().iter().map(usize::to_string);
        let sizes: Vec<String> = sizes.collect();
        lines.push(format!(
            "  unit features of {} networks in a row are averaged: {} features",
            sizes.join(", "),
            teacher.n_features()
        ));
    }
    if let Some(images) = teacher.imported() {
        lines.push(format!(
            "  embeddings of {} images, {} components; it can not embed others",
            images.n_images(),
            images.dim()
        ));
    }
    match teacher.projection() {
        Some(map) => lines.push(format!(
            "  projection from {} features, whitening {}, fitted on manifest {}",
            map.mean.len(),
            map.whitening,
            teacher
                .manifest()
                .map_or("unknown".to_owned(), |print| print.short())
        )),
        None => lines.push("  no projection".to_owned()),
    }
    lines.push(format!(
        "  {:.1} million multiply-adds for one image",
        teacher.multiply_adds() as f64 / 1e6
    ));
    lines.join("\n")
}
