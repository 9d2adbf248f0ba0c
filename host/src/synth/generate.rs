//! Pictures without labels for a student's first lessons: fractals, textures, rendered
//! shelves, and crops of photographs.
//!
//! A teacher embeds them once and a student learns to put them where the teacher does:
//! that needs no label and, but for the crops, no photograph. The label of a picture here
//! is only its kind. All of it is a function of the seed.

use std::path::Path;

use eyas_shared::files;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::preprocess::{self, Filter, Limits, RgbImage, SourceBox};
use eyas_shared::random::Random;
use jpeg_encoder::{ColorType, Encoder};

use super::canvas::Canvas;
use super::product::Product;
use super::view::{self, Setting};
use super::{
    MAX_SIDE, MIN_SIDE, N_FILLERS, SynthError, fractal, in_workplace, photo, texture, write,
};
use crate::data::{Image, Manifest, parallel};

/// Largest number of generated pictures, and of crops of one photograph.
const MAX_IMAGES: usize = 1_000_000;

/// Folder and label of the crops.
const CROP: &str = "crop";

/// Products on the rendered shelves.
const N_PRODUCTS: u64 = 256;

/// Share of a photograph's area that a crop keeps, and its width / height.
const CROP_AREA: [f64; 2] = [0.15, 1.0];
const CROP_ASPECT: [f64; 2] = [0.75, 4.0 / 3.0];

/// JPEG quality of crops: a photograph is not to be compressed a second time for the eye.
const CROP_QUALITY: u8 = 90;

/// What is generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateConfig {
    /// Pictures, in equal shares of [`KINDS`].
    pub n_images: usize,
    /// Crops of every photograph.
    pub n_crops: usize,
    /// Another seed makes other pictures.
    pub seed: u64,
    /// Width and height of a picture in pixels.
    pub side: usize,
}

/// The kinds of generated pictures, which are their labels too.
pub const KINDS: [&str; 6] = ["fractal", "noise", "stripes", "cells", "leaves", "shelf"];

impl GenerateConfig {
    fn check(&self, n_photographs: usize) -> Result<(), SynthError> {
        let n_crops = n_photographs.saturating_mul(self.n_crops);
        let n_all = self.n_images.saturating_add(n_crops);
        for (what, value, low, high) in [
            ("generated pictures", self.n_images, 0, MAX_IMAGES),
            ("number of pictures", n_all, 1, MAX_IMAGES),
            ("side in pixels", self.side, MIN_SIDE, MAX_SIDE),
        ] {
            if !(low..=high).contains(&value) {
                return Err(SynthError::Range {
                    what,
                    value,
                    low,
                    high,
                });
            }
        }
        Ok(())
    }
}

/// Writes `train/KIND/NUMBER.jpg` and `manifest.csv` into `dir`, which must be empty or not
/// there yet; crops are of all images of `photographs`. `progress` is called after each
/// picture.
///
/// # Errors
/// If a setting is out of range, the folder holds something, a photograph can not be
/// decoded, or a file can not be written.
pub fn generate_dataset(
    dir: &Path,
    config: &GenerateConfig,
    photographs: &Manifest,
    progress: &dyn Fn(),
) -> Result<Manifest, SynthError> {
    config.check(photographs.images.len())?;
    in_workplace(dir, |root| {
        for kind in KINDS.into_iter().chain([CROP]) {
            files::create_folder(&root.join("train").join(kind))?;
        }
        let random = Random::new(config.seed).fork("generate");
        let studio = Studio::new(&random);
        let n_crops = photographs.images.len() * config.n_crops;
        let picture = |number: usize| {
            let (kind, at, file) = match number.checked_sub(config.n_images) {
                None => {
                    let kind = KINDS[number % KINDS.len()];
                    let random = random.fork(kind).at(number as u64);
                    let file = studio.photograph(kind, config.side, &random)?;
                    (kind, number, file)
                }
                Some(at) => (CROP, at, crop(photographs, config, at, &random)?),
            };
            let image = image(kind, at, ImageId::of_file(&file));
            write(&root.join(&image.path), &file)?;
            Ok(image)
        };
        let images = parallel::map(config.n_images + n_crops, picture, progress);
        images.into_iter().collect()
    })
}

fn image(kind: &str, number: usize, id: ImageId) -> Image {
    Image {
        path: format!("train/{kind}/{number:06}.jpg"),
        label: kind.to_owned(),
        split: "train".to_owned(),
        is_query: false,
        is_gallery: false,
        id,
    }
}

/// Products for the shelves, with their labels drawn.
struct Studio {
    products: Vec<Product>,
    fillers: Vec<Product>,
}

impl Studio {
    fn new(random: &Random) -> Self {
        let products = |name: &str, n: u64| {
            let random = random.fork(name);
            parallel::map(n as usize, |i| Product::new(&random, i as u64), || {})
        };
        Self {
            products: products("products", N_PRODUCTS),
            fillers: products("fillers", N_FILLERS),
        }
    }

