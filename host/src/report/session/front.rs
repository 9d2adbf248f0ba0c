//! Which cell to ship: recall over what it costs, and the best under limits.

use super::{View, front_over, recall_text, value};
use crate::bench::measures::Measure;
use crate::bench::results::Cell as Measured;
use crate::report::plot::{Axis, Figure, KeyEntry, Point, Scatter, Shape, Size};
use crate::report::select::{self, Limit};
use crate::report::text::{significant, thousands};
use crate::report::{Block, Cell, Section, Table};

/// Rows of the table of limits that nobody gave.
const MAX_LIMITS: usize = 4;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let has_both = |cell: &Measured| cell.accuracy.is_some() && cell.performance.is_some();
    if !view.results.cells.iter().any(has_both) {
        return None;
    }
    let hero = figure(
        view,
        "p95_ms",
        "p95 latency, ms",
        "Recall against latency",
        true,
    );
    let mut blocks = vec![Block::Figures(vec![hero])];
    blocks.push(Block::Table(best_by_limits(view)));
    let costs = [
        ("rss_mb", "peak memory, MB", "Recall against memory"),
        ("bundle_mb", "bundle, MB", "Recall against bundle size"),
        (
            "joules_per_query",
            "energy of a query, J",
            "Recall against energy",
        ),
    ];
    let others: Vec<Figure> = { costs.iter() }
        .filter(|(name, ..)| {
            view.results
                .cells
                .iter()
                .any(|cell| value(cell, name).is_some())
        })
        .map(|(name, label, title)| figure(view, name, label, title, false))
        .collect();
    blocks.push(Block::Figures(others));
    Some(Section::new("Which one to ship", blocks))
}

/// recall_at_1 over a cost.
fn figure(view: &View<'_>, cost: &str, label: &str, title: &str, is_large: bool) -> Figure {
    let cells = &view.results.cells;
    let is_on_front = front_over(cells, cost);
    let points = cells
        .iter()
        .zip(&is_on_front)
        .filter_map(|(cell, is_on_front)| {
            let name = if is_large {
                view.naming.name(cell)
            } else {
                String::new()
            };
            Some(Point {
                x: value(cell, cost)?,
                y: value(cell, "recall_at_1")?,
                interval: cell
                    .accuracy
                    .as_ref()
                    .map(|found| found.recall_at_1_interval),
                color: view.color(cell),
                shape: Shape::of_precision(&cell.precision),
                is_marked: *is_on_front,
                name,
                text: view.text_of(cell),
            })
        });
    let scatter = Scatter {
        x: Axis::log(label),
        y: Axis::linear("recall_at_1"),
        points: points.collect(),
        is_front: true,
        is_share: true,
        level: None,
    };
    let n_front = is_on_front.iter().filter(|is| **is).count();
    let mut figure = Figure {
        title: title.to_owned(),
        description: format!(
            "{} cells by {label} and recall_at_1; {n_front} of them are on the Pareto front, \
             joined by a step line.",
            scatter.points.len()
        ),
        ..Figure::default()
    };
    let provisional = if view.is_provisional() {
        " All windows are flagged: the times can only be compared with each other."
    } else {
        ""
    };
    if is_large {
        figure.key = view.key();
        let hollow = KeyEntry::of_shape(Shape::Circle, None, false, "beaten, or not to be chosen");
        figure.key.push(hollow);
        figure.note = format!(
            "Filled: on the front, with the 95 % interval of recall_at_1 (n = {} queries). \
             Further left is quicker, further up is right more often.{} From {}.",
            thousands(view.results.queries.len() as u64),
            provisional,
            view.origin
        );
        figure.wide = Some(scatter.draw(Size::WIDE, &figure));
        figure.narrow = scatter.draw(Size::NARROW.high(300.0), &figure);
    } else {
        figure.narrow = scatter.draw(Size::NARROW, &figure);
        let names = cells.iter().zip(&is_on_front).filter(|(_, is)| **is);
        let names: Vec<String> = names.map(|(cell, _)| view.naming.name(cell)).collect();
        figure.note = if names.is_empty() {
            "No cell can be chosen.".to_owned()
        } else {
            format!("On the front: {}.", names.join(", "))
        };
    }
    figure
}

fn best_by_limits(view: &View<'_>) -> Table {
    let cells = &view.results.cells;
    let mut rows = Vec::new();
    if !view.limits.is_empty() {
        let best = select::best(cells, view.limits);
        rows.push(row_of_limits(view, &view.limits_text(), best));
    }
    rows.push(row_of_limits(view, "no limit", select::best(cells, &[])));
    let generic = ["p95_ms", "rss_mb", "bundle_mb"];
    for limits in generic.iter().filter_map(|name| limits_over(cells, name)) {
        for (limit, best) in limits {
            rows.push(row_of_limits(view, &limit.to_string(), Some(best)));
        }
    }
    let columns = [
        "limit",
        "best",
        "recall_at_1 (95 %)",
        "p95 ms",
        "memory MB",
        "bundle MB",
    ];
    Table {
        title: "The best under a limit".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows,
        convention: "highest recall_at_1 within the limit, among equals the lowest p95 latency; \
                     cells that failed, or whose windows are all flagged, can not be chosen. \
                     MB: 1,000,000 bytes. Other limits: `eyas report --best 'p95_ms<50,rss_mb<64'`"
            .to_owned(),
        n: n_queries(view),
        origin: view.origin.clone(),
    }
}

