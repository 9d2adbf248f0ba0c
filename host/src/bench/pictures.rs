//! Small pictures for reports: of the queries, and of what was found for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use eyas_device::store::MappedFile;
use eyas_shared::files::{self, FileError};

use super::material::Material;
use super::results::PICTURES;
use super::visit::Visit;
use crate::data::manifest::Image;
use crate::data::parallel;
use crate::embeddings::images;
use crate::report::Thumbnail;

/// Longer side in pixels.
const SIDE: u32 = 128;

/// Matches of a query that get a picture.
const N_MATCHES: usize = 5;

/// Writes a picture of each query, and of each of its first matches as far as the data or
/// the gallery has one. Images that can not be read have none.
pub(super) fn save(folder: &Path, material: &Material, visits: &[Visit]) -> Result<(), FileError> {
    let mut wanted: BTreeSet<String> = { material.asking.images.iter() }
        .map(|image| image.id.to_string())
        .collect();
    for record in visits.iter().flat_map(|visit| &visit.answers) {
        // One more: the query itself may be among them.
        let shown = record.matches.iter().take(N_MATCHES + 1);
        wanted.extend(shown.map(|(id, ..)| id.clone()));
    }
    let path_of = |id: &str| folder.join(PICTURES).join(format!("{id}.jpg"));
    wanted.retain(|id| !path_of(id).exists());
    let listed: Vec<&Image> = { material.manifest.images.iter() }
        .filter(|image| wanted.contains(&image.id.to_string()))
        .collect();
    let picture = |idx: usize| {
        let image = listed[idx];
        let pixels = images::read_image(&material.manifest, image).ok()?;
        let picture = Thumbnail::of_side(&pixels, SIDE).ok()?;
        Some((image.id.to_string(), picture.into_jpeg()))
    };
    let mut pictures: BTreeMap<String, Vec<u8>> = parallel::map(listed.len(), picture, || {})
        .into_iter()
        .flatten()
        .collect();
    for gallery in material.galleries.values() {
        add_thumbnails(&gallery.path, &wanted, &mut pictures);
    }
    for (id, jpeg) in &pictures {
        files::replace(&path_of(id), jpeg)?;
    }
    Ok(())
}

/// Thumbnails of a gallery for those that have no picture yet.
fn add_thumbnails(
    path: &Path,
    wanted: &BTreeSet<String>,
    pictures: &mut BTreeMap<String, Vec<u8>>,
) {
    // It was read at the beginning; one that is gone by now gives no pictures.
    let Ok(file) = MappedFile::open(path) else {
        return;
    };
    let Ok(gallery) = file.gallery() else {
        return;
    };
    for row in 0..gallery.n_rows() {
        let id = gallery.id(row).to_string();
        if wanted.contains(&id)
            && let Some(thumbnail) = gallery.thumbnail(row)
            && thumbnail.starts_with(&[0xff, 0xd8])
        {
            pictures.entry(id).or_insert_with(|| thumbnail.to_vec());
        }
    }
}
