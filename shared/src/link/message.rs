//! What host and board say to each other, as postcard values behind a length.
//!
//! These are records of the wire, converted by hand from and to what the programs use:
//! variants and fields are appended, never reordered or removed, because postcard numbers
//! them by position. They hold no maps, no nesting of lists and no paths, and every message
//! is bounded before it is decoded, so that its bytes bound the memory.
//!
//! Every request may come twice without harm: files go by their content, switching names
//! what is to serve, rolling back names what is to be left.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bench::{Candidate, Facts, Moment, Operator, Prepared, Sample, Used, Window};
use super::endpoint::Endpoint;
use crate::fingerprint::Fingerprint;

/// Largest message, without its length.
pub const MAX_MESSAGE: usize = 16 << 10;

/// Content of a file in one message.
pub const CHUNK_BYTES: usize = 4096;

/// Most matches of one answer.
pub const MAX_MATCHES: u16 = 32;

/// Longest label and name in an answer, in bytes; longer ones are cut.
pub const MAX_LABEL_BYTES: usize = 120;
/// See [`MAX_LABEL_BYTES`].
pub const MAX_NAME_BYTES: usize = 340;

/// Longest explanation of a failure, in bytes.
pub const MAX_REASON_BYTES: usize = 2000;

/// What a pushed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A student.
    Bundle,
    /// A gallery.
    Gallery,
    /// An image to be asked about; kept in memory only.
    Image,
    /// Who vouches for a bundle or gallery; names the file by [`Offer::about`].
    Signature,
    /// What turns the gallery that serves into another.
    Delta,
}

/// A file by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// SHA-256.
    pub hash: [u8; 32],
    /// Length.
    pub bytes: u64,
}

impl FileId {
    /// The hash as the programs use it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.hash)
    }
}

/// A file that the host wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is.
    pub kind: FileKind,
    /// Which.
    pub file: FileId,
    /// For a signature: hash of the file that it vouches for; else zeros.
    pub about: [u8; 32],
}

/// What is to serve; nothing in a field leaves what serves now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activate {
    /// Hash of a bundle.
    pub bundle: Option<[u8; 32]>,
    /// Hash of a gallery.
    pub gallery: Option<[u8; 32]>,
}

/// What the host asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ask {
    /// Who is there. Answered by [`Reply::Hello`].
    Hello {
        /// Name and version of the host's program.
        program: String,
    },
    /// What the board serves. Answered by [`Reply::Info`].
    Info,
    /// Begins or continues a transfer. Answered by [`Reply::Have`], then by
    /// [`Reply::Stored`] once all bytes have come and their hash was checked.
    Offer(Offer),
    /// The next bytes of the file that was offered last. Not answered.
    Chunk {
        /// Of the first byte in the file.
        offset: u64,
        /// At most [`CHUNK_BYTES`].
        data: Vec<u8>,
    },
    /// Lets stored files serve. Answered by [`Reply::Serving`].
    Activate(Activate),
    /// Goes back to the generation before. Answered by [`Reply::Serving`].
    Rollback {
        /// The generation to be left: if another one serves, nothing is done.
        from: u64,
    },
    /// Finds an image that was sent. Answered by [`Reply::Answer`].
    Query {
        /// Hash of the image.
        image: [u8; 32],
        /// 1 to [`MAX_MATCHES`].
        top_k: u16,
    },
    /// Asks for results that nobody has read. Answered by [`Reply::Answer`] for each, in
    /// order, then by [`Reply::Done`].
    Results,
    /// Results up to this number were read and need not be kept. Answered by
    /// [`Reply::Done`].
    Acknowledge {
        /// The last one that was read.
        through: u64,
    },
    /// What serves, as a file. Answered by [`Reply::File`].
    Find {
        /// A bundle or a gallery.
        kind: FileKind,
    },
    /// Bytes of a file on the board. Answered by [`Reply::Chunk`]s to the end of the file,
    /// then by [`Reply::Done`].
    Read {
        /// Which file.
        hash: [u8; 32],
        /// Where to begin.
        offset: u64,
    },
    /// Changes the line's speed once the answer has arrived. Answered by [`Reply::Done`].
    Speed {
        /// In baud, one of [`Hello::speeds`].
        baud: u32,
    },
    /// The host leaves. Answered by [`Reply::Done`], the last message.
    Goodbye,
    /// What the board is. Answered by [`Reply::Facts`], then by [`Reply::Moment`].
    Facts,
    /// Starts a student and a gallery beside what serves, in a process of its own, in the
    /// place of one that was started before. Answered by [`Reply::Prepared`].
    Prepare(Candidate),
    /// Finds an image that was sent, with the candidate. Answered by [`Reply::Answer`], whose
    /// result is 0, then by [`Reply::Embedding`]s, then by [`Reply::Done`].
    Try {
        /// Hash of the image.
        image: [u8; 32],
        /// 1 to [`MAX_MATCHES`].
        top_k: u16,
    },
    /// Measures the candidate. Answered by [`Reply::Moment`] before and after, then by
    /// [`Reply::Samples`], then by [`Reply::Done`].
    Measure(Window),
    /// Measures the student's operators one by one, which takes longer than a query: their
    /// shares mean something, their sum does not. Answered by [`Reply::Operators`], then by
    /// [`Reply::Done`].
    Profile {
        /// Hash of an image that was sent.
        image: [u8; 32],
        /// Runs that the medians are of, 1 to 1000.
        runs: u16,
    },
    /// Ends the candidate's process. Answered by [`Reply::Used`].
    Conclude,
    /// Makes a gallery of the one that serves and a delta that was sent, to be activated.
    /// Answered by [`Reply::File`], with the gallery that serves if the delta leads there.
    Apply {
        /// Hash of the delta.
        delta: [u8; 32],
    },
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Counts up; answers carry it.
    pub op: u32,
    /// What is asked.
    pub ask: Ask,
}

