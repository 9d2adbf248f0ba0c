//! How much memory a piece of work takes, as the allocator counts it.
//!
//! Two counters beside every allocation of this crate's programs; libtorch's own are not
//! counted. What the system keeps in caches and maps is not either, so the same work gives
//! the same number.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Does some work; the most bytes that were allocated at once during it, beyond those that
/// were before. What other threads allocate meanwhile is counted too.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let done = work();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    (done, peak as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_was_there_at_once_is_counted() {
        let mib = |n: usize| vec![1_u8; n << 20];
        let (last, peak) = peak_of(|| {
            drop((mib(30), mib(20)));
            mib(10)
        });
        assert_eq!(last.len(), 10 << 20);
        assert!(peak >= 50 << 20, "{peak}");
    }
}
