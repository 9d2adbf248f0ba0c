//! A host of its own, written from the protocol's page: asks what `eyas` would never ask, or
//! goes away without a word.

use std::path::Path;
use std::time::{Duration, Instant};

use eyas_device::port::{BASE_BAUD, Driver, Port};
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::message::{
    self, Ask, FileId, FileKind, Inbox, Offer, Reply, Request, Response,
};
use eyas_shared::link::upload::Upload;
use eyas_shared::link::{DEFAULT_TERMS, Endpoint, State};

/// Longest wait in one step.
const STEP: Duration = Duration::from_millis(100);

/// How long a board may take to answer, and to be there at all: it may be starting.
const PATIENCE: Duration = Duration::from_secs(60);

/// A session with a board. Dropping it closes the port, and says nothing to the board.
pub struct OtherHost {
    driver: Driver,
    endpoint: Endpoint,
    inbox: Inbox,
    op: u32,
}

impl OtherHost {
    /// Begins a session; every session of a board needs another `id`.
    ///
    /// # Panics
    /// If the port can not be used, or no board answers.
    #[must_use]
    pub fn connect(port: &Path, id: u32) -> Self {
        let port = Port::open(port, BASE_BAUD).expect("the port can be opened");
        let driver = Driver::new(port);
        let endpoint = Endpoint::host(id, DEFAULT_TERMS, PATIENCE, driver.now());
        let mut host = Self {
            driver,
            endpoint,
            inbox: Inbox::new(),
            op: 0,
        };
        while host.endpoint.state(host.driver.now()) == State::Opening {
            host.step();
        }
        host
    }

    fn step(&mut self) {
        let step = self.driver.step(&mut self.endpoint, None, STEP);
        step.expect("the port is there");
        let state = self.endpoint.state(self.driver.now());
        assert!(matches!(state, State::Open | State::Opening), "{state:?}");
    }

    /// Sends a request, and waits until it has arrived, not for an answer.
    ///
    /// # Panics
    /// If the request finds no room, or the link breaks.
    pub fn say(&mut self, ask: Ask) {
        self.op += 1;
        let bytes = message::to_bytes(&Request { op: self.op, ask });
        assert_eq!(self.endpoint.write(&bytes), bytes.len());
        while !self.endpoint.is_settled() {
            self.step();
        }
    }

    /// The next answer.
    ///
    /// # Panics
    /// If the link breaks, what arrives is no message, or nothing comes for a minute.
    pub fn hear(&mut self) -> Reply {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "no answer has come");
            let response: Option<Response> = self.inbox.next(&mut self.endpoint).expect("messages");
            match response {
                Some(response) => return response.reply,
                None => self.step(),
            }
        }
    }

    /// The answer to a request that has one.
    pub fn ask(&mut self, ask: Ask) -> Reply {
        self.say(ask);
        self.hear()
    }

    /// Sends an image; its hash.
    ///
    /// # Panics
    /// If the board does not take it.
    pub fn send_image(&mut self, bytes: &[u8]) -> [u8; 32] {
        let hash = Fingerprint::of_bytes(bytes).0;
        let offer = Offer {
            kind: FileKind::Image,
            file: FileId {
                hash,
                bytes: bytes.len() as u64,
            },
            about: [0; 32],
        };
        self.op += 1;
        let mut upload = Upload::new(offer, self.op);
        let read = |offset: u64, buffer: &mut [u8]| {
            let at = offset as usize;
            buffer.copy_from_slice(&bytes[at..at + buffer.len()]);
            Ok::<(), std::convert::Infallible>(())
        };
        while !upload.is_done() {
            let sent = upload.send(&mut self.endpoint, read);
            sent.expect("memory can be read");
            match self.inbox.next::<Response>(&mut self.endpoint) {
                Ok(Some(response)) => upload.on_reply(&response.reply).expect("it is taken"),
                _ => self.step(),
            }
        }
        hash
    }
}
