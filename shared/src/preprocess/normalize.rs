//! From 8-bit samples to the f32 values that a network reads.

use super::{Pixels, PreprocessSpec, RgbImage};
use crate::fingerprint::Fingerprint;

/// Turns an image of `crop` x `crop` pixels into a tensor.
///
/// Every value is `((sample / 255) - mean) / std`, each operation rounded to f32: there are
/// 256 results per channel, and they are looked up.
///
/// # Panics
///
/// If the image is not `crop` x `crop`.
#[must_use]
pub fn normalize(image: &RgbImage, spec: &PreprocessSpec) -> Pixels {
    assert!(
        image.width == spec.crop && image.height == spec.crop,
        "a network of {crop} x {crop} can not read {image:?}",
        crop = spec.crop
    );
    let pixels = image.samples.as_chunks::<3>().0;
    let mut values_chw = Vec::with_capacity(image.samples.len());
    for channel in 0..3 {
        let table = table(spec.mean[channel], spec.std[channel]);
        values_chw.extend(
            pixels
                .iter()
                .map(|pixel| table[usize::from(pixel[channel])]),
        );
    }
    Pixels {
        side: spec.crop,
        values_chw,
    }
}

fn table(mean: f32, std: f32) -> [f32; 256] {
    std::array::from_fn(|sample| (sample as f32 / 255.0 - mean) / std)
}

impl Pixels {
    /// Names the tensor: SHA-256 over its values as little-endian f32.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let bytes: Vec<u8> = self
            .values_chw
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        Fingerprint::of_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{Filter, IMAGENET_MEAN, IMAGENET_STD};

    #[test]
    fn channels_come_first_and_each_has_its_own_table() {
        let spec = PreprocessSpec {
            resize_shorter: 2,
            crop: 2,
            filter: Filter::Bilinear,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        };
        let image = RgbImage::new(2, 2, (0..12).map(|i| i * 20).collect()).unwrap();
        let pixels = normalize(&image, &spec);
        assert_eq!(pixels.values_chw.len(), 12);
        // Green of the last pixel.
        assert_eq!(pixels.values_chw[7], (200.0 / 255.0 - 0.456_f32) / 0.224);
    }
}
