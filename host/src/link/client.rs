//! A session with a board: asks, and waits for the answer within bounds.

use std::time::{Duration, SystemTime};

use eyas_device::port::{Driver, PortError, Tap};
use eyas_shared::link::message::{self, Ask, Hello, Inbox, Offer, Reply, Request, Response};
use eyas_shared::link::upload::Upload;
use eyas_shared::link::{DEFAULT_TERMS, Endpoint, State, Statistics};
use eyas_shared::random::Random;

use super::ClientError;
use super::address::{Address, Ended, Options};
use super::recording::Recorder;

/// Longest wait in one step; what is awaited may be over before.
const STEP: Duration = Duration::from_millis(100);

/// A board that is there but does not answer: how long to wait for what takes no work, and
/// for what may take some (a query on a slow board, a student that is tried).
const SHORT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(300);

/// How long the board may take for an answer, and between two of them.
fn patience_for(ask: &Ask) -> Duration {
    match ask {
        Ask::Activate(_)
        | Ask::Rollback { .. }
        | Ask::Apply { .. }
        | Ask::Query { .. }
        | Ask::Prepare(_)
        | Ask::Try { .. }
        | Ask::Conclude => LONG,
        // As long as the board itself waits for its process.
        Ask::Profile { .. } => 2 * LONG,
        Ask::Measure(window) => {
            let time = u64::from(window.warm_up_ms) + u64::from(window.at_least_ms);
            LONG + Duration::from_millis(2 * time)
        }
        _ => SHORT,
    }
}

/// How long the other end may take to be heard at another speed.
const SPEED_PATIENCE: Duration = Duration::from_millis(1500);

/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A session with a board.
pub struct Client {
    address: Address,
    driver: Driver,
    endpoint: Endpoint,
    inbox: Inbox,
    next_op: u32,
    hello: Hello,
    /// Ends the program behind the port, after the port.
    _child: Option<Ended>,
}

/// A number that no session of this host had before, as far as the clock goes on.
fn session_number() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos() as u64);
    let mut random = Random::new(nanos)
        .fork("session")
        .at(u64::from(std::process::id()));
    random.bits() as u32
}

impl Client {
    /// Begins a session with the board at `address`.
    ///
    /// # Errors
    /// If the port can not be used, nobody answers, or somebody else does.
    pub fn connect(address: &Address, options: &Options) -> Result<Self, ClientError> {
        let tap = match &options.record {
            Some(path) => Some(Box::new(Recorder::create(path, address)?) as Box<dyn Tap>),
            None => None,
        };
        let opened = address.open()?;
        let driver = Driver::new(opened.port).with_tap(tap);
        let endpoint = Endpoint::host(
            session_number(),
            DEFAULT_TERMS,
            options.patience,
            driver.now(),
        );
        let mut client = Self {
            address: address.clone(),
            driver,
            endpoint,
            inbox: Inbox::new(),
            next_op: 1,
            hello: Hello {
                program: String::new(),
                boot: 0,
                speeds: Vec::new(),
                takes_files: false,
                needs_signatures: false,
                max_image_bytes: 0,
                max_file_bytes: 0,
            },
            _child: opened.child,
        };
        while client.state()? == State::Opening {
            client.step()?;
        }
        let program = concat!("eyas ", env!("CARGO_PKG_VERSION")).to_owned();
        client.hello = match client.ask("a greeting", Ask::Hello { program })? {
            Reply::Hello(hello) => hello,
            _ => {
                return Err(ClientError::Answer {
                    asked: "a greeting",
                });
            }
        };
        if let Some(baud) = options.raise_to {
            client.raise_speed(baud)?;
        }
        Ok(client)
    }

    /// Who the board is.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Where the board is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The line's speed at the moment, if it has one.
    #[must_use]
    pub fn baud(&self) -> Option<u32> {
        self.driver.port().baud()
    }

