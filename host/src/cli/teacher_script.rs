//! `eyas teacher import NETWORK.pt`: a TorchScript network embeds the data once, through
//! libtorch, and the teacher keeps those embeddings.

use std::path::Path;

use eyas_shared::preprocess::PreprocessSpec;

use super::training::ComputeArgs;
use crate::data::manifest::Manifest;
use crate::embeddings::EmbeddedImages;

#[cfg(not(feature = "torch"))]
pub(super) fn embed(
    path: &Path,
    _spec: &PreprocessSpec,
    _manifest: &Manifest,
    _compute: ComputeArgs,
) -> anyhow::Result<EmbeddedImages> {
    anyhow::bail!(
        "`{}` needs libtorch, which this build lacks: rebuild with the `torch` feature, or import the network as ONNX",
        path.display()
    )
}

/// Features of every image of `manifest`.
#[cfg(feature = "torch")]
pub(super) fn embed(
    path: &Path,
    spec: &PreprocessSpec,
    manifest: &Manifest,
    compute: ComputeArgs,
) -> anyhow::Result<EmbeddedImages> {
    use anyhow::{Context, anyhow};
    use eyas_shared::fingerprint::{Fingerprint, SpaceId};
    use eyas_shared::preprocess;

    use super::Progress;
    use super::training::choose_compute;
    use crate::embeddings::images::read_image;
    use crate::learn::ScriptNetwork;

    if let Some(fault) = spec.fault() {
        anyhow::bail!("pixels of network `{}`: {fault}", path.display());
    }
    let network = ScriptNetwork::load(path, choose_compute(compute)?)?;
    let progress = Progress::new("embedding", manifest.images.len());
    let mut embedded: Option<EmbeddedImages> = None;
    for image in &manifest.images {
        let named = || format!("image `{}`", image.path);
        let picture = read_image(manifest, image)
            .map_err(|why| anyhow!(why))
            .with_context(named)?;
        let features = network.features(&preprocess::prepare(&picture, spec))?;
        let is_usable =
            features.iter().all(|x| x.is_finite()) && features.iter().any(|x| *x != 0.0);
        if !is_usable {
            anyhow::bail!("`{}` gives no direction for {}", path.display(), named());
        }
        // The teacher names its space itself, by this table's content.
        let unnamed = SpaceId(Fingerprint::of_bytes(b""));
        let dim = features.len();
        let table = embedded.get_or_insert_with(|| EmbeddedImages::new(unnamed, dim));
        if table.dim() != dim {
            anyhow::bail!(
                "`{}` gives {dim} features for {}, {} for those before",
                path.display(),
                named(),
                table.dim()
            );
        }
        table.insert(image.id, &features);
        progress.step();
    }
    embedded.with_context(|| format!("there is no image to embed with `{}`", path.display()))
}
