//! The random view of an image that a step shows, and the teacher's embedding of it.

use std::sync::{Arc, OnceLock};

use eyas_shared::preprocess::RgbImage;
use eyas_shared::random::Random;

use super::augment::View;
use crate::recipe::{Recipe, TeacherViews};
use crate::teacher::Teacher;

/// Where in training a view is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) step: usize,
    /// Position of the image in the batch.
    pub(super) position: usize,
    /// Which of the views of this image.
    pub(super) view_idx: usize,
}

/// What a view is compared with.
#[derive(Clone)]
pub(super) enum Targets {
    /// Labels, or the teacher's embedding of the whole image: the views are free.
    OfImages,
    /// The teacher's embedding of the very view.
    Online(Arc<Teacher>),
    /// The same, of a few views of each image that are embedded when first shown and kept.
    Kept(Arc<KeptViews>),
}

/// Embeddings of a few views of each image.
pub(super) struct KeptViews {
    teacher: Arc<Teacher>,
    n_views: usize,
    /// View `v` of image `i` at `i * n_views + v`.
    embeddings: Vec<OnceLock<Vec<f32>>>,
}

impl Targets {
    /// What a recipe asks for over `n_images` images.
    ///
    /// # Errors
    /// If the teacher can not embed views.
    pub(super) fn new(
        views: TeacherViews,
        teacher: Option<&Arc<Teacher>>,
        n_images: usize,
    ) -> Result<Self, String> {
        let with_networks = || {
            let teacher = teacher.expect("a recipe with teacher views is given a teacher");
            let checked = teacher.networks().map(|_| Arc::clone(teacher));
            checked.map_err(|err| format!("teacher_views: {err}"))
        };
        Ok(match views {
            TeacherViews::None | TeacherViews::Cached => Self::OfImages,
            TeacherViews::Online => Self::Online(with_networks()?),
            TeacherViews::CachedViews(n_views) => Self::Kept(Arc::new(KeptViews {
                teacher: with_networks()?,
                n_views,
                embeddings: (0..n_images * n_views).map(|_| OnceLock::new()).collect(),
            })),
        })
    }

    /// A view of an image with the teacher's embedding of it, if that is the target.
    ///
    /// # Errors
    /// If the teacher can not embed it.
    pub(super) fn view(
        &self,
        recipe: &Recipe,
        image: &RgbImage,
        image_idx: usize,
        place: Place,
    ) -> Result<(View, Option<Vec<f32>>), String> {
        let root = Random::new(recipe.seed);
        let mut here = root
            .fork("augment")
            .at(place.step as u64)
            .at(place.position as u64);
        let draw = |random: &mut Random| View::draw(image, &recipe.augmentation, random);
        let failed = |err| format!("the teacher can not embed a view: {err}");
        match self {
            Self::OfImages => Ok((draw(&mut here.at(place.view_idx as u64)), None)),
            Self::Online(teacher) => {
                let view = draw(&mut here.at(place.view_idx as u64));
                let embedding = embed(teacher, image, &view).map_err(failed)?;
                Ok((view, Some(embedding)))
            }
            Self::Kept(kept) => {
                // The views of one image in one step are different ones, as far as they go.
                let chosen = (here.below(kept.n_views) + place.view_idx) % kept.n_views;
                let of_image = root.fork("kept views").at(image_idx as u64);
                let view = draw(&mut of_image.at(chosen as u64));
                let slot = &kept.embeddings[image_idx * kept.n_views + chosen];
                let embedding = match slot.get() {
                    Some(embedding) => embedding.clone(),
                    None => {
                        let embedding = embed(&kept.teacher, image, &view).map_err(failed)?;
                        // Another worker may have embedded it too, with the same result.
                        slot.get_or_init(|| embedding).clone()
                    }
                };
                Ok((view, Some(embedding)))
            }
        }
    }
}

fn embed(teacher: &Teacher, image: &RgbImage, view: &View) -> Result<Vec<f32>, String> {
    let embedding = teacher.embed_pixels(&|spec| view.pixels(image, spec));
    embedding.map_err(|err| err.to_string())
}
