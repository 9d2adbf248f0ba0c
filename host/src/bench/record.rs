//! JSON files that say which schema they are of.

use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Largest record that is read.
const MAX_BYTES: u64 = 1 << 30;

/// Why a record can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The system refuses the file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no JSON of this form.
    #[error("`{}` is no record of a bench session (`{schema}`)", path.display())]
    Content {
        /// Where.
        path: PathBuf,
        /// What it should be.
        schema: &'static str,
        /// Why it is not.
        source: serde_json::Error,
    },
    /// It is of another schema.
    #[error("`{}` holds `{found}`; this program reads `{schema}`", path.display())]
    Schema {
        /// Where.
        path: PathBuf,
        /// What it says it is.
        found: String,
        /// What it should be.
        schema: &'static str,
    },
}

/// Reads a record; `schema_of` is where it says what it is.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    schema: &'static str,
    schema_of: impl FnOnce(&T) -> &str,
) -> Result<T, RecordError> {
    let bytes = files::read(path, MAX_BYTES)?;
    let record: T = serde_json::from_slice(&bytes).map_err(|source| RecordError::Content {
        path: path.to_owned(),
        schema,
        source,
    })?;
    match schema_of(&record) {
        found if found == schema => Ok(record),
        found => Err(RecordError::Schema {
            path: path.to_owned(),
            found: found.to_owned(),
            schema,
        }),
    }
}
