//! What a network makes of whole images, without augmentation.

use eyas_shared::preprocess::{self, Pixels, PreprocessSpec};
use tch::{Tensor, no_grad};

use super::batches::ImageStore;
use super::compute::Compute;
use super::network::{Mode, TorchNetwork};
use super::run::LearnError;
use super::trainer::n_workers;
use crate::data::parallel;

/// Images that are embedded at a time.
const AT_ONCE: usize = 32;

/// Head outputs of images of a store, in order; N x D, not normalized. Images are prepared
/// on as many threads as batches are.
///
/// # Errors
/// If an image can not be read.
pub(super) fn head_outputs(
    network: &TorchNetwork,
    store: &ImageStore,
    image_idx: impl IntoIterator<Item = usize>,
    spec: &PreprocessSpec,
    compute: Compute,
) -> Result<Tensor, LearnError> {
    let image_idx: Vec<usize> = image_idx.into_iter().collect();
    let mut outputs = Vec::new();
    for chunk in image_idx.chunks(AT_ONCE) {
        let prepare = |i: usize| Ok(preprocess::prepare(&*store.get(chunk[i])?, spec));
        let pixels = parallel::map_on(n_workers(), chunk.len(), prepare, || {});
        let pixels: Vec<Pixels> = pixels
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(LearnError::Image)?;
        outputs.push(forward(network, spec, &pixels, compute));
    }
    Ok(Tensor::cat(&outputs, 0))
}

/// Head outputs of pixels, N x D.
pub(super) fn forward(
    network: &TorchNetwork,
    spec: &PreprocessSpec,
    pixels: &[Pixels],
    compute: Compute,
) -> Tensor {
    let side = i64::from(spec.crop);
    let values: Vec<f32> = pixels
        .iter()
        .flat_map(|pixels| &pixels.values_chw)
        .copied()
        .collect();
    let images = Tensor::from_slice(&values)
        .view([-1, 3, side, side])
        .to_device(compute.device);
    no_grad(|| network.head_output(&images, Mode::Evaluate))
}
