//! The map from a teacher's features to its embeddings: principal components of the
//! training images, whitened in part or as their labels teach.

use eyas_shared::embedding::{self, Embeddings};
use eyas_shared::fingerprint::{Fingerprint, Fingerprinter};
use eyas_shared::quant;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::whitening::{self, WhiteningError};
use crate::linear_algebra::{self, Matrix};

/// Components whose share of the largest variance is below this are rounding noise.
const MIN_VARIANCE_SHARE: f64 = 1e-9;

/// `matrix (x - mean)`; the caller scales the result to length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// Subtracted first.
    pub mean: Vec<f32>,
    /// One row for each component of the result.
    pub matrix: Embeddings,
    /// How its components were scaled.
    pub whitening: Whitening,
}

/// How the components of a projection are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Whitening {
    /// Component i by variance_i^(-w/2): w = 0 keeps distances, 1 makes all variances equal.
    Variance(f32),
    /// So that images of one label differ equally much in all directions (learned
    /// whitening: Mikolajczyk and Matas, ICCV 2007; Radenovic et al., TPAMI 2019).
    Labels(LearnedWhitening),
    /// The same, learned from so many pairs of images that show the same, as published.
    Pairs(u32),
}

/// Settings of a whitening that is learned from labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearnedWhitening {
    /// Principal components that are kept before; fewer forget noise.
    pub components: u32,
    /// Added to the covariance within labels, in multiples of its mean variance.
    pub shrinkage: f32,
}

impl std::fmt::Display for Whitening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variance(exponent) => write!(f, "{exponent}"),
            Self::Labels(LearnedWhitening {
                components,
                shrinkage,
            }) => write!(
                f,
                "learned from labels in {components} components with shrinkage {shrinkage}"
            ),
            Self::Pairs(n_pairs) => write!(f, "learned from {n_pairs} pairs"),
        }
    }
}

