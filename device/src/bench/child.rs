//! A candidate in a process of its own, as the board's service sees it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use eyas_shared::link::bench::{Moment, Operator, Prepared, Sample, Used};
use eyas_shared::link::message::Answer;
use rustix::fs::{Advice, fadvise};
use thiserror::Error;

use super::Edges;
use super::worker::{Order, SUBCOMMAND, Setup, Word, read, write};

/// How often somebody looks whether to go on waiting.
const STEP: Duration = Duration::from_millis(100);

/// How long a candidate may take to open, and to do anything else beside its own windows.
const PATIENCE: Duration = Duration::from_secs(120);

/// Most bytes that are kept of what a process says when it ends badly.
const MAX_SAID_BYTES: u64 = 64 << 10;

/// Why a candidate did not do what it should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChildError {
    /// There is no process for it.
    #[error("no process could be started to measure in")]
    NotStarted(#[source] std::io::Error),
    /// It says why not.
    #[error("{reason}")]
    Failed {
        /// Whether another image may well do.
        is_of_the_image: bool,
        /// Why.
        reason: String,
    },
    /// It ended.
    #[error("the process that measured ended: {how}")]
    Ended {
        /// Its status, and the last that it said.
        how: String,
    },
    /// It does not answer.
    #[error("the process that measured did not answer for {seconds} s")]
    Stuck {
        /// How long.
        seconds: u64,
    },
    /// Whoever asked has gone, or everything ends.
    #[error("nobody waits for the measurement any more")]
    Stopped,
}

/// Whoever waits for a candidate, and may have to do something meanwhile.
pub trait Lookout {
    /// Called a few times a second; false ends the waiting.
    fn is_to_go_on(&self) -> bool;
}

/// A candidate's process. Dropping it ends it.
pub struct Child {
    process: std::process::Child,
    words: Receiver<std::io::Result<Word>>,
    last_words: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended already has nothing left to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a candidate consists of, and what its process may use.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'p> {
    /// The student's bundle.
    pub bundle: &'p Path,
    /// The gallery.
    pub gallery: &'p Path,
    /// Threads that encode and search.
    pub n_threads: u16,
    /// Memory beside the mapped files, in bytes.
    pub memory_bytes: u64,
}

impl Child {
    /// Starts a process of this program and lets it open the pair, from a cold start as far
    /// as the system allows: it is asked to forget both files.
    ///
    /// # Errors
    /// If there is no process, or the pair can not be opened.
    pub fn start(
        pair: &Pair<'_>,
        edges: &Edges,
        lookout: &dyn Lookout,
    ) -> Result<(Self, Prepared), ChildError> {
        for path in [pair.bundle, pair.gallery] {
            forget_pages(path);
        }
        let began = Instant::now();
        let program = std::env::current_exe().map_err(ChildError::NotStarted)?;
        let mut process = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ChildError::NotStarted)?;
        let words = process.stdout.take().map(words_of);
        let last_words = process.stderr.take().map(last_of);
        let mut child = Self {
            process,
            words: words.expect("it was asked for"),
            last_words,
        };
        match child.wait(PATIENCE, lookout)? {
            Word::Started => {}
            other => return Err(unexpected(&other)),
        }
        let start_nanos = began.elapsed().as_nanos() as u64;
        child.send(&Setup {
            bundle: absolute(pair.bundle),
            gallery: absolute(pair.gallery),
            n_threads: pair.n_threads,
            memory_bytes: pair.memory_bytes,
            edge_file: edges.file.clone(),
            edge_command: edges.command.clone(),
        })?;
        match child.wait(PATIENCE, lookout)? {
            Word::Ready {
                open_nanos,
                load_nanos,
                is_from_disk,
            } => {
                let prepared = Prepared {
                    start_nanos,
                    open_nanos,
                    load_nanos,
                    is_from_disk,
                };
                Ok((child, prepared))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Answers one image; with its embedding.
    ///
    /// # Errors
    /// If the image or the student can not be used, or the process fails.
    pub fn answer(
        &mut self,
        image: &[u8],
        top_k: u16,
        lookout: &dyn Lookout,
    ) -> Result<(Answer, Vec<f32>), ChildError> {
        let image = image.to_vec();
        match self.order(&Order::Try { image, top_k }, PATIENCE, lookout)? {
            Word::Answered { answer, embedding } => Ok((*answer, embedding)),
            other => Err(unexpected(&other)),
        }
    }

    /// Measures one window.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn measure(
        &mut self,
        images: Vec<Vec<u8>>,
        window: &eyas_shared::link::bench::Window,
        lookout: &dyn Lookout,
    ) -> Result<(Moment, Moment, Vec<Sample>), ChildError> {
        let order = Order::Measure {
            images,
            top_k: window.top_k,
            warm_up_ms: window.warm_up_ms,
            at_least_ms: window.at_least_ms,
            at_least: window.at_least,
        };
        let time = u64::from(window.warm_up_ms) + u64::from(window.at_least_ms);
        // Slow students take longer than the window for their queries.
        let patience = Duration::from_millis(2 * time) + PATIENCE;
        match self.order(&order, patience, lookout)? {
            Word::Measured {
                before,
                after,
                samples,
            } => Ok((*before, *after, samples)),
            other => Err(unexpected(&other)),
        }
    }

    /// Times the student's operators.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn profile(
        &mut self,
        image: &[u8],
        n_runs: u16,
        lookout: &dyn Lookout,
    ) -> Result<Vec<Operator>, ChildError> {
        let image = image.to_vec();
        match self.order(&Order::Profile { image, n_runs }, 4 * PATIENCE, lookout)? {
            Word::Profiled(operators) => Ok(operators),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the process; what it has used.
    ///
    /// # Errors
    /// If it fails at that.
    pub fn conclude(mut self, lookout: &dyn Lookout) -> Result<Used, ChildError> {
        match self.order(&Order::Conclude, PATIENCE, lookout)? {
            Word::Used(used) => Ok(used),
            other => Err(unexpected(&other)),
        }
    }

    fn order(
        &mut self,
        order: &Order,
        patience: Duration,
        lookout: &dyn Lookout,
    ) -> Result<Word, ChildError> {
        self.send(order)?;
        self.wait(patience, lookout)
    }

    fn send<T: serde::Serialize>(&mut self, value: &T) -> Result<(), ChildError> {
        let input = self.process.stdin.as_mut();
        let sent = input.map(|mut input| write(&mut input, value));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.ended()),
        }
    }

