//! The board's end of the line: carries requests to the worker and answers back, and never
//! waits for either.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use eyas_shared::link::message::{self, Ask, CHUNK_BYTES, Code, Inbox, Reply, Request, Response};
use eyas_shared::link::{DEFAULT_TERMS, Endpoint, State};

use super::work::{Content, Done, Job, Outcome};
use crate::port::{Driver, PortError, SPEEDS};

/// Longest wait for bytes: how soon a signal or the watchdog is looked at.
const STEP: Duration = Duration::from_millis(200);

/// After a change of speed, or a silence at a raised speed, the line goes back to the speed
/// that it began with.
const SPEED_PATIENCE: Duration = Duration::from_secs(2);

/// How long the answer to a change of speed may take to arrive before the change is made.
const SPEED_GRACE: Duration = Duration::from_millis(500);

/// Answers that wait to be written to the stream before no more requests are taken.
const MAX_QUEUED: usize = 128;

/// A change of speed that was asked for.
#[derive(Clone, Copy)]
struct Change {
    baud: u32,
    no_later_than: Duration,
}

/// The line with what is on its way in both directions.
pub(super) struct Line {
    driver: Driver,
    endpoint: Endpoint,
    inbox: Inbox,
    session: u32,
    was_open: bool,
    /// Counts up when whoever asked has gone.
    n_sessions: Arc<AtomicU64>,
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
    woken: UnixStream,
    /// A job that the worker had no room for.
    held: Option<Job>,
    /// Answers of this session that the stream had no room for.
    queue: VecDeque<Response>,
    sending: Option<(u32, Content)>,
    base_baud: Option<u32>,
    change: Option<Change>,
    raised_at: Duration,
}

impl Line {
    pub(super) fn new(
        driver: Driver,
        jobs: SyncSender<Job>,
        done: Receiver<Done>,
        woken: UnixStream,
        n_sessions: Arc<AtomicU64>,
    ) -> Self {
        Self {
            n_sessions,
            base_baud: driver.port().baud(),
            driver,
            endpoint: Endpoint::board(DEFAULT_TERMS),
            inbox: Inbox::new(),
            session: 0,
            was_open: false,
            jobs,
            done,
            woken,
            held: None,
            queue: VecDeque::new(),
            sending: None,
            change: None,
            raised_at: Duration::ZERO,
        }
    }

    /// Puts another port in the place of one that was lost; its sessions are lost too.
    pub(super) fn replace_port(&mut self, driver: Driver) {
        self.driver = driver;
        self.endpoint = Endpoint::board(DEFAULT_TERMS);
        self.was_open = false;
        self.forget_session();
    }

    /// Drops what is on its way in both directions and what else was asked for, and tells the
    /// worker.
    fn forget_session(&mut self) {
        self.inbox = Inbox::new();
        self.change = None;
        self.queue.clear();
        self.sending = None;
        self.begin_anew();
    }

    /// Moves everything on by one step, which waits for at most [`STEP`]. False when the
    /// worker has ended.
    ///
    /// # Errors
    /// [`PortError::Lost`] when the port is gone.
    pub(super) fn step(&mut self) -> Result<bool, PortError> {
        // With something in hand for either side, waiting is for later.
        let is_waiting = self.held.is_none() && self.change.is_none() && self.sending.is_none();
        let at_most = if is_waiting { STEP } else { STEP / 20 };
        let woken = self.woken.as_fd();
        self.driver.step(&mut self.endpoint, Some(woken), at_most)?;
        let mut woken = [0; 64];
        while std::io::Read::read(&mut self.woken, &mut woken).is_ok_and(|n| n == woken.len()) {}
        let is_open = matches!(self.endpoint.state(self.driver.now()), State::Open);
        if let Some(session) = self.endpoint.take_started() {
            self.session = session;
            self.forget_session();
        } else if self.was_open && !is_open {
            // Nobody is there any more, neither to ask nor to read: answers that nobody takes
            // would keep the worker from hearing of it.
            self.forget_session();
        }
        self.was_open = is_open;
        self.mind_speed()?;
        Ok(self.take_requests() && self.take_answers() && self.write_answers())
    }