/// Why no projection fits.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum FitError {
    /// Too few images or features for that many components.
    #[error(
        "{n_images} images with {n_features} features have {n_directions} directions of variation, {dim} are asked for; ask for fewer dimensions or give more images"
    )]
    TooFewDirections {
        /// Images that it is fitted on.
        n_images: usize,
        /// Features of each.
        n_features: usize,
        /// Directions in which they differ.
        n_directions: usize,
        /// Components asked for.
        dim: usize,
    },
    /// A whitening exponent out of range.
    #[error("whitening {found} is not in 0..=1")]
    Whitening {
        /// The exponent.
        found: f32,
    },
    /// A shrinkage out of range.
    #[error("shrinkage {found} is not in 0.0001..=100")]
    Shrinkage {
        /// The shrinkage.
        found: f32,
    },
    /// No label has two images to learn from.
    #[error("no label has two images: a whitening can not be learned from labels")]
    NoPairs,
    /// Pairs that no whitening can be learned from.
    #[error(transparent)]
    Pairs(#[from] WhiteningError),
    /// Features that are not numbers.
    #[error(transparent)]
    NotFinite(#[from] linear_algebra::NoEigenvalues),
}

impl Projection {
    /// Principal components of `features` (one row for each image), the `dim` with the
    /// largest variance, each scaled by variance^(-`whitening`/2).
    ///
    /// The smaller of the two Gram matrices, images or features, is decomposed. Signs are
    /// chosen so that each component's largest coefficient is positive.
    ///
    /// # Errors
    /// If there are fewer than `dim` directions, or `whitening` is not in 0..=1.
    pub fn fit(features: &Embeddings, dim: usize, whitening: f32) -> Result<Self, FitError> {
        if !(0.0..=1.0).contains(&whitening) {
            return Err(FitError::Whitening { found: whitening });
        }
        let Components {
            mean,
            variances,
            directions,
            ..
        } = Components::fit(features, dim)?;
        let mut matrix = Embeddings::new(features.dim());
        for (variance, direction) in variances.iter().zip(directions.rows()) {
            let scale = variance.powf(-0.5 * f64::from(whitening));
            let row: Vec<f32> = direction.iter().map(|x| (x * scale) as f32).collect();
            matrix.push(&row);
        }
        Ok(Self {
            mean,
            matrix,
            whitening: Whitening::Variance(whitening),
        })
    }

    /// Whitening that is learned from `labels`, one number for each image of `features`:
    /// principal components, scaled so that images of one label differ equally much in all
    /// directions, and of these the `dim` in which all images vary most.
    ///
    /// # Errors
    /// If there are fewer than `dim` directions, no label has two images, or the shrinkage
    /// is out of range.
    ///
    /// # Panics
    /// If there is not one label for each image.
    pub fn fit_to_labels(
        features: &Embeddings,
        labels: &[usize],
        dim: usize,
        settings: LearnedWhitening,
    ) -> Result<Self, FitError> {
        assert_eq!(labels.len(), features.n_rows(), "a label for each image");
        if !(1e-4..=100.0).contains(&settings.shrinkage) {
            let found = settings.shrinkage;
            return Err(FitError::Shrinkage { found });
        }
        let n_components = settings.components as usize;
        let Components {
            mean,
            directions,
            centered,
            ..
        } = Components::fit(features, n_components.max(dim))?;
        let coordinates = times_transposed(&centered, &directions);
        let whitener = within_label_whitener(&coordinates, labels, settings.shrinkage)?;
        let whitened = times_transposed(&coordinates, &whitener);
        let total = linear_algebra::gram(&whitened.transposed());
        let kept = linear_algebra::largest_eigenpairs(&total, dim)?.vectors;
        // Rows: kept components in whitened, then in plain components, then in features.
        let in_components = times_transposed(&kept, &whitener.transposed());
        let mut in_features = times_transposed(&in_components, &directions.transposed());
        let mut matrix = Embeddings::new(features.dim());
        for row_idx in 0..dim {
            let row = in_features.row_mut(row_idx);
            point_up(row);
            matrix.push(&row.iter().map(|x| *x as f32).collect::<Vec<f32>>());
        }
        Ok(Self {
            mean,
            matrix,
            whitening: Whitening::Labels(settings),
        })
    }

    /// Whitening that is learned from `pairs` of rows of `features` that show the same, as
    /// [`whitening::learn_from_pairs`] does; of its components the `dim` in which all rows
    /// vary most.
    ///
    /// # Errors
    /// If there are fewer than `dim` features, no pairs, or pairs that leave out directions.
    pub fn fit_to_pairs(
        features: &Embeddings,
        pairs: &[(usize, usize)],
        dim: usize,
    ) -> Result<Self, FitError> {
        let (n_images, n_features) = (features.n_rows(), features.dim());
        if !(1..=n_features).contains(&dim) {
            return Err(FitError::TooFewDirections {
                n_images,
                n_features,
                n_directions: n_features,
                dim,
            });
        }
        let mut descriptors = Matrix::zeros(n_images, n_features);
        for (row_idx, row) in features.rows().enumerate() {
            let out = descriptors.row_mut(row_idx).iter_mut();
            out.zip(row).for_each(|(out, x)| *out = f64::from(*x));
        }
        let mut learned = whitening::learn_from_pairs(&descriptors, pairs)?;
        let mut matrix = Embeddings::new(n_features);
        for row_idx in 0..dim {
            let row = learned.matrix.row_mut(row_idx);
            point_up(row);
            matrix.push(&row.iter().map(|x| *x as f32).collect::<Vec<f32>>());
        }
        Ok(Self {
            mean: learned.mean.iter().map(|x| *x as f32).collect(),
            matrix,
            whitening: Whitening::Pairs(u32::try_from(pairs.len()).unwrap_or(u32::MAX)),
        })
    }

    /// Components of the result.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.matrix.n_rows()
    }

    /// Maps one vector of features.
    ///
    /// # Panics
    /// If it has another number of features.
    #[must_use]
    pub fn apply(&self, features: &[f32]) -> Vec<f32> {
        assert_eq!(
            features.len(),
            self.mean.len(),
            "another number of features"
        );
        let centered: Vec<f32> = features
            .iter()
            .zip(&self.mean)
            .map(|(x, mean)| x - mean)
            .collect();
        let along = |row| embedding::dot(row, &centered);
        self.matrix.rows().map(along).collect()
    }

    /// Stands for "no map" where a map is named.
    #[must_use]
    pub fn none_fingerprint() -> Fingerprint {
        Fingerprinter::new("eyas no projection").finish()
    }

    /// Names the map.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprinter::new("eyas projection 1")
            .field("mean", &quant::f32_bytes(&self.mean))
            .field("matrix", &quant::f32_bytes(self.matrix.values()))
            .finish()
    }
}

/// Principal components of features.
struct Components {
    mean: Vec<f32>,
    /// The largest first.
    variances: Vec<f64>,
    /// Unit rows.
    directions: Matrix,
    /// Features less their mean.
    centered: Matrix,
}

