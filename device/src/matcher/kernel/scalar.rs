//! What the estimates are.

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::{INT8_UNIT, Int2Query, Int8Query};

pub(super) fn int8(
    units: &[[u8; INT8_UNIT]],
    scales: &[[[u8; 4]; INT8_BLOCK]],
    queries: &[Int8Query],
    scores: &mut [Vec<f32>],
) {
    for (query, scores) in queries.iter().zip(scores) {
        let blocks = units.chunks_exact(query.words.len()).zip(scales);
        for ((block, scales), scores) in blocks.zip(scores.as_chunks_mut::<INT8_BLOCK>().0) {
            for (row, (score, scale)) in scores.iter_mut().zip(scales).enumerate() {
                let product: i32 = { block.iter().zip(&query.words) }
                    .map(|(unit, word)| int8_product(&unit.as_chunks().0[row], word))
                    .sum();
                *score = product as f32 * (query.scale * f32::from_le_bytes(*scale));
            }
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
    factors: &[[f32; INT2_BLOCK]],
    query: &Int2Query,
    scores: &mut [[f32; INT2_BLOCK]],
) {
    let columns = query.tables.len();
    for (b, (factors, scores)) in factors.iter().zip(scores).enumerate() {
        let blocks = planes.map(|units| &units[b * columns..][..columns]);
        for (row, (score, factor)) in scores.iter_mut().zip(factors).enumerate() {
            let [high, low] = blocks.map(|block| int2_sum(block, query, row));
            *score = (2 * high + low - query.bias) as f32 * (query.scale * factor);
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
