//! A picture of floating-point samples, and antialiased shapes painted onto it.
//!
//! A shape is a signed distance in pixels, negative inside; its edge is blended over one
//! pixel. Colors are sRGB samples from 0 to 1: light is applied to them as they are, which
//! is no physics but looks right at these contrasts.

use std::f32::consts::TAU;

/// Red, green, blue.
pub(super) type Color = [f32; 3];

/// A point, x to the right, y down.
pub(super) type Point = [f32; 2];

/// A picture, row by row.
#[derive(Clone)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<Color>,
}

/// Blends from `a` (0) to `b` (1).
pub(super) fn mix(a: Color, b: Color, share: f32) -> Color {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

/// Scales a color.
pub(super) fn scale(color: Color, factor: f32) -> Color {
    color.map(|sample| sample * factor)
}

/// Hue in turns, saturation and value from 0 to 1.
pub(super) fn hsv(hue: f32, saturation: f32, value: f32) -> Color {
    [0.0, 2.0 / 3.0, 1.0 / 3.0].map(|shift| {
        let distance = ((hue + shift).rem_euclid(1.0) * 6.0 - 3.0).abs() - 1.0;
        value * (1.0 - saturation * (1.0 - distance.clamp(0.0, 1.0)))
    })
}

/// Perceived brightness, 0 to 1.
pub(super) fn luma(color: Color) -> f32 {
    0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize, color: Color) -> Self {
        Self {
            width,
            height,
            pixels: vec![color; width * height],
        }
    }

    /// Paints what lies inside `distance`, which is only asked within `bounds`
    /// (left, top, right, bottom).
    pub(super) fn paint(
        &mut self,
        bounds: [f32; 4],
        color: Color,
        distance: impl Fn(Point) -> f32,
    ) {
        let clip = |value: f32, end: usize| value.clamp(0.0, end as f32) as usize;
        let (left, right) = (
            clip(bounds[0] - 1.0, self.width),
            clip(bounds[2] + 2.0, self.width),
        );
        let (top, bottom) = (
            clip(bounds[1] - 1.0, self.height),
            clip(bounds[3] + 2.0, self.height),
        );
        for y in top..bottom {
            for x in left..right {
                let coverage = 0.5 - distance([x as f32 + 0.5, y as f32 + 0.5]);
                if coverage > 0.0 {
                    let pixel = &mut self.pixels[y * self.width + x];
                    *pixel = mix(*pixel, color, coverage.min(1.0));
                }
            }
        }
    }

    /// Paints everything inside `distance`.
    pub(super) fn paint_all(&mut self, color: Color, distance: impl Fn(Point) -> f32) {
        self.paint(
            [0.0, 0.0, self.width as f32, self.height as f32],
            color,
            distance,
        );
    }

    /// A rectangle with rounded corners.
    pub(super) fn panel(&mut self, center: Point, half: Point, radius: f32, color: Color) {
        let bounds = [
            center[0] - half[0],
            center[1] - half[1],
            center[0] + half[0],
            center[1] + half[1],
        ];
        self.paint(bounds, color, |point| {
            let outside =
                [0, 1].map(|axis| (point[axis] - center[axis]).abs() - half[axis] + radius);
            let corner = outside[0].max(0.0).hypot(outside[1].max(0.0));
            corner + outside[0].max(outside[1]).min(0.0) - radius
        });
    }

    /// An ellipse with axes along the picture's; the edge is a little soft where it is long.
    pub(super) fn oval(&mut self, center: Point, half: Point, color: Color) {
        let bounds = [
            center[0] - half[0],
            center[1] - half[1],
            center[0] + half[0],
            center[1] + half[1],
        ];
        self.paint(bounds, color, |point| {
            let relative = [0, 1].map(|axis| (point[axis] - center[axis]) / half[axis]);
            (relative[0].hypot(relative[1]) - 1.0) * half[0].min(half[1])
        });
    }

    /// A line of constant thickness with round ends.
    pub(super) fn line(&mut self, from: Point, to: Point, thickness: f32, color: Color) {
        let radius = thickness / 2.0;
        let bounds = [
            from[0].min(to[0]) - radius,
            from[1].min(to[1]) - radius,
            from[0].max(to[0]) + radius,
            from[1].max(to[1]) + radius,
        ];
        self.paint(bounds, color, |point| {
            segment_distance(point, from, to) - radius
        });
    }

    /// A closed outline given in polar form around a center: `radius_at(angle in radians)`.
    pub(super) fn polar(
        &mut self,
        center: Point,
        color: Color,
        n_corners: usize,
        radius_at: impl Fn(f32) -> f32,
    ) {
        let corners: Vec<Point> = (0..n_corners)
            .map(|i| {
                let angle = i as f32 / n_corners as f32 * TAU;
                let radius = radius_at(angle);
                [
                    center[0] + radius * angle.sin(),
                    center[1] - radius * angle.cos(),
                ]
            })
            .collect();
        self.polygon(&corners, color);
    }

    /// A filled polygon (even-odd).
    pub(super) fn polygon(&mut self, corners: &[Point], color: Color) {
        let low = |axis: usize| corners.iter().map(|c| c[axis]).fold(f32::MAX, f32::min);
        let high = |axis: usize| corners.iter().map(|c| c[axis]).fold(f32::MIN, f32::max);
        let bounds = [low(0), low(1), high(0), high(1)];
        self.paint(bounds, color, |point| polygon_distance(point, corners));
    }

    /// Bilinear sample at `(u, v)` from 0 to 1, clamped at the edges.
    pub(super) fn sample(&self, u: f32, v: f32) -> Color {
        let place = |value: f32, n: usize| {
            let at = (value * n as f32 - 0.5).clamp(0.0, (n - 1) as f32);
            let low = at as usize;
            (low, (low + 1).min(n - 1), at - low as f32)
        };
        let (left, right, x) = place(u, self.width);
        let (top, bottom, y) = place(v, self.height);
        let row = |row: usize| {
            mix(
                self.pixels[row * self.width + left],
                self.pixels[row * self.width + right],
                x,
            )
        };
        mix(row(top), row(bottom), y)
    }
}

