//! Points with names, and the front that nobody beats as a step line.

use super::axis::{Axis, Frame};
use super::place::Places;
use super::scale::Scale;
use super::svg::path_of;
use super::{Figure, Shape, Size, color_class};

/// Radius of a point.
const RADIUS: f64 = 4.5;

/// A point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Along the x axis.
    pub x: f64,
    /// Along the y axis.
    pub y: f64,
    /// Between which values y probably is.
    pub interval: Option<[f64; 2]>,
    /// Which of the page's colors.
    pub color: usize,
    /// Its form.
    pub shape: Shape,
    /// Filled and named, not hollow.
    pub is_marked: bool,
    /// Short name, shown beside it where there is room.
    pub name: String,
    /// All that is to be said of it.
    pub text: String,
}

/// A plot of points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scatter {
    /// Along the lower edge.
    pub x: Axis,
    /// Along the left edge.
    pub y: Axis,
    /// The points; one that an axis can not show is left out.
    pub points: Vec<Point>,
    /// Join the marked points by steps, from low x and low y on.
    pub is_front: bool,
    /// y is a share: its axis ends at 0 and 1 at the latest.
    pub is_share: bool,
    /// A value of y that everything is compared with.
    pub level: Option<f64>,
}

impl Scatter {
    /// The drawing.
    #[must_use]
    pub fn draw(&self, size: Size, figure: &Figure) -> String {
        let ends = |point: &Point| point.interval.unwrap_or([point.y; 2]);
        let y_values = { self.points.iter() }
            .filter(|point| point.is_marked)
            .flat_map(ends)
            .chain(self.points.iter().map(|point| point.y))
            .chain(self.level);
        let x = Scale::around(self.points.iter().map(|point| point.x), self.x.is_log);
        let y = if self.is_share {
            Scale::around_shares(y_values)
        } else {
            Scale::around(y_values, self.y.is_log)
        };
        let mut frame = Frame::new(size, (&self.x, &self.y), (x, y), 12.0);
        if let Some(at) = self.level.and_then(|level| frame.y.at(level)) {
            let ends = ((frame.x.start(), at), (frame.x.end(), at));
            frame.canvas.line("level", ends.0, ends.1);
        }
        let front = if self.is_front {
            self.front(&frame)
        } else {
            Vec::new()
        };
        frame.canvas.path("front", &path_of(front.iter().copied()));
        self.draw_points(&mut frame);
        self.draw_names(&mut frame, &front);
        frame
            .canvas
            .finish("plot", &figure.title, &figure.description)
    }

    /// Up at each marked point, then on to the next: what is to be had at a cost.
    fn front(&self, frame: &Frame) -> Vec<(f64, f64)> {
        let marked = self.points.iter().filter(|point| point.is_marked);
        let mut places: Vec<(f64, f64)> = marked
            .filter_map(|point| frame.at(point.x, point.y))
            .collect();
        places.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (Some(first), Some(last)) = (places.first().copied(), places.last().copied()) else {
            return Vec::new();
        };
        let mut path = vec![(first.0, frame.y.start())];
        let mut height = frame.y.start();
        for (x, y) in places {
            path.extend([(x, height), (x, y)]);
            height = y;
        }
        path.push((frame.x.end(), last.1));
        path
    }

    fn draw_points(&self, frame: &mut Frame) {
        // Marked ones last, over the others.
        for is_marked in [false, true] {
            for point in self
                .points
                .iter()
                .filter(|point| point.is_marked == is_marked)
            {
                let Some(at) = frame.at(point.x, point.y) else {
                    continue;
                };
                let class = color_class(point.color);
                let ends = point
                    .interval
                    .filter(|_| is_marked)
                    .and_then(|[low, high]| Some((frame.y.at(low)?, frame.y.at(high)?)));
                let is_line = point.shape == Shape::Cross;
                let mark = if is_marked && !is_line {
                    "mark-full"
                } else {
                    "mark-hollow"
                };
                frame.canvas.group(&class, &point.text, |canvas| {
                    if let Some((low, high)) = ends {
                        canvas.line("whisker", (at.0, low), (at.0, high));
                    }
                    canvas.path(mark, &point.shape.path(at, RADIUS));
                });
            }
        }
    }

    fn draw_names(&self, frame: &mut Frame, front: &[(f64, f64)]) {
        let bounds = [
            frame.x.start(),
            frame.y.end() - 6.0,
            frame.canvas.width,
            frame.y.start(),
        ];
        let mut places = Places::within(bounds);
        for step in front.windows(2) {
            places.take_line(step[0], step[1]);
        }
        for point in &self.points {
            let Some(at) = frame.at(point.x, point.y) else {
                continue;
            };
            places.take(at, RADIUS);
            let interval = point.interval.filter(|_| point.is_marked);
            let ends = interval.map(|ends| ends.map(|y| frame.y.at_or_end(y)));
            if let Some([low, high]) = ends {
                places.take_line((at.0, low), (at.0, high));
            }
        }
        for point in self
            .points
            .iter()
            .filter(|point| point.is_marked && !point.name.is_empty())
        {
            let Some(at) = frame.at(point.x, point.y) else {
                continue;
            };
            if let Some((at, anchor)) = places.name(at, &point.name) {
                frame.canvas.text("name on-page", at, anchor, &point.name);
            }
        }
    }
}
