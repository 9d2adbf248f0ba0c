//! Whether this machine computes what the host verified: the same pixels to the bit, and
//! the same embeddings within the bundle's tolerance.
//!
//! The host writes a bundle's probes with the functions here, so both sides mean the same
//! by them.

use eyas_shared::bundle::{Bundle, probe_image};
use eyas_shared::embedding::dot;
use eyas_shared::fingerprint::{ContentHasher, Fingerprint};
use eyas_shared::preprocess::{Pixels, PreprocessSpec, prepare};
use eyas_shared::quant::f32_bytes;

use crate::encoder::{EncodeError, Encoder};

/// Most probes that are computed: more would only cost time.
pub const MAX_PROBES: usize = 1024;

/// The first `n` probe images as a network reads them, each made when it is asked for.
///
/// # Panics
/// If the spec has a [fault](PreprocessSpec::fault).
pub fn probe_pixels(spec: &PreprocessSpec, n: usize) -> impl Iterator<Item = Pixels> {
    (0..n as u32).map(|index| prepare(&probe_image(index), spec))
}

/// Names the pixels of several probes, which need not be in memory together: SHA-256 over
/// all values as little-endian f32.
#[derive(Clone, Default)]
pub struct ProbeHasher(ContentHasher);

impl ProbeHasher {
    /// Values that are turned into bytes at a time.
    const PIECE: usize = 1 << 14;

    /// A hasher that has seen no probe.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next probe.
    pub fn update(&mut self, pixels: &Pixels) {
        for values in pixels.values_chw.chunks(Self::PIECE) {
            self.0.update(&f32_bytes(values));
        }
    }

    /// The fingerprint of all probes so far, as a bundle's header holds it.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        self.0.finish()
    }
}

/// What a self-test found.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTest {
    /// Whether all probe pixels have the bits that the bundle names.
    pub same_pixels: bool,
    /// Per probe: cosine between the embedding in the bundle and the one computed here.
    pub cosines: Vec<f32>,
    /// Smallest cosine that the bundle allows.
    pub tolerance: f32,
}

impl SelfTest {
    /// Whether this machine reproduces the bundle.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.same_pixels && self.cosines.iter().all(|cosine| *cosine >= self.tolerance)
    }

    /// Smallest cosine of all probes.
    #[must_use]
    pub fn min_cosine(&self) -> f32 {
        self.cosines.iter().copied().fold(f32::INFINITY, f32::min)
    }
}

impl Encoder {
    /// Computes the probes of the bundle that this encoder was loaded from.
    ///
    /// # Errors
    /// If a probe can not be encoded, or the bundle has other embeddings or more than
    /// [`MAX_PROBES`].
    pub fn selftest(&self, bundle: &Bundle<'_>) -> Result<SelfTest, EncodeError> {
        let expected = &bundle.probe_embeddings;
        if expected.dim() != self.dim() {
            return Err(EncodeError::OtherDim {
                expected: expected.dim(),
                found: self.dim(),
            });
        }
        if expected.n_rows() > MAX_PROBES {
            return Err(EncodeError::TooManyProbes {
                found: expected.n_rows(),
            });
        }
        // One probe at a time: a damaged or hostile bundle may ask for many large ones.
        let mut hasher = ProbeHasher::new();
        let mut cosines = Vec::with_capacity(expected.n_rows());
        let probes = probe_pixels(self.preprocess(), expected.n_rows());
        for (pixels, expected) in probes.zip(expected.rows()) {
            hasher.update(&pixels);
            cosines.push(dot(&self.encode(&pixels)?, expected));
        }
        Ok(SelfTest {
            same_pixels: hasher.finish() == bundle.header.probe_pixels,
            cosines,
            tolerance: bundle.header.verification.tolerance,
        })
    }
}
