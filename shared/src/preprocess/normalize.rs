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
    let mut tables = Tables::default();
    tables.set(spec);
    let mut values_chw = vec![0.0; image.samples.len()];
    let (red, rest) = values_chw.split_at_mut(image.samples.len() / 3);
    let (green, blue) = rest.split_at_mut(image.samples.len() / 3);
    tables.normalize(&image.samples, [red, green, blue]);
    Pixels {
        side: spec.crop,
        values_chw,
    }
}

/// What every sample of every channel becomes.
#[derive(Default)]
pub(super) struct Tables {
    /// Mean and standard deviation that the tables are for.
    made_for: Option<[[f32; 3]; 2]>,
    channels: Vec<[f32; 256]>,
}

impl Tables {
    pub(super) fn set(&mut self, spec: &PreprocessSpec) {
        let wanted = Some([spec.mean, spec.std]);
        if self.made_for == wanted {
            return;
        }
        self.made_for = wanted;
        self.channels.clear();
        self.channels.extend((0..3).map(|channel| {
            let (mean, std) = (spec.mean[channel], spec.std[channel]);
            std::array::from_fn(|sample| (sample as f32 / 255.0 - mean) / std)
        }));
    }

    /// Each channel of some pixels into a plane of its own.
    pub(super) fn normalize(&self, samples: &[u8], planes: [&mut [f32]; 3]) {
        let pixels = samples.as_chunks::<3>().0;
        for (channel, (table, plane)) in self.channels.iter().zip(planes).enumerate() {
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }
}

impl Pixels {
    /// Memory for a tensor that is yet to come.
    pub(super) const fn none() -> Self {
        Self {
            side: 0,
            values_chw: Vec::new(),
        }
    }

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
