//! Times every way to search one gallery, or answers a program that times them beside
//! others.
//!
//!     cargo bench --workspace --bench search -- [--rows N] [--dim D] [--rounds R] [--only TEXT]
//!     cargo bench --workspace --bench search -- --serve GALLERY.f32 QUERIES.f32 DIM FOLDER
//!
//! Alone it makes clustered rows, lets the methods take turns in random order, and prints
//! min, median and max. With `--serve` it reads little-endian f32 rows, lays galleries out
//! in FOLDER, prints the names of its methods and then answers lines `METHOD QUERY` with
//! nanoseconds and the rows that were found: `tests/peers/search.py` speaks to it.

#![allow(missing_docs, reason = "a program")]
#![expect(clippy::print_stdout, reason = "this is where figures reach the user")]

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eyas_device::matcher::{Kernel, Match, Matcher, Method, Query, Scan, dense};
use eyas_device::store::MappedFile;
use eyas_shared::embedding::Embeddings;
use eyas_shared::files;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{Codes, Entry, Fresh, Gallery, GallerySource, Plan};
use eyas_shared::quant;
use eyas_shared::random::Random;

const TOP_K: usize = 10;
const BATCH: usize = 8;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    // `cargo bench` passes `--bench` on.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let number = |name: &str, default: usize| {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)?.parse().ok())
            .unwrap_or(default)
    };
    if let [serve, rows, queries, dim, folder] = &words[..]
        && serve == "--serve"
    {
        let dim = dim.parse()?;
        return serve_requests(&World {
            rows: read_rows(Path::new(rows), dim)?,
            queries: read_rows(Path::new(queries), dim)?,
            folder: folder.into(),
        });
    }
    let folder = std::env::temp_dir().join(format!("eyas-search-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let (n_rows, dim) = (number("--rows", 100_000), number("--dim", 128));
    let world = World::clustered(n_rows, dim, folder.clone());
    let only = words.iter().position(|word| word == "--only");
    let only = only
        .and_then(|at| words.get(at + 1))
        .map_or("", String::as_str);
    let outcome = compare(&world, number("--rounds", 31), only);
    fs::remove_dir_all(folder)?;
    outcome
}

/// What is searched, and with what.
struct World {
    rows: Embeddings,
    queries: Embeddings,
    /// Where galleries are laid out.
    folder: PathBuf,
}

fn read_rows(path: &Path, dim: usize) -> Outcome<Embeddings> {
    let values = quant::f32_from_bytes(&fs::read(path)?);
    Ok(Embeddings::from_values(dim, values).ok_or("not whole rows")?)
}

impl World {
    /// Rows around as many centers as make five to each.
    fn clustered(n_rows: usize, dim: usize, folder: PathBuf) -> Self {
        let mut random = Random::new(1);
        let normal = |random: &mut Random, scale: f32| -> Vec<f32> {
            (0..dim).map(|_| scale * random.normal() as f32).collect()
        };
        let centers: Vec<Vec<f32>> = (0..n_rows.div_ceil(5))
            .map(|_| normal(&mut random, 1.0))
            .collect();
        let mut near = |n: usize, spread: f32| {
            let mut rows = Embeddings::new(dim);
            for _ in 0..n {
                let center = &centers[random.below(centers.len())];
                let noise = normal(&mut random, spread);
                let row: Vec<f32> = center.iter().zip(noise).map(|(a, b)| a + b).collect();
                rows.push(&row);
            }
            rows.normalize_rows();
            rows
        };
        let (rows, queries) = (near(n_rows, 0.6), near(500, 0.7));
        Self {
            rows,
            queries,
            folder,
        }
    }

    fn gallery_file(&self, codes: Codes) -> Outcome<MappedFile> {
        let names: Vec<String> = (0..self.rows.n_rows()).map(|i| format!("{i}")).collect();
        let entries: Vec<Entry<'_>> = names
            .iter()
            .enumerate()
            .map(|(row, name)| {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&(row as u64).to_le_bytes());
                Entry {
                    id: ImageId(id),
                    label: "",
                    name,
                }
            })
            .collect();
        let source = GallerySource {
            space: SpaceId(Fingerprint([1; 32])),
            teacher: String::new(),
            manifest: Fingerprint([1; 32]),
            codes,
        };
        let records = Fresh {
            rows: &self.rows,
            entries: &entries,
            thumbnails: &[],
        };
        let plan = Plan::new(&source, &records)?;
        let path = self.folder.join(format!("{codes}.gallery"));
        files::replace_with(&path, |file| plan.write(file))?;
        Ok(MappedFile::open(&path)?)
    }
}

/// One way to answer: for a query by number, how long it took and what was found.
struct Way<'w> {
    name: String,
    /// Bytes that are read in any case; 0 if that says nothing.
    bytes: usize,
    /// Queries that one run answers.
    batch: usize,
    run: Box<dyn Fn(usize) -> (Duration, Vec<Match>) + 'w>,
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let result = black_box(work());
    (started.elapsed(), result)
}