/// Who the board is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the board's program.
    pub program: String,
    /// Another number after every start of the board's program.
    pub boot: u64,
    /// Speeds that the board's port can take; empty if it has none to set.
    pub speeds: Vec<u32>,
    /// Whether files can be pushed: the board has a store.
    pub takes_files: bool,
    /// Whether pushed files need a signature.
    pub needs_signatures: bool,
    /// Largest image that is taken.
    pub max_image_bytes: u64,
    /// Largest bundle or gallery that is taken.
    pub max_file_bytes: u64,
}

/// The student that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudentInfo {
    /// Its file.
    pub file: FileId,
    /// Name, for people.
    pub name: String,
    /// `f32`, `f16` or `int8`.
    pub precision: String,
    /// Components of its embeddings.
    pub dim: u32,
    /// The space of its embeddings.
    pub space: [u8; 32],
}

/// The gallery that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GalleryInfo {
    /// Its file.
    pub file: FileId,
    /// Number of rows.
    pub n_rows: u32,
    /// Number of labels.
    pub n_labels: u32,
    /// Name of the teacher that embedded it.
    pub teacher: String,
}

/// What the board is and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The student, if one serves.
    pub student: Option<StudentInfo>,
    /// The gallery, if one serves.
    pub gallery: Option<GalleryInfo>,
    /// Number of the generation that serves; 0 without a store.
    pub generation: u64,
    /// Whether that generation still has to prove itself.
    pub is_on_trial: bool,
    /// Why the last change was refused or taken back; empty if it was not.
    pub last_refusal: String,
    /// Milliseconds since the board's program began.
    pub uptime_ms: u64,
    /// Results that nobody has read.
    pub n_unread: u32,
    /// Queries answered since the start.
    pub n_answered: u64,
    /// Frames that the board received whole.
    pub frames: u64,
    /// Runs of bytes that the board received and that were no whole frame.
    pub damaged: u64,
}

/// A gallery image that was found; its label and name stand one after the other in
/// [`Answer::texts`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Identity of the image.
    pub id: [u8; 16],
    /// Dot product of the embeddings.
    pub score: f32,
    /// Length of the label in bytes.
    pub label_bytes: u16,
    /// Length of the name in bytes.
    pub name_bytes: u16,
}

/// What the best matches amount to, where the bundle was calibrated for the gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The image shows something of the gallery.
    Match,
    /// It may or may not.
    Uncertain,
    /// It does not.
    Unknown,
}

/// The answer to one query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Counts up from 1 with every answer of this board since its start.
    pub result: u64,
    /// Hash of the image.
    pub image: [u8; 32],
    /// The space of the embeddings.
    pub space: [u8; 32],
    /// Best first.
    pub found: Vec<Found>,
    /// Label and name of each, without separators.
    pub texts: String,
    /// None without a calibration.
    pub verdict: Option<Verdict>,
    /// File bytes to samples, in microseconds.
    pub decode_micros: u64,
    /// Samples to pixels, in microseconds.
    pub preprocess_micros: u64,
    /// Pixels to the embedding, in microseconds.
    pub encode_micros: u64,
    /// Embedding to matches, in microseconds.
    pub search_micros: u64,
}

