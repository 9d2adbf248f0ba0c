//! Hostile galleries and deltas: whatever the bytes are, reading them ends with an error or
//! with something valid and bounded. No panic, and at no moment more memory than four times
//! the input and a mebibyte.
//!
//! The number of cases is bounded; `EYAS_MUTATIONS=10000000` sets another one.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not functions with #[test]"
)]

mod samples;
mod shapes;

use std::panic::{AssertUnwindSafe, catch_unwind};

use eyas_device::matcher::{Filter, Matcher, Query};
use eyas_shared::gallery::Gallery;
use eyas_shared::gallery::delta::Delta;
use eyas_shared::random::Random;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What reading may take beyond the input, in multiples of it and in bytes.
const INPUTS: usize = 4;
const ALLOWANCE: usize = 1 << 20;

/// Cases of a plain run: ten to twenty seconds.
const N_CASES: usize = 300_000;

/// Counts what came of the cases.
#[derive(Default)]
struct Outcomes {
    n_cases: usize,
    n_opened: usize,
    n_verified: usize,
    /// Largest memory beyond the input, as a share of what is allowed.
    largest: f64,
}

impl Outcomes {
    /// Runs one case; `bytes` are those of the file, `beside` those of what it is used with.
    #[track_caller]
    fn case(
        &mut self,
        name: &str,
        bytes: &[u8],
        beside: usize,
        read: impl Fn(&[u8]) -> Fate,
    ) -> Fate {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(bytes)));
        let taken = MEMORY.peak_usage() - before;
        let allowed = INPUTS * (bytes.len() + beside) + ALLOWANCE;
        assert!(
            taken <= allowed,
            "{name}: {taken} bytes taken where {allowed} are allowed"
        );
        let Ok(fate) = outcome else {
            panic!("{name}: a panic, see above; {} bytes", bytes.len());
        };
        self.n_cases += 1;
        self.n_opened += usize::from(fate != Fate::Refused);
        self.n_verified += usize::from(fate == Fate::Whole);
        self.largest = self.largest.max(taken as f64 / allowed as f64);
        fate
    }
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// An error at once.
    Refused,
    /// Opened; an error when all of it was checked.
    Opened,
    /// Nothing is wrong with it.
    Whole,
}

/// Does with a gallery whatever a program may do before, or without, verifying it.
fn use_gallery(bytes: &[u8]) -> Fate {
    let Ok(gallery) = Gallery::open(bytes) else {
        return Fate::Refused;
    };
    let n_rows = gallery.n_rows();
    let mut row = vec![0.0; gallery.dim()];
    for row_idx in [0, n_rows / 2, n_rows - 1] {
        let entry = gallery.entry(row_idx);
        assert_eq!(
            entry.map(|entry| entry.id).unwrap_or(gallery.id(row_idx)),
            gallery.id(row_idx)
        );
        let _ = gallery.thumbnail(row_idx);
        let _ = gallery.encoded_row(row_idx);
        gallery.row_into(row_idx, &mut row);
    }
    assert_eq!(gallery.entry(n_rows), None);
    assert_eq!(gallery.label(u32::MAX), None);
    let verified = gallery.verify();
    let query = vec![1.0 / (gallery.dim() as f32).sqrt(); gallery.dim()];
    let matcher = Matcher::new(gallery);
    let gallery = matcher.gallery();
    let label = gallery.label(0).unwrap_or_default();
    let filter = Filter::default().labels(gallery, [label]);
    let queries = [
        Query::new(&query),
        Query {
            exclude: Some(gallery.id(0)),
            filter: Some(&filter),
            ..Query::new(&query)
        },
    ];
    for found in matcher.search_batch(&queries, 3) {
        assert!(found.len() <= 3 && found.iter().all(|found| found.row < n_rows));
    }
    if verified.is_ok() {
        Fate::Whole
    } else {
        Fate::Opened
    }
}

