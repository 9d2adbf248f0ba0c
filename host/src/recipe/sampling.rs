//! What a training step sees: which images, how they are changed, whose embeddings are
//! the target.

use serde::{Deserialize, Serialize};

use super::tuple_batch::TupleBatch;

/// How the images of a step are chosen. Every kind follows from seed, epoch and step; hard
/// tuples also from the network's weights when their epoch begins.
///
/// An epoch has as many steps as whole batches fit into the training images, or as there are
/// tuples for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Batch {
    /// Every image once an epoch, in random order.
    Shuffled {
        /// Different images.
        images: usize,
        /// Augmented views of each image.
        views: usize,
    },
    /// Images of some labels: all labels are drawn equally often, and so are the images of
    /// one label.
    PerLabel {
        /// Different labels.
        labels: usize,
        /// Images of each; different ones if the label has so many.
        images_per_label: usize,
        /// Augmented views of each image.
        views: usize,
    },
    /// All labels are drawn equally often, however many images each has.
    Balanced {
        /// Images.
        images: usize,
        /// Augmented views of each image.
        views: usize,
    },
    /// Tuples of a query, a positive and negatives, made when an epoch begins.
    Tuples(TupleBatch),
}

impl Batch {
    /// Images of a step.
    #[must_use]
    pub fn images(&self) -> usize {
        match *self {
            Self::Shuffled { images, .. } | Self::Balanced { images, .. } => images,
            Self::PerLabel {
                labels,
                images_per_label,
                ..
            } => labels.saturating_mul(images_per_label),
            Self::Tuples(batch) => batch.images(),
        }
    }

    /// Augmented views of each image.
    #[must_use]
    pub fn views(&self) -> usize {
        match *self {
            Self::Shuffled { views, .. }
            | Self::PerLabel { views, .. }
            | Self::Balanced { views, .. }
            | Self::Tuples(TupleBatch { views, .. }) => views,
        }
    }

    /// Inputs of the network in a step.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.images().saturating_mul(self.views())
    }

    /// Steps of one epoch over `n_images` images: whole batches; a rest waits for another
    /// epoch's order.
    #[must_use]
    pub fn steps_per_epoch(&self, n_images: usize) -> usize {
        match self {
            Self::Tuples(batch) => batch.steps_per_epoch(),
            _ => (n_images / self.images()).max(1),
        }
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        let rows = self.rows();
        if let Self::Tuples(batch) = self
            && let Some(fault) = batch.fault()
        {
            Some(fault)
        } else if self.images() < 2 || self.views() == 0 {
            Some("batch needs 2 images and 1 view")
        } else if rows > MAX_ROWS {
            Some("batch has more than 65536 rows")
        } else {
            None
        }
    }
}

/// Far beyond any memory.
const MAX_ROWS: usize = 1 << 16;

/// Which embeddings of the teacher a student's view is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherViews {
    /// There is no teacher: one is being trained.
    None,
    /// The teacher's embedding of the whole, unchanged image, made once and kept.
    Cached,
    /// So many random views of each image, embedded once and kept: the student sees these
    /// very views and no others.
    CachedViews(usize),
    /// The teacher embeds the very view that the student sees, at its own resolution
    /// (Beyer et al., CVPR 2022).
    Online,
}

/// Random changes of training images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Smallest and largest share of the area that a random crop keeps, in (0, 1].
    pub crop_area: [f64; 2],
    /// Smallest and largest width / height of the crop.
    pub crop_aspect: [f64; 2],
    /// Whether half of the views are mirrored left to right.
    pub mirror: bool,
    /// Largest relative change of brightness, contrast and saturation.
    pub jitter: f64,
}

impl Augmentation {
    pub(super) fn fault(&self) -> Option<&'static str> {
        let [small, large] = self.crop_area;
        let [narrow, broad] = self.crop_aspect;
        if !(0.0 < small && small <= large && large <= 1.0) {
            Some("crop_area is not in (0, 1]")
        } else if !(0.0 < narrow && narrow <= broad && broad.is_finite()) {
            Some("crop_aspect is empty")
        } else if !(0.0..1.0).contains(&self.jitter) {
            Some("jitter is not in 0..1")
        } else {
            None
        }
    }
}