impl Components {
    fn fit(features: &Embeddings, n: usize) -> Result<Self, FitError> {
        let (n_images, n_features) = (features.n_rows(), features.dim());
        let too_few = |n_directions| FitError::TooFewDirections {
            n_images,
            n_features,
            n_directions,
            dim: n,
        };
        let most = n_features.min(n_images.saturating_sub(1));
        if n == 0 || n > most {
            return Err(too_few(most));
        }
        let (mean, centered) = center(features);
        let (variances, directions) = principal_components(&centered, n)?;
        let least = variances[0] * MIN_VARIANCE_SHARE;
        let n_directions = variances.iter().take_while(|v| **v > least).count();
        if n_directions < n {
            return Err(too_few(n_directions));
        }
        Ok(Self {
            mean,
            variances,
            directions,
            centered,
        })
    }
}

/// (S + shrinkage * mean variance)^(-1/2), symmetric, with S the covariance of `coordinates`
/// (one row for each image) around the mean of their label.
fn within_label_whitener(
    coordinates: &Matrix,
    labels: &[usize],
    shrinkage: f32,
) -> Result<Matrix, FitError> {
    let (n_images, n_components) = (coordinates.n_rows(), coordinates.n_cols());
    let n_labels = labels.iter().max().map_or(0, |most| most + 1);
    let mut means = Matrix::zeros(n_labels, n_components);
    let mut counts = vec![0.0_f64; n_labels];
    for (row, &label) in coordinates.rows().zip(labels) {
        counts[label] += 1.0;
        for (mean, x) in means.row_mut(label).iter_mut().zip(row) {
            *mean += x;
        }
    }
    if counts.iter().all(|count| *count < 2.0) {
        return Err(FitError::NoPairs);
    }
    let mut residuals = Matrix::zeros(n_images, n_components);
    for (row_idx, &label) in labels.iter().enumerate() {
        let (row, sums) = (coordinates.row(row_idx), means.row(label));
        let out = residuals.row_mut(row_idx);
        for ((out, x), sum) in out.iter_mut().zip(row).zip(sums) {
            *out = x - sum / counts[label];
        }
    }
    let mut within = linear_algebra::gram(&residuals.transposed());
    let trace: f64 = (0..n_components).map(|i| within.row(i)[i]).sum();
    let added = f64::from(shrinkage) * trace / n_components as f64;
    for i in 0..n_components {
        within.row_mut(i)[i] += added;
    }
    let pairs = linear_algebra::symmetric_eigen(within)?;
    let mut scaled = pairs.vectors.clone();
    for (i, value) in pairs.values.iter().enumerate() {
        let scale = (value / n_images as f64).max(f64::MIN_POSITIVE).powf(-0.25);
        scaled.row_mut(i).iter_mut().for_each(|x| *x *= scale);
    }
    // V^T diag(l^-1/2) V, as (l^-1/4 V)^T (l^-1/4 V).
    let by_component = scaled.transposed();
    Ok(times_transposed(&by_component, &by_component))
}

/// `a b^T`, for rows of equal length.
fn times_transposed(a: &Matrix, b: &Matrix) -> Matrix {
    let mut out = Matrix::zeros(a.n_rows(), b.n_rows());
    for row_idx in 0..a.n_rows() {
        for (out, column) in out.row_mut(row_idx).iter_mut().zip(b.rows()) {
            *out = linear_algebra::dot(a.row(row_idx), column);
        }
    }
    out
}

fn center(features: &Embeddings) -> (Vec<f32>, Matrix) {
    let mut mean = vec![0.0_f64; features.dim()];
    for row in features.rows() {
        for (mean, x) in mean.iter_mut().zip(row) {
            *mean += f64::from(*x);
        }
    }
    let n_images = features.n_rows() as f64;
    // Rounded as it is stored: what is fitted is what will be applied.
    let mean: Vec<f32> = mean.iter().map(|sum| (sum / n_images) as f32).collect();
    let mut centered = Matrix::zeros(features.n_rows(), features.dim());
    for (row_idx, row) in features.rows().enumerate() {
        let out = centered.row_mut(row_idx);
        for ((out, x), mean) in out.iter_mut().zip(row).zip(&mean) {
            *out = f64::from(*x) - f64::from(*mean);
        }
    }
    (mean, centered)
}

