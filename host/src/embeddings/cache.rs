//! Embeds images once: features of each network are kept on disk, and what was kept is
//! never computed again.
//!
//! A folder of the cache belongs to one network with its pixels; it holds part files of up
//! to [`CHUNK`] images each, named by the images in them. Parts are checked whenever they
//! are read, and a damaged one counts as absent: an interrupted run, however it ended,
//! goes on where it was. Projections are applied on the fly, so a teacher with another
//! projection needs no network run. Nothing here deletes a file.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use eyas_shared::embedding::Embeddings;
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprinter, ImageId, SpaceId};
use thiserror::Error;

use super::EmbeddedImages;
use super::images::read_image;
use crate::data::manifest::{Image, Manifest};
use crate::teacher::{Teacher, TeacherError};

/// Images in one part file: what an interruption can cost at most, for each thread.
pub const CHUNK: usize = 64;

const PART_EXTENSION: &str = "features";

/// What came of embedding a manifest.
#[derive(Debug)]
pub struct Embedded {
    /// One embedding for each image that could be embedded.
    pub images: EmbeddedImages,
    /// Images that could not, in the manifest's order.
    pub faults: Vec<Fault>,
    /// Images for which a network was run now.
    pub n_run: usize,
    /// Part files that were damaged and have been replaced.
    pub damaged: Vec<PathBuf>,
}

/// An image that could not be embedded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{path}`: {why}")]
pub struct Fault {
    /// Path relative to the manifest's root.
    pub path: String,
    /// Its identity.
    pub id: ImageId,
    /// Why not.
    pub why: String,
}

/// Why nothing could be embedded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The cache can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The teacher can not be used.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
}

/// Where a teacher's networks put their features. `None` keeps nothing.
pub type CacheFolder<'a> = Option<&'a Path>;

/// Embeds every image of `manifest`, an image that occurs twice once. `on_image` is called
/// once for each line of the manifest, from several threads.
///
/// # Errors
/// If the teacher or the cache can not be used. An image that can not be read or embedded
/// is a [`Fault`] of the outcome.
pub fn embed_images(
    teacher: &Teacher,
    manifest: &Manifest,
    cache: CacheFolder<'_>,
    on_image: &(dyn Fn() + Sync),
) -> Result<Embedded, EmbedError> {
    let mut features = all_features(teacher, manifest, cache, on_image)?;
    let mut images = EmbeddedImages::new(teacher.space(), teacher.dim());
    let mut faults = std::mem::take(&mut features.faults);
    for image in distinct(manifest) {
        let Some(rows) = features.of(image.id) else {
            continue;
        };
        match teacher.embedding_of(rows) {
            Ok(embedding) => images.insert(image.id, &embedding),
            Err(err) => faults.push(Fault::of(image, err)),
        }
    }
    let position: HashMap<ImageId, usize> = distinct(manifest)
        .enumerate()
        .map(|(i, image)| (image.id, i))
        .collect();
    faults.sort_by_key(|fault| position.get(&fault.id).copied());
    Ok(Embedded {
        images,
        faults,
        n_run: features.n_run,
        damaged: features.damaged,
    })
}

/// What a projection is fitted on: row by row the concatenated features of the distinct
/// images of `manifest`, each member's scaled to length 1.
///
/// # Errors
/// As [`embed_images`].
pub fn concatenated_features(
    teacher: &Teacher,
    manifest: &Manifest,
    cache: CacheFolder<'_>,
    on_image: &(dyn Fn() + Sync),
) -> Result<(Embeddings, Vec<Fault>), EmbedError> {
    let features = all_features(teacher, manifest, cache, on_image)?;
    let mut rows = Embeddings::new(teacher.n_features());
    for image in distinct(manifest) {
        if let Some(parts) = features.of(image.id) {
            rows.push(&teacher.concatenated(parts)?);
        }
    }
    Ok((rows, features.faults))
}

