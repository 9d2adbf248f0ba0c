//! Sessions for tests: plausible numbers as a function of a seed.

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::random::Random;
use eyas_shared::timing::{Figures, Flag, Raised, Stage};

use crate::bench::results::{
    Accuracy, Agreement, Board, BundleFacts, Cell, ColdStart, Found, GalleryFacts, Histogram,
    MapPoint, OperatorTime, Performance, Protocol, QueryAnswer, QueryImage, ReliabilityBin,
    Results, SCHEMA, StageFigures, WindowResult,
};

const LABELS: [&str; 20] = [
    "Golden-Delicious",
    "Granny-Smith",
    "Pink-Lady",
    "Red-Delicious",
    "Royal-Gala",
    "Avocado",
    "Banana",
    "Kiwi",
    "Lemon",
    "Lime",
    "Mango",
    "Cantaloupe",
    "Galia-Melon",
    "Honeydew-Melon",
    "Watermelon",
    "Nectarine",
    "Orange",
    "Papaya",
    "Passion-Fruit",
    "Peach",
];

/// Name, milliseconds of the encoder, share of right answers, bytes of the f32 bundle.
const STUDENTS: [(&str, f64, f64, u64); 6] = [
    ("eyas-xs", 4.2, 0.56, 1_250_000),
    ("eyas-s", 9.8, 0.67, 3_900_000),
    ("squeezenet-112", 11.5, 0.61, 3_060_000),
    ("mobilenet-v3-small", 16.0, 0.66, 6_300_000),
    ("eyas-m", 24.0, 0.74, 11_800_000),
    ("resnet18-128", 41.0, 0.76, 45_000_000),
];

const MATCHES: usize = 10;

/// A small session, with a cell that failed and a window that was flagged.
pub(crate) fn session() -> Results {
    session_of(3, 48, 6)
}

/// A session of so many students, queries and labels.
pub(crate) fn session_of(n_students: usize, n_queries: usize, n_labels: usize) -> Results {
    let random = Random::new(7);
    let labels = &LABELS[..n_labels];
    let queries: Vec<QueryImage> = (0..n_queries)
        .map(|idx| {
            let label = labels[idx % n_labels].to_owned();
            let name = format!("query/{label}/{:03}.jpg", idx / n_labels);
            QueryImage {
                id: id_of(&name),
                label,
                name,
            }
        })
        .collect();
    let mut cells = Vec::new();
    for (student_idx, student) in STUDENTS[..n_students].iter().enumerate() {
        for (precision_idx, precision) in ["f32", "f16", "int8"].into_iter().enumerate() {
            let at = (student_idx * 3 + precision_idx) as u64;
            let mut random = random.fork("cell").at(at);
            cells.push(cell(student, precision, &queries, labels, &mut random));
        }
    }
    if let Some(failed) = cells.get_mut(4) {
        failed
            .failures
            .push("the link was cut in round 2 and did not come back within 30 s".to_owned());
    }
    Results {
        schema: SCHEMA.to_owned(),
        name: "shop-shelf".to_owned(),
        plan: id_of("plan"),
        began: "2026-11-21 20:28:24 UTC".to_owned(),
        host: "eyas 0.1.0 (3ad7ca1)".to_owned(),
        protocol: Protocol {
            mode: "both".to_owned(),
            n_windows: 5,
            n_retries: 1,
            at_least_s: 10.0,
            at_least: 10,
            warm_up_s: 2.0,
            n_window_images: 32,
            top_k: MATCHES,
            seed: 1,
            energy_offset_s: 0.0,
        },
        board: Board {
            model: "Raspberry Pi 4 Model B Rev 1.4".to_owned(),
            cpu: "Cortex-A72".to_owned(),
            n_cores: 4,
            architecture: "aarch64".to_owned(),
            kernel: "6.12.25".to_owned(),
            memory_bytes: 3_978_000_000,
            swap_bytes: 0,
            governor: "performance".to_owned(),
            max_clock_mhz: Some(1800.0),
            program: "eyas-device 0.1.0 (3ad7ca1)".to_owned(),
            program_hash: id_of("program"),
            matcher_kernel: "neon".to_owned(),
            address: "/dev/ttyUSB0".to_owned(),
        },
        galleries: vec![gallery(labels)],
        queries,
        cells,
        incidents: vec![
            "round 2: the link was silent for 3.1 s, the board answered again".to_owned(),
        ],
    }
}

/// A name of an image, of the form that images have.
fn id_of(name: &str) -> String {
    Fingerprint::of_bytes(name.as_bytes()).to_string()[..32].to_owned()
}

fn center(label_idx: usize) -> (f64, f64) {
    let angle = label_idx as f64 * 2.4;
    let radius = 0.12 + 0.09 * (label_idx as f64).sqrt();
    (radius * angle.cos(), radius * angle.sin())
}

