//! Weights by name as plain numbers: what training hands over and export reads.

use std::collections::BTreeMap;
use std::path::Path;

use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprint, Fingerprinter};
use eyas_shared::quant;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use thiserror::Error;

/// Largest weights file that is read.
const MAX_BYTES: u64 = 4 << 30;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Extents.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Tensors by name, such as `head.bias`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Weight>);

/// Why weights can not be read or do not fit.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a safetensors file, or a damaged one.
    #[error("`{path}` is not a whole safetensors file: {source}")]
    Format {
        /// Which file.
        path: String,
        /// What the reader found.
        source: safetensors::SafeTensorError,
    },
    /// A number format other than f32 or f16.
    #[error("tensor `{name}` in `{path}` holds {dtype:?}; f32 and f16 are read")]
    Dtype {
        /// Which file.
        path: String,
        /// Which tensor.
        name: String,
        /// What it holds.
        dtype: Dtype,
    },
    /// The network needs a weight that is not there.
    #[error("weight `{name}` is missing")]
    Missing {
        /// Which.
        name: String,
    },
    /// A weight without which the others do not compute what they were trained to.
    #[error("weight `{name}` has no place in the network: the file is of another architecture")]
    Foreign {
        /// Which.
        name: String,
    },
    /// A weight of another shape than the network's.
    #[error("weight `{name}` has shape {found:?}, the network needs {expected:?}")]
    Shape {
        /// Which.
        name: String,
        /// What the network needs.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
}

impl Weights {
    /// Reads a safetensors file of f32 or f16 tensors.
    ///
    /// # Errors
    /// If it can not be read, is damaged, or holds other numbers.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        Self::from_bytes(&files::read(path, MAX_BYTES)?, path)
    }

    /// Reads the bytes of a safetensors file; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for reading the file.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, WeightsError> {
        let shown = || path.display().to_string();
        let tensors = SafeTensors::deserialize(bytes).map_err(|source| WeightsError::Format {
            path: shown(),
            source,
        })?;
        let mut weights = BTreeMap::new();
        for (name, view) in tensors.iter() {
            let values = match view.dtype() {
                Dtype::F32 => quant::f32_from_bytes(view.data()),
                Dtype::F16 => view
                    .data()
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|b| half::f16::from_le_bytes(*b).to_f32())
                    .collect(),
                // Counters such as `num_batches_tracked` are of no use here.
                Dtype::I64 => continue,
                dtype => {
                    return Err(WeightsError::Dtype {
                        path: shown(),
                        name: name.to_owned(),
                        dtype,
                    });
                }
            };
            weights.insert(
                name.to_owned(),
                Weight {
                    shape: view.shape().to_vec(),
                    values,
                },
            );
        }
        Ok(Self(weights))
    }

    /// The bytes of a safetensors file; equal weights give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let data: Vec<Vec<u8>> = self
            .0
            .values()
            .map(|weight| quant::f32_bytes(&weight.values))
            .collect();
        let views = self.0.iter().zip(&data).map(|((name, weight), data)| {
            let view = TensorView::new(Dtype::F32, weight.shape.clone(), data);
            (name.as_str(), view.expect("values fill the shape"))
        });
        safetensors::serialize(views, None).expect("names and shapes have a JSON form")
    }

    /// The weight of this name and shape.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<&Weight, WeightsError> {
        let missing = || WeightsError::Missing {
            name: name.to_owned(),
        };
        let weight = self.0.get(name).ok_or_else(missing)?;
        if weight.shape != shape {
            return Err(WeightsError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: weight.shape.clone(),
            });
        }
        Ok(weight)
    }

    /// Names these weights.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut print = Fingerprinter::new("eyas weights 1");
        for (name, weight) in &self.0 {
            let extents = weight.shape.iter();
            let shape: Vec<u8> = extents
                .flat_map(|&extent| (extent as u64).to_le_bytes())
                .collect();
            print = print
                .field(name, &shape)
                .field("values", &quant::f32_bytes(&weight.values));
        }
        print.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_back_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let weight = Weight {
            shape: vec![2, 1],
            values: vec![1.5, -2.0],
        };
        let weights = Weights(BTreeMap::from([("a.weight".to_owned(), weight)]));
        files::replace(&path, &weights.to_bytes()).unwrap();
        assert_eq!(Weights::read(&path).unwrap(), weights);
        let message = weights.get("a.weight", &[3]).unwrap_err().to_string();
        assert_eq!(
            message,
            "weight `a.weight` has shape [2, 1], the network needs [3]"
        );
        files::replace(&path, b"nonsense").unwrap();
        assert!(
            Weights::read(&path)
                .unwrap_err()
                .to_string()
                .contains("safetensors")
        );
    }
}
