//! Values with intervals beside names: a row for each group, a line for each of its dots.

use super::axis::{Axis, x_grid};
use super::scale::Scale;
use super::svg::{Anchor, Canvas, TEXT, dots_of, fitted, text_width};
use super::{Figure, Shape, color_class};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub struct Dot {
    /// The value.
    pub value: f64,
    /// Between what it probably is, or how far it spreads.
    pub interval: Option<[f64; 2]>,
    /// What it was made of, such as the values of single seeds.
    pub of: Vec<f64>,
    /// Which of the page's colors.
    pub color: usize,
    /// Its form.
    pub shape: Shape,
    /// All that is to be said of it.
    pub text: String,
}

/// A group.
#[derive(Clone, Debug, PartialEq)]
pub struct DotRow {
    /// Its name.
    pub name: String,
    /// From the top down.
    pub dots: Vec<Dot>,
}

/// A plot of dots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dots {
    /// Along the lower edge; a share.
    pub x: Axis,
    /// From the top down.
    pub rows: Vec<DotRow>,
    /// A value that everything is compared with, and its name.
    pub level: Option<(f64, String)>,
}

/// Distance of a group's dots.
const LINE: f64 = 13.0;

/// Space between groups.
const GAP: f64 = 9.0;

/// Most room for names beside the dots, as a share of the width.
const NAMES: f64 = 0.40;

impl Dots {
    /// The drawing; its height follows from the rows.
    #[must_use]
    pub fn draw(&self, width: f64, figure: &Figure) -> String {
        let names = self.rows.iter().map(|row| text_width(&row.name));
        let widest = names.fold(0.0, f64::max);
        let is_beside = widest <= NAMES * width;
        let (left, head) = if is_beside {
            (widest + 12.0, 0.0)
        } else {
            (0.0, TEXT + 5.0)
        };
        let top = if self.level.is_some() {
            TEXT + 8.0
        } else {
            2.0
        };
        let height_of = |row: &DotRow| head + row.dots.len().max(1) as f64 * LINE + GAP;
        let base = top + self.rows.iter().map(height_of).sum::<f64>();
        let mut canvas = Canvas::new(width, base + 42.0);
        let dots = || self.rows.iter().flat_map(|row| &row.dots);
        let values = dots().flat_map(|dot| {
            let ends = dot.interval.unwrap_or([dot.value; 2]);
            [dot.value, ends[0], ends[1]]
                .into_iter()
                .chain(dot.of.iter().copied())
        });
        let level = self.level.as_ref().map(|level| level.0);
        let x = Scale::around_shares(values.chain(level)).over(left + 6.0, width - 10.0);
        x_grid(&mut canvas, &x, top, base);
        self.draw_level(&mut canvas, &x, base);
        let mut y = top;
        for row in &self.rows {
            if is_beside {
                let middle = y + (height_of(row) - GAP) / 2.0;
                canvas.text("", (left, middle + 0.35 * TEXT), Anchor::End, &row.name);
            } else {
                canvas.text(
                    "",
                    (0.0, y + TEXT),
                    Anchor::Start,
                    &fitted(&row.name, width),
                );
            }
            for (idx, dot) in row.dots.iter().enumerate() {
                draw_dot(&mut canvas, &x, dot, y + head + (idx as f64 + 0.5) * LINE);
            }
            y += height_of(row);
            canvas.line("grid", (0.0, y - GAP / 2.0), (width, y - GAP / 2.0));
        }
        canvas.text(
            "axis",
            (width, canvas.height - 5.0),
            Anchor::End,
            &self.x.label,
        );
        canvas.finish("plot", &figure.title, &figure.description)
    }

    fn draw_level(&self, canvas: &mut Canvas, x: &Scale, base: f64) {
        let Some((level, name)) = &self.level else {
            return;
        };
        let Some(at) = x.at(*level) else { return };
        canvas.line("level", (at, TEXT + 4.0), (at, base));
        let width = text_width(name);
        let right = (at + width / 2.0).clamp(width.min(canvas.width), canvas.width);
        canvas.text("name", (right, TEXT), Anchor::End, name);
    }
}

fn draw_dot(canvas: &mut Canvas, x: &Scale, dot: &Dot, y: f64) {
    let Some(at) = x.at(dot.value) else { return };
    canvas.group(&color_class(dot.color), &dot.text, |canvas| {
        if let Some([low, high]) = dot.interval {
            canvas.line("whisker", (x.at_or_end(low), y), (x.at_or_end(high), y));
        }
        canvas.path(
            "dots faint",
            &dots_of(dot.of.iter().filter_map(|value| Some((x.at(*value)?, y)))),
        );
        canvas.path("mark-full", &dot.shape.path((at, y), 4.2));
    });
}
