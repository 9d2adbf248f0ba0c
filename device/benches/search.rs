//! Time of one query and of a batch against galleries of 128 components: reference and
//! dense, f32 and f16. Methods take turns in random order; prints min, median and max.
//!
//! `cargo bench -p eyas-device --bench search [ROWS]`

#![allow(missing_docs, reason = "a program")]
#![expect(clippy::print_stdout, reason = "this is where figures reach the user")]

use std::hint::black_box;
use std::time::Instant;

use eyas_device::matcher::{Query, dense, reference};
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource};
use eyas_shared::random::Random;

const DIM: usize = 128;
const TOP_K: usize = 10;
const ROUNDS: usize = 21;
const BATCH: usize = 8;

type Run<'a> = Box<dyn Fn() + 'a>;

fn main() {
    // `cargo bench` passes `--bench` on.
    let n_rows = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let n_rows: usize = n_rows.unwrap_or(100_000);
    let mut random = Random::new(1);
    let mut rows = Embeddings::new(DIM);
    for _ in 0..n_rows + BATCH {
        rows.push(&std::array::from_fn::<f32, DIM, _>(|_| {
            random.normal() as f32
        }));
    }
    rows.normalize_rows();
    let (queries, rows) = rows.values().split_at(BATCH * DIM);
    let rows = Embeddings::from_values(DIM, rows.to_vec()).unwrap_or_else(|| Embeddings::new(DIM));
    let files = [Codes::F32, Codes::F16].map(|codes| (codes, file(&rows, codes)));
    let queries: Vec<Query<'_>> = queries.chunks(DIM).map(Query::new).collect();

    let mut methods: Vec<(String, usize, Run<'_>)> = Vec::new();
    for (codes, bytes) in &files {
        let open = || Gallery::open(bytes).ok();
        let Some((one, two, three)) = open().zip(open()).zip(open()).map(|((a, b), c)| (a, b, c))
        else {
            continue;
        };
        let queries = &queries;
        let row_bytes = n_rows * codes.row_bytes(DIM);
        methods.push((
            format!("reference {codes}"),
            row_bytes,
            Box::new(move || {
                black_box(reference::search(&one, &queries[0], TOP_K));
            }),
        ));
        methods.push((
            format!("dense {codes}"),
            row_bytes,
            Box::new(move || {
                black_box(dense::search_batch(&two, &queries[..1], TOP_K));
            }),
        ));
        methods.push((
            format!("dense {codes} x{BATCH}"),
            row_bytes,
            Box::new(move || {
                black_box(dense::search_batch(&three, queries, TOP_K));
            }),
        ));
    }
    let mut times = vec![Vec::new(); methods.len()];
    let mut order: Vec<usize> = (0..methods.len()).collect();
    for _ in 0..ROUNDS {
        random.shuffle(&mut order);
        for &method in &order {
            let started = Instant::now();
            methods[method].2();
            times[method].push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!("{n_rows} rows x {DIM}, top {TOP_K}, {ROUNDS} rounds, one thread");
    println!(
        "{:<16} {:>9} {:>9} {:>9} {:>8}",
        "method", "min ms", "median", "max", "GB/s"
    );
    for ((name, row_bytes, _), times) in methods.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let [min, median, max] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| times[at]);
        let rate = *row_bytes as f64 / median / 1e6;
        println!("{name:<16} {min:>9.2} {median:>9.2} {max:>9.2} {rate:>8.2}");
    }
}

fn file(rows: &Embeddings, codes: Codes) -> Vec<u8> {
    let names: Vec<String> = (0..rows.n_rows()).map(|row| format!("{row}.jpg")).collect();
    let entries: Vec<Entry<'_>> = names
        .iter()
        .map(|name| Entry {
            id: ImageId::of_file(name.as_bytes()),
            label: "any",
            name,
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: "random".to_owned(),
        manifest: Fingerprint([1; 32]),
        codes,
    };
    gallery::write(&source, rows, &entries).unwrap_or_default()
}
