//! The printed face of a package: panels, emblem, stripes and writing.
//!
//! A brand fixes what its products share (layout, colors, name); a variety changes what
//! tells them apart (emblem, band color, word), so that products of one brand are easily
//! confused and color alone does not name a product.

use std::f32::consts::TAU;

use eyas_shared::random::Random;

use super::canvas::{Canvas, Color, Point, hsv, luma, mix};
use super::emblem::Emblem;

/// What all products of a brand share.
#[derive(Clone)]
pub(super) struct Brand {
    pub(super) base: Color,
    pub(super) second: Color,
    layout: Layout,
    name: Word,
    stripes: Stripes,
    has_border: bool,
}

/// What tells products of a brand apart.
#[derive(Clone)]
pub(super) struct Variety {
    pub(super) color: Color,
    emblem: Emblem,
    emblem_color: Color,
    n_emblems: usize,
    word: Word,
    /// Moves and turns parts of the layout, each from 0 to 1.
    shift: f32,
    turn: f32,
}

#[derive(Clone, Copy)]
enum Layout {
    Panel,
    TopBand,
    Diagonal,
    Badge,
    Wave,
    Scattered,
    Split,
}

#[derive(Clone, Copy)]
enum Stripes {
    None,
    Vertical(f32),
    Slanted(f32),
    Rays(f32),
}

/// Letters that mean nothing: each is a stroke over a grid of 3 x 4 points.
#[derive(Clone)]
struct Word(Vec<Vec<Point>>);

fn pick<T: Copy>(random: &mut Random, items: &[T]) -> T {
    items[random.below(items.len())]
}

fn within(random: &mut Random, low: f32, high: f32) -> f32 {
    random.range(f64::from(low), f64::from(high)) as f32
}

/// A color of print: strong, pale or dark.
fn print_color(random: &mut Random) -> Color {
    let hue = within(random, 0.0, 1.0);
    match random.below(8) {
        0 => hsv(hue, within(random, 0.03, 0.12), 0.94),
        1 => hsv(hue, within(random, 0.4, 0.8), within(random, 0.22, 0.4)),
        2 => hsv(hue, within(random, 0.25, 0.45), 0.88),
        _ => hsv(hue, within(random, 0.6, 0.95), within(random, 0.55, 0.92)),
    }
}

/// A color of print that stands out from `ground`.
fn against(random: &mut Random, ground: Color) -> Color {
    for _ in 0..20 {
        let color = print_color(random);
        if apart(color, ground) > 1.5 * MIN_CONTRAST {
            return color;
        }
    }
    ink(ground)
}

/// Colors closer than this do not stand out from each other in print.
const MIN_CONTRAST: f32 = 0.5;

/// Sum of the differences of the samples.
fn apart(a: Color, b: Color) -> f32 {
    (0..3).map(|i| (a[i] - b[i]).abs()).sum()
}

/// Black or white, whichever reads better.
fn ink(ground: Color) -> Color {
    if luma(ground) > 0.5 {
        [0.1, 0.09, 0.12]
    } else {
        [0.97, 0.96, 0.93]
    }
}

impl Word {
    fn random(random: &mut Random, n_letters: usize) -> Self {
        let letter = |random: &mut Random| {
            let mut at = [random.below(3), random.below(4)];
            let mut stroke = vec![at];
            for _ in 0..2 + random.below(4) {
                at = match random.below(3) {
                    0 => [random.below(3), at[1]],
                    1 => [at[0], random.below(4)],
                    _ => [2 - at[0], random.below(4)],
                };
                stroke.push(at);
            }
            stroke
                .into_iter()
                .map(|[x, y]| [x as f32 / 2.0, y as f32 / 3.0])
                .collect()
        };
        Self((0..n_letters).map(|_| letter(random)).collect())
    }

    /// Writes the word centered in a box of this half size.
    fn write(&self, canvas: &mut Canvas, center: Point, half: Point, color: Color) {
        let pitch = 2.0 * half[0] / self.0.len() as f32;
        let width = pitch * 0.66;
        let thickness = (0.13 * half[1] * 2.0).min(0.3 * width).max(1.2);
        for (i, stroke) in self.0.iter().enumerate() {
            let left = center[0] - half[0] + pitch * i as f32 + (pitch - width) / 2.0;
            let place = |point: Point| {
                [
                    left + point[0] * width,
                    center[1] - half[1] + point[1] * 2.0 * half[1],
                ]
            };
            for ends in stroke.windows(2) {
                canvas.line(place(ends[0]), place(ends[1]), thickness, color);
            }
        }
    }
}

