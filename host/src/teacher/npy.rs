//! Embeddings made elsewhere: NumPy's `.npy` files, arrays of `.npz` archives and matrices
//! of `.safetensors` files. [`Array`] is the general form, for whoever reads small arrays.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use eyas_shared::embedding::{Embeddings, MAX_DIM};
use eyas_shared::files::{self, FileError};
use npyz::{DType, NpyFile, Order, TypeChar};
use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use super::npz::{self, ArchiveFault};

/// Largest file that is read.
const MAX_BYTES: u64 = 16 << 30;

/// Array that is taken where a file holds several matrices.
const EMBEDDINGS: &str = "embeddings";

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
    /// It is no archive of arrays, or not a whole one.
    #[error("`{path}`: {source}")]
    Archive {
        /// Which file.
        path: String,
        /// What is wrong.
        source: ArchiveFault,
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

/// Reads a matrix with one row for each image: C-ordered f16, f32 or f64 numbers of a
/// `.npy` file; the array `embeddings` of a `.npz` file or a `.safetensors` file, or its only
/// matrix.
///
/// # Errors
/// If the file is anything else, or holds a row without direction.
pub fn read(path: &Path) -> Result<Embeddings, NpyError> {
    let bytes = files::read(path, MAX_BYTES)?;
    let has = |extension: &str| path.extension().is_some_and(|found| found == extension);
    let parsed = if has("npz") {
        from_archive(&bytes)
    } else if has("safetensors") {
        from_safetensors(&bytes)
    } else {
        parse(&bytes)
    };
    parsed.map_err(|fault| fault.at(path))
}

/// Whether a file holds embeddings and no network, by its name.
#[must_use]
pub fn is_matrix(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "npy" || extension == "npz")
}

/// Numbers in C order with their shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Sides; none for a single number.
    pub shape: Vec<usize>,
    /// As f64: exact for every type but whole numbers beyond 2^53.
    pub values: Vec<f64>,
}

/// Reads all arrays of a `.npz` file by name; of those that hold no numbers only the name
/// is checked.
///
/// # Errors
/// If the file is not a whole archive, or an array in it is not whole.
pub fn read_arrays(path: &Path) -> Result<BTreeMap<String, Array>, NpyError> {
    let bytes = files::read(path, MAX_BYTES)?;
    let read = || -> Result<BTreeMap<String, Array>, Fault> {
        let archive = npz::Archive::open(&bytes)?;
        let mut arrays = BTreeMap::new();
        for name in archive.names() {
            arrays.insert(name.to_owned(), parse_array(&archive.read(name)?)?);
        }
        Ok(arrays)
    };
    read().map_err(|fault| fault.at(path))
}

pub(super) enum Fault {
    Format(String),
    Content(String),
    Archive(ArchiveFault),
}

impl From<ArchiveFault> for Fault {
    fn from(fault: ArchiveFault) -> Self {
        Self::Archive(fault)
    }
}

impl Fault {
    fn at(self, path: &Path) -> NpyError {
        let path = path.display().to_string();
        match self {
            Self::Format(why) => NpyError::Format { path, why },
            Self::Content(found) => NpyError::NotEmbeddings { path, found },
            Self::Archive(source) => NpyError::Archive { path, source },
        }
    }
}

/// One of several arrays: the one of that name, or the only matrix.
fn choose<'n>(matrices: &[&'n str], all: &[&str]) -> Result<&'n str, Fault> {
    match matrices {
        [only] => Ok(only),
        several => {
            let named = several.iter().find(|name| **name == EMBEDDINGS);
            named.copied().ok_or_else(|| {
                Fault::Content(format!(
                    "{} matrices among the arrays `{}`, none of them named `{EMBEDDINGS}`",
                    several.len(),
                    all.join("`, `")
                ))
            })
        }
    }
}

fn from_archive(bytes: &[u8]) -> Result<Embeddings, Fault> {
    let archive = npz::Archive::open(bytes)?;
    let all: Vec<&str> = archive.names().collect();
    let mut matrices = Vec::new();
    for name in &all {
        let head = archive.head(name)?;
        let shape = NpyFile::new(&head[..]).map(|file| file.shape().len());
        if shape.is_ok_and(|n_sides| n_sides == 2) {
            matrices.push(*name);
        }
    }
    parse(&archive.read(choose(&matrices, &all)?)?)
}

