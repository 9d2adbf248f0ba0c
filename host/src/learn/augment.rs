//! Random views of a training image. Never on the device.
//!
//! The pixels still come from `eyas_shared::preprocess`: the same decoder, the same
//! resampling, the same normalization; only the box that is cut out and the colours vary.

use eyas_shared::preprocess::{self, PreprocessSpec, RgbImage, SourceBox};
use eyas_shared::random::Random;

use crate::recipe::Augmentation;

/// Tries to find a box of the wanted area and shape inside the image before it is clamped.
const CROP_TRIES: usize = 10;

/// A random view as 3 x crop x crop values.
pub(super) fn random_view(
    image: &RgbImage,
    spec: &PreprocessSpec,
    augmentation: &Augmentation,
    random: &mut Random,
) -> Vec<f32> {
    let source = random_box(image, augmentation, random);
    let mut view = preprocess::resize(image, source, spec.crop, spec.crop, spec.filter);
    if augmentation.mirror && random.chance(0.5) {
        view = view.mirrored();
    }
    if augmentation.jitter > 0.0 {
        jitter(&mut view, augmentation.jitter, random);
    }
    preprocess::normalize(&view, spec).values_chw
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
/// pixel's brightness), each by a factor within 1 +- `amount`.
fn jitter(image: &mut RgbImage, amount: f64, random: &mut Random) {
    let [brightness, contrast, saturation] =
        std::array::from_fn(|_| random.range(1.0 - amount, 1.0 + amount) as f32);
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
