//! A procedural data set: packaged goods on shelves, drawn by a small software renderer.
//!
//! It needs no download and still looks like the job: many products of which several share
//! a brand, plain gallery pictures, queries from among neighbours under bad light. It says
//! nothing about real photographs: scores on it compare methods, they promise no product.
//!
//! Everything is a function of the seed: the same configuration gives the same bytes on
//! any number of threads.

mod canvas;
mod emblem;
mod fractal;
mod generate;
mod label;
mod photo;
mod product;
mod texture;
mod view;

use std::fs;
use std::path::{Path, PathBuf};

use eyas_shared::files::FileError;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::preprocess::DecodeError;
use eyas_shared::random::Random;
use thiserror::Error;

use crate::data::{Image, MANIFEST_NAME, Manifest, parallel};
pub use generate::{GenerateConfig, KINDS, generate_dataset};

use product::Product;
use view::Setting;

/// Products that only stand around others.
const N_FILLERS: u64 = 64;

/// Share of training views that look like gallery pictures.
const STUDIO_SHARE: f64 = 0.25;

/// Side of a picture in pixels.
const MIN_SIDE: usize = 32;
const MAX_SIDE: usize = 1024;

/// Largest number of classes, and of views of one class.
const MAX_COUNT: usize = 9999;

/// What is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthConfig {
    /// Products to train on.
    pub n_train_classes: usize,
    /// Pictures of each.
    pub n_train_views: usize,
    /// Other products, to test on.
    pub n_unseen_classes: usize,
    /// Plain pictures of each, for the gallery.
    pub n_gallery_views: usize,
    /// Pictures of each from the shelf, to ask with.
    pub n_query_views: usize,
    /// Another seed makes other products.
    pub seed: u64,
    /// Width and height of a picture in pixels.
    pub side: usize,
}

impl SynthConfig {
    /// What the demo renders.
    pub const DEMO: Self = Self {
        n_train_classes: 60,
        n_train_views: 30,
        n_unseen_classes: 40,
        n_gallery_views: 3,
        n_query_views: 5,
        seed: 1,
        side: 128,
    };

    /// Number of pictures.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.n_train_classes * self.n_train_views
            + self.n_unseen_classes * (self.n_gallery_views + self.n_query_views)
    }

    fn check(&self) -> Result<(), SynthError> {
        let counts = [
            ("training classes", self.n_train_classes),
            ("training views", self.n_train_views),
            ("unseen classes", self.n_unseen_classes),
            ("gallery views", self.n_gallery_views),
            ("query views", self.n_query_views),
        ];
        let range = |what, value, low, high| SynthError::Range {
            what,
            value,
            low,
            high,
        };
        for (what, value) in counts {
            if value > MAX_COUNT {
                return Err(range(what, value, 0, MAX_COUNT));
            }
        }
        if !(MIN_SIDE..=MAX_SIDE).contains(&self.side) {
            return Err(range("side in pixels", self.side, MIN_SIDE, MAX_SIDE));
        }
        if self.n_images() == 0 {
            return Err(range("number of pictures", 0, 1, usize::MAX));
        }
        Ok(())
    }
}

/// Why a data set can not be rendered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SynthError {
    /// A setting out of range.
    #[error("{what}: {value}; {low} to {high} can be rendered")]
    Range {
        /// Which setting.
        what: &'static str,
        /// What was asked for.
        value: usize,
        /// Least that works.
        low: usize,
        /// Most that works.
        high: usize,
    },
    /// The folder holds something.
    #[error("`{}` is already there and not empty; remove it or name another folder", path.display())]
    NotEmpty {
        /// Which folder.
        path: PathBuf,
    },
    /// A file can not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A photograph to be cropped that is no image.
    #[error("photograph `{}` can not be decoded: {source}", path.display())]
    Photograph {
        /// Which file.
        path: PathBuf,
        /// What the decoder found.
        source: DecodeError,
    },
    /// A picture can not be compressed.
    #[error("could not compress a picture: {0}")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
}

