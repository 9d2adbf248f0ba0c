//! From a session's catalog and visits to its results: a pure function.

use std::collections::BTreeMap;

use eyas_shared::link::bench::{MAX_SAMPLES, Sample};
use eyas_shared::random::Random;
use eyas_shared::timing::{Figures, Flag, Raised, Stage, flags};

use super::catalog::{Catalog, CatalogCell, CatalogGallery};
use super::energy::Readings;
use super::results::{
    Accuracy, Agreement, Cell, ColdStart, Found, Histogram, OperatorTime, Performance, QueryAnswer,
    Results, SCHEMA, StageFigures, WindowResult,
};
use super::visit::{AnswerRecord, Purpose, Visit, WindowRecord};
use crate::evaluate::metrics::{self, Ranking};

/// Bins of a histogram for each doubling of the time.
const BINS_PER_OCTAVE: f64 = 8.0;

/// Resamples of a bootstrap interval.
const N_RESAMPLES: usize = 2000;

/// The results of a session, with what a power meter said, if one was read.
#[must_use]
pub fn results(
    catalog: &Catalog,
    visits: &[Visit],
    incidents: &[String],
    readings: Option<&Readings>,
) -> Results {
    let best_pace = best_pace(visits);
    let cells = catalog.cells.iter().map(|cell| {
        let mut own: Vec<&Visit> = { visits.iter() }
            .filter(|visit| visit.cell == cell.key)
            .collect();
        own.sort_by_key(|visit| visit.number);
        cell_of(catalog, cell, &own, best_pace, readings)
    });
    Results {
        schema: SCHEMA.to_owned(),
        name: catalog.name.clone(),
        plan: catalog.plan.clone(),
        began: catalog.began.clone(),
        host: catalog.host.clone(),
        protocol: catalog.protocol.clone(),
        board: catalog.board.clone(),
        queries: catalog.queries.clone(),
        galleries: { catalog.galleries.iter() }
            .map(|gallery| gallery.facts.clone())
            .collect(),
        cells: cells.collect(),
        incidents: incidents.to_vec(),
    }
}

/// The shortest pace that was seen of the board; 0 if none was.
#[must_use]
pub fn best_pace(visits: &[Visit]) -> u64 {
    let windows = visits.iter().filter_map(|visit| visit.window.as_ref());
    let paces = windows.flat_map(|window| [window.before.pace_nanos, window.after.pace_nanos]);
    paces.filter(|nanos| *nanos > 0).min().unwrap_or(0)
}

/// Flags of a window, beside the best pace that is known.
#[must_use]
pub fn window_flags(window: &WindowRecord, best_pace: u64) -> Vec<Raised> {
    let mut raised = flags(&window.before, &window.after, best_pace);
    if window.samples.len() >= MAX_SAMPLES {
        let why = format!("no more than {MAX_SAMPLES} queries are kept");
        raised.push(Raised {
            flag: Flag::Short,
            why,
        });
    }
    raised
}

fn cell_of(
    catalog: &Catalog,
    cell: &CatalogCell,
    visits: &[&Visit],
    best_pace: u64,
    readings: Option<&Readings>,
) -> Cell {
    let failures = visits.iter().filter_map(|visit| {
        let why = visit.failure.as_ref()?;
        Some(match visit.purpose {
            Purpose::Accuracy => format!("accuracy: {why}"),
            Purpose::Window { round, .. } => format!("window of round {round}: {why}"),
        })
    });
    let accuracy = visits.iter().find(|visit| !visit.answers.is_empty());
    let operators = visits.iter().find(|visit| !visit.operators.is_empty());
    Cell {
        key: cell.key.clone(),
        student: cell.student.clone(),
        precision: cell.precision.clone(),
        threads: cell.threads.into(),
        gallery: cell.gallery.clone(),
        bundle: cell.bundle.clone(),
        performance: performance(visits, best_pace, readings),
        accuracy: accuracy.and_then(|visit| {
            let gallery = catalog.gallery(&cell.gallery)?;
            accuracy_of(catalog, cell, gallery, visit)
        }),
        operators: operators.map_or_else(Vec::new, |visit| operators_of(visit, &cell.layers)),
        failures: failures.collect(),
    }
}