/// Variances and unit directions, the largest variance first.
fn principal_components(
    centered: &Matrix,
    dim: usize,
) -> Result<(Vec<f64>, Matrix), linear_algebra::NoEigenvalues> {
    let (n_images, n_features) = (centered.n_rows(), centered.n_cols());
    let by_feature = centered.transposed();
    let few_images = n_images < n_features;
    let gram = linear_algebra::gram(if few_images { centered } else { &by_feature });
    let pairs = linear_algebra::largest_eigenpairs(&gram, dim)?;
    let variances = pairs.values.iter().map(|x| x / n_images as f64).collect();
    let mut components = if few_images {
        // X X^T u = l u gives the direction X^T u.
        let mut directions = Matrix::zeros(dim, n_features);
        for component_idx in 0..dim {
            let weights = pairs.vectors.row(component_idx);
            let direction = directions.row_mut(component_idx);
            for (out, column) in direction.iter_mut().zip(by_feature.rows()) {
                *out = linear_algebra::dot(column, weights);
            }
        }
        directions
    } else {
        pairs.vectors
    };
    for component_idx in 0..dim {
        orient(components.row_mut(component_idx));
    }
    Ok((variances, components))
}

/// Length 1, largest coefficient positive.
fn orient(component: &mut [f64]) {
    let length = linear_algebra::dot(component, component).sqrt();
    if length > 0.0 {
        let scale = length.recip();
        component.iter_mut().for_each(|x| *x *= scale);
    }
    point_up(component);
}