fn from_safetensors(bytes: &[u8]) -> Result<Embeddings, Fault> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|err| Fault::Format(err.to_string()))?;
    let all = tensors.names();
    let is_matrix = |name: &&&str| tensors.tensor(name).is_ok_and(|t| t.shape().len() == 2);
    let mut matrices: Vec<&str> = all.iter().filter(is_matrix).copied().collect();
    matrices.sort_unstable();
    let tensor = tensors
        .tensor(choose(&matrices, &all)?)
        .map_err(|err| Fault::Format(err.to_string()))?;
    let [n_rows, dim] = tensor.shape() else {
        return Err(Fault::Content("no matrix".to_owned()));
    };
    check_shape(*n_rows as u64, *dim as u64)?;
    let data = tensor.data();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F16 => widen(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => widen(data, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F32 => widen(data, f32::from_le_bytes),
        Dtype::F64 => widen(data, |bytes| f64::from_le_bytes(bytes) as f32),
        other => return Err(Fault::Content(format!("numbers of type {other:?}"))),
    };
    embeddings_of(*dim, values)
}

fn widen<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (numbers, _) = data.as_chunks::<N>();
    numbers.iter().map(|bytes| number(*bytes)).collect()
}

fn check_shape(n_rows: u64, dim: u64) -> Result<(), Fault> {
    if n_rows == 0 || !(1..=MAX_DIM as u64).contains(&dim) {
        let what = format!("{n_rows} rows of {dim} numbers (at most {MAX_DIM} are read)");
        return Err(Fault::Content(what));
    }
    Ok(())
}

/// The sizes of a plain array, checked against the bytes that there are before anything is
/// allocated for it, and the type of its numbers.
fn plain<R: Read>(file: &NpyFile<R>, n_bytes: usize) -> Result<(TypeChar, u64), Fault> {
    let dtype = file.dtype();
    let DType::Plain(kind) = &dtype else {
        return Err(Fault::Content("a structured array".to_owned()));
    };
    let size = kind.size_field();
    let shape = file.shape();
    let needed = shape.iter().try_fold(size, |n, side| n.checked_mul(*side));
    if needed.is_none_or(|needed| needed > n_bytes as u64) {
        let sides: Vec<String> = shape.iter().map(u64::to_string).collect();
        let what = format!(
            "{} numbers do not fit into {n_bytes} bytes",
            sides.join(" x ")
        );
        return Err(Fault::Format(what));
    }
    Ok((kind.type_char(), size))
}

fn parse(bytes: &[u8]) -> Result<Embeddings, Fault> {
    let file = NpyFile::new(bytes).map_err(|err| Fault::Format(err.to_string()))?;
    let shape = file.shape().to_vec();
    let [n_rows, dim] = shape[..] else {
        return Err(Fault::Content(format!("an array of shape {shape:?}")));
    };
    check_shape(n_rows, dim)?;
    if file.order() != Order::C && n_rows > 1 && dim > 1 {
        return Err(Fault::Content("a Fortran-ordered matrix".to_owned()));
    }
    let type_of = plain(&file, bytes.len())?;
    let whole = |err: std::io::Error| Fault::Format(err.to_string());
    let values: Vec<f32> = match type_of {
        (TypeChar::Float, 2) => {
            let halves: Vec<half::f16> = file.into_vec().map_err(whole)?;
            halves.into_iter().map(half::f16::to_f32).collect()
        }
        (TypeChar::Float, 4) => file.into_vec().map_err(whole)?,
        (TypeChar::Float, 8) => {
            let doubles: Vec<f64> = file.into_vec().map_err(whole)?;
            doubles.into_iter().map(|x| x as f32).collect()
        }
        _ => {
            let kind = file.dtype().descr();
            return Err(Fault::Content(format!("numbers of type {kind}")));
        }
    };
    embeddings_of(dim as usize, values)
}

fn embeddings_of(dim: usize, values: Vec<f32>) -> Result<Embeddings, Fault> {
    let embeddings = Embeddings::from_values(dim, values)
        .ok_or_else(|| Fault::Format("it ends inside a row".to_owned()))?;
    match embeddings.first_unusable_row() {
        Some(row_idx) => Err(Fault::Content(format!(
            "row {row_idx}, which has no direction (all zero, or not finite)"
        ))),
        None => Ok(embeddings),
    }
}

