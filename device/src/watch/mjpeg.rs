//! Cuts a stream of JPEG images, one after the other, into images.
//!
//! The end of an image is found by walking its segments, as a decoder does: a thumbnail in
//! the metadata has markers of its own, which a search for bytes would take for the end. What
//! lies between images is skipped, and an image that breaks off or grows beyond the limit is
//! counted as damaged and left out.

/// Second bytes of the markers that matter (ITU T.81, table B.1).
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const TEM: u8 = 0x01;
const RST0: u8 = 0xd0;
const RST7: u8 = 0xd7;

/// What comes next in the image that is being collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing is collected: an image has to begin.
    Outside,
    /// A marker.
    Marker,
    /// Entropy-coded data, up to the next marker that is no restart.
    Scan,
}

/// An image that breaks within this many bytes is looked through for another one that begins
/// in it, as one does after a length that was cut; a longer one is dropped as a whole.
const LOOK_BACK_BYTES: usize = 1 << 17;

/// Collects bytes and gives whole images.
pub struct Splitter {
    max_bytes: usize,
    buffer: Vec<u8>,
    /// Where the image begins that is being collected.
    start: usize,
    /// Position that is looked at next; may lie behind the buffer's end.
    at: usize,
    place: Place,
    n_damaged: u64,
}