/// Renders into `dir`, which must be empty or not there yet: `train`, `gallery` and `query`,
/// each with one folder per product, and `manifest.csv`. No product is in `train` and also
/// in another part. `progress` is called after each picture.
///
/// The folder appears when it is complete; until then, and after a failure, work lies in a
/// hidden folder beside it, which the next run clears.
///
/// # Errors
/// If a setting is out of range, the folder holds something, or a file can not be written.
pub fn render_dataset(
    dir: &Path,
    config: &SynthConfig,
    progress: &dyn Fn(),
) -> Result<Manifest, SynthError> {
    config.check()?;
    in_workplace(dir, |root| render_into(root, config, progress))
}

/// Fills a hidden folder beside `dir`, adds the list of its images, and gives it its name.
fn in_workplace(
    dir: &Path,
    fill: impl FnOnce(&Path) -> Result<Vec<Image>, SynthError>,
) -> Result<Manifest, SynthError> {
    let is_taken = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut items| items.next().is_some());
    if is_taken(dir) {
        return Err(SynthError::NotEmpty {
            path: dir.to_owned(),
        });
    }
    let workplace = workplace_of(dir);
    if workplace.exists() {
        fs::remove_dir_all(&workplace).map_err(FileError::because("remove", &workplace))?;
    }
    let outcome = fill(&workplace).and_then(|images| {
        let manifest = Manifest {
            root: dir.to_owned(),
            images,
        };
        write(&workplace.join(MANIFEST_NAME), manifest.to_csv().as_bytes())?;
        fs::rename(&workplace, dir).map_err(FileError::because("create folder", dir))?;
        Ok(manifest)
    });
    if outcome.is_err() {
        // The first failure is what the caller needs to know.
        let _ = fs::remove_dir_all(&workplace);
    }
    outcome
}

/// The hidden folder beside `dir` that holds an unfinished data set.
fn workplace_of(dir: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(".unfinished");
    dir.with_file_name(name)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    fs::write(path, bytes).map_err(FileError::because("write", path))
}

/// One picture to be rendered.
struct Shot {
    class: usize,
    view: usize,
    split: &'static str,
}

fn render_into(
    root: &Path,
    config: &SynthConfig,
    progress: &dyn Fn(),
) -> Result<Vec<Image>, SynthError> {
    let shots = shots(config);
    for shot in shots.iter().filter(|shot| shot.view == 1) {
        let folder = root.join(shot.split).join(label_of(shot.class));
        eyas_shared::files::create_folder(&folder)?;
    }
    let random = Random::new(config.seed).fork("synth");
    let renderer = Renderer::new(config, &random);
    let images = parallel::map(
        shots.len(),
        |i| {
            let file = renderer.photograph(&shots[i], &random)?;
            let image = shots[i].image(ImageId::of_file(&file));
            write(&root.join(&image.path), &file)?;
            Ok(image)
        },
        progress,
    );
    images.into_iter().collect()
}

/// Every picture: train, gallery, query, in the order of the manifest.
fn shots(config: &SynthConfig) -> Vec<Shot> {
    let unseen = config.n_train_classes..config.n_train_classes + config.n_unseen_classes;
    let parts = [
        ("train", 0..config.n_train_classes, config.n_train_views),
        ("gallery", unseen.clone(), config.n_gallery_views),
        ("query", unseen, config.n_query_views),
    ];
    let of_part = |(split, classes, n_views): (&'static str, std::ops::Range<usize>, usize)| {
        classes.flat_map(move |class| (1..=n_views).map(move |view| Shot { class, view, split }))
    };
    parts.into_iter().flat_map(of_part).collect()
}

fn label_of(class: usize) -> String {
    format!("product-{:04}", class + 1)
}

impl Shot {
    fn image(&self, id: ImageId) -> Image {
        let label = label_of(self.class);
        Image {
            path: format!("{}/{label}/view-{:04}.jpg", self.split, self.view),
            label,
            split: self.split.to_owned(),
            is_query: self.split == "query",
            is_gallery: self.split != "query",
            id,
        }
    }
}

/// Products with their labels drawn.
struct Renderer {
    /// Training products, then unseen ones.
    products: Vec<Product>,
    fillers: Vec<Product>,
    side: usize,
}

