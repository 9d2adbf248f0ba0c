//! Threads that go through the steps of a program together.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// One thread, or several.
pub(in crate::encoder) struct Team(Option<Mutex<ThreadPool>>);

/// Which member of a team somebody is.
#[derive(Clone, Copy)]
pub(super) struct Share {
    member: usize,
    n_members: usize,
}

impl Share {
    /// Its part of so many.
    pub(super) fn of(self, n: usize) -> Range<usize> {
        self.member * n / self.n_members..(self.member + 1) * n / self.n_members
    }
}

/// How often a member that waits looks before it lets others have its core.
const LOOKS: usize = 2000;

impl Team {
    /// The calling thread alone.
    pub(in crate::encoder) fn alone() -> Self {
        Self(None)
    }

    /// So many threads, which wait until they are needed.
    ///
    /// # Errors
    /// If the system gives none.
    pub(in crate::encoder) fn of(n_threads: usize) -> Result<Self, ThreadPoolBuildError> {
        if n_threads < 2 {
            return Ok(Self::alone());
        }
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build()?;
        Ok(Self(Some(Mutex::new(pool))))
    }

    /// Calls `step` for every step and member; a step begins when all members are done with
    /// the one before.
    pub(super) fn perform(&self, n_steps: usize, step: impl Fn(usize, Share) + Sync) {
        let Some(pool) = &self.0 else {
            let all = Share {
                member: 0,
                n_members: 1,
            };
            return (0..n_steps).for_each(|at| step(at, all));
        };
        // One run at a time: members of two would wait for each other.
        let pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = Gate::new(pool.current_num_threads());
        pool.broadcast(|context| {
            let share = Share {
                member: context.index(),
                n_members: context.num_threads(),
            };
            for at in 0..n_steps {
                step(at, share);
                gate.pass();
            }
        });
    }
}

/// Lets members through when all have come. Steps are short, so they wait awake.
struct Gate {
    n_members: usize,
    n_waiting: AtomicUsize,
    n_passed: AtomicUsize,
}

impl Gate {
    fn new(n_members: usize) -> Self {
        Self {
            n_members,
            n_waiting: AtomicUsize::new(0),
            n_passed: AtomicUsize::new(0),
        }
    }

    fn pass(&self) {
        let before = self.n_passed.load(Ordering::Acquire);
        if self.n_waiting.fetch_add(1, Ordering::AcqRel) + 1 == self.n_members {
            self.n_waiting.store(0, Ordering::Relaxed);
            self.n_passed.fetch_add(1, Ordering::Release);
            return;
        }
        let mut looks = 0;
        while self.n_passed.load(Ordering::Acquire) == before {
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}
