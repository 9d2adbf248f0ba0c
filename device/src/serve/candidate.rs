//! Measures a student and a gallery beside what serves, for a host that wants to know.
//!
//! The candidate runs in a process of its own. What serves goes on serving: nothing that is
//! measured is activated, and a candidate is trusted as little as a file that is to be
//! installed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::bench::{
    COMPONENTS_PER_MESSAGE, Candidate, MAX_THREADS, MAX_WINDOW_IMAGES, MAX_WINDOW_MS,
    OPERATORS_PER_MESSAGE, SAMPLES_PER_MESSAGE, Window,
};
use eyas_shared::link::message::{Code, MAX_MATCHES, Reply};

use super::images::Images;
use super::receive::{Refusal, Refused, failed, refusal};
use super::served::Served;
use crate::bench::{Child, ChildError, Edges, Lookout, Pair};
use crate::hints::chain_of;
use crate::slots::trial::Limits;
use crate::slots::{Role, Slots};

/// Most runs of a profile.
const MAX_RUNS: u16 = 1000;

/// What the service has to know while its worker waits for a candidate.
#[derive(Clone, Default)]
pub(super) struct Watch {
    /// Counts up while the worker is not stuck.
    pub(super) beats: Arc<AtomicU64>,
    /// Set when everything should end.
    pub(super) stop: Arc<AtomicBool>,
    /// Counts up when whoever asked has gone.
    pub(super) n_sessions: Arc<AtomicU64>,
    /// Whoever asked for what the worker does now, in that count.
    pub(super) session: u64,
}

impl Watch {
    /// Says that the worker is alive; false once everything should end.
    pub(super) fn is_running(&self) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}

/// A piece of work ends with the session that asked for it, also if that has gone before the
/// work begins.
impl Lookout for Watch {
    fn is_to_go_on(&self) -> bool {
        let is_wanted = self.n_sessions.load(Ordering::Relaxed) == self.session;
        self.is_running() && is_wanted
    }
}

/// The candidate that is measured, if any.
#[derive(Default)]
pub(super) struct Candidates {
    child: Option<Child>,
    edges: Edges,
    watch: Watch,
}

impl Candidates {
    pub(super) fn new(edges: Edges, watch: Watch) -> Self {
        Self {
            child: None,
            edges,
            watch,
        }
    }

    /// Another host asks from now on.
    pub(super) fn begin_session(&mut self, number: u64) {
        self.watch.session = number;
        self.drop_child();
    }

    /// What to tell of a wait, whoever waits.
    pub(super) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Whoever measured has gone.
    pub(super) fn drop_child(&mut self) {
        self.child = None;
    }

    /// Starts a candidate of files that serve or that were sent.
    pub(super) fn prepare(
        &mut self,
        candidate: &Candidate,
        slots: Option<&Slots>,
        served: Option<&Served>,
    ) -> Refused<Reply> {
        self.child = None;
        self.check_wanted()?;
        let threads = candidate.threads;
        if !(1..=MAX_THREADS).contains(&threads) {
            let reason = format!("{threads} threads are asked for; 1 to {MAX_THREADS} are given");
            return Err(failed(Code::Request, reason));
        }
        let find = |role, hash| find(role, Fingerprint(hash), slots, served);
        let bundle = find(Role::Bundle, candidate.bundle)?;
        let gallery = find(Role::Gallery, candidate.gallery)?;
        let limits = match slots.map(Slots::settings) {
            Some(Ok(settings)) => settings.trial,
            _ => Limits::DEFAULT,
        };
        let pair = Pair {
            bundle: &bundle,
            gallery: &gallery,
            n_threads: threads,
            memory_bytes: limits.memory_bytes,
        };
        let (child, prepared) =
            Child::start(&pair, &self.edges, &self.watch).map_err(|err| fault(&err))?;
        self.child = Some(child);
        Ok(Reply::Prepared(prepared))
    }

    pub(super) fn answer(&mut self, image: &[u8], top_k: u16) -> Refused<Vec<Reply>> {
        if !(1..=MAX_MATCHES).contains(&top_k) {
            let reason = format!("{top_k} matches are asked for; 1 to {MAX_MATCHES} are given");
            return Err(failed(Code::Request, reason));
        }
        let (answer, embedding) =
            self.with_child(|child, watch| child.answer(image, top_k, watch))?;
        let components = embedding.chunks(COMPONENTS_PER_MESSAGE);
        let components = components.map(|components| Reply::Embedding {
            components: components.to_vec(),
        });
        Ok([Reply::Answer(answer)]
            .into_iter()
            .chain(components)
            .chain([Reply::Done])
            .collect())
    }

