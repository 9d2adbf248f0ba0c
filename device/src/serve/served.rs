//! What serves at the moment: a student with its gallery, from two files or from a store.

use std::path::{Path, PathBuf};

use eyas_shared::fingerprint::{ContentHasher, Fingerprint};
use eyas_shared::link::message::{Answer, FileId, GalleryInfo, MAX_NAME_BYTES, StudentInfo, cut};

use crate::answer::{Answerer, Known};
use crate::look::{LookError, look, plain_request};
use crate::slots::{Opened, Slots, SlotsError};
use crate::store::{GalleryCheck, MappedFile, Store, StoreError};
use crate::wire;

/// Two files that serve for as long as the program runs.
#[derive(Clone, Debug)]
pub struct Files {
    /// The student's bundle.
    pub bundle: PathBuf,
    /// The gallery.
    pub gallery: PathBuf,
}

/// Where a board's student and gallery come from.
pub enum Source {
    /// Two files.
    Files(Files),
    /// A store, to which new ones may be pushed.
    Store(Slots),
}

enum Held {
    Files(Store),
    Slots(Opened),
}

/// A student and a gallery that serve.
pub(super) struct Served {
    held: Held,
    /// What the student's calibrations say of the gallery.
    known: Known,
    pub(super) bundle: (FileId, PathBuf),
    pub(super) gallery: (FileId, PathBuf),
}

/// Why an image was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// It can not be encoded.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The gallery can not be searched.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Served {
    /// Opens two files.
    ///
    /// # Errors
    /// If they can not be used, or not together.
    pub(super) fn open(files: &Files, n_threads: usize) -> Result<Self, StoreError> {
        let id = |path: &PathBuf| -> Result<(FileId, PathBuf), StoreError> {
            let file = MappedFile::open(path)?;
            let mut hasher = ContentHasher::new();
            hasher.update(file.bytes());
            let id = FileId {
                hash: hasher.finish().0,
                bytes: file.bytes().len() as u64,
            };
            Ok((id, path.clone()))
        };
        let mut store = Store::open(&files.bundle, &files.gallery, GalleryCheck::Checksums)?;
        set_threads(&mut store, &files.bundle, n_threads)?;
        Ok(Self {
            known: Known::of(&store.matcher()?, store.calibrations()),
            held: Held::Files(store),
            bundle: id(&files.bundle)?,
            gallery: id(&files.gallery)?,
        })
    }

    /// Opens what a store has to serve; none if nothing is installed.
    ///
    /// # Errors
    /// If nothing that is installed can be opened.
    pub(super) fn of_store(slots: &Slots, n_threads: usize) -> Result<Option<Self>, SlotsError> {
        let mut opened = match slots.open_to_serve() {
            Ok(opened) => opened,
            Err(SlotsError::Empty { .. }) => return Ok(None),
            Err(err) => return Err(err),
        };
        let id = |hash: Fingerprint| -> Result<(FileId, PathBuf), StoreError> {
            let path = slots.file_path(hash);
            let bytes = MappedFile::open(&path)?.bytes().len() as u64;
            let hash = hash.0;
            Ok((FileId { hash, bytes }, path))
        };
        let path = slots.file_path(opened.serving.generation.bundle);
        set_threads(&mut opened.store, &path, n_threads)?;
        let generation = &opened.serving.generation;
        let matcher = opened.store.matcher()?;
        let known = Known::of(&matcher, opened.store.calibrations());
        Ok(Some(Self {
            known,
            bundle: id(generation.bundle)?,
            gallery: id(generation.gallery)?,
            held: Held::Slots(opened),
        }))
    }

    pub(super) fn store(&self) -> &Store {
        match &self.held {
            Held::Files(store) => store,
            Held::Slots(opened) => &opened.store,
        }
    }

    /// Number of the generation; 0 without a store.
    pub(super) fn generation(&self) -> u64 {
        match &self.held {
            Held::Files(_) => 0,
            Held::Slots(opened) => opened.serving.generation.number,
        }
    }

    pub(super) fn is_on_trial(&self) -> bool {
        match &self.held {
            Held::Files(_) => false,
            Held::Slots(opened) => opened.serving.trial_start.is_some(),
        }
    }

    /// It has proven itself.
    pub(super) fn note_confirmed(&mut self) {
        if let Held::Slots(opened) = &mut self.held {
            opened.serving.trial_start = None;
        }
    }

    pub(super) fn student_info(&self) -> StudentInfo {
        let header = self.store().header();
        StudentInfo {
            file: self.bundle.0,
            name: cut(&header.name, MAX_NAME_BYTES).to_owned(),
            precision: header.precision.to_string(),
            dim: header.dim,
            space: header.space.0.0,
        }
    }

    /// What the gallery says of itself.
    ///
    /// # Errors
    /// As [`Store::matcher`].
    pub(super) fn gallery_info(&self) -> Result<GalleryInfo, StoreError> {
        let matcher = self.store().matcher()?;
        let header = &matcher.gallery().header;
        Ok(GalleryInfo {
            file: self.gallery.0,
            n_rows: header.n_rows,
            n_labels: header.n_labels,
            teacher: cut(&header.teacher, MAX_NAME_BYTES).to_owned(),
        })
    }

    /// Finds an image in the gallery.
    ///
    /// # Errors
    /// [`AnswerError`] tells whose fault it is.
    pub(super) fn look(
        &self,
        bytes: &[u8],
        image: [u8; 32],
        k: usize,
    ) -> Result<Answer, AnswerError> {
        let store = self.store();
        let matcher = store.matcher()?;
        let answerer = Answerer::knowing(&matcher, store.calibrations(), &self.known);
        let encoder = store.encoder();
        let looked = look(encoder, &answerer, bytes, &plain_request(k))?;
        Ok(wire::answer(&matcher, &looked, image, encoder.space()))
    }
}

fn set_threads(store: &mut Store, bundle: &Path, n_threads: usize) -> Result<(), StoreError> {
    store.set_threads(n_threads).map_err(|source| {
        let path = bundle.to_owned();
        StoreError::Student { path, source }
    })
}
