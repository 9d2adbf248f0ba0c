//! JPEG: baseline and progressive, gray, YCbCr, RGB, CMYK and YCCK.

mod baseline;
mod color;
mod header;
mod huffman;
mod idct;
mod outline;

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use self::baseline::Baseline;
use self::outline::Outline;
use super::exif::Orientation;
use super::{DecodeError, Format, Limits};
use crate::preprocess::RgbImage;

/// Memory that is used again for the next file.
#[derive(Default)]
pub(super) struct Memory {
    baseline: Baseline,
}

impl Memory {
    /// Decodes a file into `image`, whatever that was before, as it is stored: the
    /// orientation is yet to be applied. After an error `image` means nothing.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        image: &mut RgbImage,
    ) -> Result<Orientation, DecodeError> {
        match self.baseline.decode(bytes, limits.max_pixels, image) {
            Some(orientation) => Ok(orientation),
            None => decode_any(bytes, limits, image),
        }
    }
}

/// What the general decoder makes of a file.
fn decode_any(
    bytes: &[u8],
    limits: &Limits,
    image: &mut RgbImage,
) -> Result<Orientation, DecodeError> {
    let outline = Outline::read(bytes)?;
    limits.check_pixels(Format::Jpeg, outline.width, outline.height)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let samples = decoder
        .decode()
        .map_err(|error| DecodeError::damaged(Format::Jpeg, describe(&error)))?;
    *image = RgbImage::new(outline.width, outline.height, samples).ok_or_else(|| {
        DecodeError::damaged(
            Format::Jpeg,
            "the number of samples is not that of the header",
        )
    })?;
    Ok(outline.orientation)
}

/// The decoder's `Debug` is its message; `Display` only wraps it.
fn describe(error: &DecodeErrors) -> String {
    format!("{error:?}").trim().to_owned()
}

#[cfg(test)]
mod tests;
