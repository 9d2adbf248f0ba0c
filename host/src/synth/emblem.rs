//! Emblems: the pictures by which products of one brand are told apart.

use std::f32::consts::{PI, TAU};

use super::canvas::{Canvas, Color, Point, mix, scale};

/// What is pictured; a number counts points or petals.
#[derive(Clone, Copy)]
pub(super) enum Emblem {
    Disc,
    Star(f32),
    Flower(f32),
    Drop,
    Heart,
    Leaf,
    Hexagon,
    Crescent,
    Sun,
    Berries,
    Peaks,
    Ring,
    Fish,
    Grain,
}

impl Emblem {
    pub(super) const ALL: [Self; 16] = [
        Self::Disc,
        Self::Star(5.0),
        Self::Star(8.0),
        Self::Flower(5.0),
        Self::Flower(7.0),
        Self::Drop,
        Self::Heart,
        Self::Leaf,
        Self::Hexagon,
        Self::Crescent,
        Self::Sun,
        Self::Berries,
        Self::Peaks,
        Self::Ring,
        Self::Fish,
        Self::Grain,
    ];

    /// Draws an emblem of a radius in pixels, turned by an angle in radians.
    pub(super) fn draw(
        self,
        canvas: &mut Canvas,
        color: Color,
        center: Point,
        radius: f32,
        turn: f32,
    ) {
        let dark = scale(color, 0.55);
        let light = mix(color, [1.0; 3], 0.55);
        let at = |angle: f32, share: f32| {
            [
                center[0] + radius * share * (angle + turn).sin(),
                center[1] - radius * share * (angle + turn).cos(),
            ]
        };
        match self {
            Self::Disc => {
                canvas.oval(center, [radius * 0.9; 2], color);
                canvas.oval(at(-0.7, 0.4), [radius * 0.3, radius * 0.22], light);
                canvas.line(at(0.0, 0.8), at(0.25, 1.15), radius * 0.14, dark);
            }
            Self::Star(n) => canvas.polar(center, color, 2 * n as usize, |angle| {
                let is_point = (angle / TAU * 2.0 * n).round() as i32 % 2 == 0;
                radius * if is_point { 1.1 } else { 0.5 }
            }),
            Self::Flower(n) => {
                canvas.polar(center, color, 72, |angle| {
                    radius * (0.75 + 0.3 * (n * (angle + turn)).cos())
                });
                canvas.oval(center, [radius * 0.28; 2], light);
            }
            Self::Drop => {
                canvas.polar(center, color, 48, |angle| {
                    let from_top = angle.min(TAU - angle) / PI;
                    radius * (0.62 + 0.75 * (1.0 - from_top).powi(5))
                });
                canvas.oval(at(2.4, 0.3), [radius * 0.16, radius * 0.25], light);
            }
            Self::Heart => canvas.polar(center, color, 64, |angle| {
                let from_top = angle.min(TAU - angle) / PI;
                radius
                    * (0.35
                        + 0.75 * (from_top * 3.0).min(1.0)
                        + 0.15 * (from_top * 4.0 - 3.0).max(0.0))
            }),
            Self::Leaf => {
                canvas.polar(center, color, 48, |angle| {
                    radius * (0.4 + 0.75 * (angle + turn - 0.7).cos().powi(2).powi(2))
                });
                canvas.line(
                    at(0.7 - 2.0 * turn, 1.0),
                    at(0.7 + PI - 2.0 * turn, 1.2),
                    radius * 0.1,
                    dark,
                );
            }
            Self::Hexagon => {
                canvas.polar(center, color, 6, |_| radius);
                canvas.polar(center, light, 6, |_| radius * 0.6);
                canvas.polar(center, color, 6, |_| radius * 0.35);
            }
            Self::Crescent => {
                canvas.paint(
                    [
                        center[0] - radius,
                        center[1] - radius,
                        center[0] + radius,
                        center[1] + radius,
                    ],
                    color,
                    |[x, y]| {
                        let outer = (x - center[0]).hypot(y - center[1]) - radius;
                        let cut = at(0.9, 0.5);
                        outer.max(0.75 * radius - (x - cut[0]).hypot(y - cut[1]))
                    },
                );
            }
            Self::Sun => {
                canvas.oval(center, [radius * 0.55; 2], color);
                for ray in 0..10 {
                    let angle = ray as f32 / 10.0 * TAU;
                    canvas.line(at(angle, 0.7), at(angle, 1.1), radius * 0.14, color);
                }
            }
            Self::Berries => {
                for (angle, share) in [(0.0, 0.0), (0.5, 0.75), (2.1, 0.7), (3.6, 0.75), (5.2, 0.7)]
                {
                    canvas.oval(at(angle, share), [radius * 0.42; 2], color);
                    canvas.oval(at(angle - 0.2, share * 0.9), [radius * 0.12; 2], light);
                }
            }
            Self::Peaks => {
                let corner = |x: f32, y: f32| [center[0] + x * radius, center[1] + y * radius];
                canvas.polygon(
                    &[corner(-1.2, 0.8), corner(-0.4, -0.8), corner(0.5, 0.8)],
                    dark,
                );
                canvas.polygon(
                    &[corner(-0.5, 0.8), corner(0.4, -0.3), corner(1.2, 0.8)],
                    color,
                );
            }
            Self::Ring => {
                canvas.paint(
                    [
                        center[0] - radius,
                        center[1] - radius,
                        center[0] + radius,
                        center[1] + radius,
                    ],
                    color,
                    |[x, y]| {
                        ((x - center[0]).hypot(y - center[1]) - 0.75 * radius).abs() - 0.2 * radius
                    },
                );
            }
            Self::Fish => {
                canvas.oval(center, [radius, radius * 0.5], color);
                let corner = |x: f32, y: f32| [center[0] + x * radius, center[1] + y * radius];
                canvas.polygon(
                    &[corner(0.6, 0.0), corner(1.3, -0.5), corner(1.3, 0.5)],
                    color,
                );
                canvas.oval(corner(-0.55, -0.1), [radius * 0.1; 2], light);
            }
            Self::Grain => {
                canvas.line(at(PI, 1.1), at(0.0, 1.0), radius * 0.1, color);
                for row in 0..4 {
                    for side in [-1.0, 1.0] {
                        let y = 0.8 - 0.42 * row as f32;
                        let middle = [center[0] + side * 0.33 * radius, center[1] - y * radius];
                        canvas.oval(middle, [radius * 0.2, radius * 0.26], color);
                    }
                }
            }
        }
    }
}
