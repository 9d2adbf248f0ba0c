//! Plots as SVG elements inside the page: axes with units, few round ticks, names beside the
//! things they name.
//!
//! Drawings take their colors from the page's style, so that one drawing serves light, dark
//! and paper. They are designed for the width of a phone; those that need more room have a
//! second drawing for wide pages, and only one of both is shown.

mod axis;
mod bars;
mod cloud;
mod dots;
mod lines;
mod matrix;
mod mirror;
mod place;
mod ridges;
mod scale;
mod scatter;
mod svg;

pub use axis::Axis;
pub use bars::{Bar, Bars};
pub use cloud::Cloud;
pub use dots::{Dot, DotRow, Dots};
pub use lines::{Band, Line, Lines};
pub use matrix::Matrix;
pub use mirror::Mirror;
pub use ridges::{Ridge, Ridges};
pub use scatter::{Point, Scatter};

use super::Table;

/// Colors that a drawing tells apart; the page's style names as many.
pub const N_COLORS: usize = 6;

/// How a point is drawn: told apart without color too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// For f32.
    Circle,
    /// For f16.
    Square,
    /// For int8.
    Triangle,
    /// For anything else.
    Diamond,
    /// For what went wrong.
    Cross,
}

impl Shape {
    /// The shape of a precision.
    #[must_use]
    pub fn of_precision(precision: &str) -> Self {
        match precision {
            "f32" => Self::Circle,
            "f16" => Self::Square,
            "int8" => Self::Triangle,
            _ => Self::Diamond,
        }
    }

    /// Outline around a place, of about the area of a circle of that radius.
    fn path(self, (x, y): (f64, f64), radius: f64) -> String {
        use svg::short;
        let (x, y, r) = (short(x), short(y), radius);
        let path = |steps: [(f64, f64); 4], start: (f64, f64)| {
            let mut data = format!("M{x} {y}m{} {}", short(start.0), short(start.1));
            for (dx, dy) in steps.iter().filter(|step| **step != (0.0, 0.0)) {
                data += &format!("l{} {}", short(*dx), short(*dy));
            }
            data + "z"
        };
        match self {
            Self::Circle => {
                let (r, d) = (short(r), short(2.0 * r));
                format!("M{x} {y}m-{r} 0a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z")
            }
            Self::Square => {
                let h = 0.89 * r;
                path(
                    [(2.0 * h, 0.0), (0.0, 2.0 * h), (-2.0 * h, 0.0), (0.0, 0.0)],
                    (-h, -h),
                )
            }
            Self::Triangle => {
                let h = 1.2 * r;
                path(
                    [(h, 1.9 * h), (-2.0 * h, 0.0), (0.0, 0.0), (0.0, 0.0)],
                    (0.0, -1.1 * h),
                )
            }
            Self::Diamond => {
                let h = 1.25 * r;
                path([(h, h), (-h, h), (-h, -h), (0.0, 0.0)], (0.0, -h))
            }
            Self::Cross => {
                let d = short(1.7 * r);
                let h = short(0.85 * r);
                format!("M{x} {y}m-{h} -{h}l{d} {d}m0 -{d}l-{d} {d}")
            }
        }
    }
}

/// A drawing with what a reader must know of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// Heading.
    pub title: String,
    /// What is to be seen, for those who do not see it.
    pub description: String,
    /// Drawing for narrow places, an `svg` element; also for wide ones if there is no other.
    pub narrow: String,
    /// Drawing for wide places.
    pub wide: Option<String>,
    /// What the shapes and colors are.
    pub key: Vec<KeyEntry>,
    /// What the numbers mean, how many measurements are behind them, where they come from.
    pub note: String,
    /// The drawing's numbers.
    pub table: Option<Table>,
}

/// What a shape or a color is.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyEntry {
    /// An `svg` element.
    swatch: String,
    /// Its meaning.
    pub meaning: String,
}

impl KeyEntry {
    /// Of a shape, filled or hollow, in a color or in the text's.
    #[must_use]
    pub fn of_shape(shape: Shape, color: Option<usize>, is_filled: bool, meaning: &str) -> Self {
        const SIDE: f64 = 14.0;
        let data = shape.path((SIDE / 2.0, SIDE / 2.0), 4.5);
        let color = color.map_or(String::new(), color_class);
        let fill = if is_filled { "full" } else { "hollow" };
        Self {
            swatch: format!(
                r#"<svg class="swatch {color}" viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}" aria-hidden="true"><path class="mark-{fill}" d="{data}"/></svg>"#
            ),
            meaning: meaning.to_owned(),
        }
    }

    /// Of a filled area.
    #[must_use]
    pub fn of_color(color: usize, meaning: &str) -> Self {
        let color = color_class(color);
        Self {
            swatch: format!(
                r#"<svg class="swatch {color}" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true"><rect class="area" x="1" y="2" width="12" height="10"/></svg>"#
            ),
            meaning: meaning.to_owned(),
        }
    }

    pub(super) fn swatch(&self) -> &str {
        &self.swatch
    }
}

/// How large a drawing is, in pixels where it is shown at its own size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Size {
    /// As wide as a phone's page.
    pub const NARROW: Self = Self {
        width: 328.0,
        height: 236.0,
    };
    /// As wide as a page on a table.
    pub const WIDE: Self = Self {
        width: 760.0,
        height: 360.0,
    };

    /// With another height.
    #[must_use]
    pub fn high(self, height: f64) -> Self {
        Self { height, ..self }
    }
}

/// Class of a color; those beyond the last begin anew.
fn color_class(color: usize) -> String {
    format!("k{}", color % N_COLORS + 1)
}
