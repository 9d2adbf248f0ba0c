//! What has to be beaten: retrieval by colour histogram.

use std::collections::HashMap;

use eyas_shared::fingerprint::{Fingerprinter, ImageId, SpaceId};
use eyas_shared::gallery::{Codes, Gallery};
use eyas_shared::preprocess::RgbImage;

use super::{EvaluateError, Retrieval, against_images, queries_of};
use crate::data::manifest::{Image, Manifest};
use crate::embeddings::cache::Fault;
use crate::embeddings::images::embed_each;
use crate::gallery::Selected;

/// Steps of each color in the histogram.
const STEPS: usize = 8;

/// Components of a histogram.
pub const DIM: usize = STEPS * STEPS * STEPS;

/// The space of histograms.
#[must_use]
pub fn space() -> SpaceId {
    SpaceId(Fingerprinter::new("eyas colour histogram 8x8x8").finish())
}

/// Square root of the share of the image's pixels in each of 8 x 8 x 8 color cells: a unit
/// vector, whose dot product is the Bhattacharyya coefficient.
#[must_use]
pub fn histogram(image: &RgbImage) -> Vec<f32> {
    let mut counts = [0_u32; DIM];
    for [red, green, blue] in image.samples.as_chunks::<3>().0 {
        let cell = |sample: &u8| usize::from(*sample) * STEPS / 256;
        counts[(cell(red) * STEPS + cell(green)) * STEPS + cell(blue)] += 1;
    }
    let n_pixels = (image.samples.len() / 3).max(1) as f64;
    let share = |count: u32| (f64::from(count) / n_pixels).sqrt() as f32;
    counts.map(share).to_vec()
}

/// What retrieval by histogram reaches.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Its scores.
    pub retrieval: Retrieval,
    /// Images that were searched.
    pub n_gallery: usize,
    /// Images that could not be read: they neither asked nor were searched.
    pub faults: Vec<Fault>,
}

/// The images of `manifest` that `gallery` holds, each content once and with the gallery's
/// label: what a baseline can search in place of the gallery, which has no pixels.
#[must_use]
pub fn images_of(gallery: &Gallery<'_>, manifest: &Manifest) -> Selected {
    let mut label_of: HashMap<ImageId, &str> = (0..gallery.n_rows())
        .filter_map(|row| Some((gallery.id(row), gallery.entry(row)?.label)))
        .collect();
    let images = manifest.images.iter().filter_map(|image| {
        let label = label_of.remove(&image.id)?.to_owned();
        Some(Image {
            label,
            ..image.clone()
        })
    });
    Selected {
        manifest: Manifest {
            root: manifest.root.clone(),
            images: images.collect(),
        },
        repeated: Vec::new(),
    }
}

/// Scores queries against gallery images by histogram. `done` is called after each image.
///
/// # Errors
/// If no gallery image is left.
pub fn by_histogram(
    queries: &Manifest,
    gallery_images: &Selected,
    done: impl Fn(),
) -> Result<Baseline, EvaluateError> {
    let embed = |manifest: &Manifest| {
        let embed_one = |image: &RgbImage| Ok(histogram(image));
        embed_each(manifest, space(), DIM, embed_one, &done)
    };
    let (asked, mut faults) = embed(queries);
    let (searched, gallery_faults) = embed(&gallery_images.manifest);
    faults.extend(gallery_faults);
    let mut readable = gallery_images.clone();
    let readable_images = &mut readable.manifest.images;
    readable_images.retain(|image| searched.get(&image.id).is_some());
    let queries = queries_of(queries, &asked);
    Ok(Baseline {
        retrieval: against_images(&queries, &readable, &searched, Codes::F32, |_| ())?,
        n_gallery: readable.manifest.images.len(),
        faults,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::embedding::dot;

    fn image(pixels: &[[u8; 3]]) -> RgbImage {
        RgbImage {
            width: pixels.len() as u32,
            height: 1,
            samples: pixels.concat(),
        }
    }

    #[test]
    fn a_histogram_is_a_unit_vector_of_shares() {
        let found = histogram(&image(&[[0, 0, 0], [31, 31, 31], [255, 0, 0], [0, 0, 32]]));
        assert_eq!(found[0], 0.5_f32.sqrt());
        assert_eq!(found[7 * 64], 0.5);
        assert_eq!(found[1], 0.5);
        assert!((dot(&found, &found) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn like_colors_are_nearer_than_others() {
        let red = histogram(&image(&[[250, 3, 2], [240, 9, 9]]));
        let also_red = histogram(&image(&[[230, 30, 20], [20, 0, 0]]));
        let blue = histogram(&image(&[[1, 1, 250], [3, 3, 244]]));
        assert!(dot(&red, &also_red) > dot(&red, &blue));
    }
}
