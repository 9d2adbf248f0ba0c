//! Random views of a training image. Never on the device.
//!
//! The pixels still come from `eyas_shared::preprocess`: the same decoder, the same
//! resampling, the same normalization; only the box that is cut out and the colours vary.

use eyas_shared::preprocess::{self, Pixels, PreprocessSpec, RgbImage, SourceBox};
use eyas_shared::random::Random;

use crate::recipe::Augmentation;

/// Tries to find a box of the wanted area and shape inside the image before it is clamped.
const CROP_TRIES: usize = 10;

/// A random view of an image, drawn but not yet computed: student and teacher can each see
/// it at their own resolution.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    source: SourceBox,
    mirrored: bool,
    /// Factors of brightness, contrast and saturation.
    colors: Option<[f32; 3]>,
}

impl View {
    pub(super) fn draw(image: &RgbImage, augmentation: &Augmentation, random: &mut Random) -> Self {
        let source = random_box(image, augmentation, random);
        let mirrored = augmentation.mirror && random.chance(0.5);
        let amount = augmentation.jitter;
        let mut factor = |_| random.range(1.0 - amount, 1.0 + amount) as f32;
        Self {
            source,
            mirrored,
            colors: (amount > 0.0).then(|| std::array::from_fn(&mut factor)),
        }
    }

    /// The view as a network with these pixels reads it: all of the box, crop x crop.
    pub(super) fn pixels(&self, image: &RgbImage, spec: &PreprocessSpec) -> Pixels {
        let mut view = preprocess::resize(image, self.source, spec.crop, spec.crop, spec.filter);
        if self.mirrored {
            view = view.mirrored();
        }
        if let Some(factors) = self.colors {
            change_colors(&mut view, factors);
        }
        preprocess::normalize(&view, spec)
    }
}

fn random_box(image: &RgbImage, augmentation: &Augmentation, random: &mut Random) -> SourceBox {
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let [small, large] = augmentation.crop_area;
    let [narrow, broad] = augmentation.crop_aspect;
    let (mut box_width, mut box_height) = (width, height);
    for _ in 0..CROP_TRIES {
        let area = width * height * random.range(small, large);
        let aspect = random.range(narrow.ln(), broad.ln()).exp();
        (box_width, box_height) = ((area * aspect).sqrt(), (area / aspect).sqrt());
        if box_width <= width && box_height <= height {
            break;
        }
    }
    let (box_width, box_height) = (box_width.clamp(1.0, width), box_height.clamp(1.0, height));
    let left = random.range(0.0, width - box_width);
    let top = random.range(0.0, height - box_height);
    let (right, bottom) = (
        (left + box_width).min(width),
        (top + box_height).min(height),
    );
    SourceBox {
        left,
        top,
        right,
        bottom,
    }
}

/// Scales brightness, contrast (around the mean brightness) and saturation (around each
/// pixel's brightness).
fn change_colors(image: &mut RgbImage, [brightness, contrast, saturation]: [f32; 3]) {
    let luma = |rgb: &[u8; 3]| {
        0.299 * f32::from(rgb[0]) + 0.587 * f32::from(rgb[1]) + 0.114 * f32::from(rgb[2])
    };
    let pixels = image.samples.as_chunks_mut::<3>().0;
    let mean = pixels.iter().map(|rgb| f64::from(luma(rgb))).sum::<f64>() / pixels.len() as f64;
    let mean = mean as f32;
    for rgb in pixels {
        let gray = luma(rgb);
        for sample in rgb {
            let saturated = gray + (f32::from(*sample) - gray) * saturation;
            let contrasted = mean + (saturated - mean) * contrast;
            *sample = (contrasted * brightness + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means over blocks of two kinds of pixels, in units of the normalized values; the
    /// coarse view rounds to 8 bits after another resampling.
    const SAME_SCENE: f32 = 0.35;

    #[test]
    fn two_resolutions_of_a_view_show_the_same_scene() {
        let image = eyas_shared::bundle::probe_image(0);
        let recipe = crate::recipe::example();
        let spec = |crop| PreprocessSpec {
            crop,
            resize_shorter: crop,
            ..recipe.input.clone()
        };
        for seed in 0..10 {
            let view = View::draw(&image, &recipe.augmentation, &mut Random::new(seed));
            let (fine, coarse) = (
                view.pixels(&image, &spec(64)),
                view.pixels(&image, &spec(32)),
            );
            for (at, value) in coarse.values_chw.iter().enumerate() {
                let (channel, y, x) = (at / 1024, at / 32 % 32, at % 32);
                let fine =
                    |dy, dx| fine.values_chw[channel * 4096 + (2 * y + dy) * 64 + 2 * x + dx];
                let mean = (fine(0, 0) + fine(0, 1) + fine(1, 0) + fine(1, 1)) / 4.0;
                assert!((mean - value).abs() < SAME_SCENE, "{seed}: {mean} {value}");
            }
        }
    }

    #[test]
    fn a_view_follows_from_its_random_numbers() {
        let image = eyas_shared::bundle::probe_image(1);
        let augmentation = crate::recipe::example().augmentation;
        let draw = |seed| View::draw(&image, &augmentation, &mut Random::new(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
