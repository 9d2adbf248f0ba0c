//! The 8-bit image between the decoder and the tensor.
//!
//! Deliberately not an image library: pixels are read, mirrored and turned, nothing is
//! drawn or saved.

use std::fmt;

use super::RgbImage;

impl RgbImage {
    /// An image of these samples (`height` x `width` x 3, order R, G, B).
    ///
    /// `None` if a side is zero or the number of samples is another one.
    #[must_use]
    pub fn new(width: u32, height: u32, samples: Vec<u8>) -> Option<Self> {
        let expected = u64::from(width)
            .checked_mul(u64::from(height))?
            .checked_mul(3)?;
        (expected != 0 && samples.len() as u64 == expected).then_some(Self {
            width,
            height,
            samples,
        })
    }

    /// One pixel, R, G, B.
    ///
    /// # Panics
    ///
    /// If the pixel lies outside of the image.
    #[must_use]
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        assert!(x < self.width, "column {x} of {}", self.width);
        let start = 3 * (y as usize * self.width as usize + x as usize);
        [
            self.samples[start],
            self.samples[start + 1],
            self.samples[start + 2],
        ]
    }

    /// Rows from top to bottom, each of `3 * width` samples.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.samples.chunks_exact(3 * self.width as usize)
    }

    /// Left and right exchanged.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let mut samples = Vec::with_capacity(self.samples.len());
        for row in self.rows() {
            for pixel in row.as_chunks::<3>().0.iter().rev() {
                samples.extend_from_slice(pixel);
            }
        }
        Self { samples, ..*self }
    }

    /// Memory for an image that is yet to come.
    pub(super) const fn none() -> Self {
        Self {
            width: 0,
            height: 0,
            samples: Vec::new(),
        }
    }

    /// Gives up the pixels, and keeps their memory.
    pub(super) fn clear(&mut self) {
        (self.width, self.height) = (0, 0);
        self.samples.clear();
    }
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: u32, height: u32) -> RgbImage {
        let samples = (0..3 * width * height).map(|i| i as u8).collect();
        RgbImage::new(width, height, samples).unwrap()
    }

    #[test]
    fn an_image_needs_pixels_and_exactly_as_many_as_it_says() {
        assert!(RgbImage::new(2, 2, vec![0; 12]).is_some());
        assert!(RgbImage::new(2, 2, vec![0; 11]).is_none());
        assert!(RgbImage::new(0, 2, vec![]).is_none());
        assert!(RgbImage::new(u32::MAX, u32::MAX, vec![0; 3]).is_none());
    }

    #[test]
    fn mirroring_moves_a_pixel_to_the_other_side_of_its_row() {
        let image = numbered(3, 2);
        let mirrored = image.mirrored();
        assert_eq!(mirrored.pixel(0, 1), image.pixel(2, 1));
        assert_eq!(mirrored.pixel(1, 0), image.pixel(1, 0));
        assert_eq!(mirrored.mirrored(), image);
    }
}
