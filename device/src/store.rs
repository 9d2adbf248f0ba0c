//! What a board answers with: a student and a gallery that fit together.
//!
//! Files are memory-mapped. A bundle is checked as a whole before anything is answered, a
//! gallery as far as nobody did so before ([`GalleryCheck`]). A gallery of another teacher's
//! space is refused here: its scores would look plausible and mean nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use eyas_shared::bundle::{Bundle, BundleError, BundleHeader};
use eyas_shared::calibration::Calibration;
use eyas_shared::files::FileError;
use eyas_shared::fingerprint::SpaceId;
use eyas_shared::gallery::{Gallery, GalleryError};
use memmap2::Mmap;
use thiserror::Error;

use crate::encoder::{EncodeError, Encoder};
use crate::matcher::Matcher;

/// Largest file that is mapped: 2^24 rows of 1024 f32 components.
pub const MAX_FILE_BYTES: u64 = 64 << 30;

/// Why a bundle and a gallery can not be used, or not together.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refuses the file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something that is no file of bytes.
    #[error("`{}` is a {what}, not a bundle or gallery file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
        /// `folder` or `special file`.
        what: &'static str,
    },
    /// A file of zero bytes.
    #[error("`{}` is empty", path.display())]
    Empty {
        /// Where.
        path: PathBuf,
    },
    /// A file beyond [`MAX_FILE_BYTES`].
    #[error("`{}` has {bytes} bytes; at most {MAX_FILE_BYTES} are read", path.display())]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A bundle that is damaged or something else.
    #[error("can not use the bundle `{}`", path.display())]
    Bundle {
        /// Where.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// A whole bundle whose network can not be run.
    #[error("can not run the student of the bundle `{}`", path.display())]
    Student {
        /// Where.
        path: PathBuf,
        /// Why.
        source: EncodeError,
    },
    /// A gallery that is damaged or something else.
    #[error("can not use the gallery `{}`", path.display())]
    Gallery {
        /// Where.
        path: PathBuf,
        /// Why.
        source: GalleryError,
    },
    /// Embeddings of two spaces.
    #[error(
        "student and gallery come from different teachers: student `{student}`, gallery `{gallery}` \
         (bundle `{}`, gallery `{}`)", bundle_path.display(), gallery_path.display()
    )]
    OtherSpace {
        /// The student's space.
        student: SpaceId,
        /// The gallery's space.
        gallery: SpaceId,
        /// Where the bundle is.
        bundle_path: PathBuf,
        /// Where the gallery is.
        gallery_path: PathBuf,
    },
    /// Embeddings of two lengths.
    #[error(
        "student and gallery differ in dimension: student {student}, gallery {gallery} \
         (bundle `{}`, gallery `{}`)", bundle_path.display(), gallery_path.display()
    )]
    OtherDim {
        /// Components of the student's embeddings.
        student: usize,
        /// Components of the gallery's rows.
        gallery: usize,
        /// Where the bundle is.
        bundle_path: PathBuf,
        /// Where the gallery is.
        gallery_path: PathBuf,
    },
}

/// A file that is read through a memory map.
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
    /// The system was told how the gallery in it is read.
    is_advised: Once,
}

impl MappedFile {
    /// Maps a file of 1 to [`MAX_FILE_BYTES`] bytes.
    ///
    /// # Errors
    /// If it is empty, too large, no regular file, or the system refuses it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Asked before opening: opening a pipe would wait for its other end.
        let metadata = fs::metadata(path).map_err(FileError::because("read", path))?;
        let path = path.to_owned();
        if !metadata.is_file() {
            let what = if metadata.is_dir() {
                "folder"
            } else {
                "special file"
            };
            return Err(StoreError::NotAFile { path, what });
        }
        match metadata.len() {
            0 => return Err(StoreError::Empty { path }),
            bytes if bytes > MAX_FILE_BYTES => return Err(StoreError::TooLarge { path, bytes }),
            _ => {}
        }
        let file = File::open(&path).map_err(FileError::because("read", &path))?;
        // SAFETY: the map is read-only, and files of this project are replaced by renaming
        // a finished one over them (`eyas_shared::files`), never edited or cut in place, so
        // the mapped bytes stay as they are while the map lives.
        let map = unsafe { Mmap::map(&file) }.map_err(FileError::because("map", &path))?;
        Ok(Self {
            path,
            map,
            is_advised: Once::new(),
        })
    }

    /// The file's content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file as a bundle, checking all of it.
    ///
    /// # Errors
    /// [`StoreError::Bundle`] says what does not fit.
    pub fn bundle(&self) -> Result<Bundle<'_>, StoreError> {
        Bundle::read(self.bytes()).map_err(|source| StoreError::Bundle {
            path: self.path.clone(),
            source,
        })
    }

    /// Opens the file as a gallery in constant time; [`Gallery::verify`] is not called.
    ///
    /// # Errors
    /// [`StoreError::Gallery`] says what does not fit.
    pub fn gallery(&self) -> Result<Gallery<'_>, StoreError> {
        let gallery = Gallery::open(self.bytes()).map_err(self.gallery_fault())?;
        self.is_advised
            .call_once(|| self.ask_for_large_pages(gallery.scanned()));
        Ok(gallery)
    }

    /// Asks for what every search reads from end to end in pages of 2 MiB, as far as it has to be
    /// read from the disk. What is read here and there stays in small ones: a slow disk would
    /// take long for a large one.
    fn ask_for_large_pages(&self, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        let offset = part.as_ptr().addr() - self.map.as_ptr().addr();
        // Not every system has them, and none has to.
        let _ = self
            .map
            .advise_range(memmap2::Advice::HugePage, offset, part.len());
    }

    /// Opens the file as a gallery and checks all of it.
    ///
    /// # Errors
    /// [`StoreError::Gallery`] says what does not fit.
    pub fn verified_gallery(&self) -> Result<Gallery<'_>, StoreError> {
        self.checked_gallery(GalleryCheck::Whole)
    }

    /// Opens the file as a gallery and checks so much of it.
    ///
    /// # Errors
    /// [`StoreError::Gallery`] says what does not fit.
    pub fn checked_gallery(&self, check: GalleryCheck) -> Result<Gallery<'_>, StoreError> {
        let gallery = self.gallery()?;
        let outcome = match check {
            GalleryCheck::Whole => gallery.verify(),
            GalleryCheck::Checksums => gallery.verify_checksums(),
            GalleryCheck::AtInstall => Ok(()),
        };
        outcome.map_err(self.gallery_fault())?;
        Ok(gallery)
    }

    fn gallery_fault(&self) -> impl FnOnce(GalleryError) -> StoreError {
        move |source| StoreError::Gallery {
            path: self.path.clone(),
            source,
        }
    }
}

