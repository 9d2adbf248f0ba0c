//! Gallery and queries in the plane in which the gallery's embeddings differ most.

use std::collections::BTreeMap;

use super::View;
use crate::report::plot::{Cloud, Figure, KeyEntry, Shape, Size};
use crate::report::text::{counted, percent};
use crate::report::{Block, Section};

/// Labels that are named on the map.
const MAX_NAMES: usize = 24;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let cell = view.looked_at()?;
    let accuracy = cell.accuracy.as_ref()?;
    let mut galleries = view.results.galleries.iter();
    let gallery = galleries.find(|gallery| gallery.name == cell.gallery)?;
    if gallery.map.is_empty() {
        return None;
    }
    let place = |at: [f32; 2]| (f64::from(at[0]), f64::from(at[1]));
    let of = |wanted: bool| {
        let answers = accuracy.answers.iter();
        let kind = answers.filter(|answer| (answer.first_right == Some(0)) == wanted);
        kind.map(|answer| place(answer.at)).collect::<Vec<_>>()
    };
    // The middle of each label's rows; labels with most mistakes are named first.
    let mut labels: BTreeMap<&str, (f64, f64, usize, usize)> = BTreeMap::new();
    for point in &gallery.map {
        let entry = labels.entry(&point.label).or_default();
        let (x, y) = place([point.x, point.y]);
        *entry = (entry.0 + x, entry.1 + y, entry.2 + 1, entry.3);
    }
    for answer in accuracy
        .answers
        .iter()
        .filter(|answer| answer.first_right != Some(0))
    {
        let label = view
            .results
            .queries
            .get(answer.query)
            .map(|query| &*query.label);
        if let Some(entry) = label.and_then(|label| labels.get_mut(label)) {
            entry.3 += 1;
        }
    }
    let mut sorted: Vec<_> = labels.into_iter().collect();
    sorted.sort_by(|a, b| b.1.3.cmp(&a.1.3).then(a.0.cmp(b.0)));
    let names = sorted.iter().take(MAX_NAMES).map(|(label, (x, y, n, _))| {
        let n = *n as f64;
        ((x / n, y / n), (*label).to_owned())
    });
    let cloud = Cloud {
        ground: gallery
            .map
            .iter()
            .map(|point| place([point.x, point.y]))
            .collect(),
        right: of(true),
        wrong: of(false),
        names: names.collect(),
        label: "first two principal components".to_owned(),
    };
    let mut figure = Figure {
        title: String::new(),
        description: "Gallery rows as dots, queries as dots where answered right and as crosses \
                      where wrong."
            .to_owned(),
        key: vec![
            KeyEntry::of_shape(Shape::Circle, Some(0), true, "query, answered right"),
            KeyEntry::of_shape(Shape::Cross, Some(1), false, "query, answered wrong"),
            KeyEntry::of_shape(Shape::Circle, Some(5), true, "row of the gallery"),
        ],
        note: format!(
            "{} of gallery `{}`, embedded by {}; queries embedded by {} on the board. The plane \
             holds {} of the variance of the rows: near on the map need not be near. Names: labels \
             with most mistakes first.",
            counted(gallery.map.len(), "row", "rows"),
            gallery.name,
            gallery.teacher,
            view.naming.name(cell),
            percent(gallery.map_share),
        ),
        ..Figure::default()
    };
    figure.title = "Map of embeddings".to_owned();
    figure.narrow = cloud.draw(Size::NARROW.high(330.0), &figure);
    figure.wide = Some(cloud.draw(Size::WIDE.high(520.0), &figure));
    Some(Section::new(
        "Where embeddings lie",
        vec![Block::Figures(vec![figure])],
    ))
}
