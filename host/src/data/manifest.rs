//! The list of images that everything else works from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use eyas_shared::fingerprint::{Fingerprint, Fingerprinter, ImageId};
use eyas_shared::random::Random;

/// Images with their labels and roles.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Folder that paths are relative to.
    pub root: PathBuf,
    /// In the order of their source: sorted folders, or lines of a list.
    pub images: Vec<Image>,
}

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Path relative to the manifest's root, with `/`.
    pub path: String,
    /// What it shows.
    pub label: String,
    /// Part of the data, such as `train`, `val`, `test`, `iconic`.
    pub split: String,
    /// Whether evaluation asks with it.
    pub is_query: bool,
    /// Whether it belongs into a gallery.
    pub is_gallery: bool,
    /// Identity of its content.
    pub id: ImageId,
}

/// Which images of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this split.
    pub split: Option<String>,
    /// Only images with this role.
    pub role: Option<Role>,
}

/// What evaluation does with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It asks.
    Query,
    /// It is searched.
    Gallery,
}

impl Manifest {
    /// The selected images in the manifest's order.
    #[must_use]
    pub fn select(&self, selection: &Selection) -> Manifest {
        let wanted = |image: &&Image| {
            selection
                .split
                .as_ref()
                .is_none_or(|split| image.split == *split)
                && match selection.role {
                    None => true,
                    Some(Role::Query) => image.is_query,
                    Some(Role::Gallery) => image.is_gallery,
                }
        };
        Manifest {
            root: self.root.clone(),
            images: self.images.iter().filter(wanted).cloned().collect(),
        }
    }

    /// Where an image lies.
    #[must_use]
    pub fn path(&self, image: &Image) -> PathBuf {
        self.root.join(&image.path)
    }

    /// Names the images, their labels and roles, wherever they lie.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut print = Fingerprinter::new("eyas manifest 1");
        for image in &self.images {
            print = print
                .field("id", &image.id.0)
                .field("path", image.path.as_bytes())
                .field("label", image.label.as_bytes())
                .field("split", image.split.as_bytes())
                .field(
                    "role",
                    &[u8::from(image.is_query), u8::from(image.is_gallery)],
                );
        }
        print.finish()
    }

    /// The first image of each content, in the manifest's order.
    #[must_use]
    pub fn distinct(&self) -> Manifest {
        let mut seen = BTreeSet::new();
        let first = self.images.iter().filter(|image| seen.insert(image.id));
        Manifest {
            root: self.root.clone(),
            images: first.cloned().collect(),
        }
    }

    /// The different labels, sorted.
    #[must_use]
    pub fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = self
            .images
            .iter()
            .map(|image| image.label.as_str())
            .collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// The list as CSV with a header, paths relative to the root: [`super::open`] reads it
    /// when it lies there.
    #[must_use]
    pub fn to_csv(&self) -> String {
        super::csv::write(self)
    }

    /// Carves a validation part out of training images: `(training, validation)`, both in
    /// the manifest's order.
    ///
    /// About `fraction` (0 to 1) of each label's images validate; every label keeps at
    /// least one for training. Copies of one file stay on one side. Labels are drawn
    /// independently, so images of a new label do not move the others.
    #[must_use]
    pub fn split_validation(&self, fraction: f64, seed: u64) -> (Manifest, Manifest) {
        let random = Random::new(seed).fork("validation");
        let mut seen: BTreeSet<ImageId> = BTreeSet::new();
        let mut images_of_labels: BTreeMap<&str, Vec<ImageId>> = BTreeMap::new();
        for image in self.images.iter().filter(|image| seen.insert(image.id)) {
            images_of_labels
                .entry(&image.label)
                .or_default()
                .push(image.id);
        }
        let mut held_out: BTreeSet<ImageId> = BTreeSet::new();
        for (label, mut rows) in images_of_labels {
            let mut random = random.fork(label);
            random.shuffle(&mut rows);
            // Rounded at random, so that labels of few images give their share on average.
            let wanted = (fraction.clamp(0.0, 1.0) * rows.len() as f64 + random.unit()) as usize;
            held_out.extend(&rows[..wanted.min(rows.len() - 1)]);
        }
        let part = |validates: bool| Manifest {
            root: self.root.clone(),
            images: self
                .images
                .iter()
                .filter(|image| held_out.contains(&image.id) == validates)
                .cloned()
                .collect(),
        };
        (part(false), part(true))
    }
}
