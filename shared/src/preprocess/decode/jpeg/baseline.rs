//! Plain baseline JPEG, the kind that cameras and shops write: one scan, Huffman code, gray,
//! YCbCr or RGB, chroma of full or half the resolution.
//!
//! Gives the samples of the general decoder to the bit, in less time and in memory that is
//! used again. Deliberately not a second opinion on damaged files: anything that a
//! well-made file does not hold gives `None`, and the general decoder has the word.
//!
//! Everything is computed with whole numbers, by the same source for every CPU; but for the
//! inverse transform, whose AVX2 form a test holds against the plain one.

use super::color::{Painter, Plane};
use super::header::{Channel, Header};
use super::huffman::{Bits, Table};
use super::idct;
use crate::preprocess::RgbImage;
use crate::preprocess::decode::exif::Orientation;

/// Memory of a decoder that is used for many files.
pub(super) struct Baseline {
    /// Whether this CPU has AVX2 and BMI2; read on x86-64 alone.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) has_vectors: bool,
    /// The bytes of the scan without stuffing, and [`READ_AHEAD`] more.
    entropy: Vec<u8>,
    /// Where the parts between restart markers end in `entropy`.
    ends: Vec<usize>,
    dc: [Table; 4],
    ac: [Table; 4],
    planes: [Plane; 3],
    painter: Painter,
}

/// How far the reader of bits looks ahead.
const READ_AHEAD: usize = 16;

impl Default for Baseline {
    fn default() -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_vectors = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
        #[cfg(not(target_arch = "x86_64"))]
        let has_vectors = false;
        Self {
            has_vectors,
            entropy: Vec::new(),
            ends: Vec::new(),
            dc: Default::default(),
            ac: Default::default(),
            planes: Default::default(),
            painter: Painter::default(),
        }
    }
}

impl Baseline {
    /// Decodes a file into `image`, as it is stored; the orientation is yet to be applied.
    /// After `None` the content of `image` means nothing.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        max_pixels: u64,
        image: &mut RgbImage,
    ) -> Option<Orientation> {
        let header = Header::read(bytes)?;
        if (header.width * header.height) as u64 > max_pixels {
            return None;
        }
        self.unstuff(&bytes[header.scan..])?;
        self.set_tables(&header)?;
        let layout = Layout::of(&header);
        for (plane, channel) in self.planes.iter_mut().zip(header.channels()) {
            plane.stride = 8 * layout.across * channel.across;
            plane.rows = 8 * layout.down * channel.down;
            plane.samples.resize(plane.stride * plane.rows, 0);
        }
        image.width = header.width as u32;
        image.height = header.height as u32;
        image.samples.resize(3 * header.width * header.height, 0);
        self.decode_scan(&header, &layout, &mut image.samples)?;
        Some(header.orientation())
    }

    /// Copies the bytes of the scan up to the end marker, without what is stuffed between
    /// them.
    fn unstuff(&mut self, scan: &[u8]) -> Option<()> {
        self.entropy.clear();
        self.entropy.reserve(scan.len() + READ_AHEAD);
        self.ends.clear();
        let mut rest = scan;
        loop {
            let (data, marked) = rest.split_at(first_marker(rest));
            self.entropy.extend_from_slice(data);
            let [_, marker, behind @ ..] = marked else {
                return None;
            };
            let next_restart = 0xd0 + (self.ends.len() % 8) as u8;
            match *marker {
                0 => self.entropy.push(0xff),
                0xd9 => {
                    self.ends.push(self.entropy.len());
                    self.entropy.extend_from_slice(&[0; READ_AHEAD]);
                    return Some(());
                }
                marker if marker == next_restart => self.ends.push(self.entropy.len()),
                _ => return None,
            }
            rest = behind;
        }
    }

    fn set_tables(&mut self, header: &Header) -> Option<()> {
        for channel in header.channels() {
            let spec = header.dc.get(channel.dc)?.as_ref()?;
            self.dc[channel.dc].set(spec)?;
            let spec = header.ac.get(channel.ac)?.as_ref()?;
            self.ac[channel.ac].set(spec)?;
        }
        Some(())
    }

    fn decode_scan(&mut self, header: &Header, layout: &Layout, rgb: &mut [u8]) -> Option<()> {
        #[cfg(target_arch = "x86_64")]
        if self.has_vectors {
            // SAFETY: the features were found when `self` was made.
            return unsafe { self.decode_scan_avx2(header, layout, rgb) };
        }
        self.decode_scan_by(header, layout, rgb, idct::plain)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi2")]
    fn decode_scan_avx2(&mut self, header: &Header, layout: &Layout, rgb: &mut [u8]) -> Option<()> {
        self.decode_scan_by(header, layout, rgb, |block, len| idct::avx2(block, len))
    }

    /// The whole way from bits to pixels, to be compiled for the features of its caller.
    #[inline(always)]
    fn decode_scan_by(
        &mut self,
        header: &Header,
        layout: &Layout,
        rgb: &mut [u8],
        transform: impl Fn(&[i32; 64], usize) -> [[u8; 8]; 8],
    ) -> Option<()> {
        let mut parts = Parts {
            ends: &self.ends,
            // A scan without restart markers is one part.
            mcus_per_part: match header.restart {
                0 => layout.across * layout.down,
                mcus => mcus,
            },
            begun: 0,
            left: 0,
        };
        let mut bits = Bits::new(&self.entropy, 0);
        let mut last_dc = [0; 3];
        let mut coefficients = [0; 64];
        let steps = header.steps_of_channels()?;
        let colors = header.colors();
        let mut done = 0;
        for mcu_row in 0..layout.down {
            for mcu_column in 0..layout.across {
                if parts.left == 0 {
                    bits = parts.begin(&bits, &self.entropy)?;
                    last_dc = [0; 3];
                }
                parts.left -= 1;
                let channels = header.channels().iter().zip(&mut self.planes);
                for (i, (channel, plane)) in channels.enumerate() {
                    let (dc, ac) = (&self.dc[channel.dc & 3], &self.ac[channel.ac & 3]);
                    for block in 0..channel.across * channel.down {
                        let (y, x) = (block / channel.across, block % channel.across);
                        let y = 8 * (mcu_row * channel.down + y);
                        let x = 8 * (mcu_column * channel.across + x);
                        let len =
                            bits.block(dc, ac, &steps[i], &mut coefficients, &mut last_dc[i])?;
                        let samples = if len == 1 {
                            [[idct::flat(coefficients[0]); 8]; 8]
                        } else {
                            transform(&coefficients, len)
                        };
                        coefficients = [0; 64];
                        let rows = plane.samples[y * plane.stride + x..].chunks_mut(plane.stride);
                        for (row, samples) in rows.zip(samples) {
                            row[..8].copy_from_slice(&samples);
                        }
                    }
                }
            }
            // The last row is interpolated with the row below, which comes later.
            let ready = match mcu_row + 1 == layout.down {
                true => header.height,
                false => 8 * (mcu_row + 1) * layout.finest.1 - (layout.finest.1 - 1),
            };
            let rows = rgb.chunks_exact_mut(3 * header.width).enumerate();
            for (y, row) in rows.take(ready).skip(done) {
                self.painter
                    .paint(&self.planes, colors, layout.finest, y, row);
            }
            done = ready;
        }
        parts.are_used_up(&bits).then_some(())
    }
}