/// Images of a manifest without repetitions of content.
fn distinct(manifest: &Manifest) -> impl Iterator<Item = &Image> {
    let mut seen = HashSet::new();
    manifest
        .images
        .iter()
        .filter(move |image| seen.insert(image.id))
}

impl Fault {
    pub(super) fn of(image: &Image, why: impl std::fmt::Display) -> Self {
        Self {
            path: image.path.clone(),
            id: image.id,
            why: why.to_string(),
        }
    }
}

/// Features of all images by all members.
struct Features {
    /// One table for each member, or the imported one.
    tables: Vec<EmbeddedImages>,
    faults: Vec<Fault>,
    n_run: usize,
    damaged: Vec<PathBuf>,
}

impl Features {
    /// The features of an image by each member, if all have some.
    fn of(&self, id: ImageId) -> Option<Vec<&[f32]>> {
        self.tables.iter().map(|table| table.get(&id)).collect()
    }
}

fn all_features(
    teacher: &Teacher,
    manifest: &Manifest,
    cache: CacheFolder<'_>,
    on_image: &(dyn Fn() + Sync),
) -> Result<Features, EmbedError> {
    if let Some(imported) = teacher.imported() {
        return Ok(of_imported(teacher, imported, manifest, on_image));
    }
    let mut features = Features {
        tables: Vec::new(),
        faults: Vec::new(),
        n_run: 0,
        damaged: Vec::new(),
    };
    let mut folders = Vec::new();
    for member in teacher.members() {
        let space = member.feature_space();
        let mut table = EmbeddedImages::new(space, member.dim());
        let folder = cache.map(|cache| folder_of(cache, space));
        if let Some(folder) = &folder {
            files::create_folder(folder)?;
            let wanted = manifest.images.iter().map(|image| image.id).collect();
            features
                .damaged
                .extend(read_parts(folder, &wanted, &mut table)?);
        }
        features.tables.push(table);
        folders.push(folder);
    }
    let missing: Vec<&Image> = distinct(manifest)
        .filter(|image| features.of(image.id).is_none())
        .collect();
    for _ in missing.len()..manifest.images.len() {
        on_image();
    }
    if missing.is_empty() {
        return Ok(features);
    }
    // Loaded here, so that a network that can not be built ends the run at once.
    teacher.networks()?;
    let run = Run {
        teacher,
        manifest,
        folders: &folders,
        known: &features.tables,
        on_image,
    };
    let done = run.all(&missing)?;
    for part in done {
        for (table, part) in features.tables.iter_mut().zip(&part.tables) {
            for (id, row) in part.ids().iter().zip(part.embeddings().rows()) {
                table.insert(*id, row);
            }
        }
        features.n_run += part.n_run;
        features.faults.extend(part.faults);
    }
    Ok(features)
}

fn of_imported(
    teacher: &Teacher,
    imported: &EmbeddedImages,
    manifest: &Manifest,
    on_image: &(dyn Fn() + Sync),
) -> Features {
    let why = TeacherError::NoNetwork {
        teacher: teacher.name().to_owned(),
        n_images: imported.n_images(),
    };
    let unknown = distinct(manifest).filter(|image| imported.get(&image.id).is_none());
    let faults = unknown.map(|image| Fault::of(image, &why)).collect();
    for _ in &manifest.images {
        on_image();
    }
    Features {
        tables: vec![imported.clone()],
        faults,
        n_run: 0,
        damaged: Vec::new(),
    }
}

