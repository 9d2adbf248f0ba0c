//! The trial of a pair before it goes live: load both files, compute the bundle's probes,
//! search once.
//!
//! It runs in a child process with limits, because a network can be whole, signed and of
//! allowed operators and still take more memory or time than this board has, or end the
//! process that runs it. The child is this program again; what serves goes on meanwhile.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use eyas_shared::bundle::probe_image;
use eyas_shared::preprocess::prepare;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Role;
use crate::hints::{chain_of, human_bytes};
use crate::store::{GalleryCheck, MappedFile, Store, StoreError};

/// The hidden subcommand of the child.
pub const SUBCOMMAND: &str = "try-pair";

/// Smallest cosine that a bundle may allow its probes: int8 on another machine stays far
/// above, and a bundle that allows less wants its probes not to count.
pub const MIN_TOLERANCE: f32 = 0.9;

/// Most bytes that are read of what a child says.
const MAX_SAID_BYTES: u64 = 64 << 10;

/// Address space beside the student's memory and the mapped files: the program itself, its
/// stacks and libraries.
const PROGRAM_BYTES: u64 = 256 << 20;

/// How often somebody who waits for a child looks up.
const LOOK: Duration = Duration::from_millis(200);

/// How long a child that has said all may take to end.
const END: Duration = Duration::from_secs(2);

/// What a trial may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory beside the mapped files, in bytes.
    pub memory_bytes: u64,
    /// Computing time, and time by the clock, in seconds.
    pub seconds: u64,
}

impl Limits {
    /// Enough for the largest student that a board of 1 GiB should run.
    pub const DEFAULT: Self = Self {
        memory_bytes: 512 << 20,
        seconds: 120,
    };
}

/// What a pair showed in its trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialReport {
    /// Rows of the gallery.
    pub n_rows: u32,
    /// Probes that were computed.
    pub n_probes: usize,
    /// Smallest cosine of a probe with what the bundle promises.
    pub min_cosine: f32,
    /// Most memory that the process had, in bytes, with the files it mapped; 0 if the system
    /// does not say.
    pub peak_bytes: u64,
}

/// Why a pair did not pass.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrialFault {
    /// It can not be loaded, or does not compute what it promises.
    #[error("{reason}")]
    Refused {
        /// Which file is at fault by itself.
        blames: Option<Role>,
        /// Why.
        reason: String,
    },
    /// More memory than a trial may use.
    #[error("it needs more than the {} MiB of memory that a trial may use", limit >> 20)]
    OutOfMemory {
        /// The limit, in bytes.
        limit: u64,
    },
    /// More time than a trial may use.
    #[error("it was not done after the {seconds} s that a trial may take")]
    OutOfTime {
        /// The limit.
        seconds: u64,
    },
    /// The process ended otherwise.
    #[error("the process that tried it ended with {how}")]
    Died {
        /// Exit status, and the last that it said.
        how: String,
    },
    /// Whoever waited for it had to end.
    #[error("it was not tried to the end: the program was told to end")]
    Stopped,
    /// There is no process to try it in.
    #[error("no process could be started to try it: {source}")]
    NotStarted {
        /// Why.
        source: std::io::Error,
    },
}

impl TrialFault {
    /// The file that would fail beside any partner.
    #[must_use]
    pub fn blames(&self) -> Option<Role> {
        match self {
            Self::Refused { blames, .. } => *blames,
            _ => None,
        }
    }

    /// Whether the pair is at fault, so that another trial would end alike.
    pub(super) fn is_of_the_pair(&self) -> bool {
        !matches!(self, Self::Stopped | Self::NotStarted { .. })
    }

    fn refused(blames: Option<Role>, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Refused { blames, reason }
    }
}

/// Somebody who tries a pair.
pub trait Trial {
    /// Tries it.
    ///
    /// # Errors
    /// [`TrialFault`] says why it did not pass.
    fn run(&self, bundle: &Path, gallery: &Path) -> Result<TrialReport, TrialFault>;
}

/// Tries a pair in this process, without limits: for the child itself.
pub struct InThisProcess;

