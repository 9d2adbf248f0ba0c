//! What a board answers: who it is, what it serves, what an image shows.

use std::fs::File;
use std::time::Instant;

use eyas_shared::files::FileError;
use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::message::{
    Activate, Ask, Code, FileId, FileKind, Hello, Info, MAX_MATCHES, MAX_REASON_BYTES, Reply, cut,
};

use super::candidate::Candidates;
use super::images::MAX_IMAGE_BYTES;
use super::receive::{Receiver, Refused, failed, refusal};
use super::results::Results;
use super::served::{AnswerError, Served, Source};
use super::work::{Answers, Content, Outcome};
use crate::bench::{self, Edge};
use crate::hints;
use crate::slots::trial::InChild;
use crate::slots::{Applied, Choice, Installed, Slots};

/// A board at work.
pub(super) struct Board<'s> {
    source: &'s Source,
    /// None if the store is empty.
    served: Option<Served>,
    receiver: Receiver<'s>,
    results: Results,
    n_threads: usize,
    candidates: Candidates,
    hello: Hello,
    began: Instant,
}

impl<'s> Board<'s> {
    /// Opens what is served.
    ///
    /// # Errors
    /// If it can not be used.
    pub(super) fn open(
        source: &'s Source,
        boot: u64,
        speeds: Vec<u32>,
        n_threads: usize,
        candidates: Candidates,
    ) -> anyhow::Result<Self> {
        let slots = match source {
            Source::Files(_) => None,
            Source::Store(slots) => Some(slots),
        };
        // A store whose settings are damaged serves, and takes nothing.
        let settings = slots.and_then(|slots| slots.settings().ok());
        let hello = Hello {
            program: concat!("eyas-device ", env!("CARGO_PKG_VERSION")).to_owned(),
            boot,
            speeds,
            takes_files: settings.is_some(),
            needs_signatures: settings.is_some_and(|settings| settings.needs_signatures()),
            max_image_bytes: MAX_IMAGE_BYTES,
            max_file_bytes: settings.map_or(0, |settings| settings.max_file_bytes),
        };
        Ok(Self {
            source,
            served: open(source, n_threads)?,
            n_threads,
            receiver: Receiver::new(slots),
            results: Results::default(),
            candidates,
            hello,
            began: Instant::now(),
        })
    }

