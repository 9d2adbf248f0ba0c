//! Embeddings of a manifest's images: kept on disk, found by image.
//!
//! [`EmbeddedImages`] is a table from [`ImageId`] to embedding in one space, and a file.
//! How a teacher fills it, once, is the business of [`cache`]; [`images`] fills it with
//! whatever is cheap enough to be computed every time.

pub mod cache;
pub mod images;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use eyas_shared::container::{self, Container, ContainerError, Kind, Tag};
use eyas_shared::embedding::{Embeddings, MAX_DIM};
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{ImageId, SpaceId};
use eyas_shared::gallery::Rows;
use eyas_shared::quant;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::data::manifest::{Image, Manifest};

/// The newest version of embeddings files, and the one that is written.
pub const VERSION: u16 = 1;

/// Largest embeddings file that is read.
const MAX_BYTES: u64 = 64 << 30;

const IDS: Tag = *b"IDS ";
const ROWS: Tag = *b"ROWS";

/// Embeddings with the images they belong to. No image occurs twice.
#[derive(Clone, Debug)]
pub struct EmbeddedImages {
    space: SpaceId,
    ids: Vec<ImageId>,
    embeddings: Embeddings,
    row_of: HashMap<ImageId, usize>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    space: SpaceId,
    dim: u32,
    n_rows: u64,
}

/// Why an embeddings file can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmbeddingsError {
    /// It can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not whole, or not an embeddings file.
    #[error("embeddings file `{path}`: {source}")]
    Container {
        /// Which file.
        path: String,
        /// What does not fit.
        source: ContainerError,
    },
}

/// An image that was not embedded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "image `{path}` ({id}) has no embedding of space {space}; {n_missing} of {n_images} images have none"
)]
pub struct MissingImage {
    /// The first such image.
    pub path: String,
    /// Its identity.
    pub id: ImageId,
    /// The space.
    pub space: SpaceId,
    /// How many are missing.
    pub n_missing: usize,
    /// Out of how many.
    pub n_images: usize,
}

/// Embeddings in the order of a manifest: see [`EmbeddedImages::rows_for`].
pub struct RowsFor<'e> {
    embeddings: &'e Embeddings,
    row_idxs: Vec<usize>,
}

impl Rows for RowsFor<'_> {
    fn dim(&self) -> usize {
        self.embeddings.dim()
    }

    fn n_rows(&self) -> usize {
        self.row_idxs.len()
    }

    fn read(&self, row_idx: usize, row: &mut [f32]) -> io::Result<()> {
        row.copy_from_slice(self.embeddings.row(self.row_idxs[row_idx]));
        Ok(())
    }
}

impl EmbeddedImages {
    /// An empty table. `dim` must be in 1..=[`MAX_DIM`].
    #[must_use]
    pub fn new(space: SpaceId, dim: usize) -> Self {
        Self {
            space,
            ids: Vec::new(),
            embeddings: Embeddings::new(dim),
            row_of: HashMap::new(),
        }
    }

    /// An empty table with room for `n_images` images.
    #[must_use]
    pub fn with_capacity(space: SpaceId, dim: usize, n_images: usize) -> Self {
        Self {
            space,
            ids: Vec::with_capacity(n_images),
            embeddings: Embeddings::with_capacity(dim, n_images),
            row_of: HashMap::with_capacity(n_images),
        }
    }

