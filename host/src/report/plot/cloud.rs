//! Many points of one kind, and some of two others over them: a map of embeddings.

use super::place::Places;
use super::scale::Scale;
use super::svg::{Anchor, Canvas, TEXT, dots_of};
use super::{Figure, Shape, Size, color_class};

/// A map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cloud {
    /// The many.
    pub ground: Vec<(f64, f64)>,
    /// Points that are right.
    pub right: Vec<(f64, f64)>,
    /// Points that are wrong.
    pub wrong: Vec<(f64, f64)>,
    /// Names at places, the most important first; those without room are left out.
    pub names: Vec<((f64, f64), String)>,
    /// What the axes are.
    pub label: String,
}

impl Cloud {
    /// The drawing, in which both axes have the same scale.
    #[must_use]
    pub fn draw(&self, size: Size, figure: &Figure) -> String {
        const BOTTOM: f64 = 22.0;
        let mut canvas = Canvas::new(size.width, size.height);
        let (width, height) = (size.width, size.height - BOTTOM);
        let all = || self.ground.iter().chain(&self.right).chain(&self.wrong);
        let range = |of: fn(&(f64, f64)) -> f64| {
            let values = || all().map(of).filter(|value| value.is_finite());
            let low = values().fold(f64::INFINITY, f64::min);
            (low, values().fold(f64::NEG_INFINITY, f64::max))
        };
        let ((left, right), (bottom, top)) = (range(|p| p.0), range(|p| p.1));
        let middle = ((left + right) / 2.0, (bottom + top) / 2.0);
        let per_pixel = ((right - left) / (width - 16.0))
            .max((top - bottom) / (height - 16.0))
            .max(1e-9);
        let half = (per_pixel * width / 2.0, per_pixel * height / 2.0);
        let x = Scale::exact(middle.0 - half.0, middle.0 + half.0, false).over(0.0, width);
        let y = Scale::exact(middle.1 - half.1, middle.1 + half.1, false).over(height, 0.0);
        let place = |point: &(f64, f64)| Some((x.at(point.0)?, y.at(point.1)?));
        canvas.rect("plate", (0.0, 0.0), width, height);
        canvas.path(
            "dots ground",
            &dots_of(self.ground.iter().filter_map(place)),
        );
        canvas.group(&color_class(0), "queries answered right", |canvas| {
            canvas.path("dots", &dots_of(self.right.iter().filter_map(place)));
        });
        let crosses: String = { self.wrong.iter() }
            .filter_map(place)
            .map(|at| Shape::Cross.path(at, 3.6))
            .collect();
        canvas.group(&color_class(1), "queries answered wrong", |canvas| {
            canvas.path("mark-hollow", &crosses);
        });
        let mut places = Places::within([2.0, 2.0, width - 2.0, height - 2.0]);
        for wrong in self.wrong.iter().filter_map(place) {
            places.take(wrong, 3.0);
        }
        for (at, name) in &self.names {
            let found = place(at).and_then(|at| places.name(at, name));
            if let Some((at, anchor)) = found {
                canvas.text("name haloed", at, anchor, name);
            }
        }
        canvas.text(
            "axis",
            (width, size.height - 0.4 * TEXT),
            Anchor::End,
            &self.label,
        );
        canvas.finish("plot", &figure.title, &figure.description)
    }
}
