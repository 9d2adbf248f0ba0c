//! What a board answers: who it is, what it serves, what an image shows.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use eyas_shared::files::FileError;
use eyas_shared::fingerprint::{ContentHasher, Fingerprint};
use eyas_shared::link::message::{
    Answer, Ask, CHUNK_BYTES, Code, FileId, FileKind, Found, GalleryInfo, Hello, Info,
    MAX_LABEL_BYTES, MAX_MATCHES, MAX_NAME_BYTES, MAX_REASON_BYTES, Offer, Reply, StudentInfo, cut,
};
use eyas_shared::preprocess::{Limits, decode, prepare};

use super::images::{Images, MAX_IMAGE_BYTES};
use super::results::Results;
use super::work::{Answers, Content, Outcome};
use crate::hints;
use crate::matcher::Match;
use crate::store::{MappedFile, Store};

/// Where a board's student and gallery are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The student's bundle.
    pub bundle: PathBuf,
    /// The gallery.
    pub gallery: PathBuf,
}

/// A student and a gallery that serve.
struct Served {
    store: Store,
    files: Files,
    bundle: FileId,
    gallery: FileId,
}

impl Served {
    fn open(files: &Files) -> anyhow::Result<Self> {
        let store = Store::open(&files.bundle, &files.gallery)?;
        let id = |path: &PathBuf| -> anyhow::Result<FileId> {
            let file = MappedFile::open(path)?;
            let mut hasher = ContentHasher::new();
            hasher.update(file.bytes());
            Ok(FileId {
                hash: hasher.finish().0,
                bytes: file.bytes().len() as u64,
            })
        };
        Ok(Self {
            store,
            bundle: id(&files.bundle)?,
            gallery: id(&files.gallery)?,
            files: files.clone(),
        })
    }
}

/// A board at work.
pub(super) struct Board {
    files: Files,
    served: Served,
    images: Images,
    results: Results,
    /// The file that is being received.
    receiving: Option<Offer>,
    hello: Hello,
    began: Instant,
}

fn failed(code: Code, reason: impl Into<String>) -> Reply {
    let reason: String = reason.into();
    Reply::Failed {
        code,
        reason: cut(&reason, MAX_REASON_BYTES).to_owned(),
    }
}

/// Why this can not be: a reply instead of an answer.
type Refused<T> = Result<T, Reply>;

impl Board {
    /// Opens what is served.
    ///
    /// # Errors
    /// If it can not be used.
    pub(super) fn open(files: Files, boot: u64, speeds: Vec<u32>) -> anyhow::Result<Self> {
        let hello = Hello {
            program: concat!("eyas-device ", env!("CARGO_PKG_VERSION")).to_owned(),
            boot,
            speeds,
            takes_files: false,
            needs_signatures: false,
            max_image_bytes: MAX_IMAGE_BYTES,
            max_file_bytes: 0,
        };
        Ok(Self {
            served: Served::open(&files)?,
            files,
            images: Images::default(),
            results: Results::default(),
            receiving: None,
            hello,
            began: Instant::now(),
        })
    }

    fn info(&self) -> anyhow::Result<Info> {
        let header = self.served.store.header();
        let matcher = self.served.store.matcher()?;
        let gallery = &matcher.gallery().header;
        Ok(Info {
            student: Some(StudentInfo {
                file: self.served.bundle,
                name: cut(&header.name, MAX_NAME_BYTES).to_owned(),
                precision: header.precision.to_string(),
                dim: header.dim,
                space: header.space.0.0,
            }),
            gallery: Some(GalleryInfo {
                file: self.served.gallery,
                n_rows: gallery.n_rows,
                n_labels: gallery.n_labels,
                teacher: cut(&gallery.teacher, MAX_NAME_BYTES).to_owned(),
            }),
            generation: 0,
            is_on_trial: false,
            last_refusal: String::new(),
            uptime_ms: self.began.elapsed().as_millis() as u64,
            n_unread: self.results.unread().len() as u32,
            n_answered: self.results.n_answered(),
            // The line's side adds what it has counted.
            frames: 0,
            damaged: 0,
        })
    }

    fn offer(&mut self, offer: Offer) -> Refused<Vec<Reply>> {
        self.receiving = None;
        let have = match offer.kind {
            FileKind::Image => {
                if offer.file.bytes > MAX_IMAGE_BYTES {
                    let found = offer.file.bytes;
                    let reason =
                        format!("the image has {found} bytes; at most {MAX_IMAGE_BYTES} are taken");
                    return Err(failed(Code::NoRoom, reason));
                }
                self.images.begin(offer.file)
            }
            FileKind::Bundle | FileKind::Gallery | FileKind::Signature => {
                let reason = "this board has no store: it serves the files that it was started \
                              with (start it with --store)";
                return Err(failed(Code::NoStore, reason));
            }
        };
        self.receiving = Some(offer);
        let mut replies = vec![Reply::Have { bytes: have }];
        if have == offer.file.bytes {
            replies.push(self.stored(&offer)?);
        }
        Ok(replies)
    }

    fn chunk(&mut self, offset: u64, data: &[u8]) -> Refused<Vec<Reply>> {
        // After a refusal the rest of the file may still be on its way.
        let Some(offer) = self.receiving else {
            return Ok(Vec::new());
        };
        if data.len() > CHUNK_BYTES || !self.images.write(offset, data) {
            self.receiving = None;
            return Err(failed(Code::Request, "the bytes do not continue the file"));
        }
        if offset + data.len() as u64 == offer.file.bytes {
            return Ok(vec![self.stored(&offer)?]);
        }
        Ok(Vec::new())
    }

