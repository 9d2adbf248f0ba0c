//! Memory is counted for the whole process, so its test has one of its own: what tests beside
//! it give back would be missing in the count.

use eyas_host::memory::peak_of;

#[test]
fn the_most_that_was_there_at_once_is_counted() {
    // Nobody may see that the first two are not needed.
    let mib = |n: usize| std::hint::black_box(vec![1_u8; n << 20]);
    let (last, peak) = peak_of(|| {
        drop((mib(30), mib(20)));
        mib(10)
    });
    assert_eq!(last.len(), 10 << 20);
    assert!((50 << 20..51 << 20).contains(&peak), "{peak}");
}
