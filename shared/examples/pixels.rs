//! Writes what `eyas_shared::preprocess` makes of image files, to be compared with another
//! implementation. `PREPROCESSING.md` shows how.
//!
//! ```text
//! pixels decode FILE...                              the decoded pixels
//! pixels crop FILTER SHORTER CROP FILE...            after resize and crop
//! pixels tensor FILTER SHORTER CROP FILE...          fingerprints of the tensors, as text
//! pixels time FILTER SHORTER CROP FILE...            microseconds per stage (median)
//! pixels serve FILTER SHORTER CROP FILE...           times itself, one file per line read
//! ```
//!
//! For every file, `decode` and `crop` write width and height (u32, little-endian) and the
//! samples (u8, row by row, R G B). A file that can not be decoded gets width and height 0.
//! `serve` says `ready`, and answers the number of a file by the nanoseconds that decoding,
//! and the rest of the way to the tensor, took; `tests/peers/pixels.py` asks.

use std::io::{Error, Write};
use std::process::ExitCode;
use std::time::Instant;

use eyas_shared::preprocess::{
    Filter, IMAGENET_MEAN, IMAGENET_STD, Limits, PreprocessSpec, Preprocessor, RgbImage, apply,
    decode, resize_and_crop,
};

const USAGE: &str =
    "pixels decode FILE... | pixels crop|tensor|time|serve bilinear|bicubic SHORTER CROP FILE...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Error> {
    match arguments {
        ["decode", files @ ..] => write_all(files, |image| image),
        ["crop", filter, shorter, crop, files @ ..] => {
            let spec = spec(filter, shorter, crop)?;
            write_all(files, |image| resize_and_crop(&image, &spec))
        }
        ["tensor", filter, shorter, crop, files @ ..] => {
            let spec = spec(filter, shorter, crop)?;
            for file in files {
                let pixels = apply(&std::fs::read(file)?, &spec).map_err(Error::other)?;
                writeln!(std::io::stdout(), "{}  {file}", pixels.fingerprint())?;
            }
            Ok(())
        }
        ["time", filter, shorter, crop, files @ ..] => {
            time_all(files, &spec(filter, shorter, crop)?)
        }
        ["serve", filter, shorter, crop, files @ ..] => serve(files, &spec(filter, shorter, crop)?),
        _ => Err(Error::other(USAGE)),
    }
}

fn spec(filter: &str, shorter: &str, crop: &str) -> Result<PreprocessSpec, Error> {
    let number = |text: &str| text.parse().map_err(|_| Error::other(USAGE));
    Ok(PreprocessSpec {
        resize_shorter: number(shorter)?,
        crop: number(crop)?,
        filter: match filter {
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            _ => return Err(Error::other(USAGE)),
        },
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    })
}

fn write_all(files: &[&str], make: impl Fn(RgbImage) -> RgbImage) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    for file in files {
        match decode(&std::fs::read(file)?, &Limits::DEFAULT) {
            Ok(image) => {
                let image = make(image);
                out.write_all(&image.width.to_le_bytes())?;
                out.write_all(&image.height.to_le_bytes())?;
                out.write_all(&image.samples)?;
            }
            Err(error) => {
                writeln!(std::io::stderr(), "{file}: {error}")?;
                out.write_all(&[0; 8])?;
            }
        }
    }
    Ok(())
}

fn time_all(files: &[&str], spec: &PreprocessSpec) -> Result<(), Error> {
    const N_RUNS: usize = 201;
    let mut out = std::io::stdout().lock();
    let mut preprocessor = Preprocessor::default();
    for file in files {
        let bytes = std::fs::read(file)?;
        let image = decode(&bytes, &Limits::DEFAULT).map_err(Error::other)?;
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..N_RUNS {
            let took = measure(&mut preprocessor, &bytes, spec)?;
            for (times, took) in times.iter_mut().zip(took) {
                times.push(took);
            }
        }
        let [decoding, preparing] = times.map(|mut times| {
            times.sort_unstable();
            times[N_RUNS / 2] / 1000
        });
        writeln!(
            out,
            "{file} {image:?}: decode {decoding} resize and normalize {preparing} microseconds"
        )?;
    }
    Ok(())
}

fn serve(files: &[&str], spec: &PreprocessSpec) -> Result<(), Error> {
    let contents: Vec<Vec<u8>> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    let mut preprocessor = Preprocessor::default();
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    for line in std::io::stdin().lines() {
        let file: Option<usize> = line?.trim().parse().ok();
        let bytes = file.and_then(|file| contents.get(file));
        let bytes = bytes.ok_or_else(|| Error::other("not the number of a file"))?;
        let [decoding, preparing] = measure(&mut preprocessor, bytes, spec)?;
        writeln!(out, "{decoding} {preparing}")?;
    }
    Ok(())
}

/// Nanoseconds of both stages.
fn measure(
    preprocessor: &mut Preprocessor,
    bytes: &[u8],
    spec: &PreprocessSpec,
) -> Result<[u128; 2], Error> {
    let started = Instant::now();
    preprocessor
        .decode(bytes, &Limits::DEFAULT)
        .map_err(Error::other)?;
    let decoded = Instant::now();
    std::hint::black_box(preprocessor.prepare(spec));
    let took = [decoded - started, decoded.elapsed()];
    Ok(took.map(|took| took.as_nanos()))
}
