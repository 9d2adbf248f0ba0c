//! The segments before the picture of a plain baseline JPEG: one frame, one scan.
//!
//! Deliberately narrow: whatever is unusual here gives `None`, and the general decoder
//! looks at the file. What is read here means the same to both.

#![expect(clippy::big_endian_bytes, reason = "the format says so")]

use crate::preprocess::decode::exif::Orientation;

/// A Huffman table as a file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HuffmanSpec {
    /// How many codes there are of 1, 2, ... 16 bits.
    pub(super) counts: [u8; 16],
    /// The symbols, in the order of their codes.
    pub(super) values: [u8; 256],
}

impl Default for HuffmanSpec {
    fn default() -> Self {
        Self {
            counts: [0; 16],
            values: [0; 256],
        }
    }
}

/// One of the channels, as the frame and the scan describe it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Channel {
    id: u8,
    /// Samples per sample of the coarsest channel, across and down.
    pub(super) across: usize,
    pub(super) down: usize,
    /// Indices of tables.
    pub(super) steps: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// How the channels of a picture are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    Gray,
    Rgb,
    YCbCr,
}

/// What stands before the entropy-coded bytes.
#[derive(Default)]
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    channels: [Channel; 3],
    channel_count: usize,
    /// Quantization steps, in the order of the file.
    pub(super) steps: [Option<[i32; 64]>; 4],
    pub(super) dc: [Option<HuffmanSpec>; 4],
    pub(super) ac: [Option<HuffmanSpec>; 4],
    /// MCUs between two restart markers; 0 if there are none.
    pub(super) restart: usize,
    /// The last byte of the Adobe segment.
    adobe: Option<u8>,
    orientation: Option<Orientation>,
    /// Where the entropy-coded bytes begin.
    pub(super) scan: usize,
}

const EXTENDED_XMP: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";

impl Header {
    /// Reads the segments up to the first scan. `None` if anything is unusual.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut header = Self::default();
        let mut at = 2;
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return None;
        }
        loop {
            let [0xff, marker, high, low] = *bytes.get(at..)?.first_chunk()? else {
                return None;
            };
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            let segment = bytes.get(at + 4..end)?;
            match marker {
                0xc0 | 0xc1 => header.read_frame(segment)?,
                0xc4 => header.read_huffman(segment)?,
                0xda => {
                    header.read_scan(segment)?;
                    header.scan = end;
                    return Some(header);
                }
                0xdb => header.read_steps(segment)?,
                0xdd => header.restart = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
                0xe0 if segment.len() < 5 => return None,
                0xe1 if segment.starts_with(EXTENDED_XMP) => return None,
                0xe1 if segment.starts_with(b"Exif\0\0") => {
                    header
                        .orientation
                        .get_or_insert_with(|| Orientation::of_exif(segment));
                }
                0xee => header.read_adobe(segment)?,
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
            at = end;
        }
    }

    pub(super) fn channels(&self) -> &[Channel] {
        &self.channels[..self.channel_count]
    }

    /// The quantization steps of every channel.
    pub(super) fn steps_of_channels(&self) -> Option<[[i32; 64]; 3]> {
        let mut found = [[0; 64]; 3];
        for (found, channel) in found.iter_mut().zip(self.channels()) {
            *found = (*self.steps.get(channel.steps)?)?;
        }
        Some(found)
    }

    pub(super) fn orientation(&self) -> Orientation {
        self.orientation.unwrap_or(Orientation::UPRIGHT)
    }

    pub(super) fn colors(&self) -> Colors {
        let has_letters = || self.channels.map(|channel| channel.id) == *b"RGB";
        if self.channel_count == 1 {
            Colors::Gray
        } else if self.adobe == Some(0) || has_letters() {
            Colors::Rgb
        } else {
            Colors::YCbCr
        }
    }

    fn read_frame(&mut self, segment: &[u8]) -> Option<()> {
        let [8, h0, h1, w0, w1, count, ref channels @ ..] = *segment else {
            return None;
        };
        let is_second = self.channel_count != 0;
        self.channel_count = usize::from(count);
        let (channels, []) = channels.as_chunks::<3>() else {
            return None;
        };
        if is_second || !matches!(count, 1 | 3) || channels.len() != self.channel_count {
            return None;
        }
        self.height = usize::from(u16::from_be_bytes([h0, h1]));
        self.width = usize::from(u16::from_be_bytes([w0, w1]));
        for (channel, [id, factors, steps]) in self.channels.iter_mut().zip(channels) {
            *channel = Channel {
                id: *id,
                across: usize::from(factors >> 4),
                down: usize::from(factors & 15),
                steps: usize::from(*steps),
                ..Channel::default()
            };
        }
        let factors = |channel: &Channel| (channel.across, channel.down);
        let [first, rest @ ..] = self.channels() else {
            return None;
        };
        let finest = if count == 1 { 1 } else { 2 };
        let is_usual = (1..=finest).contains(&first.across)
            && (1..=finest).contains(&first.down)
            && rest.iter().all(|channel| factors(channel) == (1, 1))
            && self.width != 0
            && self.height != 0;
        is_usual.then_some(())
    }

    fn read_huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [class_and_index, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let mut spec = HuffmanSpec {
                counts: *counts,
                ..HuffmanSpec::default()
            };
            spec.values.get_mut(..total)?.copy_from_slice(symbols);
            let tables = match class_and_index >> 4 {
                0 if symbols.iter().all(|symbol| *symbol <= 15) => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(class_and_index & 15))? = (total > 0).then_some(spec);
            segment = rest;
        }
        Some(())
    }

    fn read_steps(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [precision_and_index, rest @ ..] = segment {
            let mut steps = [0; 64];
            segment = match precision_and_index >> 4 {
                0 => {
                    let (bytes, rest) = rest.split_first_chunk::<64>()?;
                    steps = bytes.map(i32::from);
                    rest
                }
                1 => {
                    let (bytes, rest) = rest.split_first_chunk::<128>()?;
                    for (step, pair) in steps.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *step = i32::from(u16::from_be_bytes(*pair));
                    }
                    rest
                }
                _ => return None,
            };
            *self.steps.get_mut(usize::from(precision_and_index & 15))? = Some(steps);
        }
        Some(())
    }

    fn read_adobe(&mut self, segment: &[u8]) -> Option<()> {
        // The segment changes its meaning with the number of channels.
        if self.channel_count == 1 || segment.len() < 12 {
            return None;
        }
        if segment.starts_with(b"Adobe") {
            self.adobe = Some(segment[11]);
        }
        (self.adobe.unwrap_or(1) <= 2).then_some(())
    }

    fn read_scan(&mut self, segment: &[u8]) -> Option<()> {
        let count = self.channel_count;
        let (head, rest) = segment.split_first()?;
        let (tables, []) = rest.get(..2 * count)?.as_chunks::<2>() else {
            return None;
        };
        if count == 0 || usize::from(*head) != count || rest[2 * count..] != [0, 63, 0] {
            return None;
        }
        let channels = &mut self.channels[..count];
        for (channel, [id, indices]) in channels.iter_mut().zip(tables) {
            if channel.id != *id {
                return None;
            }
            channel.dc = usize::from(indices >> 4);
            channel.ac = usize::from(indices & 15);
        }
        let [a, b, c] = self.channels.map(|channel| channel.id);
        (count == 1 || (a != b && b != c && a != c)).then_some(())
    }
}
