//! Galleries of more embeddings than fit into memory: a matrix that stays on disk, and the
//! list of its images.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};
use eyas_shared::embedding::MAX_DIM;
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprint, Fingerprinter, ImageId};
use eyas_shared::gallery::{Codes, EncodedRow, Entry, Records, RowFault, Rows, encode};
use half::f16;
use npyz::{DType, NpyHeader, Order, TypeChar};
use thiserror::Error;

use super::choose::parse_id;
use crate::data::{DataError, MAX_IMAGE_BYTES};

/// Why no gallery can be made of a matrix and a list.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnDiskError {
    /// A file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something else than a matrix of numbers.
    #[error(
        "`{}` {what}; a C-ordered .npy matrix of f16, f32 or f64 with one row for each image is needed",
        path.display()
    )]
    NotAMatrix {
        /// Which file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A list that does not say what the images are.
    #[error(transparent)]
    List(#[from] DataError),
    /// The list is of other images.
    #[error("`{}` has {n_rows} rows, `{}` lists {n_images} images", matrix.display(), list.display())]
    OtherNumber {
        /// Where the matrix is.
        matrix: PathBuf,
        /// Its rows.
        n_rows: usize,
        /// Where the list is.
        list: PathBuf,
        /// Its lines.
        n_images: usize,
    },
}

/// Bytes of a matrix that are in memory at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// Largest header of a matrix.
const MAX_HEADER_BYTES: u64 = 1 << 16;

/// A matrix whose rows stay on disk: fast where they are asked for in order.
pub struct Matrix {
    dim: usize,
    n_rows: usize,
    component: Component,
    /// Where the numbers begin.
    start: u64,
    window: RefCell<Window>,
}

struct Window {
    file: File,
    first_row: usize,
    n_rows: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Component {
    F16,
    F32,
    F64,
}

impl Component {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl Matrix {
    /// Opens a C-ordered `.npy` matrix of f16, f32 or f64.
    ///
    /// # Errors
    /// If it can not be read, is anything else, or has another length than it says.
    pub fn open(path: &Path) -> Result<Self, OnDiskError> {
        let mut file = File::open(path).map_err(FileError::because("read", path))?;
        let fault = |what: String| OnDiskError::NotAMatrix {
            path: path.to_owned(),
            what,
        };
        let header = NpyHeader::from_reader((&mut file).take(MAX_HEADER_BYTES))
            .map_err(|err| fault(format!("is no .npy file ({err})")))?;
        let start = file
            .stream_position()
            .map_err(FileError::because("read", path))?;
        let &[n_rows, dim] = header.shape() else {
            return Err(fault(format!("has the shape {:?}", header.shape())));
        };
        if n_rows == 0 || n_rows > u64::from(u32::MAX) || !(1..=MAX_DIM as u64).contains(&dim) {
            return Err(fault(format!("has {n_rows} rows of {dim} numbers")));
        }
        if header.order() != Order::C && n_rows > 1 && dim > 1 {
            return Err(fault("is Fortran-ordered".to_owned()));
        }
        let dtype = header.dtype();
        let descr = || fault(format!("holds numbers of type {}", dtype.descr()));
        let DType::Plain(kind) = &dtype else {
            return Err(descr());
        };
        let is_little = !kind.to_string().contains('>');
        let component = match (kind.type_char(), kind.size_field()) {
            (TypeChar::Float, 2) if is_little => Component::F16,
            (TypeChar::Float, 4) if is_little => Component::F32,
            (TypeChar::Float, 8) if is_little => Component::F64,
            _ => return Err(descr()),
        };
        let expected = start + n_rows * dim * component.bytes() as u64;
        let metadata = file.metadata();
        let found = metadata.map_err(FileError::because("read", path))?.len();
        if found != expected {
            let what = format!("has {found} bytes where {expected} belong");
            return Err(fault(what));
        }
        Ok(Self {
            dim: dim as usize,
            n_rows: n_rows as usize,
            component,
            start,
            window: RefCell::new(Window {
                file,
                first_row: 0,
                n_rows: 0,
                bytes: Vec::new(),
            }),
        })
    }

    fn row_bytes(&self) -> usize {
        self.dim * self.component.bytes()
    }

    /// Reads rows from `row_idx` on.
    fn fill(&self, window: &mut Window, row_idx: usize) -> io::Result<()> {
        let wanted = (WINDOW_BYTES / self.row_bytes()).max(1);
        let n_rows = wanted.min(self.n_rows - row_idx);
        // Nothing is there until all of it was read.
        window.n_rows = 0;
        window.bytes.resize(n_rows * self.row_bytes(), 0);
        let at = self.start + (row_idx * self.row_bytes()) as u64;
        window.file.seek(SeekFrom::Start(at))?;
        window.file.read_exact(&mut window.bytes)?;
        (window.first_row, window.n_rows) = (row_idx, n_rows);
        Ok(())
    }
}

impl Rows for Matrix {
    fn dim(&self) -> usize {
        self.dim
    }

    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn read(&self, row_idx: usize, row: &mut [f32]) -> io::Result<()> {
        let mut window = self.window.borrow_mut();
        let there = window.first_row..window.first_row + window.n_rows;
        if !there.contains(&row_idx) {
            self.fill(&mut window, row_idx)?;
        }
        let at = (row_idx - window.first_row) * self.row_bytes();
        let bytes = &window.bytes[at..][..self.row_bytes()];
        match self.component {
            Component::F16 => {
                for (x, bytes) in row.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *x = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            Component::F32 => {
                for (x, bytes) in row.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
            Component::F64 => {
                for (x, bytes) in row.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *x = f64::from_le_bytes(*bytes) as f32;
                }
            }
        }
        Ok(())
    }
}

/// The images of a matrix, in the order of its rows.
#[derive(Default)]
pub struct List {
    ids: Vec<ImageId>,
    label_of: Vec<u32>,
    labels: Vec<String>,
    /// All names, one behind the other, and where each ends.
    names: String,
    ends: Vec<usize>,
}

impl List {
    /// Reads a CSV file with the columns `label`, `path` and optionally `id`, in any order,
    /// among others. Without `id`, the file at each path is read to name the image.
    ///
    /// # Errors
    /// If it can not be read or a line of it is wrong.
    pub fn read(path: &Path) -> Result<Self, OnDiskError> {
        let file = File::open(path).map_err(FileError::because("read", path))?;
        let mut reader = ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(io::BufReader::new(file));
        let fault = |line: u64, problem: String| DataError::Line {
            path: path.to_owned(),
            line,
            problem,
        };
        let header = reader.headers().map_err(|err| fault(1, err.to_string()))?;
        let find = |column: &str| header.iter().position(|name| name == column);
        let (Some(label), Some(name)) = (find("label"), find("path")) else {
            let problem = "the columns `label` and `path` are needed, `id` is taken".to_owned();
            return Err(fault(1, problem).into());
        };
        let id = find("id");
        let root = files::folder_of(path);
        let mut list = Self::default();
        let mut number_of: HashMap<String, u32> = HashMap::new();
        let mut record = StringRecord::new();
        loop {
            let line = reader.position().line();
            let more = reader
                .read_record(&mut record)
                .map_err(|err| fault(line, err.to_string()))?;
            if !more {
                return Ok(list);
            }
            let field = |column: usize| record.get(column).unwrap_or_default();
            if field(label).is_empty() || field(name).is_empty() {
                return Err(fault(line, "label or path is empty".to_owned()).into());
            }
            let id = match id {
                Some(column) => parse_id(field(column)).map_err(|problem| fault(line, problem))?,
                None => ImageId::of_file(&files::read(&root.join(field(name)), MAX_IMAGE_BYTES)?),
            };
            list.push(id, field(label), field(name), &mut number_of);
        }
    }

    fn push(&mut self, id: ImageId, label: &str, name: &str, number_of: &mut HashMap<String, u32>) {
        let number = number_of.get(label).copied().unwrap_or_else(|| {
            let number = self.labels.len() as u32;
            self.labels.push(label.to_owned());
            number_of.insert(label.to_owned(), number);
            number
        });
        self.ids.push(id);
        self.label_of.push(number);
        self.names.push_str(name);
        self.ends.push(self.names.len());
    }

    /// Number of images.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.ids.len()
    }

    /// One image.
    ///
    /// # Panics
    /// If there is none with this number.
    #[must_use]
    pub fn entry(&self, idx: usize) -> Entry<'_> {
        let start = idx.checked_sub(1).map_or(0, |before| self.ends[before]);
        Entry {
            id: self.ids[idx],
            label: &self.labels[self.label_of[idx] as usize],
            name: &self.names[start..self.ends[idx]],
        }
    }

    /// Names the images and their labels.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut print = Fingerprinter::new("eyas list 1");
        for idx in 0..self.n_images() {
            let entry = self.entry(idx);
            print = print
                .field("id", &entry.id.0)
                .field("path", entry.name.as_bytes())
                .field("label", entry.label.as_bytes());
        }
        print.finish()
    }
}

/// A matrix with its list: what a gallery is made of.
pub struct Listed {
    /// The embeddings.
    pub matrix: Matrix,
    /// Their images.
    pub list: List,
}

impl Listed {
    /// Opens both.
    ///
    /// # Errors
    /// If one of them can not be read, or they differ in number.
    pub fn open(matrix_path: &Path, list_path: &Path) -> Result<Self, OnDiskError> {
        let matrix = Matrix::open(matrix_path)?;
        let list = List::read(list_path)?;
        if matrix.n_rows != list.n_images() {
            return Err(OnDiskError::OtherNumber {
                matrix: matrix_path.to_owned(),
                n_rows: matrix.n_rows,
                list: list_path.to_owned(),
                n_images: list.n_images(),
            });
        }
        Ok(Self { matrix, list })
    }
}

impl Records for Listed {
    fn dim(&self) -> usize {
        self.matrix.dim
    }

    fn n_records(&self) -> usize {
        self.list.n_images()
    }

    fn entry(&self, idx: usize) -> Option<Entry<'_>> {
        Some(self.list.entry(idx))
    }

    fn thumbnail(&self, _: usize) -> &[u8] {
        &[]
    }

    fn encoded(&self, idx: usize, _: Codes, part: Codes) -> Result<EncodedRow, RowFault> {
        encode(&self.matrix, idx, part)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A matrix of three rows, more than one window apart for the last if rows are long.
    fn npy(path: &Path, dim: usize, n_rows: usize) {
        use npyz::WriterBuilder as _;
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[n_rows as u64, dim as u64])
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        let values = (0..dim * n_rows).map(|i| i as f32);
        writer.extend(values).unwrap();
        writer.finish().unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn rows_are_read_in_any_order_across_windows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.npy");
        let dim = 8192;
        npy(&path, dim, 100);
        let matrix = Matrix::open(&path).unwrap();
        let mut row = vec![0.0; dim];
        for idx in [0, 99, 1, 31, 32, 33, 98, 0] {
            matrix.read(idx, &mut row).unwrap();
            assert_eq!(row[3], (idx * dim + 3) as f32);
        }
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let message = Matrix::open(&path).err().unwrap().to_string();
        assert!(message.contains("bytes where"), "{message}");
        // Cut while it is read: an error of that row.
        assert!(matrix.read(99, &mut row).is_err());
        fs::write(&path, "no matrix").unwrap();
        assert!(Matrix::open(&path).is_err());
    }

    #[test]
    fn lists_name_images_by_a_column_or_by_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.jpg"), "a").unwrap();
        let id = ImageId::of_file(b"a");
        npy(&at("rows.npy"), 4, 1);
        for text in [
            "path,label\na.jpg,tea\n".to_owned(),
            format!("id,split,label,path\n{id},train,tea,a.jpg\n"),
        ] {
            fs::write(at("list.csv"), text).unwrap();
            let listed = Listed::open(&at("rows.npy"), &at("list.csv")).unwrap();
            let entry = listed.entry(0).unwrap();
            assert_eq!((entry.id, entry.label, entry.name), (id, "tea", "a.jpg"));
        }
        for (text, problem) in [
            ("label\ntea\n", "`path`"),
            ("id,label,path\n12,tea,a.jpg\n", "line 2"),
            ("label,path\ntea,none.jpg\n", "none.jpg"),
            ("label,path\ntea,a.jpg\nmilk,a.jpg\n", "lists 2 images"),
        ] {
            fs::write(at("list.csv"), text).unwrap();
            let err = Listed::open(&at("rows.npy"), &at("list.csv"))
                .err()
                .unwrap();
            assert!(err.to_string().contains(problem), "{err}");
        }
    }
}