    /// The JPEG file of a generated picture.
    fn photograph(&self, kind: &str, side: usize, random: &Random) -> Result<Vec<u8>, SynthError> {
        let mut here = random.fork("scene");
        let setting = if here.chance(0.6) {
            Setting::Shelf
        } else {
            Setting::Studio
        };
        let picture: Canvas = match kind {
            "fractal" => fractal::fractals(side, &mut here),
            "noise" => texture::noise(side, &mut here),
            "stripes" => texture::stripes(side, &mut here),
            "cells" => texture::cells(side, &mut here),
            "leaves" => texture::leaves(side, &mut here),
            _ => {
                let product = &self.products[here.below(self.products.len())];
                view::render(product, &self.fillers, setting, side, random)
            }
        };
        Ok(photo::develop(picture, setting, random)?)
    }
}

/// The JPEG file of one crop: those of a photograph have successive numbers.
fn crop(
    photographs: &Manifest,
    config: &GenerateConfig,
    number: usize,
    random: &Random,
) -> Result<Vec<u8>, SynthError> {
    let listed = &photographs.images[number / config.n_crops];
    let path = photographs.path(listed);
    let bytes = files::read(&path, Limits::DEFAULT.max_bytes)?;
    let photograph = preprocess::decode(&bytes, &Limits::DEFAULT)
        .map_err(|source| SynthError::Photograph { path, source })?;
    let mut random = random.fork(CROP).at(number as u64);
    let source = random_box(&photograph, &mut random);
    let side = config.side as u32;
    let cut = preprocess::resize(&photograph, source, side, side, Filter::Bilinear);
    let mut file = Vec::new();
    let extent = config.side as u16;
    Encoder::new(&mut file, CROP_QUALITY).encode(&cut.samples, extent, extent, ColorType::Rgb)?;
    Ok(file)
}

/// A box of random area and shape, cut off where the image ends.
fn random_box(image: &RgbImage, random: &mut Random) -> SourceBox {
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let area = width * height * random.range(CROP_AREA[0], CROP_AREA[1]);
    let aspect = random.range(CROP_ASPECT[0].ln(), CROP_ASPECT[1].ln()).exp();
    let box_width = (area * aspect).sqrt().clamp(1.0, width);
    let box_height = (area / aspect).sqrt().clamp(1.0, height);
    let left = random.range(0.0, width - box_width);
    let top = random.range(0.0, height - box_height);
    SourceBox {
        left,
        top,
        right: (left + box_width).min(width),
        bottom: (top + box_height).min(height),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    const SMALL: GenerateConfig = GenerateConfig {
        n_images: 12,
        n_crops: 2,
        seed: 5,
        side: 48,
    };

    fn nothing() -> Manifest {
        Manifest {
            root: std::path::PathBuf::new(),
            images: Vec::new(),
        }
    }

    #[test]
    fn a_seed_fixes_every_byte_and_another_changes_them() {
        let folder = tempfile::tempdir().unwrap();
        let generate = |name: &str, config: &GenerateConfig| {
            let dir = folder.path().join(name);
            generate_dataset(&dir, config, &nothing(), &|| {}).unwrap()
        };
        let first = generate("a", &SMALL);
        assert_eq!(first.images, generate("b", &SMALL).images);
        assert_eq!(first.images.len(), 12);
        let other = generate("c", &GenerateConfig { seed: 6, ..SMALL });
        for (a, b) in first.images.iter().zip(&other.images) {
            assert_ne!(a.id, b.id, "{}", a.path);
        }
        let opened = data::open(&folder.path().join("a")).unwrap();
        assert_eq!(opened.images, first.images);
        assert_eq!(opened.labels().len(), KINDS.len());
    }

    #[test]
    fn pictures_are_no_plain_surfaces() {
        let random = Random::new(1);
        let studio = Studio::new(&random);
        for kind in KINDS {
            for number in 0..4 {
                let file = studio.photograph(kind, 64, &random.at(number)).unwrap();
                let image = preprocess::decode(&file, &Limits::DEFAULT).unwrap();
                let low = image.samples.iter().min().unwrap();
                let high = image.samples.iter().max().unwrap();
                assert!(high - low > 20, "{kind} {number}: {low} to {high}");
            }
        }
    }

    #[test]
    fn every_photograph_is_cropped_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let shots = folder.path().join("shots");
        let config = GenerateConfig {
            n_crops: 0,
            ..SMALL
        };
        let photographs = generate_dataset(&shots, &config, &nothing(), &|| {}).unwrap();
        let config = GenerateConfig {
            n_images: 0,
            ..SMALL
        };
        let crops = folder.path().join("crops");
        let found = generate_dataset(&crops, &config, &photographs, &|| {}).unwrap();
        assert_eq!(found.images.len(), 24);
        assert!(found.images.iter().all(|image| image.label == CROP));

        let broken = photographs.path(&photographs.images[3]);
        std::fs::write(&broken, "no image").unwrap();
        let again = folder.path().join("again");
        let err = generate_dataset(&again, &config, &photographs, &|| {}).unwrap_err();
        assert!(
            err.to_string().contains(&broken.display().to_string()),
            "{err}"
        );
        assert!(!again.exists());
    }

    #[test]
    fn nothing_to_generate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = GenerateConfig {
            n_images: 0,
            ..SMALL
        };
        let err = generate_dataset(&folder.path().join("x"), &config, &nothing(), &|| {});
        let said = err.unwrap_err().to_string();
        assert_eq!(said, "number of pictures: 0; 1 to 1000000 can be rendered");
    }
}
