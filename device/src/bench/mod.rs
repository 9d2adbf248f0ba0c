//! Measures a student with a gallery on this machine.
//!
//! Queries go the way that all queries go ([`crate::look`]). What is measured is said as
//! times and counters; what they amount to is for [`eyas_shared::timing`] and the host.
//!
//! Over the link a candidate runs in a process of its own ([`Child`]), so that its memory
//! and its cold start are its own, and what it breaks is not the board's service.

mod child;
mod edges;
mod moment;
mod worker;

use std::path::Path;
use std::time::{Duration, Instant};

use eyas_shared::link::bench::{MAX_SAMPLES, Moment, Sample};
use eyas_shared::preprocess::{Limits, decode, prepare};

pub use child::{Child, ChildError, Lookout, Pair};
pub use edges::{Edges, EdgesError};
pub use moment::{Edge, facts, memory, moment, program};
pub use worker::{SUBCOMMAND, work};

use crate::answer::{Answerer, Known};
use crate::encoder::OperatorTime;
use crate::look::{LookError, Looked, look, plain_request};
use crate::matcher::Matcher;
use crate::store::{GalleryCheck, Store, StoreError};

/// A student and a gallery to be measured in this process.
pub struct Bench {
    store: Store,
    known: Known,
    is_from_disk: bool,
}

/// What to measure in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Matches per query.
    pub top_k: usize,
    /// Time of queries that do not count; at least one is asked.
    pub warm_up: Duration,
    /// It lasts at least so long ...
    pub at_least: Duration,
    /// ... and until so many queries were answered.
    pub at_least_n: usize,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The machine at the beginning.
    pub before: Moment,
    /// The machine at the end.
    pub after: Moment,
    /// Queries in the order of their asking.
    pub samples: Vec<Sample>,
}

impl Bench {
    /// Opens both files and builds the student.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(bundle: &Path, gallery: &Path, n_threads: usize) -> Result<Self, StoreError> {
        let read_before = moment::bytes_from_disk();
        let mut store = Store::open(bundle, gallery, GalleryCheck::Checksums)?;
        let read = moment::bytes_from_disk().zip(read_before);
        let read = read.map_or(0, |(after, before)| after.saturating_sub(before));
        let length = |path| std::fs::metadata(path).map_or(0, |facts| facts.len());
        store.set_threads(n_threads).map_err(|source| {
            let path = bundle.to_owned();
            StoreError::Student { path, source }
        })?;
        let known = Known::of(&store.matcher()?, store.calibrations());
        Ok(Self {
            store,
            known,
            // Some pages may have stayed in memory.
            is_from_disk: read > 0 && read >= (length(bundle) + length(gallery)) / 2,
        })
    }

    /// The pair.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the files had to come from the disk.
    #[must_use]
    pub fn is_from_disk(&self) -> bool {
        self.is_from_disk
    }

    fn ask<T>(
        &self,
        work: impl FnOnce(&Matcher<'_>, &Answerer<'_, '_>) -> Result<T, LookError>,
    ) -> Result<T, BenchError> {
        let matcher = self.store.matcher()?;
        let answerer = Answerer::knowing(&matcher, self.store.calibrations(), &self.known);
        Ok(work(&matcher, &answerer)?)
    }

    /// Answers one image; `show` makes of the answer what is wanted, with the gallery.
    ///
    /// # Errors
    /// If the image or the student can not be used.
    pub fn answer<T>(
        &self,
        image: &[u8],
        top_k: usize,
        show: impl FnOnce(&Matcher<'_>, Looked) -> T,
    ) -> Result<T, BenchError> {
        self.ask(|matcher, answerer| {
            let looked = look(self.store.encoder(), answerer, image, &plain_request(top_k))?;
            Ok(show(matcher, looked))
        })
    }

    /// Asks images in turn, first without counting, then for one window. `edges` is told
    /// when the window begins and ends.
    ///
    /// # Errors
    /// If an image or the student can not be used, or an edge could not be told.
    ///
    /// # Panics
    /// If there are no images.
    pub fn measure(
        &self,
        images: &[&[u8]],
        plan: &Plan,
        edges: &Edges,
    ) -> Result<Measured, BenchError> {
        assert!(!images.is_empty(), "no image to ask");
        let request = plain_request(plan.top_k);
        let mut turn = images.iter().cycle();
        let mut next = |answerer: &Answerer<'_, '_>| {
            let image = turn.next().expect("a cycle of some has no end");
            look(self.store.encoder(), answerer, image, &request)
        };
        self.ask(|_, answerer| {
            let began = Instant::now();
            loop {
                next(answerer)?;
                if began.elapsed() >= plan.warm_up {
                    return Ok(());
                }
            }
        })?;
        edges.begin()?;
        let before = moment(Edge::Before);
        let samples = self.ask(|_, answerer| {
            let mut samples = Vec::new();
            let began = Instant::now();
            while samples.len() < MAX_SAMPLES
                && (samples.len() < plan.at_least_n || began.elapsed() < plan.at_least)
            {
                samples.push(next(answerer)?.sample);
            }
            Ok(samples)
        });
        let after = moment(Edge::After);
        edges.end()?;
        Ok(Measured {
            before,
            after,
            samples: samples?,
        })
    }

    /// Median times of the student's operators with one image.
    ///
    /// # Errors
    /// If the image or the student can not be used.
    pub fn profile(&self, image: &[u8], n_runs: usize) -> Result<Vec<OperatorTime>, BenchError> {
        let encoder = self.store.encoder();
        let samples = decode(image, &Limits::DEFAULT).map_err(LookError::from)?;
        let pixels = prepare(&samples, encoder.preprocess());
        let operators = encoder.network().profile(&pixels, n_runs);
        Ok(operators.map_err(LookError::from)?)
    }
}

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// An image or the student.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The gallery.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody could be told of a window's edge.
    #[error(transparent)]
    Edges(#[from] EdgesError),
}
