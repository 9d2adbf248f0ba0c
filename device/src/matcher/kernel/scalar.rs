//! What the estimates are.

use eyas_shared::embedding::dot;
use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};
use half::f16;

use super::{GROUP, INT8_UNIT, Int2Query, Int8Query, Tile};

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

pub(super) fn int2(
    planes: [&[[u8; INT2_BLOCK]]; 2],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    tile: &mut Tile,
) {
    let columns = query.tables.len();
    for (b, factors) in factors.iter().enumerate() {
        let blocks = planes.map(|units| &units[b * columns..][..columns]);
        let score = |row: usize| {
            let [high, low] = blocks.map(|block| int2_sum(block, query, row));
            let factor = f16::from_le_bytes(factors[row]).to_f32();
            (2 * high + low - query.bias) as f32 * (query.scale * factor)
        };
        for half in 0..2 {
            let scores = std::array::from_fn(|row| score(half * GROUP + row));
            tile.set(2 * b + half, scores);
        }
    }
}

fn int2_sum(block: &[[u8; INT2_BLOCK]], query: &Int2Query, row: usize) -> i32 {
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
