//! Hands images from the thread that reads a camera to the one that answers.
//!
//! A camera does not wait. When answering takes longer than the time between two images, the
//! image that waits is replaced by the newer one: an answer is never about a scene that is
//! long gone, and memory holds two images, not a queue of them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// An image with what happened before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its number in the stream, from 0, those that were dropped counted.
    pub number: u64,
    /// Images that were dropped since the one before, because they were stale.
    pub n_dropped: u64,
    /// Images that were left out since the stream began, because they were damaged.
    pub n_damaged: u64,
    /// The image file.
    pub bytes: Vec<u8>,
}

/// What happens to an image that waits when the next one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is dropped.
    Newest,
    /// The next one waits: for streams that come from a file.
    All,
}

#[derive(Default)]
struct State {
    waiting: Option<Frame>,
    n_frames: u64,
    n_dropped: u64,
    is_over: bool,
}

/// The place between the two threads.
pub struct Latest {
    policy: Policy,
    state: Mutex<State>,
    changed: Condvar,
}

impl Latest {
    /// An empty place.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the next image of the stream there. False once nobody takes images any more.
    pub fn put(&self, bytes: Vec<u8>, n_damaged: u64) -> bool {
        let mut state = self.state();
        while self.policy == Policy::All && state.waiting.is_some() && !state.is_over {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_over {
            return false;
        }
        if state.waiting.take().is_some() {
            state.n_dropped += 1;
        }
        state.waiting = Some(Frame {
            number: state.n_frames,
            n_dropped: 0,
            n_damaged,
            bytes,
        });
        state.n_frames += 1;
        self.changed.notify_all();
        true
    }

    /// Says that the stream, or the answering, has ended.
    pub fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    /// Waits for an image and takes it; none once the stream has ended.
    pub fn take(&self) -> Option<Frame> {
        let mut state = self.state();
        loop {
            if let Some(mut frame) = state.waiting.take() {
                frame.n_dropped = std::mem::take(&mut state.n_dropped);
                self.changed.notify_all();
                return Some(frame);
            }
            if state.is_over {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_image_gives_way_and_is_counted() {
        let latest = Latest::new(Policy::Newest);
        for name in 0..4 {
            assert!(latest.put(vec![name], 2));
        }
        let frame = latest.take().unwrap();
        assert_eq!((frame.number, frame.n_dropped, frame.n_damaged), (3, 3, 2));
        assert_eq!(frame.bytes, [3]);
        latest.put(vec![4], 2);
        latest.end();
        assert_eq!(latest.take().unwrap().n_dropped, 0);
        assert_eq!(latest.take(), None);
        assert!(!latest.put(vec![5], 2));
    }

    #[test]
    fn of_a_file_every_image_is_taken() {
        let latest = Latest::new(Policy::All);
        let mut numbers = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for name in 0..50 {
                    assert!(latest.put(vec![name], 0));
                }
                latest.end();
            });
            while let Some(frame) = latest.take() {
                assert_eq!(frame.n_dropped, 0);
                numbers.push(frame.number);
            }
        });
        assert!(numbers.into_iter().eq(0..50));
    }
}
