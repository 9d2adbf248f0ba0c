use eyas_shared::embedding::dot;
use eyas_shared::random::Random;
use half::f16;
use proptest::prelude::*;

use super::*;

fn bytes(random: &mut Random, n: usize) -> Vec<u8> {
    (0..n).map(|_| random.bits() as u8).collect()
}

/// A code as galleries hold them: -128 is none of them.
fn code(random: &mut Random) -> i8 {
    (random.below(255) as i16 - 127) as i8
}

fn tile(threshold: f32) -> Tile {
    Tile {
        threshold,
        ..Tile::new()
    }
}

/// Scores and hits; bits instead of floats: equal means equal.
fn bits(tile: &Tile) -> (Vec<u32>, Vec<u16>) {
    let scores = tile.scores.as_flattened().iter();
    (
        scores.map(|score| score.to_bits()).collect(),
        tile.hits.clone(),
    )
}

proptest! {
    #[test]
    fn every_kernel_gives_the_same_int8_scores(
        n_blocks in 0_usize..5,
        columns in prop_oneof![1_usize..40, Just(2048)],
        n_queries in 0..=MAX_QUERIES,
        extreme: bool,
        threshold in prop_oneof![Just(f32::NEG_INFINITY), -1e4_f32..1e4],
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let n_codes = n_blocks * columns * INT8_UNIT;
        let mut codes: Vec<u8> =
            (0..n_codes).map(|_| code(&mut random).cast_unsigned()).collect();
        if extreme {
            codes.fill(127);
        }
        let n_rows = n_blocks * INT8_BLOCK;
        let scales: Vec<[u8; 4]> =
            (0..n_rows).map(|_| (random.unit() as f32).to_le_bytes()).collect();
        let query = |random: &mut Random| Int8Query {
            words: (0..columns)
                .map(|_| [0; 4].map(|_: i8| if extreme { -127 } else { code(random) }))
                .collect(),
            scale: random.unit() as f32,
        };
        let queries: Vec<Int8Query> = (0..n_queries).map(|_| query(&mut random)).collect();
        let scored = |kernel: Kernel| {
            let mut tiles: Vec<Tile> = (0..n_queries).map(|_| tile(threshold)).collect();
            kernel.int8(&codes, &scales, &queries, &mut tiles);
            tiles.iter().map(bits).collect::<Vec<_>>()
        };
        let expected = scored(Kernel::Scalar);
        for kernel in Kernel::available() {
            prop_assert_eq!(&scored(kernel), &expected, "{}", kernel.name());
        }
    }

    #[test]
    fn every_kernel_gives_the_same_int2_bounds(
        n_blocks in 0_usize..12,
        columns in prop_oneof![1_usize..40, 250_usize..260, Just(1024)],
        extreme: bool,
        threshold in prop_oneof![Just(f32::NEG_INFINITY), -1e4_f32..1e4],
        margins in [-1e3_f32..1e3, -1e3_f32..1e3],
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let n_bytes = n_blocks * columns * INT2_BLOCK;
        let planes = [(); 2].map(|()| bytes(&mut random, n_bytes));
        let entry = |random: &mut Random| if extreme { 120 } else { random.below(121) as u8 };
        let tables: Vec<Tables> = (0..columns)
            .map(|_| std::array::from_fn(|_| std::array::from_fn(|_| entry(&mut random))))
            .collect();
        let query = Int2Query::of_tables(tables, random.unit() as f32, margins);
        let n_rows = n_blocks * INT2_BLOCK;
        let factors = [(); 2].map(|()| -> Vec<[u8; 2]> {
            (0..n_rows).map(|_| f16::from_f64(random.unit()).to_le_bytes()).collect()
        });
        let looked = |kernel: Kernel| {
            let (promising, tile) = both_looks(kernel, &planes, &factors, &query, threshold);
            (promising.sums.clone(), promising.blocks().to_vec(), bits(&tile))
        };
        let expected = looked(Kernel::Scalar);
        for kernel in Kernel::available() {
            prop_assert_eq!(&looked(kernel), &expected, "{}", kernel.name());
        }
        // Blocks that were left early hold nothing that a full look would find.
        let hits = |threshold: f32, floor: f32| {
            let (promising, tile) = both_looks(Kernel::best(), &planes, &factors, &query, threshold);
            let mut hits = Vec::new();
            tile.for_hits(|row, bound| {
                if bound >= floor {
                    hits.push((promising.row(row), bound.to_bits()));
                }
            });
            hits
        };
        prop_assert_eq!(hits(threshold, threshold), hits(f32::NEG_INFINITY, threshold));
    }
}

