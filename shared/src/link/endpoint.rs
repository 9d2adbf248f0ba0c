//! One end of a line: opens sessions, carries a stream of bytes both ways, notices loss.
//!
//! Sans-io: bytes that arrived go in with [`Endpoint::receive`], frames to send come out of
//! [`Endpoint::transmit`], and time is a number that the caller passes. What was not asked
//! for is never produced, so a slow line holds back the sender and nothing piles up.
//!
//! A session begins with the host's OPEN, repeated until the board's OPENED arrives, and
//! ends when either stops hearing the other. Frames of other sessions, earlier ones too, have no effect.

use std::collections::VecDeque;
use std::time::Duration;

use thiserror::Error;

use super::frame::{Counters, DELIMITER, Deframer, Frame, MAX_PAYLOAD};
use super::incoming::Incoming;
use super::outgoing::{Outgoing, Sent};
use super::packet::{Packet, Refusal, Terms, VERSIONS, Versions};

/// Between two tries to open a session; doubles up to [`MAX_OPEN_PAUSE`].
const OPEN_PAUSE: Duration = Duration::from_millis(100);
const MAX_OPEN_PAUSE: Duration = Duration::from_millis(800);

/// The host asks for a sign of life after so long a silence.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A session is lost after so long without a frame of the other end.
pub const SILENCE: Duration = Duration::from_secs(10);

/// After so long without sending, a delimiter goes ahead of the next frame, so that noise
/// in between does not become part of it.
const IDLE: Duration = Duration::from_millis(20);

/// Between two refusals, so that noise and stale frames are not answered one by one.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// Earlier sessions whose repeated OPEN is ignored.
const REMEMBERED: usize = 16;

/// Smallest window that is accepted of the other end: one frame of the largest size.
const MIN_WINDOW: u32 = MAX_PAYLOAD as u32;

/// What an end offers when a session opens.
pub const DEFAULT_TERMS: Terms = Terms {
    max_payload: 2048,
    window: 32 << 10,
};

/// Why a session ended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// The other end never answered.
    #[error(
        "no answer in {} s; {noise_bytes} bytes came that are no frame, {damaged} frames were \
         damaged", waited.as_secs()
    )]
    NoAnswer {
        /// How long it was asked.
        waited: Duration,
        /// Bytes outside of whole frames.
        noise_bytes: u64,
        /// Runs of bytes that were no whole frame.
        damaged: u64,
    },
    /// The other end fell silent.
    #[error("the link fell silent: no whole frame for {} s", SILENCE.as_secs())]
    Silent,
    /// The other end does not know this session any more.
    #[error("the other end was restarted, or talks to someone else now")]
    Restarted,
    /// No common version.
    #[error(
        "the other end speaks protocol versions {} to {}, this program {} to {}",
        theirs.oldest, theirs.newest, VERSIONS.oldest, VERSIONS.newest
    )]
    Version {
        /// What the other end speaks.
        theirs: Versions,
    },
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none: a board waits for a host.
    Idle,
    /// The host has asked for it.
    Opening,
    /// Bytes may flow.
    Open,
    /// It ended.
    Lost(LinkError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Host,
    Board,
}

struct Streams {
    outgoing: Outgoing,
    incoming: Incoming,
}

struct Session {
    id: u32,
    version: u16,
    state: State,
    streams: Streams,
    heard_at: Duration,
    asked_at: Duration,
    /// OPEN or OPENED has to be sent at this time.
    opening_due: Option<Duration>,
    opening_pause: Duration,
}

/// What an end has counted, for people who look for the fault of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What arrived.
    pub received: Counters,
    /// What was sent in this session.
    pub sent: Sent,
    /// Smoothed time from a frame to its acknowledgment.
    pub round_trip: Option<Duration>,
    /// Payload of full frames at the moment.
    pub payload: usize,
}

/// One end of a line.
pub struct Endpoint {
    deframer: Deframer,
    link: Link,
}

/// An endpoint without its deframer, which lends it frames.
struct Link {
    role: Role,
    terms: Terms,
    patience: Duration,
    session: Option<Session>,
    /// A session that began since it was last asked for.
    started: Option<u32>,
    replaced: VecDeque<u32>,
    refusal: Option<(u32, Refusal)>,
    refused_at: Option<Duration>,
    sent_at: Option<Duration>,
}

/// What both can take of a frame or window.
fn agreed(theirs: Terms) -> Terms {
    Terms {
        max_payload: theirs.max_payload.clamp(1, MAX_PAYLOAD as u16),
        window: theirs.window.max(MIN_WINDOW),
    }
}

impl Endpoint {
    /// The host's end: asks for a session from `now` on, for at most `patience`. `id` has to
    /// be another one for every session that the board may remember.
    #[must_use]
    pub fn host(id: u32, terms: Terms, patience: Duration, now: Duration) -> Self {
        let mut endpoint = Self::with_role(Role::Host, terms, patience);
        let mut session = Session::new(id, VERSIONS.newest, terms, terms, now);
        session.state = State::Opening;
        endpoint.link.session = Some(session);
        endpoint
    }

