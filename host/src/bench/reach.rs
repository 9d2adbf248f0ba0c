//! A board that is reached again when its link breaks, and what is asked of it.

use std::time::{Instant, SystemTime};

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::bench::{
    Candidate, Facts, Moment, Operator, Prepared, Sample, Used, Window,
};
use eyas_shared::link::message::{Answer, Ask, FileId, FileKind, Offer, Reply};

use super::results::Board;
use crate::link::push::{Pusher, RETRY_FOR, RETRY_PAUSE, may_come_back};
use crate::link::{Client, ClientError};

/// The board of a session.
pub(super) struct Reach {
    pusher: Pusher,
    /// Number of the start of the board's program.
    boot: u64,
}

/// What the board says of itself, and how its clock stands to this one's.
pub(super) struct Met {
    pub(super) facts: Facts,
    /// What is added to the board's clock to get this one's, in microseconds.
    pub(super) clock_offset_us: i64,
}

impl Reach {
    pub(super) fn new(client: Client, options: &crate::link::Options) -> Self {
        Self {
            boot: client.hello().boot,
            pusher: Pusher::new(client, options),
        }
    }

    /// How it is reached.
    pub(super) fn pusher(&mut self) -> &mut Pusher {
        &mut self.pusher
    }

    /// Whether an error may pass: then the link is brought back, and what happened is told.
    ///
    /// # Errors
    /// The error, if it may not, or the link does not come back in time.
    pub(super) fn recover(&mut self, err: ClientError) -> Result<String, ClientError> {
        if !may_come_back(&err) {
            return Err(err);
        }
        self.pusher.lose();
        let began = Instant::now();
        let boot = loop {
            match self.pusher.connected() {
                Ok(client) => break client.hello().boot,
                Err(err) if !may_come_back(&err) || began.elapsed() > RETRY_FOR => {
                    return Err(err);
                }
                Err(_) => std::thread::sleep(RETRY_PAUSE),
            }
        };
        let what = if boot == self.boot {
            "the link broke and came back"
        } else {
            "the board's program started anew"
        };
        self.boot = boot;
        Ok(format!("{what}: {err}"))
    }

    pub(super) fn meet(&mut self) -> Result<Met, ClientError> {
        let asked = "what the board is";
        let client = self.pusher.connected()?;
        let (mut facts, mut moment) = (None, None);
        let began = unix_micros();
        client.ask_for_many(asked, Ask::Facts, |reply| {
            match reply {
                Reply::Facts(found) => facts = Some(found),
                Reply::Moment(found) => {
                    moment = Some((found, unix_micros()));
                    return Ok(false);
                }
                _ => return Err(ClientError::Answer { asked }),
            }
            Ok(true)
        })?;
        let (Some(facts), Some((moment, ended))) = (facts, moment) else {
            return Err(ClientError::Answer { asked });
        };
        // The board looked at its clock somewhere in between.
        let here = i64::midpoint(began, ended);
        Ok(Met {
            facts,
            clock_offset_us: here - moment.unix_micros as i64,
        })
    }

    pub(super) fn prepare(&mut self, candidate: Candidate) -> Result<Prepared, ClientError> {
        let asked = "a student that is to be measured";
        match self
            .pusher
            .connected()?
            .ask(asked, Ask::Prepare(candidate))?
        {
            Reply::Prepared(prepared) => Ok(prepared),
            _ => Err(ClientError::Answer { asked }),
        }
    }

    /// Sends an image, unless the board has it.
    pub(super) fn send_image(&mut self, bytes: &[u8]) -> Result<[u8; 32], ClientError> {
        let hash = Fingerprint::of_bytes(bytes).0;
        let offer = Offer {
            kind: FileKind::Image,
            file: FileId {
                hash,
                bytes: bytes.len() as u64,
            },
            about: [0; 32],
        };
        let read = |offset: u64, buffer: &mut [u8]| {
            let from = offset as usize;
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            Ok(())
        };
        self.pusher.connected()?.upload(offer, read, |_, _| {})?;
        Ok(hash)
    }

