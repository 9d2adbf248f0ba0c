//! 64 bytes at a time.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm256_add_epi16, _mm256_loadu_si256, _mm256_permute2x128_si256,
    _mm256_slli_epi16, _mm256_sub_epi16, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
    _mm512_add_epi8, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castsi512_si256, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi32, _mm512_srli_epi16,
    _mm512_storeu_ps, _mm512_sub_epi32, _mm512_xor_si512,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::{INT8_UNIT, Int2Query, Int8Query, MAX_QUERIES, MAX_U16_COLUMNS, Tile, avx2};

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
    if let ([query], [tile]) = (queries, &mut *tiles) {
        let correction = query.correction();
        for (b, (block, scales)) in blocks.enumerate() {
            let sum = int8_block(block, &query.words);
            set_int8(sum, correction, query.scale, scales, b, tile);
        }
        return;
    }
    // Missing queries repeat the first, so that one loop serves every number of them.
    let words: [&[[i8; 4]]; MAX_QUERIES] =
        std::array::from_fn(|q| &queries.get(q).unwrap_or(&queries[0]).words[..columns]);
    let corrections: Vec<i32> = queries.iter().map(Int8Query::correction).collect();
    for (b, (block, scales)) in blocks.enumerate() {
        let sums = int8_block_batch(block, words);
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

/// The products of one block, of codes plus 128, with one query: four sums in turn, so that
/// none waits for the one before.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_block(block: &[[u8; INT8_UNIT]], query: &[[i8; 4]]) -> __m512i {
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
    let halves = [
        _mm512_add_epi32(sums[0], sums[1]),
        _mm512_add_epi32(sums[2], sums[3]),
    ];
    _mm512_add_epi32(halves[0], halves[1])
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_block_batch(
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

/// Columns of one piece whose sums fit 16 bits, in pairs.
const MAX_U16_PAIRS: usize = MAX_U16_COLUMNS / 2;

#[target_feature(enable = "avx2,f16c,avx512f,avx512bw")]
pub(super) fn int2(
    planes: [&[[u8; INT2_BLOCK]]; 2],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    tile: &mut Tile,
) {
    let columns = query.tables.len();
    if columns % 2 == 1 {
        // Two columns fill a register, and an odd number leaves one over.
        return avx2::int2(planes, factors, query, tile);
    }
    let bias = _mm512_set1_epi32(query.bias);
    let pairs = planes.map(|units| units.as_chunks::<2>().0);
    for (b, factors) in factors.iter().enumerate() {
        let blocks = pairs.map(|pairs| &pairs[b * columns / 2..][..columns / 2]);
        let mut totals = [_mm512_setzero_si512(); 2];
        for first in (0..columns / 2).step_by(MAX_U16_PAIRS) {
            let n_pairs = MAX_U16_PAIRS.min(columns / 2 - first);
            let tables = &query.wide_tables[first..][..n_pairs];
            let [high, low] = blocks.map(|block| int2_sums(&block[first..][..n_pairs], tables));
            for half in 0..2 {
                let sums = _mm512_add_epi32(_mm512_slli_epi32::<1>(high[half]), low[half]);
                totals[half] = _mm512_add_epi32(totals[half], sums);
            }
        }
        let (factors, _) = factors.as_chunks::<16>();
        for half in 0..2 {
            let scales = _mm512_mul_ps(_mm512_set1_ps(query.scale), widen(&factors[half]));
            let sums = _mm512_sub_epi32(totals[half], bias);
            set_group(sums, scales, 2 * b + half, tile);
        }
    }
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

/// Sums of the table entries of 32 rows, in order.
#[target_feature(enable = "avx2,avx512f,avx512bw")]
fn int2_sums(pairs: &[[[u8; INT2_BLOCK]; 2]], tables: &[[[u8; 64]; 2]]) -> [__m512i; 2] {
    let nibble = _mm512_set1_epi8(15);
    // Sums of even rows plus 256 times those of odd ones, modulo 2^16, and of odd rows.
    let mut both = _mm512_setzero_si512();
    let mut odd = _mm512_setzero_si512();
    for (units, [low, high]) in pairs.iter().zip(tables) {
        let (registers, _) = units.as_flattened().as_chunks::<64>();
        let codes = load(&registers[0]);
        let low_codes = _mm512_and_si512(codes, nibble);
        let high_codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
        let entries = _mm512_add_epi8(
            _mm512_shuffle_epi8(load(low), low_codes),
            _mm512_shuffle_epi8(load(high), high_codes),
        );
        both = _mm512_add_epi16(both, entries);
        odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(entries));
    }
    // The halves are two columns of the same rows.
    let [both, odd] = [both, odd].map(|sums| {
        _mm256_add_epi16(
            _mm512_castsi512_si256(sums),
            _mm512_extracti64x4_epi64::<1>(sums),
        )
    });
    let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
    let (low, high) = (
        _mm256_unpacklo_epi16(even, odd),
        _mm256_unpackhi_epi16(even, odd),
    );
    // Each half of `low` and `high` holds 8 rows; they alternate.
    [
        _mm512_cvtepu16_epi32(_mm256_permute2x128_si256::<0x20>(low, high)),
        _mm512_cvtepu16_epi32(_mm256_permute2x128_si256::<0x31>(low, high)),
    ]
}
