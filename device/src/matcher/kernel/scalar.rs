//! What the estimates are.

use eyas_shared::embedding::dot;
use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};
use half::f16;

use super::{GROUP, INT8_UNIT, Int2Query, Int2Unit, Int8Query, Promising, Tile};

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
    promising: &mut Promising,
) {
    let columns = query.tables.len();
    for (b, factors) in factors.iter().enumerate() {
        let block = &units[b * columns..][..columns];
        let sums: [i32; INT2_BLOCK] = std::array::from_fn(|row| int2_sum(block, query, row));
        note_sums(b, sums, factors, query, promising);
    }
}

/// Keeps the sums of block `b`, and says whether it is promising.
pub(super) fn note_sums(
    b: usize,
    sums: [i32; INT2_BLOCK],
    factors: &[[u8; 2]; INT2_BLOCK],
    query: &Int2Query,
    promising: &mut Promising,
) {
    // Every row is looked at: a loop that might end early would not become vector code.
    let is_promising = { sums.iter().zip(factors) }
        .map(|(sum, factor)| int2_bound(0, *sum, *factor, query) >= promising.threshold)
        .fold(false, |any, reaches| any | reaches);
    promising.note(b, is_promising);
    promising.sums[b] = sums;
}

pub(super) fn int2_both(
    low_units: &[Int2Unit],
    factors: [&[[[u8; 2]; INT2_BLOCK]]; 2],
    query: &Int2Query,
    promising: &Promising,
    tile: &mut Tile,
) {
    let columns = query.tables.len();
    for (i, b) in promising.blocks().iter().map(|b| *b as usize).enumerate() {
        let block = &low_units[b * columns..][..columns];
        let sums: [i32; INT2_BLOCK] = std::array::from_fn(|row| int2_sum(block, query, row));
        let factors = factors.map(|factors| &factors[b]);
        set_int2(i, &promising.sums[b], &sums, factors, query, tile);
    }
}

/// Sets the bounds of promising block `i` from the sums over its planes.
pub(super) fn set_int2(
    i: usize,
    high: &[i32; INT2_BLOCK],
    low: &[i32; INT2_BLOCK],
    factors: [&[[u8; 2]; INT2_BLOCK]; 2],
    query: &Int2Query,
    tile: &mut Tile,
) {
    let bound = |row: usize| {
        let of_high = int2_bound(0, high[row], factors[0][row], query);
        let both = high[row].wrapping_mul(2).wrapping_add(low[row]);
        let of_both = int2_bound(1, both, factors[1][row], query);
        if of_both < of_high { of_both } else { of_high }
    };
    for half in 0..2 {
        let bounds = std::array::from_fn(|row| bound(half * GROUP + row));
        tile.set(2 * i + half, bounds);
    }
}

/// What a row's score is hardly above, by its sum over the high bits (0) or both planes (1).
pub(super) fn int2_bound(planes: usize, sum: i32, factor: [u8; 2], query: &Int2Query) -> f32 {
    let product = sum.wrapping_sub(query.biases[planes]) as f32 + query.margins[planes];
    product * (query.scale * f16::from_le_bytes(factor).to_f32())
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

pub(super) fn dot_f16(query: &[f32], row: &[[u8; 2]]) -> f32 {
    let row = row.iter().map(|half| f16::from_le_bytes(*half).to_f32());
    dot(query, &row.collect::<Vec<_>>())
}