/// Turns the sign so that the largest coefficient is positive.
fn point_up(component: &mut [f64]) {
    let largest = component.iter().fold(
        0.0_f64,
        |most, x| if x.abs() > most.abs() { *x } else { most },
    );
    if largest < 0.0 {
        component.iter_mut().for_each(|x| *x = -*x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::random::Random;

    /// f32 storage of the map, f32 sums of up to 40 products.
    const TOLERANCE: f64 = 2e-4;

    /// Features with variances 4^-i along random directions, plus an offset.
    fn features(n_images: usize, n_features: usize) -> Embeddings {
        let mut random = Random::new(11);
        let mixing: Vec<f64> = (0..n_features * n_features)
            .map(|_| random.normal())
            .collect();
        let mut out = Embeddings::new(n_features);
        for _ in 0..n_images {
            let hidden: Vec<f64> = (0..n_features)
                .map(|i| random.normal() * 0.5_f64.powi((i % 12) as i32))
                .collect();
            let row: Vec<f32> = mixing
                .chunks(n_features)
                .map(|weights| (linear_algebra::dot(weights, &hidden) + 3.0) as f32)
                .collect();
            out.push(&row);
        }
        out
    }

    fn covariance(rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let dim = rows[0].len();
        let n = rows.len() as f64;
        let mean: Vec<f64> = (0..dim)
            .map(|i| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / n)
            .collect();
        (0..dim)
            .map(|i| {
                (0..dim)
                    .map(|j| {
                        rows.iter()
                            .map(|r| (f64::from(r[i]) - mean[i]) * (f64::from(r[j]) - mean[j]))
                            .sum::<f64>()
                            / n
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn projected_components_are_uncorrelated_and_scaled_as_asked() {
        for (n_images, n_features) in [(300, 20), (25, 40)] {
            let features = features(n_images, n_features);
            let plain = Projection::fit(&features, 6, 0.0).unwrap();
            for i in 0..6 {
                for j in 0..6 {
                    let product = embedding::dot(plain.matrix.row(i), plain.matrix.row(j));
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((f64::from(product) - expected).abs() < TOLERANCE, "{i} {j}");
                }
            }
            let project = |map: &Projection| -> Vec<Vec<f32>> {
                features.rows().map(|row| map.apply(row)).collect()
            };
            let variances = covariance(&project(&plain));
            for whitening in [0.5_f32, 1.0] {
                let map = Projection::fit(&features, 6, whitening).unwrap();
                let found = covariance(&project(&map));
                for (i, row) in found.iter().enumerate() {
                    for (j, x) in row.iter().enumerate() {
                        let expected = if i == j {
                            variances[i][i].powf(1.0 - f64::from(whitening))
                        } else {
                            0.0
                        };
                        let deviation = (x - expected).abs();
                        let allowed = TOLERANCE * expected.max(1.0);
                        assert!(deviation < allowed, "{whitening} {i} {j}: {x} {expected}");
                    }
                }
            }
        }
    }

    /// Four labels, told apart in two directions that vary little beside the noise within.
    fn labelled(n_images: usize) -> (Embeddings, Vec<usize>) {
        let mut random = Random::new(5);
        let (mut features, mut labels) = (Embeddings::new(6), Vec::new());
        for i in 0..n_images {
            let label = i % 4;
            let [x, y] = [(label % 2) as f64, (label / 2) as f64];
            let noise: [f64; 4] = std::array::from_fn(|_| random.normal() * 20.0);
            let inner: [f64; 2] = std::array::from_fn(|_| random.normal() * 0.1);
            let row = [
                noise[0],
                x + inner[0],
                noise[1],
                noise[2],
                y + inner[1],
                noise[3],
            ];
            features.push(&row.map(|x| x as f32));
            labels.push(label);
        }
        (features, labels)
    }

    #[test]
    fn a_whitening_learned_from_labels_finds_what_tells_them_apart() {
        let (features, labels) = labelled(400);
        let settings = LearnedWhitening {
            components: 6,
            shrinkage: 1e-4,
        };
        let learned = Projection::fit_to_labels(&features, &labels, 2, settings).unwrap();
        let plain = Projection::fit(&features, 2, 1.0).unwrap();
        // Share of the variance of the result that lies between labels.
        let between = |map: &Projection| {
            let rows: Vec<Vec<f32>> = features.rows().map(|row| map.apply(row)).collect();
            let total = covariance(&rows);
            let means: Vec<Vec<f32>> = (0..4)
                .map(|label| {
                    let of_label = || rows.iter().zip(&labels).filter(move |(_, l)| **l == label);
                    let n = of_label().count() as f32;
                    let sum = |i: usize| of_label().map(|(row, _)| row[i]).sum::<f32>();
                    (0..2).map(|i| sum(i) / n).collect()
                })
                .collect();
            let between = covariance(&means);
            (between[0][0] + between[1][1]) / (total[0][0] + total[1][1])
        };
        assert!(between(&plain) < 0.1, "{}", between(&plain));
        assert!(between(&learned) > 0.9, "{}", between(&learned));
    }

    #[test]
    fn a_whitening_of_pairs_is_the_published_one() {
        use eyas_shared::random::Random;
        let mut random = Random::new(2);
        let values: Vec<f32> = (0..60 * 5).map(|_| random.normal() as f32).collect();
        let features = Embeddings::from_values(5, values).unwrap();
        let pairs: Vec<(usize, usize)> = (0..40).map(|i| (i, i + 20)).collect();
        let fitted = Projection::fit_to_pairs(&features, &pairs, 3).unwrap();
        assert_eq!((fitted.dim(), fitted.whitening), (3, Whitening::Pairs(40)));
        assert_eq!(fitted.whitening.to_string(), "learned from 40 pairs");
        let mut rows = Matrix::zeros(60, 5);
        for (row_idx, row) in features.rows().enumerate() {
            for (out, x) in rows.row_mut(row_idx).iter_mut().zip(row) {
                *out = f64::from(*x);
            }
        }
        let published = whitening::learn_from_pairs(&rows, &pairs).unwrap();
        for (row_idx, row) in features.rows().enumerate() {
            let mut found = fitted.apply(row);
            embedding::l2_normalize(&mut found);
            let expected = published.apply(rows.row(row_idx), 3);
            // The sign of a component is arbitrary; numbers are stored in f32.
            for (a, b) in expected.iter().zip(&found) {
                assert!(
                    (a.abs() - f64::from(b.abs())).abs() < 1e-5,
                    "{expected:?} {found:?}"
                );
            }
        }
        assert!(Projection::fit_to_pairs(&features, &pairs, 6).is_err());
        let missing = Projection::fit_to_pairs(&features, &[(0, 60)], 3).unwrap_err();
        assert!(missing.to_string().contains("descriptor 60"), "{missing}");
    }

    #[test]
    fn labels_without_pairs_teach_nothing() {
        let (features, _) = labelled(20);
        let settings = LearnedWhitening {
            components: 6,
            shrinkage: 0.1,
        };
        let alone: Vec<usize> = (0..20).collect();
        let err = Projection::fit_to_labels(&features, &alone, 2, settings).unwrap_err();
        assert_eq!(err, FitError::NoPairs);
        let wrong = LearnedWhitening {
            shrinkage: 0.0,
            ..settings
        };
        assert!(Projection::fit_to_labels(&features, &[0; 20], 2, wrong).is_err());
    }

    #[test]
    fn too_many_dimensions_are_refused_with_the_number_there_is() {
        let mut flat = Embeddings::new(5);
        for i in 0..10 {
            flat.push(&[1.0, i as f32, 2.0 * i as f32, (i * i) as f32, 0.0]);
        }
        let message = Projection::fit(&flat, 4, 0.5).unwrap_err().to_string();
        assert!(
            message.contains("2 directions") && message.contains("4 are asked"),
            "{message}"
        );
        assert!(Projection::fit(&flat, 2, 0.5).is_ok());
        assert!(Projection::fit(&flat, 6, 0.5).is_err());
        assert!(Projection::fit(&flat, 2, 1.5).is_err());
    }
}