/// What is checked of a gallery when it is opened, beyond its header and the sizes of its
/// sections. Whatever it holds, a search ends, with rows that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GalleryCheck {
    /// Everything, as `gallery verify` does: about a microsecond a row.
    Whole,
    /// Checksums, at the speed of reading: of a file that nobody installed, and that may have
    /// been damaged on its way.
    Checksums,
    /// Nothing: all of it was checked when it was installed, and opening it takes as long for
    /// any number of rows.
    AtInstall,
}

/// A checked student with a gallery of the same space.
pub struct Store {
    header: BundleHeader,
    encoder: Encoder,
    calibrations: Vec<Calibration>,
    gallery: MappedFile,
    n_threads: usize,
    opening: Opening,
}

/// What it took to open a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// To map both files and check them, the gallery as far as [`GalleryCheck`] says.
    pub files: Duration,
    /// To build the student.
    pub student: Duration,
}

impl Store {
    /// Opens both files, checks the bundle and so much of the gallery, and builds the student.
    ///
    /// # Errors
    /// [`StoreError`] names the file that can not be used, or what does not fit together.
    pub fn open(
        bundle_path: &Path,
        gallery_path: &Path,
        check: GalleryCheck,
    ) -> Result<Self, StoreError> {
        let began = Instant::now();
        let bundle_file = MappedFile::open(bundle_path)?;
        let gallery_file = MappedFile::open(gallery_path)?;
        let bundle = bundle_file.bundle()?;
        let gallery = gallery_file.checked_gallery(check)?;
        let checked = Instant::now();
        let paths = || (bundle_path.to_owned(), gallery_path.to_owned());
        if bundle.header.space != gallery.header.space {
            let (bundle_path, gallery_path) = paths();
            return Err(StoreError::OtherSpace {
                student: bundle.header.space,
                gallery: gallery.header.space,
                bundle_path,
                gallery_path,
            });
        }
        let (student, rows) = (bundle.header.dim as usize, gallery.dim());
        if student != rows {
            let (bundle_path, gallery_path) = paths();
            return Err(StoreError::OtherDim {
                student,
                gallery: rows,
                bundle_path,
                gallery_path,
            });
        }
        let encoder = load_student(&bundle_file, &bundle)?;
        Ok(Self {
            header: bundle.header,
            encoder,
            calibrations: bundle.calibrations,
            gallery: gallery_file,
            n_threads: 1,
            opening: Opening {
                files: checked - began,
                student: checked.elapsed(),
            },
        })
    }

    /// Encodes and searches on so many threads from now on; answers do not depend on their
    /// number.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn set_threads(&mut self, n_threads: usize) -> Result<(), EncodeError> {
        self.encoder.set_threads(n_threads)?;
        self.n_threads = n_threads.max(1);
        Ok(())
    }

    /// What the bundle says of the student.
    #[must_use]
    pub fn header(&self) -> &BundleHeader {
        &self.header
    }

    /// What it took to open the pair.
    #[must_use]
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// The student.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// What scores mean, by gallery; not all are for this one.
    #[must_use]
    pub fn calibrations(&self) -> &[Calibration] {
        &self.calibrations
    }

    /// Where the gallery lies.
    #[must_use]
    pub fn gallery_path(&self) -> &Path {
        self.gallery.path()
    }

    /// A matcher over the mapped gallery; takes microseconds, whatever its size.
    ///
    /// # Errors
    /// Only if the file was edited in place since it was opened.
    pub fn matcher(&self) -> Result<Matcher<'_>, StoreError> {
        // Opened again instead of kept, because a view beside the map that it borrows from
        // would need self-reference.
        Ok(Matcher::new(self.gallery.gallery()?).with_threads(self.n_threads))
    }
}

/// Builds the student of an opened bundle; errors name the file.
///
/// # Errors
/// [`StoreError::Student`] if the network can not be run or gives other embeddings.
pub fn load_student(file: &MappedFile, bundle: &Bundle<'_>) -> Result<Encoder, StoreError> {
    Encoder::load(bundle).map_err(|source| StoreError::Student {
        path: file.path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