impl Answer {
    /// Matches with label and name; none if the texts are not as long as the matches say.
    #[must_use]
    pub fn matches(&self) -> Option<Vec<(Found, &str, &str)>> {
        let mut rest = self.texts.as_str();
        let mut take = |bytes: u16| {
            let (text, after) = rest.split_at_checked(usize::from(bytes))?;
            rest = after;
            Some(text)
        };
        let matches: Option<Vec<_>> = self
            .found
            .iter()
            .map(|found| Some((*found, take(found.label_bytes)?, take(found.name_bytes)?)))
            .collect();
        matches.filter(|_| rest.is_empty())
    }
}

/// Why something was not done. The numbers are stable; texts may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// The request makes no sense.
    Request,
    /// The board has no store, so that nothing can be pushed to it.
    NoStore,
    /// The file is too large, or there is no room for it.
    NoRoom,
    /// What arrived is not what was offered.
    OtherContent,
    /// There is no such file.
    Absent,
    /// The file was refused: signature, space, limits, trial.
    Refused,
    /// The image can not be used.
    Image,
    /// No student and gallery serve.
    NotServing,
    /// Another generation serves than the request names.
    OtherGeneration,
    /// The board failed.
    Internal,
    /// This program of the board does not know the request.
    Unknown,
}

/// What the board answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reply {
    /// Who the board is.
    Hello(Hello),
    /// What it serves.
    Info(Info),
    /// The transfer goes on from here.
    Have {
        /// Bytes that are there.
        bytes: u64,
    },
    /// The file is whole, and is what was offered.
    Stored,
    /// What serves now.
    Serving {
        /// Number of the generation.
        generation: u64,
        /// Whether it still has to prove itself.
        is_on_trial: bool,
    },
    /// What was found.
    Answer(Answer),
    /// A file on the board.
    File(FileId),
    /// Bytes of it.
    Chunk {
        /// Of the first byte in the file.
        offset: u64,
        /// At most [`CHUNK_BYTES`].
        data: Vec<u8>,
    },
    /// Done; nothing to say.
    Done,
    /// Not done.
    Failed {
        /// Why, for programs.
        code: Code,
        /// Why, for people; at most [`MAX_REASON_BYTES`].
        reason: String,
    },
    /// What the board is.
    Facts(Facts),
    /// How it is at the moment.
    Moment(Moment),
    /// A candidate runs.
    Prepared(Prepared),
    /// Components of the embedding of the image before, in order.
    Embedding {
        /// At most [`COMPONENTS_PER_MESSAGE`](super::bench::COMPONENTS_PER_MESSAGE).
        components: Vec<f32>,
    },
    /// What queries took, in the order of their asking.
    Samples {
        /// At most [`SAMPLES_PER_MESSAGE`](super::bench::SAMPLES_PER_MESSAGE).
        samples: Vec<Sample>,
    },
    /// What operators took, in the order of their running.
    Operators {
        /// At most [`OPERATORS_PER_MESSAGE`](super::bench::OPERATORS_PER_MESSAGE).
        operators: Vec<Operator>,
    },
    /// What a candidate's process has used; it has ended.
    Used(Used),
}

/// A reply with the number of the request that it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Of the request.
    pub op: u32,
    /// What is answered.
    pub reply: Reply,
}

/// Bytes of the stream that are no message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// A length that no message has.
    #[error("a message claims {bytes} bytes; messages have 1 to {MAX_MESSAGE}")]
    Length {
        /// What it claims.
        bytes: usize,
    },
    /// Bytes that say nothing that this program knows.
    #[error("a message of {bytes} bytes can not be understood")]
    Content {
        /// Its length.
        bytes: usize,
    },
}

/// Reads one message, all of it.
///
/// # Errors
/// [`MessageError`] if the bytes are not exactly one.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, MessageError> {
    if !(1..=MAX_MESSAGE).contains(&bytes.len()) {
        return Err(MessageError::Length { bytes: bytes.len() });
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(MessageError::Content { bytes: bytes.len() }),
    }
}

