//! One job on many items, on all cores; results come back in the order of the items.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Calls `job` with every number below `n`. `done` is called on this thread after each.
///
/// The result does not depend on the number of cores as long as `job` is a function of
/// its argument.
pub(crate) fn map<T: Send>(n: usize, job: impl Fn(usize) -> T + Sync, done: impl Fn()) -> Vec<T> {
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    map_on(n_threads, n, job, done)
}

/// [`map`] on a given number of threads.
pub(crate) fn map_on<T: Send>(
    n_threads: usize,
    n: usize,
    job: impl Fn(usize) -> T + Sync,
    done: impl Fn(),
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let mut results: Vec<Option<T>> = (0..n).map(|_| None).collect();
    thread::scope(|scope| {
        // The bound keeps workers from running far ahead of a slow `done`.
        let (send, receive) = mpsc::sync_channel(64);
        for _ in 0..n_threads.clamp(1, n.max(1)) {
            let (send, next, job) = (send.clone(), &next, &job);
            scope.spawn(move || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= n || send.send((i, job(i))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        for (i, result) in receive {
            results[i] = Some(result);
            done();
        }
    });
    results
        .into_iter()
        .map(|result| result.expect("every number below n was handed out once"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    #[test]
    fn results_come_in_order_for_any_number_of_threads() {
        for n_threads in [1, 2, 7] {
            for n in [0, 1, 5, 300] {
                let calls = Cell::new(0);
                let squares = super::map_on(n_threads, n, |i| i * i, || calls.set(calls.get() + 1));
                assert_eq!(squares, (0..n).map(|i| i * i).collect::<Vec<_>>());
                assert_eq!(calls.get(), n);
            }
        }
    }
}