    /// Tells the worker that whoever it works for has gone, also in the midst of it.
    fn begin_anew(&mut self) {
        let number = 1 + self.n_sessions.fetch_add(1, Ordering::Relaxed);
        self.held = Some(Job::Session {
            id: self.session,
            number,
        });
    }

    /// Requests to the worker. What it has no room for stays in the stream, whose window
    /// then holds the host back.
    fn take_requests(&mut self) -> bool {
        // A host that asks and does not read waits; the board does not pile up answers.
        while self.queue.len() < MAX_QUEUED {
            if let Some(job) = self.held.take() {
                match self.jobs.try_send(job) {
                    Ok(()) => {}
                    Err(TrySendError::Full(job)) => {
                        self.held = Some(job);
                        return true;
                    }
                    Err(TrySendError::Disconnected(_)) => return false,
                }
            }
            // What a host that has gone had asked is still in the stream.
            if !self.was_open {
                return true;
            }
            match self.inbox.next::<Request>(&mut self.endpoint) {
                Ok(Some(request)) => self.take_request(request),
                Ok(None) => return true,
                Err(err) => {
                    // What follows can not be told apart any more: a new session is needed.
                    self.say(0, failed(Code::Request, err.to_string()));
                    self.inbox = Inbox::new();
                    return true;
                }
            }
        }
        true
    }

    fn take_request(&mut self, Request { op, ask }: Request) {
        match ask {
            Ask::Speed { baud } => self.prepare_speed(op, baud),
            // The last word: what was begun is dropped.
            Ask::Goodbye => {
                self.say(op, Reply::Done);
                self.begin_anew();
            }
            ask => self.held = Some(Job::Ask { op, ask }),
        }
    }

    fn say(&mut self, op: u32, reply: Reply) {
        self.queue.push_back(Response { op, reply });
    }

