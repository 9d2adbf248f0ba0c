//! The side of a candidate's own process: takes orders on standard input, says on standard
//! output what came of them.
//!
//! Both ends are the same program, so the form of orders is nobody else's business: a length
//! of four bytes, then a postcard value.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::bench::{Moment, Operator, Sample, Used};
use eyas_shared::link::message::Answer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Bench, BenchError, Edges, Measured, Plan, memory};
use crate::hints::chain_of;
use crate::wire;

/// The hidden subcommand of the process.
pub const SUBCOMMAND: &str = "measure-pair";

/// Longest order or word: the images of a window.
const MAX_BYTES: u64 = 1 << 28;

/// What a candidate's process is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) bundle: PathBuf,
    pub(super) gallery: PathBuf,
    pub(super) n_threads: u16,
    /// Memory beside the mapped files, in bytes.
    pub(super) memory_bytes: u64,
    pub(super) edge_file: Option<PathBuf>,
    pub(super) edge_command: Option<String>,
}

/// What it is told to do, after its setup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Order {
    Try {
        image: Vec<u8>,
        top_k: u16,
    },
    Measure {
        images: Vec<Vec<u8>>,
        top_k: u16,
        warm_up_ms: u32,
        at_least_ms: u32,
        at_least: u32,
    },
    Profile {
        image: Vec<u8>,
        n_runs: u16,
    },
    Conclude,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Word {
    /// The process is there.
    Started,
    /// The pair is open.
    Ready {
        open_nanos: u64,
        load_nanos: u64,
        is_from_disk: bool,
    },
    Answered {
        answer: Box<Answer>,
        embedding: Vec<f32>,
    },
    Measured {
        before: Box<Moment>,
        after: Box<Moment>,
        samples: Vec<Sample>,
    },
    Profiled(Vec<Operator>),
    Used(Used),
    /// Not done; whether that is the image's fault.
    Failed {
        is_of_the_image: bool,
        reason: String,
    },
}

/// Writes one value.
pub(super) fn write<T: Serialize>(to: &mut impl Write, value: &T) -> std::io::Result<()> {
    let bytes = postcard::to_stdvec(value).map_err(std::io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

/// Reads one value; none at the end of the stream.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> std::io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome?,
    }
    let length = u64::from(u32::from_le_bytes(length));
    if length > MAX_BYTES {
        return Err(std::io::Error::other("a word is longer than any is"));
    }
    // Grows with what arrives, not with what is claimed.
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes)
        .map(Some)
        .map_err(std::io::Error::other)
}

/// The whole life of a candidate's process.
///
/// # Errors
/// If nobody listens any more.
pub fn work(mut orders: impl Read, mut words: impl Write) -> std::io::Result<()> {
    // Whoever is measured for has gone: nothing is left to do.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    write(&mut words, &Word::Started)?;
    let Some(setup) = read::<Setup>(&mut orders)? else {
        return Ok(());
    };
    let bench = match open(&setup) {
        Ok(bench) => bench,
        Err(reason) => return write(&mut words, &failed(false, reason)),
    };
    let opening = bench.store().opening();
    let ready = Word::Ready {
        open_nanos: opening.files.as_nanos() as u64,
        load_nanos: opening.student.as_nanos() as u64,
        is_from_disk: bench.is_from_disk(),
    };
    write(&mut words, &ready)?;
    let edges = Edges {
        file: setup.edge_file,
        command: setup.edge_command,
    };
    while let Some(order) = read::<Order>(&mut orders)? {
        let is_last = order == Order::Conclude;
        let word = obey(&bench, order, &edges).unwrap_or_else(|err| {
            let is_of_the_image = matches!(&err, BenchError::Look(look) if look.is_of_the_image());
            failed(is_of_the_image, chain_of(&err))
        });
        write(&mut words, &word)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

fn failed(is_of_the_image: bool, reason: String) -> Word {
    Word::Failed {
        is_of_the_image,
        reason,
    }
}

fn open(setup: &Setup) -> Result<Bench, String> {
    crate::slots::trial::limit_memory(&setup.bundle, &setup.gallery, setup.memory_bytes)
        .map_err(|err| format!("the limits of the process could not be set: {err}"))?;
    Bench::open(&setup.bundle, &setup.gallery, setup.n_threads.into()).map_err(|err| chain_of(&err))
}

fn obey(bench: &Bench, order: Order, edges: &Edges) -> Result<Word, BenchError> {
    match order {
        Order::Try { image, top_k } => {
            let hash = Fingerprint::of_bytes(&image).0;
            let space = bench.store().encoder().space();
            bench.answer(&image, top_k.into(), |matcher, looked| Word::Answered {
                answer: Box::new(wire::answer(matcher, &looked, hash, space)),
                embedding: looked.asked.embedding,
            })
        }
        Order::Measure {
            images,
            top_k,
            warm_up_ms,
            at_least_ms,
            at_least,
        } => {
            let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
            let plan = Plan {
                top_k: top_k.into(),
                warm_up: Duration::from_millis(warm_up_ms.into()),
                at_least: Duration::from_millis(at_least_ms.into()),
                at_least_n: at_least as usize,
            };
            let Measured {
                before,
                after,
                samples,
            } = bench.measure(&images, &plan, edges)?;
            Ok(Word::Measured {
                before: Box::new(before),
                after: Box::new(after),
                samples,
            })
        }
        Order::Profile { image, n_runs } => {
            let operators = bench.profile(&image, n_runs.into())?;
            let operators = operators.into_iter().map(|operator| Operator {
                node: wire::fact(&operator.node),
                kind: wire::fact(&operator.kind),
                nanos: operator.nanos,
            });
            Ok(Word::Profiled(operators.collect()))
        }
        Order::Conclude => {
            let (peak_bytes, own_bytes) = memory();
            Ok(Word::Used(Used {
                peak_bytes,
                own_bytes,
            }))
        }
    }
}
