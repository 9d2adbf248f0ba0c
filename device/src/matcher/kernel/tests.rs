use eyas_shared::embedding::dot;
use eyas_shared::gallery::int8::MIDDLE;
use eyas_shared::quant;
use eyas_shared::random::Random;
use half::f16;
use proptest::prelude::*;

use super::int8::{INT8_MARGIN, Int8Unit};
use super::*;

fn bytes(random: &mut Random, n: usize) -> Vec<u8> {
    (0..n).map(|_| random.bits() as u8).collect()
}

/// A code as galleries hold them: -128 is none of them.
fn code(random: &mut Random) -> i8 {
    (random.below(255) as i16 - 127) as i8
}

fn reaching(threshold: f32) -> Hits {
    let mut hits = Hits::default();
    hits.threshold = threshold;
    hits
}

/// Hits; sums of low halves beside them.
type Int8Looks = (Vec<Seen>, i32);

proptest! {
    #[test]
    fn every_kernel_gives_the_same_int8_sums_and_hits(
        n_blocks in 0_usize..5,
        columns in prop_oneof![1_usize..40, Just(1024)],
        n_queries in 0..=MAX_QUERIES,
        extreme: bool,
        picked: prop::sample::Index,
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let mut high = bytes(&mut random, n_blocks * columns * size_of::<Int8Unit>());
        let mut low_row = bytes(&mut random, 4 * columns);
        if extreme {
            high.fill(255);
            low_row.fill(255);
        }
        let n_rows = n_blocks * INT8_BLOCK;
        // What a damaged file may hold, too.
        let odd = [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-40];
        let scale = |random: &mut Random| match random.below(8) {
            0 => odd[random.below(odd.len())],
            _ => random.unit() as f32,
        };
        let scales: Vec<[u8; 4]> =
            (0..n_rows).map(|_| scale(&mut random).to_le_bytes()).collect();
        let query = |random: &mut Random| {
            let code = |random: &mut Random| if extreme { -127 } else { code(random) };
            let codes: Vec<i8> = (0..8 * columns).map(|_| code(random)).collect();
            Int8Query::of_codes(&codes)
        };
        let queries: Vec<Int8Query> = (0..n_queries).map(|_| query(&mut random)).collect();
        let looked = |kernel: Kernel, threshold: f32| -> Vec<Int8Looks> {
            let mut hits: Vec<Hits> = queries.iter().map(|_| reaching(threshold)).collect();
            kernel.int8_high(&high, &scales, &queries, &mut hits);
            let looks = |(query, hits): (&Int8Query, &Hits)| {
                (hits.iter().collect(), kernel.int8_low(&low_row, query))
            };
            queries.iter().zip(&hits).map(looks).collect()
        };
        let all = looked(Kernel::Scalar, f32::NEG_INFINITY);
        // The bound of a row: whoever is off by its last bit misses it, or finds another.
        let threshold = match all.first() {
            Some((hits, _)) if !hits.is_empty() => hits[picked.index(hits.len())].bound,
            _ => 0.0,
        };
        for threshold in [f32::NEG_INFINITY, threshold] {
            let expected = looked(Kernel::Scalar, threshold);
            for kernel in Kernel::available() {
                prop_assert_eq!(&looked(kernel, threshold), &expected, "{}", kernel.name());
            }
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
        let high_bits = bytes(&mut random, n_blocks * columns * INT2_BLOCK);
        let largest = MAX_INT2_CODE as usize;
        let code = |random: &mut Random| random.below(2 * largest + 1) as i8 - largest as i8;
        let codes: Vec<i8> = (0..8 * columns)
            .map(|_| if extreme { largest as i8 } else { code(&mut random) })
            .collect();
        let query = Int2Query::of_codes(&codes, random.unit() as f32, margins);
        let n_rows = n_blocks * INT2_BLOCK;
        let factor = |random: &mut Random| f16::from_f64(random.unit()).to_le_bytes();
        let factors: Vec<[u8; 2]> = (0..n_rows).map(|_| factor(&mut random)).collect();
        let mut low_rows = Vec::new();
        for _ in 0..n_rows {
            low_rows.extend(bytes(&mut random, columns));
            low_rows.extend(factor(&mut random));
        }
        let looked = |kernel: Kernel| {
            let mut hits = reaching(threshold);
            kernel.int2_high(&high_bits, &factors, &query, &mut hits);
            let (seen, mut bounds) = (hits.iter().collect::<Vec<_>>(), Vec::new());
            kernel.int2_low(&low_rows, &seen, &query, &mut bounds);
            let found = seen.iter().zip(&bounds);
            found
                .map(|(seen, both)| (seen.place, seen.sum, seen.bound.to_bits(), both.to_bits()))
                .collect::<Vec<_>>()
        };
        let expected = looked(Kernel::Scalar);
        for kernel in Kernel::available() {
            prop_assert_eq!(&looked(kernel), &expected, "{}", kernel.name());
        }
    }
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

    #[test]
    fn every_kernel_gives_the_products_that_dot_gives(
        dim in 1_usize..300,
        n_rows in 0_usize..20,
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let mut values =
            |n: usize| -> Vec<f32> { (0..n).map(|_| random.normal() as f32).collect() };
        let (query, rows) = (values(dim), values(n_rows * dim));
        let expected = rows.chunks_exact(dim).map(|row| dot(&query, row).to_bits());
        let expected: Vec<u32> = expected.collect();
        for kernel in Kernel::available() {
            let mut scores = vec![0.0; n_rows];
            kernel.dots(&query, &rows, &mut scores);
            let found: Vec<u32> = scores.iter().map(|score| score.to_bits()).collect();
            prop_assert_eq!(&found, &expected, "{}", kernel.name());
        }
    }
}

#[test]
fn bounds_lie_margins_above_estimates() {
    let mut random = Random::new(3);
    let rotated: Vec<f32> = (0..128).map(|_| random.normal() as f32 / 11.0).collect();
    let (mut high_bits, mut low_row) = (vec![0; 16 * INT2_BLOCK], vec![0; 16]);
    let levels: Vec<i32> = (0..128).map(|_| 2 * random.below(4) as i32 - 3).collect();
    for (i, level) in levels.iter().enumerate() {
        let code = (level + 3) / 2;
        high_bits[i / 8 * INT2_BLOCK] |= ((code >> 1) << (i % 8)) as u8;
        low_row[i / 8] |= ((code & 1) << (i % 8)) as u8;
    }
    let query = Int2Query::new(&rotated);
    // The first row's bound; one factor, or the other, is so large that it does not count.
    let bound = |factors: [f32; 2]| {
        let [of_high, of_both] = factors.map(|factor| f16::from_f32(factor).to_le_bytes());
        let mut hits = reaching(f32::NEG_INFINITY);
        Kernel::best().int2_high(&high_bits, &[of_high; INT2_BLOCK], &query, &mut hits);
        let first = hits.iter().next();
        let mut bounds = Vec::new();
        let low_row = [&low_row[..], &of_both].concat();
        Kernel::best().int2_low(&low_row, &[first.unwrap()], &query, &mut bounds);
        bounds[0]
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

#[test]
fn int8_estimates_are_products_of_codes_and_bounds_are_above_them() {
    let mut random = Random::new(4);
    let dim = 128;
    let mut normal = || random.normal() as f32;
    // The last ones look all in one direction, where low halves do not cancel out.
    let queries: [Vec<f32>; 3] = [
        (0..dim).map(|_| normal()).collect(),
        (0..dim).map(|_| normal().abs()).collect(),
        (0..dim).map(|_| -normal().abs()).collect(),
    ];
    for embedding in &queries {
        let query = Int8Query::new(embedding);
        let query_scale = quant::symmetric_scale(embedding);
        let codes: Vec<i32> = { embedding.iter() }
            .map(|x| i32::from(quant::to_i8(*x, query_scale)))
            .collect();
        let mut closest = f32::INFINITY;
        for _ in 0..10_000 {
            let row: Vec<f32> = (0..dim).map(|_| normal()).collect();
            let scale = quant::symmetric_scale(&row);
            let (mut of_high, mut of_low, mut middle, mut expected) = (0, 0, 0, 0);
            for (x, q) in row.iter().zip(&codes) {
                let code = i32::from(quant::to_i8(*x, scale));
                let shifted = code + 128;
                of_high += q * (shifted >> 4);
                of_low += q * (shifted & 15);
                middle += q * (16 * (shifted >> 4) + MIDDLE - 128);
                expected += q * code;
            }
            let estimate = query.estimate(of_high, of_low, 0.5);
            assert_eq!(estimate, expected as f32 * 0.5);
            assert_eq!(query.guess(of_high, 0.5), middle as f32 * 0.5);
            closest = closest.min(2.0 * (query.bound(of_high, 0.5) - estimate));
        }
        // One row of 10,000 comes as near as 1.3 of 5 deviations.
        let squares: i32 = codes.iter().map(|code| code * code).sum();
        let margin = INT8_MARGIN as f32 * (squares as f32).sqrt();
        assert!(
            0.0 < closest && closest < 0.5 * margin,
            "{closest} {margin}"
        );
    }
}