fn gallery(labels: &[&str]) -> GalleryFacts {
    let mut random = Random::new(9);
    let mut map = Vec::new();
    for (label_idx, label) in labels.iter().enumerate() {
        for _ in 0..30 {
            let (x, y) = center(label_idx);
            let (x, y) = (x + 0.05 * random.normal(), y + 0.05 * random.normal());
            let label = (*label).to_owned();
            map.push(MapPoint {
                label,
                x: x as f32,
                y: y as f32,
            });
        }
    }
    GalleryFacts {
        name: "shelf".to_owned(),
        bytes: 3_456_789,
        hash: id_of("gallery"),
        n_rows: map.len(),
        n_labels: labels.len(),
        codes: "f16".to_owned(),
        teacher: "ens80".to_owned(),
        map,
        map_share: 0.313,
    }
}

fn cell(
    (student, encode_ms, recall, bytes): &(&str, f64, f64, u64),
    precision: &str,
    queries: &[QueryImage],
    labels: &[&str],
    random: &mut Random,
) -> Cell {
    let (part, loss, quicker) = match precision {
        "f32" => (1.0, 0.0, 1.0),
        "f16" => (0.5, 0.0, 1.02),
        _ => (0.27, 0.015, 0.97),
    };
    let bytes = (*bytes as f64 * part) as u64 + 20_000;
    Cell {
        key: format!("{student}/{precision}/1/shelf"),
        student: (*student).to_owned(),
        precision: precision.to_owned(),
        threads: 1,
        gallery: "shelf".to_owned(),
        bundle: BundleFacts {
            file: format!("{student}-{precision}.bundle"),
            bytes,
            hash: id_of(&format!("{student}{precision}")),
            architecture: (*student).to_owned(),
            n_parameters: bytes / 4,
            multiply_adds: (encode_ms * 5e6) as u64,
            side: 112,
            dim: 128,
        },
        performance: Some(performance(encode_ms * quicker, bytes, random)),
        accuracy: Some(accuracy(recall - loss, queries, labels, random)),
        operators: operators(*encode_ms, random),
        failures: Vec::new(),
    }
}

fn performance(encode_ms: f64, bytes: u64, random: &mut Random) -> Performance {
    let base = [3.1, 1.4, encode_ms, 0.35];
    let mut nanos: [Vec<u64>; 5] = Default::default();
    for _ in 0..400 {
        let slow = if random.chance(0.06) { 1.4 } else { 1.0 };
        let mut total = 0;
        for (stage_idx, base) in base.iter().enumerate() {
            let ms = base * slow * (0.04 * random.normal()).exp();
            let of_stage = (ms * 1e6) as u64;
            nanos[stage_idx].push(of_stage);
            total += of_stage;
        }
        nanos[4].push(total);
    }
    let stages = Stage::ALL
        .iter()
        .zip(&nanos)
        .map(|(stage, nanos)| StageFigures {
            stage: *stage,
            figures: Figures::of(nanos).unwrap(),
            histogram: histogram(nanos),
        });
    let stages: Vec<StageFigures> = stages.collect();
    let total = stages[4].figures;
    let windows = (0..5).map(|round| {
        let flags = if random.chance(0.08) {
            let why = "other processes kept 0.62 cores busy".to_owned();
            vec![Raised {
                flag: Flag::Noisy,
                why,
            }]
        } else {
            Vec::new()
        };
        let slower = if flags.is_empty() { 1.0 } else { 1.3 } * (0.01 * random.normal()).exp();
        let celsius = 48.0 + 2.0 * round as f64 + random.unit();
        WindowResult {
            round,
            began_unix_us: 1_795_292_904_000_000
                + (round as u64 * 400 + (encode_ms * 9.0) as u64) * 1_000_000,
            seconds: 10.0 + random.unit(),
            n: 80,
            total: Figures {
                median_ms: total.median_ms * slower,
                p95_ms: total.p95_ms * slower,
                ..total
            },
            others: if flags.is_empty() { 0.02 } else { 0.62 },
            flags,
            celsius: Some([celsius, celsius + 1.2]),
            clock_mhz: Some([1800.0, 1800.0]),
            joules: Some(10.0 * 4.1),
        }
    });
    let windows: Vec<WindowResult> = windows.collect();
    Performance {
        n_clean: windows
            .iter()
            .filter(|window| window.flags.is_empty())
            .count(),
        windows,
        median_ms: total.median_ms,
        p95_ms: total.p95_ms,
        queries_per_second: 1000.0 / total.mean_ms,
        cold_starts: (0..3)
            .map(|idx| ColdStart {
                start_ms: 6.0 + random.unit(),
                open_ms: 4.0 + bytes as f64 / 2e6,
                load_ms: 30.0 + bytes as f64 / 4e5,
                first_query_ms: total.median_ms * 1.3,
                is_from_disk: idx == 0,
            })
            .collect(),
        peak_bytes: 21_000_000 + 3 * bytes,
        own_bytes: 14_000_000 + 2 * bytes,
        joules_per_query: Some(4.1 * total.mean_ms / 1000.0),
        stages,
    }
}

