//! Which values share memory: those that are never needed at the same time.

use super::lanes::LANES;

/// Something that takes memory for some steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// f32 values.
    pub(super) len: usize,
    /// The step that writes it first and the last that reads it.
    pub(super) steps: [usize; 2],
}

/// Where each is put, in values from the start, at multiples of [`LANES`]; and the length of
/// all.
///
/// The largest first, each at the first gap among those that live when it does: greedy by
/// size (Pisarchyk and Lee, "Efficient memory management for deep neural net inference",
/// 2020).
pub(super) fn plan(needs: &[Need]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(needs[at].len), at));
    let mut places = vec![0; needs.len()];
    let mut placed: Vec<usize> = Vec::new();
    for at in order {
        let need = needs[at];
        let mut taken: Vec<[usize; 2]> = placed
            .iter()
            .filter(|&&other| meet(need.steps, needs[other].steps))
            .map(|&other| [places[other], places[other] + room(needs[other].len)])
            .collect();
        taken.sort_unstable();
        let mut start = 0;
        for [from, to] in taken {
            if start + room(need.len) <= from {
                break;
            }
            start = start.max(to);
        }
        places[at] = start;
        placed.push(at);
    }
    let end = |at: &usize| places[*at] + room(needs[*at].len);
    let total = placed.iter().map(end).max().unwrap_or(0);
    (places, total)
}

fn meet(a: [usize; 2], b: [usize; 2]) -> bool {
    a[0] <= b[1] && b[0] <= a[1]
}

fn room(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_that_live_together_never_overlap(
            needs in prop::collection::vec((1_usize..500, 0_usize..20, 0_usize..6), 0..40),
        ) {
            let needs: Vec<Need> = needs
                .into_iter()
                .map(|(len, from, more)| Need { len, steps: [from, from + more] })
                .collect();
            let (places, total) = plan(&needs);
            for (a, need) in needs.iter().enumerate() {
                prop_assert!(places[a] % LANES == 0 && places[a] + need.len <= total);
                for (b, other) in needs.iter().enumerate().skip(a + 1) {
                    let apart = places[a] + need.len <= places[b]
                        || places[b] + other.len <= places[a];
                    prop_assert!(apart || !meet(need.steps, other.steps));
                }
            }
        }
    }

    #[test]
    fn a_chain_takes_the_memory_of_two_neighbors() {
        let chain: Vec<Need> = (0..10)
            .map(|at| Need {
                len: 160,
                steps: [at, at + 1],
            })
            .collect();
        assert_eq!(plan(&chain).1, 320);
    }
}
