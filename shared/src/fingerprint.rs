//! Names for content: SHA-256 over labelled, length-prefixed fields.
//!
//! A [`Fingerprint`] of a plain file equals what `sha256sum` prints. A fingerprint of
//! several things is taken through [`Fingerprinter`], which no two different lists of
//! fields can bring to the same input.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 of some content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// SHA-256 of the bytes as they are.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 16 hexadecimal digits: enough to tell apart by eye.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..16].to_owned()
    }

    /// Reads the 64 hexadecimal digits that [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        bytes_of_hex(text).map(Self)
    }
}

fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Takes the [`Fingerprint`] of content that comes in pieces: that of all of them joined,
/// wherever it was cut.
#[derive(Clone, Default)]
pub struct ContentHasher(Sha256);

impl ContentHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The fingerprint of all bytes so far.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

/// Collects labelled fields into one [`Fingerprint`].
pub struct Fingerprinter(Sha256);

impl Fingerprinter {
    /// Starts a fingerprint of one kind of thing; `purpose` keeps the kinds apart.
    #[must_use]
    pub fn new(purpose: &str) -> Self {
        Self(Sha256::new()).field("purpose", purpose.as_bytes())
    }

    /// Adds one field. Order matters.
    #[must_use]
    pub fn field(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The fingerprint of all fields so far.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

/// Names the space that embeddings live in.
///
/// Scores between embeddings of two spaces look plausible and mean nothing, so
/// everything that holds embeddings carries its space, and a mismatch is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SpaceId(pub Fingerprint);

impl SpaceId {
    /// The space of a teacher: `weights` and `preprocess` name its networks and the
    /// pixels they read, `projection` the map (such as PCA with whitening) behind them.
    #[must_use]
    pub fn of_teacher(
        weights: Fingerprint,
        preprocess: Fingerprint,
        projection: Fingerprint,
        dim: u32,
    ) -> Self {
        Self(
            Fingerprinter::new("eyas space")
                .field("weights", &weights.0)
                .field("preprocess", &preprocess.0)
                .field("projection", &projection.0)
                .field("dim", &dim.to_le_bytes())
                .field("metric", b"cosine")
                .finish(),
        )
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.short())
    }
}

/// Names an image by its content: the first 16 bytes of the SHA-256 of its file.
///
/// Evaluation leaves out the query itself by this identity, never by position, and ties
/// in a ranking go to the smaller id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageId(pub [u8; 16]);

impl ImageId {
    /// The id of an image file with these bytes.
    #[must_use]
    pub fn of_file(bytes: &[u8]) -> Self {
        let digest = Fingerprint::of_bytes(bytes).0;
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// Reads the 32 hexadecimal digits that [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        bytes_of_hex(text).map(Self)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_fingerprint_is_what_sha256sum_prints() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            Fingerprint::of_bytes(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn content_in_pieces_has_the_fingerprint_of_the_whole() {
        let mut hasher = ContentHasher::new();
        for piece in [&b"a"[..], b"", b"bc"] {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish(), Fingerprint::of_bytes(b"abc"));
    }

    #[test]
    fn fields_can_not_run_into_each_other() {
        let print = |a: &str, b: &str| {
            Fingerprinter::new("test")
                .field(a, b"x")
                .field(b, b"y")
                .finish()
        };
        assert_ne!(print("ab", "c"), print("a", "bc"));
        assert_ne!(
            Fingerprinter::new("test").field("a", b"").finish(),
            Fingerprinter::new("test").finish()
        );
    }

    #[test]
    fn hexadecimal_comes_back() {
        let print = Fingerprint::of_bytes(b"eyas");
        assert_eq!(Fingerprint::from_hex(&print.to_string()), Some(print));
        assert_eq!(Fingerprint::from_hex("é"), None);
        assert_eq!(Fingerprint::from_hex(&"x".repeat(64)), None);
    }
}
