//! A drawing that grows by elements: numbers are finite and short, text is escaped.

use std::fmt::Write;

use crate::report::html::escape;

/// Height of text in a drawing. A phone shows drawings at about their own size, so this is
/// what people read there, in pixels.
pub(super) const TEXT: f64 = 12.0;

/// A drawing.
pub(super) struct Canvas {
    pub(super) width: f64,
    pub(super) height: f64,
    body: String,
}

/// Where a text's anchor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn attribute(self) -> &'static str {
        match self {
            Self::Start => "",
            Self::Middle => r#" text-anchor="middle""#,
            Self::End => r#" text-anchor="end""#,
        }
    }
}

/// A coordinate: two decimals are finer than any screen.
pub(super) fn short(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// About how wide a text of height [`TEXT`] is, in the widest of the fonts that pages use.
pub(super) fn text_width(text: &str) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '\'' | '!' | 'I' | ' ' => 0.32,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' => 0.41,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.98,
        'A'..='Z' => 0.72,
        c if c.is_ascii() => 0.63,
        _ => 0.85,
    };
    TEXT * text.chars().map(of).sum::<f64>()
}

/// The text, cut with an ellipsis if it is wider than allowed.
pub(super) fn fitted(text: &str, width: f64) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let mut kept: String = text.to_owned();
    while kept.pop().is_some() && text_width(&kept) + TEXT * 0.8 > width {}
    kept.trim_end().to_owned() + "…"
}

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Self {
        let body = String::new();
        Self {
            width,
            height,
            body,
        }
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let points = [from.0, from.1, to.0, to.1].map(short);
        let [x1, y1, x2, y2] = points;
        self.add(&format!(
            r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#
        ));
    }

    pub(super) fn rect(&mut self, class: &str, at: (f64, f64), width: f64, height: f64) {
        let [x, y] = [at.0, at.1].map(short);
        let [width, height] = [width.max(0.0), height.max(0.0)].map(short);
        self.add(&format!(
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#
        ));
    }

    /// A path; `data` comes from [`path_of`] and its like.
    pub(super) fn path(&mut self, class: &str, data: &str) {
        if !data.is_empty() {
            self.add(&format!(r#"<path class="{class}" d="{data}"/>"#));
        }
    }

    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let [x, y] = [at.0, at.1].map(short);
        let class = if class.is_empty() {
            String::new()
        } else {
            format!(r#" class="{class}""#)
        };
        let anchor = anchor.attribute();
        let text = escape(text);
        self.add(&format!(
            r#"<text{class} x="{x}" y="{y}"{anchor}>{text}</text>"#
        ));
    }

    /// A text that runs upwards.
    pub(super) fn text_upwards(&mut self, at: (f64, f64), text: &str) {
        let [x, y] = [at.0, at.1].map(short);
        let text = escape(text);
        self.add(&format!(
            r#"<text x="{x}" y="{y}" transform="rotate(-90 {x} {y})">{text}</text>"#
        ));
    }

    /// What `draw` adds becomes one thing, which says `title` to a pointer or a reader.
    pub(super) fn group(&mut self, class: &str, title: &str, draw: impl FnOnce(&mut Self)) {
        self.add(&format!(r#"<g class="{class}">"#));
        if !title.is_empty() {
            self.add(&format!("<title>{}</title>", escape(title)));
        }
        draw(self);
        self.add("</g>");
    }

    fn add(&mut self, element: &str) {
        self.body += element;
        self.body.push('\n');
    }

    /// The element: as wide as its place, or of its own size with `is_fixed`.
    pub(super) fn finish(self, class: &str, title: &str, description: &str) -> String {
        let [width, height] = [self.width, self.height].map(short);
        let mut svg = String::with_capacity(self.body.len() + 500);
        let _ = write!(
            svg,
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n",
            escape(title),
            escape(description),
        );
        svg += &self.body;
        svg + "</svg>\n"
    }
}

/// A line through points.
pub(super) fn path_of(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut data = String::new();
    for (x, y) in points {
        let command = if data.is_empty() { 'M' } else { 'L' };
        let _ = write!(data, "{command}{} {}", short(x), short(y));
    }
    data
}

/// Points as dots of a round pen: far shorter than an element for each.
pub(super) fn dots_of(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut data = String::new();
    for (x, y) in points {
        let _ = write!(data, "M{} {}h0", short(x), short(y));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short_and_finite() {
        assert_eq!(short(1.0), "1");
        assert_eq!(short(-0.001), "0");
        assert_eq!(short(2.505), "2.5");
        assert_eq!(short(f64::NAN), "0");
        assert_eq!(short(f64::INFINITY), "0");
    }

    #[test]
    fn text_that_is_too_wide_ends_with_an_ellipsis() {
        assert_eq!(fitted("short", 100.0), "short");
        let cut = fitted("a name that is far too long for its place", 100.0);
        assert!(cut.ends_with('…') && text_width(&cut) <= 101.0, "{cut}");
        assert_eq!(fitted("wide", 0.0), "…");
    }
}
