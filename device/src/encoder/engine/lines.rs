//! f32 values in memory that begins at a cache line.

use super::lanes::LANES;

/// Bytes of a cache line, and of the widest registers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// So many values, a multiple of [`LANES`], the first at a multiple of 64 bytes.
#[derive(Clone, Debug)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// At least `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self(vec![Line([0.0; LANES]); len.div_ceil(LANES)])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len() * LANES
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        // A line is its values: no padding, no other alignment between them.
        self.0.as_flattened_values()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        self.0.as_flattened_values_mut()
    }

    /// The same memory as bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        let values = self.as_slice();
        // SAFETY: an f32 is four bytes, and every byte may be read as one.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }

    /// The same memory as bytes.
    pub(super) fn as_mut_bytes(&mut self) -> &mut [u8] {
        let values = self.as_mut_slice();
        // SAFETY: as above, and every four bytes are an f32.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
    }
}

trait Flattened {
    fn as_flattened_values(&self) -> &[f32];
    fn as_flattened_values_mut(&mut self) -> &mut [f32];
}

impl Flattened for Vec<Line> {
    fn as_flattened_values(&self) -> &[f32] {
        let len = self.len() * LANES;
        // SAFETY: `repr(C)` lays a line's sixteen values one after the other, and 64 bytes
        // are just what they take, so lines in a row are values in a row.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), len) }
    }

    fn as_flattened_values_mut(&mut self) -> &mut [f32] {
        let len = self.len() * LANES;
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), len) }
    }
}