/// What the two looks give.
fn both_looks(
    kernel: Kernel,
    planes: &[Vec<u8>; 2],
    factors: &[Vec<[u8; 2]>; 2],
    query: &Int2Query,
    threshold: f32,
) -> (Promising, Tile) {
    let (mut promising, mut tile) = (Promising::new(), Tile::new());
    promising.threshold = threshold;
    let factors = factors.each_ref().map(Vec::as_slice);
    kernel.int2_high(&planes[0], factors[0], query, &mut promising);
    kernel.int2_both(&planes[1], factors, query, &promising, &mut tile);
    (promising, tile)
}

proptest! {
    #[test]
    fn every_kernel_gives_the_product_that_dot_gives(dim in 1_usize..300, seed: u64) {
        let mut random = Random::new(seed);
        let query: Vec<f32> = (0..dim).map(|_| random.normal() as f32).collect();
        let row: Vec<f16> = (0..dim).map(|_| f16::from_f64(random.normal())).collect();
        let stored: Vec<[u8; 2]> = row.iter().map(|half| half.to_le_bytes()).collect();
        let widened: Vec<f32> = row.iter().map(|half| half.to_f32()).collect();
        let expected = dot(&query, &widened).to_bits();
        for kernel in Kernel::available() {
            let found = kernel.dot_f16(&query, &stored).to_bits();
            prop_assert_eq!(found, expected, "{}", kernel.name());
        }
    }
}

#[test]
fn bounds_lie_margins_above_estimates() {
    let mut random = Random::new(3);
    let rotated: Vec<f32> = (0..128).map(|_| random.normal() as f32 / 11.0).collect();
    let (mut high, mut low) = (vec![0; 16 * INT2_BLOCK], vec![0; 16 * INT2_BLOCK]);
    let levels: Vec<i32> = (0..128).map(|_| 2 * random.below(4) as i32 - 3).collect();
    for (i, level) in levels.iter().enumerate() {
        let code = (level + 3) / 2;
        high[i / 8 * INT2_BLOCK] |= ((code >> 1) << (i % 8)) as u8;
        low[i / 8 * INT2_BLOCK] |= ((code & 1) << (i % 8)) as u8;
    }
    let query = Int2Query::new(&rotated);
    // The first row's bound; one factor, or the other, is so large that it does not count.
    let bound = |factors: [f32; 2]| {
        let factors = factors.map(|factor| vec![f16::from_f32(factor).to_le_bytes(); INT2_BLOCK]);
        let planes = [high.clone(), low.clone()];
        let looks = both_looks(Kernel::best(), &planes, &factors, &query, f32::NEG_INFINITY);
        let mut first = None;
        looks.1.for_hits(|_, found| {
            first.get_or_insert(found);
        });
        first.unwrap()
    };
    let norm = dot(&rotated, &rotated).sqrt();
    let product = |levels: &mut dyn Iterator<Item = f32>| -> f32 {
        rotated.iter().zip(levels).map(|(x, level)| x * level).sum()
    };
    let largest = rotated
        .iter()
        .fold(0.0_f32, |largest, x| largest.max(x.abs()));
    // 128 roundings of half of a fifteenth of the largest component.
    let tolerance = 4.0 * 128.0_f32.sqrt() * largest / 30.0;
    let of_both = product(&mut levels.iter().map(|level| *level as f32)) + MARGINS[1] * norm;
    let of_high =
        product(&mut levels.iter().map(|level| level.signum() as f32)) + MARGINS[0] * norm;
    let found = bound([if of_high > 0.0 { 1e4 } else { 0.0 }, 1.0]);
    // Levels of 2.2 in the mean square.
    assert!(
        (found - of_both).abs() < 2.2 * tolerance,
        "{found} {of_both}"
    );
    let found = bound([1.0, if of_both > 0.0 { 1e4 } else { 0.0 }]);
    assert!((found - of_high).abs() < tolerance, "{found} {of_high}");
}