fn row_of_limits(view: &View<'_>, limit: &str, best: Option<&Measured>) -> Vec<Cell> {
    let number = |name: &str| Cell::from(best.and_then(|best| value(best, name)).map(significant));
    vec![
        limit.into(),
        Cell::Words(best.map_or_else(|| "none".to_owned(), |best| view.naming.name(best))),
        Cell::from(best.and_then(recall_text)),
        number("p95_ms"),
        number("rss_mb"),
        number("bundle_mb"),
    ]
}

/// Round limits under each of which another cell is best, the tightest first.
fn limits_over<'a>(cells: &'a [Measured], name: &str) -> Option<Vec<(Limit, &'a Measured)>> {
    let measure = Measure::by_name(name)?;
    let values = cells.iter().filter_map(|cell| measure.read(cell));
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    let without_limit = select::best(cells, &[]);
    let mut found: Vec<(Limit, &Measured)> = Vec::new();
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    for bound in powers.flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(power))) {
        let text = format!("{name}<{}", significant(bound));
        let Ok(limits) = Limit::parse_all(&text) else {
            continue;
        };
        let best = select::best(cells, &limits);
        let is_new = |best: &&Measured| {
            let known = found.last().map(|(_, known)| *known);
            known != Some(*best) && without_limit != Some(*best)
        };
        if let (Some(best), Some(limit)) = (best.filter(is_new), limits.first()) {
            found.push((*limit, best));
        }
    }
    found.truncate(MAX_LIMITS);
    Some(found)
}

pub(super) fn n_queries(view: &View<'_>) -> String {
    let answered = view
        .results
        .cells
        .iter()
        .filter_map(|cell| Some(cell.accuracy.as_ref()?.n));
    let (least, most) = answered.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
    match most {
        0 => String::new(),
        most if least == most => format!("{} queries a cell", thousands(most as u64)),
        most => format!("{least} to {most} queries a cell"),
    }
}

/// The table of all numbers.
pub(super) fn all_cells(view: &View<'_>) -> Option<Section> {
    let cells = &view.results.cells;
    if cells.is_empty() {
        return None;
    }
    let columns = [
        "cell",
        "on the front",
        "recall_at_1 (95 %)",
        "median ms",
        "p95 ms",
        "p99 ms",
        "queries/s",
        "memory MB",
        "bundle MB",
        "J/query",
        "flagged windows",
        "failures",
    ];
    let table = Table {
        columns: columns.map(str::to_owned).to_vec(),
        rows: cells
            .iter()
            .zip(&view.is_on_front)
            .map(|(cell, is)| row_of_cell(view, cell, *is))
            .collect(),
        convention: "front: of recall_at_1 over p95 latency. median and p95: medians over the \
                     windows that count; p99: of all their queries. memory: most of the process, \
                     mapped files as far as touched. MB: 1,000,000 bytes"
            .to_owned(),
        n: format!(
            "{}; {} windows a cell of at least {} s",
            n_queries(view),
            view.results.protocol.n_windows,
            view.results.protocol.at_least_s
        ),
        origin: view.origin.clone(),
        ..Table::default()
    };
    Some(Section::new("All cells", vec![Block::Table(table)]))
}

fn row_of_cell(view: &View<'_>, cell: &Measured, is_on_front: bool) -> Vec<Cell> {
    let number = |name: &str| Cell::from(value(cell, name).map(significant));
    let windows = cell.performance.as_ref().map(|performance| {
        let n = performance.windows.len();
        let n_flagged = performance
            .windows
            .iter()
            .filter(|window| !window.flags.is_empty())
            .count();
        format!("{n_flagged} of {n}")
    });
    let unanswered = cell.accuracy.as_ref().map_or(0, |found| found.failed.len());
    let n_failures = cell.failures.len() + unanswered;
    let front = if is_on_front && view.is_provisional() {
        "● front, flagged".into()
    } else if is_on_front {
        "● front".into()
    } else if select::why_not(cell).is_some() {
        "not eligible".into()
    } else {
        "○ beaten".into()
    };
    vec![
        view.naming.name(cell).into(),
        front,
        Cell::from(recall_text(cell)),
        number("median_ms"),
        number("p95_ms"),
        number("p99_ms"),
        number("queries_per_second"),
        number("rss_mb"),
        number("bundle_mb"),
        number("joules_per_query"),
        Cell::from(windows),
        n_failures.to_string().into(),
    ]
}