fn performance(
    visits: &[&Visit],
    best_pace: u64,
    readings: Option<&Readings>,
) -> Option<Performance> {
    let measured: Vec<(&Visit, &WindowRecord)> = { visits.iter() }
        .filter_map(|visit| Some((*visit, visit.window.as_ref()?)))
        .filter(|(_, window)| !window.samples.is_empty())
        .collect();
    let windows: Vec<WindowResult> = { measured.iter() }
        .filter_map(|(visit, window)| window_of(visit, window, best_pace, readings))
        .collect();
    let n_clean = windows.iter().filter(|it| it.flags.is_empty()).count();
    let counts = |it: &WindowResult| n_clean == 0 || it.flags.is_empty();
    let counting: Vec<&WindowResult> = windows.iter().filter(|it| counts(it)).collect();
    let samples: Vec<&Sample> = { windows.iter().zip(&measured) }
        .filter(|(it, _)| counts(it))
        .flat_map(|(_, (_, window))| &window.samples)
        .collect();
    let stages = Stage::ALL.iter().filter_map(|stage| {
        let nanos: Vec<u64> = samples.iter().map(|sample| sample.nanos(*stage)).collect();
        Some(StageFigures {
            stage: *stage,
            figures: Figures::of(&nanos)?,
            histogram: histogram(&nanos),
        })
    });
    let stages = stages.collect();
    let over_windows = |read: fn(&WindowResult) -> f64| {
        median(counting.iter().map(|it| read(it)).collect()).unwrap_or(0.0)
    };
    let joules = counting
        .iter()
        .filter_map(|it| Some(it.joules? / it.n as f64));
    let joules_per_query = median(joules.collect());
    let used = || visits.iter().filter_map(|visit| visit.used);
    (!windows.is_empty()).then(|| Performance {
        n_clean,
        stages,
        median_ms: over_windows(|it| it.total.median_ms),
        p95_ms: over_windows(|it| it.total.p95_ms),
        queries_per_second: over_windows(|it| it.n as f64 / it.seconds),
        cold_starts: visits
            .iter()
            .filter_map(|visit| cold_start(visit))
            .collect(),
        peak_bytes: used().map(|used| used.peak_bytes).max().unwrap_or(0),
        own_bytes: used().map(|used| used.own_bytes).max().unwrap_or(0),
        joules_per_query,
        windows: windows.clone(),
    })
}

fn window_of(
    visit: &Visit,
    window: &WindowRecord,
    best_pace: u64,
    readings: Option<&Readings>,
) -> Option<WindowResult> {
    let (before, after) = (&window.before, &window.after);
    let totals: Vec<u64> = { window.samples.iter() }
        .map(|sample| sample.nanos(Stage::Total))
        .collect();
    let round = match visit.purpose {
        Purpose::Window { round, .. } => round,
        Purpose::Accuracy => return None,
    };
    let micros = after.steady_micros.saturating_sub(before.steady_micros);
    let seconds = micros.max(1) as f64 / 1e6;
    let own = after.own_micros.saturating_sub(before.own_micros);
    let busy = after.busy_micros.saturating_sub(before.busy_micros);
    let began_unix_us = before
        .unix_micros
        .saturating_add_signed(visit.clock_offset_us);
    let both = |values: [Option<f64>; 2]| Some([values[0]?, values[1]?]);
    let celsius = |at: Option<i32>| at.map(|millis| f64::from(millis) / 1000.0);
    let megahertz = |at: Option<u32>| at.map(|khz| f64::from(khz) / 1000.0);
    let from = began_unix_us as f64 / 1e6;
    Some(WindowResult {
        round,
        began_unix_us,
        seconds,
        n: window.samples.len(),
        total: Figures::of(&totals)?,
        flags: window_flags(window, best_pace),
        celsius: both([before, after].map(|at| celsius(at.temperature_millis))),
        clock_mhz: both([before, after].map(|at| megahertz(at.clock_khz))),
        others: busy.saturating_sub(own) as f64 / micros.max(1) as f64,
        joules: readings.and_then(|readings| readings.joules(from, from + seconds)),
    })
}