    /// Adds an image; one that is already there stays as it is.
    ///
    /// # Panics
    /// If `embedding` has another dimension.
    pub fn insert(&mut self, id: ImageId, embedding: &[f32]) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.row_of.entry(id) {
            entry.insert(self.ids.len());
            self.ids.push(id);
            self.embeddings.push(embedding);
        }
    }

    /// The space of the embeddings.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// Components of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.embeddings.dim()
    }

    /// Number of images.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.ids.len()
    }

    /// The images, in the order of the rows.
    #[must_use]
    pub fn ids(&self) -> &[ImageId] {
        &self.ids
    }

    /// All embeddings; row `i` belongs to `ids()[i]`.
    #[must_use]
    pub fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// The embedding of an image.
    #[must_use]
    pub fn get(&self, id: &ImageId) -> Option<&[f32]> {
        self.row_of
            .get(id)
            .map(|&row_idx| self.embeddings.row(row_idx))
    }

    /// Row `i` is the embedding of `manifest.images[i]`, where it lies.
    ///
    /// # Errors
    /// If an image has no embedding.
    pub fn rows_for(&self, manifest: &Manifest) -> Result<RowsFor<'_>, MissingImage> {
        let missing = |image: &&Image| !self.row_of.contains_key(&image.id);
        if let Some(image) = manifest.images.iter().find(missing) {
            return Err(MissingImage {
                path: image.path.clone(),
                id: image.id,
                space: self.space,
                n_missing: manifest.images.iter().filter(missing).count(),
                n_images: manifest.images.len(),
            });
        }
        let row_idx = |image: &Image| self.row_of.get(&image.id).copied();
        Ok(RowsFor {
            embeddings: &self.embeddings,
            row_idxs: manifest.images.iter().filter_map(row_idx).collect(),
        })
    }

    /// [`rows_for`](Self::rows_for) as a matrix of its own.
    ///
    /// # Errors
    /// If an image has no embedding.
    pub fn matrix_for(&self, manifest: &Manifest) -> Result<Embeddings, MissingImage> {
        let rows = self.rows_for(manifest)?;
        let mut matrix = Embeddings::with_capacity(self.dim(), rows.row_idxs.len());
        for &row_idx in &rows.row_idxs {
            matrix.push(self.embeddings.row(row_idx));
        }
        Ok(matrix)
    }

    /// The file's bytes; equal tables give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            space: self.space,
            dim: self.dim() as u32,
            n_rows: self.ids.len() as u64,
        };
        let ids: Vec<u8> = self.ids.iter().flat_map(|id| id.0).collect();
        let rows = quant::f32_bytes(self.embeddings.values());
        let sections: [(Tag, &[u8]); 2] = [(IDS, &ids), (ROWS, &rows)];
        container::write(Kind::Embeddings, VERSION, &header, &sections)
    }

    /// Reads a file's bytes and checks all of them.
    ///
    /// # Errors
    /// If anything does not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ContainerError> {
        let container = Container::read(bytes, Kind::Embeddings, VERSION)?;
        container.verify()?;
        let header: Header = container::read_header(&container)?;
        let dim = header.dim as usize;
        if !(1..=MAX_DIM).contains(&dim) {
            let what = format!("dimension {dim} is not in 1..={MAX_DIM}");
            return Err(ContainerError::malformed(what));
        }
        let (ids, rows) = (container.section(IDS)?, container.section(ROWS)?);
        let (id_rows, rest) = ids.as_chunks::<16>();
        let fits = rest.is_empty()
            && id_rows.len() as u64 == header.n_rows
            && id_rows.len().checked_mul(4 * dim) == Some(rows.len());
        if !fits {
            return Err(ContainerError::malformed(format!(
                "{} bytes of ids and {} bytes of rows for {} images of dimension {dim}",
                ids.len(),
                rows.len(),
                header.n_rows
            )));
        }
        let mut images = Self::new(header.space, dim);
        let values = quant::f32_from_bytes(rows);
        for (id, row) in id_rows.iter().zip(values.chunks_exact(dim)) {
            images.insert(ImageId(*id), row);
        }
        if images.n_images() != id_rows.len() {
            return Err(ContainerError::malformed("an image occurs twice"));
        }
        if let Some(row_idx) = images.embeddings.first_unusable_row() {
            let what = format!("embedding {row_idx} has no direction");
            return Err(ContainerError::malformed(what));
        }
        Ok(images)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it can not be read or anything in it does not fit.
    pub fn read(path: &Path) -> Result<Self, EmbeddingsError> {
        let bytes = files::read(path, MAX_BYTES)?;
        Self::from_bytes(&bytes).map_err(|source| EmbeddingsError::Container {
            path: path.display().to_string(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::fingerprint::Fingerprint;

    fn example() -> EmbeddedImages {
        let mut images = EmbeddedImages::new(SpaceId(Fingerprint([3; 32])), 2);
        images.insert(ImageId([1; 16]), &[0.6, 0.8]);
        images.insert(ImageId([2; 16]), &[0.0, 1.0]);
        images.insert(ImageId([1; 16]), &[1.0, 0.0]);
        images
    }

    fn manifest(ids: &[u8]) -> Manifest {
        let image = |id: &u8| Image {
            path: format!("{id}.jpg"),
            label: String::new(),
            split: String::new(),
            is_query: false,
            is_gallery: false,
            id: ImageId([*id; 16]),
        };
        Manifest {
            root: "data".into(),
            images: ids.iter().map(image).collect(),
        }
    }

    #[test]
    fn embeddings_are_found_by_image() {
        let images = EmbeddedImages::from_bytes(&example().to_bytes()).unwrap();
        assert_eq!(images.n_images(), 2);
        assert_eq!(images.get(&ImageId([1; 16])), Some(&[0.6, 0.8][..]));
        let rows = images.matrix_for(&manifest(&[2, 1, 2])).unwrap();
        assert_eq!(rows.values(), [0.0, 1.0, 0.6, 0.8, 0.0, 1.0]);
        let message = images
            .matrix_for(&manifest(&[2, 5, 6]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`5.jpg`") && message.contains("2 of 3"),
            "{message}"
        );
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_noticed() {
        let bytes = example().to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            assert!(EmbeddedImages::from_bytes(&damaged).is_err(), "byte {at}");
            assert!(
                EmbeddedImages::from_bytes(&bytes[..at]).is_err(),
                "{at} bytes"
            );
        }
    }
}
