//! The store on a simulated disk. What it does with processes and real files is tested at
//! the command line.

mod faults;
mod power;
mod states;

use std::path::Path;

use eyas_shared::fingerprint::Fingerprint;

use super::sim::Sim;
use super::trial::{Trial, TrialFault, TrialReport};
use super::*;

const ROOT: &str = "/store";

/// Sees every pair as good.
struct Passes;

impl Trial for Passes {
    fn run(&self, _: &Path, _: &Path) -> Result<TrialReport, TrialFault> {
        Ok(TrialReport {
            n_rows: 1,
            n_probes: 1,
            min_cosine: 1.0,
            peak_bytes: 0,
        })
    }
}

/// Sees every pair as bad.
struct Fails(Option<Role>);

impl Trial for Fails {
    fn run(&self, _: &Path, _: &Path) -> Result<TrialReport, TrialFault> {
        let (blames, reason) = (self.0, "it does not answer".to_owned());
        Err(TrialFault::Refused { blames, reason })
    }
}

/// Content of a file: a little more than three pages, of its own pattern.
fn content(name: u8) -> Vec<u8> {
    (0..3 * 4096 + 100).map(|i| (i / 7) as u8 ^ name).collect()
}

fn hash(name: u8) -> Fingerprint {
    Fingerprint::of_bytes(&content(name))
}

/// A bundle and a gallery of the same generation.
type Pair = (u8, u8);

const OLD: Pair = (b'a', b'A');
const NEW: Pair = (b'b', b'B');

fn choice(pair: Pair) -> Choice {
    Choice {
        bundle: Some(hash(pair.0)),
        gallery: Some(hash(pair.1)),
        allow_downgrade: false,
    }
}

fn root() -> &'static Path {
    Path::new(ROOT)
}

fn open(sim: Sim) -> Slots<Sim> {
    Slots::open(sim, root()).unwrap()
}

/// Sends a file in uneven pieces with a checkpoint after each page; tells what was safe.
fn send(slots: &Slots<Sim>, name: u8, safe: &mut dyn FnMut(u64)) -> Result<(), SlotsError> {
    let bytes = content(name);
    let mut staging = slots.stage_by(hash(name), bytes.len() as u64, 4096)?;
    while staging.have() < staging.bytes() {
        let at = staging.have() as usize;
        staging.write(at as u64, &bytes[at..bytes.len().min(at + 3000)])?;
        safe(staging.safe());
    }
    staging.finish()?;
    safe(bytes.len() as u64);
    Ok(())
}

/// The whole way of an update: send, install, start, confirm.
fn update(slots: &Slots<Sim>, pair: Pair) -> Result<(), SlotsError> {
    for name in [pair.0, pair.1] {
        send(slots, name, &mut |_| {})?;
    }
    slots.install(&choice(pair), &Passes)?;
    let serving = slots.start()?;
    slots.confirm(serving.generation.number)
}

/// A disk on which [`OLD`] is confirmed.
fn served() -> Sim {
    let slots = Slots::init(Sim::new(root()), root(), Settings::new(Vec::new())).unwrap();
    update(&slots, OLD).unwrap();
    slots.fs.settled()
}

/// The pair that serves now, whose files are whole.
#[track_caller]
fn serving_pair(slots: &Slots<Sim>) -> Pair {
    let generation = slots.start().unwrap().generation;
    let names = [OLD, NEW]
        .into_iter()
        .find(|pair| (generation.bundle, generation.gallery) == (hash(pair.0), hash(pair.1)));
    let pair = names.expect("a pair that was installed together");
    for name in [pair.0, pair.1] {
        let path = slots.file_path(hash(name));
        let found = slots.fs.read(&path, 1 << 20).unwrap();
        assert!(found == content(name), "{} is damaged", path.display());
    }
    pair
}

/// All paths of files below a folder of the store.
fn names(slots: &Slots<Sim>, folder: &str) -> Vec<String> {
    slots.fs.list(&root().join(folder)).unwrap()
}