    pub(super) fn measure(&mut self, window: &Window, images: &Images) -> Refused<Vec<Reply>> {
        check(window)?;
        let bytes: Option<Vec<Vec<u8>>> = { window.images.iter() }
            .map(|hash| images.get(Fingerprint(*hash)).map(<[u8]>::to_vec))
            .collect();
        let bytes = bytes.ok_or_else(|| {
            let reason = "an image of the window was not sent, or has made room for others";
            failed(Code::Absent, reason)
        })?;
        let (before, after, samples) =
            self.with_child(|child, watch| child.measure(bytes, window, watch))?;
        let samples = samples.chunks(SAMPLES_PER_MESSAGE);
        let samples = samples.map(|samples| Reply::Samples {
            samples: samples.to_vec(),
        });
        Ok([Reply::Moment(before), Reply::Moment(after)]
            .into_iter()
            .chain(samples)
            .chain([Reply::Done])
            .collect())
    }

    pub(super) fn profile(&mut self, image: &[u8], runs: u16) -> Refused<Vec<Reply>> {
        if !(1..=MAX_RUNS).contains(&runs) {
            let reason = format!("{runs} runs are asked for; 1 to {MAX_RUNS} are made");
            return Err(failed(Code::Request, reason));
        }
        let operators = self.with_child(|child, watch| child.profile(image, runs, watch))?;
        let operators = operators.chunks(OPERATORS_PER_MESSAGE);
        let operators = operators.map(|operators| Reply::Operators {
            operators: operators.to_vec(),
        });
        Ok(operators.chain([Reply::Done]).collect())
    }

    pub(super) fn conclude(&mut self) -> Refused<Reply> {
        let child = self.child.take().ok_or_else(nothing_prepared)?;
        let used = child.conclude(&self.watch).map_err(|err| fault(&err))?;
        Ok(Reply::Used(used))
    }

    /// What is asked after it has lost its asker is not begun.
    fn check_wanted(&self) -> Refused<()> {
        if self.watch.is_to_go_on() {
            Ok(())
        } else {
            Err(fault(&ChildError::Stopped))
        }
    }

    /// One that failed for another reason than its image is over.
    fn with_child<T>(
        &mut self,
        work: impl FnOnce(&mut Child, &dyn Lookout) -> Result<T, ChildError>,
    ) -> Refused<T> {
        self.check_wanted()?;
        let child = self.child.as_mut().ok_or_else(nothing_prepared)?;
        work(child, &self.watch).map_err(|err| {
            if !matches!(err, ChildError::Failed { .. }) {
                self.child = None;
            }
            fault(&err)
        })
    }
}

fn check(window: &Window) -> Refused<()> {
    let n_images = window.images.len();
    let reason = if !(1..=MAX_WINDOW_IMAGES).contains(&n_images) {
        format!("{n_images} images are to be asked; 1 to {MAX_WINDOW_IMAGES} are")
    } else if !(1..=MAX_MATCHES).contains(&window.top_k) {
        let top_k = window.top_k;
        format!("{top_k} matches are asked for; 1 to {MAX_MATCHES} are given")
    } else if window.warm_up_ms.max(window.at_least_ms) > MAX_WINDOW_MS {
        format!("a window and its warm-up last at most {MAX_WINDOW_MS} ms")
    } else {
        return Ok(());
    };
    Err(failed(Code::Request, reason))
}

fn nothing_prepared() -> Refusal {
    let reason = "no student and gallery were prepared, or they have failed since";
    failed(Code::NotServing, reason)
}

fn fault(err: &ChildError) -> Refusal {
    let code = match err {
        ChildError::Failed {
            is_of_the_image: true,
            ..
        } => Code::Image,
        ChildError::Failed { .. } => Code::Refused,
        _ => Code::Internal,
    };
    failed(code, chain_of(err))
}

/// A file that serves, or one in the store whose hash and signature hold.
fn find(
    role: Role,
    hash: Fingerprint,
    slots: Option<&Slots>,
    served: Option<&Served>,
) -> Refused<PathBuf> {
    if let Some(slots) = slots {
        return slots.admit(role, hash).map_err(|err| refusal(&err));
    }
    let known = served.into_iter();
    let mut known = known.flat_map(|served| [&served.bundle, &served.gallery]);
    let found = known.find(|(file, _)| file.fingerprint() == hash);
    let found = found.map(|(_, path)| path.clone());
    found.ok_or_else(|| {
        let reason = format!("this board has no store, and the {role} that it serves is another");
        failed(Code::Absent, reason)
    })
}
