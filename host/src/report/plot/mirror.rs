//! Two histograms back to back: one kind upwards, the other downwards.

use super::axis::{Axis, x_axis};
use super::scale::Scale;
use super::svg::{Anchor, Canvas, TEXT};
use super::{Figure, Size, color_class};

/// Values of two kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    /// Along the lower edge.
    pub x: Axis,
    /// Name and values of the upper kind.
    pub up: (String, Vec<f64>),
    /// Name and values of the lower kind.
    pub down: (String, Vec<f64>),
    /// Bins.
    pub n_bins: usize,
}

impl Mirror {
    /// Edges of the bins, and counts of both kinds.
    #[must_use]
    pub fn bins(&self) -> (Vec<f64>, Vec<[usize; 2]>) {
        let finite = |value: &&f64| value.is_finite();
        let all = || self.up.1.iter().chain(&self.down.1).filter(finite).copied();
        let n_bins = self.n_bins.max(1);
        let (low, high) = (
            all().fold(f64::INFINITY, f64::min),
            all().fold(f64::NEG_INFINITY, f64::max),
        );
        if low > high {
            return (Vec::new(), Vec::new());
        }
        let width = ((high - low) / n_bins as f64).max(1e-6);
        let edges = (0..=n_bins).map(|idx| low + idx as f64 * width).collect();
        let mut counts = vec![[0, 0]; n_bins];
        for (kind, values) in [&self.up.1, &self.down.1].into_iter().enumerate() {
            for value in values.iter().filter(finite) {
                let bin = ((value - low) / width) as usize;
                counts[bin.min(n_bins - 1)][kind] += 1;
            }
        }
        (edges, counts)
    }

    /// The drawing.
    #[must_use]
    pub fn draw(&self, size: Size, figure: &Figure) -> String {
        const BOTTOM: f64 = 42.0;
        let mut canvas = Canvas::new(size.width, size.height);
        let (edges, counts) = self.bins();
        let most = |kind: usize| counts.iter().map(|count| count[kind]).max().unwrap_or(0) as f64;
        let base = size.height - BOTTOM;
        let unit = (base - 8.0) / (most(0) + most(1)).max(1.0);
        let zero = 4.0 + most(0) * unit;
        let x = Scale::around(edges.iter().copied(), false).over(4.0, size.width - 4.0);
        for (edges, count) in edges.windows(2).zip(&counts) {
            let (left, right) = (x.at_or_end(edges[0]), x.at_or_end(edges[1]));
            let width = (right - left - 1.0).max(0.5);
            for (kind, n) in count.iter().enumerate().filter(|(_, n)| **n > 0) {
                let height = *n as f64 * unit;
                let top = if kind == 0 { zero - height } else { zero };
                let class = format!("area {}", color_class(kind));
                let name = [&self.up.0, &self.down.0][kind];
                let title = format!("{name}: {n} from {:.3} to {:.3}", edges[0], edges[1]);
                canvas.group("bars", &title, |canvas| {
                    canvas.rect(&class, (left, top), width, height);
                });
            }
        }
        canvas.line("base", (x.start(), zero), (x.end(), zero));
        x_axis(&mut canvas, &x, base);
        // Low scores are seldom right and high ones seldom wrong: there is room for names.
        let [up, down] =
            [&self.up, &self.down].map(|(name, values)| format!("{name} ({})", values.len()));
        let at = (x.start(), TEXT + 2.0);
        canvas.text("name on-page", at, Anchor::Start, &up);
        let at = (x.end(), base - 6.0);
        canvas.text("name on-page", at, Anchor::End, &down);
        canvas.text(
            "axis",
            (size.width, size.height - 5.0),
            Anchor::End,
            &self.x.label,
        );
        canvas.finish("plot", &figure.title, &figure.description)
    }
}
