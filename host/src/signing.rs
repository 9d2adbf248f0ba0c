//! Keys and signatures of files for boards, in minisign's format: keys of either tool serve
//! the other, and so do signatures.
//!
//! The only randomness of this program that does not come from a recipe's seed is here: keys
//! are drawn by the system.

use std::io::Read;

use eyas_shared::signature::{self, SignatureError, TrustedKey};
use minisign::{KeyPair, PError, PublicKey, SecretKeyBox};
use thiserror::Error;

/// How the second line of a protected key begins: base64 of `Ed` and of the first letter of
/// the name of scrypt.
const PROTECTED: &str = "RWRT";

/// Why a key can not be used, or nothing signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SigningError {
    /// Text that is no secret key.
    #[error("this is no secret key of minisign: {0}")]
    NoSecretKey(#[source] PError),
    /// A key that is protected, without the password.
    #[error("the secret key is protected by a password")]
    Protected,
    /// A key and a password that do not fit.
    #[error("the secret key can not be opened with this password: {0}")]
    Password(#[source] PError),
    /// The system gives no randomness, or the key could not be written.
    #[error("could not make a key: {0}")]
    New(#[source] PError),
    /// The content could not be read, or the signature not be written.
    #[error("could not sign: {0}")]
    Sign(#[source] PError),
    /// A public key that the board would not read.
    #[error(transparent)]
    Public(#[from] SignatureError),
}

/// A key that signs.
pub struct SecretKey(minisign::SecretKey);

/// Texts of a new pair of keys, as their files hold them.
pub struct NewKeys {
    /// For whoever signs, and nobody else.
    pub secret: String,
    /// For every board.
    pub public: String,
}

/// Draws a pair of keys; the secret one is protected by a password, if one is given.
///
/// # Errors
/// If the system gives no randomness.
pub fn new_keys(password: Option<String>) -> Result<NewKeys, SigningError> {
    let pair = match password {
        Some(_) => KeyPair::generate_encrypted_keypair(password),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let pair = pair.map_err(SigningError::New)?;
    let comment = Some("eyas: secret key, keep it to yourself");
    let secret = pair.sk.to_box(comment).map_err(SigningError::New)?;
    let public = pair.pk.to_box().map_err(SigningError::New)?;
    Ok(NewKeys {
        secret: secret.into_string(),
        public: public.into_string(),
    })
}

impl SecretKey {
    /// Reads the text of a secret key.
    ///
    /// # Errors
    /// [`SigningError::Protected`] if it needs a password and none is given.
    pub fn read(text: &str, password: Option<String>) -> Result<Self, SigningError> {
        let boxed = SecretKeyBox::from_string(text).map_err(SigningError::NoSecretKey)?;
        let line = text.lines().nth(1).unwrap_or_default();
        if !line.starts_with(PROTECTED) {
            let key = boxed.into_unencrypted_secret_key();
            return key.map(Self).map_err(SigningError::NoSecretKey);
        }
        let password = password.ok_or(SigningError::Protected)?;
        let key = boxed.into_secret_key(Some(password));
        key.map(Self).map_err(SigningError::Password)
    }

    /// The public key that belongs to it.
    ///
    /// # Errors
    /// If the key contradicts itself.
    pub fn public(&self) -> Result<TrustedKey, SigningError> {
        let key = PublicKey::from_secret_key(&self.0).map_err(SigningError::New)?;
        Ok(TrustedKey::read(&key.to_base64())?)
    }

    /// The signature of some content with a security counter; `file_name` is for people.
    ///
    /// # Errors
    /// If the content can not be read.
    pub fn sign(
        &self,
        content: impl Read,
        counter: u64,
        file_name: &str,
    ) -> Result<String, SigningError> {
        let trusted = signature::comment_with(counter, file_name);
        let untrusted = Some("signature by eyas");
        let signed = minisign::sign(None, &self.0, content, Some(&trusted), untrusted);
        Ok(signed.map_err(SigningError::Sign)?.into_string())
    }
}

#[cfg(test)]
mod tests {
    use eyas_shared::signature::Detached;

    use super::*;

    #[test]
    fn what_is_signed_here_is_trusted_on_the_board() {
        let keys = new_keys(None).unwrap();
        let secret = SecretKey::read(&keys.secret, None).unwrap();
        let trusted = TrustedKey::read(&keys.public).unwrap();
        assert_eq!(secret.public().unwrap(), trusted);
        let text = secret.sign(&b"a student"[..], 7, "s.bundle").unwrap();
        let detached = Detached::read(&text).unwrap();
        let trusted = [trusted];
        let check = |content: &[u8]| {
            let mut check = detached.check(&trusted).unwrap();
            check.update(content);
            check.finish()
        };
        let vouched = check(b"a student").unwrap();
        assert_eq!(
            (vouched.counter, vouched.comment.as_str()),
            (7, "counter:7\tfile:s.bundle")
        );
        assert_eq!(check(b"another"), Err(SignatureError::Wrong));
    }

    #[test]
    fn a_protected_key_opens_with_its_password_only() {
        let keys = new_keys(Some("kestrel".to_owned())).unwrap();
        assert!(matches!(
            SecretKey::read(&keys.secret, None),
            Err(SigningError::Protected)
        ));
        let wrong = SecretKey::read(&keys.secret, Some("falcon".to_owned()));
        assert!(matches!(wrong, Err(SigningError::Password(_))));
        assert!(SecretKey::read(&keys.secret, Some("kestrel".to_owned())).is_ok());
        assert!(matches!(
            SecretKey::read("x", None),
            Err(SigningError::NoSecretKey(_))
        ));
    }
}
