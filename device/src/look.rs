//! From the bytes of an image file to an answer, with what each stage took.
//!
//! The one way there: `query`, `serve`, `watch` and every measurement take it, so a time
//! that was measured is a time that users get.

use std::cell::Cell;
use std::time::{Duration, Instant};

use eyas_shared::link::bench::Sample;
use eyas_shared::preprocess::{DecodeError, Limits, Preprocessor};
use thiserror::Error;

use crate::answer::{Answer, Answerer, Asked, Request, Rerank};
use crate::encoder::{EncodeError, Encoder};

/// Why an image was not encoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LookError {
    /// The image can not be read.
    #[error(transparent)]
    Image(#[from] DecodeError),
    /// The student can not encode it.
    #[error(transparent)]
    Student(#[from] EncodeError),
}

impl LookError {
    /// Whether another image may well be encoded. Some images have no content, and no
    /// direction.
    #[must_use]
    pub fn is_of_the_image(&self) -> bool {
        matches!(
            self,
            Self::Image(_) | Self::Student(EncodeError::NoDirection { .. })
        )
    }
}

/// An image that was encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Unit embedding.
    pub embedding: Vec<f32>,
    /// What it took; nothing was searched yet.
    pub sample: Sample,
}

/// An image that was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    /// What was found.
    pub answer: Answer,
    /// The query: its embedding.
    pub asked: Asked,
    /// What each stage took.
    pub sample: Sample,
}

/// A request for the best `k` rows, in the order of their scores.
#[must_use]
pub fn plain_request(k: usize) -> Request {
    Request {
        k,
        by_label: false,
        rerank: Rerank {
            expansion: None,
            votes: None,
        },
        exclude: None,
    }
}

/// Decodes, prepares and encodes.
///
/// # Errors
/// [`LookError`] tells whose fault it is.
pub fn encode(encoder: &Encoder, bytes: &[u8]) -> Result<Encoded, LookError> {
    // Taken out, not borrowed: what encodes may run another task of this thread meanwhile.
    let mut preprocessor = PREPROCESSOR.take().unwrap_or_default();
    let started = Instant::now();
    preprocessor.decode(bytes, &Limits::DEFAULT)?;
    let decoded = Instant::now();
    let pixels = preprocessor.prepare(encoder.preprocess());
    let prepared = Instant::now();
    let embedding = encoder.encode(pixels)?;
    let encoded = Instant::now();
    PREPROCESSOR.set(Some(preprocessor));
    Ok(Encoded {
        embedding,
        sample: Sample {
            decode: nanos(decoded - started),
            preprocess: nanos(prepared - decoded),
            encode: nanos(encoded - prepared),
            search: 0,
        },
    })
}

thread_local! {
    /// The memory that images pass through; the next image of a thread finds it again.
    static PREPROCESSOR: Cell<Option<Box<Preprocessor>>> = const { Cell::new(None) };
}

/// Searches, and judges what was found; `sample` gets what that took.
#[must_use]
pub fn answer(
    answerer: &Answerer<'_, '_>,
    asked: &Asked,
    request: &Request,
    sample: &mut Sample,
) -> Answer {
    let started = Instant::now();
    let answer = answerer.answer(asked, request);
    sample.search = nanos(started.elapsed());
    answer
}

/// All stages, for a query of one image.
///
/// # Errors
/// As [`encode`].
pub fn look(
    encoder: &Encoder,
    answerer: &Answerer<'_, '_>,
    bytes: &[u8],
    request: &Request,
) -> Result<Looked, LookError> {
    let Encoded {
        embedding,
        mut sample,
    } = encode(encoder, bytes)?;
    let asked = Asked::single(embedding);
    let answer = answer(answerer, &asked, request, &mut sample);
    Ok(Looked {
        answer,
        asked,
        sample,
    })
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