/// Reads a delta and applies it.
fn use_delta(bytes: &[u8], base: &Gallery<'_>) -> Fate {
    let Ok(delta) = Delta::read(bytes) else {
        return Fate::Refused;
    };
    let mut fate = Fate::Opened;
    for compact in [false, true] {
        let Ok(applied) = delta.apply(base, compact) else {
            continue;
        };
        if let Ok(plan) = applied.plan() {
            let written = plan.to_bytes();
            Gallery::open(&written).unwrap().verify().unwrap();
            fate = Fate::Whole;
        }
    }
    fate
}

fn n_cases() -> usize {
    let wanted = std::env::var("EYAS_MUTATIONS");
    wanted.map_or(N_CASES, |n| n.parse().expect("EYAS_MUTATIONS is a number"))
}

#[test]
fn hostile_galleries_and_deltas_end_with_an_error_or_are_valid() {
    let budget = n_cases();
    let mut outcomes = Outcomes::default();
    // A third each: single bytes of large files, random damage to small ones, made-up ones.
    let large = samples::large_gallery();
    let (base, delta) = samples::delta();
    bytes_of("gallery", &large, budget / 5, 0, &mut outcomes, use_gallery);
    let open = Gallery::open(base).unwrap();
    let apply = |bytes: &[u8]| use_delta(bytes, &open);
    bytes_of(
        "delta",
        delta,
        budget / 20,
        base.len(),
        &mut outcomes,
        apply,
    );
    let random = Random::new(1).fork("mutations");
    let smalls = samples::small_galleries();
    let (mut n_made, mut n_made_opened) = (0, 0);
    for number in 0.. {
        if outcomes.n_cases >= budget {
            break;
        }
        let mut random = random.at(number);
        match number % 8 {
            0..3 => {
                let made = shapes::gallery(&mut random);
                let fate = outcomes.case(&format!("made gallery {number}"), &made, 0, use_gallery);
                n_made += 1;
                n_made_opened += usize::from(fate != Fate::Refused);
            }
            3 => {
                let made = shapes::delta(&mut random, &open);
                let name = format!("made delta {number}");
                outcomes.case(&name, &made, base.len(), apply);
            }
            4 => {
                let mut bytes = delta.clone();
                shapes::damage(&mut bytes, &mut random);
                let name = format!("damaged delta {number}");
                outcomes.case(&name, &bytes, base.len(), apply);
            }
            _ => {
                let mut bytes = smalls[random.below(smalls.len())].clone();
                shapes::damage(&mut bytes, &mut random);
                outcomes.case(&format!("damaged gallery {number}"), &bytes, 0, use_gallery);
            }
        }
    }
    eprintln!(
        "{} cases: {} opened, {} whole; at most {:.3} of the memory allowed",
        outcomes.n_cases, outcomes.n_opened, outcomes.n_verified, outcomes.largest
    );
    assert!(
        outcomes.n_opened > outcomes.n_cases / 20,
        "too few were read"
    );
    assert!(
        n_made_opened > n_made / 4,
        "{n_made_opened} of {n_made} that were made could be opened"
    );
    assert!(outcomes.n_verified > 0, "none was whole");
}

/// Truncations and flipped bytes of one file, spread over all of it: as they are, which must
/// be noticed, and with checksums made right again, which may not be.
fn bytes_of(
    name: &str,
    whole: &[u8],
    budget: usize,
    beside: usize,
    outcomes: &mut Outcomes,
    read: impl Fn(&[u8]) -> Fate,
) {
    assert_eq!(read(whole), Fate::Whole, "{name}");
    let step = (3 * whole.len()).div_ceil(budget).max(1);
    for at in (0..whole.len()).step_by(step) {
        outcomes.case(
            &format!("{name}, first {at} bytes"),
            &whole[..at],
            beside,
            |bytes| {
                let fate = read(bytes);
                assert_eq!(fate, Fate::Refused);
                fate
            },
        );
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0xff;
        outcomes.case(&format!("{name}, byte {at}"), &damaged, beside, |bytes| {
            let fate = read(bytes);
            assert_ne!(fate, Fate::Whole);
            fate
        });
        shapes::reseal(&mut damaged);
        let name = format!("{name}, byte {at} resealed");
        outcomes.case(&name, &damaged, beside, &read);
    }
}
