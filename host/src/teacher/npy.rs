//! Embeddings made elsewhere: NumPy's `.npy` files.

use std::path::Path;

use eyas_shared::embedding::{Embeddings, MAX_DIM};
use eyas_shared::files::{self, FileError};
use npyz::{DType, NpyFile, Order, TypeChar};
use thiserror::Error;

/// Largest file that is read.
const MAX_BYTES: u64 = 16 << 30;

/// Why a file gives no embeddings.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NpyError {
    /// It can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no `.npy` file, or not a whole one.
    #[error("`{path}` is not a whole .npy file: {why}")]
    Format {
        /// Which file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// It holds something else.
    #[error(
        "`{path}` holds {found}; embeddings are a C-ordered matrix of f16, f32 or f64 with one row for each image"
    )]
    NotEmbeddings {
        /// Which file.
        path: String,
        /// What it holds.
        found: String,
    },
}

/// Reads a C-ordered matrix of f16, f32 or f64 numbers.
///
/// # Errors
/// If the file is anything else, or holds a row without direction.
pub fn read(path: &Path) -> Result<Embeddings, NpyError> {
    let bytes = files::read(path, MAX_BYTES)?;
    parse(&bytes).map_err(|fault| match fault {
        Fault::Format(why) => NpyError::Format {
            path: path.display().to_string(),
            why,
        },
        Fault::Content(found) => NpyError::NotEmbeddings {
            path: path.display().to_string(),
            found,
        },
    })
}

enum Fault {
    Format(String),
    Content(String),
}

fn parse(bytes: &[u8]) -> Result<Embeddings, Fault> {
    let file = NpyFile::new(bytes).map_err(|err| Fault::Format(err.to_string()))?;
    let shape = file.shape().to_vec();
    let [n_rows, dim] = shape[..] else {
        return Err(Fault::Content(format!("an array of shape {shape:?}")));
    };
    if n_rows == 0 || !(1..=MAX_DIM as u64).contains(&dim) {
        let what = format!("{n_rows} rows of {dim} numbers (at most {MAX_DIM} are read)");
        return Err(Fault::Content(what));
    }
    if file.order() != Order::C && n_rows > 1 && dim > 1 {
        return Err(Fault::Content("a Fortran-ordered matrix".to_owned()));
    }
    let dtype = file.dtype();
    let DType::Plain(kind) = &dtype else {
        return Err(Fault::Content("a structured array".to_owned()));
    };
    let size = kind.size_field();
    if kind.type_char() != TypeChar::Float || ![2, 4, 8].contains(&size) {
        return Err(Fault::Content(format!("numbers of type {kind}")));
    }
    // Checked against the file's own length before anything is allocated for it.
    let n_bytes = n_rows.checked_mul(dim).and_then(|n| n.checked_mul(size));
    if n_bytes.is_none_or(|n_bytes| n_bytes > bytes.len() as u64) {
        let what = format!(
            "{n_rows} x {dim} numbers do not fit into {} bytes",
            bytes.len()
        );
        return Err(Fault::Format(what));
    }
    let whole = |err: std::io::Error| Fault::Format(err.to_string());
    let values: Vec<f32> = match size {
        2 => {
            let halves: Vec<half::f16> = file.into_vec().map_err(whole)?;
            halves.into_iter().map(half::f16::to_f32).collect()
        }
        4 => file.into_vec().map_err(whole)?,
        _ => {
            let doubles: Vec<f64> = file.into_vec().map_err(whole)?;
            doubles.into_iter().map(|x| x as f32).collect()
        }
    };
    let embeddings = Embeddings::from_values(dim as usize, values)
        .ok_or_else(|| Fault::Format("it ends inside a row".to_owned()))?;
    match embeddings.first_unusable_row() {
        Some(row_idx) => Err(Fault::Content(format!(
            "row {row_idx}, which has no direction (all zero, or not finite)"
        ))),
        None => Ok(embeddings),
    }
}
