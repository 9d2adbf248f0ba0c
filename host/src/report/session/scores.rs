//! What scores say: right and wrong first matches, and whether the calibration holds.

use super::View;
use crate::bench::results::{Accuracy, Cell as Measured, ReliabilityBin};
use crate::report::plot::{Axis, Band, Figure, Line, Lines, Mirror, Size};
use crate::report::text::{counted, share};
use crate::report::{Block, Cell, Section, Table};

/// Bins of the distributions.
const N_BINS: usize = 28;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let cell = view.looked_at()?;
    let accuracy = cell.accuracy.as_ref()?;
    let scored = scored(accuracy);
    if scored.is_empty() {
        return None;
    }
    let name = view.naming.name(cell);
    let mut blocks = vec![Block::Text(format!("Of {name}, {}.", view.why_this()))];
    let mut figures = vec![distribution(&scored)];
    if !accuracy.reliability.is_empty() {
        figures.push(reliability(cell, accuracy, &scored));
    }
    blocks.push(Block::Figures(figures));
    blocks.extend(verdicts(view, accuracy).map(Block::Table));
    Some(Section::new("What a score says", blocks))
}

impl View<'_> {
    /// Why this cell's answers are looked at.
    pub(super) fn why_this(&self) -> &'static str {
        if self.best.is_some() {
            "the best cell"
        } else {
            "the cell that is right most often: none can be chosen"
        }
    }
}

/// Score and rightness of each first match.
fn scored(accuracy: &Accuracy) -> Vec<(f64, bool)> {
    let first = |answer: &crate::bench::results::QueryAnswer| {
        let score = f64::from(answer.matches.first()?.score);
        Some((score, answer.first_right == Some(0)))
    };
    let scores = accuracy.answers.iter().filter_map(first);
    scores.filter(|(score, _)| score.is_finite()).collect()
}

fn distribution(scored: &[(f64, bool)]) -> Figure {
    let of = |wanted: bool| {
        let kind = scored.iter().filter(|(_, is_right)| *is_right == wanted);
        kind.map(|(score, _)| *score).collect()
    };
    let mirror = Mirror {
        x: Axis::linear("score of the first match (cosine)"),
        up: ("right".to_owned(), of(true)),
        down: ("wrong".to_owned(), of(false)),
        n_bins: N_BINS,
    };
    let (edges, counts) = mirror.bins();
    let rows = edges
        .windows(2)
        .zip(&counts)
        .filter(|(_, count)| **count != [0, 0]);
    let rows = rows.map(|(edges, [right, wrong])| {
        vec![
            Cell::from(format!("{:.3} to {:.3}", edges[0], edges[1])),
            right.to_string().into(),
            wrong.to_string().into(),
        ]
    });
    let mut figure = Figure {
        title: "Scores, right and wrong".to_owned(),
        description: "Histogram of scores: right first matches upwards, wrong ones downwards."
            .to_owned(),
        note: format!(
            "{}; the less both overlap, the better a threshold tells them apart.",
            counted(scored.len(), "query", "queries")
        ),
        table: Some(Table {
            columns: ["score", "right", "wrong"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
            ..Table::default()
        }),
        ..Figure::default()
    };
    figure.narrow = mirror.draw(Size::NARROW, &figure);
    figure
}

/// A calibration's bin with its ends among the scores that were seen, and what was seen.
struct Seen<'a> {
    bin: &'a ReliabilityBin,
    ends: [f64; 2],
    n: usize,
    n_right: usize,
}

fn seen<'a>(bins: &'a [ReliabilityBin], scored: &[(f64, bool)]) -> Vec<Seen<'a>> {
    let scores = scored.iter().map(|(score, _)| *score);
    let starts = bins.iter().filter_map(|bin| bin.from.map(f64::from));
    let low = scores
        .clone()
        .chain(starts.clone())
        .fold(f64::INFINITY, f64::min);
    let high = scores.chain(starts).fold(f64::NEG_INFINITY, f64::max);
    let from = |bin: &ReliabilityBin| bin.from.map_or(low, f64::from);
    let ends = bins.iter().skip(1).map(from).chain([high]);
    bins.iter()
        .zip(ends)
        .enumerate()
        .map(|(idx, (bin, end))| {
            let is_last = idx + 1 == bins.len();
            let is_in = |score: f64| {
                let is_above = bin.from.is_none_or(|from| score >= f64::from(from));
                is_above && (is_last || score < end)
            };
            let inside = scored.iter().filter(|(score, _)| is_in(*score));
            Seen {
                bin,
                ends: [from(bin), end],
                n: inside.clone().count(),
                n_right: inside.filter(|(_, is_right)| *is_right).count(),
            }
        })
        .collect()
}

