//! The orientation that a camera notes in the Exif block, and nothing else of it.

#![expect(clippy::big_endian_bytes, reason = "the format allows both orders")]

use crate::preprocess::RgbImage;

/// How the stored pixels are to be turned, numbered as in Exif (tag 0x0112).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation(u8);

const TAG_ORIENTATION: u16 = 0x0112;
const TYPE_SHORT: u16 = 3;

impl Orientation {
    /// Stored as it is to be seen.
    pub(super) const UPRIGHT: Self = Self(1);

    /// Reads a TIFF block, with or without the `Exif` prefix of a JPEG segment.
    ///
    /// A block that is damaged or says nothing useful is upright: photographs with a
    /// broken Exif block are common, and their pixels are fine.
    pub(super) fn of_exif(block: &[u8]) -> Self {
        let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
        find_orientation(tiff).unwrap_or(Self::UPRIGHT)
    }

    /// The image as it is to be seen.
    pub(super) fn turn(self, image: RgbImage) -> RgbImage {
        match self.0 {
            2 => image.mirrored(),
            3 => image.upended().mirrored(),
            4 => image.upended(),
            5 => image.transposed(),
            6 => image.transposed().mirrored(),
            7 => image.transposed().mirrored().upended(),
            8 => image.transposed().upended(),
            _ => image,
        }
    }
}

fn find_orientation(tiff: &[u8]) -> Option<Orientation> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if little {
            u16::from_le_bytes(*bytes)
        } else {
            u16::from_be_bytes(*bytes)
        })
    };
    let u32_at = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if little {
            u32::from_le_bytes(*bytes)
        } else {
            u32::from_be_bytes(*bytes)
        })
    };
    let directory = u32_at(4)? as usize;
    let entries = usize::from(u16_at(directory)?);
    for entry in 0..entries {
        let at = directory.checked_add(2 + 12 * entry)?;
        if u16_at(at)? == TAG_ORIENTATION {
            let is_short = u16_at(at + 2)? == TYPE_SHORT && u32_at(at + 4)? == 1;
            let value = u16_at(at + 8)?;
            return (is_short && (1..=8).contains(&value)).then_some(Orientation(value as u8));
        }
    }
    None
}