    /// An answer of the candidate, with its embedding.
    pub(super) fn ask(
        &mut self,
        image: [u8; 32],
        top_k: u16,
    ) -> Result<(Answer, Vec<f32>), ClientError> {
        let asked = "a query";
        let (mut answer, mut embedding) = (None, Vec::new());
        let ask = Ask::Try { image, top_k };
        self.pusher.connected()?.ask_for_many(asked, ask, |reply| {
            match reply {
                Reply::Answer(found) => answer = Some(found),
                Reply::Embedding { components } => embedding.extend(components),
                Reply::Done => return Ok(false),
                _ => return Err(ClientError::Answer { asked }),
            }
            let is_too_long = embedding.len() > eyas_shared::embedding::MAX_DIM;
            match is_too_long {
                true => Err(ClientError::Answer { asked }),
                false => Ok(true),
            }
        })?;
        let answer = answer.ok_or(ClientError::Answer { asked })?;
        Ok((answer, embedding))
    }

    pub(super) fn measure(
        &mut self,
        window: Window,
    ) -> Result<(Moment, Moment, Vec<Sample>), ClientError> {
        let asked = "a window";
        let (mut moments, mut samples) = (Vec::new(), Vec::new());
        let ask = Ask::Measure(window);
        self.pusher.connected()?.ask_for_many(asked, ask, |reply| {
            match reply {
                Reply::Moment(moment) if moments.len() < 2 => moments.push(moment),
                Reply::Samples { samples: more } => samples.extend(more),
                Reply::Done => return Ok(false),
                _ => return Err(ClientError::Answer { asked }),
            }
            match samples.len() > eyas_shared::link::bench::MAX_SAMPLES {
                true => Err(ClientError::Answer { asked }),
                false => Ok(true),
            }
        })?;
        match <[Moment; 2]>::try_from(moments) {
            Ok([before, after]) => Ok((before, after, samples)),
            Err(_) => Err(ClientError::Answer { asked }),
        }
    }

    pub(super) fn profile(
        &mut self,
        image: [u8; 32],
        runs: u16,
    ) -> Result<Vec<Operator>, ClientError> {
        /// More than any network of this project has.
        const MAX_OPERATORS: usize = 1 << 16;
        let asked = "a profile";
        let mut operators = Vec::new();
        let ask = Ask::Profile { image, runs };
        self.pusher.connected()?.ask_for_many(asked, ask, |reply| {
            match reply {
                Reply::Operators { operators: more } => operators.extend(more),
                Reply::Done => return Ok(false),
                _ => return Err(ClientError::Answer { asked }),
            }
            match operators.len() > MAX_OPERATORS {
                true => Err(ClientError::Answer { asked }),
                false => Ok(true),
            }
        })?;
        Ok(operators)
    }

    pub(super) fn conclude(&mut self) -> Result<Used, ClientError> {
        let asked = "the end of a measurement";
        match self.pusher.connected()?.ask(asked, Ask::Conclude)? {
            Reply::Used(used) => Ok(used),
            _ => Err(ClientError::Answer { asked }),
        }
    }

    pub(super) fn leave(self) {
        // All is said; a farewell that is lost changes nothing.
        let _ = self.pusher.leave();
    }
}

/// The board as results have it.
pub(super) fn board_of(facts: Facts, address: String) -> Board {
    Board {
        model: facts.model,
        cpu: facts.cpu,
        n_cores: facts.n_cores.into(),
        architecture: facts.architecture,
        kernel: facts.kernel,
        memory_bytes: facts.memory_bytes,
        swap_bytes: facts.swap_bytes,
        governor: facts.governor,
        max_clock_mhz: facts.max_clock_khz.map(|khz| f64::from(khz) / 1000.0),
        program: facts.program,
        program_hash: Fingerprint(facts.program_hash).to_string(),
        matcher_kernel: facts.matcher_kernel,
        address,
    }
}

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}
