//! The only way from an image file to the tensor that a network reads.
//!
//! Host training, evaluation and the device all go through here, and the
//! [`PreprocessSpec`] travels inside the bundle, so a student can not be run with the
//! pixels of another one. Decoding and resizing work on integers, normalization looks up a
//! table: the same file gives the same bits on every CPU. `PREPROCESSING.md` states every
//! rounding step.

pub mod decode;
mod image;
pub mod normalize;
mod preprocessor;
pub mod resize;

pub use self::decode::{DecodeError, Decoder, Limits, decode};
pub use self::normalize::normalize;
pub use self::preprocessor::Preprocessor;
pub use self::resize::{SourceBox, resize, resize_and_crop};

use serde::{Deserialize, Serialize};

use crate::fingerprint::{Fingerprint, Fingerprinter};

/// How an image file becomes the tensor that a network reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreprocessSpec {
    /// Shorter side after the resize, in pixels.
    pub resize_shorter: u32,
    /// Side of the centred square that is kept, in pixels. At most `resize_shorter`.
    pub crop: u32,
    /// Filter of the resize.
    pub filter: Filter,
    /// Per-channel mean in 0..=1, order R, G, B.
    pub mean: [f32; 3],
    /// Per-channel standard deviation in 0..=1, order R, G, B. Never zero.
    pub std: [f32; 3],
}

/// Interpolation of the antialiased resize: the filter is widened by the reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle of radius 1.
    Bilinear,
    /// Keys cubic with a = -0.5, radius 2.
    Bicubic,
}

/// Mean of ImageNet's training pixels, R, G, B.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's training pixels, R, G, B.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Largest side of a network's input that a spec may ask for.
pub const MAX_SIDE: u32 = 4096;

impl PreprocessSpec {
    /// What is wrong with this spec, if anything: `None` means that it can be applied.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        if self.crop == 0 || self.crop > self.resize_shorter {
            return Some("the crop is empty or larger than the resized image");
        }
        if self.resize_shorter > MAX_SIDE {
            return Some("the resized image is larger than 4096 pixels");
        }
        if !self.mean.iter().all(|x| x.is_finite()) {
            return Some("the mean is not finite");
        }
        if !self.std.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Some("the standard deviation is not positive");
        }
        None
    }

    /// Names the spec: equal specs give equal tensors.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let floats = |values: [f32; 3]| values.map(f32::to_le_bytes).concat();
        Fingerprinter::new("eyas preprocess spec 1")
            .field("resize_shorter", &self.resize_shorter.to_le_bytes())
            .field("crop", &self.crop.to_le_bytes())
            .field("filter", &[self.filter as u8])
            .field("mean", &floats(self.mean))
            .field("std", &floats(self.std))
            .finish()
    }
}

/// From the bytes of an image file to the tensor, with the [default limits](Limits::DEFAULT).
///
/// Who has many images takes a [`Preprocessor`].
///
/// # Panics
///
/// If the spec has a [fault](PreprocessSpec::fault).
pub fn apply(bytes: &[u8], spec: &PreprocessSpec) -> Result<Pixels, DecodeError> {
    Ok(prepare(&decode(bytes, &Limits::DEFAULT)?, spec))
}

/// From a decoded image to the tensor.
///
/// # Panics
///
/// If the spec has a [fault](PreprocessSpec::fault).
#[must_use]
pub fn prepare(image: &RgbImage, spec: &PreprocessSpec) -> Pixels {
    let mut pixels = Pixels::none();
    preprocessor::Tensors::default().fill(image, spec, &mut pixels);
    pixels
}

/// An image of 8-bit sRGB samples. [`RgbImage::new`] checks what is said here.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// `height` x `width` x 3 samples, order R, G, B.
    pub samples: Vec<u8>,
}

/// What a network reads: 3 x `side` x `side` f32 values, channels first.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    /// Height and width.
    pub side: u32,
    /// Red plane, green plane, blue plane, each row by row.
    pub values_chw: Vec<f32>,
}