    fn slots(&self) -> Refused<&'s Slots> {
        match self.source {
            Source::Store(slots) => Ok(slots),
            Source::Files(_) => {
                let reason = "this board has no store: what it serves is changed where it was \
                              started";
                Err(failed(Code::NoStore, reason))
            }
        }
    }

    /// Serves what the store names now, if that has changed: a person at the board may have
    /// installed something.
    fn follow_store(&mut self) -> Refused<()> {
        let Source::Store(slots) = self.source else {
            return Ok(());
        };
        let pointer = slots.pointer().map_err(|err| refusal(&err))?;
        let on_trial = pointer.trial.map(|trial| trial.generation);
        let named = on_trial.or(pointer.confirmed).map(|known| known.number);
        if named != self.served.as_ref().map(Served::generation) {
            self.served = Served::of_store(slots, self.n_threads).map_err(|err| refusal(&err))?;
        }
        Ok(())
    }

    fn info(&mut self) -> Refused<Reply> {
        self.follow_store()?;
        let served = self.served.as_ref();
        let gallery = served.map(Served::gallery_info).transpose();
        let gallery = gallery.map_err(|err| failed(Code::Internal, hints::chain_of(&err)))?;
        let last_refusal = match self.source {
            Source::Files(_) => None,
            Source::Store(slots) => slots.pointer().ok().and_then(|pointer| pointer.refusal),
        };
        let last_refusal = last_refusal.map_or_else(String::new, |refusal| refusal.reason);
        Ok(Reply::Info(Info {
            student: served.map(Served::student_info),
            gallery,
            generation: served.map_or(0, Served::generation),
            is_on_trial: served.is_some_and(Served::is_on_trial),
            last_refusal: cut(&last_refusal, MAX_REASON_BYTES).to_owned(),
            uptime_ms: self.began.elapsed().as_millis() as u64,
            n_unread: self.results.unread().len() as u32,
            n_answered: self.results.n_answered(),
            // The line's side adds what it has counted.
            frames: 0,
            damaged: 0,
        }))
    }

    fn query(&mut self, image: [u8; 32], top_k: u16) -> Refused<Reply> {
        if !(1..=MAX_MATCHES).contains(&top_k) {
            let reason = format!("{top_k} matches are asked for; 1 to {MAX_MATCHES} are given");
            return Err(failed(Code::Request, reason));
        }
        self.follow_store()?;
        let served = self.served.as_ref().ok_or_else(|| {
            let reason = "nothing is installed: push a bundle and a gallery first";
            failed(Code::NotServing, reason)
        })?;
        let bytes = image_of(&self.receiver, image)?;
        match served.look(bytes, image, usize::from(top_k)) {
            Ok(answer) => {
                let reply = Reply::Answer(self.results.keep(answer));
                self.confirm();
                Ok(reply)
            }
            Err(AnswerError::Look(err)) if err.is_of_the_image() => {
                Err(failed(Code::Image, hints::chain_of(&err)))
            }
            Err(err) => {
                let reason = hints::chain_of(&err);
                self.give_up_trial(&format!("it could not answer: {reason}"));
                Err(failed(Code::Internal, reason))
            }
        }
    }

    /// What is on trial has answered: it stays.
    fn confirm(&mut self) {
        let (Source::Store(slots), Some(served)) = (self.source, &mut self.served) else {
            return;
        };
        // If the disk refuses, it stays on trial, and the next answer tries again.
        if served.is_on_trial() && slots.confirm(served.generation()).is_ok() {
            served.note_confirmed();
        }
    }

    /// What is on trial has failed: what was served before is served again.
    fn give_up_trial(&mut self, reason: &str) {
        let is_on_trial = self.served.as_ref().is_some_and(Served::is_on_trial);
        if let Source::Store(slots) = self.source
            && is_on_trial
            && slots.rollback(reason).is_ok()
            && let Ok(served) = Served::of_store(slots, self.n_threads)
        {
            self.served = served;
        }
    }

    fn activate(&mut self, activate: &Activate) -> Refused<Reply> {
        let slots = self.slots()?;
        if activate.bundle.or(activate.gallery).is_none() {
            return Err(failed(Code::Request, "no file is named"));
        }
        let choice = Choice {
            bundle: activate.bundle.map(Fingerprint),
            gallery: activate.gallery.map(Fingerprint),
            // For people who stand before the board.
            allow_downgrade: false,
        };
        let settings = slots.settings().map_err(|err| refusal(&err))?;
        let trial = InChild::of_this_program(settings.trial)
            .map_err(|err| failed(Code::Internal, err.to_string()))?;
        let watch = self.candidates.watch();
        let trial = trial.watched_by(move || watch.is_running());
        match slots.install(&choice, &trial) {
            Ok(Installed::OnTrial(..) | Installed::Already(_)) => {}
            Err(err) => return Err(refusal(&err)),
        }
        self.serving(slots)
    }

    /// The gallery that a delta leads to from the one that serves.
    fn apply(&mut self, delta: [u8; 32]) -> Refused<Reply> {
        let slots = self.slots()?;
        self.follow_store()?;
        let nothing = "a delta needs a gallery, and none is installed";
        let served = self.served.as_ref();
        let served = served.ok_or_else(|| failed(Code::NotServing, nothing))?;
        let base = served.gallery.0.fingerprint();
        let applied = slots.apply_delta(Fingerprint(delta), base);
        let Applied { gallery, bytes } = applied.map_err(|err| refusal(&err))?;
        let hash = gallery.0;
        Ok(Reply::File(FileId { hash, bytes }))
    }

    fn rollback(&mut self, from: u64) -> Refused<Reply> {
        let slots = self.slots()?;
        self.follow_store()?;
        let generation = self.served.as_ref().map_or(0, Served::generation);
        if generation != from {
            let reason = format!("generation {generation} serves, not {from}");
            return Err(failed(Code::OtherGeneration, reason));
        }
        slots
            .rollback("it was asked for over the link")
            .map_err(|err| refusal(&err))?;
        self.serving(slots)
    }

    /// Opens what the store names now.
    fn serving(&mut self, slots: &Slots) -> Refused<Reply> {
        self.follow_store()?;
        if self.served.is_none() {
            self.served = Served::of_store(slots, self.n_threads).map_err(|err| refusal(&err))?;
        }
        let served = self.served.as_ref();
        Ok(Reply::Serving {
            generation: served.map_or(0, Served::generation),
            is_on_trial: served.is_some_and(Served::is_on_trial),
        })
    }

    fn find(&self, kind: FileKind) -> Refused<Reply> {
        let nothing = || failed(Code::NotServing, "nothing is installed");
        let served = self.served.as_ref().ok_or_else(nothing)?;
        match kind {
            FileKind::Bundle => Ok(Reply::File(served.bundle.0)),
            FileKind::Gallery => Ok(Reply::File(served.gallery.0)),
            FileKind::Image | FileKind::Signature | FileKind::Delta => {
                Err(failed(Code::Request, "bundles and galleries can be pulled"))
            }
        }
    }

    fn content(&self, hash: [u8; 32], offset: u64) -> Refused<Content> {
        let served = self.served.iter();
        let mut known = served.flat_map(|served| [&served.bundle, &served.gallery]);
        let found = known.find(|(file, _)| file.hash == hash);
        let (id, path) = found.ok_or_else(|| failed(Code::Absent, "no such file serves"))?;
        if offset > id.bytes {
            return Err(failed(Code::Request, "the file is not that long"));
        }
        let file = File::open(path).map_err(FileError::because("read", path));
        let file = file.map_err(|err| failed(Code::Internal, err.to_string()))?;
        let end = id.bytes;
        Ok(Content { file, offset, end })
    }

    fn replies(&mut self, ask: Ask) -> Refused<Vec<Reply>> {
        let reply = match ask {
            Ask::Hello { .. } => Reply::Hello(self.hello.clone()),
            Ask::Info => self.info()?,
            Ask::Offer(offer) => return self.receiver.offer(offer),
            Ask::Chunk { offset, data } => return self.receiver.chunk(offset, &data),
            Ask::Activate(activate) => self.activate(&activate)?,
            Ask::Rollback { from } => self.rollback(from)?,
            Ask::Apply { delta } => self.apply(delta)?,
            Ask::Query { image, top_k } => self.query(image, top_k)?,
            Ask::Results => {
                let answers = self.results.unread().cloned().map(Reply::Answer);
                return Ok(answers.chain([Reply::Done]).collect());
            }
            Ask::Acknowledge { through } => {
                self.results.acknowledge(through);
                Reply::Done
            }
            Ask::Find { kind } => self.find(kind)?,
            Ask::Facts => {
                let now = bench::moment(Edge::After);
                return Ok(vec![Reply::Facts(bench::facts()), Reply::Moment(now)]);
            }
            Ask::Prepare(candidate) => {
                let slots = self.slots().ok();
                let served = self.served.as_ref();
                self.candidates.prepare(&candidate, slots, served)?
            }
            Ask::Try { image, top_k } => {
                let image = image_of(&self.receiver, image)?;
                return self.candidates.answer(image, top_k);
            }
            Ask::Measure(window) => {
                return self.candidates.measure(&window, &self.receiver.images);
            }
            Ask::Profile { image, runs } => {
                let image = image_of(&self.receiver, image)?;
                return self.candidates.profile(image, runs);
            }
            Ask::Conclude => self.candidates.conclude()?,
            _ => {
                return Err(failed(
                    Code::Unknown,
                    "this board does not know the request",
                ));
            }
        };
        Ok(vec![reply])
    }
}

