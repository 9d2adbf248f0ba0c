//! A packaged product: its shape and its printed face, seen from the front.

use std::f32::consts::PI;

use eyas_shared::random::Random;

use super::canvas::{Canvas, Color, hsv, mix, scale};
use super::label::{self, Brand, Variety};

/// Products of one brand, which share shape, colors and layout.
const VARIETIES_PER_BRAND: u64 = 3;

/// Pixels across a label: about what a view shows of it, twice.
const LABEL_WIDTH: usize = 160;

/// One product.
pub(super) struct Product {
    shape: Shape,
    label: Canvas,
    body: Color,
    closure: Color,
    /// Phases of the folds of a pouch.
    folds: [f32; 3],
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Box,
    Carton,
    Can,
    Bottle,
    Jar,
    Tub,
    Pouch,
}

impl Product {
    /// Product number `class` of a range.
    pub(super) fn new(range: &Random, class: u64) -> Self {
        let mut of_brand = range.fork("brand").at(class / VARIETIES_PER_BRAND);
        let mut of_class = range.fork("product").at(class);
        let shapes = [
            Shape::Box,
            Shape::Box,
            Shape::Carton,
            Shape::Can,
            Shape::Bottle,
            Shape::Jar,
            Shape::Tub,
            Shape::Pouch,
        ];
        let shape = shapes[of_brand.below(shapes.len())];
        let brand = Brand::random(&mut of_brand);
        let variety = Variety::random(&mut of_class, &brand);
        let contents = hsv(of_brand.unit() as f32, 0.55, 0.5);
        let (top, bottom) = shape.label_span();
        let tall = (bottom - top) / shape.aspect();
        Self {
            shape,
            label: label::draw(
                &brand,
                &variety,
                LABEL_WIDTH,
                (LABEL_WIDTH as f32 * tall) as usize,
            ),
            body: match shape {
                Shape::Bottle | Shape::Jar => contents,
                _ => brand.base,
            },
            closure: if of_brand.chance(0.5) {
                variety.color
            } else {
                brand.second
            },
            folds: std::array::from_fn(|_| of_class.unit() as f32 * 6.0),
        }
    }

    /// Width divided by height.
    pub(super) fn aspect(&self) -> f32 {
        self.shape.aspect()
    }

    /// The color at `s` (-1 left to 1 right) and `t` (0 top to 1 bottom) of a package that
    /// is turned by `yaw` radians; `None` beside it.
    pub(super) fn color(&self, s: f32, t: f32, yaw: f32) -> Option<Color> {
        if !(0.0..=1.0).contains(&t) || s.abs() > self.shape.half_width(t, s) {
            return None;
        }
        Some(match self.shape {
            Shape::Box | Shape::Carton => self.flat_sides(s, t, yaw),
            Shape::Pouch => self.pouch(s, t),
            _ => self.round(s, t, yaw),
        })
    }

    /// Front and, when turned, one side.
    fn flat_sides(&self, s: f32, t: f32, yaw: f32) -> Color {
        let (top, bottom) = self.shape.label_span();
        let v = (t - top) / (bottom - top);
        let side = 0.75 * yaw.abs().sin();
        // From 0 at the far edge of the front to 1 at the side's.
        let across = (s * yaw.signum() + 1.0) / 2.0;
        if v < 0.0 {
            // The gable of a carton: a slope, and above it the welded ridge.
            let ridge = if t < 0.05 { 0.95 } else { 0.7 + 2.0 * t };
            return scale(mix(self.body, [1.0; 3], 0.15), ridge);
        }
        if across > 1.0 - side / 2.0 {
            let edge = self.label.sample(0.03, v);
            return scale(edge, 0.62);
        }
        let front = across / (1.0 - side / 2.0);
        let u = if yaw < 0.0 { 1.0 - front } else { front };
        scale(self.label.sample(u, v), 0.97 + 0.05 * (1.0 - v))
    }

