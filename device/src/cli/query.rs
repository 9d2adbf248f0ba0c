//! `eyas-device query`: images in, ranked gallery images out.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use eyas_shared::files::{self, FileError};
use eyas_shared::preprocess::{Limits, decode, prepare};
use serde_json::{Value, json};

use super::{Answer, print, report_error};
use crate::matcher::{Match, Matcher};
use crate::store::Store;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    eyas-device query photos/ --bundle student.bundle --gallery shop.gallery --top-k 3")]
pub(super) struct Args {
    /// Image files, folders of them, or `-` for one image on standard input.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The student's bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// The gallery that is searched.
    #[arg(long, value_name = "FILE")]
    gallery: PathBuf,
    /// Matches per image.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Print one JSON object per image and line.
    #[arg(long)]
    json: bool,
}

/// What each stage of one query took.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    /// File bytes to samples.
    decode: Duration,
    /// Samples to the network's pixels.
    preprocess: Duration,
    /// Pixels to the embedding.
    encode: Duration,
    /// Embedding to matches.
    search: Duration,
}

impl Timing {
    fn stages(&self) -> [(&'static str, Duration); 5] {
        let total = self.decode + self.preprocess + self.encode + self.search;
        [
            ("decode", self.decode),
            ("preprocess", self.preprocess),
            ("encode", self.encode),
            ("search", self.search),
            ("total", total),
        ]
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let store = Store::open(&args.bundle, &args.gallery)?;
    let matcher = store.matcher()?;
    let mut timings = Vec::new();
    let mut answer = Answer::Yes;
    let mut failed = |err: &anyhow::Error| {
        report_error(err);
        answer = Answer::NotAll;
    };
    for image in list_images(&args.images, &mut failed) {
        match query(&store, &matcher, &image, args.top_k as usize) {
            Ok((matches, timing)) => {
                let text = if args.json {
                    json_line(&store, &matcher, &image, &matches, &timing)
                } else {
                    ranked_lines(&matcher, &image, &matches)
                };
                print(&text)?;
                timings.push(timing);
            }
            Err(err) => failed(&err),
        }
    }
    if !args.json && !timings.is_empty() {
        print(&timing_lines(&timings))?;
    }
    Ok(answer)
}

/// The images that the arguments name; folders are walked in the order of names.
fn list_images(arguments: &[PathBuf], failed: &mut impl FnMut(&anyhow::Error)) -> Vec<PathBuf> {
    let mut images = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            images.push(argument.clone());
            continue;
        }
        let mut walk = Walk {
            seen: BTreeSet::new(),
            images: Vec::new(),
            failed,
        };
        walk.folder(argument, 0);
        let found = walk.images;
        if found.is_empty() {
            let folder = argument.display();
            failed(&anyhow::anyhow!(
                "no image (jpg, jpeg, png, webp) in the folder `{folder}`"
            ));
        }
        images.extend(found);
    }
    images
}

/// Deeper folders are not walked, so that no tree exhausts the stack.
const MAX_DEPTH: usize = 32;

/// Collects the images below one argument. Hidden files and folders are left out.
struct Walk<'a, F> {
    /// Folders by what they really are, so that no link leads into one twice.
    seen: BTreeSet<PathBuf>,
    images: Vec<PathBuf>,
    failed: &'a mut F,
}

impl<F: FnMut(&anyhow::Error)> Walk<'_, F> {
    fn folder(&mut self, folder: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            let folder = folder.display();
            let fault = anyhow::anyhow!("`{folder}` lies more than {MAX_DEPTH} folders deep");
            return (self.failed)(&fault);
        }
        let entries = match self.entries(folder) {
            Ok(entries) => entries,
            Err(err) => return (self.failed)(&err.into()),
        };
        for path in entries {
            if path.is_dir() {
                self.folder(&path, depth + 1);
            } else if is_image_name(&path) {
                self.images.push(path);
            }
        }
    }

    /// What lies in a folder, sorted by name; nothing if that folder was seen before.
    fn entries(&mut self, folder: &Path) -> Result<Vec<PathBuf>, FileError> {
        let real = fs::canonicalize(folder).map_err(FileError::because("open folder", folder))?;
        if !self.seen.insert(real) {
            return Ok(Vec::new());
        }
        let mut paths = fs::read_dir(folder)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.path()))
                    .collect::<std::io::Result<Vec<_>>>()
            })
            .map_err(FileError::because("read folder", folder))?;
        paths.retain(|path| !is_hidden(path));
        paths.sort();
        Ok(paths)
    }
}

pub(super) fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

