//! Where the time goes: stages, spread, cold start, operators.

use super::View;
use crate::bench::results::{Cell as Measured, ColdStart, Performance};
use crate::report::plot::{Axis, Bar, Bars, Figure, KeyEntry, Ridge, Ridges, Size};
use crate::report::text::{counted, significant, thousands};
use crate::report::{Block, Cell, Section, Table};
use eyas_shared::timing::Stage;

/// Cells whose histograms are shown.
const MAX_HISTOGRAMS: usize = 6;

/// Operators that are shown.
const MAX_OPERATORS: usize = 12;

type Timed<'a> = (&'a Measured, &'a Performance);

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let timed: Vec<Timed<'_>> = { view.results.cells.iter() }
        .filter_map(|cell| Some((cell, cell.performance.as_ref()?)))
        .collect();
    if timed.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::Figures(vec![stages(view, &timed)])];
    let histograms = histograms(view, &timed);
    if !histograms.is_empty() {
        blocks.push(Block::Figures(histograms));
    }
    if timed
        .iter()
        .any(|(_, performance)| !performance.cold_starts.is_empty())
    {
        blocks.push(Block::Figures(vec![cold_starts(view, &timed)]));
    }
    Some(Section::new("How long a query takes", blocks))
}

/// All stages but their sum.
fn parts() -> impl Iterator<Item = Stage> {
    Stage::ALL
        .into_iter()
        .filter(|stage| *stage != Stage::Total)
}

fn median(performance: &Performance, stage: Stage) -> Option<f64> {
    let mut stages = performance.stages.iter();
    Some(
        stages
            .find(|figures| figures.stage == stage)?
            .figures
            .median_ms,
    )
}

fn stages(view: &View<'_>, timed: &[Timed<'_>]) -> Figure {
    let bar = |(cell, performance): &Timed<'_>| Bar {
        name: view.naming.name(cell),
        parts: parts()
            .map(|stage| median(performance, stage).unwrap_or(0.0))
            .collect(),
        text: significant(performance.median_ms),
        title: view.text_of(cell),
    };
    let bars = Bars {
        label: "median, ms".to_owned(),
        rows: timed.iter().map(bar).collect(),
    };
    let mut figure = Figure {
        title: "Stages of a query".to_owned(),
        description: "A bar for each cell, of the medians of its stages.".to_owned(),
        key: (0..)
            .zip(parts())
            .map(|(idx, stage)| KeyEntry::of_color(idx, stage.name()))
            .collect(),
        note: "Parts: medians of each stage. Number: median of the whole query, which differs \
               from their sum. Decode: file bytes to samples; preprocess: to the network's \
               pixels; encode: to the embedding; search: to matches and verdict."
            .to_owned(),
        ..Figure::default()
    };
    figure.table = Some(stage_table(view, timed));
    figure.narrow = bars.draw(Size::NARROW.width, &figure);
    figure.wide = Some(bars.draw(Size::WIDE.width, &figure));
    figure
}

fn stage_table(view: &View<'_>, timed: &[Timed<'_>]) -> Table {
    let mut rows = Vec::new();
    for (cell, performance) in timed {
        for stage in &performance.stages {
            let figures = stage.figures;
            let numbers = [
                figures.min_ms,
                figures.mean_ms,
                figures.median_ms,
                figures.p90_ms,
                figures.p95_ms,
                figures.p99_ms,
                figures.max_ms,
            ];
            let mut row: Vec<Cell> = vec![
                view.naming.name(cell).into(),
                stage.stage.name().into(),
                thousands(figures.n as u64).into(),
            ];
            row.extend(numbers.map(|number| Cell::from(significant(number))));
            rows.push(row);
        }
    }
    let columns = [
        "cell",
        "stage",
        "n",
        "min ms",
        "mean ms",
        "median ms",
        "p90 ms",
        "p95 ms",
        "p99 ms",
        "max ms",
    ];
    Table {
        columns: columns.map(str::to_owned).to_vec(),
        rows,
        convention: "of all queries of the windows that count; a quantile is the smallest time \
                     that so many do not exceed"
            .to_owned(),
        origin: view.origin.clone(),
        ..Table::default()
    }
}

/// Of the cells on the front, or of the first ones.
fn histograms(view: &View<'_>, timed: &[Timed<'_>]) -> Vec<Figure> {
    let is_on_front = |cell: &Measured| {
        let mut marked = view.results.cells.iter().zip(&view.is_on_front);
        marked.any(|(of, is)| *is && of.key == cell.key)
    };
    let has_any = timed.iter().any(|(cell, _)| is_on_front(cell));
    let shown = timed
        .iter()
        .filter(|(cell, _)| is_on_front(cell) || !has_any);
    let mut shown: Vec<&Timed<'_>> = shown.collect();
    shown.sort_by(|a, b| a.1.p95_ms.total_cmp(&b.1.p95_ms));
    shown
        .into_iter()
        .take(MAX_HISTOGRAMS)
        .map(|timed| histogram(view, timed))
        .collect()
}

fn histogram(view: &View<'_>, (cell, performance): &Timed<'_>) -> Figure {
    let row = |stage: &crate::bench::results::StageFigures| Ridge {
        name: stage.stage.name().to_owned(),
        edges: stage.histogram.edges_ms.clone(),
        counts: stage.histogram.counts.clone(),
        mark: stage.figures.median_ms,
        text: significant(stage.figures.median_ms),
    };
    let ridges = Ridges {
        x: Axis::log("ms"),
        rows: performance.stages.iter().map(row).collect(),
    };
    let n = performance
        .stages
        .first()
        .map_or(0, |stage| stage.figures.n);
    let mut figure = Figure {
        title: view.naming.name(cell),
        description: "Histograms of the times of each stage, under each other.".to_owned(),
        note: format!(
            "{}; line and number: median in ms. Each row has its own height.",
            counted(n, "query", "queries")
        ),
        ..Figure::default()
    };
    figure.narrow = ridges.draw(Size::NARROW.width, &figure);
    figure
}

