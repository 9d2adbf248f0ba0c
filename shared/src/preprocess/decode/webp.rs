//! WebP: lossy and lossless still images, with and without transparency.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::webp::WebPDecoder;

use super::exif::Orientation;
use super::{DecodeError, Format, Limits, flatten};
use crate::preprocess::RgbImage;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    let orientation = check_chunks(bytes)?;
    let damaged = |error: image::ImageError| DecodeError::damaged(Format::WebP, error.to_string());
    // This reads headers only.
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    limits.check_pixels(Format::WebP, width, height)?;
    if decoder.has_animation() {
        return Err(DecodeError::Unsupported {
            format: Format::WebP,
            what: "an animation",
        });
    }
    let channels = decoder.color_type().channel_count();
    let mut samples = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut samples).map_err(damaged)?;
    let mut image = RgbImage::new(width, height, flatten(samples, channels)).ok_or_else(|| {
        DecodeError::damaged(
            Format::WebP,
            "the number of samples is not that of the header",
        )
    })?;
    orientation.turn(&mut image, &mut Vec::new());
    Ok(image)
}

/// Walks over the chunks: all must be there, and one may tell the orientation.
fn check_chunks(bytes: &[u8]) -> Result<Orientation, DecodeError> {
    let truncated = |missing| DecodeError::Truncated {
        format: Format::WebP,
        missing,
    };
    let len = bytes.get(4..).and_then(|rest| rest.first_chunk());
    let len = u32::from_le_bytes(*len.ok_or_else(|| truncated("length"))?) as usize;
    let body = bytes.get(8..).and_then(|rest| rest.get(..len));
    // Starts with the four letters `WEBP`.
    let body = body.ok_or_else(|| truncated("chunks up to the length in the header"))?;
    let mut rest = body.get(4..).unwrap_or_default();
    let mut orientation = Orientation::UPRIGHT;
    while !rest.is_empty() {
        let (kind, body) = next_chunk(&mut rest).ok_or_else(|| truncated("rest of a chunk"))?;
        if kind == b"EXIF" {
            orientation = Orientation::of_exif(body);
        }
    }
    Ok(orientation)
}

/// Kind and body of the first chunk, which is taken away from `rest`.
fn next_chunk<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8; 4], &'a [u8])> {
    let (kind, after) = rest.split_first_chunk()?;
    let (len, after) = after.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let body = after.get(..len)?;
    // Chunks start at even offsets; the last filler byte may be left out.
    *rest = after.get(len + len % 2..).unwrap_or_default();
    Some((kind, body))
}