/// How many bytes come before the first `FF`.
fn first_marker(bytes: &[u8]) -> usize {
    const LANES: usize = 32;
    let chunks = bytes.as_chunks::<LANES>().0;
    let is_marked =
        |chunk: &[u8; LANES]| chunk.iter().fold(false, |any, byte| any | (*byte == 0xff));
    let clean = LANES * chunks.iter().take_while(|chunk| !is_marked(chunk)).count();
    let found = bytes[clean..].iter().position(|byte| *byte == 0xff);
    found.map_or(bytes.len(), |found| clean + found)
}

/// How many MCUs there are, and how many blocks the finest channel has in one.
struct Layout {
    across: usize,
    down: usize,
    /// Across and down.
    finest: (usize, usize),
}

impl Layout {
    fn of(header: &Header) -> Self {
        let Channel { across, down, .. } = header.channels()[0];
        Self {
            across: header.width.div_ceil(8 * across),
            down: header.height.div_ceil(8 * down),
            finest: (across, down),
        }
    }
}

/// The parts of a scan between restart markers.
struct Parts<'a> {
    ends: &'a [usize],
    mcus_per_part: usize,
    /// How many parts were begun.
    begun: usize,
    /// MCUs that are still to come in this part.
    left: usize,
}

impl Parts<'_> {
    /// A reader of the next part.
    #[cold]
    fn begin<'b>(&mut self, last: &Bits<'_>, entropy: &'b [u8]) -> Option<Bits<'b>> {
        let start = match self.begun.checked_sub(1) {
            None => 0,
            Some(last_idx) => {
                self.is_used_up(last).then_some(())?;
                self.ends[last_idx]
            }
        };
        if self.begun == self.ends.len() {
            return None;
        }
        self.begun += 1;
        self.left = self.mcus_per_part;
        Some(Bits::new(entropy, start))
    }

    /// Whether the current part was read to its last byte, and not further.
    fn is_used_up(&self, bits: &Bits<'_>) -> bool {
        self.ends[self.begun - 1] == bits.position().div_ceil(8)
    }

    fn are_used_up(&self, bits: &Bits<'_>) -> bool {
        self.begun == self.ends.len() && self.is_used_up(bits)
    }
}