    /// What the link has counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.endpoint.statistics()
    }

    /// Asks something that has one answer.
    ///
    /// # Errors
    /// If the link breaks, the board refuses, or it does not answer.
    pub fn ask(&mut self, what: &'static str, ask: Ask) -> Result<Reply, ClientError> {
        let patience = patience_for(&ask);
        let op = self.send(ask)?;
        self.reply_to(what, op, patience)
    }

    /// Asks something that has several answers; `each` takes them until it returns false.
    ///
    /// # Errors
    /// If the link breaks, the board refuses, or it does not answer; or what `each` fails
    /// with.
    pub fn ask_for_many(
        &mut self,
        what: &'static str,
        ask: Ask,
        mut each: impl FnMut(Reply) -> Result<bool, ClientError>,
    ) -> Result<(), ClientError> {
        let patience = patience_for(&ask);
        let op = self.send(ask)?;
        while each(self.reply_to(what, op, patience)?)? {}
        Ok(())
    }

    /// Sends a file and waits until the board has checked it. `read` fills a buffer from an
    /// offset on, `progress` is told how many bytes the board has and how many it had.
    ///
    /// # Errors
    /// If the link breaks, the board refuses the file, or `read` fails.
    pub fn upload(
        &mut self,
        offer: Offer,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), ClientError>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), ClientError> {
        let op = self.next_op();
        let mut upload = Upload::new(offer, op);
        let mut moved_at = self.driver.now();
        let mut moved = 0;
        while !upload.is_done() {
            upload.send(&mut self.endpoint, &mut read)?;
            if let Some(response) = self.wait_once()?
                && response.op == op
            {
                upload.on_reply(&response.reply)?;
            }
            let there = upload
                .handed_over()
                .saturating_sub(self.endpoint.unsettled_bytes());
            progress(there, upload.began_at());
            if there != moved {
                (moved, moved_at) = (there, self.driver.now());
            }
            self.check_patience("an offer", moved_at, LONG)?;
        }
        Ok(())
    }

    /// Takes leave, so that both ends know that all was said.
    ///
    /// # Errors
    /// If the link broke before.
    pub fn leave(mut self) -> Result<(), ClientError> {
        let op = self.send(Ask::Goodbye)?;
        self.reply_to("a farewell", op, FAREWELL).map(drop)
    }

    /// Raises the line's speed if the board offers it; goes back if nothing is heard there.
    fn raise_speed(&mut self, baud: u32) -> Result<(), ClientError> {
        let Some(base) = self.baud() else {
            return Ok(());
        };
        if baud == base || !self.hello.speeds.contains(&baud) {
            return Ok(());
        }
        self.ask("a change of speed", Ask::Speed { baud })?;
        // The acknowledgment of the answer still goes out at the old speed.
        let until = self.driver.now() + STEP;
        while self.driver.now() < until {
            self.step()?;
        }
        self.driver.set_baud(baud)?;
        if self.is_heard_within(SPEED_PATIENCE)? {
            return Ok(());
        }
        self.driver.set_baud(base)?;
        // The board goes back by itself; it is asked for until it has.
        self.is_heard_within(SHORT).map(drop)
    }

    /// Whether the board is heard within some time.
    fn is_heard_within(&mut self, time: Duration) -> Result<bool, ClientError> {
        let began = self.driver.now();
        while self.driver.now() < began + time {
            self.endpoint.ping();
            self.step()?;
            self.state()?;
            if self.endpoint.heard_at().is_some_and(|at| at > began) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_op(&mut self) -> u32 {
        let op = self.next_op;
        self.next_op = op.wrapping_add(1);
        op
    }

    fn send(&mut self, ask: Ask) -> Result<u32, ClientError> {
        let op = self.next_op();
        let bytes = message::to_bytes(&Request { op, ask });
        let began = self.driver.now();
        while self.endpoint.room() < bytes.len() {
            self.step()?;
            self.state()?;
            self.check_patience("to take a request", began, LONG)?;
        }
        self.endpoint.write(&bytes);
        Ok(op)
    }

    fn reply_to(
        &mut self,
        what: &'static str,
        op: u32,
        patience: Duration,
    ) -> Result<Reply, ClientError> {
        let began = self.driver.now();
        loop {
            if let Some(response) = self.wait_once()?
                && (response.op == op || response.op == 0)
            {
                return match response.reply {
                    Reply::Failed { code, reason } => Err(ClientError::Refused { code, reason }),
                    reply => Ok(reply),
                };
            }
            self.check_patience(what, began, patience)?;
        }
    }

    fn check_patience(
        &self,
        asked: &'static str,
        since: Duration,
        patience: Duration,
    ) -> Result<(), ClientError> {
        if self.driver.now().saturating_sub(since) < patience {
            return Ok(());
        }
        let seconds = patience.as_secs();
        Err(ClientError::Slow { asked, seconds })
    }

    /// The next message that is there, at the latest after one step of moving bytes.
    fn wait_once(&mut self) -> Result<Option<Response>, ClientError> {
        if let Some(response) = self.inbox.next(&mut self.endpoint)? {
            return Ok(Some(response));
        }
        self.step()?;
        self.state()?;
        Ok(self.inbox.next(&mut self.endpoint)?)
    }

    fn step(&mut self) -> Result<(), PortError> {
        self.driver.step(&mut self.endpoint, None, STEP)
    }

    fn state(&mut self) -> Result<State, ClientError> {
        match self.endpoint.state(self.driver.now()) {
            State::Lost(source) => Err(ClientError::Link {
                place: self.address.to_string(),
                source,
            }),
            state => Ok(state),
        }
    }
}