type Part = (&'static str, fn(&ColdStart) -> f64);

const COLD_PARTS: [Part; 4] = [
    ("start", |start| start.start_ms),
    ("open and check", |start| start.open_ms),
    ("load", |start| start.load_ms),
    ("first query", |start| start.first_query_ms),
];

/// The middle of some values, the upper one of two.
fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn cold_starts(view: &View<'_>, timed: &[Timed<'_>]) -> Figure {
    let started: Vec<&Timed<'_>> = { timed.iter() }
        .filter(|(_, performance)| !performance.cold_starts.is_empty())
        .collect();
    let medians = |performance: &Performance| {
        COLD_PARTS.map(|(_, of)| middle(performance.cold_starts.iter().map(of)).unwrap_or(0.0))
    };
    let whole = |performance: &Performance| {
        middle(performance.cold_starts.iter().map(ColdStart::total_ms)).unwrap_or(0.0)
    };
    let bar = |(cell, performance): &&Timed<'_>| Bar {
        name: view.naming.name(cell),
        parts: medians(performance).to_vec(),
        text: significant(whole(performance)),
        title: view.text_of(cell),
    };
    let bars = Bars {
        label: "median, ms".to_owned(),
        rows: started.iter().map(bar).collect(),
    };
    let row = |(cell, performance): &&Timed<'_>| {
        let starts = &performance.cold_starts;
        let n_disk = starts.iter().filter(|start| start.is_from_disk).count();
        let mut row: Vec<Cell> = vec![
            view.naming.name(cell).into(),
            format!("{} ({n_disk} from disk)", starts.len()).into(),
        ];
        row.extend(medians(performance).map(|ms| Cell::from(significant(ms))));
        row.push(significant(whole(performance)).into());
        row
    };
    let columns = [
        "cell",
        "processes",
        "start ms",
        "open ms",
        "load ms",
        "first query ms",
        "in all ms",
    ];
    let mut figure = Figure {
        title: "Cold start: from nothing to the first answer".to_owned(),
        description: "A bar for each cell, of the medians of what a process does first.".to_owned(),
        key: (0..)
            .zip(COLD_PARTS)
            .map(|(idx, (name, _))| KeyEntry::of_color(idx, name))
            .collect(),
        note: "Medians over the processes of a cell; the number is the median of the whole."
            .to_owned(),
        table: Some(Table {
            columns: columns.map(str::to_owned).to_vec(),
            rows: started.iter().map(row).collect(),
            convention: "open: opening and checking bundle and gallery; load: building the \
                         student; medians over processes"
                .to_owned(),
            origin: view.origin.clone(),
            ..Table::default()
        }),
        ..Figure::default()
    };
    figure.narrow = bars.draw(Size::NARROW.width, &figure);
    figure.wide = Some(bars.draw(Size::WIDE.width, &figure));
    figure
}

/// The student's operators that take most time.
pub(super) fn operators(view: &View<'_>) -> Option<Section> {
    let profiled = |cell: &&Measured| !cell.operators.is_empty();
    let best = view.best.filter(profiled);
    let cell = best.or_else(|| view.results.cells.iter().find(profiled))?;
    let mut sorted: Vec<_> = cell.operators.iter().collect();
    sorted.sort_by(|a, b| b.share.total_cmp(&a.share));
    let bar = |operator: &&crate::bench::results::OperatorTime| Bar {
        name: operator.layer.clone(),
        parts: vec![operator.median_us / 1000.0],
        text: format!("{:.0} %", 100.0 * operator.share),
        title: format!(
            "{} ({}): {} µs",
            operator.layer,
            operator.kind,
            significant(operator.median_us)
        ),
    };
    let bars = Bars {
        label: "median, ms".to_owned(),
        rows: sorted.iter().take(MAX_OPERATORS).map(bar).collect(),
    };
    let rest: f64 = sorted
        .iter()
        .skip(MAX_OPERATORS)
        .map(|operator| operator.share)
        .sum();
    let row = |operator: &&crate::bench::results::OperatorTime| {
        vec![
            Cell::from(operator.layer.clone()),
            Cell::Words(operator.kind.clone()),
            significant(operator.median_us).into(),
            Cell::Share(operator.share),
        ]
    };
    let columns = ["layer", "operator", "median µs", "share of all operators"];
    let name = view.naming.name(cell);
    let mut figure = Figure {
        title: format!("Operators of {name}"),
        description: "A bar for each of the operators that take most time.".to_owned(),
        note: format!(
            "The {} that take most time; the other {} take {:.0} % together. Percentages: of all operators' time.",
            bars.rows.len(),
            sorted.len() - bars.rows.len(),
            100.0 * rest
        ),
        table: Some(Table {
            columns: columns.map(str::to_owned).to_vec(),
            rows: sorted.iter().map(row).collect(),
            convention:
                "median over runs of the student alone; a layer is named as in the ONNX file"
                    .to_owned(),
            origin: view.origin.clone(),
            ..Table::default()
        }),
        ..Figure::default()
    };
    figure.narrow = bars.draw(Size::NARROW.width, &figure);
    figure.wide = Some(bars.draw(Size::WIDE.width, &figure));
    Some(Section::new(
        "Where the encoder's time goes",
        vec![Block::Figures(vec![figure])],
    ))
}
