//! What a store was set up with: whom it trusts, and how much it takes.

use eyas_shared::signature::TrustedKey;
use serde_json::{Value, json};

use super::trial::Limits;
use crate::store::MAX_FILE_BYTES;

const SCHEMA: &str = "eyas.store/1";

/// Trusted keys and limits of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Keys whose signatures are taken. Without any, files need no signature.
    pub keys: Vec<TrustedKey>,
    /// Largest bundle or gallery, in bytes.
    pub max_file_bytes: u64,
    /// What a trial may use.
    pub trial: Limits,
}

impl Settings {
    /// Takes what these keys signed, or everything if there is none, up to the usual limits.
    #[must_use]
    pub fn new(keys: Vec<TrustedKey>) -> Self {
        Self {
            keys,
            max_file_bytes: MAX_FILE_BYTES,
            trial: Limits::DEFAULT,
        }
    }

    /// Whether files need a signature.
    #[must_use]
    pub fn needs_signatures(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let keys: Vec<String> = self.keys.iter().map(TrustedKey::to_string).collect();
        let object = json!({
            "schema": SCHEMA,
            "keys": keys,
            "max_file_bytes": self.max_file_bytes,
            "trial_memory_bytes": self.trial.memory_bytes,
            "trial_seconds": self.trial.seconds,
        });
        format!("{object:#}\n").into_bytes()
    }

    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let object: Value = serde_json::from_slice(bytes).map_err(|err| err.to_string())?;
        if object["schema"] != SCHEMA {
            return Err(format!("it is not of the schema `{SCHEMA}`"));
        }
        let number = |name: &str| {
            let number = object[name].as_u64().filter(|n| *n > 0);
            number.ok_or_else(|| format!("`{name}` is no number above 0"))
        };
        let keys = object["keys"].as_array().ok_or("`keys` is no list")?;
        let keys: Result<Vec<_>, _> = keys
            .iter()
            .map(|key| TrustedKey::read(key.as_str().unwrap_or_default()))
            .collect();
        Ok(Self {
            keys: keys.map_err(|err| err.to_string())?,
            max_file_bytes: number("max_file_bytes")?.min(MAX_FILE_BYTES),
            trial: Limits {
                memory_bytes: number("trial_memory_bytes")?,
                seconds: number("trial_seconds")?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_and_damaged_ones_never_become_looser() {
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let settings = Settings::new(vec![TrustedKey::read(key).unwrap()]);
        let text = String::from_utf8(settings.to_json()).unwrap();
        assert_eq!(Settings::from_json(text.as_bytes()), Ok(settings));
        for (from, to) in [
            ("keys", "kays"),
            (key, "RWQ"),
            ("store/1", "store/2"),
            ("}", ""),
        ] {
            let damaged = text.replace(from, to);
            assert!(
                Settings::from_json(damaged.as_bytes()).is_err(),
                "{damaged}"
            );
        }
    }
}
