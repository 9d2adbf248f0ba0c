//! Embeds images with anything that maps pixels to a vector, nothing kept on disk: a
//! student is fast, and a colour histogram too.

use eyas_device::encoder::Encoder;
use eyas_shared::embedding::l2_normalize;
use eyas_shared::files;
use eyas_shared::fingerprint::{ImageId, SpaceId};
use eyas_shared::preprocess::{self, Limits, RgbImage};

use super::EmbeddedImages;
use super::cache::Fault;
use crate::data::manifest::{Image, Manifest};
use crate::data::parallel;

/// Images whose embeddings wait for their place in the table, and whose last one every core
/// waits for.
const IMAGES_AT_ONCE: usize = 4096;

/// Reads and decodes an image of a manifest, and checks that it is still the image that was
/// listed.
///
/// # Errors
/// A sentence without the path.
pub fn read_image(manifest: &Manifest, image: &Image) -> Result<RgbImage, String> {
    let limits = Limits::DEFAULT;
    let bytes = files::read(&manifest.path(image), limits.max_bytes)
        .map_err(|err| err.source.to_string())?;
    if ImageId::of_file(&bytes) != image.id {
        return Err("the file has changed since the data was listed".to_owned());
    }
    preprocess::decode(&bytes, &limits).map_err(|err| err.to_string())
}

/// Embeds every image of `manifest` on all cores; embeddings are scaled to length 1.
/// `done` is called after each image. The outcome does not depend on the number of cores.
///
/// Images that can not be read or embedded are the second part of the result.
pub fn embed_each(
    manifest: &Manifest,
    space: SpaceId,
    dim: usize,
    embed: impl Fn(&RgbImage) -> Result<Vec<f32>, String> + Sync,
    done: impl Fn(),
) -> (EmbeddedImages, Vec<Fault>) {
    let mut embedded = EmbeddedImages::with_capacity(space, dim, manifest.images.len());
    let mut faults = Vec::new();
    // Not all at once: a million embeddings would lie in memory twice.
    for images in manifest.images.chunks(IMAGES_AT_ONCE) {
        let job = |i: usize| read_image(manifest, &images[i]).and_then(|pixels| embed(&pixels));
        let outcomes = parallel::map(images.len(), job, &done);
        for (image, outcome) in images.iter().zip(outcomes) {
            match outcome {
                Ok(mut embedding) => {
                    l2_normalize(&mut embedding);
                    embedded.insert(image.id, &embedding);
                }
                Err(why) => faults.push(Fault::of(image, why)),
            }
        }
    }
    (embedded, faults)
}

/// Embeds every image of `manifest` with a student, through the device encoder.
pub fn encode_each(
    encoder: &Encoder,
    manifest: &Manifest,
    done: impl Fn(),
) -> (EmbeddedImages, Vec<Fault>) {
    let encode = |image: &RgbImage| {
        let pixels = preprocess::prepare(image, encoder.preprocess());
        encoder.encode(&pixels).map_err(|err| err.to_string())
    };
    embed_each(manifest, encoder.space(), encoder.dim(), encode, done)
}
