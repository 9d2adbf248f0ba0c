//! Probable label errors: images whose nearest neighbors, as a teacher sees them, mostly
//! agree on another label.
//!
//! A guess, not a verdict: classes that the teacher can not tell apart are named too.

use std::collections::BTreeMap;

use eyas_shared::embedding::{Score, by_rank, dot};
use eyas_shared::fingerprint::ImageId;
use serde::Serialize;

use super::manifest::{Image, Manifest};
use super::parallel;
use crate::embeddings::EmbeddedImages;

/// Neighbors that are asked.
pub const N_NEIGHBORS: usize = 5;

/// An image whose label its neighbors contradict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspect {
    /// Path relative to the manifest's root.
    pub path: String,
    /// Its label.
    pub label: String,
    /// The label of most of its neighbors.
    pub neighbors_label: String,
    /// Neighbors with that label.
    pub n_agreeing: usize,
    /// Neighbors with the image's own label.
    pub n_own: usize,
    /// Neighbors that were asked: fewer than [`N_NEIGHBORS`] in a tiny data set.
    pub n_neighbors: usize,
    /// The nearest neighbor with the other label.
    pub nearest: String,
}

/// Images of which more than half of the [`N_NEIGHBORS`] nearest others share one other
/// label, in the manifest's order. Copies of one content count once; images without an
/// embedding are left out. `done` is called after each image that is looked at.
#[must_use]
pub fn suspects(manifest: &Manifest, embedded: &EmbeddedImages, done: &dyn Fn()) -> Vec<Suspect> {
    let mut distinct: BTreeMap<ImageId, usize> = BTreeMap::new();
    for (i, image) in manifest.images.iter().enumerate() {
        if embedded.get(&image.id).is_some() {
            distinct.entry(image.id).or_insert(i);
        }
    }
    let mut rows: Vec<usize> = distinct.into_values().collect();
    rows.sort_unstable();
    let known: Vec<(&Image, &[f32])> = { rows.iter().map(|row| &manifest.images[*row]) }
        .filter_map(|image| Some((image, embedded.get(&image.id)?)))
        .collect();
    let found = parallel::map(known.len(), |i| suspect(&known, i), done);
    found.into_iter().flatten().collect()
}

fn suspect(known: &[(&Image, &[f32])], image_idx: usize) -> Option<Suspect> {
    let (image, embedding) = known[image_idx];
    let neighbors = nearest(known, image_idx, embedding);
    let mut n_of_label: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, other) in &neighbors {
        *n_of_label.entry(&known[*other].0.label).or_default() += 1;
    }
    let (label, n_agreeing) = n_of_label.iter().max_by_key(|(_, n)| **n)?;
    if *label == image.label || 2 * n_agreeing <= neighbors.len() {
        return None;
    }
    let nearest = { neighbors.iter() }.find(|(_, other)| known[*other].0.label == *label)?;
    Some(Suspect {
        path: image.path.clone(),
        label: image.label.clone(),
        neighbors_label: (*label).to_owned(),
        n_agreeing: *n_agreeing,
        n_own: n_of_label.get(image.label.as_str()).copied().unwrap_or(0),
        n_neighbors: neighbors.len(),
        nearest: known[nearest.1].0.path.clone(),
    })
}

/// Best first, ties by image id.
fn nearest(known: &[(&Image, &[f32])], image_idx: usize, embedding: &[f32]) -> Vec<(Score, usize)> {
    let mut best: Vec<(Score, usize)> = Vec::with_capacity(N_NEIGHBORS + 1);
    let key = |(score, other): (Score, usize)| (score, known[other].0.id, 0);
    for (other, (_, values)) in known.iter().enumerate() {
        if other == image_idx {
            continue;
        }
        let found = (dot(embedding, values), other);
        let place = best.partition_point(|better| by_rank(key(*better), key(found)).is_lt());
        if place < N_NEIGHBORS {
            best.insert(place, found);
            best.truncate(N_NEIGHBORS);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::fingerprint::{Fingerprint, SpaceId};

    /// Images with a label and a direction in degrees.
    fn example(images: &[(&str, f32)]) -> (Manifest, EmbeddedImages) {
        let mut embedded = EmbeddedImages::new(SpaceId(Fingerprint([0; 32])), 2);
        let mut manifest = Manifest {
            root: "data".into(),
            images: Vec::new(),
        };
        for (i, (label, degrees)) in images.iter().enumerate() {
            let id = ImageId([i as u8; 16]);
            let angle = degrees.to_radians();
            embedded.insert(id, &[angle.cos(), angle.sin()]);
            manifest.images.push(Image {
                path: format!("{i}.jpg"),
                label: (*label).to_owned(),
                split: "train".into(),
                is_query: true,
                is_gallery: true,
                id,
            });
        }
        (manifest, embedded)
    }

    #[test]
    fn an_image_among_those_of_another_label_is_named() {
        let mut images = Vec::new();
        for i in 0..6 {
            images.push(("pear", i as f32));
            images.push(("plum", 90.0 + i as f32));
        }
        images.push(("plum", 2.5));
        let (mut manifest, embedded) = example(&images);
        let found = suspects(&manifest, &embedded, &|| {});
        let expected = Suspect {
            path: "12.jpg".into(),
            label: "plum".into(),
            neighbors_label: "pear".into(),
            n_agreeing: 5,
            n_own: 0,
            n_neighbors: 5,
            nearest: "4.jpg".into(),
        };
        assert_eq!(found, [expected]);
        // A copy of it is not a neighbor, and named no second time.
        let copy = manifest.images[12].clone();
        manifest.images.push(copy);
        assert_eq!(suspects(&manifest, &embedded, &|| {}), found);
        manifest.images[12].label = "pear".into();
        assert_eq!(suspects(&manifest, &embedded, &|| {}), []);
    }

    #[test]
    fn little_or_divided_company_accuses_nobody() {
        let (manifest, embedded) = example(&[("a", 0.0)]);
        assert_eq!(suspects(&manifest, &embedded, &|| {}), []);
        let all = [("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0)];
        let (manifest, embedded) = example(&all);
        assert_eq!(suspects(&manifest, &embedded, &|| {}), []);
    }
}