fn histogram(nanos: &[u64]) -> Histogram {
    let ratio = 1.05f64;
    let low = *nanos.iter().min().unwrap() as f64 / 1e6;
    let high = *nanos.iter().max().unwrap() as f64 / 1e6;
    let n_bins = ((high / low).ln() / ratio.ln()) as usize + 1;
    let edges_ms: Vec<f64> = (0..=n_bins)
        .map(|idx| low * ratio.powi(idx as i32))
        .collect();
    let mut counts = vec![0; n_bins];
    for nanos in nanos {
        let ms = *nanos as f64 / 1e6;
        let bin = edges_ms.partition_point(|edge| *edge <= ms).max(1) - 1;
        counts[bin.min(n_bins - 1)] += 1;
    }
    Histogram { edges_ms, counts }
}

fn accuracy(recall: f64, queries: &[QueryImage], labels: &[&str], random: &mut Random) -> Accuracy {
    let answers: Vec<QueryAnswer> = (0..queries.len())
        .map(|query| answer(query, recall, &queries[query], labels, random))
        .collect();
    let n_right = answers
        .iter()
        .filter(|answer| answer.first_right == Some(0))
        .count();
    let found = n_right as f64 / queries.len() as f64;
    let bins = [
        (None, 0.18),
        (Some(0.42), 0.47),
        (Some(0.55), 0.78),
        (Some(0.66), 0.95),
    ];
    Accuracy {
        n: queries.len(),
        n_without_relevant: 0,
        recall_at_1: found,
        recall_at_1_interval: [(found - 0.07).max(0.0), (found + 0.065).min(1.0)],
        recall_at_5: Some((found + 0.12).min(1.0)),
        recall_at_10: Some((found + 0.16).min(1.0)),
        mean_average_precision_at_r: Some(0.8 * found),
        agreement: Agreement {
            min_cosine: 0.999_98,
            mean_cosine: 0.999_999,
            n_other_first: 0,
        },
        answers,
        failed: Vec::new(),
        reliability: bins
            .map(|(from, middle)| ReliabilityBin {
                from,
                probability: [middle, middle - 0.07, middle + 0.05],
                n: 74,
            })
            .to_vec(),
    }
}

fn answer(
    query: usize,
    recall: f64,
    image: &QueryImage,
    labels: &[&str],
    random: &mut Random,
) -> QueryAnswer {
    let own = labels
        .iter()
        .position(|label| **label == image.label)
        .unwrap();
    let hard = if own % 5 == 3 { 0.35 } else { 0.0 };
    let first_right = match random.unit() {
        draw if draw < recall - hard => Some(0),
        draw if draw < 0.93 => Some(1 + random.below(6)),
        _ => None,
    };
    let best = if first_right == Some(0) { 0.68 } else { 0.5 } + 0.09 * random.normal();
    let matches = (0..MATCHES).map(|rank| {
        let is_right =
            first_right.is_some_and(|first| rank == first || (rank > first && random.chance(0.4)));
        let other = (own + 1 + random.below(2)) % labels.len();
        let label = if is_right { labels[own] } else { labels[other] }.to_owned();
        Found {
            id: id_of(&format!("{label}{}", random.below(12))),
            label,
            score: (best - 0.02 * rank as f64) as f32,
        }
    });
    let matches: Vec<Found> = matches.collect();
    let (x, y) = center(own);
    let spread = if first_right == Some(0) { 0.05 } else { 0.11 };
    QueryAnswer {
        query,
        n_relevant: 30,
        first_right,
        verdict: Some(if best > 0.6 { "match" } else { "uncertain" }.to_owned()),
        total_ms: 14.0 + random.unit(),
        at: [
            (x + spread * random.normal()) as f32,
            (y + spread * random.normal()) as f32,
        ],
        matches,
    }
}

fn operators(encode_ms: f64, random: &mut Random) -> Vec<OperatorTime> {
    let shares: Vec<f64> = (0..18).map(|_| random.unit().powi(3) + 0.01).collect();
    let sum: f64 = shares.iter().sum();
    let operator = |(idx, share): (usize, &f64)| OperatorTime {
        layer: format!("stage{}.block{}.conv", idx / 5 + 1, idx % 5),
        kind: if idx % 6 == 5 { "MaxPool" } else { "Conv" }.to_owned(),
        median_us: 1000.0 * encode_ms * share / sum,
        share: share / sum,
    };
    shares.iter().enumerate().map(operator).collect()
}
