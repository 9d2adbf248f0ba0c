//! Lengths beside names: one bar a row, of one part or of several.

use super::axis::x_grid;
use super::scale::Scale;
use super::svg::{Anchor, Canvas, TEXT, fitted, text_width};
use super::{Figure, Size, color_class};

/// A row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Lengths of its parts; what is no length counts as none.
    pub parts: Vec<f64>,
    /// Written behind the bar.
    pub text: String,
    /// All that is to be said of it.
    pub title: String,
}

/// A plot of bars.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// What the lengths are, with the unit.
    pub label: String,
    /// From the top down.
    pub rows: Vec<Bar>,
}

/// Distance of rows, with the name beside the bar.
const ROW: f64 = 20.0;

/// Distance of rows, with the name above the bar.
const HIGH_ROW: f64 = 37.0;

/// Most room for names beside the bars, as a share of the width.
const NAMES: f64 = 0.42;

impl Bars {
    /// The drawing; its height follows from the rows.
    #[must_use]
    pub fn draw(&self, width: f64, figure: &Figure) -> String {
        let names = self.rows.iter().map(|row| text_width(&row.name));
        let widest = names.fold(0.0, f64::max);
        let is_beside = widest <= NAMES * width;
        let distance = if is_beside { ROW } else { HIGH_ROW };
        let left = if is_beside { widest + 8.0 } else { 0.0 };
        let texts = self.rows.iter().map(|row| text_width(&row.text));
        let right = texts.fold(0.0, f64::max) + 8.0;
        let size = Size {
            width,
            height: self.rows.len() as f64 * distance + 44.0,
        };
        let mut canvas = Canvas::new(size.width, size.height);
        let totals = self
            .rows
            .iter()
            .map(|row| row.parts.iter().copied().filter(|p| *p > 0.0).sum());
        let x = Scale::from_zero(totals).over(left, size.width - right);
        let base = self.rows.len() as f64 * distance + 4.0;
        x_grid(&mut canvas, &x, 0.0, base);
        for (idx, row) in self.rows.iter().enumerate() {
            let top = idx as f64 * distance + 2.0;
            let top = if is_beside {
                let at = (left - 8.0, top + 8.0 + 0.35 * TEXT);
                canvas.text("", at, Anchor::End, &row.name);
                top
            } else {
                canvas.text(
                    "",
                    (0.0, top + TEXT),
                    Anchor::Start,
                    &fitted(&row.name, width),
                );
                top + TEXT + 3.0
            };
            draw_row(&mut canvas, &x, row, top);
        }
        canvas.line("base", (left, base), (x.end(), base));
        canvas.text(
            "axis",
            (size.width, size.height - 5.0),
            Anchor::End,
            &self.label,
        );
        canvas.finish("plot", &figure.title, &figure.description)
    }
}

fn draw_row(canvas: &mut Canvas, x: &Scale, row: &Bar, top: f64) {
    const THICK: f64 = 14.0;
    let mut from = 0.0;
    canvas.group("bars", &row.title, |canvas| {
        for (color, part) in row
            .parts
            .iter()
            .enumerate()
            .filter(|(_, part)| **part > 0.0)
        {
            let (left, right) = (x.at_or_end(from), x.at_or_end(from + part));
            let class = format!("area {}", color_class(color));
            canvas.rect(&class, (left, top + 1.0), right - left, THICK);
            from += part;
        }
    });
    let at = (x.at_or_end(from) + 5.0, top + 8.0 + 0.35 * TEXT);
    canvas.text("value", at, Anchor::Start, &row.text);
}
