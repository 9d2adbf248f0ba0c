//! The map from a teacher's features to its embeddings: principal components of the
//! training images, whitened in part.

use eyas_shared::embedding::{self, Embeddings};
use eyas_shared::fingerprint::{Fingerprint, Fingerprinter};
use eyas_shared::quant;
use thiserror::Error;

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
    /// Exponent w: component i was scaled by variance_i^(-w/2). 0 keeps distances, 1
    /// makes all variances equal.
    pub whitening: f32,
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
        let (n_images, n_features) = (features.n_rows(), features.dim());
        let too_few = |n_directions| FitError::TooFewDirections {
            n_images,
            n_features,
            n_directions,
            dim,
        };
        let most = n_features.min(n_images.saturating_sub(1));
        if dim == 0 || dim > most {
            return Err(too_few(most));
        }
        let (mean, centered) = center(features);
        let (variances, components) = principal_components(centered, dim)?;
        let least = variances[0] * MIN_VARIANCE_SHARE;
        let n_directions = variances.iter().take_while(|v| **v > least).count();
        if n_directions < dim {
            return Err(too_few(n_directions));
        }
        let mut matrix = Embeddings::new(n_features);
        for (variance, component) in variances.iter().zip(components.rows()) {
            let scale = variance.powf(-0.5 * f64::from(whitening));
            let row: Vec<f32> = component.iter().map(|x| (x * scale) as f32).collect();
            matrix.push(&row);
        }
        Ok(Self {
            mean,
            matrix,
            whitening,
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
    centered: Matrix,
    dim: usize,
) -> Result<(Vec<f64>, Matrix), linear_algebra::NoEigenvalues> {
    let (n_images, n_features) = (centered.n_rows(), centered.n_cols());
    let by_feature = centered.transposed();
    let few_images = n_images < n_features;
    let gram = linear_algebra::gram(if few_images { &centered } else { &by_feature });
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
    let largest = component.iter().fold(
        0.0_f64,
        |most, x| if x.abs() > most.abs() { *x } else { most },
    );
    if length > 0.0 {
        let scale = length.copysign(largest).recip();
        component.iter_mut().for_each(|x| *x *= scale);
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