fn reliability(cell: &Measured, accuracy: &Accuracy, scored: &[(f64, bool)]) -> Figure {
    let seen = seen(&accuracy.reliability, scored);
    let promised = seen.iter().flat_map(|seen| {
        let probability = f64::from(seen.bin.probability[0]);
        seen.ends.map(|end| (end, probability))
    });
    let found = seen.iter().filter(|seen| seen.n > 0).map(|seen| {
        let middle = f64::midpoint(seen.ends[0], seen.ends[1]);
        (middle, seen.n_right as f64 / seen.n as f64)
    });
    let band = |seen: &Seen<'_>| Band {
        x: seen.ends,
        y: [seen.bin.probability[1], seen.bin.probability[2]].map(f64::from),
    };
    let lines = Lines {
        x: Axis::linear("score of the first match (cosine)"),
        y: Axis::linear("share that is right"),
        lines: vec![
            Line {
                name: "calibrated".to_owned(),
                color: 0,
                points: promised.collect(),
                ..Line::default()
            },
            Line {
                name: "this session".to_owned(),
                color: 1,
                points: found.collect(),
                is_dashed: true,
                has_dots: true,
            },
        ],
        bands: seen.iter().map(band).collect(),
        is_share: true,
        from_zero: false,
    };
    let row = |seen: &Seen<'_>| {
        let [probability, low, high] = seen.bin.probability.map(f64::from);
        vec![
            Cell::from(format!("{:.3} to {:.3}", seen.ends[0], seen.ends[1])),
            format!("{probability:.3} ({low:.3}–{high:.3})").into(),
            seen.bin.n.to_string().into(),
            Cell::from((seen.n > 0).then(|| share(seen.n_right as f64 / seen.n as f64))),
            seen.n.to_string().into(),
        ]
    };
    let columns = [
        "score",
        "calibrated (95 %)",
        "n then",
        "this session",
        "n here",
    ];
    let mut figure = Figure {
        title: "Reliability".to_owned(),
        description: "Share of right first matches by score: as calibrated, and in this session."
            .to_owned(),
        note: format!(
            "Shaded: 95 % interval of the calibration in {}. Dots: this session's answers in the \
             same bins.",
            cell.bundle.file
        ),
        table: Some(Table {
            columns: columns.map(str::to_owned).to_vec(),
            rows: seen.iter().map(row).collect(),
            ..Table::default()
        }),
        ..Figure::default()
    };
    figure.narrow = lines.draw(Size::NARROW, &figure);
    figure
}

/// How often each verdict was right; none without a calibration.
fn verdicts(view: &View<'_>, accuracy: &Accuracy) -> Option<Table> {
    let mut rows: Vec<(&str, usize, usize)> = Vec::new();
    for answer in &accuracy.answers {
        let verdict = answer.verdict.as_deref()?;
        let is_right = usize::from(answer.first_right == Some(0));
        match rows.iter_mut().find(|row| row.0 == verdict) {
            Some(row) => *row = (row.0, row.1 + 1, row.2 + is_right),
            None => rows.push((verdict, 1, is_right)),
        }
    }
    rows.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let row = |(verdict, n, n_right): &(&str, usize, usize)| {
        let share = *n_right as f64 / *n as f64;
        vec![
            Cell::from(*verdict),
            n.to_string().into(),
            Cell::Share(share),
        ]
    };
    (!rows.is_empty()).then(|| Table {
        title: "Verdicts".to_owned(),
        columns: ["verdict", "queries", "first match right"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.iter().map(row).collect(),
        convention: "what the board said of its answer by the bundle's calibration, and how often \
                     its first match was right"
            .to_owned(),
        n: counted(accuracy.answers.len(), "query", "queries"),
        origin: view.origin.clone(),
    })
}
