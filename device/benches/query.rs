//! Answers a program that times whole queries beside others: image bytes in memory to rows.
//!
//!     cargo bench --workspace --bench query -- --embed BUNDLE FOLDER IMAGE..
//!     cargo bench --workspace --bench query -- --serve BUNDLE FOLDER IMAGE..
//!
//! With `--embed` it writes the images' embeddings to FOLDER/embeddings.f32 (little-endian)
//! and the student to FOLDER/student.onnx, and prints how pixels are prepared, as JSON. With
//! `--serve` it lays out galleries of FOLDER/rows.f32, prints the names of their codes and
//! then answers lines `CODES IMAGE`, both as numbers: nanoseconds of the whole query, of each
//! stage, and the rows that were found. `tests/peers/query.py` speaks to it. Not for looking
//! at a student: `eyas-device bench` is.

#![allow(missing_docs, reason = "a program")]
#![expect(clippy::print_stdout, reason = "this is where figures reach the user")]

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use eyas_device::answer::Answerer;
use eyas_device::encoder::Encoder;
use eyas_device::look;
use eyas_device::matcher::Matcher;
use eyas_device::store::MappedFile;
use eyas_shared::bundle::Bundle;
use eyas_shared::embedding::Embeddings;
use eyas_shared::files;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{Codes, Entry, Fresh, GallerySource, Plan};
use eyas_shared::quant;

const TOP_K: usize = 10;
const ALL: [Codes; 4] = [Codes::INT8_F16, Codes::INT8, Codes::F16, Codes::INT2_F16];

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    // `cargo bench` passes `--bench` on.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let [mode, bundle, folder, images @ ..] = &words[..] else {
        println!("for tests/peers/query.py; `eyas-device bench` measures alone");
        return Ok(());
    };
    let bytes = fs::read(bundle)?;
    let bundle = Bundle::read(&bytes)?;
    let encoder = Encoder::load(&bundle)?;
    let images: Vec<Vec<u8>> = images.iter().map(fs::read).collect::<Result<_, _>>()?;
    let folder = Path::new(folder);
    match mode.as_str() {
        "--embed" => {
            fs::write(folder.join("student.onnx"), bundle.onnx)?;
            println!("{}", serde_json::to_string(encoder.preprocess())?);
            embed(&encoder, &images, &folder.join("embeddings.f32"))
        }
        "--serve" => serve(&encoder, &images, folder),
        other => Err(format!("`{other}` is neither --embed nor --serve").into()),
    }
}

fn embed(encoder: &Encoder, images: &[Vec<u8>], path: &Path) -> Outcome<()> {
    let mut values = Vec::new();
    for image in images {
        let encoded = look::encode(encoder, image)?;
        values.extend(
            encoded
                .embedding
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        );
    }
    Ok(fs::write(path, values)?)
}

fn serve(encoder: &Encoder, images: &[Vec<u8>], folder: &Path) -> Outcome<()> {
    let values = quant::f32_from_bytes(&fs::read(folder.join("rows.f32"))?);
    let rows = Embeddings::from_values(encoder.dim(), values).ok_or("not whole rows")?;
    let mut mapped = Vec::new();
    for codes in ALL {
        let path = folder.join(format!("{codes}.gallery"));
        lay_out(&rows, encoder.space(), codes, &path)?;
        mapped.push(MappedFile::open(&path)?);
    }
    let matchers: Vec<Matcher<'_>> = mapped
        .iter()
        .map(|file| file.gallery().map(Matcher::new))
        .collect::<Result<_, _>>()?;
    let mut output = std::io::stdout().lock();
    for codes in ALL {
        writeln!(output, "{codes}")?;
    }
    writeln!(output, "ready")?;
    output.flush()?;
    let request = look::plain_request(TOP_K);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (way, image) = line.split_once(' ').ok_or("no image")?;
        let answerer = Answerer::new(&matchers[way.parse::<usize>()?], &[]);
        let image = &images[image.parse::<usize>()?];
        let began = Instant::now();
        let looked = black_box(look::look(encoder, &answerer, black_box(image), &request)?);
        let took = began.elapsed().as_nanos();
        let sample = &looked.sample;
        let stages = [
            sample.decode,
            sample.preprocess,
            sample.encode,
            sample.search,
        ];
        let found = &looked.answer.found;
        let rows = found.iter().map(|found| number_of(found.best.id));
        let words: Vec<String> = stages
            .into_iter()
            .chain(rows)
            .map(|number| number.to_string())
            .collect();
        writeln!(output, "{took} {}", words.join(" "))?;
        output.flush()?;
    }
    Ok(())
}

/// A gallery whose images are named by the numbers of their rows.
fn lay_out(rows: &Embeddings, space: SpaceId, codes: Codes, path: &Path) -> Outcome<()> {
    let entries: Vec<Entry<'_>> = (0..rows.n_rows() as u64)
        .map(|row| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&row.to_le_bytes());
            Entry {
                id: ImageId(id),
                label: "",
                name: "",
            }
        })
        .collect();
    let source = GallerySource {
        space,
        teacher: String::new(),
        manifest: Fingerprint([1; 32]),
        codes,
    };
    let records = Fresh {
        rows,
        entries: &entries,
        thumbnails: &[],
    };
    let plan = Plan::new(&source, &records)?;
    Ok(files::replace_with(path, |file| plan.write(file))?)
}

fn number_of(id: ImageId) -> u64 {
    let (number, _) = id.0.split_first_chunk().expect("an id has sixteen bytes");
    u64::from_le_bytes(*number)
}
