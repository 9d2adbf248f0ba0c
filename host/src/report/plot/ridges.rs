//! Histograms under each other on one axis: where the time of each stage lies.

use super::axis::{Axis, x_grid};
use super::scale::Scale;
use super::svg::{Anchor, Canvas, TEXT, path_of, text_width};
use super::{Figure, color_class};

/// One histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ridge {
    /// Its name.
    pub name: String,
    /// Lower edges of bins, ascending, and the upper edge of the last.
    pub edges: Vec<f64>,
    /// Samples in each bin.
    pub counts: Vec<u64>,
    /// A value that is marked, such as the median.
    pub mark: f64,
    /// Written at its right end.
    pub text: String,
}

/// Histograms that share the x axis. Heights are shares of the highest bin of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ridges {
    /// Along the lower edge.
    pub x: Axis,
    /// From the top down.
    pub rows: Vec<Ridge>,
}

/// Height of a row.
const ROW: f64 = 38.0;

impl Ridges {
    /// The drawing; its height follows from the rows.
    #[must_use]
    pub fn draw(&self, width: f64, figure: &Figure) -> String {
        let widest = |text: fn(&Ridge) -> &str| {
            let widths = self.rows.iter().map(|row| text_width(text(row)));
            widths.fold(0.0, f64::max)
        };
        let (left, right) = (
            widest(|row| &row.name) + 10.0,
            widest(|row| &row.text) + 10.0,
        );
        let base = self.rows.len() as f64 * ROW + 4.0;
        let mut canvas = Canvas::new(width, base + 42.0);
        let edges = self.rows.iter().flat_map(|row| row.used_edges());
        let x = Scale::around(edges, self.x.is_log).over(left, width - right);
        x_grid(&mut canvas, &x, 4.0, base);
        for (idx, row) in self.rows.iter().enumerate() {
            let bottom = (idx + 1) as f64 * ROW;
            canvas.text("", (0.0, bottom - 3.0), Anchor::Start, &row.name);
            canvas.text("value", (width, bottom - 3.0), Anchor::End, &row.text);
            let title = format!("{}: {}", row.name, row.text);
            canvas.group(&color_class(idx), &title, |canvas| {
                row.draw(canvas, &x, bottom);
            });
        }
        canvas.line("base", (left, base), (x.end(), base));
        canvas.text(
            "axis",
            (width, canvas.height - 5.0),
            Anchor::End,
            &self.x.label,
        );
        canvas.finish("plot", &figure.title, &figure.description)
    }
}

impl Ridge {
    /// Bins with their edges.
    fn bins(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let edges = self.edges.windows(2);
        edges
            .zip(&self.counts)
            .map(|(edges, count)| (edges[0], edges[1], *count))
    }

    /// From the first bin with a sample to the last.
    fn used_edges(&self) -> impl Iterator<Item = f64> {
        let used = self.bins().filter(|(.., count)| *count > 0);
        used.flat_map(|(low, high, _)| [low, high])
    }

    fn draw(&self, canvas: &mut Canvas, x: &Scale, bottom: f64) {
        let most = self.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
        let mut outline = Vec::new();
        let used: Vec<_> = self.bins().collect();
        let first = used.iter().position(|bin| bin.2 > 0).unwrap_or(0);
        let last = used
            .iter()
            .rposition(|bin| bin.2 > 0)
            .map_or(0, |idx| idx + 1);
        for (low, high, count) in &used[first.min(last)..last] {
            let height = (ROW - 8.0) * *count as f64 / most;
            let (left, right) = (x.at_or_end(*low), x.at_or_end(*high));
            if outline.is_empty() {
                outline.push((left, bottom));
            }
            outline.extend([(left, bottom - height), (right, bottom - height)]);
        }
        if let Some(end) = outline.last().copied() {
            outline.push((end.0, bottom));
        }
        canvas.path("area soft", &path_of(outline));
        canvas.line("grid", (x.start(), bottom), (x.end(), bottom));
        if let Some(at) = x.at(self.mark) {
            canvas.line("median", (at, bottom - ROW + 8.0), (at, bottom + 2.0));
        }
    }
}

/// Kept for the height of rows beside text.
const _: () = assert!(ROW > 2.0 * TEXT);
