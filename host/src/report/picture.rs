//! Small pictures that lie inside the report.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eyas_shared::preprocess::{Filter, RgbImage, SourceBox, resize};
use thiserror::Error;

/// Longer side in pixels: twice what is shown, for dense screens and paper.
const LONGER_SIDE: u32 = 224;

/// JPEG quality: below 75 labels on packages become unreadable.
const QUALITY: u8 = 78;

/// A picture could not be written.
#[derive(Debug, Error)]
#[error("a thumbnail can not be written: {0}")]
pub struct PictureError(#[from] jpeg_encoder::EncodingError);

/// A small JPEG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    jpeg: Vec<u8>,
    width: u32,
    height: u32,
}

impl Thumbnail {
    /// The whole image, reduced until its longer side has 224 pixels; smaller ones are kept
    /// as they are.
    ///
    /// # Errors
    /// If the encoder refuses.
    pub fn of(image: &RgbImage) -> Result<Self, PictureError> {
        Self::of_side(image, LONGER_SIDE)
    }

    /// [`of`](Self::of) with another longer side, of 1 to 65535 pixels.
    ///
    /// # Errors
    /// If the encoder refuses.
    pub fn of_side(image: &RgbImage, longer_side: u32) -> Result<Self, PictureError> {
        let longer = image.width.max(image.height);
        let side = |side: u32| {
            let reduced = u64::from(side) * u64::from(longer_side.min(longer)) / u64::from(longer);
            (reduced as u32).max(1)
        };
        let (width, height) = (side(image.width), side(image.height));
        let reduced = resize(
            image,
            SourceBox::whole(image),
            width,
            height,
            Filter::Bilinear,
        );
        let mut jpeg = Vec::new();
        jpeg_encoder::Encoder::new(&mut jpeg, QUALITY).encode(
            &reduced.samples,
            width as u16,
            height as u16,
            jpeg_encoder::ColorType::Rgb,
        )?;
        Ok(Self {
            jpeg,
            width,
            height,
        })
    }

    /// The file's content.
    #[must_use]
    pub fn into_jpeg(self) -> Vec<u8> {
        self.jpeg
    }

    /// An `img` element; `description` must be escaped already.
    pub(super) fn to_html(&self, description: &str) -> String {
        format!(
            r#"<img src="data:image/jpeg;base64,{}" width="{}" height="{}" alt="{description}">"#,
            STANDARD.encode(&self.jpeg),
            self.width,
            self.height,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::preprocess::{Limits, decode};

    #[test]
    fn thumbnails_keep_the_shape_and_small_images_their_size() {
        for (width, height, expected) in [
            (900, 450, (224, 112)),
            (450, 900, (112, 224)),
            (50, 40, (50, 40)),
            (3000, 2, (224, 1)),
        ] {
            let samples = vec![128; (width * height * 3) as usize];
            let image = RgbImage {
                width,
                height,
                samples,
            };
            let thumbnail = Thumbnail::of(&image).unwrap();
            let decoded = decode(&thumbnail.jpeg, &Limits::DEFAULT).unwrap();
            assert_eq!((decoded.width, decoded.height), expected);
        }
    }
}
