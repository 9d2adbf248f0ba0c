//! The windows: which were disturbed, and how warm the board was.

use super::View;
use crate::bench::results::{Cell as Measured, Performance, WindowResult};
use crate::report::plot::{Axis, Figure, KeyEntry, Line, Lines, Point, Scatter, Shape, Size};
use crate::report::text::{counted, significant, thousands};
use crate::report::{Block, Cell, Section, Table};

/// Flagged windows that are named in the plot; more would hide each other.
const MAX_NAMED: usize = 4;

/// A window with its cell.
#[derive(Clone, Copy)]
struct Placed<'a> {
    cell: &'a Measured,
    performance: &'a Performance,
    window: &'a WindowResult,
    /// Minutes since the first window began.
    minute: f64,
}

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let placed = placed(view);
    if placed.is_empty() {
        return None;
    }
    let flagged: Vec<Placed<'_>> = { placed.iter() }
        .filter(|placed| !placed.window.flags.is_empty())
        .copied()
        .collect();
    let mut blocks = vec![Block::Text(format!(
        "{} of {} have a flag: something else than the student had a part in their times. They \
         count in no figure as long as a cell has clean ones.",
        thousands(flagged.len() as u64),
        counted(placed.len(), "window", "windows"),
    ))];
    let mut figures = vec![drift(view, &placed)];
    figures.extend(curve(&placed, "Temperature", "°C", |window| {
        window.celsius
    }));
    figures.extend(curve(
        &placed,
        "Clock of the slowest core",
        "MHz",
        |window| window.clock_mhz,
    ));
    blocks.push(Block::Figures(figures));
    if !flagged.is_empty() {
        blocks.push(Block::Table(table(view, &flagged, "Flagged windows")));
    }
    let all = Block::Table(table(view, &placed, ""));
    blocks.push(Block::Folded("All windows".to_owned(), vec![all]));
    Some(Section::new("Windows and what disturbed them", blocks))
}

/// All windows in the order of their beginning.
fn placed<'a>(view: &View<'a>) -> Vec<Placed<'a>> {
    let mut placed = Vec::new();
    for cell in &view.results.cells {
        let Some(performance) = &cell.performance else {
            continue;
        };
        for window in &performance.windows {
            placed.push(Placed {
                cell,
                performance,
                window,
                minute: 0.0,
            });
        }
    }
    placed.sort_by_key(|placed| placed.window.began_unix_us);
    let began = placed
        .first()
        .map_or(0, |placed| placed.window.began_unix_us);
    for placed in &mut placed {
        placed.minute = (placed.window.began_unix_us - began) as f64 / 60e6;
    }
    placed
}

fn drift(view: &View<'_>, placed: &[Placed<'_>]) -> Figure {
    let n_flagged = placed
        .iter()
        .filter(|placed| !placed.window.flags.is_empty())
        .count();
    let point = |placed: &Placed<'_>| {
        let flags: Vec<&str> = placed
            .window
            .flags
            .iter()
            .map(|raised| raised.flag.name())
            .collect();
        let (color, shape) = if flags.is_empty() {
            (0, Shape::Circle)
        } else {
            (1, Shape::Cross)
        };
        let name = view.naming.name(placed.cell);
        Point {
            x: placed.minute,
            y: placed.window.total.median_ms / placed.performance.median_ms,
            interval: None,
            color,
            shape,
            is_marked: true,
            text: format!(
                "{name}, round {} {}",
                placed.window.round + 1,
                flags.join(", ")
            ),
            name: if n_flagged <= MAX_NAMED {
                flags.join(", ")
            } else {
                String::new()
            },
        }
    };
    let scatter = Scatter {
        x: Axis::linear("minutes since the first window"),
        y: Axis::linear("median by the cell's"),
        points: placed.iter().map(point).collect(),
        is_front: false,
        is_share: false,
        level: Some(1.0),
    };
    let mut figure = Figure {
        title: "Drift".to_owned(),
        description: "Each window's median latency by that of its cell, over time.".to_owned(),
        key: vec![
            KeyEntry::of_shape(Shape::Circle, Some(0), true, "clean window"),
            KeyEntry::of_shape(Shape::Cross, Some(1), false, "flagged window"),
        ],
        note: "1 is the cell's own latency; a rise over the session would be heat.".to_owned(),
        ..Figure::default()
    };
    figure.narrow = scatter.draw(Size::NARROW, &figure);
    figure
}

fn curve(
    placed: &[Placed<'_>],
    title: &str,
    unit: &str,
    of: fn(&WindowResult) -> Option<[f64; 2]>,
) -> Option<Figure> {
    let points: Vec<(f64, f64)> = { placed.iter() }
        .filter_map(|placed| Some((placed, of(placed.window)?)))
        .flat_map(|(placed, [before, after])| {
            let end = placed.minute + placed.window.seconds / 60.0;
            [(placed.minute, before), (end, after)]
        })
        .collect();
    if points.is_empty() {
        return None;
    }
    let lines = Lines {
        x: Axis::linear("minutes since the first window"),
        y: Axis::linear(unit),
        lines: vec![Line {
            points,
            ..Line::default()
        }],
        ..Lines::default()
    };
    let mut figure = Figure {
        title: title.to_owned(),
        description: format!("{title} before and after each window, over time."),
        note: "Read before and after each window.".to_owned(),
        ..Figure::default()
    };
    figure.narrow = lines.draw(Size::NARROW, &figure);
    Some(figure)
}

fn table(view: &View<'_>, placed: &[Placed<'_>], title: &str) -> Table {
    let pair = |pair: Option<[f64; 2]>| {
        Cell::from(pair.map(|[a, b]| format!("{} → {}", significant(a), significant(b))))
    };
    let row = |placed: &Placed<'_>| {
        let window = placed.window;
        let flags: Vec<String> = { window.flags.iter() }
            .map(|raised| format!("{}: {}", raised.flag, raised.why))
            .collect();
        vec![
            view.naming.name(placed.cell).into(),
            (window.round + 1).to_string().into(),
            format!("{:.1}", placed.minute).into(),
            format!("{:.1}", window.seconds).into(),
            thousands(window.n as u64).into(),
            significant(window.total.median_ms).into(),
            significant(window.total.p95_ms).into(),
            pair(window.celsius),
            pair(window.clock_mhz),
            format!("{:.2}", window.others).into(),
            Cell::Words(if flags.is_empty() {
                "clean".to_owned()
            } else {
                flags.join("; ")
            }),
        ]
    };
    let columns = [
        "cell",
        "round",
        "minute",
        "seconds",
        "n",
        "median ms",
        "p95 ms",
        "°C",
        "MHz",
        "others, cores",
        "flags",
    ];
    Table {
        title: title.to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: placed.iter().map(row).collect(),
        convention: "minute: since the session's first window began; n: queries in the window; \
                     others: processing time of other processes, in cores"
            .to_owned(),
        origin: view.origin.clone(),
        ..Table::default()
    }
}
