//! The frame around data: grid, ticks, and what both axes say.

use super::Size;
use super::scale::Scale;
use super::svg::{Anchor, Canvas, TEXT, text_width};

/// What an axis shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// Its name, with the unit: `p95 latency, ms`.
    pub label: String,
    /// Whether equal distances are equal ratios.
    pub is_log: bool,
}

impl Axis {
    /// Equal distances are equal differences.
    #[must_use]
    pub fn linear(label: &str) -> Self {
        let label = label.to_owned();
        Self {
            label,
            is_log: false,
        }
    }

    /// Equal distances are equal ratios.
    #[must_use]
    pub fn log(label: &str) -> Self {
        let label = label.to_owned();
        Self {
            label,
            is_log: true,
        }
    }
}

/// Space above the data for the name of the y axis.
const TOP: f64 = 26.0;

/// Space below the data for ticks and the name of the x axis.
const BOTTOM: f64 = 40.0;

/// A canvas with axes, and the scales of what is drawn into it.
pub(super) struct Frame {
    pub(super) canvas: Canvas,
    pub(super) x: Scale,
    pub(super) y: Scale,
}

impl Frame {
    /// Draws grid, ticks and names; `right` is kept free beside the data for names.
    pub(super) fn new(
        size: Size,
        axes: (&Axis, &Axis),
        (x, y): (Scale, Scale),
        right: f64,
    ) -> Self {
        let mut canvas = Canvas::new(size.width, size.height);
        let y = y.over(size.height - BOTTOM, TOP);
        let n_y = ((size.height - BOTTOM - TOP) / 34.0) as usize;
        let y_ticks = y.ticks(n_y);
        let widest = y_ticks
            .iter()
            .map(|(_, text)| text_width(text))
            .fold(0.0, f64::max);
        let x = x.over(widest + 10.0, size.width - right.max(10.0));
        for (value, text) in &y_ticks {
            let Some(at) = y.at(*value) else { continue };
            canvas.line("grid", (x.start(), at), (x.end(), at));
            canvas.text(
                "tick",
                (x.start() - 6.0, at + 0.35 * TEXT),
                Anchor::End,
                text,
            );
        }
        x_axis(&mut canvas, &x, y.start());
        let base = y.start();
        canvas.line("base", (x.start(), base), (x.end(), base));
        let label_at = (
            x.end()
                .max(x.start() + text_width(&axes.0.label))
                .min(size.width),
            size.height - 6.0,
        );
        canvas.text("axis", label_at, Anchor::End, &axes.0.label);
        canvas.text("axis", (0.0, TEXT), Anchor::Start, &axes.1.label);
        Self { canvas, x, y }
    }

    /// Place of two values; none if an axis can not show one.
    pub(super) fn at(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.x.at(x)?, self.y.at(y)?))
    }
}

/// Ticks along the lower edge, at `base`, with short marks. Gives their values.
pub(super) fn x_axis(canvas: &mut Canvas, x: &Scale, base: f64) -> Vec<f64> {
    // As many as have room for their text.
    let mut n = ((x.end() - x.start()) / 44.0) as usize;
    let ticks = loop {
        let ticks = x.ticks(n);
        let places: Vec<(f64, f64)> = ticks
            .iter()
            .filter_map(|(value, text)| Some((x.at(*value)?, text_width(text))))
            .collect();
        let fits =
            |pair: &[(f64, f64)]| pair[1].0 - pair[0].0 > (pair[0].1 + pair[1].1) / 2.0 + 8.0;
        if n <= 2 || places.windows(2).all(fits) {
            break ticks;
        }
        n -= 1;
    };
    for (value, text) in &ticks {
        let Some(at) = x.at(*value) else { continue };
        canvas.line("base", (at, base), (at, base + 4.0));
        // Kept within the drawing at both ends.
        let half = text_width(text) / 2.0;
        let middle = at.clamp(half, (canvas.width - half).max(half));
        canvas.text("tick", (middle, base + 6.0 + TEXT), Anchor::Middle, text);
    }
    ticks.into_iter().map(|(value, _)| value).collect()
}

/// [`x_axis`] with a grid from `top` down to it.
pub(super) fn x_grid(canvas: &mut Canvas, x: &Scale, top: f64, base: f64) {
    for value in x_axis(canvas, x, base) {
        if let Some(at) = x.at(value) {
            canvas.line("grid", (at, top), (at, base));
        }
    }
}
