//! What the estimates are.

use eyas_shared::embedding::dot;
use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};
use half::f16;

use super::{
    HighBlock, HighLook, Int2Query, Int2Unit, Int8Blocks, Int8Query, Int8Tile, Seen, low_rows_of,
};

pub(super) fn int8_high(blocks: &Int8Blocks<'_>, queries: &[Int8Query], tiles: &mut [Int8Tile]) {
    for (query, tile) in queries.iter().zip(tiles) {
        for (b, (block, scales)) in blocks.each().enumerate() {
            let sums = std::array::from_fn(|row| {
                let products = block.iter().zip(&query.words);
                products
                    .map(|(unit, words)| int8_product(unit.as_chunks().0[row], words))
                    .sum()
            });
            find_hits(&sums, scales, query, b, tile);
        }
    }
}

/// Finds the hits of block `b` by its sums.
pub(super) fn find_hits(
    sums: &[i32; INT8_BLOCK],
    scales: &[[u8; 4]; INT8_BLOCK],
    query: &Int8Query,
    b: usize,
    tile: &mut Int8Tile,
) {
    let bound = |row: usize| query.bound(sums[row], f32::from_le_bytes(scales[row]));
    let reached = (0..INT8_BLOCK).map(|row| u16::from(bound(row) >= tile.threshold) << row);
    let hits = reached.fold(0, |all, hit| all | hit);
    if hits != 0 {
        tile.add_hits(b, hits, sums);
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
    look: &mut HighLook,
) {
    let blocks = units.chunks_exact(query.tables.len()).zip(factors);
    for ((block, factors), found) in blocks.zip(&mut look.blocks) {
        let sums = std::array::from_fn(|row| int2_sum(block, query, row));
        set_sums(sums, factors, query, look.threshold, found);
    }
}

/// Sets what the sums of a block imply.
pub(super) fn set_sums(
    sums: [i32; INT2_BLOCK],
    factors: &[[u8; 2]; INT2_BLOCK],
    query: &Int2Query,
    threshold: f32,
    found: &mut HighBlock,
) {
    let bound = |row: usize| query.bound(0, sums[row].wrapping_sub(query.bias), factors[row]);
    found.sums = sums;
    found.bounds = std::array::from_fn(bound);
    let reached = found.bounds.iter().enumerate();
    let reached = reached.map(|(row, bound)| u32::from(*bound >= threshold) << row);
    found.hits = reached.fold(0, |all, hit| all | hit);
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
