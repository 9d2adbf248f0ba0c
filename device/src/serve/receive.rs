//! Files on their way to the board: images into memory, bundles and galleries into the
//! store, signatures beside them.

use eyas_shared::link::message::{
    CHUNK_BYTES, Code, FileKind, MAX_REASON_BYTES, Offer, Reply, cut,
};
use eyas_shared::signature::MAX_TEXT_BYTES;

use super::images::{Images, MAX_IMAGE_BYTES};
use crate::hints;
use crate::slots::{Disk, Slots, SlotsError, Staging};
use crate::update::UpdateError;

/// Why something can not be.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    reason: String,
}

impl From<Refusal> for Reply {
    fn from(Refusal { code, reason }: Refusal) -> Self {
        Self::Failed { code, reason }
    }
}

pub(super) type Refused<T> = Result<T, Refusal>;

pub(super) fn failed(code: Code, reason: impl Into<String>) -> Refusal {
    let reason: String = reason.into();
    let reason = cut(&reason, MAX_REASON_BYTES).to_owned();
    Refusal { code, reason }
}

/// What an error of the store is for the host.
pub(super) fn refusal(err: &SlotsError) -> Refusal {
    let code = match err {
        SlotsError::Length { .. } | SlotsError::NoSpace { .. } => Code::NoRoom,
        SlotsError::OtherContent { .. } => Code::OtherContent,
        SlotsError::Absent { .. } | SlotsError::NoPartner { .. } => Code::Absent,
        SlotsError::OutOfOrder { .. } | SlotsError::NotWhole { .. } => Code::Request,
        SlotsError::Empty { .. } | SlotsError::NothingBefore => Code::NotServing,
        SlotsError::Io { .. } | SlotsError::Busy { .. } | SlotsError::NotSetUp { .. } => {
            Code::Internal
        }
        _ => Code::Refused,
    };
    let reason = match err {
        // Nobody over there knows the files of this store by their paths.
        SlotsError::Update(UpdateError::Delta { source, .. }) => match hints::of_cause(source) {
            Some(hint) => format!("{source}; {hint}"),
            None => source.to_string(),
        },
        err => hints::chain_of(err),
    };
    failed(code, reason)
}

/// Where the bytes of the file in progress go.
enum Target<'s> {
    Image,
    Store(Staging<'s, Disk>),
    Signature(Vec<u8>),
}

/// The file that is being received.
pub(super) struct Receiver<'s> {
    slots: Option<&'s Slots>,
    pub(super) images: Images,
    current: Option<(Offer, Target<'s>)>,
}

impl<'s> Receiver<'s> {
    pub(super) fn new(slots: Option<&'s Slots>) -> Self {
        Self {
            slots,
            images: Images::default(),
            current: None,
        }
    }

    /// What was begun is broken off; what came of it stays.
    pub(super) fn break_off(&mut self) {
        if let Some((_, Target::Store(mut staging))) = self.current.take() {
            // Whoever continues asks for what is there: a failure costs time, no more.
            let _ = staging.checkpoint();
        }
    }

    /// Begins or continues a file.
    pub(super) fn offer(&mut self, offer: Offer) -> Refused<Vec<Reply>> {
        self.break_off();
        let (have, target) = self.begin(&offer)?;
        let is_whole = have == offer.file.bytes;
        self.current = Some((offer, target));
        let mut replies = vec![Reply::Have { bytes: have }];
        if is_whole {
            replies.push(self.finish()?);
        }
        Ok(replies)
    }

    fn begin(&mut self, offer: &Offer) -> Refused<(u64, Target<'s>)> {
        let bytes = offer.file.bytes;
        let at_most = |limit: u64| match bytes {
            0 => Err(failed(Code::Request, "the file is empty")),
            _ if bytes > limit => {
                let reason = format!("the file has {bytes} bytes; at most {limit} are taken");
                Err(failed(Code::NoRoom, reason))
            }
            _ => Ok(()),
        };
        if offer.kind == FileKind::Image {
            at_most(MAX_IMAGE_BYTES)?;
            return Ok((self.images.begin(offer.file), Target::Image));
        }
        let slots = self.slots.ok_or_else(|| {
            let reason = "this board has no store: it serves the files that it was started with";
            failed(Code::NoStore, reason)
        })?;
        if offer.kind == FileKind::Signature {
            at_most(MAX_TEXT_BYTES as u64)?;
            return Ok((0, Target::Signature(Vec::new())));
        }
        let staging = slots.stage(offer.file.fingerprint(), bytes);
        let staging = staging.map_err(|err| refusal(&err))?;
        Ok((staging.have(), Target::Store(staging)))
    }

    /// Takes the next bytes of the file.
    pub(super) fn chunk(&mut self, offset: u64, data: &[u8]) -> Refused<Vec<Reply>> {
        // After a refusal the rest of the file may still be on its way.
        let Some((offer, target)) = &mut self.current else {
            return Ok(Vec::new());
        };
        let end = offset.saturating_add(data.len() as u64);
        let is_last = end == offer.file.bytes;
        let taken = if data.is_empty() || data.len() > CHUNK_BYTES || end > offer.file.bytes {
            Err(out_of_order())
        } else {
            match target {
                Target::Image if self.images.write(offset, data) => Ok(()),
                Target::Signature(text) if text.len() as u64 == offset => {
                    text.extend_from_slice(data);
                    Ok(())
                }
                Target::Store(staging) => staging.write(offset, data).map_err(|err| refusal(&err)),
                _ => Err(out_of_order()),
            }
        };
        if let Err(refusal) = taken {
            self.break_off();
            return Err(refusal);
        }
        match is_last {
            true => Ok(vec![self.finish()?]),
            false => Ok(Vec::new()),
        }
    }

    /// All bytes are there: checks them.
    fn finish(&mut self) -> Refused<Reply> {
        let other = || {
            let reason = "what arrived is not what was offered: its hash is another";
            failed(Code::OtherContent, reason)
        };
        match self.current.take() {
            Some((offer, Target::Image)) if self.images.finish(offer.file) => Ok(Reply::Stored),
            Some((_, Target::Store(staging))) => {
                staging.finish().map_err(|err| refusal(&err))?;
                Ok(Reply::Stored)
            }
            Some((offer, Target::Signature(text))) => {
                let found = eyas_shared::fingerprint::Fingerprint::of_bytes(&text);
                let text = std::str::from_utf8(&text).map_err(|_| other())?;
                if found != offer.file.fingerprint() {
                    return Err(other());
                }
                let slots = self.slots.ok_or_else(other)?;
                let about = eyas_shared::fingerprint::Fingerprint(offer.about);
                slots
                    .put_signature(about, text)
                    .map_err(|err| refusal(&err))?;
                Ok(Reply::Stored)
            }
            _ => Err(other()),
        }
    }
}

fn out_of_order() -> Refusal {
    failed(Code::Request, "the bytes do not continue the file")
}