pub(super) fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["jpg", "jpeg", "png", "webp"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

fn read_image(image: &Path) -> anyhow::Result<Vec<u8>> {
    let max_bytes = Limits::DEFAULT.max_bytes;
    if image != Path::new("-") {
        return Ok(files::read(image, max_bytes)?);
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, for the decoder to refuse.
    let mut input = std::io::stdin().lock().take(max_bytes + 1);
    input
        .read_to_end(&mut bytes)
        .context("could not read standard input")?;
    Ok(bytes)
}

fn query(
    store: &Store,
    matcher: &Matcher<'_>,
    image: &Path,
    k: usize,
) -> anyhow::Result<(Vec<Match>, Timing)> {
    let bytes = read_image(image)?;
    ask(store, matcher, &bytes, k).with_context(|| format!("image `{}`", image.display()))
}

/// Asks with the bytes of an image file.
pub(super) fn ask(
    store: &Store,
    matcher: &Matcher<'_>,
    bytes: &[u8],
    k: usize,
) -> anyhow::Result<(Vec<Match>, Timing)> {
    let encoder = store.encoder();
    let started = Instant::now();
    let samples = decode(bytes, &Limits::DEFAULT)?;
    let decoded = Instant::now();
    let pixels = prepare(&samples, encoder.preprocess());
    let prepared = Instant::now();
    let embedding = encoder.encode(&pixels)?;
    let encoded = Instant::now();
    let matches = matcher.search(&embedding, k, None);
    let searched = Instant::now();
    let timing = Timing {
        decode: decoded - started,
        preprocess: prepared - decoded,
        encode: encoded - prepared,
        search: searched - encoded,
    };
    Ok((matches, timing))
}

/// Label and name of a match. The store verified that every row has both.
fn texts<'m>(matcher: &'m Matcher<'_>, found: &Match) -> (&'m str, &'m str) {
    matcher
        .gallery()
        .entry(found.row)
        .map_or(("", ""), |entry| (entry.label, entry.name))
}

fn ranked_lines(matcher: &Matcher<'_>, image: &Path, matches: &[Match]) -> String {
    let width = matches
        .iter()
        .map(|m| texts(matcher, m).0.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = format!("{}\n", image.display());
    for (rank, found) in (1..).zip(matches) {
        let (label, name) = texts(matcher, found);
        let _ = writeln!(text, "{rank:4}  {:.4}  {label:width$}  {name}", found.score);
    }
    text
}

fn json_line(
    store: &Store,
    matcher: &Matcher<'_>,
    image: &Path,
    matches: &[Match],
    timing: &Timing,
) -> String {
    let mut object = json!({
        "schema": "eyas.query/1",
        "image": image.display().to_string(),
    });
    add_answer(&mut object, store, matcher, matches, timing);
    format!("{object}\n")
}

/// Adds what was found, and how long it took.
pub(super) fn add_answer(
    object: &mut Value,
    store: &Store,
    matcher: &Matcher<'_>,
    matches: &[Match],
    timing: &Timing,
) {
    let matches: Vec<_> = (1_u32..)
        .zip(matches)
        .map(|(rank, found)| {
            let (label, name) = texts(matcher, found);
            json!({
                "rank": rank,
                "score": found.score,
                "label": label,
                "name": name,
                "id": found.id.to_string(),
            })
        })
        .collect();
    let stages: serde_json::Map<_, _> = timing
        .stages()
        .iter()
        .map(|(stage, time)| ((*stage).to_owned(), (time.as_micros() as u64).into()))
        .collect();
    object["matches"] = matches.into();
    object["timing_us"] = stages.into();
    object["space_id"] = store.encoder().space().0.to_string().into();
}

/// Time by stage: of the one query, or the median over several.
fn timing_lines(timings: &[Timing]) -> String {
    let mut text = match timings.len() {
        1 => "time\n".to_owned(),
        n => format!("time, median of {n} queries\n"),
    };
    for stage_idx in 0..5 {
        let mut times: Vec<Duration> = timings
            .iter()
            .map(|timing| timing.stages()[stage_idx].1)
            .collect();
        times.sort_unstable();
        let name = timings[0].stages()[stage_idx].0;
        let median = times[times.len() / 2];
        let _ = writeln!(text, "{name:>12}  {:8.3} ms", median.as_secs_f64() * 1e3);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_extension_in_any_case() {
        for name in ["a.jpg", "a.JPEG", "a.Png", "b/c.webp"] {
            assert!(is_image_name(Path::new(name)), "{name}");
        }
        for name in ["a.txt", "jpg", ".jpg", "a.jpg.part"] {
            assert!(!is_image_name(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn folders_are_walked_in_order_and_an_empty_one_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/deep")).unwrap();
        std::fs::create_dir_all(root.join("empty")).unwrap();
        for name in ["c.jpg", "b/deep/x.PNG", "a.webp", "notes.txt"] {
            std::fs::write(root.join(name), b"").unwrap();
        }
        let mut faults = Vec::new();
        let arguments = [root.to_owned(), root.join("empty"), PathBuf::from("-")];
        let images = list_images(&arguments, &mut |err| faults.push(err.to_string()));
        let expected = ["a.webp", "b/deep/x.PNG", "c.jpg"].map(|name| root.join(name));
        assert_eq!(images[..3], expected);
        assert_eq!(images[3..], [PathBuf::from("-")]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("no image (jpg, jpeg, png, webp) in the folder"));
    }
    #[test]
    fn hidden_files_are_left_out_and_links_are_followed_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a", "b", ".hidden"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        for name in ["a/x.jpg", "b/y.jpg", ".hidden/z.jpg", "b/._y.jpg"] {
            fs::write(root.join(name), b"").unwrap();
        }
        let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
        link(root, "a/up");
        link(&root.join("a"), "b/again");
        let no_fault = &mut |err: &anyhow::Error| panic!("{err}");
        let images = list_images(&[root.to_owned()], no_fault);
        let expected = ["a/x.jpg", "b/y.jpg"].map(|name| root.join(name));
        assert_eq!(images, expected);
    }
}
