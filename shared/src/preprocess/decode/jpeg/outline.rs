//! What the markers of a JPEG file say, from its start to its end.

#![expect(clippy::big_endian_bytes, reason = "the format says so")]

use crate::preprocess::decode::exif::Orientation;
use crate::preprocess::decode::{DecodeError, Format};

/// What the markers of a file say, from its start to its end.
pub(super) struct Outline {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
}

impl Outline {
    /// Walks over all markers up to the end of the image.
    ///
    /// The decoder fills up what a cut file lacks with gray in some cases, so the end
    /// marker is demanded here. Bytes after it are allowed: phones append films.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut markers = Markers { bytes, at: 2 };
        let mut size = None;
        let mut orientation = None;
        let mut in_header = true;
        while let Some(marker) = markers.next_marker() {
            match marker {
                END => {
                    let (width, height) = size.ok_or_else(|| {
                        DecodeError::damaged(Format::Jpeg, "there is no frame header")
                    })?;
                    return Ok(Self {
                        width,
                        height,
                        orientation: orientation.unwrap_or(Orientation::UPRIGHT),
                    });
                }
                // Restart markers and fillers have no length.
                0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let Some(segment) = markers.next_segment() else {
                break;
            };
            match marker {
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    check_kind(marker, segment)?;
                    let another = size.replace(frame_size(segment)?);
                    if another.is_some() {
                        return Err(DecodeError::damaged(
                            Format::Jpeg,
                            "there is more than one frame header",
                        ));
                    }
                }
                0xe1 if in_header && segment.starts_with(b"Exif\0\0") => {
                    orientation.get_or_insert_with(|| Orientation::of_exif(segment));
                }
                SCAN => in_header = false,
                _ => {}
            }
        }
        Err(DecodeError::Truncated {
            format: Format::Jpeg,
            missing: "end marker",
        })
    }
}

const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Refuses the kinds of JPEG that nobody stores photographs in.
fn check_kind(marker: u8, frame: &[u8]) -> Result<(), DecodeError> {
    let what = match (marker, frame) {
        (0xc3 | 0xc5..=0xc7, _) => "a lossless or hierarchical image",
        (0xc9.., _) => "arithmetic coding",
        (_, [precision, ..]) if *precision != 8 => "samples of other than 8 bits",
        (_, [_, _, _, _, _, channels, ..]) if !matches!(channels, 1 | 3 | 4) => {
            "other than 1, 3 or 4 channels"
        }
        _ => return Ok(()),
    };
    Err(DecodeError::Unsupported {
        format: Format::Jpeg,
        what,
    })
}

fn frame_size(segment: &[u8]) -> Result<(u32, u32), DecodeError> {
    match *segment {
        [_precision, h0, h1, w0, w1, ..] => Ok((
            u32::from(u16::from_be_bytes([w0, w1])),
            u32::from(u16::from_be_bytes([h0, h1])),
        )),
        _ => Err(DecodeError::damaged(
            Format::Jpeg,
            "the frame header is too short",
        )),
    }
}

struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Markers<'a> {
    /// The next marker, over entropy-coded bytes if there are any.
    fn next_marker(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|&byte| byte == 0xff)? + 1;
            match *self.bytes.get(self.at)? {
                // A stuffed byte of data, or the filler before a marker.
                0x00 | 0xff => {}
                marker => {
                    self.at += 1;
                    return Some(marker);
                }
            }
        }
    }

    /// The body of the segment that begins here.
    fn next_segment(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let len = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let body = rest.get(2..len)?;
        self.at += len;
        Some(body)
    }
}