fn segment_distance(point: Point, from: Point, to: Point) -> f32 {
    let along = [to[0] - from[0], to[1] - from[1]];
    let offset = [point[0] - from[0], point[1] - from[1]];
    let length2 = along[0] * along[0] + along[1] * along[1];
    let share = if length2 > 0.0 {
        ((offset[0] * along[0] + offset[1] * along[1]) / length2).clamp(0.0, 1.0)
    } else {
        0.0
    };
    (offset[0] - share * along[0]).hypot(offset[1] - share * along[1])
}

fn polygon_distance(point: Point, corners: &[Point]) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        nearest = nearest.min(segment_distance(point, from, to));
        let crosses = (from[1] > point[1]) != (to[1] > point[1]);
        if crosses
            && point[0] < from[0] + (point[1] - from[1]) / (to[1] - from[1]) * (to[0] - from[0])
        {
            inside = !inside;
        }
        from = to;
    }
    if inside { -nearest } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of a white canvas that was painted black.
    fn covered(paint: impl Fn(&mut Canvas)) -> f32 {
        let mut canvas = Canvas::new(100, 100, [1.0; 3]);
        paint(&mut canvas);
        let sum: f32 = canvas.pixels.iter().map(|pixel| 1.0 - pixel[0]).sum();
        sum / 10_000.0
    }

    #[test]
    fn shapes_cover_their_area() {
        const TOLERANCE: f32 = 0.003; // edges are blended over one pixel
        let black = [0.0; 3];
        let cases: [(f32, f32); 4] = [
            (
                covered(|c| c.panel([50.0, 50.0], [20.0, 10.0], 0.0, black)),
                0.08,
            ),
            (
                covered(|c| c.oval([50.0, 50.0], [30.0, 20.0], black)),
                0.06 * std::f32::consts::PI,
            ),
            (
                covered(|c| c.line([20.0, 50.0], [80.0, 50.0], 10.0, black)),
                0.06 + 0.0025 * std::f32::consts::PI,
            ),
            (
                covered(|c| {
                    c.polygon(&[[10.0, 10.0], [90.0, 10.0], [10.0, 90.0]], black);
                }),
                0.32,
            ),
        ];
        for (found, expected) in cases {
            assert!((found - expected).abs() < TOLERANCE, "{found} {expected}");
        }
    }

    #[test]
    fn hues_are_where_they_belong() {
        assert_eq!(hsv(0.0, 1.0, 1.0), [1.0, 0.0, 0.0]);
        assert_eq!(hsv(0.0, 0.0, 0.5), [0.5; 3]);
        let green = hsv(1.0 / 3.0, 1.0, 1.0);
        assert!(
            green[1] > 0.99 && green[0] < 0.01 && green[2] < 0.01,
            "{green:?}"
        );
    }
}