    /// The board's end: waits for a host.
    #[must_use]
    pub fn board(terms: Terms) -> Self {
        Self::with_role(Role::Board, terms, SILENCE)
    }

    fn with_role(role: Role, terms: Terms, patience: Duration) -> Self {
        Self {
            deframer: Deframer::new(),
            link: Link {
                role,
                terms,
                patience,
                session: None,
                started: None,
                replaced: VecDeque::new(),
                refusal: None,
                refused_at: None,
                sent_at: None,
            },
        }
    }

    /// Takes bytes that arrived.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        let Self { deframer, link } = self;
        deframer.feed(bytes, |frame| link.on_frame(&frame, now));
    }

    /// Appends the frame that is due, if one is; false if there is nothing to send now.
    pub fn transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let was_idle = self
            .link
            .sent_at
            .is_none_or(|sent_at| now.saturating_sub(sent_at) > IDLE);
        let start = out.len();
        if was_idle {
            out.push(DELIMITER);
        }
        if self.link.transmit(now, out) {
            self.link.sent_at = Some(now);
            return true;
        }
        out.truncate(start);
        false
    }

    /// When [`transmit`](Self::transmit) has to be asked again even if nothing arrives.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.link.deadline()
    }

    /// How far the session is. A lost session stays lost; a board's makes room for the next.
    pub fn state(&mut self, now: Duration) -> State {
        let counters = self.deframer.counters();
        let Link {
            session, patience, ..
        } = &mut self.link;
        let Some(session) = session else {
            return State::Idle;
        };
        let silent = now.saturating_sub(session.heard_at);
        match session.state {
            State::Opening if silent >= *patience => {
                session.state = State::Lost(LinkError::NoAnswer {
                    waited: *patience,
                    noise_bytes: counters.noise_bytes,
                    damaged: counters.damaged(),
                });
            }
            State::Open if silent >= SILENCE => session.state = State::Lost(LinkError::Silent),
            _ => {}
        }
        session.state
    }

    /// The session that began since this was last called. Whatever was read of an earlier
    /// one is to be dropped.
    pub fn take_started(&mut self) -> Option<u32> {
        self.link.started.take()
    }

    fn streams(&self) -> Option<&Streams> {
        self.link.session.as_ref().map(|session| &session.streams)
    }

    fn streams_mut(&mut self) -> Option<&mut Streams> {
        self.link
            .session
            .as_mut()
            .map(|session| &mut session.streams)
    }

    /// Takes stream bytes to send, as many as there is room for; none before the session
    /// is open.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        match &mut self.link.session {
            Some(session) if session.state == State::Open => session.streams.outgoing.write(bytes),
            _ => 0,
        }
    }

    /// Stream bytes that [`write`](Self::write) takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        match &self.link.session {
            Some(session) if session.state == State::Open => session.streams.outgoing.room(),
            _ => 0,
        }
    }

    /// Whether all that was written has arrived at the other end.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.streams()
            .is_none_or(|streams| streams.outgoing.is_settled())
    }

    /// Stream bytes on their way: sent once at least, not acknowledged.
    #[must_use]
    pub fn bytes_in_flight(&self) -> u64 {
        self.streams()
            .map_or(0, |streams| streams.outgoing.bytes_in_flight())
    }

    /// Stream bytes that were written and are not acknowledged, sent or not.
    #[must_use]
    pub fn unsettled_bytes(&self) -> u64 {
        self.streams()
            .map_or(0, |streams| streams.outgoing.unsettled_bytes())
    }

    /// Reads stream bytes that have arrived in order, as many as are there.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        self.streams_mut()
            .map_or(0, |streams| streams.incoming.read(out))
    }

    /// Stream bytes that [`read`](Self::read) gives now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.streams()
            .map_or(0, |streams| streams.incoming.available())
    }

    /// Asks the other end for a sign of life.
    pub fn ping(&mut self) {
        if let Some(streams) = self.streams_mut() {
            streams.outgoing.ask_for_ack();
        }
    }

    /// When a whole frame of this session last arrived, or it began.
    #[must_use]
    pub fn heard_at(&self) -> Option<Duration> {
        self.link.session.as_ref().map(|session| session.heard_at)
    }

    /// What was counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let outgoing = self.streams().map(|streams| &streams.outgoing);
        Statistics {
            received: self.deframer.counters(),
            sent: outgoing.map_or_else(Sent::default, |outgoing| outgoing.sent),
            round_trip: outgoing.and_then(Outgoing::round_trip),
            payload: outgoing.map_or(0, Outgoing::payload),
        }
    }
}

impl Session {
    fn new(id: u32, version: u16, ours: Terms, theirs: Terms, now: Duration) -> Self {
        Self {
            id,
            version,
            state: State::Open,
            streams: Streams {
                outgoing: Outgoing::new(agreed(theirs)),
                incoming: Incoming::new(ours.window),
            },
            heard_at: now,
            asked_at: now,
            opening_due: Some(now),
            opening_pause: OPEN_PAUSE,
        }
    }

    fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost(_))
    }
}

impl Link {
    fn on_frame(&mut self, frame: &Frame<'_>, now: Duration) {
        let Some(packet) = Packet::read(frame) else {
            return;
        };
        if let (Role::Board, Packet::Open(versions, terms)) = (self.role, packet) {
            return self.on_open(frame.session, versions, terms, now);
        }
        let current = self
            .session
            .as_mut()
            .filter(|session| session.id == frame.session && !session.is_lost());
        let Some(session) = current else {
            if self.role == Role::Board
                && matches!(packet, Packet::Data { .. } | Packet::Ping { .. })
            {
                self.refusal = Some((frame.session, Refusal::Unknown));
            }
            return;
        };
        match packet {
            Packet::Opened { version, terms } if session.state == State::Opening => {
                let theirs = Versions {
                    oldest: version,
                    newest: version,
                };
                if VERSIONS.common(theirs).is_none() {
                    session.state = State::Lost(LinkError::Version { theirs });
                    return;
                }
                session.version = version;
                session.streams.outgoing = Outgoing::new(agreed(terms));
                session.state = State::Open;
                session.opening_due = None;
                self.started = Some(session.id);
            }
            Packet::Reset(Refusal::Version(theirs)) if session.state == State::Opening => {
                session.state = State::Lost(LinkError::Version { theirs });
            }
            Packet::Reset(Refusal::Unknown)
                if self.role == Role::Host && session.state == State::Open =>
            {
                session.state = State::Lost(LinkError::Restarted);
            }
            Packet::Data {
                number,
                offset,
                bytes,
            } if session.state == State::Open => {
                session.streams.incoming.on_data(number, offset, bytes);
            }
            Packet::Ping { number } if session.state == State::Open => {
                session.streams.incoming.on_ping(number);
            }
            Packet::Ack(ack) if session.state == State::Open => {
                session.streams.outgoing.on_ack(&ack, now);
            }
            _ => return,
        }
        session.heard_at = now;
    }

    fn on_open(&mut self, id: u32, versions: Versions, theirs: Terms, now: Duration) {
        if self.replaced.contains(&id) {
            return;
        }
        let Some(version) = VERSIONS.common(versions) else {
            self.refusal = Some((id, Refusal::Version(VERSIONS)));
            return;
        };
        match &mut self.session {
            // The answer was lost, or the question came twice.
            Some(session) if session.id == id => session.opening_due = Some(now),
            _ => {
                if let Some(session) = &self.session {
                    if self.replaced.len() == REMEMBERED {
                        self.replaced.pop_front();
                    }
                    self.replaced.push_back(session.id);
                }
                self.session = Some(Session::new(id, version, self.terms, theirs, now));
                self.started = Some(id);
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let session = self.session.as_ref()?;
        if session.is_lost() {
            return None;
        }
        let mut deadline = session.heard_at
            + match session.state {
                State::Opening => self.patience,
                _ => SILENCE,
            };
        let keep_alive = session.heard_at.max(session.asked_at) + KEEP_ALIVE;
        let is_open_host = self.role == Role::Host && session.state == State::Open;
        for due in [
            session.opening_due,
            session.streams.outgoing.deadline(),
            is_open_host.then_some(keep_alive),
        ] {
            deadline = due.map_or(deadline, |due| due.min(deadline));
        }
        Some(deadline)
    }

    fn transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let may_refuse = self
            .refused_at
            .is_none_or(|refused_at| now.saturating_sub(refused_at) >= REFUSAL_PAUSE);
        if may_refuse && let Some((id, refusal)) = self.refusal.take() {
            self.refused_at = Some(now);
            Packet::Reset(refusal).write(id, out);
            return true;
        }
        let Some(session) = self.session.as_mut().filter(|session| !session.is_lost()) else {
            return false;
        };
        if session.opening_due.is_some_and(|due| due <= now) {
            session.open(self.role, self.terms, now, out);
            return true;
        }
        if session.state != State::Open {
            return false;
        }
        if let Some(ack) = session.streams.incoming.take_ack() {
            Packet::Ack(ack).write(session.id, out);
            return true;
        }
        let quiet_since = session.heard_at.max(session.asked_at);
        if self.role == Role::Host && now.saturating_sub(quiet_since) >= KEEP_ALIVE {
            session.streams.outgoing.ask_for_ack();
            session.asked_at = now;
        }
        session.streams.outgoing.transmit(session.id, now, out)
    }
}

impl Session {
    fn open(&mut self, role: Role, ours: Terms, now: Duration, out: &mut Vec<u8>) {
        match role {
            Role::Host => {
                Packet::Open(VERSIONS, ours).write(self.id, out);
                self.opening_due = Some(now + self.opening_pause);
                self.opening_pause = (self.opening_pause * 2).min(MAX_OPEN_PAUSE);
            }
            Role::Board => {
                let opened = Packet::Opened {
                    version: self.version,
                    terms: ours,
                };
                opened.write(self.id, out);
                self.opening_due = None;
            }
        }
    }
}
