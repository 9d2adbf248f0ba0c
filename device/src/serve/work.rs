//! The thread that works: one request after the other, and a panic in one of them costs that
//! one only.

use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use eyas_shared::link::message::{Ask, Code, Reply};

/// How often the worker says that it is alive while it has nothing to do.
const BEAT: Duration = Duration::from_millis(250);

/// So many panics within [`PANIC_TIME`] are no accident: the supervisor starts afresh.
const MAX_PANICS: usize = 3;
const PANIC_TIME: Duration = Duration::from_secs(60);

/// Bytes of a file that are to be sent.
#[derive(Debug)]
pub(super) struct Content {
    /// Where they are read.
    pub(super) file: std::fs::File,
    /// The first one.
    pub(super) offset: u64,
    /// Length of the file.
    pub(super) end: u64,
}

/// What a request came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Said to the host, in order; may be nothing.
    Say(Vec<Reply>),
    /// Sent to the host, piece by piece.
    Send(Content),
}

impl Outcome {
    pub(super) fn reply(reply: Reply) -> Self {
        Self::Say(vec![reply])
    }

    pub(super) fn failed(code: Code, reason: impl Into<String>) -> Self {
        Self::reply(Reply::Failed {
            code,
            reason: reason.into(),
        })
    }
}

/// Whoever answers requests.
pub(super) trait Answers {
    /// Does what is asked.
    fn answer(&mut self, ask: Ask) -> Outcome;

    /// Another host, or the same one anew: what was begun for the one before is dropped.
    /// `number` counts such changes, whether they have come to the worker or not.
    fn begin_session(&mut self, number: u64);

    /// Something panicked on the way to an answer: whatever may be half-done is made anew.
    ///
    /// # Errors
    /// If it can not be.
    fn recover(&mut self) -> anyhow::Result<()>;
}

/// What the worker is given to do.
#[derive(Debug)]
pub(super) enum Job {
    /// A session began, or nobody is there any more.
    Session {
        /// Whose requests follow.
        id: u32,
        /// Counts the changes.
        number: u64,
    },
    /// A request of the session.
    Ask {
        /// Its number.
        op: u32,
        /// What is asked.
        ask: Ask,
    },
}

/// What the worker hands back.
#[derive(Debug)]
pub(super) struct Done {
    /// The session that asked.
    pub(super) session: u32,
    /// The request.
    pub(super) op: u32,
    /// What it came to.
    pub(super) outcome: Outcome,
}

/// What the worker and the line have in common.
pub(super) struct Bench {
    /// Requests to answer.
    pub(super) jobs: Receiver<Job>,
    /// Answers.
    pub(super) done: Sender<Done>,
    /// Wakes the line after an answer.
    pub(super) wake: UnixStream,
    /// Counts up while the worker is not stuck.
    pub(super) beats: Arc<AtomicU64>,
    /// Set when everything should end.
    pub(super) stop: Arc<AtomicBool>,
}

/// Answers requests until there are no more, or the program is told to end.
///
/// # Errors
/// If too much panics, or what panicked can not be made anew.
pub(super) fn work(answers: &mut impl Answers, bench: &Bench) -> anyhow::Result<()> {
    let mut session = 0;
    let mut panics: Vec<Instant> = Vec::new();
    while !bench.stop.load(Ordering::Relaxed) {
        bench.beats.fetch_add(1, Ordering::Relaxed);
        let (op, ask) = match bench.jobs.recv_timeout(BEAT) {
            Ok(Job::Ask { op, ask }) => (op, ask),
            Ok(Job::Session { id, number }) => {
                session = id;
                answers.begin_session(number);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // What a panic leaves half-done is made anew before it is used again.
        let answered = catch_unwind(AssertUnwindSafe(|| answers.answer(ask)));
        let outcome = match answered {
            Ok(outcome) => outcome,
            Err(_) => {
                panics.retain(|at| at.elapsed() < PANIC_TIME);
                panics.push(Instant::now());
                if panics.len() >= MAX_PANICS {
                    anyhow::bail!(
                        "{MAX_PANICS} requests failed within a minute for no known reason"
                    );
                }
                answers.recover()?;
                Outcome::failed(Code::Internal, "the board's program failed at this request")
            }
        };
        let done = Done {
            session,
            op,
            outcome,
        };
        if bench.done.send(done).is_err() {
            return Ok(());
        }
        // A line that is awake already does not need this.
        let _ = std::io::Write::write(&mut &bench.wake, &[1]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Fails at what it is told to fail at.
    struct Fragile {
        n_recovered: usize,
    }

    impl Answers for Fragile {
        fn answer(&mut self, ask: Ask) -> Outcome {
            assert!(ask != Ask::Info, "as the test wants it");
            Outcome::reply(Reply::Done)
        }

        fn begin_session(&mut self, _: u64) {}

        fn recover(&mut self) -> anyhow::Result<()> {
            self.n_recovered += 1;
            Ok(())
        }
    }

    fn outcomes(asks: &[Ask]) -> (Vec<Done>, usize, bool) {
        let (give, jobs) = mpsc::channel();
        let (done, take) = mpsc::channel();
        give.send(Job::Session { id: 7, number: 1 }).unwrap();
        for (op, ask) in (1..).zip(asks) {
            let ask = ask.clone();
            give.send(Job::Ask { op, ask }).unwrap();
        }
        drop(give);
        let bench = Bench {
            jobs,
            done,
            wake: UnixStream::pair().unwrap().0,
            beats: Arc::default(),
            stop: Arc::default(),
        };
        let mut answers = Fragile { n_recovered: 0 };
        let ended = work(&mut answers, &bench);
        drop(bench);
        (take.iter().collect(), answers.n_recovered, ended.is_ok())
    }

    #[test]
    fn a_panic_costs_one_request() {
        let (done, n_recovered, is_fine) = outcomes(&[Ask::Results, Ask::Info, Ask::Goodbye]);
        assert_eq!(n_recovered, 1);
        assert!(is_fine);
        let replies: Vec<_> = done
            .iter()
            .map(|done| match &done.outcome {
                Outcome::Say(replies) => (done.session, done.op, replies[0] == Reply::Done),
                Outcome::Send(_) => unreachable!("nothing is sent here"),
            })
            .collect();
        assert_eq!(replies, [(7, 1, true), (7, 2, false), (7, 3, true)]);
    }

    #[test]
    fn panic_after_panic_ends_the_program_for_its_supervisor() {
        let (done, _, is_fine) = outcomes(&[Ask::Info, Ask::Info, Ask::Info, Ask::Goodbye]);
        assert_eq!(done.len(), 2);
        assert!(!is_fine);
    }
}
