//! Pictures of nothing: noise, stripes, cells and leaves, whose edges and color statistics
//! still teach filters (Baradad et al., NeurIPS 2021: "Learning to See by Looking at Noise").

use std::f32::consts::TAU;

use eyas_shared::random::Random;

use super::canvas::{Canvas, Color, Point, hsv, mix, scale};
use super::photo::within;

/// A few colors in a row; what lies between two is blended.
pub(super) struct Palette(Vec<Color>);

impl Palette {
    /// Two to five colors, in half of the cases of neighboring hues.
    pub(super) fn random(random: &mut Random) -> Self {
        let n_colors = 2 + random.below(4);
        let hue = within(random, 0.0, 1.0);
        let spread = if random.chance(0.5) { 0.12 } else { 0.5 };
        let color = |_| {
            let hue = hue + within(random, -spread, spread);
            hsv(hue, within(random, 0.0, 0.95), within(random, 0.05, 1.0))
        };
        Self((0..n_colors).map(color).collect())
    }

    /// The color at `share` of the way, 0 to 1.
    pub(super) fn at(&self, share: f32) -> Color {
        let last = self.0.len() - 1;
        let place = share.clamp(0.0, 1.0) * last as f32;
        let left = (place as usize).min(last - 1);
        mix(self.0[left], self.0[left + 1], place - left as f32)
    }

    /// Any color of it.
    pub(super) fn any(&self, random: &mut Random) -> Color {
        self.at(within(random, 0.0, 1.0))
    }
}

/// A picture whose color at every place, 0 to 1 in both directions, is computed.
fn paint(side: usize, color_at: impl Fn(Point) -> Color) -> Canvas {
    let mut picture = Canvas::new(side, side, [0.0; 3]);
    for (i, pixel) in picture.pixels.iter_mut().enumerate() {
        let place = [i % side, i / side].map(|at| (at as f32 + 0.5) / side as f32);
        *pixel = color_at(place);
    }
    picture
}

/// Smooth noise from 0 to 1 with one free value at every point of the whole-number grid.
fn value_noise(grid: &Random, [x, y]: Point) -> f32 {
    let corner = [x.floor(), y.floor()];
    let value = |dx: i64, dy: i64| {
        let (x, y) = (corner[0] as i64 + dx, corner[1] as i64 + dy);
        // Two halves of 32 bits name the point.
        let name = ((x as u64) << 32) ^ (y as u64 & 0xffff_ffff);
        grid.at(name).unit() as f32
    };
    let [u, v] = [x - corner[0], y - corner[1]].map(|t| t * t * (3.0 - 2.0 * t));
    let row = |dy| value(0, dy) + (value(1, dy) - value(0, dy)) * u;
    row(0) + (row(1) - row(0)) * v
}

/// Noise of several octaves, each of twice the frequency and `gain` times the amplitude of
/// the one before; 0 to 1.
fn octaves(grid: &Random, place: Point, n_octaves: usize, gain: f32) -> f32 {
    let (mut sum, mut total) = (0.0, 0.0);
    let (mut amplitude, mut frequency) = (1.0, 1.0);
    for octave in 0..n_octaves {
        let scaled = place.map(|x| x * frequency);
        sum += amplitude * value_noise(&grid.at(octave as u64), scaled);
        total += amplitude;
        amplitude *= gain;
        frequency *= 2.0;
    }
    sum / total
}

/// Clouds, marble, veins: octaves of noise read at places that noise has moved.
pub(super) fn noise(side: usize, random: &mut Random) -> Canvas {
    let palette = Palette::random(random);
    let grids = ["height", "to the right", "down"].map(|name| random.fork(name));
    let frequency = within(random, 2.0, 14.0);
    let n_octaves = 2 + random.below(4);
    let gain = within(random, 0.35, 0.75);
    let warp = if random.chance(0.5) {
        within(random, 0.2, 1.5)
    } else {
        0.0
    };
    let is_ridged = random.chance(0.35);
    let n_bands = within(random, 0.8, 3.0);
    paint(side, |place| {
        let place = place.map(|x| x * frequency);
        let moved = [1, 2].map(|axis| warp * (value_noise(&grids[axis], place) - 0.5));
        let place = [place[0] + moved[0], place[1] + moved[1]];
        let height = octaves(&grids[0], place, n_octaves, gain);
        let height = match is_ridged {
            true => (2.0 * height - 1.0).abs() * 1.6,
            false => (height - 0.5) * 1.7 + 0.5,
        };
        // Up and down again through the palette, without a jump.
        let band = (height * n_bands).rem_euclid(2.0);
        palette.at(1.0 - (1.0 - band).abs())
    })
}