/// Adds the wanted images of every whole part in `folder`; returns the damaged ones.
fn read_parts(
    folder: &Path,
    wanted: &HashSet<ImageId>,
    table: &mut EmbeddedImages,
) -> Result<Vec<PathBuf>, FileError> {
    let entries = std::fs::read_dir(folder).map_err(FileError::because("list", folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(FileError::because("list", folder))?.path();
        if path.extension() == Some(OsStr::new(PART_EXTENSION)) {
            paths.push(path);
        }
    }
    // The order of a folder's listing is arbitrary.
    paths.sort();
    let mut damaged = Vec::new();
    for path in paths {
        match EmbeddedImages::read(&path) {
            Ok(part) if part.space() == table.space() && part.dim() == table.dim() => {
                let rows = part.ids().iter().zip(part.embeddings().rows());
                for (id, row) in rows.filter(|(id, _)| wanted.contains(id)) {
                    table.insert(*id, row);
                }
            }
            _ => damaged.push(path),
        }
    }
    Ok(damaged)
}

/// The images of one chunk after the networks ran.
struct Part {
    tables: Vec<EmbeddedImages>,
    faults: Vec<Fault>,
    n_run: usize,
}

struct Run<'a> {
    teacher: &'a Teacher,
    manifest: &'a Manifest,
    folders: &'a [Option<PathBuf>],
    known: &'a [EmbeddedImages],
    on_image: &'a (dyn Fn() + Sync),
}

impl Run<'_> {
    /// Works through the chunks on several threads; the outcome is in their order.
    fn all(&self, missing: &[&Image]) -> Result<Vec<Part>, EmbedError> {
        let chunks: Vec<&[&Image]> = missing.chunks(CHUNK).collect();
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<Part, EmbedError>)>> = Mutex::new(Vec::new());
        let work = || {
            loop {
                let chunk_idx = next.fetch_add(1, Ordering::Relaxed);
                let Some(chunk) = chunks.get(chunk_idx) else {
                    return;
                };
                let outcome = self.chunk(chunk);
                if outcome.is_err() {
                    // The others stop after their chunk.
                    next.store(chunks.len(), Ordering::Relaxed);
                }
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.push((chunk_idx, outcome));
            }
        };
        thread::scope(|scope| {
            let n_threads = thread::available_parallelism().map_or(1, usize::from);
            for _ in 1..n_threads.min(chunks.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(chunk_idx, _)| *chunk_idx);
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn chunk(&self, images: &[&Image]) -> Result<Part, EmbedError> {
        let mut part = Part {
            tables: self
                .known
                .iter()
                .map(|known| EmbeddedImages::new(known.space(), known.dim()))
                .collect(),
            faults: Vec::new(),
            n_run: 0,
        };
        for image in images {
            match self.image(image) {
                Ok(rows) => {
                    part.n_run += 1;
                    for (table, row) in part.tables.iter_mut().zip(rows) {
                        if let Some(row) = row {
                            table.insert(image.id, &row);
                        }
                    }
                }
                Err(why) => part.faults.push(Fault::of(image, why)),
            }
            (self.on_image)();
        }
        for (table, folder) in part.tables.iter().zip(self.folders) {
            if let (Some(folder), 1..) = (folder, table.n_images()) {
                files::replace(&folder.join(part_name(table)), &table.to_bytes())?;
            }
        }
        Ok(part)
    }

    /// Features by each member that has none of this image yet.
    fn image(&self, image: &Image) -> Result<Vec<Option<Vec<f32>>>, String> {
        let pixels = read_image(self.manifest, image)?;
        let features = |(member_idx, known): (usize, &EmbeddedImages)| {
            if known.get(&image.id).is_some() {
                return Ok(None);
            }
            let features = self.teacher.features(member_idx, &pixels);
            features.map(Some).map_err(|err| err.to_string())
        };
        self.known.iter().enumerate().map(features).collect()
    }
}

/// Parts are named by their images, so that two runs do not write different content to one
/// name.
fn part_name(table: &EmbeddedImages) -> String {
    let ids: Vec<u8> = table.ids().iter().flat_map(|id| id.0).collect();
    let print = Fingerprinter::new("eyas features part")
        .field("ids", &ids)
        .finish();
    format!("{}.{PART_EXTENSION}", print.short())
}

/// The folder in the cache that holds a network's features.
fn folder_of(cache: &Path, features: SpaceId) -> PathBuf {
    cache.join(features.to_string())
}

#[cfg(test)]
mod tests;