/// A message with its length in front, as it stands in the stream.
///
/// # Panics
/// If it is larger than [`MAX_MESSAGE`]: senders cut what they say.
#[must_use]
pub fn to_bytes<T: Serialize>(message: &T) -> Vec<u8> {
    let content = postcard::to_stdvec(message).expect("messages hold nothing but plain data");
    assert!(
        content.len() <= MAX_MESSAGE,
        "a message is within its bound"
    );
    let mut bytes = (content.len() as u16).to_le_bytes().to_vec();
    bytes.extend(content);
    bytes
}

/// Puts messages of a stream together, in bounded memory.
#[derive(Default)]
pub struct Inbox {
    buffer: Vec<u8>,
}

impl Inbox {
    /// An inbox at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next whole message that has arrived.
    ///
    /// # Errors
    /// [`MessageError`] if there is something else; the stream can not be read any further
    /// after a wrong length.
    pub fn next<T: for<'a> Deserialize<'a>>(
        &mut self,
        endpoint: &mut Endpoint,
    ) -> Result<Option<T>, MessageError> {
        loop {
            let wanted = match self.buffer.first_chunk::<2>() {
                None => 2,
                Some(length) => match usize::from(u16::from_le_bytes(*length)) {
                    bytes @ 1..=MAX_MESSAGE => 2 + bytes,
                    bytes => return Err(MessageError::Length { bytes }),
                },
            };
            if wanted > 2 && self.buffer.len() == wanted {
                let message = read(&self.buffer[2..]);
                self.buffer.clear();
                return message.map(Some);
            }
            let have = self.buffer.len();
            self.buffer.resize(wanted, 0);
            let n = endpoint.read(&mut self.buffer[have..]);
            self.buffer.truncate(have + n);
            if n == 0 {
                return Ok(None);
            }
        }
    }
}

/// Cuts a text to at most `max` bytes, between two characters.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn the_largest_answer_is_within_the_bound() {
        let found = Found {
            id: [255; 16],
            score: 1.0,
            label_bytes: MAX_LABEL_BYTES as u16,
            name_bytes: MAX_NAME_BYTES as u16,
        };
        let n = usize::from(MAX_MATCHES);
        let answer = Answer {
            result: u64::MAX,
            image: [255; 32],
            space: [255; 32],
            found: vec![found; n],
            texts: "x".repeat(n * (MAX_LABEL_BYTES + MAX_NAME_BYTES)),
            verdict: Some(Verdict::Unknown),
            decode_micros: u64::MAX,
            preprocess_micros: u64::MAX,
            encode_micros: u64::MAX,
            search_micros: u64::MAX,
        };
        let response = Response {
            op: u32::MAX,
            reply: Reply::Answer(answer.clone()),
        };
        let bytes = to_bytes(&response);
        assert_eq!(read::<Response>(&bytes[2..]), Ok(response));
        assert_eq!(answer.matches().unwrap().len(), n);
        let cut_off = Answer {
            texts: answer.texts[1..].to_owned(),
            ..answer
        };
        assert_eq!(cut_off.matches(), None);
    }

    #[test]
    fn requests_are_these_bytes_on_the_wire() {
        let request = |op, ask| to_bytes(&Request { op, ask });
        assert_eq!(request(1, Ask::Info), [2, 0, 1, 1]);
        let chunk = Ask::Chunk {
            offset: 300,
            data: vec![7, 8],
        };
        assert_eq!(request(200, chunk), [8, 0, 200, 1, 3, 172, 2, 2, 7, 8]);
        assert_eq!(request(3, Ask::Goodbye), [2, 0, 3, 12]);
    }

    #[test]
    fn nothing_may_follow_a_message() {
        let bytes = to_bytes(&Request {
            op: 1,
            ask: Ask::Info,
        });
        assert!(read::<Request>(&bytes[2..]).is_ok());
        let longer = [&bytes[2..], &[0]].concat();
        assert_eq!(
            read::<Request>(&longer),
            Err(MessageError::Content { bytes: 3 })
        );
        assert_eq!(read::<Request>(&[]), Err(MessageError::Length { bytes: 0 }));
    }

    #[test]
    fn random_bytes_are_refused_or_read_without_harm() {
        let mut random = Random::new(17);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..1 + random.below(60))
                .map(|_| random.bits() as u8)
                .collect();
            let _ = read::<Request>(&bytes);
            let _ = read::<Response>(&bytes);
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("abc", 9), "abc");
    }
}