/// Stripes, checks and waves with soft or hard edges.
pub(super) fn stripes(side: usize, random: &mut Random) -> Canvas {
    let palette = Palette::random(random);
    let n_waves = 1 + random.below(2);
    let waves: Vec<[f32; 5]> = (0..n_waves)
        .map(|_| {
            let frequency = within(random, 2.0, 24.0);
            let angle = within(random, 0.0, TAU);
            let bend = if random.chance(0.4) {
                within(random, 0.1, 1.2)
            } else {
                0.0
            };
            let phase = within(random, 0.0, TAU);
            [
                frequency * angle.cos(),
                frequency * angle.sin(),
                bend,
                phase,
                within(random, 1.0, 5.0),
            ]
        })
        .collect();
    let hardness = if random.chance(0.5) {
        within(random, 3.0, 12.0)
    } else {
        0.5
    };
    paint(side, |[x, y]| {
        let product: f32 = waves
            .iter()
            .map(|&[right, down, bend, phase, slow]| {
                let across = x * down - y * right;
                let moved = bend * (across * slow * TAU / right.hypot(down).max(1.0)).sin();
                ((x * right + y * down) * TAU + moved + phase).sin()
            })
            .product();
        palette.at(0.5 + (product * hardness).clamp(-0.5, 0.5))
    })
}

/// Cells around random points, as in mosaics, scales and cobbles.
pub(super) fn cells(side: usize, random: &mut Random) -> Canvas {
    let palette = Palette::random(random);
    let n_cells = 6 + random.below(150);
    let cells: Vec<(Point, Color)> = (0..n_cells)
        .map(|_| {
            let center = [within(random, -0.05, 1.05), within(random, -0.05, 1.05)];
            (center, palette.any(random))
        })
        .collect();
    let joint = palette.any(random);
    let joint_width = within(random, 0.0, 0.02);
    let shade = within(random, 0.0, 6.0);
    paint(side, |[x, y]| {
        let (mut nearest, mut second, mut color) = (f32::MAX, f32::MAX, joint);
        for &(center, of_cell) in &cells {
            let distance = (x - center[0]).hypot(y - center[1]);
            if distance < nearest {
                (nearest, second, color) = (distance, nearest, of_cell);
            } else {
                second = second.min(distance);
            }
        }
        if second - nearest < joint_width {
            joint
        } else {
            scale(color, (1.0 - shade * nearest).clamp(0.3, 1.0))
        }
    })
}

/// Dead leaves: shapes of many sizes that hide one another, as things in the world do.
pub(super) fn leaves(side: usize, random: &mut Random) -> Canvas {
    let palettes = [Palette::random(random), Palette::random(random)];
    let mut picture = Canvas::new(side, side, palettes[0].any(random));
    let n_leaves = 60 + random.below(300);
    let [smallest, largest] = [0.012, 0.3].map(|share| share * side as f32);
    let is_round = random.chance(0.4);
    for _ in 0..n_leaves {
        // Sizes with density r^-3, as areas in photographs have.
        let unit = within(random, 0.0, 1.0);
        let radius = (smallest.powi(-2) * (1.0 - unit) + largest.powi(-2) * unit).powf(-0.5);
        let center = [0; 2].map(|_| within(random, 0.0, side as f32));
        let color = palettes[random.below(2)].any(random);
        let half = [radius, radius * within(random, 0.4, 1.0)];
        match if is_round { 0 } else { random.below(3) } {
            0 => picture.oval(center, half, color),
            1 => picture.panel(center, half, 0.3 * half[1], color),
            _ => {
                let n_lobes = 2 + random.below(5);
                let depth = within(random, 0.1, 0.5);
                let turn = within(random, 0.0, TAU);
                let lobed =
                    |angle: f32| radius * (1.0 + depth * (n_lobes as f32 * angle + turn).sin());
                picture.polar(center, color, 8 * n_lobes, lobed);
            }
        }
    }
    picture
}
