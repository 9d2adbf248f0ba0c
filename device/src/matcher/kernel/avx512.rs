//! 64 bytes at a time, where that gains anything: products with several queries, and f16.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm256_loadu_si256, _mm512_add_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_storeu_ps, _mm512_sub_epi32, _mm512_xor_si512,
};

use eyas_shared::gallery::codes::INT8_BLOCK;

use super::{INT8_UNIT, Int8Query, MAX_QUERIES, Tile};

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn load_floats(values: &[f32; 16]) -> __m512 {
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Sets the scores of a group to sums times scales, and its hits.
#[target_feature(enable = "avx512f")]
fn set_group(sums: __m512i, scales: __m512, group: usize, tile: &mut Tile) {
    let scores = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales);
    let threshold = _mm512_set1_ps(tile.threshold);
    tile.hits[group] = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, threshold);
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_storeu_ps(tile.scores[group].as_mut_ptr(), scores) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8(
    units: &[[u8; INT8_UNIT]],
    scales: &[[[u8; 4]; INT8_BLOCK]],
    queries: &[Int8Query],
    tiles: &mut [Tile],
) {
    let columns = queries[0].words.len();
    let blocks = units.chunks_exact(columns).zip(scales);
    // Missing queries repeat the first, so that one loop serves every number of them.
    let words: [&[[i8; 4]]; MAX_QUERIES] =
        std::array::from_fn(|q| &queries.get(q).unwrap_or(&queries[0]).words[..columns]);
    let corrections: Vec<i32> = queries.iter().map(Int8Query::correction).collect();
    for (b, (block, scales)) in blocks.enumerate() {
        let sums = int8_block(block, words);
        for (q, tile) in tiles.iter_mut().enumerate() {
            set_int8(sums[q], corrections[q], queries[q].scale, scales, b, tile);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn set_int8(
    sum: __m512i,
    correction: i32,
    query_scale: f32,
    scales: &[[u8; 4]; INT8_BLOCK],
    b: usize,
    tile: &mut Tile,
) {
    let sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(correction));
    let scales = load_floats(&scales.map(f32::from_le_bytes));
    set_group(
        sum,
        _mm512_mul_ps(_mm512_set1_ps(query_scale), scales),
        b,
        tile,
    );
}

/// Four codes of the query in every lane.
#[target_feature(enable = "avx512f")]
fn broadcast(word: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(word.map(i8::cast_unsigned)))
}

/// The products of one block, of codes plus 128, with each query.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_block(
    block: &[[u8; INT8_UNIT]],
    words: [&[[i8; 4]]; MAX_QUERIES],
) -> [__m512i; MAX_QUERIES] {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut sums = [_mm512_setzero_si512(); MAX_QUERIES];
    let words = words.map(|words| &words[..block.len()]);
    for (column, unit) in block.iter().enumerate() {
        let codes = _mm512_xor_si512(load(unit), offset);
        for (words, sum) in words.iter().zip(&mut sums) {
            *sum = _mm512_dpbusd_epi32(*sum, codes, broadcast(words[column]));
        }
    }
    sums
}

/// Sixteen little-endian f16 numbers.
#[target_feature(enable = "avx512f")]
fn widen(halves: &[[u8; 2]; 16]) -> __m512 {
    // SAFETY: 32 bytes are there, and any alignment will do.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// The product in 16 lanes, as `dot` has them.
#[target_feature(enable = "avx512f")]
pub(super) fn dot_f16(query: &[f32], row: &[[u8; 2]]) -> f32 {
    let mut lanes = _mm512_set1_ps(0.0);
    let (blocks, rest) = query.as_chunks::<16>();
    let (row_blocks, row_rest) = row.as_chunks::<16>();
    for (query, row) in blocks.iter().zip(row_blocks) {
        lanes = _mm512_add_ps(lanes, _mm512_mul_ps(load_floats(query), widen(row)));
    }
    let mut sums = [0.0; 16];
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), lanes) };
    super::finish_dot(sums, rest.iter().zip(row_rest))
}