/// Any C-ordered array of floating or whole numbers.
fn parse_array(bytes: &[u8]) -> Result<Array, Fault> {
    let file = NpyFile::new(bytes).map_err(|err| Fault::Format(err.to_string()))?;
    let shape: Vec<usize> = file.shape().iter().map(|side| *side as usize).collect();
    let is_long = shape.iter().filter(|side| **side > 1).count() > 1;
    if file.order() != Order::C && is_long {
        return Err(Fault::Content("a Fortran-ordered array".to_owned()));
    }
    let type_of = plain(&file, bytes.len())?;
    let whole = |err: std::io::Error| Fault::Format(err.to_string());
    macro_rules! numbers {
        ($from:ty) => {{
            let numbers: Vec<$from> = file.into_vec().map_err(whole)?;
            numbers.into_iter().map(|x| x as f64).collect()
        }};
    }
    let values: Vec<f64> = match type_of {
        (TypeChar::Float, 2) => {
            let halves: Vec<half::f16> = file.into_vec().map_err(whole)?;
            halves.into_iter().map(half::f16::to_f64).collect()
        }
        (TypeChar::Float, 4) => numbers!(f32),
        (TypeChar::Float, 8) => numbers!(f64),
        (TypeChar::Int, 4) => numbers!(i32),
        (TypeChar::Int, 8) => numbers!(i64),
        (TypeChar::Uint, 1) => numbers!(u8),
        (TypeChar::Uint, 4) => numbers!(u32),
        (TypeChar::Uint, 8) => numbers!(u64),
        _ => {
            let kind = file.dtype().descr();
            return Err(Fault::Content(format!("numbers of type {kind}")));
        }
    };
    Ok(Array { shape, values })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::path::PathBuf;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use safetensors::tensor::TensorView;

    use super::*;

    fn npy(shape: &[u64], values: &[f32]) -> Vec<u8> {
        use npyz::WriterBuilder as _;
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(shape)
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
        bytes
    }

    /// An archive of stored, or deflated, members.
    fn archive(members: &[(&str, Vec<u8>)], is_deflated: bool) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, content) in members {
            let mut crc = flate2::Crc::new();
            crc.update(content);
            let packed = if is_deflated {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            } else {
                content.clone()
            };
            let name = format!("{name}.npy");
            let mut facts = Vec::new();
            facts.extend([20, 0, 0, 0, if is_deflated { 8 } else { 0 }, 0, 0, 0, 0, 0]);
            for number in [crc.sum(), packed.len() as u32, content.len() as u32] {
                facts.extend(number.to_le_bytes());
            }
            facts.extend((name.len() as u16).to_le_bytes());
            facts.extend([0, 0]);
            let offset = out.len() as u32;
            out.extend(b"PK\x03\x04");
            out.extend(&facts);
            out.extend(name.as_bytes());
            out.extend(packed);
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&facts);
            directory.extend([0; 10]);
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let start = out.len() as u32;
        out.extend(&directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend((members.len() as u16).to_le_bytes());
        out.extend((members.len() as u16).to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0, 0]);
        out
    }

    fn written(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn the_matrix_of_an_archive_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let matrix = npy(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let other = npy(&[1, 1], &[9.0]);
        let labels = npy(&[2], &[7.0, 8.0]);
        for is_deflated in [false, true] {
            let members = [("labels", labels.clone()), ("x", matrix.clone())];
            let bytes = archive(&members, is_deflated);
            let path = written(&folder, "e.npz", &bytes);
            let found = read(&path).unwrap();
            assert_eq!((found.n_rows(), found.row(1)), (2, &[4.0, 5.0, 6.0][..]));
            let arrays = read_arrays(&path).unwrap();
            assert_eq!(arrays["labels"].values, [7.0, 8.0]);
            assert_eq!(arrays["x"].shape, [2, 3]);
            let named = [("x", other.clone()), ("embeddings", matrix.clone())];
            let path = written(&folder, "e.npz", &archive(&named, is_deflated));
            assert_eq!(read(&path).unwrap().dim(), 3);
            let unnamed = [("x", other.clone()), ("y", matrix.clone())];
            let path = written(&folder, "e.npz", &archive(&unnamed, is_deflated));
            let said = read(&path).unwrap_err().to_string();
            assert!(
                said.contains("2 matrices among the arrays `x`, `y`"),
                "{said}"
            );
            // Every end and every byte: an error or the same content, never a panic.
            for end in 0..bytes.len() {
                let path = written(&folder, "cut.npz", &bytes[..end]);
                assert!(read(&path).is_err(), "{end} bytes");
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0xff;
                let _ = read(&written(&folder, "cut.npz", &damaged));
            }
        }
    }

    #[test]
    fn the_matrix_of_a_safetensors_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let data: Vec<u8> = [0.5_f64, 1.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let view = TensorView::new(Dtype::F64, vec![1, 2], &data).unwrap();
        let bytes = safetensors::serialize([("any", view)], None).unwrap();
        let path = written(&folder, "e.safetensors", &bytes);
        assert_eq!(read(&path).unwrap().values(), [0.5, 1.0]);
        let cut = written(&folder, "cut.safetensors", &bytes[..bytes.len() - 1]);
        assert!(read(&cut).is_err());
    }
}
