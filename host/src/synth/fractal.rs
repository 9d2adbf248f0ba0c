//! Fractals of iterated function systems (Barnsley 1988), which teach a network shape
//! without a photograph (Kataoka et al., ACCV 2020).

use std::f32::consts::TAU;

use eyas_shared::random::Random;

use super::canvas::{Canvas, Point, mix};
use super::photo::within;
use super::texture::{self, Palette};

/// Points before the first one that is drawn: the system forgets where it began.
const N_LOST: usize = 20;

/// Share of the points that may lie outside the picture on each side.
const OUTLIERS: f32 = 0.01;

/// x' = A x + b, and where its points lie in the palette.
struct AffineMap {
    matrix: [[f32; 2]; 2],
    shift: Point,
    tint: f32,
}

impl AffineMap {
    /// A contraction: singular values below 0.85 between two rotations, so that every
    /// system converges.
    fn random(random: &mut Random) -> Self {
        let large = within(random, 0.35, 0.85);
        let small = large * within(random, 0.3, 1.0);
        let small = if random.chance(0.5) { small } else { -small };
        let [first, second] = [0; 2].map(|_| within(random, 0.0, TAU).sin_cos());
        let row = |[to_large, to_small]: [f32; 2]| {
            [
                to_large * large * second.1 - to_small * small * second.0,
                to_large * large * second.0 + to_small * small * second.1,
            ]
        };
        Self {
            matrix: [row([first.1, -first.0]), row([first.0, first.1])],
            shift: [0; 2].map(|_| within(random, -1.0, 1.0)),
            tint: within(random, 0.0, 1.0),
        }
    }

    fn of(&self, point: Point) -> Point {
        [0, 1].map(|axis| {
            let row = self.matrix[axis];
            row[0] * point[0] + row[1] * point[1] + self.shift[axis]
        })
    }

    fn area(&self) -> f32 {
        let [[a, b], [c, d]] = self.matrix;
        (a * d - b * c).abs()
    }
}

/// One to three fractals on a plain or cloudy ground.
pub(super) fn fractals(side: usize, random: &mut Random) -> Canvas {
    let mut picture = if random.chance(0.4) {
        texture::noise(side, random)
    } else {
        Canvas::new(side, side, Palette::random(random).any(random))
    };
    for _ in 0..1 + random.below(3) {
        draw(&mut picture, random);
    }
    picture
}

/// Plays the chaos game and blends the hit pixels with the colors of the maps.
fn draw(picture: &mut Canvas, random: &mut Random) {
    let side = picture.width;
    let palette = Palette::random(random);
    let n_maps = 2 + random.below(5);
    let maps: Vec<AffineMap> = (0..n_maps).map(|_| AffineMap::random(random)).collect();
    let points = orbit(&maps, side * side, random);
    let extents = [0, 1].map(|axis| extent(&points, axis));
    let span = extents
        .map(|[low, high]| high - low)
        .into_iter()
        .fold(1e-3, f32::max);
    let size = side as f32 * within(random, 0.45, 1.1);
    let center = [0; 2].map(|_| side as f32 * within(random, 0.3, 0.7));
    let opacity = within(random, 0.4, 0.9);
    for (point, tint) in points {
        let place = [0, 1].map(|axis| {
            let [low, high] = extents[axis];
            center[axis] + (point[axis] - (low + high) / 2.0) / span * size
        });
        let inside = place.iter().all(|&at| at >= 0.0 && at < side as f32);
        if inside {
            let pixel = &mut picture.pixels[place[1] as usize * side + place[0] as usize];
            *pixel = mix(*pixel, palette.at(tint), opacity);
        }
    }
}

/// Points of the attractor with their places in the palette. Maps are drawn by the area
/// that they keep.
fn orbit(maps: &[AffineMap], n_points: usize, random: &mut Random) -> Vec<(Point, f32)> {
    // So that a map that flattens the plane is drawn as well.
    let weight = |map: &AffineMap| map.area() + 0.02;
    let total: f32 = maps.iter().map(weight).sum();
    let (mut point, mut tint) = ([0.0; 2], 0.5);
    let mut points = Vec::with_capacity(n_points);
    for step in 0..N_LOST + n_points {
        let mut left = within(random, 0.0, total);
        let chosen = maps.iter().find(|map| {
            left -= weight(map);
            left < 0.0
        });
        let map = chosen.unwrap_or(&maps[0]);
        point = map.of(point);
        tint = (tint + map.tint) / 2.0;
        if step >= N_LOST {
            points.push((point, tint));
        }
    }
    points
}

/// Lowest and highest coordinate without outliers.
fn extent(points: &[(Point, f32)], axis: usize) -> [f32; 2] {
    let mut coordinates: Vec<f32> = points.iter().map(|(point, _)| point[axis]).collect();
    coordinates.sort_unstable_by(f32::total_cmp);
    let last = coordinates.len() - 1;
    let skipped = (OUTLIERS * last as f32) as usize;
    [coordinates[skipped], coordinates[last - skipped]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_contract_and_their_orbits_stay_bounded() {
        let mut random = Random::new(3);
        for _ in 0..50 {
            let maps: Vec<AffineMap> = (0..4).map(|_| AffineMap::random(&mut random)).collect();
            for map in &maps {
                let [[a, b], [c, d]] = map.matrix;
                // The squared Frobenius norm is the sum of the squared singular values.
                assert!(a * a + b * b + c * c + d * d <= 2.0 * 0.85 * 0.85 + 1e-5);
            }
            // |x| <= |b| / (1 - 0.85) for every point of the attractor.
            let reach = 2.0_f32.sqrt() / (1.0 - 0.85) + 1e-3;
            for (point, tint) in orbit(&maps, 500, &mut random) {
                assert!(point[0].hypot(point[1]) <= reach, "{point:?}");
                assert!((0.0..=1.0).contains(&tint));
            }
        }
    }
}