    fn stored(&mut self, offer: &Offer) -> Refused<Reply> {
        self.receiving = None;
        if self.images.finish(offer.file) {
            return Ok(Reply::Stored);
        }
        let reason = "what arrived is not what was offered: its hash is another";
        Err(failed(Code::OtherContent, reason))
    }

    fn query(&mut self, image: [u8; 32], top_k: u16) -> Refused<Reply> {
        if !(1..=MAX_MATCHES).contains(&top_k) {
            let reason = format!("{top_k} matches are asked for; 1 to {MAX_MATCHES} are given");
            return Err(failed(Code::Request, reason));
        }
        let bytes = self.images.get(Fingerprint(image));
        let bytes = bytes.ok_or_else(|| failed(Code::Absent, "this image was not sent"))?;
        let answer = look(&self.served.store, bytes, image, usize::from(top_k))
            .map_err(|err| failed(Code::Image, hints::chain_of(err.as_ref())))?;
        Ok(Reply::Answer(self.results.keep(answer)))
    }

    fn results(&self) -> Vec<Reply> {
        let answers = self.results.unread().cloned().map(Reply::Answer);
        answers.chain([Reply::Done]).collect()
    }

    fn find(&self, kind: FileKind) -> Refused<Reply> {
        match kind {
            FileKind::Bundle => Ok(Reply::File(self.served.bundle)),
            FileKind::Gallery => Ok(Reply::File(self.served.gallery)),
            FileKind::Image | FileKind::Signature => {
                Err(failed(Code::Request, "bundles and galleries can be pulled"))
            }
        }
    }

    fn content(&self, hash: [u8; 32], offset: u64) -> Refused<Content> {
        let served = &self.served;
        let known = [
            (served.bundle, &served.files.bundle),
            (served.gallery, &served.files.gallery),
        ];
        let found = known.into_iter().find(|(file, _)| file.hash == hash);
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
        let one = |reply| Ok(vec![reply]);
        match ask {
            Ask::Hello { .. } => one(Reply::Hello(self.hello.clone())),
            Ask::Info => self
                .info()
                .map(|info| vec![Reply::Info(info)])
                .map_err(|err| failed(Code::Internal, hints::chain_of(err.as_ref()))),
            Ask::Offer(offer) => self.offer(offer),
            Ask::Chunk { offset, data } => self.chunk(offset, &data),
            Ask::Query { image, top_k } => one(self.query(image, top_k)?),
            Ask::Results => Ok(self.results()),
            Ask::Acknowledge { through } => {
                self.results.acknowledge(through);
                one(Reply::Done)
            }
            Ask::Find { kind } => one(self.find(kind)?),
            Ask::Activate(_) | Ask::Rollback { .. } => Err(failed(
                Code::NoStore,
                "this board has no store: what it serves is changed where it was started",
            )),
            _ => Err(failed(
                Code::Unknown,
                "this board does not know the request",
            )),
        }
    }
}

impl Answers for Board {
    fn answer(&mut self, ask: Ask) -> Outcome {
        if let Ask::Read { hash, offset } = ask {
            return match self.content(hash, offset) {
                Ok(content) => Outcome::Send(content),
                Err(refusal) => Outcome::reply(refusal),
            };
        }
        Outcome::Say(self.replies(ask).unwrap_or_else(|refusal| vec![refusal]))
    }

    fn begin_session(&mut self) {
        self.receiving = None;
    }

    fn recover(&mut self) -> anyhow::Result<()> {
        self.receiving = None;
        self.images = Images::default();
        self.served = Served::open(&self.files).context("could not open what was served again")?;
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

/// Finds an image in the gallery.
fn look(store: &Store, bytes: &[u8], image: [u8; 32], k: usize) -> anyhow::Result<Answer> {
    let matcher = store.matcher()?;
    let encoder = store.encoder();
    let started = Instant::now();
    let samples = decode(bytes, &Limits::DEFAULT)?;
    let decoded = Instant::now();
    let pixels = prepare(&samples, encoder.preprocess());
    let prepared = Instant::now();
    let embedding = encoder.encode(&pixels)?;
    let encoded = Instant::now();
    let matches = matcher.search(&embedding, k, None);
    let searched = Instant::now();
    let mut texts = String::new();
    let found = matches
        .iter()
        .map(|found: &Match| {
            let entry = matcher.gallery().entry(found.row);
            let (label, name) = entry.map_or(("", ""), |entry| (entry.label, entry.name));
            let label = cut(label, MAX_LABEL_BYTES);
            let name = cut(name, MAX_NAME_BYTES);
            texts.push_str(label);
            texts.push_str(name);
            Found {
                id: found.id.0,
                score: found.score,
                label_bytes: label.len() as u16,
                name_bytes: name.len() as u16,
            }
        })
        .collect();
    Ok(Answer {
        result: 0,
        image,
        space: encoder.space().0.0,
        found,
        texts,
        verdict: None,
        decode_micros: micros(decoded - started),
        preprocess_micros: micros(prepared - decoded),
        encode_micros: micros(encoded - prepared),
        search_micros: micros(searched - encoded),
    })
}
