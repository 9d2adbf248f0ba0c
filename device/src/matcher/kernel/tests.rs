use eyas_shared::random::Random;
use proptest::prelude::*;

use super::*;

fn bytes(random: &mut Random, n: usize) -> Vec<u8> {
    (0..n).map(|_| random.bits() as u8).collect()
}

/// Codes as galleries hold them: -128 is none of them.
fn int8_codes(random: &mut Random, n: usize) -> Vec<u8> {
    let code = |random: &mut Random| (random.below(255) as i16 - 127) as i8;
    (0..n).map(|_| code(random).cast_unsigned()).collect()
}

proptest! {
    #[test]
    fn every_kernel_gives_the_same_int8_products(
        n_blocks in 0_usize..5,
        columns in prop_oneof![1_usize..40, Just(2048)],
        n_queries in 0..=MAX_QUERIES,
        extreme: bool,
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let mut codes = int8_codes(&mut random, n_blocks * columns * INT8_UNIT);
        if extreme {
            codes.fill(127);
        }
        let queries: Vec<Vec<[i8; 4]>> = (0..n_queries)
            .map(|_| {
                let word = |random: &mut Random| {
                    std::array::from_fn(|_| if extreme { -127 } else { random.below(255) as i16 as i8 })
                };
                (0..columns).map(|_| word(&mut random).map(|q: i8| q.max(-127))).collect()
            })
            .collect();
        let queries: Vec<&[[i8; 4]]> = queries.iter().map(Vec::as_slice).collect();
        let empty = vec![vec![[1; INT8_BLOCK]; n_blocks]; n_queries];
        let mut expected = empty.clone();
        Kernel::Scalar.int8(&codes, columns, &queries, &mut expected);
        for kernel in Kernel::available() {
            let mut found = empty.clone();
            kernel.int8(&codes, columns, &queries, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernel.name());
        }
    }

    #[test]
    fn every_kernel_gives_the_same_sums_of_table_entries(
        n_blocks in 0_usize..5,
        columns in prop_oneof![1_usize..40, 250_usize..260, Just(1024)],
        extreme: bool,
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let codes = bytes(&mut random, n_blocks * columns * INT2_BLOCK);
        let entry = |random: &mut Random| if extreme { 120 } else { random.below(121) as u8 };
        let tables: Vec<Tables> = (0..columns)
            .map(|_| std::array::from_fn(|_| std::array::from_fn(|_| entry(&mut random))))
            .collect();
        let empty = vec![[1; INT2_BLOCK]; n_blocks];
        let mut expected = empty.clone();
        Kernel::Scalar.int2(&codes, &tables, &mut expected);
        for kernel in Kernel::available() {
            let mut found = empty.clone();
            kernel.int2(&codes, &tables, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernel.name());
        }
    }
}
