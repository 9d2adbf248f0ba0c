//! What the estimates are.

use eyas_shared::embedding::dot;
use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};
use half::f16;

use super::{
    HighBlock, HighLook, INT8_UNIT, Int2Query, Int2Unit, Int8Query, Seen, Tile, low_rows_of,
};

pub(super) fn int8(
    units: &[[u8; INT8_UNIT]],
    scales: &[[[u8; 4]; INT8_BLOCK]],
    queries: &[Int8Query],
    tiles: &mut [Tile],
) {
    for (query, tile) in queries.iter().zip(tiles) {
        let blocks = units.chunks_exact(query.words.len()).zip(scales);
        for (b, (block, scales)) in blocks.enumerate() {
            let score = |row: usize| {
                let product: i32 = { block.iter().zip(&query.words) }
                    .map(|(unit, word)| int8_product(&unit.as_chunks().0[row], word))
                    .sum();
                product as f32 * (query.scale * f32::from_le_bytes(scales[row]))
            };
            tile.set(b, std::array::from_fn(score));
        }
    }
}

fn int8_product(codes: &[u8; 4], word: &[i8; 4]) -> i32 {
    let products = codes.iter().zip(word);
    products
        .map(|(code, q)| i32::from(code.cast_signed()) * i32::from(*q))
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
