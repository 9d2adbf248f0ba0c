//! Who vouches for a file: Ed25519 signatures in files beside it, as minisign writes them.
//!
//! A board that was set up with keys reads no byte of a bundle or gallery before the
//! signature over its content holds. The *trusted comment*, which is signed as well, carries
//! a counter, so that a file that was signed once can not be put back after a newer one.
//!
//! The format is minisign's because it is small, its tools are at hand on any machine, and
//! its verifier is one dependency without dependencies. Only its prehashed form is taken
//! (the default of its tools), because that one can be checked piece by piece.

use minisign_verify::{Error as MinisignError, PublicKey, Signature, StreamVerifier};
use thiserror::Error;

/// Largest text of a signature or key that is read.
pub const MAX_TEXT_BYTES: usize = 8 << 10;

/// What a file's name ends in when it holds the signature of the file without that ending.
pub const EXTENSION: &str = "minisig";

/// The word of the trusted comment before the counter.
const COUNTER: &str = "counter:";

/// Why a signature does not make a file trusted.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureError {
    /// Text that is no public key.
    #[error("this is no public key of minisign: {what}")]
    NoKey {
        /// Why.
        what: String,
    },
    /// Text that is no signature.
    #[error("this is no signature of minisign: {what}")]
    NoSignature {
        /// Why.
        what: String,
    },
    /// A signature by a key that is not trusted.
    #[error("the signature is by a key that is not among the {n_trusted} trusted ones")]
    UnknownKey {
        /// Keys that were tried.
        n_trusted: usize,
    },
    /// A signature of something else.
    #[error("the signature does not fit the file or its own comment")]
    Wrong,
    /// A counter that can not be read.
    #[error("the signature's comment `{comment}` holds no readable counter")]
    Counter {
        /// The trusted comment.
        comment: String,
    },
}

/// A public key, as `eyas keys new` and minisign write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    key: PublicKey,
    base64: String,
}

impl TrustedKey {
    /// Reads a key: its one line of base64, or the whole file with a comment before it.
    ///
    /// # Errors
    /// [`SignatureError::NoKey`].
    pub fn read(text: &str) -> Result<Self, SignatureError> {
        let no_key = |what: &str| SignatureError::NoKey { what: what.into() };
        if text.len() > MAX_TEXT_BYTES {
            return Err(no_key("the text is too long"));
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let base64 = lines
            .find(|line| !line.starts_with("untrusted comment:"))
            .ok_or_else(|| no_key("no line holds a key"))?;
        let key = PublicKey::from_base64(base64).map_err(|err| no_key(&err.to_string()))?;
        Ok(Self {
            key,
            base64: base64.to_owned(),
        })
    }
}

/// The key as one line of base64.
impl std::fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.base64)
    }
}

/// What a signature that holds says of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Security counter; 0 if the comment names none.
    pub counter: u64,
    /// The trusted comment.
    pub comment: String,
}

/// A signature that was read, not yet checked.
pub struct Detached(Signature);

impl Detached {
    /// Reads the text of a signature file.
    ///
    /// # Errors
    /// [`SignatureError::NoSignature`].
    pub fn read(text: &str) -> Result<Self, SignatureError> {
        let no_signature = |what: &str| SignatureError::NoSignature { what: what.into() };
        if text.len() > MAX_TEXT_BYTES {
            return Err(no_signature("the text is too long"));
        }
        Signature::decode(text)
            .map(Self)
            .map_err(|err| no_signature(&err.to_string()))
    }

    /// Begins to check content against this signature by one of the trusted keys.
    ///
    /// # Errors
    /// If none of them signed, or in minisign's old form.
    pub fn check<'a>(&'a self, trusted: &'a [TrustedKey]) -> Result<Check<'a>, SignatureError> {
        for key in trusted {
            match key.key.verify_stream(&self.0) {
                Ok(stream) => {
                    let signature = &self.0;
                    return Ok(Check { stream, signature });
                }
                Err(MinisignError::UnexpectedKeyId) => {}
                Err(err) => {
                    return Err(SignatureError::NoSignature {
                        what: err.to_string(),
                    });
                }
            }
        }
        Err(SignatureError::UnknownKey {
            n_trusted: trusted.len(),
        })
    }
}

