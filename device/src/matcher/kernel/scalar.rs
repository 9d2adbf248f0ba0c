//! What the sums are.

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::{INT8_UNIT, Tables};

pub(super) fn int8(
    units: &[[u8; INT8_UNIT]],
    columns: usize,
    queries: &[&[[i8; 4]]],
    sums: &mut [Vec<[i32; INT8_BLOCK]>],
) {
    for (query, sums) in queries.iter().zip(sums) {
        for (block, sums) in units.chunks_exact(columns).zip(sums) {
            *sums = [0; INT8_BLOCK];
            for (unit, query) in block.iter().zip(*query) {
                for (codes, sum) in unit.as_chunks::<4>().0.iter().zip(&mut *sums) {
                    let products = codes.iter().zip(query);
                    *sum += products
                        .map(|(code, q)| i32::from(code.cast_signed()) * i32::from(*q))
                        .sum::<i32>();
                }
            }
        }
    }
}

pub(super) fn int2(units: &[[u8; INT2_BLOCK]], tables: &[Tables], sums: &mut [[i32; INT2_BLOCK]]) {
    for (block, sums) in units.chunks_exact(tables.len()).zip(sums) {
        *sums = [0; INT2_BLOCK];
        for (unit, [low, high]) in block.iter().zip(tables) {
            for (byte, sum) in unit.iter().zip(&mut *sums) {
                *sum += i32::from(low[usize::from(byte & 15)]);
                *sum += i32::from(high[usize::from(byte >> 4)]);
            }
        }
    }
}
