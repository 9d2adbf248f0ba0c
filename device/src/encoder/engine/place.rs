//! Where a value of the network lies in memory.

/// A map of `height` x `width` pixels, each of `channels` values at distances of `stride`
/// values; a vector is a map of one pixel. Pixels are filled up to whole lanes with values
/// that mean nothing. A map that is stored in bytes is measured in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Values before it.
    pub(super) at: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) stride: usize,
}

impl Place {
    pub(super) fn n_pixels(self) -> usize {
        self.height * self.width
    }
}