/// A check that content is fed to.
pub struct Check<'a> {
    stream: StreamVerifier<'a>,
    signature: &'a Signature,
}

impl Check<'_> {
    /// Adds the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.stream.update(bytes);
    }

    /// Whether the signature holds for all bytes so far.
    ///
    /// # Errors
    /// [`SignatureError::Wrong`], or if its counter can not be read.
    pub fn finish(mut self) -> Result<Vouched, SignatureError> {
        self.stream.finalize().map_err(|_| SignatureError::Wrong)?;
        let comment = self.signature.trusted_comment();
        Ok(Vouched {
            counter: counter_in(comment)?,
            comment: comment.to_owned(),
        })
    }
}

/// The trusted comment of a file with this counter.
#[must_use]
pub fn comment_with(counter: u64, file_name: &str) -> String {
    // What ends a line would end the comment.
    let file_name: String = file_name.chars().filter(|c| !c.is_control()).collect();
    format!("{COUNTER}{counter}\tfile:{file_name}")
}

/// The counter in a trusted comment: `counter:N` among words; 0 without one.
fn counter_in(comment: &str) -> Result<u64, SignatureError> {
    // The name of a file may hold any words: the counter stands before it.
    let before_name = comment.split("file:").next().unwrap_or_default();
    let mut counters = before_name
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(COUNTER));
    let unreadable = || SignatureError::Counter {
        comment: comment.to_owned(),
    };
    match (counters.next(), counters.next()) {
        (None, _) => Ok(0),
        (Some(digits), None) => digits.parse().map_err(|_| unreadable()),
        (Some(_), Some(_)) => Err(unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key, signature and content that the reference implementation's documentation shows.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";

    fn check(text: &str, keys: &[TrustedKey], content: &[u8]) -> Result<Vouched, SignatureError> {
        let detached = Detached::read(text)?;
        let mut check = detached.check(keys)?;
        content.chunks(3).for_each(|piece| check.update(piece));
        check.finish()
    }

    #[test]
    fn a_signature_of_minisign_holds_for_its_content_only() {
        let keys = [TrustedKey::read(KEY).unwrap()];
        assert_eq!(keys[0].to_string(), KEY);
        let vouched = check(SIGNATURE, &keys, b"test").unwrap();
        assert_eq!(vouched.counter, 0);
        assert_eq!(check(SIGNATURE, &keys, b"Test"), Err(SignatureError::Wrong));
        let changed = SIGNATURE.replace("file:test", "file:best");
        assert_eq!(check(&changed, &keys, b"test"), Err(SignatureError::Wrong));
        let nobody = SignatureError::UnknownKey { n_trusted: 0 };
        assert_eq!(check(SIGNATURE, &[], b"test"), Err(nobody));
    }

    #[test]
    fn a_key_is_read_with_and_without_its_comment() {
        let file = format!("untrusted comment: minisign public key\n{KEY}\n");
        assert_eq!(TrustedKey::read(&file), TrustedKey::read(KEY));
        for text in ["", "untrusted comment: nothing", "RWQ", "é"] {
            assert!(TrustedKey::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_counter_is_read_from_before_the_file_name() {
        assert_eq!(counter_in(&comment_with(7, "a counter:9.bundle")), Ok(7));
        assert_eq!(counter_in("timestamp:1\tcounter:3\tfile:x"), Ok(3));
        assert_eq!(counter_in("timestamp:1\tfile:x"), Ok(0));
        for bad in [
            "counter:",
            "counter:-1",
            "counter:1 counter:2",
            "counter:18446744073709551616",
        ] {
            assert!(counter_in(bad).is_err(), "{bad}");
        }
        assert!(!comment_with(1, "a\nb").contains('\n'));
    }

    #[test]
    fn any_text_is_an_error_and_never_a_panic() {
        for cut in 0..SIGNATURE.len() {
            let _ = Detached::read(&SIGNATURE[..cut]).map(|detached| detached.check(&[]).is_ok());
        }
        assert!(Detached::read(&"x".repeat(MAX_TEXT_BYTES + 1)).is_err());
    }
}