impl Splitter {
    /// Gives images of at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            buffer: Vec::new(),
            start: 0,
            at: 0,
            place: Place::Outside,
            n_damaged: 0,
        }
    }

    /// Images so far that were left out because they broke off or grew too large.
    #[must_use]
    pub fn n_damaged(&self) -> u64 {
        self.n_damaged
    }

    /// Bytes of an image that has begun and is not whole; 0 between two images.
    #[must_use]
    pub fn n_begun(&self) -> usize {
        match self.place {
            Place::Outside => 0,
            _ => self.buffer.len() - self.start,
        }
    }

    /// Takes the next bytes of the stream, and hands over every image that they complete.
    pub fn push(&mut self, bytes: &[u8], mut image: impl FnMut(Vec<u8>)) {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.find_end() {
            let whole = &self.buffer[self.start..end];
            if whole.len() <= self.max_bytes {
                image(whole.to_vec());
            } else {
                self.n_damaged += 1;
            }
            self.restart(end);
        }
        // Once for all images of the piece: moving the rest takes time.
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
        if self.buffer.len() > self.max_bytes {
            self.buffer.clear();
            self.n_damaged += 1;
            self.restart(0);
        }
    }

    /// Walks on; the position behind the image if it is whole.
    fn find_end(&mut self) -> Option<usize> {
        loop {
            match self.place {
                Place::Outside => self.find_start()?,
                Place::Marker => {
                    if let Some(end) = self.step()? {
                        return Some(end);
                    }
                }
                Place::Scan => self.skip_scan()?,
            }
        }
    }

    /// Looks for the next image from a position on.
    fn restart(&mut self, at: usize) {
        (self.start, self.at, self.place) = (at, at, Place::Outside);
    }

    /// What was collected is no image.
    fn give_up(&mut self) {
        self.n_damaged += 1;
        let is_near = self.at - self.start <= LOOK_BACK_BYTES;
        self.restart(if is_near { self.start + 2 } else { self.at });
    }

    fn find_start(&mut self) -> Option<()> {
        let rest = &self.buffer[self.start..];
        match rest.windows(2).position(|pair| pair == [0xff, SOI]) {
            Some(offset) => {
                self.start += offset;
                (self.at, self.place) = (self.start + 2, Place::Marker);
                Some(())
            }
            None => {
                // The marker may be cut in two.
                let kept = usize::from(rest.last() == Some(&0xff));
                self.restart(self.buffer.len() - kept);
                None
            }
        }
    }

    /// Passes one marker with its segment; nothing if its bytes are not there yet.
    fn step(&mut self) -> Option<Option<usize>> {
        let rest = self.buffer.get(self.at..)?;
        let (first, code) = (*rest.first()?, *rest.get(1)?);
        match (first, code) {
            // Filling.
            (0xff, 0xff) => self.at += 1,
            (0xff, EOI) => return Some(Some(self.at + 2)),
            (0xff, SOI) => {
                // The image broke off, and another one begins.
                self.n_damaged += 1;
                self.restart(self.at);
            }
            (0xff, TEM | RST0..=RST7) => self.at += 2,
            (0xff, 0x02..) => {
                let length = [*rest.get(2)?, *rest.get(3)?];
                let length = usize::from(length[0]) << 8 | usize::from(length[1]);
                if length < 2 {
                    self.give_up();
                    return Some(None);
                }
                self.at += 2 + length;
                if code == SOS {
                    self.place = Place::Scan;
                }
            }
            _ => self.give_up(),
        }
        Some(None)
    }

    /// Passes entropy-coded data; nothing if its end is not there yet.
    fn skip_scan(&mut self) -> Option<()> {
        let rest = self.buffer.get(self.at..)?;
        let is_marker =
            |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | RST0..=RST7);
        match rest.windows(2).position(is_marker) {
            Some(offset) => {
                self.at += offset;
                self.place = Place::Marker;
                Some(())
            }
            None => {
                self.at += rest.len().saturating_sub(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use eyas_shared::random::Random;
    use proptest::prelude::*;

    use super::*;

    const MAX_BYTES: usize = 1 << 17;

    /// An image in form only: a thumbnail with markers of its own, two scans, a restart,
    /// stuffed bytes and filling.
    fn image(name: u8) -> Vec<u8> {
        let thumbnail = [0xff, 0xd8, 0xff, 0xda, 0, 2, 7, 0xff, 0xd9];
        let mut bytes = vec![0xff, SOI, 0xff, 0xff, 0xe1, 0, 2 + thumbnail.len() as u8];
        bytes.extend(thumbnail);
        bytes.extend([0xff, SOS, 0, 3, name, 1, 0xff, 0x00, 2, 0xff, 0xd3, 3, 0xff]);
        bytes.extend([0xff, 0xc4, 0, 4, 9, 9, 0xff, SOS, 0, 2, 4, 4, 0xff, EOI]);
        bytes
    }

    fn split(stream: &[u8], pieces: &mut dyn FnMut() -> usize) -> (Vec<Vec<u8>>, u64) {
        let mut splitter = Splitter::new(MAX_BYTES);
        let mut found = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(pieces().clamp(1, rest.len()));
            splitter.push(now, |image| found.push(image));
            assert!(splitter.buffer.len() <= MAX_BYTES);
            rest = later;
        }
        (found, splitter.n_damaged())
    }

    #[test]
    fn images_come_out_whole_wherever_the_stream_is_cut() {
        let expected: Vec<Vec<u8>> = (0..5).map(image).collect();
        // Boundaries of a multipart stream may lie between.
        let stream: Vec<u8> = expected
            .iter()
            .flat_map(|i| [b"--x\r\n\r\n\xff", &i[..]].concat())
            .collect();
        for piece in 1..40 {
            assert_eq!(
                split(&stream, &mut || piece),
                (expected.clone(), 0),
                "{piece}"
            );
        }
    }

    #[test]
    fn an_image_that_breaks_off_costs_at_most_one_segment_more() {
        // A cut may leave a wrong length: the longest one hides this much of what follows.
        let later = image(3).repeat((1 << 16) / image(3).len() + 2);
        for n_bytes in 4..image(0).len() {
            let stream = [&image(1)[..], &image(2)[..n_bytes], &later, &image(4)].concat();
            let (found, n_damaged) = split(&stream, &mut || 1000);
            assert_eq!(found.first(), Some(&image(1)));
            assert_eq!(found.last(), Some(&image(4)), "cut after {n_bytes} bytes");
            assert!(n_damaged <= 2, "cut after {n_bytes} bytes");
        }
    }

    #[test]
    fn an_image_without_end_is_given_up_at_the_limit() {
        let mut stream = image(1);
        stream.extend([0xff, SOI, 0xff, SOS, 0, 2]);
        stream.extend(vec![7; 3 * MAX_BYTES]);
        stream.extend(image(2));
        let (found, n_damaged) = split(&stream, &mut || 1000);
        assert_eq!((found, n_damaged), (vec![image(1), image(2)], 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_the_same_in_any_pieces(
            noise in proptest::collection::vec(prop_oneof![Just(0xff_u8), Just(SOI), Just(EOI), any::<u8>()], 0..400),
            seed in any::<u64>(),
        ) {
            let stream = [&noise[..], &image(1), &noise, &image(2)].concat();
            let mut random = Random::new(seed);
            let whole = split(&stream, &mut || usize::MAX);
            prop_assert_eq!(split(&stream, &mut || 1 + random.below(9)), whole);
        }
    }
}