fn cold_start(visit: &Visit) -> Option<ColdStart> {
    let prepared = visit.prepared?;
    let millis = |nanos: u64| nanos as f64 / 1e6;
    Some(ColdStart {
        start_ms: millis(prepared.start_nanos),
        open_ms: millis(prepared.open_nanos),
        load_ms: millis(prepared.load_nanos),
        first_query_ms: millis(visit.first?.nanos(Stage::Total)),
        is_from_disk: prepared.is_from_disk,
    })
}

/// The middle value, or the lower of the two in the middle: one that was measured.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Bins of equal ratio that reach over all times.
fn histogram(nanos: &[u64]) -> Histogram {
    let bin = |nanos: u64| (BINS_PER_OCTAVE * (nanos.max(1) as f64).log2()).floor() as i64;
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    for nanos in nanos {
        *counts.entry(bin(*nanos)).or_default() += 1;
    }
    let (Some((&first, _)), Some((&last, _))) = (counts.first_key_value(), counts.last_key_value())
    else {
        return Histogram {
            edges_ms: Vec::new(),
            counts: Vec::new(),
        };
    };
    let edge = |bin: i64| (bin as f64 / BINS_PER_OCTAVE).exp2() / 1e6;
    Histogram {
        edges_ms: (first..=last + 1).map(edge).collect(),
        counts: (first..=last)
            .map(|bin| counts.get(&bin).copied().unwrap_or(0))
            .collect(),
    }
}

