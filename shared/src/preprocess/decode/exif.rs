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

    /// Turns an image to how it is to be seen; `spare` is memory that may be used.
    pub(super) fn turn(self, image: &mut RgbImage, spare: &mut Vec<u8>) {
        // Which way to go from a pixel that is seen to the one that is stored.
        let (is_transposed, from_right, from_bottom) = match self.0 {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => return,
        };
        let stored = (image.width as usize, image.height as usize);
        let (width, height) = match is_transposed {
            true => (stored.1, stored.0),
            false => stored,
        };
        spare.clear();
        spare.reserve(image.samples.len());
        let pixels = image.samples.as_chunks::<3>().0;
        for y in 0..height {
            let y = if from_bottom { height - 1 - y } else { y };
            for x in 0..width {
                let x = if from_right { width - 1 - x } else { x };
                let (column, row) = if is_transposed { (y, x) } else { (x, y) };
                spare.extend_from_slice(&pixels[row * stored.0 + column]);
            }
        }
        std::mem::swap(&mut image.samples, spare);
        (image.width, image.height) = (width as u32, height as u32);
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
