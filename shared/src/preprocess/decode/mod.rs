//! From the bytes of an image file to 8-bit RGB: JPEG, PNG and WebP, told by content.
//!
//! Orientation is applied, transparency is laid over white, and a file that is cut off is
//! an error, never a picture with a gray half. Color profiles are deliberately
//! ignored: samples are taken as sRGB, as the pipelines that train teachers do.
//!
//! Files may come from anywhere. What a header claims is held against [`Limits`] before
//! memory for samples is taken.

mod exif;
mod jpeg;
mod png;
mod webp;

use std::fmt;

use super::RgbImage;

/// What a file may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, in bytes.
    pub max_bytes: u64,
    /// Largest image, in pixels (width x height).
    pub max_pixels: u64,
}

impl Limits {
    /// Files up to 64 MiB and images up to 64 megapixels (2^26 pixels), more than a phone
    /// takes. Decoding takes at most about 12 bytes of memory per pixel.
    pub const DEFAULT: Self = Self {
        max_bytes: 64 << 20,
        max_pixels: 64 << 20,
    };

    fn check_pixels(&self, format: Format, width: u32, height: u32) -> Result<u64, DecodeError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(DecodeError::damaged(format, "the image has no pixels"));
        }
        if pixels > self.max_pixels {
            return Err(DecodeError::TooManyPixels {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(pixels)
    }
}

/// A kind of image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// JPEG (baseline or progressive).
    Jpeg,
    /// PNG.
    Png,
    /// WebP (lossy or lossless).
    WebP,
}

impl Format {
    /// The format of a file that starts with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(png::SIGNATURE) {
            Some(Self::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
        })
    }
}

/// Why a file gives no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Neither JPEG nor PNG nor WebP.
    #[error("neither a JPEG nor a PNG nor a WebP file: it starts with {}", Start(.start))]
    UnknownFormat {
        /// The first bytes, at most 12.
        start: Vec<u8>,
    },
    /// The file is larger than the limit.
    #[error("the file has {bytes} bytes, the limit is {limit}")]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The header claims more pixels than the limit.
    #[error(
        "the image has {width} x {height} = {} pixels, the limit is {limit}",
        u64::from(*.width) * u64::from(*.height)
    )]
    TooManyPixels {
        /// Columns that the header claims.
        width: u32,
        /// Rows that the header claims.
        height: u32,
        /// The most that is decoded.
        limit: u64,
    },
    /// The file ends too early.
    #[error("the {format} file is cut off: its {missing} is missing")]
    Truncated {
        /// Format of the file.
        format: Format,
        /// What is not there.
        missing: &'static str,
    },
    /// The content contradicts the format.
    #[error("the {format} file is damaged: {what}")]
    Damaged {
        /// Format of the file.
        format: Format,
        /// What is wrong.
        what: String,
    },
    /// A legal file of a kind that is not read.
    #[error("the {format} file holds {what}, which is not supported")]
    Unsupported {
        /// Format of the file.
        format: Format,
        /// What the file holds.
        what: &'static str,
    },
}

impl DecodeError {
    fn damaged(format: Format, what: impl Into<String>) -> Self {
        Self::Damaged {
            format,
            what: what.into(),
        }
    }
}

/// The first bytes of a file, for a person.
struct Start<'a>(&'a [u8]);

impl fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing (it is empty)");
        }
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Decodes a JPEG, PNG or WebP file.
///
/// The image is turned as its Exif orientation says. The steps are stated in
/// `PREPROCESSING.md`.
///
/// # Errors
///
/// If the file is too large, of another format, damaged or of a kind that is not read.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    let mut decoder = Decoder::default();
    decoder.decode(bytes, limits)?;
    Ok(decoder.image)
}

/// Decodes one file after the other, in memory that it keeps.
pub struct Decoder {
    jpeg: jpeg::Memory,
    image: RgbImage,
    /// Samples of an image that is being turned.
    spare: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            jpeg: jpeg::Memory::default(),
            image: RgbImage::none(),
            spare: Vec::new(),
        }
    }
}

impl Decoder {
    /// As [`decode`], up to the next call.
    ///
    /// # Errors
    ///
    /// If the file is too large, of another format, damaged or of a kind that is not read.
    pub fn decode(&mut self, bytes: &[u8], limits: &Limits) -> Result<&RgbImage, DecodeError> {
        let decoded = self.replace_image(bytes, limits);
        if decoded.is_err() {
            self.image.clear();
        }
        decoded.map(|()| &self.image)
    }

    /// The image of the last call, unless that failed.
    pub(super) fn last(&self) -> Option<&RgbImage> {
        (self.image.width > 0).then_some(&self.image)
    }

    fn replace_image(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), DecodeError> {
        if bytes.len() as u64 > limits.max_bytes {
            return Err(DecodeError::TooManyBytes {
                bytes: bytes.len() as u64,
                limit: limits.max_bytes,
            });
        }
        match Format::of(bytes) {
            Some(Format::Jpeg) => {
                let orientation = self.jpeg.decode(bytes, limits, &mut self.image)?;
                orientation.turn(&mut self.image, &mut self.spare);
            }
            Some(Format::Png) => self.image = png::decode(bytes, limits)?,
            Some(Format::WebP) => self.image = webp::decode(bytes, limits)?,
            None => {
                return Err(DecodeError::UnknownFormat {
                    start: bytes[..bytes.len().min(12)].to_vec(),
                });
            }
        }
        Ok(())
    }
}

/// R, G, B from 1 (gray), 2 (gray, alpha), 3 (R, G, B) or 4 (R, G, B, alpha) channels.
///
/// Transparent pixels are laid over white: pictures with transparency are mostly cut-outs
/// of products, and their photographed background is white.
fn flatten(samples: Vec<u8>, channels: u8) -> Vec<u8> {
    let over_white = |sample: u8, alpha: u8| {
        let (sample, alpha) = (u32::from(sample), u32::from(alpha));
        ((sample * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    match channels {
        1 => samples.iter().flat_map(|&gray| [gray; 3]).collect(),
        2 => {
            let pixels = samples.as_chunks().0.iter();
            pixels
                .flat_map(|&[gray, alpha]| [over_white(gray, alpha); 3])
                .collect()
        }
        4 => {
            let pixels = samples.as_chunks().0.iter();
            pixels
                .flat_map(|&[r, g, b, alpha]| [r, g, b].map(|sample| over_white(sample, alpha)))
                .collect()
        }
        _ => samples,
    }
}
