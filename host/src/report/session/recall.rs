//! How often each student is right at each precision, on the board and beside the host.

use super::View;
use super::front::n_queries;
use crate::bench::results::{Accuracy, Cell as Measured};
use crate::report::plot::{Axis, Dot, DotRow, Dots, Figure, KeyEntry, Shape, Size};
use crate::report::text::{share, share_between};
use crate::report::{Block, Cell, Section, Table};

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let scored: Vec<(&Measured, &Accuracy)> = { view.results.cells.iter() }
        .filter_map(|cell| Some((cell, cell.accuracy.as_ref()?)))
        .collect();
    if scored.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::Figures(vec![figure(view, &scored)])];
    blocks.push(Block::Table(table(view, &scored)));
    Some(Section::new("How often it is right", blocks))
}

fn figure(view: &View<'_>, scored: &[(&Measured, &Accuracy)]) -> Figure {
    let dot = |(cell, accuracy): &(&Measured, &Accuracy)| Dot {
        value: accuracy.recall_at_1,
        interval: Some(accuracy.recall_at_1_interval),
        of: Vec::new(),
        color: view.color(cell),
        shape: Shape::of_precision(&cell.precision),
        text: view.text_of(cell),
    };
    let row = |student: &&str| DotRow {
        name: (*student).to_owned(),
        dots: scored
            .iter()
            .filter(|(cell, _)| cell.student == **student)
            .map(dot)
            .collect(),
    };
    let dots = Dots {
        x: Axis::linear("recall_at_1"),
        rows: view
            .students
            .iter()
            .map(row)
            .filter(|row| !row.dots.is_empty())
            .collect(),
        level: None,
    };
    let mut figure = Figure {
        title: "recall_at_1 by student and precision".to_owned(),
        description: "A row for each student, a mark for each of its cells, with intervals."
            .to_owned(),
        ..Figure::default()
    };
    let mut precisions: Vec<&str> = Vec::new();
    for (cell, _) in scored {
        if !precisions.contains(&&*cell.precision) {
            precisions.push(&cell.precision);
        }
    }
    let key = |name: &&str| KeyEntry::of_shape(Shape::of_precision(name), None, true, name);
    figure.key = precisions.iter().map(key).collect();
    figure.note = format!(
        "Lines: 95 % interval by bootstrap over {}. The order within a row is the session's.",
        n_queries(view)
    );
    figure.narrow = dots.draw(Size::NARROW.width, &figure);
    figure.wide = Some(dots.draw(Size::WIDE.width, &figure));
    figure
}

fn table(view: &View<'_>, scored: &[(&Measured, &Accuracy)]) -> Table {
    let row = |(cell, accuracy): &(&Measured, &Accuracy)| {
        let optional = |value: Option<f64>| Cell::from(value.map(share));
        let agreement = accuracy.agreement;
        vec![
            view.naming.name(cell).into(),
            share_between(accuracy.recall_at_1, accuracy.recall_at_1_interval).into(),
            optional(accuracy.recall_at_5),
            optional(accuracy.recall_at_10),
            optional(accuracy.mean_average_precision_at_r),
            format!("{:.6}", agreement.min_cosine).into(),
            agreement.n_other_first.to_string().into(),
            accuracy.n.to_string().into(),
            accuracy.n_without_relevant.to_string().into(),
        ]
    };
    let columns = [
        "cell",
        "recall_at_1 (95 %)",
        "recall_at_5",
        "recall_at_10",
        "mean_average_precision_at_r",
        "least cosine to host",
        "other first than host",
        "n",
        "nothing to find",
    ];
    Table {
        title: "Accuracy on the board".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: scored.iter().map(row).collect(),
        convention: "means over the queries whose label the gallery has; the image itself is \
                     never its own match. Interval: bootstrap over queries. Cosine: of the \
                     board's embedding with that of the same bundle on the host"
            .to_owned(),
        n: n_queries(view),
        origin: view.origin.clone(),
    }
}