fn image_of<'r>(receiver: &'r Receiver<'_>, image: [u8; 32]) -> Refused<&'r [u8]> {
    let bytes = receiver.images.get(Fingerprint(image));
    bytes.ok_or_else(|| failed(Code::Absent, "this image was not sent"))
}

fn open(source: &Source, n_threads: usize) -> anyhow::Result<Option<Served>> {
    Ok(match source {
        Source::Files(files) => Some(Served::open(files, n_threads)?),
        Source::Store(slots) => Served::of_store(slots, n_threads)?,
    })
}

impl Answers for Board<'_> {
    fn answer(&mut self, ask: Ask) -> Outcome {
        if let Ask::Read { hash, offset } = ask {
            return match self.content(hash, offset) {
                Ok(content) => Outcome::Send(content),
                Err(refusal) => Outcome::reply(refusal.into()),
            };
        }
        Outcome::Say(
            self.replies(ask)
                .unwrap_or_else(|refusal| vec![refusal.into()]),
        )
    }

    fn begin_session(&mut self, number: u64) {
        self.receiver.break_off();
        self.candidates.begin_session(number);
    }

    fn recover(&mut self) -> anyhow::Result<()> {
        self.receiver = Receiver::new(self.slots().ok());
        self.candidates.drop_child();
        self.give_up_trial("it failed at a request for no known reason");
        self.served = open(self.source, self.n_threads)?;
        Ok(())
    }
}
