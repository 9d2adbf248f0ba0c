//! 64 bytes at a time.

use std::arch::x86_64::{
    __m512i, _mm256_add_epi16, _mm512_add_epi8, _mm512_add_epi16, _mm512_add_epi32,
    _mm512_and_si512, _mm512_castsi512_si256, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64,
    _mm512_loadu_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_srli_epi16, _mm512_storeu_si512, _mm512_sub_epi32,
    _mm512_xor_si512,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::{INT8_UNIT, MAX_QUERIES, MAX_U16_COLUMNS, Tables, avx2};

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8(
    units: &[[u8; INT8_UNIT]],
    columns: usize,
    queries: &[&[[i8; 4]]],
    sums: &mut [Vec<[i32; INT8_BLOCK]>],
) {
    match queries {
        [] => {}
        [query] => {
            for (block, sums) in units.chunks_exact(columns).zip(&mut sums[0]) {
                *sums = int8_block(block, query);
            }
        }
        _ => {
            // Missing queries repeat the first, so that one loop serves every number.
            let queries: [&[[i8; 4]]; MAX_QUERIES] =
                std::array::from_fn(|q| *queries.get(q).unwrap_or(&queries[0]));
            for (b, block) in units.chunks_exact(columns).enumerate() {
                let products = int8_block_batch(block, queries);
                for (sums, products) in sums.iter_mut().zip(products) {
                    sums[b] = products;
                }
            }
        }
    }
}

/// Four codes of the query in every lane.
#[target_feature(enable = "avx512f")]
fn broadcast(query: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(query.map(i8::cast_unsigned)))
}

/// 128 times the sum of a query's codes: what adding 128 to every code of a row adds to
/// its product.
fn correction(query: &[[i8; 4]]) -> i32 {
    128 * query
        .as_flattened()
        .iter()
        .map(|q| i32::from(*q))
        .sum::<i32>()
}

#[target_feature(enable = "avx512f")]
fn finish(sum: __m512i, query: &[[i8; 4]]) -> [i32; INT8_BLOCK] {
    let sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(correction(query)));
    let mut out = [0; INT8_BLOCK];
    // SAFETY: 16 sums of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
    out
}

/// The products of one block with one query: four sums in turn, so that none waits for the
/// one before.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_block(block: &[[u8; INT8_UNIT]], query: &[[i8; 4]]) -> [i32; INT8_BLOCK] {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut sums = [_mm512_setzero_si512(); 4];
    let (units, rest) = block.as_chunks::<4>();
    let (words, rest_words) = query.as_chunks::<4>();
    for (units, words) in units.iter().zip(words) {
        for lane in 0..4 {
            let codes = _mm512_xor_si512(load(&units[lane]), offset);
            sums[lane] = _mm512_dpbusd_epi32(sums[lane], codes, broadcast(words[lane]));
        }
    }
    for (unit, word) in rest.iter().zip(rest_words) {
        let codes = _mm512_xor_si512(load(unit), offset);
        sums[0] = _mm512_dpbusd_epi32(sums[0], codes, broadcast(*word));
    }
    let sum = _mm512_add_epi32(
        _mm512_add_epi32(sums[0], sums[1]),
        _mm512_add_epi32(sums[2], sums[3]),
    );
    finish(sum, query)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_block_batch(
    block: &[[u8; INT8_UNIT]],
    queries: [&[[i8; 4]]; MAX_QUERIES],
) -> [[i32; INT8_BLOCK]; MAX_QUERIES] {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut sums = [_mm512_setzero_si512(); MAX_QUERIES];
    for (column, unit) in block.iter().enumerate() {
        let codes = _mm512_xor_si512(load(unit), offset);
        for (query, sum) in queries.iter().zip(&mut sums) {
            *sum = _mm512_dpbusd_epi32(*sum, codes, broadcast(query[column]));
        }
    }
    std::array::from_fn(|q| finish(sums[q], queries[q]))
}

#[target_feature(enable = "avx2,avx512f,avx512bw")]
pub(super) fn int2(units: &[[u8; INT2_BLOCK]], tables: &[Tables], sums: &mut [[i32; INT2_BLOCK]]) {
    // Two columns fill a register; the last of an odd number is for the narrower kernel.
    let wide: Vec<[[u8; 64]; 2]> = tables.as_chunks::<2>().0.iter().map(widen).collect();
    for (block, sums) in units.chunks_exact(tables.len()).zip(sums) {
        *sums = [0; INT2_BLOCK];
        let (pairs, rest) = block.as_chunks::<2>();
        if let Some(_odd) = rest.first() {
            avx2::int2(
                rest,
                &tables[tables.len() - 1..],
                std::slice::from_mut(sums),
            );
        }
        let pieces = pairs.chunks(MAX_U16_COLUMNS / 2);
        for (units, tables) in pieces.zip(wide.chunks(MAX_U16_COLUMNS / 2)) {
            let mut both = _mm512_setzero_si512();
            let mut odd = _mm512_setzero_si512();
            for (units, tables) in units.iter().zip(tables) {
                let entries = int2_units(units, tables);
                both = _mm512_add_epi16(both, entries);
                odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(entries));
            }
            let fold = |sum| {
                _mm256_add_epi16(
                    _mm512_castsi512_si256(sum),
                    _mm512_extracti64x4_epi64::<1>(sum),
                )
            };
            avx2::add_rows(fold(both), fold(odd), sums);
        }
    }
}

/// The tables of two columns, as 64-byte registers hold them: for the low nibbles and for
/// the high ones, each twice for the 32 rows of the first column and of the second.
fn widen([first, second]: &[Tables; 2]) -> [[u8; 64]; 2] {
    [0, 1].map(|nibble| {
        let mut wide = [0; 64];
        let (lanes, _) = wide.as_chunks_mut::<16>();
        for (lane, tables) in lanes.iter_mut().zip([first, first, second, second]) {
            *lane = tables[nibble];
        }
        wide
    })
}

#[target_feature(enable = "avx512f,avx512bw")]
fn int2_units(units: &[[u8; INT2_BLOCK]; 2], [low, high]: &[[u8; 64]; 2]) -> __m512i {
    let nibble = _mm512_set1_epi8(15);
    let bytes: &[u8; 64] = units
        .as_flattened()
        .try_into()
        .expect("two units of 32 bytes");
    let codes = load(bytes);
    let low_codes = _mm512_and_si512(codes, nibble);
    let high_codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
    _mm512_add_epi8(
        _mm512_shuffle_epi8(load(low), low_codes),
        _mm512_shuffle_epi8(load(high), high_codes),
    )
}
