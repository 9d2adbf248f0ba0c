//! PNG: gray, RGB and palette, 1 to 16 bits, with and without transparency.

#![expect(clippy::big_endian_bytes, reason = "the format says so")]

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder};

use super::exif::Orientation;
use super::{DecodeError, Format, Limits, flatten};
use crate::preprocess::RgbImage;

/// The first eight bytes of every PNG file.
pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    let outline = Outline::read(bytes)?;
    let pixels = limits.check_pixels(Format::Png, outline.width, outline.height)?;
    let damaged = |error: image::ImageError| DecodeError::damaged(Format::Png, error.to_string());
    let mut decoder_limits = image::Limits::no_limits();
    // Rows of at most 8 bytes per pixel, and what chunks unpack to.
    decoder_limits.max_alloc = Some(pixels.saturating_mul(8).saturating_add(limits.max_bytes));
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), decoder_limits).map_err(damaged)?;
    let color = decoder.color_type();
    let mut samples = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut samples).map_err(damaged)?;
    let samples = match color {
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            round_to_8_bits(&samples)
        }
        _ => samples,
    };
    let samples = flatten(samples, color.channel_count());
    let mut image = RgbImage::new(outline.width, outline.height, samples).ok_or_else(|| {
        DecodeError::damaged(
            Format::Png,
            "the number of samples is not that of the header",
        )
    })?;
    outline.orientation.turn(&mut image, &mut Vec::new());
    Ok(image)
}

/// The nearest of 256 levels: `sample / 257`, which is never a tie.
#[expect(
    clippy::host_endian_bytes,
    reason = "the decoder gives 16-bit samples so"
)]
fn round_to_8_bits(samples: &[u8]) -> Vec<u8> {
    let samples = samples.as_chunks().0.iter();
    samples
        .map(|&sample| ((u32::from(u16::from_ne_bytes(sample)) + 128) / 257) as u8)
        .collect()
}

/// What the chunks of a file say, from its start to its end.
struct Outline {
    width: u32,
    height: u32,
    orientation: Orientation,
}

impl Outline {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let truncated = |missing| DecodeError::Truncated {
            format: Format::Png,
            missing,
        };
        let mut rest = &bytes[SIGNATURE.len()..];
        let (width, height) = header_size(rest).ok_or_else(|| truncated("header"))?;
        let mut orientation = Orientation::UPRIGHT;
        loop {
            let (kind, body) = next_chunk(&mut rest).ok_or_else(|| truncated("end chunk"))?;
            match kind {
                b"eXIf" => orientation = Orientation::of_exif(body),
                b"IEND" => break,
                _ => {}
            }
        }
        Ok(Self {
            width,
            height,
            orientation,
        })
    }
}

fn header_size(mut chunks: &[u8]) -> Option<(u32, u32)> {
    let (_, body) = next_chunk(&mut chunks).filter(|(kind, _)| *kind == b"IHDR")?;
    let (width, rest) = body.split_first_chunk()?;
    let height = rest.first_chunk()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(*height)))
}

/// Kind and body of the first chunk, which is taken away from `rest`.
fn next_chunk<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8; 4], &'a [u8])> {
    let (len, after) = rest.split_first_chunk()?;
    let (kind, after) = after.split_first_chunk()?;
    let len = u32::from_be_bytes(*len) as usize;
    let body = after.get(..len)?;
    // The checksum behind the body is the decoder's to verify.
    *rest = after.get(len.checked_add(4)?..)?;
    Some((kind, body))
}