fn ways<'w>(world: &'w World, mapped: &'w [(Codes, MappedFile)]) -> Outcome<Vec<Way<'w>>> {
    let mut ways: Vec<Way<'w>> = Vec::new();
    let (n_rows, n_queries) = (world.rows.n_rows(), world.queries.n_rows());
    let query = move |idx: usize| world.queries.row(idx % n_queries);
    for (codes, file) in mapped {
        let gallery = file.gallery()?;
        let Some(scan) = Scan::of(&gallery) else {
            let bytes = n_rows * codes.row_bytes(world.rows.dim());
            let run = move |idx| {
                let (took, mut found) =
                    timed(|| dense::search_batch(&gallery, &[Query::new(query(idx))], TOP_K));
                (took, found.swap_remove(0))
            };
            ways.push(Way {
                name: format!("dense {codes}"),
                bytes,
                batch: 1,
                run: Box::new(run),
            });
            continue;
        };
        // Of every row: what is read of few rows comes on top.
        let bytes = match (gallery.int2(), gallery.int8()) {
            (Some(int2), _) => int2.high.len() + int2.factors.as_flattened().len(),
            (None, int8) => int8.map_or(0, |int8| {
                int8.scanned().len() + int8.scales.as_flattened().len()
            }),
        };
        for kernel in Kernel::available() {
            for batch in [1, BATCH] {
                let times = if batch == 1 {
                    String::new()
                } else {
                    format!(" x{batch}")
                };
                ways.push(Way {
                    name: format!("{codes} {}{times}", kernel.name()),
                    ..scan_way(file, scan.with_kernel(kernel), batch, bytes, query)?
                });
            }
        }
        if *codes == Codes::INT8 {
            ways.push(read_way(&gallery));
        }
        if *codes == Codes::INT8_F16 {
            ways.push(open_way(world.folder.join(format!("{codes}.gallery"))));
        }
    }
    Ok(ways)
}

fn scan_way<'w>(
    file: &'w MappedFile,
    scan: Scan,
    batch: usize,
    bytes: usize,
    query: impl Fn(usize) -> &'w [f32] + 'w,
) -> Outcome<Way<'w>> {
    let matcher = Matcher::with_method(file.gallery()?, Method::Scan(scan));
    let run = move |idx| {
        let queries: Vec<Query<'_>> = (idx..idx + batch)
            .map(|idx| Query::new(query(idx)))
            .collect();
        let (took, mut found) = timed(|| matcher.search_batch(&queries, TOP_K));
        (took, found.swap_remove(0))
    };
    Ok(Way {
        name: String::new(),
        bytes,
        batch,
        run: Box::new(run),
    })
}

/// Reads what a scan of int8 codes reads of every row but scales, and does nothing with it but
/// an exclusive or: what the memory gives.
fn read_way<'w>(gallery: &Gallery<'w>) -> Way<'w> {
    let codes = gallery.int8().map_or(&[][..], |int8| int8.scanned());
    Way {
        name: "read int8".to_owned(),
        bytes: codes.len(),
        batch: 1,
        run: Box::new(move |_| {
            let (took, _) = timed(|| {
                let mut sums = [0_u64; 32];
                for words in codes.as_chunks::<8>().0.as_chunks::<32>().0 {
                    for (sum, word) in sums.iter_mut().zip(words) {
                        *sum ^= u64::from_le_bytes(*word);
                    }
                }
                sums
            });
            (took, Vec::new())
        }),
    }
}

/// From a path to a matcher that can answer, several times in a row: the first opening
/// after other work pays for what that work pushed out of the caches.
fn open_way<'w>(path: PathBuf) -> Way<'w> {
    Way {
        name: "open int8,f16".to_owned(),
        bytes: 0,
        batch: BATCH,
        run: Box::new(move |_| {
            let open = || {
                MappedFile::open(&path).is_ok_and(|file| file.gallery().map(Matcher::new).is_ok())
            };
            let (took, _) = timed(|| (0..BATCH).all(|_| open()));
            (took, Vec::new())
        }),
    }
}

const ALL: [Codes; 6] = [
    Codes::F32,
    Codes::F16,
    Codes::INT8,
    Codes::INT8_F16,
    Codes::INT2_F16,
    Codes::INT2_INT8,
];

fn galleries(world: &World) -> Outcome<Vec<(Codes, MappedFile)>> {
    let files = ALL.map(|codes| world.gallery_file(codes).map(|file| (codes, file)));
    files.into_iter().collect()
}

fn compare(world: &World, n_rounds: usize, only: &str) -> Outcome<()> {
    let mapped = galleries(world)?;
    let mut ways = ways(world, &mapped)?;
    ways.retain(|way| way.name.contains(only));
    let mut random = Random::new(2);
    let mut times = vec![Vec::new(); ways.len()];
    let mut order: Vec<usize> = (0..ways.len()).collect();
    for round in 0..=n_rounds {
        random.shuffle(&mut order);
        for &way in &order {
            let (took, _) = (ways[way].run)(round * BATCH);
            // The first round warms up.
            if round > 0 {
                times[way].push(took.as_secs_f64() * 1e3 / ways[way].batch as f64);
            }
        }
    }
    let (n_rows, dim) = (world.rows.n_rows(), world.rows.dim());
    println!("{n_rows} rows x {dim}, top {TOP_K}, {n_rounds} rounds, one thread, ms a query");
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>8}",
        "way", "min", "median", "max", "GB/s"
    );
    for (way, times) in ways.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let [min, median, max] = [0, n_rounds / 2, n_rounds - 1].map(|at| times[at]);
        let rate = way.bytes as f64 / median / 1e6 / way.batch as f64;
        println!(
            "{:<28} {min:>9.4} {median:>9.4} {max:>9.4} {rate:>8.2}",
            way.name
        );
    }
    Ok(())
}

fn serve_requests(world: &World) -> Outcome<()> {
    let mapped = galleries(world)?;
    let ways = ways(world, &mapped)?;
    let mut out = std::io::stdout().lock();
    for way in &ways {
        writeln!(out, "{}\t{}\t{}", way.name, way.bytes, way.batch)?;
    }
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (way, query) = line.split_once(' ').ok_or("a line is METHOD QUERY")?;
        let way = ways.get(way.parse::<usize>()?).ok_or("no such method")?;
        let (took, found) = (way.run)(query.parse()?);
        write!(out, "{}", took.as_nanos())?;
        found
            .iter()
            .try_for_each(|found| write!(out, " {}", found.row))?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}