    /// A body of revolution: darker at its flanks, with a streak of reflected light.
    fn round(&self, s: f32, t: f32, yaw: f32) -> Color {
        let half = self.shape.half_width(t, s).max(0.05);
        let angle = (s / half).clamp(-1.0, 1.0).asin();
        let (top, bottom) = self.shape.label_span();
        let v = (t - top) / (bottom - top);
        let u = 0.5 + (angle + yaw) / (0.94 * PI);
        let is_label = (0.0..=1.0).contains(&v);
        let color = match self.shape {
            _ if is_label => self.label.sample(u.clamp(0.0, 1.0), v),
            Shape::Can => [0.72, 0.73, 0.75],
            _ if t < top && t < self.shape.closure_bottom() => {
                let grip = if (angle * 18.0).sin() > 0.0 {
                    1.0
                } else {
                    0.88
                };
                scale(self.closure, grip)
            }
            _ => self.body,
        };
        let shaded = scale(color, 0.45 + 0.58 * angle.cos());
        let gloss = if is_label { 0.16 } else { 0.35 };
        let streak = (-((angle + 0.55) / 0.16).powi(2)).exp();
        mix(shaded, [1.0; 3], gloss * streak)
    }

    /// A bag: soft folds, crimped at both ends.
    fn pouch(&self, s: f32, t: f32) -> Color {
        let color = self.label.sample((s + 1.0) / 2.0, t);
        if !(0.06..=0.95).contains(&t) {
            let crimp = if (s * 60.0).sin() > 0.0 { 0.8 } else { 0.95 };
            return scale(mix(color, self.body, 0.7), crimp);
        }
        let [a, b, c] = self.folds;
        let fold = (3.0 * s + 2.0 * t + a).sin() * 0.5
            + (5.0 * t - 2.5 * s + b).sin() * 0.35
            + (9.0 * s * t + 4.0 * t + c).sin() * 0.3;
        let belly = 1.0 - 0.3 * s.powi(4) - 0.2 * (2.0 * t - 1.0).powi(4);
        let shaded = scale(color, belly * (1.0 + 0.1 * fold));
        mix(shaded, [1.0; 3], 0.25 * (fold - 0.55).max(0.0))
    }
}

impl Shape {
    fn aspect(self) -> f32 {
        match self {
            Shape::Box => 0.7,
            Shape::Carton => 0.5,
            Shape::Can => 0.6,
            Shape::Bottle => 0.4,
            Shape::Jar => 0.72,
            Shape::Tub => 0.95,
            Shape::Pouch => 0.74,
        }
    }

    /// Where the label begins and ends between top (0) and bottom (1).
    fn label_span(self) -> (f32, f32) {
        match self {
            Shape::Box | Shape::Pouch => (0.0, 1.0),
            Shape::Carton => (0.16, 1.0),
            Shape::Can => (0.05, 0.95),
            Shape::Bottle => (0.42, 0.93),
            Shape::Jar => (0.27, 0.92),
            Shape::Tub => (0.1, 1.0),
        }
    }

    /// Lower end of a cap or lid.
    fn closure_bottom(self) -> f32 {
        match self {
            Shape::Bottle => 0.1,
            Shape::Jar => 0.17,
            Shape::Tub => 0.1,
            _ => 0.0,
        }
    }

    /// Half of the outline's width at height `t`, of at most 1.
    fn half_width(self, t: f32, s: f32) -> f32 {
        let foot = |radius: f32| 1.0 - 0.12 * ((t - 1.0 + radius) / radius).max(0.0).powi(2);
        let blend = |from: f32, to: f32| {
            let share = ((t - from) / (to - from)).clamp(0.0, 1.0);
            share * share * (3.0 - 2.0 * share)
        };
        match self {
            Shape::Box => 1.0,
            Shape::Carton if t < 0.05 => 0.96,
            Shape::Carton => 1.0 - 0.1 * (1.0 - blend(0.05, 0.16)),
            Shape::Can => 1.0 - 0.08 * (1.0 - blend(0.0, 0.05)) - 0.08 * blend(0.95, 1.0),
            Shape::Bottle if t < 0.1 => 0.4,
            Shape::Bottle => (0.34 + 0.66 * blend(0.16, 0.38)) * foot(0.05),
            Shape::Jar if t < 0.17 => 0.88,
            Shape::Jar => (0.8 + 0.2 * blend(0.17, 0.26)) * foot(0.08),
            Shape::Tub if t < 0.06 => 1.0,
            Shape::Tub => 0.96 - 0.2 * t,
            Shape::Pouch => {
                let end = (2.0 * t - 1.0).abs();
                0.93 + 0.07 * end.powi(6) + 0.008 * (14.0 * t + s).sin()
            }
        }
    }
}
