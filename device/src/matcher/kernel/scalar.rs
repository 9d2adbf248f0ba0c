//! What the estimates are.

use eyas_shared::embedding::dot;
use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};
use half::f16;

use super::{GROUP, Hits, Int2Query, Int2Unit, Int8Blocks, Int8Query, Seen, low_rows_of};

pub(super) fn int8_high(blocks: &Int8Blocks<'_>, queries: &[Int8Query], hits: &mut [Hits]) {
    for (query, hits) in queries.iter().zip(hits) {
        for (b, (block, scales)) in blocks.each().enumerate() {
            let sums = std::array::from_fn(|row| {
                let products = block.iter().zip(&query.words);
                products
                    .map(|(unit, words)| int8_product(unit.as_chunks().0[row], words))
                    .sum()
            });
            int8_hits(sums, scales, query, b, hits);
        }
    }
}

/// Adds the hits of block `b`, by its sums.
pub(super) fn int8_hits(
    sums: [i32; INT8_BLOCK],
    scales: &[[u8; 4]; INT8_BLOCK],
    query: &Int8Query,
    b: usize,
    hits: &mut Hits,
) {
    let bound = |row: usize| query.bound(sums[row], f32::from_le_bytes(scales[row]));
    add_hits(b * INT8_BLOCK, sums, std::array::from_fn(bound), hits);
}

fn add_hits(first: usize, sums: [i32; GROUP], bounds: [f32; GROUP], hits: &mut Hits) {
    let reached = bounds.iter().enumerate();
    let reached = reached.map(|(row, bound)| u16::from(*bound >= hits.threshold) << row);
    let reached = reached.fold(0, |all, hit| all | hit);
    if reached != 0 {
        hits.add(reached, first, &sums, &bounds);
    }
}

fn int8_product(halves: [u8; 4], [lower, upper]: &[[i8; 4]; 2]) -> i32 {
    let product = |half: u8, code: &i8| i32::from(half) * i32::from(*code);
    let lower = halves.iter().zip(lower);
    let upper = halves.iter().zip(upper);
    lower
        .map(|(byte, code)| product(byte & 15, code))
        .sum::<i32>()
        + upper
            .map(|(byte, code)| product(byte >> 4, code))
            .sum::<i32>()
}

pub(super) fn int8_low(row: &[u8], lower: &[i8], upper: &[i8]) -> i32 {
    let products = row.iter().zip(lower.iter().zip(upper));
    // 15 times 127, twice, fits 16 bits.
    let product = |byte: u8, lower: i8, upper: i8| {
        i16::from(byte & 15) * i16::from(lower) + i16::from(byte >> 4) * i16::from(upper)
    };
    products
        .map(|(byte, (lower, upper))| i32::from(product(*byte, *lower, *upper)))
        .sum()
}

pub(super) fn int2_high(
    units: &[Int2Unit],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    hits: &mut Hits,
) {
    let blocks = units.chunks_exact(query.tables.len()).zip(factors);
    for (b, (block, factors)) in blocks.enumerate() {
        let sums = std::array::from_fn(|row| int2_sum(block, query, row));
        int2_hits(sums, factors, query, b, hits);
    }
}

/// Adds the hits of block `b`, by its sums.
pub(super) fn int2_hits(
    sums: [i32; INT2_BLOCK],
    factors: &[[u8; 2]; INT2_BLOCK],
    query: &Int2Query,
    b: usize,
    hits: &mut Hits,
) {
    for first in (0..INT2_BLOCK).step_by(GROUP) {
        let sums = std::array::from_fn(|i| sums[first + i]);
        let bound = |i: usize| query.bound(0, sums[i].wrapping_sub(query.bias), factors[first + i]);
        add_hits(
            b * INT2_BLOCK + first,
            sums,
            std::array::from_fn(bound),
            hits,
        );
    }
}

pub(super) fn int2_low(low_rows: &[u8], seen: &[Seen], query: &Int2Query, bounds: &mut Vec<f32>) {
    let rows = low_rows_of(low_rows, seen, query.tables.len());
    bounds.extend(rows.map(|(seen, bits, factor)| query.lower_bound(seen, bits, factor)));
}

fn int2_sum(block: &[Int2Unit], query: &Int2Query, row: usize) -> i32 {
    let entries = block.iter().zip(&query.tables);
    entries
        .map(|(unit, [low, high])| {
            let byte = usize::from(unit[row]);
            i32::from(low[byte & 15]) + i32::from(high[byte >> 4])
        })
        .sum()
}

pub(super) fn dots(query: &[f32], rows: &[f32], scores: &mut [f32]) {
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
        *score = dot(query, row);
    }
}

pub(super) fn dot_f16(query: &[f32], row: &[[u8; 2]]) -> f32 {
    let row = row.iter().map(|half| f16::from_le_bytes(*half).to_f32());
    dot(query, &row.collect::<Vec<_>>())
}