fn accuracy_of(
    catalog: &Catalog,
    cell: &CatalogCell,
    gallery: &CatalogGallery,
    visit: &Visit,
) -> Option<Accuracy> {
    let top_k = catalog.protocol.top_k;
    let mut answers = Vec::new();
    let mut rankings = Vec::new();
    for record in &visit.answers {
        let (answer, ranking) = answer_of(catalog, gallery, record)?;
        answers.push(answer);
        rankings.push(ranking);
    }
    let scored: Vec<&Ranking> = { rankings.iter() }
        .filter(|ranking| ranking.n_relevant > 0)
        .collect();
    let mean = |metric: &dyn Fn(&Ranking) -> Option<f64>| {
        let values: Vec<f64> = scored.iter().filter_map(|it| metric(it)).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    let recall = |k: usize| (k <= top_k).then(|| mean(&|it| metrics::recall_at_k(it, k)));
    let all_fit = scored.iter().all(|ranking| ranking.n_relevant <= top_k);
    let first: Vec<f64> = { scored.iter() }
        .filter_map(|it| metrics::recall_at_k(it, 1))
        .collect();
    Some(Accuracy {
        n: scored.len(),
        n_without_relevant: rankings.len() - scored.len(),
        recall_at_1: mean(&|it| metrics::recall_at_k(it, 1)),
        recall_at_1_interval: interval_of_mean(&first),
        recall_at_5: recall(5),
        recall_at_10: recall(10),
        mean_average_precision_at_r: all_fit.then(|| mean(&metrics::mean_average_precision_at_r)),
        agreement: agreement(&visit.answers, &answers),
        answers,
        failed: visit.failed.clone(),
        reliability: cell.reliability.clone(),
    })
}

/// A query's answer without its own image, and where its relevant rows stand.
fn answer_of(
    catalog: &Catalog,
    gallery: &CatalogGallery,
    record: &AnswerRecord,
) -> Option<(QueryAnswer, Ranking)> {
    let query = catalog.queries.get(record.query)?;
    let matches: Vec<Found> = { record.matches.iter() }
        .filter(|(id, ..)| *id != query.id)
        .take(catalog.protocol.top_k)
        .map(|(id, label, score)| Found {
            id: id.clone(),
            label: label.clone(),
            score: *score,
        })
        .collect();
    let n_relevant = gallery.n_relevant.get(record.query).copied()?;
    let right = matches.iter().enumerate();
    let ranking = Ranking {
        ranks: right
            .filter(|(_, found)| found.label == query.label)
            .map(|(rank, _)| rank)
            .collect(),
        n_relevant,
    };
    let answer = QueryAnswer {
        query: record.query,
        n_relevant,
        first_right: ranking.ranks.first().copied(),
        matches,
        verdict: record.verdict.clone(),
        total_ms: record.total_us as f64 / 1e3,
        at: record.at,
    };
    Some((answer, ranking))
}

fn agreement(records: &[AnswerRecord], answers: &[QueryAnswer]) -> Agreement {
    let cosines = || records.iter().map(|record| record.cosine);
    let others = records.iter().zip(answers).filter(|(record, answer)| {
        let first = answer.matches.first();
        first.is_some_and(|first| first.id != record.host_first)
    });
    Agreement {
        min_cosine: cosines().fold(f64::INFINITY, f64::min).min(1.0),
        mean_cosine: (cosines().sum::<f64>() / records.len().max(1) as f64).min(1.0),
        n_other_first: others.count(),
    }
}

/// A 95 % interval of a mean: percentile bootstrap (Efron, 1979). Equal values give an equal
/// interval.
fn interval_of_mean(values: &[f64]) -> [f64; 2] {
    let n = values.len();
    if n == 0 {
        return [0.0; 2];
    }
    let mut random = Random::new(0);
    let mut means: Vec<f64> = (0..N_RESAMPLES)
        .map(|_| (0..n).map(|_| values[random.below(n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|share| means[((N_RESAMPLES - 1) as f64 * share).round() as usize])
}

fn operators_of(visit: &Visit, layers: &[String]) -> Vec<OperatorTime> {
    let sum: u64 = visit.operators.iter().map(|it| it.nanos).sum();
    let operators = visit.operators.iter().map(|it| OperatorTime {
        layer: layer_of(&it.node, layers).to_owned(),
        kind: it.kind.clone(),
        median_us: it.nanos as f64 / 1e3,
        share: it.nanos as f64 / sum.max(1) as f64,
    });
    operators.collect()
}

/// The node of the ONNX file that an operator was made from: tract appends to its name what
/// it made of it. The operator's own name if it belongs to none.
pub(crate) fn layer_of<'n>(node: &'n str, layers: &'n [String]) -> &'n str {
    let is_before = |layer: &&String| {
        let rest = node.strip_prefix(layer.as_str());
        !layer.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let longest = layers
        .iter()
        .filter(is_before)
        .max_by_key(|layer| layer.len());
    longest.map_or(node, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_every_sample_once_within_its_edges() {
        let nanos: Vec<u64> = (0..500).map(|i| 1000 + i * i * 37).collect();
        let histogram = histogram(&nanos);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 500);
        assert_eq!(histogram.edges_ms.len(), histogram.counts.len() + 1);
        for (bin, count) in histogram.counts.iter().enumerate() {
            let within = nanos.iter().filter(|nanos| {
                let millis = **nanos as f64 / 1e6;
                (histogram.edges_ms[bin]..histogram.edges_ms[bin + 1]).contains(&millis)
            });
            assert_eq!(within.count() as u64, *count);
        }
    }

    #[test]
    fn medians_are_values_that_were_measured() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_interval_of_a_share_is_about_as_wide_as_theory_says() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 5 != 0))).collect();
        let [low, high] = interval_of_mean(&values);
        // Normal approximation: 0.8 +- 1.96 sqrt(0.16 / 400).
        assert!(
            (low - 0.7608).abs() < 0.01 && (high - 0.8392).abs() < 0.01,
            "{low} {high}"
        );
    }

    #[test]
    fn operators_carry_the_name_of_their_layer() {
        let layers = ["fire.2", "fire.2.expand", "fire.20", ""].map(str::to_owned);
        for (node, layer) in [
            ("fire.2.expand.pad", "fire.2.expand"),
            ("fire.2.squeeze.merge_in0", "fire.2"),
            ("fire.2", "fire.2"),
            ("fire.21.pad", "fire.21.pad"),
            ("image", "image"),
        ] {
            assert_eq!(layer_of(node, &layers), layer);
        }
    }
}
