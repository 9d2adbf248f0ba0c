//! The whole way to the tensor, for image after image, in memory that is used again.
//!
//! Memory grows to what the largest image took, and stays. An image of a size, format and
//! spec that were there before allocates nothing, if it is a plain baseline JPEG; decoders
//! of other formats allocate for themselves.

use super::normalize::Tables;
use super::resize::{Plan, Resizer};
use super::{DecodeError, Decoder, Limits, Pixels, PreprocessSpec, RgbImage};

/// Turns image files into tensors, one after the other. Each thread has its own.
pub struct Preprocessor {
    decoder: Decoder,
    tensors: Tensors,
    pixels: Pixels,
}

impl Default for Preprocessor {
    fn default() -> Self {
        Self {
            decoder: Decoder::default(),
            tensors: Tensors::default(),
            pixels: Pixels::none(),
        }
    }
}

impl Preprocessor {
    /// As [`apply`](super::apply).
    ///
    /// # Errors
    ///
    /// If the file gives no image.
    ///
    /// # Panics
    ///
    /// If the spec has a [fault](PreprocessSpec::fault).
    pub fn apply(&mut self, bytes: &[u8], spec: &PreprocessSpec) -> Result<&Pixels, DecodeError> {
        let image = self.decoder.decode(bytes, &Limits::DEFAULT)?;
        self.tensors.fill(image, spec, &mut self.pixels);
        Ok(&self.pixels)
    }

    /// The first half of [`apply`](Self::apply), for who wants to know what it takes.
    ///
    /// # Errors
    ///
    /// If the file gives no image.
    pub fn decode(&mut self, bytes: &[u8], limits: &Limits) -> Result<&RgbImage, DecodeError> {
        self.decoder.decode(bytes, limits)
    }

    /// The second half: the tensor of the image that was decoded last.
    ///
    /// # Panics
    ///
    /// If no image was decoded, or the spec has a [fault](PreprocessSpec::fault).
    pub fn prepare(&mut self, spec: &PreprocessSpec) -> &Pixels {
        let image = self.decoder.last().expect("an image was decoded before");
        self.tensors.fill(image, spec, &mut self.pixels);
        &self.pixels
    }
}

/// From images to tensors.
#[derive(Default)]
pub(super) struct Tensors {
    resizer: Resizer,
    tables: Tables,
}

impl Tensors {
    /// Resizes, crops and normalizes: rows go from the resize to the planes of the tensor.
    pub(super) fn fill(&mut self, image: &RgbImage, spec: &PreprocessSpec, pixels: &mut Pixels) {
        let plan = Plan::of(image, spec);
        let side = spec.crop as usize;
        self.tables.set(spec);
        pixels.side = spec.crop;
        pixels.values_chw.resize(3 * side * side, 0.0);
        let (red, rest) = pixels.values_chw.split_at_mut(side * side);
        let (green, blue) = rest.split_at_mut(side * side);
        let mut rows = red
            .chunks_exact_mut(side)
            .zip(green.chunks_exact_mut(side))
            .zip(blue.chunks_exact_mut(side));
        self.resizer.resize(image, &plan, |row| {
            if let Some(((red, green), blue)) = rows.next() {
                self.tables.normalize(row, [red, green, blue]);
            }
        });
    }
}