impl Brand {
    pub(super) fn random(random: &mut Random) -> Self {
        let base = print_color(random);
        Self {
            base,
            second: against(random, base),
            layout: pick(
                random,
                &[
                    Layout::Panel,
                    Layout::TopBand,
                    Layout::Diagonal,
                    Layout::Badge,
                    Layout::Wave,
                    Layout::Scattered,
                    Layout::Split,
                ],
            ),
            name: {
                let n_letters = 3 + random.below(4);
                Word::random(random, n_letters)
            },
            stripes: match random.below(6) {
                0 => Stripes::Vertical(within(random, 5.0, 12.0)),
                1 => Stripes::Slanted(within(random, 5.0, 12.0)),
                2 => Stripes::Rays(within(random, 8.0, 18.0).floor()),
                _ => Stripes::None,
            },
            has_border: random.chance(0.3),
        }
    }
}

impl Variety {
    /// Draws a variety. Some of them keep to the colors of their brand.
    pub(super) fn random(random: &mut Random, brand: &Brand) -> Self {
        let color = if random.chance(0.3) {
            brand.second
        } else {
            against(random, brand.base)
        };
        Self {
            color,
            emblem: pick(random, &Emblem::ALL),
            emblem_color: if random.chance(0.3) {
                brand.base
            } else {
                print_color(random)
            },
            n_emblems: 1 + random.below(3),
            word: {
                let n_letters = 4 + random.below(5);
                Word::random(random, n_letters)
            },
            shift: within(random, 0.0, 1.0),
            turn: within(random, 0.0, 1.0),
        }
    }
}

/// The label of one product, `width` x `height` pixels.
pub(super) fn draw(brand: &Brand, variety: &Variety, width: usize, height: usize) -> Canvas {
    let mut sheet = Sheet {
        canvas: Canvas::new(width, height, brand.base),
        unit: width as f32,
        tall: height as f32 / width as f32,
        brand,
        variety,
    };
    sheet.stripes();
    match brand.layout {
        Layout::Panel => sheet.panel(),
        Layout::TopBand => sheet.top_band(),
        Layout::Diagonal => sheet.diagonal(),
        Layout::Badge => sheet.badge(),
        Layout::Wave => sheet.wave(),
        Layout::Scattered => sheet.scattered(),
        Layout::Split => sheet.split(),
    }
    if brand.has_border {
        sheet.border();
    }
    sheet.canvas
}

/// A label in work. Places are in widths of the label, so y goes from 0 to `tall`.
struct Sheet<'a> {
    canvas: Canvas,
    unit: f32,
    tall: f32,
    brand: &'a Brand,
    variety: &'a Variety,
}