impl Trial for InThisProcess {
    fn run(&self, bundle: &Path, gallery: &Path) -> Result<TrialReport, TrialFault> {
        let store = Store::open(bundle, gallery, GalleryCheck::Whole)
            .map_err(|err| TrialFault::refused(blamed_by(&err), chain_of(&err)))?;
        let of_bundle = |reason: String| TrialFault::refused(Some(Role::Bundle), reason);
        let encoder = store.encoder();
        let file = MappedFile::open(bundle).map_err(|err| of_bundle(chain_of(&err)))?;
        let read = file.bundle().map_err(|err| of_bundle(chain_of(&err)))?;
        let outcome = { encoder.selftest(&read) }.map_err(|err| {
            of_bundle(format!(
                "its probes can not be computed: {}",
                chain_of(&err)
            ))
        })?;
        let (cosine, tolerance) = (outcome.min_cosine(), outcome.tolerance);
        if !outcome.same_pixels {
            return Err(of_bundle(
                "this machine makes other pixels of its probes".into(),
            ));
        }
        if !outcome.passed() {
            return Err(of_bundle(format!(
                "its probes come out otherwise than promised: smallest cosine {cosine:.6}, \
                 allowed {tolerance:.6}"
            )));
        }
        // Not a number is no tolerance either.
        if tolerance.is_nan() || tolerance < MIN_TOLERANCE {
            return Err(of_bundle(format!(
                "it allows its probes a cosine of {tolerance}; at least {MIN_TOLERANCE} is asked"
            )));
        }
        let n_rows = search_once(&store)?;
        Ok(TrialReport {
            n_rows,
            n_probes: outcome.cosines.len(),
            min_cosine: cosine,
            peak_bytes: peak_bytes(),
        })
    }
}

fn search_once(store: &Store) -> Result<u32, TrialFault> {
    let fault = |reason: String| TrialFault::refused(None, reason);
    let encoder = store.encoder();
    let pixels = prepare(&probe_image(0), encoder.preprocess());
    let embedding = encoder
        .encode(&pixels)
        .map_err(|err| fault(chain_of(&err)))?;
    let matcher = store.matcher().map_err(|err| fault(chain_of(&err)))?;
    let found = matcher.search(&embedding, 1, None);
    match found.first() {
        Some(best) if best.score.is_finite() => Ok(matcher.gallery().n_rows()),
        _ => Err(fault("a search finds nothing".to_owned())),
    }
}

fn blamed_by(err: &StoreError) -> Option<Role> {
    match err {
        StoreError::Bundle { .. } | StoreError::Student { .. } => Some(Role::Bundle),
        StoreError::Gallery { .. } => Some(Role::Gallery),
        _ => None,
    }
}

/// What a child says on its standard output.
#[derive(Serialize, Deserialize)]
enum Said {
    Passed(TrialReport),
    Refused {
        blames: Option<bool>,
        reason: String,
    },
}

/// Refuses a bundle that by its own account needs more memory than there is, before its
/// network is read.
fn check_declared(bundle: &Path, limits: Limits) -> Result<(), TrialFault> {
    let of_bundle = |err: StoreError| TrialFault::refused(Some(Role::Bundle), chain_of(&err));
    let file = MappedFile::open(bundle).map_err(of_bundle)?;
    let declared = file.bundle().map_err(of_bundle)?.memory_bytes;
    let limit = limits.memory_bytes;
    match declared {
        Some(bytes) if bytes > limit => {
            let [bytes, limit] = [bytes, limit].map(human_bytes);
            let reason = format!(
                "it declares that it needs {bytes} of memory, and this store gives a student {limit}"
            );
            Err(TrialFault::refused(Some(Role::Bundle), reason))
        }
        _ => Ok(()),
    }
}

/// The child's side: takes on the limits, tries the pair; the text is for standard output.
#[must_use]
pub fn in_child(bundle: &Path, gallery: &Path, limits: Limits) -> String {
    let outcome = match take_limits(bundle, gallery, limits) {
        Ok(()) => check_declared(bundle, limits).and_then(|()| InThisProcess.run(bundle, gallery)),
        Err(source) => Err(TrialFault::NotStarted { source }),
    };
    let said = match outcome {
        Ok(report) => Said::Passed(report),
        Err(fault) => Said::Refused {
            blames: fault.blames().map(|role| role == Role::Bundle),
            reason: chain_of(&fault),
        },
    };
    serde_json::to_string(&said).expect("numbers and text can be written")
}

/// From here on this process can not take more, nor write a file, nor leave its memory behind.
fn take_limits(bundle: &Path, gallery: &Path, limits: Limits) -> std::io::Result<()> {
    limit_memory(bundle, gallery, limits.memory_bytes)?;
    limit(Resource::Cpu, limits.seconds)?;
    limit(Resource::Fsize, 0)?;
    // What serves comes first.
    let _ = rustix::process::nice(10);
    Ok(())
}

/// From here on this process can not take more memory, nor leave it behind.
///
/// # Errors
/// If the files are not there, or the system sets no limits.
pub fn limit_memory(bundle: &Path, gallery: &Path, memory_bytes: u64) -> std::io::Result<()> {
    let length = |path: &Path| std::fs::metadata(path).map(|facts| facts.len());
    // Each file is mapped, the bundle twice.
    let mapped = 2 * length(bundle)? + length(gallery)?;
    limit(Resource::Data, memory_bytes)?;
    limit(Resource::As, memory_bytes + PROGRAM_BYTES + mapped)?;
    limit(Resource::Core, 0)
}

fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let (current, maximum) = (Some(most), Some(most));
    Ok(setrlimit(resource, Rlimit { current, maximum })?)
}

/// Tries a pair in a child process with limits.
pub struct InChild {
    program: PathBuf,
    limits: Limits,
    may_go_on: Box<dyn Fn() -> bool>,
}

impl InChild {
    /// Children are `program try-pair ...`: `eyas-device` itself.
    #[must_use]
    pub fn new(program: PathBuf, limits: Limits) -> Self {
        Self {
            program,
            limits,
            may_go_on: Box::new(|| true),
        }
    }

    /// Asks `may_go_on` a few times a second; false ends the trial.
    #[must_use]
    pub fn watched_by(mut self, may_go_on: impl Fn() -> bool + 'static) -> Self {
        self.may_go_on = Box::new(may_go_on);
        self
    }

    /// Children are the program that runs now.
    ///
    /// # Errors
    /// If the system does not say where it lies.
    pub fn of_this_program(limits: Limits) -> std::io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?, limits))
    }

    fn fault(&self, status: ExitStatus, err: &str) -> TrialFault {
        use std::os::unix::process::ExitStatusExt;
        const SIGXCPU: i32 = 24;
        if err.contains("memory allocation of") {
            let limit = self.limits.memory_bytes;
            return TrialFault::OutOfMemory { limit };
        }
        if status.signal() == Some(SIGXCPU) {
            let seconds = self.limits.seconds;
            return TrialFault::OutOfTime { seconds };
        }
        let last = err.lines().rfind(|line| !line.trim().is_empty());
        let how = match last {
            Some(line) => format!("{status}: {line}"),
            None => status.to_string(),
        };
        TrialFault::Died { how }
    }
}

impl Trial for InChild {
    fn run(&self, bundle: &Path, gallery: &Path) -> Result<TrialReport, TrialFault> {
        let not_started = |source| TrialFault::NotStarted { source };
        let deadline = Instant::now() + Duration::from_secs(self.limits.seconds);
        let mut child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .args([bundle, gallery])
            .arg(self.limits.memory_bytes.to_string())
            .arg(self.limits.seconds.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(not_started)?;
        let (tell, told) = mpsc::channel();
        let out = child
            .stdout
            .take()
            .map(|pipe| read_on_a_thread(pipe, tell.clone()));
        let err = child.stderr.take().map(|pipe| read_on_a_thread(pipe, tell));
        // Both threads hang up when both pipes are closed.
        let left = || deadline.saturating_duration_since(Instant::now());
        let is_open = || {
            let waited = told.recv_timeout(left().min(LOOK));
            waited == Err(mpsc::RecvTimeoutError::Timeout)
        };
        let mut may_go_on = true;
        while is_open() && !left().is_zero() && may_go_on {
            may_go_on = (self.may_go_on)();
        }
        let status = match !left().is_zero() && may_go_on {
            true => wait_until(&mut child, Instant::now() + END.min(left() + END)),
            false => None,
        };
        let Some(status) = status else {
            // It may have ended in between; then there is nothing to kill.
            let _ = child.kill();
            child.wait().map_err(not_started)?;
            let seconds = self.limits.seconds;
            return Err(match may_go_on {
                true => TrialFault::OutOfTime { seconds },
                false => TrialFault::Stopped,
            });
        };
        let text = |thread: Option<std::thread::JoinHandle<Vec<u8>>>| {
            let bytes = thread
                .and_then(|thread| thread.join().ok())
                .unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (out, err) = (text(out), text(err));
        match serde_json::from_str(&out) {
            Ok(Said::Passed(report)) if status.success() => Ok(report),
            Ok(Said::Refused { blames, reason }) if status.success() => {
                let role = |is_bundle| {
                    if is_bundle {
                        Role::Bundle
                    } else {
                        Role::Gallery
                    }
                };
                Err(TrialFault::refused(blames.map(role), reason))
            }
            _ => Err(self.fault(status, &err)),
        }
    }
}

/// Reads a pipe to its end, of which the first part is kept; hangs up on `tell` then.
fn read_on_a_thread(
    mut pipe: impl Read + Send + 'static,
    tell: mpsc::Sender<()>,
) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let _hangs_up = tell;
        let mut bytes = Vec::new();
        // What can not be read is missing in the answer, which is then told as no answer.
        let _ = pipe.by_ref().take(MAX_SAID_BYTES).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        bytes
    })
}

fn wait_until(child: &mut std::process::Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Most memory that this process had, as Linux counts it.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    kibibytes
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map_or(0, |kibibytes| kibibytes * 1024)
}