    fn take_answers(&mut self) -> bool {
        while self.sending.is_none() && self.queue.len() < MAX_QUEUED {
            let done = match self.done.try_recv() {
                Ok(done) => done,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            if done.session != self.session || !self.was_open {
                // Whoever asked has gone.
                continue;
            }
            match done.outcome {
                Outcome::Say(replies) => {
                    for mut reply in replies {
                        self.add_counters(&mut reply);
                        self.say(done.op, reply);
                    }
                }
                Outcome::Send(content) => self.sending = Some((done.op, content)),
            }
        }
        true
    }

    fn add_counters(&self, reply: &mut Reply) {
        if let Reply::Info(info) = reply {
            let received = self.endpoint.statistics().received;
            info.frames = received.frames;
            info.damaged = received.damaged();
        }
    }

    fn write_answers(&mut self) -> bool {
        while let Some(response) = self.queue.front() {
            let bytes = message::to_bytes(response);
            if self.endpoint.room() < bytes.len() {
                return true;
            }
            self.endpoint.write(&bytes);
            self.queue.pop_front();
        }
        while let Some((op, content)) = &mut self.sending {
            if self.endpoint.room() < CHUNK_BYTES + 64 {
                return true;
            }
            let op = *op;
            let reply = next_chunk(content);
            if !matches!(reply, Reply::Chunk { .. }) {
                self.sending = None;
            }
            self.endpoint
                .write(&message::to_bytes(&Response { op, reply }));
        }
        true
    }

    fn prepare_speed(&mut self, op: u32, baud: u32) {
        let reply = match self.base_baud {
            None => failed(Code::Request, "this board's link has no speed to change"),
            Some(_) if !SPEEDS.contains(&baud) => {
                failed(Code::Request, format!("{baud} baud is not offered"))
            }
            Some(_) => {
                let no_later_than = self.driver.now() + SPEED_GRACE;
                self.change = Some(Change {
                    baud,
                    no_later_than,
                });
                Reply::Done
            }
        };
        self.say(op, reply);
    }

    /// Changes the speed once the answer has arrived, and takes it back when nothing whole
    /// is heard at it.
    fn mind_speed(&mut self) -> Result<(), PortError> {
        let now = self.driver.now();
        if let Some(change) = self.change {
            let is_told = self.queue.is_empty() && self.endpoint.is_settled();
            if is_told || now >= change.no_later_than {
                self.change = None;
                self.raised_at = now;
                self.set_speed(change.baud)?;
            }
        }
        let heard = self.endpoint.heard_at().unwrap_or_default();
        let quiet = now.saturating_sub(heard.max(self.raised_at));
        let is_lost = !matches!(self.endpoint.state(now), State::Open);
        match self.base_baud {
            Some(base) if self.driver.port().baud() != Some(base) => {
                if quiet >= SPEED_PATIENCE || is_lost {
                    self.set_speed(base)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set_speed(&mut self, baud: u32) -> Result<(), PortError> {
        match self.driver.set_baud(baud) {
            // A line that can not take a speed stays as it is; the host notices.
            Err(PortError::Setup { .. }) => Ok(()),
            outcome => outcome,
        }
    }
}

fn failed(code: Code, reason: impl Into<String>) -> Reply {
    Reply::Failed {
        code,
        reason: reason.into(),
    }
}

fn next_chunk(content: &mut Content) -> Reply {
    let n = (content.end - content.offset).min(CHUNK_BYTES as u64);
    if n == 0 {
        return Reply::Done;
    }
    let mut data = vec![0; n as usize];
    let offset = content.offset;
    match content.file.read_exact_at(&mut data, offset) {
        Ok(()) => {
            content.offset += n;
            Reply::Chunk { offset, data }
        }
        Err(err) => failed(Code::Internal, format!("could not read the file: {err}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;
    use crate::port::Port;

    fn driver(end: &UnixStream) -> Driver {
        let clone = || end.try_clone().unwrap().into();
        Driver::new(Port::of_streams(clone(), clone()).unwrap())
    }

    /// Answers that nobody takes are no reason to keep what was begun for whoever asked.
    #[test]
    fn the_worker_hears_of_a_host_that_went_before_it_had_read_everything() {
        let (board_end, host_end) = UnixStream::pair().unwrap();
        let (wake, woken) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        let (jobs, told) = mpsc::sync_channel(4);
        let (tell, done) = mpsc::channel();
        let mut line = Line::new(driver(&board_end), jobs, done, woken, Arc::default());

        let mut host = driver(&host_end);
        let mut endpoint = Endpoint::host(7, DEFAULT_TERMS, SPEED_PATIENCE, host.now());
        let request = message::to_bytes(&Request {
            op: 1,
            ask: Ask::Info,
        });
        let mut is_asked = false;
        let op = loop {
            host.step(&mut endpoint, None, Duration::ZERO).unwrap();
            is_asked = is_asked || endpoint.write(&request) > 0;
            assert!(line.step().unwrap());
            if let Ok(Job::Ask { op, .. }) = told.try_recv() {
                break op;
            }
        };
        let data = vec![0; CHUNK_BYTES];
        let reply = Reply::Chunk { offset: 0, data };
        let outcome = Outcome::Say(vec![reply; 2 * MAX_QUEUED]);
        let session = 7;
        let answer = Done {
            session,
            op,
            outcome,
        };
        tell.send(answer).unwrap();

        // The host neither reads nor writes any more, and its end of the line stays in place.
        let began = Instant::now();
        loop {
            assert!(line.step().unwrap());
            match told.try_recv() {
                Ok(Job::Session { number, .. }) if number > 1 => break,
                _ => assert!(began.elapsed() < 6 * eyas_shared::link::SILENCE),
            }
        }
        assert!(line.queue.is_empty() && line.held.is_none());
        drop(wake);
    }
}
