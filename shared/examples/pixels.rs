//! Writes what `eyas_shared::preprocess` makes of image files, to be compared with another
//! implementation. `PREPROCESSING.md` shows how.
//!
//! ```text
//! pixels decode FILE...                              the decoded pixels
//! pixels crop FILTER SHORTER CROP FILE...            after resize and crop
//! pixels tensor FILTER SHORTER CROP FILE...          fingerprints of the tensors, as text
//! pixels time FILTER SHORTER CROP FILE...            microseconds per stage (median)
//! ```
//!
//! For every file, `decode` and `crop` write width and height (u32, little-endian) and the
//! samples (u8, row by row, R G B). A file that can not be decoded gets width and height 0.

use std::io::{Error, Write};
use std::process::ExitCode;
use std::time::Instant;

use eyas_shared::preprocess::{
    Filter, IMAGENET_MEAN, IMAGENET_STD, Limits, PreprocessSpec, RgbImage, apply, decode,
    normalize, resize_and_crop,
};

const USAGE: &str =
    "pixels decode FILE... | pixels crop|tensor|time bilinear|bicubic SHORTER CROP FILE...";

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
    let mut out = std::io::stdout().lock();
    for file in files {
        let bytes = std::fs::read(file)?;
        let image = decode(&bytes, &Limits::DEFAULT).map_err(Error::other)?;
        let cropped = resize_and_crop(&image, spec);
        let decoding = median_micros(|| decode(&bytes, &Limits::DEFAULT).is_ok());
        let resizing = median_micros(|| resize_and_crop(&image, spec));
        let normalizing = median_micros(|| normalize(&cropped, spec));
        writeln!(
            out,
            "{file} {image:?}: decode {decoding:.0} resize {resizing:.0} \
             normalize {normalizing:.0} microseconds"
        )?;
    }
    Ok(())
}

fn median_micros<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut samples: Vec<f64> = (0..201)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(work());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
