//! A map of a gallery: its rows in the plane of their two strongest principal components.

use eyas_device::matcher::Matcher;

use super::results::MapPoint;
use crate::linear_algebra::{self, Matrix};

/// Most rows that make the plane and stand on the map, spread evenly over all.
const MAX_POINTS: usize = 1500;

/// The plane of a gallery's map.
pub(super) struct Plane {
    mean: Vec<f64>,
    axes: [Vec<f64>; 2],
    /// Share of the variance that lies in the plane.
    pub(super) share: f64,
}

impl Plane {
    /// The plane, and the rows in it. Components are made so that the largest entry of each
    /// axis is positive, so that equal galleries have equal maps.
    pub(super) fn of(matcher: &Matcher<'_>) -> (Self, Vec<MapPoint>) {
        let gallery = matcher.gallery();
        let n_rows = gallery.n_rows() as usize;
        let n = n_rows.min(MAX_POINTS);
        let chosen: Vec<u32> = (0..n)
            .map(|i| (i * n_rows / n.max(1)) as u32)
            .filter(|row| !gallery.is_removed(*row))
            .collect();
        let dim = gallery.dim();
        let mut mean = vec![0.0; dim];
        let mut row = vec![0.0_f32; dim];
        for row_idx in &chosen {
            gallery.row_into(*row_idx, &mut row);
            for (mean, x) in mean.iter_mut().zip(&row) {
                *mean += f64::from(*x) / chosen.len() as f64;
            }
        }
        let mut centered = Matrix::zeros(dim, chosen.len());
        for (column, row_idx) in chosen.iter().enumerate() {
            gallery.row_into(*row_idx, &mut row);
            for (component, x) in row.iter().enumerate() {
                centered.row_mut(component)[column] = f64::from(*x) - mean[component];
            }
        }
        let covariance = linear_algebra::gram(&centered);
        let trace: f64 = (0..dim).map(|i| covariance.row(i)[i]).sum();
        let pairs = linear_algebra::largest_eigenpairs(&covariance, dim.min(2)).ok();
        let axis = |idx: usize| {
            let vector = pairs.as_ref().filter(|pairs| idx < pairs.vectors.n_rows());
            let vector = vector.map_or_else(|| vec![0.0; dim], |it| it.vectors.row(idx).to_vec());
            let by_size = |a: &&f64, b: &&f64| a.abs().total_cmp(&b.abs());
            let largest = vector.iter().max_by(by_size).copied().unwrap_or(0.0);
            let sign = if largest < 0.0 { -1.0 } else { 1.0 };
            vector.into_iter().map(|x| sign * x).collect()
        };
        let explained: f64 = pairs.iter().flat_map(|pairs| &pairs.values).take(2).sum();
        let plane = Self {
            mean,
            axes: [axis(0), axis(1)],
            share: if trace > 0.0 { explained / trace } else { 0.0 },
        };
        let points = chosen.iter().map(|row_idx| {
            gallery.row_into(*row_idx, &mut row);
            let [x, y] = plane.place(&row);
            let label = gallery.entry(*row_idx).map_or("", |entry| entry.label);
            let label = label.to_owned();
            MapPoint { label, x, y }
        });
        let points = points.collect();
        (plane, points)
    }

    /// Where an embedding stands.
    pub(super) fn place(&self, embedding: &[f32]) -> [f32; 2] {
        let along = |axis: &Vec<f64>| {
            let terms = embedding.iter().zip(&self.mean).zip(axis);
            terms
                .map(|((x, mean), axis)| (f64::from(*x) - mean) * axis)
                .sum::<f64>() as f32
        };
        [along(&self.axes[0]), along(&self.axes[1])]
    }
}