impl Sheet<'_> {
    fn px(&self, at: Point) -> Point {
        [at[0] * self.unit, at[1] * self.unit]
    }

    fn block(&mut self, center: Point, half: Point, radius: f32, color: Color) {
        let (center, half) = (self.px(center), self.px(half));
        self.canvas.panel(center, half, radius * self.unit, color);
    }

    fn brand_name(&mut self, center: Point, half: Point, color: Color) {
        let (center, half) = (self.px(center), self.px(half));
        self.brand.name.write(&mut self.canvas, center, half, color);
    }

    fn variety_word(&mut self, center: Point, half: Point, color: Color) {
        let (center, half) = (self.px(center), self.px(half));
        self.variety
            .word
            .write(&mut self.canvas, center, half, color);
    }

    /// Lines of print too small to read.
    fn small_print(&mut self, top: f32, n_lines: usize, color: Color) {
        for line in 0..n_lines {
            let half = 0.3 - 0.1 * ((line * 7 + 3) % 4) as f32 / 4.0;
            let y = top + 0.045 * line as f32;
            self.block([0.5, y], [half, 0.008], 0.0, color);
        }
    }

    fn stripes(&mut self) {
        let color = mix(self.brand.base, self.brand.second, 0.35);
        let unit = self.unit;
        let (cx, cy) = (0.5 * unit, 0.5 * self.tall * unit);
        match self.brand.stripes {
            Stripes::None => {}
            Stripes::Vertical(n) => self.canvas.paint_all(color, |[x, _]| {
                let pitch = unit / n;
                (x.rem_euclid(pitch) - pitch / 2.0).abs() - pitch / 4.0
            }),
            Stripes::Slanted(n) => self.canvas.paint_all(color, |[x, y]| {
                let pitch = unit / n;
                ((x + y).rem_euclid(pitch) - pitch / 2.0).abs() - pitch / 4.0
            }),
            Stripes::Rays(n) => self.canvas.paint_all(color, |[x, y]| {
                let (dx, dy) = (x - cx, y - cy);
                -(dy.atan2(dx) * n).sin() * dx.hypot(dy) / n
            }),
        }
    }

    fn border(&mut self) {
        let color = self.variety.color;
        let (unit, tall) = (self.unit, self.tall * self.unit);
        self.canvas.paint_all(color, |[x, y]| {
            let edge = x.min(y).min(unit - x).min(tall - y);
            (edge - 0.05 * unit).abs() - 0.012 * unit
        });
    }

    fn panel(&mut self) {
        let (tall, shift) = (self.tall, self.variety.shift);
        let (second, color) = (self.brand.second, self.variety.color);
        self.block([0.5, 0.47 * tall], [0.4, 0.31 * tall], 0.06, second);
        self.brand_name([0.5, 0.27 * tall], [0.33, 0.075], ink(second));
        self.emblems([0.5, (0.47 + 0.06 * shift) * tall], 0.19, second);
        self.block([0.5, 0.88 * tall], [0.5, 0.07 * tall], 0.0, color);
        self.variety_word([0.5, 0.88 * tall], [0.36, 0.05], ink(color));
    }

    fn top_band(&mut self) {
        let tall = self.tall;
        let (second, color) = (self.brand.second, self.variety.color);
        let depth = 0.14 + 0.06 * self.variety.shift;
        self.block([0.5, depth * tall], [0.5, depth * tall], 0.0, color);
        self.brand_name([0.5, depth * tall], [0.38, 0.1], ink(color));
        self.emblems([0.5, 0.58 * tall], 0.25, self.brand.base);
        self.variety_word([0.5, 0.83 * tall], [0.32, 0.05], second);
        self.small_print(0.91 * tall, 2, second);
    }

    fn diagonal(&mut self) {
        let (tall, unit) = (self.tall, self.unit);
        let color = self.variety.color;
        let slope = if self.variety.turn < 0.5 { 0.6 } else { -0.6 };
        let middle = (0.5 + 0.2 * (self.variety.shift - 0.5)) * tall;
        self.canvas.paint_all(color, |[x, y]| {
            (middle + slope * (x / unit - 0.5)) * unit - y
        });
        self.brand_name([0.5, 0.17 * tall], [0.38, 0.1], ink(self.brand.base));
        self.emblems([0.5, 0.52 * tall], 0.23, color);
        self.variety_word([0.5, 0.85 * tall], [0.35, 0.055], ink(color));
    }

    fn badge(&mut self) {
        let tall = self.tall;
        let (second, color) = (self.brand.second, self.variety.color);
        let center = [0.5, (0.55 + 0.08 * self.variety.shift) * tall];
        let (middle, outer, inner) = (self.px(center), 0.36 * self.unit, 0.31 * self.unit);
        self.canvas.oval(middle, [outer; 2], color);
        self.canvas.oval(middle, [inner; 2], [0.96, 0.95, 0.9]);
        self.emblems(center, 0.2, [0.96, 0.95, 0.9]);
        self.block([0.5, 0.16 * tall], [0.5, 0.12], 0.0, second);
        self.brand_name([0.5, 0.16 * tall], [0.38, 0.08], ink(second));
        self.block([0.5, 0.92 * tall], [0.34, 0.05], 0.03, color);
        self.variety_word([0.5, 0.92 * tall], [0.28, 0.032], ink(color));
    }

    fn wave(&mut self) {
        let (tall, unit) = (self.tall, self.unit);
        let (second, color) = (self.brand.second, self.variety.color);
        let n_waves = 1.0 + (2.0 * self.variety.turn).floor();
        let crest = move |x: f32| 0.07 * (x / unit * TAU * n_waves).sin();
        let level = 0.6 + 0.1 * self.variety.shift;
        self.canvas
            .paint_all(second, |[x, y]| (level * tall - 0.05 + crest(x)) * unit - y);
        self.canvas
            .paint_all(color, |[x, y]| (level * tall + crest(x)) * unit - y);
        self.emblems([0.5, 0.2 * tall], 0.17, self.brand.base);
        self.brand_name([0.5, 0.45 * tall], [0.4, 0.1], ink(self.brand.base));
        self.variety_word([0.5, 0.83 * tall], [0.36, 0.06], ink(color));
        self.small_print(0.91 * tall, 2, ink(color));
    }

    fn scattered(&mut self) {
        let tall = self.tall;
        let (second, color) = (self.brand.second, self.variety.color);
        let printed = self.variety.emblem_color;
        let emblem_color = if apart(printed, self.brand.base) > MIN_CONTRAST {
            printed
        } else {
            ink(self.brand.base)
        };
        let n_rows = (tall / 0.26) as usize;
        for row in 0..=n_rows {
            for column in 0..4 {
                let x = 0.12 + 0.27 * column as f32 + 0.12 * (row % 2) as f32;
                let y = 0.1 + 0.26 * row as f32;
                self.emblem([x, y], 0.085, 0.4 * self.variety.turn, emblem_color);
            }
        }
        let middle = (0.38 + 0.2 * self.variety.shift) * tall;
        let (center, half) = (self.px([0.5, middle]), self.px([0.46, 0.19]));
        self.canvas.oval(center, half, second);
        self.brand_name([0.5, middle], [0.32, 0.085], ink(second));
        self.block([0.5, middle + 0.29], [0.3, 0.06], 0.06, color);
        self.variety_word([0.5, middle + 0.29], [0.23, 0.035], ink(color));
    }

    fn split(&mut self) {
        let (tall, color) = (self.tall, self.variety.color);
        let (near, far) = if self.variety.turn < 0.5 {
            (0.26, 0.74)
        } else {
            (0.74, 0.26)
        };
        let half = 0.2 + 0.06 * self.variety.shift;
        self.block([near, 0.5 * tall], [half, 0.5 * tall], 0.0, color);
        self.emblems([near, 0.66 * tall], 0.18, color);
        self.brand_name([0.5, 0.2 * tall], [0.42, 0.1], self.brand.second);
        self.block(
            [0.5, 0.2 * tall + 0.15],
            [0.42, 0.012],
            0.0,
            self.brand.second,
        );
        self.variety_word([far, 0.52 * tall], [0.19, 0.05], ink(self.brand.base));
        self.emblem([far, 0.78 * tall], 0.09, 0.0, ink(self.brand.base));
    }

    /// One to three emblems side by side within a radius, on a known ground.
    fn emblems(&mut self, center: Point, radius: f32, ground: Color) {
        if apart(self.variety.emblem_color, ground) < MIN_CONTRAST {
            // A disc behind it keeps an emblem of the ground's own color visible.
            let (middle, radius) = (self.px(center), 1.15 * radius * self.unit);
            self.canvas.oval(middle, [radius; 2], ink(ground));
        }
        let n = self.variety.n_emblems;
        let (size, pitch) = match n {
            1 => (radius, 0.0),
            2 => (0.62 * radius, 1.1 * radius),
            _ => (0.5 * radius, 0.8 * radius),
        };
        for i in 0..n {
            let offset = (i as f32 - (n - 1) as f32 / 2.0) * pitch;
            let drop = if n == 3 && i == 1 {
                -0.55 * radius
            } else {
                0.2 * radius * (n - 1) as f32
            };
            let turn = 0.5 * (self.variety.turn - 0.5);
            let color = self.variety.emblem_color;
            self.emblem([center[0] + offset, center[1] + drop], size, turn, color);
        }
    }

    fn emblem(&mut self, center: Point, radius: f32, turn: f32, color: Color) {
        let (center, radius) = (self.px(center), radius * self.unit);
        let emblem = self.variety.emblem;
        emblem.draw(&mut self.canvas, color, center, radius, turn);
    }
}
