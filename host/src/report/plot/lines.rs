//! Curves with their names at their ends.

use super::axis::{Axis, Frame};
use super::place::apart;
use super::scale::Scale;
use super::svg::{Anchor, TEXT, dots_of, fitted, path_of, text_width};
use super::{Figure, Size, color_class};

/// Most room for names beside the data, as a share of the width.
const NAMES: f64 = 0.36;

/// A curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Its name; nothing is written if there is none.
    pub name: String,
    /// Which of the page's colors.
    pub color: usize,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
    /// Drawn with dashes.
    pub is_dashed: bool,
    /// Points are shown as dots.
    pub has_dots: bool,
}

/// A range of x for which y is between two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Where it begins and ends.
    pub x: [f64; 2],
    /// Between what.
    pub y: [f64; 2],
}

/// A plot of curves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// Along the lower edge.
    pub x: Axis,
    /// Along the left edge.
    pub y: Axis,
    /// The curves.
    pub lines: Vec<Line>,
    /// Shaded ranges below the curves.
    pub bands: Vec<Band>,
    /// y is a share: its axis goes from 0 to 1.
    pub is_share: bool,
    /// The y axis begins at 0.
    pub from_zero: bool,
}

impl Lines {
    /// The drawing.
    #[must_use]
    pub fn draw(&self, size: Size, figure: &Figure) -> String {
        let points = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().copied())
        };
        let bands = || self.bands.iter().flat_map(|band| band.x);
        let x = Scale::around(points().map(|point| point.0).chain(bands()), self.x.is_log);
        let y = if self.is_share {
            Scale::exact(0.0, 1.0, false)
        } else if self.from_zero {
            Scale::from_zero(points().map(|point| point.1))
        } else {
            Scale::around(points().map(|point| point.1), self.y.is_log)
        };
        let names = self.lines.iter().map(|line| text_width(&line.name));
        let widest = names.fold(0.0, f64::max).min(NAMES * size.width);
        let right = if widest > 0.0 { widest + 12.0 } else { 10.0 };
        let mut frame = Frame::new(size, (&self.x, &self.y), (x, y), right);
        for band in &self.bands {
            draw_band(&mut frame, band);
        }
        for line in &self.lines {
            draw_line(&mut frame, line);
        }
        self.draw_names(&mut frame, widest);
        frame
            .canvas
            .finish("plot", &figure.title, &figure.description)
    }

    fn draw_names(&self, frame: &mut Frame, widest: f64) {
        let ends: Vec<(&Line, (f64, f64))> = { self.lines.iter() }
            .filter(|line| !line.name.is_empty())
            .filter_map(|line| {
                let shown = |point: &(f64, f64)| frame.at(point.0, point.1);
                Some((line, line.points.iter().rev().find_map(shown)?))
            })
            .collect();
        let heights: Vec<f64> = ends.iter().map(|(_, end)| end.1).collect();
        let bounds = (frame.y.end(), frame.y.start());
        for ((line, _), y) in ends.iter().zip(apart(&heights, TEXT + 2.0, bounds)) {
            let name = fitted(&line.name, widest);
            let at = (frame.x.end() + 8.0, y + 0.35 * TEXT);
            frame
                .canvas
                .group(&color_class(line.color), &line.name, |canvas| {
                    canvas.text("name", at, Anchor::Start, &name);
                    canvas.line("tab", (at.0 - 7.0, y), (at.0 - 3.0, y));
                });
        }
    }
}

fn draw_band(frame: &mut Frame, band: &Band) {
    let [left, right] = band.x.map(|x| frame.x.at_or_end(x));
    let [bottom, top] = band.y.map(|y| frame.y.at_or_end(y));
    let (width, height) = (right - left, bottom - top);
    frame.canvas.rect("band", (left, top), width, height);
}

fn draw_line(frame: &mut Frame, line: &Line) {
    let class = color_class(line.color);
    let places: Vec<(f64, f64)> = { line.points.iter() }
        .filter_map(|(x, y)| frame.at(*x, *y))
        .collect();
    let has_dots = line.has_dots || places.len() == 1;
    let path = path_of(places.iter().copied());
    frame.canvas.group(&class, &line.name, |canvas| {
        canvas.path(
            if line.is_dashed {
                "curve dashed"
            } else {
                "curve"
            },
            &path,
        );
        if has_dots {
            canvas.path("dots", &dots_of(places));
        }
    });
}
