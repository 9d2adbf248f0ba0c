//! Images that the host sends to be asked about: in memory, one on its way and a few whole.

use std::collections::VecDeque;

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::bench::MAX_WINDOW_IMAGES;
use eyas_shared::link::message::FileId;

/// Whole images that are kept, so that they can be asked about again, as in measurements.
const MAX_IMAGES: usize = MAX_WINDOW_IMAGES;

/// Bytes of all of them together.
const MAX_BYTES: usize = 32 << 20;

/// Largest image that is taken over a link.
pub(super) const MAX_IMAGE_BYTES: u64 = 16 << 20;

/// The images of a board.
#[derive(Default)]
pub(super) struct Images {
    whole: VecDeque<(Fingerprint, Vec<u8>)>,
    /// What has come of one image; kept when a link breaks.
    part: Option<(FileId, Vec<u8>)>,
}

impl Images {
    /// Begins or continues an image: the bytes of it that are there.
    pub(super) fn begin(&mut self, file: FileId) -> u64 {
        if self.get(file.fingerprint()).is_some() {
            return file.bytes;
        }
        match &self.part {
            Some((known, bytes)) if *known == file => bytes.len() as u64,
            _ => {
                self.part = Some((file, Vec::new()));
                0
            }
        }
    }

    /// Takes the next bytes; false if they leave a gap or are too many.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((file, bytes)) = &mut self.part else {
            return false;
        };
        let have = bytes.len() as u64;
        let fits = offset == have && have + data.len() as u64 <= file.bytes;
        if fits {
            bytes.extend_from_slice(data);
        }
        fits
    }

    /// Ends an image of which all bytes are there; false if it is another than was offered.
    pub(super) fn finish(&mut self, file: FileId) -> bool {
        if self.get(file.fingerprint()).is_some() {
            return true;
        }
        let Some((_, bytes)) = self.part.take_if(|(known, _)| *known == file) else {
            return false;
        };
        let is_right = Fingerprint::of_bytes(&bytes) == file.fingerprint();
        if is_right {
            let has_room = |images: &VecDeque<(Fingerprint, Vec<u8>)>| {
                let kept: usize = images.iter().map(|(_, bytes)| bytes.len()).sum();
                images.len() < MAX_IMAGES && kept + bytes.len() <= MAX_BYTES
            };
            while !self.whole.is_empty() && !has_room(&self.whole) {
                self.whole.pop_front();
            }
            self.whole.push_back((file.fingerprint(), bytes));
        }
        is_right
    }

    /// A whole image.
    pub(super) fn get(&self, hash: Fingerprint) -> Option<&[u8]> {
        let found = self.whole.iter().find(|(known, _)| *known == hash);
        found.map(|(_, bytes)| &bytes[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bytes: &[u8]) -> FileId {
        FileId {
            hash: Fingerprint::of_bytes(bytes).0,
            bytes: bytes.len() as u64,
        }
    }

    #[test]
    fn an_image_is_continued_and_checked_and_only_a_few_are_kept() {
        let mut images = Images::default();
        let file = id(b"photograph");
        assert_eq!(images.begin(file), 0);
        assert!(images.write(0, b"photo"));
        assert!(!images.write(9, b"gap"));
        assert!(!images.write(5, b"graph and more"));
        assert_eq!(images.begin(file), 5);
        assert!(images.write(5, b"graph"));
        assert!(images.finish(file));
        assert_eq!(images.begin(file), 10);
        assert_eq!(images.get(file.fingerprint()), Some(&b"photograph"[..]));

        let other = FileId {
            hash: [0; 32],
            bytes: 1,
        };
        images.begin(other);
        assert!(images.write(0, b"x"));
        assert!(!images.finish(other), "its hash is another");
        for number in 0..MAX_IMAGES as u64 {
            let image = number.to_le_bytes();
            images.begin(id(&image));
            images.write(0, &image);
            assert!(images.finish(id(&image)));
        }
        assert_eq!(images.get(file.fingerprint()), None);
    }

    #[test]
    fn images_take_no_more_memory_than_is_meant_for_them() {
        let mut images = Images::default();
        for byte in 0..4 {
            let image = vec![byte; 12 << 20];
            images.begin(id(&image));
            assert!(images.write(0, &image) && images.finish(id(&image)));
            let kept: usize = images.whole.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(kept <= MAX_BYTES);
            assert!(images.get(id(&image).fingerprint()).is_some());
        }
    }
}
