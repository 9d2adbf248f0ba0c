//! Times networks in the engine and in tract as it comes, or answers a program that times
//! them beside others.
//!
//!     cargo bench --workspace --bench encode -- FILE.. [--rounds R] [--threads T] [--layers]
//!     cargo bench --workspace --bench encode -- --serve FILE..
//!
//! Files are bundles, or `SIDE:ONNX`. Alone it lets files and runtimes take turns in random
//! order, prints median and minimum, and how far the outputs are apart; with `--layers` also
//! what each step takes. With `--serve` it prints its ways (name, multiply-adds, nanoseconds
//! to load) and then answers lines `WAY` with nanoseconds, and lines `WAY PIXELS` with what
//! the network gives for an image of little-endian f32 in that file:
//! `tests/peers/encode.py` speaks to it.

#![allow(missing_docs, reason = "a program")]
#![expect(clippy::print_stdout, reason = "this is where figures reach the user")]

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use eyas_device::encoder::{Isa, Network, Runtime};
use eyas_shared::bundle::Bundle;
use eyas_shared::preprocess::Pixels;
use eyas_shared::random::Random;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Way {
    name: String,
    network: Network,
    pixels: Pixels,
    load: Duration,
    times: Vec<Duration>,
}

fn main() -> Outcome<()> {
    // `cargo bench` passes `--bench` on.
    let mut files: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let mut number = |name: &str, default: usize| -> Outcome<usize> {
        let Some(at) = files.iter().position(|word| word == name) else {
            return Ok(default);
        };
        files.remove(at);
        Ok(files.remove(at).parse()?)
    };
    let (rounds, threads) = (number("--rounds", 100)?, number("--threads", 1)?);
    let mut flag = |name: &str| {
        let before = files.len();
        files.retain(|word| word != name);
        files.len() < before
    };
    let (serve, layers) = (flag("--serve"), flag("--layers"));
    let mut ways = Vec::new();
    for file in &files {
        ways.extend(load(file, threads)?);
    }
    if serve {
        return answer(&mut ways);
    }
    measure(&mut ways, rounds)?;
    show(&ways, layers)
}

/// The network of a file with every runtime.
fn load(file: &str, threads: usize) -> Outcome<Vec<Way>> {
    let (side, path) = file.split_once(':').unwrap_or(("", file));
    let bytes = fs::read(path)?;
    let (onnx, side) = if side.is_empty() {
        let bundle = Bundle::read(&bytes)?;
        (bundle.onnx, bundle.header.preprocess.crop)
    } else {
        (&bytes[..], side.parse()?)
    };
    let mut random = Random::new(1);
    let pixels = Pixels {
        side,
        values_chw: (0..3 * side * side)
            .map(|_| random.normal() as f32)
            .collect(),
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    let isas = Isa::available()
        .into_iter()
        .filter(|isa| *isa != Isa::Plain);
    let mut ways = Vec::new();
    for runtime in isas.map(Runtime::Engine).chain([Runtime::Tract]) {
        let began = Instant::now();
        let mut network = Network::load_for(runtime, onnx, side, None)?;
        network.run(&pixels)?;
        let load = began.elapsed();
        network.set_threads(threads)?;
        let runtime = match runtime {
            Runtime::Engine(isa) => format!("{isa:?}"),
            _ => "tract".to_owned(),
        };
        ways.push(Way {
            name: format!("{name} {runtime}"),
            network,
            pixels: pixels.clone(),
            load,
            times: Vec::new(),
        });
    }
    Ok(ways)
}

fn time(way: &Way) -> Outcome<Duration> {
    let began = Instant::now();
    black_box(way.network.run(black_box(&way.pixels))?);
    Ok(began.elapsed())
}

fn measure(ways: &mut [Way], rounds: usize) -> Outcome<()> {
    let mut random = Random::new(2);
    for round in 0..rounds + rounds / 4 {
        let mut order: Vec<usize> = (0..ways.len()).collect();
        random.shuffle(&mut order);
        for at in order {
            let took = time(&ways[at])?;
            if round >= rounds / 4 {
                ways[at].times.push(took);
            }
        }
    }
    Ok(())
}

fn show(ways: &[Way], layers: bool) -> Outcome<()> {
    println!("network\tMMAC\tload ms\tmedian ms\tmin ms\tGFLOP/s\tcosine to tract");
    for way in ways {
        let mut times = way.times.clone();
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (median, min) = (ms(times[times.len() / 2]), ms(times[0]));
        let file = way.name.rsplit_once(' ').map_or("", |(file, _)| file);
        let tract = ways
            .iter()
            .find(|other| other.name == format!("{file} tract"));
        let cosine = match tract {
            Some(tract) => cosine(
                &way.network.run(&way.pixels)?,
                &tract.network.run(&tract.pixels)?,
            ),
            None => f64::NAN,
        };
        let mmac = way.network.multiply_adds() as f64 / 1e6;
        println!(
            "{}\t{mmac:.1}\t{:.1}\t{median:.3}\t{min:.3}\t{:.1}\t{cosine:.8}",
            way.name,
            ms(way.load),
            mmac * 2.0 / median
        );
        if layers {
            for operator in way.network.profile(&way.pixels, 50)? {
                let micros = operator.nanos as f64 / 1e3;
                println!("    {micros:8.1} us  {}  {}", operator.node, operator.kind);
            }
        }
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Answers lines with the number of a way, and perhaps a file of pixels.
fn answer(ways: &mut [Way]) -> Outcome<()> {
    let mut output = std::io::stdout().lock();
    for way in &*ways {
        let (macs, load) = (way.network.multiply_adds(), way.load.as_nanos());
        writeln!(output, "{}\t{macs}\t{load}", way.name)?;
    }
    writeln!(output, "ready")?;
    output.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (way, file) = line.split_once(' ').unwrap_or((&line, ""));
        let way = &mut ways[way.parse::<usize>()?];
        if file.is_empty() {
            writeln!(output, "{}", time(way)?.as_nanos())?;
        } else {
            let values = fs::read(file)?;
            way.pixels.values_chw = values
                .chunks_exact(4)
                .map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
                .collect();
            let outputs = way.network.run(&way.pixels)?;
            let words: Vec<String> = outputs.iter().map(f32::to_string).collect();
            writeln!(output, "{}", words.join(" "))?;
        }
        output.flush()?;
    }
    Ok(())
}
