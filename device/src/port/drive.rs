//! Moves bytes between an endpoint, which has no port, and a port, which has no protocol.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use eyas_shared::link::Endpoint;

use super::{Port, PortError};

/// Frames that are handed over before reading again.
const MAX_FRAMES: usize = 16;

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// Sees all bytes that go over a port.
pub trait Tap {
    /// Bytes arrived.
    fn received(&mut self, now: Duration, bytes: &[u8]);
    /// The port took bytes.
    fn sent(&mut self, now: Duration, bytes: &[u8]);
}

/// A port with the clock of its sessions.
pub struct Driver {
    port: Port,
    clock: Instant,
    /// A frame that the port has not taken whole, and how much of it it has.
    frame: Vec<u8>,
    taken: usize,
    buffer: Box<[u8]>,
    tap: Option<Box<dyn Tap>>,
}

impl Driver {
    /// Drives a port; time starts now.
    #[must_use]
    pub fn new(port: Port) -> Self {
        Self {
            port,
            clock: Instant::now(),
            frame: Vec::new(),
            taken: 0,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            tap: None,
        }
    }

    /// Lets `tap` see all bytes from now on.
    #[must_use]
    pub fn with_tap(mut self, tap: Option<Box<dyn Tap>>) -> Self {
        self.tap = tap;
        self
    }

    /// Time since this driver was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Changes the line's speed; a frame in progress is given up.
    ///
    /// # Errors
    /// As [`Port::set_baud`].
    pub fn set_baud(&mut self, baud: u32) -> Result<(), PortError> {
        self.frame.clear();
        self.taken = 0;
        self.port.set_baud(baud)
    }

    /// Sends what is due, waits for what comes, and takes it. Ends as soon as something
    /// has arrived, `also` is readable, or a signal came, and after `at_most` in any case.
    ///
    /// # Errors
    /// [`PortError::Lost`] when the port is gone, after all that had arrived was taken.
    pub fn step(
        &mut self,
        endpoint: &mut Endpoint,
        also: Option<BorrowedFd<'_>>,
        at_most: Duration,
    ) -> Result<(), PortError> {
        let end = self.now() + at_most;
        loop {
            let excess = self.port.queue_excess();
            if excess.is_zero() {
                self.send(endpoint)?;
            }
            let now = self.now();
            let mut wait = end.saturating_sub(now);
            if let Some(deadline) = endpoint.deadline() {
                wait = wait.min(deadline.saturating_sub(now));
            }
            if !excess.is_zero() {
                wait = wait.min(excess);
            }
            let wants_write = excess.is_zero() && self.taken < self.frame.len();
            let ready = self.port.wait(wants_write, also, wait)?;
            if ready.read && self.receive(endpoint)? {
                return self.send(endpoint);
            }
            // A deadline of the endpoint or a writable port: once more. Else it is the end.
            if self.now() >= end || also.is_some() {
                return Ok(());
            }
        }
    }

    /// Takes what has arrived; false if nothing has.
    fn receive(&mut self, endpoint: &mut Endpoint) -> Result<bool, PortError> {
        let n = self.port.read(&mut self.buffer)?;
        let now = self.now();
        if let Some(tap) = &mut self.tap {
            tap.received(now, &self.buffer[..n]);
        }
        endpoint.receive(&self.buffer[..n], now);
        Ok(n > 0)
    }

    /// Hands over frames for as long as the port takes them.
    fn send(&mut self, endpoint: &mut Endpoint) -> Result<(), PortError> {
        for _ in 0..MAX_FRAMES {
            let now = self.now();
            if self.taken == self.frame.len() {
                self.frame.clear();
                self.taken = 0;
                if !endpoint.transmit(now, &mut self.frame) {
                    return Ok(());
                }
            }
            let rest = &self.frame[self.taken..];
            let n = self.port.write(rest)?;
            if let Some(tap) = &mut self.tap {
                tap.sent(now, &rest[..n]);
            }
            self.taken += n;
            if self.taken < self.frame.len() || !self.port.queue_excess().is_zero() {
                return Ok(());
            }
        }
        Ok(())
    }
}