impl Renderer {
    fn new(config: &SynthConfig, random: &Random) -> Self {
        let (train, unseen) = (
            random.fork("train products"),
            random.fork("unseen products"),
        );
        let n_train = config.n_train_classes;
        let filler = random.fork("fillers");
        Self {
            products: parallel::map(
                n_train + config.n_unseen_classes,
                // Two ranges, so that no brand is in both.
                |class| match class.checked_sub(n_train) {
                    None => Product::new(&train, class as u64),
                    Some(class) => Product::new(&unseen, class as u64),
                },
                || {},
            ),
            fillers: (0..N_FILLERS).map(|i| Product::new(&filler, i)).collect(),
            side: config.side,
        }
    }

    /// The JPEG file of one picture.
    fn photograph(&self, shot: &Shot, random: &Random) -> Result<Vec<u8>, SynthError> {
        let random = random
            .fork(shot.split)
            .at(shot.class as u64)
            .at(shot.view as u64);
        let setting = match shot.split {
            "gallery" => Setting::Studio,
            "train" if random.fork("setting").chance(STUDIO_SHARE) => Setting::Studio,
            _ => Setting::Shelf,
        };
        let product = &self.products[shot.class];
        let picture = view::render(product, &self.fillers, setting, self.side, &random);
        Ok(photo::develop(picture, setting, &random)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::data;

    const SMALL: SynthConfig = SynthConfig {
        n_train_classes: 3,
        n_train_views: 4,
        n_unseen_classes: 2,
        n_gallery_views: 1,
        n_query_views: 2,
        seed: 5,
        side: 48,
    };

    fn render(config: &SynthConfig) -> (tempfile::TempDir, Manifest) {
        let folder = tempfile::tempdir().unwrap();
        let manifest = render_dataset(&folder.path().join("set"), config, &|| {}).unwrap();
        (folder, manifest)
    }

    #[test]
    fn a_seed_fixes_every_byte_and_another_changes_them() {
        let (_a, first) = render(&SMALL);
        let (_b, second) = render(&SMALL);
        assert_eq!(first.images, second.images);
        assert_eq!(first.images.len(), SMALL.n_images());
        let (_c, other) = render(&SynthConfig { seed: 6, ..SMALL });
        let ids = |manifest: &Manifest| -> BTreeSet<ImageId> {
            manifest.images.iter().map(|image| image.id).collect()
        };
        assert_eq!(
            ids(&first).len(),
            SMALL.n_images(),
            "no two pictures are alike"
        );
        assert!(ids(&first).is_disjoint(&ids(&other)));
    }

    #[test]
    fn what_was_written_is_what_opens() {
        let (folder, manifest) = render(&SMALL);
        let opened = data::open(&folder.path().join("set")).unwrap();
        assert_eq!(opened.images, manifest.images);
        // Without the list, the folders alone say the same.
        fs::remove_file(folder.path().join("set/manifest.csv")).unwrap();
        let mut by_folder = data::open(&folder.path().join("set")).unwrap().images;
        let mut expected = manifest.images;
        by_folder.sort_by(|a, b| a.path.cmp(&b.path));
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(by_folder, expected);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn training_products_are_never_asked_for_or_searched_among_test_products() {
        let (_folder, manifest) = render(&SMALL);
        let labels = |split: &str| -> BTreeSet<String> {
            let of_split = manifest.images.iter().filter(|image| image.split == split);
            of_split.map(|image| image.label.clone()).collect()
        };
        assert_eq!(labels("train").len(), 3);
        assert_eq!(labels("gallery"), labels("query"));
        assert!(labels("train").is_disjoint(&labels("query")));
    }

    #[test]
    fn folders_with_content_and_settings_out_of_range_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine.txt"), "x").unwrap();
        let said = |dir: &Path, config: &SynthConfig| {
            render_dataset(dir, config, &|| {}).unwrap_err().to_string()
        };
        assert!(said(folder.path(), &SMALL).contains("not empty; remove it"));
        let new = folder.path().join("new");
        let message = said(&new, &SynthConfig { side: 8, ..SMALL });
        assert_eq!(message, "side in pixels: 8; 32 to 1024 can be rendered");
        assert!(!new.exists());
    }
}
