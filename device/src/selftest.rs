//! Whether this machine computes what the host verified: the same pixels to the bit, and
//! the same embeddings within the bundle's tolerance.
//!
//! The host writes a bundle's probes with the functions here, so both sides mean the same
//! by them.

use eyas_shared::bundle::{Bundle, probe_image};
use eyas_shared::embedding::dot;
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::preprocess::{Pixels, PreprocessSpec, prepare};
use eyas_shared::quant::f32_bytes;

use crate::encoder::{EncodeError, Encoder};

/// Most probes that are computed: more would only cost time.
pub const MAX_PROBES: usize = 1024;

/// The first `n` probe images as a network reads them.
///
/// # Panics
/// If the spec has a [fault](PreprocessSpec::fault).
pub fn probe_pixels(spec: &PreprocessSpec, n: usize) -> impl Iterator<Item = Pixels> {
    (0..n as u32).map(|index| prepare(&probe_image(index), spec))
}

/// Names the pixels of several probes: SHA-256 over all values as little-endian f32.
#[must_use]
pub fn probe_fingerprint(probes: &[Pixels]) -> Fingerprint {
    let bytes: Vec<u8> = probes
        .iter()
        .flat_map(|pixels| f32_bytes(&pixels.values_chw))
        .collect();
    Fingerprint::of_bytes(&bytes)
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
        let probes: Vec<Pixels> = probe_pixels(self.preprocess(), expected.n_rows()).collect();
        let cosines = probes
            .iter()
            .zip(expected.rows())
            .map(|(pixels, expected)| Ok(dot(&self.encode(pixels)?, expected)))
            .collect::<Result<_, EncodeError>>()?;
        Ok(SelfTest {
            same_pixels: probe_fingerprint(&probes) == bundle.header.probe_pixels,
            cosines,
            tolerance: bundle.header.verification.tolerance,
        })
    }
}
