//! Counts of pairs as shades: which label was found for which.

use super::Figure;
use super::svg::{Anchor, Canvas, TEXT, fitted, text_width};

/// Counts by row and column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Names of rows and columns.
    pub names: Vec<String>,
    /// Counts: row by row, as many as names squared.
    pub counts: Vec<usize>,
    /// What rows are.
    pub rows: String,
    /// What columns are.
    pub columns: String,
}

/// Distance of rows and columns: names of both stand at it.
const CELL: f64 = 15.0;

/// Most room for a name.
const NAME: f64 = 150.0;

impl Matrix {
    /// The drawing, in a size of its own: names would not be legible in a narrower one.
    #[must_use]
    pub fn draw(&self, figure: &Figure) -> String {
        let n = self.names.len();
        let widest = self
            .names
            .iter()
            .map(|name| text_width(name))
            .fold(0.0, f64::max)
            .min(NAME);
        let (left, top) = (widest + 10.0, widest + 10.0 + TEXT + 8.0);
        let side = n as f64 * CELL;
        let columns = left + text_width(&self.columns);
        // A small square is narrower than what is said below it.
        let right = (left + side).max(text_width(&self.rows));
        let mut canvas = Canvas::new(right.max(columns) + 4.0, top + side + TEXT + 12.0);
        canvas.text("axis", (left, TEXT), Anchor::Start, &self.columns);
        for (idx, name) in self.names.iter().enumerate() {
            let at = (idx as f64 + 0.5) * CELL;
            let name = fitted(name, NAME);
            canvas.text("", (left - 6.0, top + at + 0.35 * TEXT), Anchor::End, &name);
            canvas.text_upwards((left + at + 0.35 * TEXT, top - 6.0), &name);
        }
        canvas.rect("plate", (left, top), side, side);
        for row in 0..n {
            let counts = &self.counts[row * n..(row + 1) * n];
            let total: usize = counts.iter().sum();
            for (column, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let at = (left + column as f64 * CELL, top + row as f64 * CELL);
                let title = format!(
                    "{} found for {}: {count} of {total}",
                    self.names[column], self.names[row]
                );
                let kind = if row == column { "right" } else { "wrong" };
                let class = format!("shade {kind} s{}", shade(*count, total));
                canvas.group("", &title, |canvas| {
                    canvas.rect(&class, (at.0 + 0.5, at.1 + 0.5), CELL - 1.0, CELL - 1.0);
                });
            }
        }
        canvas.text(
            "axis",
            (right, top + side + TEXT + 6.0),
            Anchor::End,
            &self.rows,
        );
        canvas.finish("plot fixed", &figure.title, &figure.description)
    }
}

/// From 1 to 5.
fn shade(count: usize, total: usize) -> usize {
    (5 * count).div_ceil(total.max(1)).clamp(1, 5)
}