    fn wait(&mut self, patience: Duration, lookout: &dyn Lookout) -> Result<Word, ChildError> {
        let began = Instant::now();
        loop {
            match self.words.recv_timeout(STEP) {
                Ok(Ok(Word::Failed {
                    is_of_the_image,
                    reason,
                })) => {
                    return Err(ChildError::Failed {
                        is_of_the_image,
                        reason,
                    });
                }
                Ok(Ok(word)) => return Ok(word),
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !lookout.is_to_go_on() {
                return Err(ChildError::Stopped);
            }
            if began.elapsed() > patience {
                let seconds = patience.as_secs();
                return Err(ChildError::Stuck { seconds });
            }
        }
    }

    fn ended(&mut self) -> ChildError {
        // It may hang without its pipes.
        let _ = self.process.kill();
        let status = self.process.wait();
        let said = self.last_words.take().and_then(|thread| thread.join().ok());
        let said = said.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        let status = status.map_or_else(|err| err.to_string(), |status| status.to_string());
        let how = match last {
            Some(line) => format!("{status}: {line}"),
            None => status,
        };
        ChildError::Ended { how }
    }
}

fn unexpected(word: &Word) -> ChildError {
    let name = match word {
        Word::Started => "that it started",
        Word::Ready { .. } => "that it is ready",
        Word::Answered { .. } => "an answer",
        Word::Measured { .. } => "a window",
        Word::Profiled(_) => "a profile",
        Word::Used(_) => "what it used",
        Word::Failed { .. } => "that it failed",
    };
    let how = format!("it said {name} when something else was asked");
    ChildError::Ended { how }
}

/// The process may run in another folder than this one some day.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Asks the system to read the file anew; a map that somebody has of it keeps its pages.
fn forget_pages(path: &Path) {
    if let Ok(file) = File::open(path) {
        // A file system that keeps everything in memory can not forget it.
        let _ = file.sync_data();
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

fn words_of(mut pipe: impl Read + Send + 'static) -> Receiver<std::io::Result<Word>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        while let Some(word) = read(&mut pipe).transpose() {
            let is_last = word.is_err();
            if tell.send(word).is_err() || is_last {
                return;
            }
        }
    });
    told
}

fn last_of(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What can not be read is missing in the reason, no more.
        let _ = pipe.by_ref().take(MAX_SAID_BYTES).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        bytes
    })
}
