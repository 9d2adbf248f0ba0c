//! How much memory a piece of work takes, as the allocator counts it.
//!
//! Two counters beside every allocation of this crate's programs; libtorch's own are not
//! counted. What the system keeps in caches and maps is not either, so the same work gives
//! the same number.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Does some work; the most bytes that were allocated at once during it, beyond those that
/// were before. What other threads allocate or give back meanwhile is counted too.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let done = work();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    (done, peak as u64)
}
