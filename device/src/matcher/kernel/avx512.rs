//! 64 bytes at a time: codes of 8 and of 2 bits, and f16.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm256_add_epi16, _mm256_loadu_si256, _mm256_permute2x128_si256,
    _mm256_unpackhi_epi16, _mm256_unpacklo_epi16, _mm512_add_epi8, _mm512_add_epi16,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_si256, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_extracti64x4_epi64, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_min_ps, _mm512_mul_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_epi8,
    _mm512_slli_epi16, _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_epi16, _mm512_sub_epi32, _mm512_xor_si512, _mm512_zextsi256_si512,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::{
    GROUP, INT8_UNIT, Int2Query, Int2Unit, Int8Query, MAX_QUERIES, MAX_U16_COLUMNS,
    PREFETCH_BLOCKS, Promising, Tables, Tile, prefetch, prefetch_ahead,
};

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

#[target_feature(enable = "avx512f")]
fn load_sums(sums: &[i32; 16]) -> __m512i {
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
}

/// Sets the scores of a group, and its hits.
#[target_feature(enable = "avx512f")]
fn set_scores(scores: __m512, group: usize, tile: &mut Tile) {
    let threshold = _mm512_set1_ps(tile.threshold);
    tile.hits[group] = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, threshold);
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_storeu_ps(tile.scores[group].as_mut_ptr(), scores) };
}

/// Sets the scores of a group to sums times scales, and its hits.
#[target_feature(enable = "avx512f")]
fn set_group(sums: __m512i, scales: __m512, group: usize, tile: &mut Tile) {
    set_scores(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales), group, tile);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8(
    units: &[[u8; INT8_UNIT]],
    scales: &[[[u8; 4]; INT8_BLOCK]],
    queries: &[Int8Query],
    tiles: &mut [Tile],
) {
    // As many blocks together as leave no sum waiting for the one before it.
    if queries.len() == 1 {
        int8_tile::<1, 4>(units, scales, queries, tiles);
    } else {
        int8_tile::<MAX_QUERIES, 2>(units, scales, queries, tiles);
    }
}

/// The scores of a tile for up to `Q` queries, `B` blocks at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_tile<const Q: usize, const B: usize>(
    units: &[[u8; INT8_UNIT]],
    scales: &[[[u8; 4]; INT8_BLOCK]],
    queries: &[Int8Query],
    tiles: &mut [Tile],
) {
    let columns = queries[0].words.len();
    // Missing queries repeat the first, so that one loop serves every number of them.
    let word = |column: usize, q: usize| {
        let word = queries.get(q).unwrap_or(&queries[0]).words[column];
        i32::from_le_bytes(word.map(i8::cast_unsigned))
    };
    let words: Vec<[i32; Q]> = (0..columns)
        .map(|column| std::array::from_fn(|q| word(column, q)))
        .collect();
    let corrections: Vec<i32> = queries.iter().map(Int8Query::correction).collect();
    let (together, _) = scales.as_chunks::<B>();
    let n_together = B * together.len();
    let (units, last_units) = units.split_at(n_together * columns);
    for (i, (blocks, scales)) in units.chunks_exact(B * columns).zip(together).enumerate() {
        let sums = int8_blocks::<Q, B>(blocks, &words);
        for ((offset, sums), scales) in sums.iter().enumerate().zip(scales) {
            set_int8(
                &sums[..queries.len()],
                &corrections,
                queries,
                scales,
                B * i + offset,
                tiles,
            );
        }
    }
    let last = last_units.chunks_exact(columns).zip(&scales[n_together..]);
    for (i, (block, scales)) in last.enumerate() {
        let [sums] = int8_blocks::<Q, 1>(block, &words);
        set_int8(
            &sums[..queries.len()],
            &corrections,
            queries,
            scales,
            n_together + i,
            tiles,
        );
    }
}

/// The scores of one block from its products of codes plus 128.
#[target_feature(enable = "avx512f")]
fn set_int8(
    sums: &[__m512i],
    corrections: &[i32],
    queries: &[Int8Query],
    scales: &[[u8; 4]; INT8_BLOCK],
    b: usize,
    tiles: &mut [Tile],
) {
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    let scales = unsafe { _mm512_loadu_ps(scales.as_ptr().cast()) };
    for (((sum, correction), query), tile) in sums.iter().zip(corrections).zip(queries).zip(tiles) {
        let sum = _mm512_sub_epi32(*sum, _mm512_set1_epi32(*correction));
        set_group(
            sum,
            _mm512_mul_ps(_mm512_set1_ps(query.scale), scales),
            b,
            tile,
        );
    }
}

/// The products of some blocks, of codes plus 128, with each query.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_blocks<const Q: usize, const B: usize>(
    blocks: &[[u8; INT8_UNIT]],
    words: &[[i32; Q]],
) -> [[__m512i; Q]; B] {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut sums = [[_mm512_setzero_si512(); Q]; B];
    assert!(blocks.len() == B * words.len());
    for (column, words) in words.iter().enumerate() {
        for (block, sums) in sums.iter_mut().enumerate() {
            let unit = &blocks[block * (blocks.len() / B) + column];
            prefetch_ahead(unit);
            let codes = _mm512_xor_si512(load(unit), offset);
            for (word, sum) in words.iter().zip(sums) {
                *sum = _mm512_dpbusd_epi32(*sum, codes, _mm512_set1_epi32(*word));
            }
        }
    }
    sums
}

/// Tables for two neighboring columns, in the quarters of a register: twice the first, twice
/// the second, as rows of a block lie. First those for low nibbles.
pub(super) type TablePair = [[u8; 64]; 2];

/// A last column alone gets a neighbor that adds nothing.
pub(super) fn pair_tables(columns: &[Tables]) -> TablePair {
    let mut pair = [[0; 64]; 2];
    for (nibble, quarters) in pair.iter_mut().enumerate() {
        let (quarters, _) = quarters.as_chunks_mut::<16>();
        for (column, tables) in columns.iter().enumerate() {
            quarters[2 * column..][..2].fill(tables[nibble]);
        }
    }
    pair
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn int2_high(
    units: &[Int2Unit],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    promising: &mut Promising,
) {
    let columns = query.tables.len();
    let threshold = _mm512_set1_ps(promising.threshold);
    for (b, factors) in factors.iter().enumerate() {
        let block = &units[b * columns..][..columns];
        prefetch_ahead(block.as_flattened());
        let totals = int2_totals(block, &query.pairs);
        let (factors, _) = factors.as_chunks::<GROUP>();
        let (stored, _) = promising.sums[b].as_chunks_mut::<GROUP>();
        let mut reached = 0;
        for (half, sums) in totals.into_iter().enumerate() {
            // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
            unsafe { _mm512_storeu_si512(stored[half].as_mut_ptr().cast(), sums) };
            let bounds = int2_bounds(0, sums, &factors[half], query);
            reached |= _mm512_cmp_ps_mask::<_CMP_GE_OQ>(bounds, threshold);
        }
        promising.note(b, reached != 0);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn int2_both(
    low_units: &[Int2Unit],
    factors: [&[[[u8; 2]; INT2_BLOCK]]; 2],
    query: &Int2Query,
    promising: &Promising,
    tile: &mut Tile,
) {
    let columns = query.tables.len();
    let block = |b: u32| &low_units[b as usize * columns..][..columns];
    let blocks = promising.blocks();
    for (i, b) in blocks.iter().enumerate() {
        if let Some(soon) = blocks.get(i + PREFETCH_BLOCKS) {
            prefetch(block(*soon).as_flattened());
            prefetch(factors[1][*soon as usize].as_flattened());
        }
        let low = int2_totals(block(*b), &query.pairs);
        let b = *b as usize;
        let (high, _) = promising.sums[b].as_chunks::<GROUP>();
        let (of_high, _) = factors[0][b].as_chunks::<GROUP>();
        let (of_both, _) = factors[1][b].as_chunks::<GROUP>();
        for half in 0..2 {
            let high = load_sums(&high[half]);
            let both = _mm512_add_epi32(_mm512_slli_epi32::<1>(high), low[half]);
            // The second where the first is not lower.
            let bounds = _mm512_min_ps(
                int2_bounds(1, both, &of_both[half], query),
                int2_bounds(0, high, &of_high[half], query),
            );
            set_scores(bounds, 2 * i + half, tile);
        }
    }
}

/// Bounds of sixteen rows by their sums over the high bits (0) or both planes (1).
#[target_feature(enable = "avx512f")]
fn int2_bounds(
    planes: usize,
    sums: __m512i,
    factors: &[[u8; 2]; GROUP],
    query: &Int2Query,
) -> __m512 {
    let sums = _mm512_sub_epi32(sums, _mm512_set1_epi32(query.biases[planes]));
    let margin = _mm512_set1_ps(query.margins[planes]);
    _mm512_mul_ps(
        _mm512_add_ps(_mm512_cvtepi32_ps(sums), margin),
        _mm512_mul_ps(_mm512_set1_ps(query.scale), widen(factors)),
    )
}

/// Sums of the table entries of one plane of a block, of any number of columns.
#[target_feature(enable = "avx512f,avx512bw")]
fn int2_totals(block: &[Int2Unit], pairs: &[TablePair]) -> [__m512i; 2] {
    if block.len() <= MAX_U16_COLUMNS {
        return int2_sums(block, pairs);
    }
    let mut totals = [_mm512_setzero_si512(); 2];
    let chunks = block.chunks(MAX_U16_COLUMNS);
    for (units, pairs) in chunks.zip(pairs.chunks(MAX_U16_COLUMNS / 2)) {
        for (total, sums) in totals.iter_mut().zip(int2_sums(units, pairs)) {
            *total = _mm512_add_epi32(*total, sums);
        }
    }
    totals
}

/// Sums of the table entries of 32 rows, in order.
#[target_feature(enable = "avx512f,avx512bw")]
fn int2_sums(units: &[Int2Unit], pairs: &[TablePair]) -> [__m512i; 2] {
    let nibble = _mm512_set1_epi8(15);
    // Sums of even rows plus 256 times those of odd ones, modulo 2^16, and of odd rows: of
    // even columns in the low half, of odd ones in the high half.
    let mut both = _mm512_setzero_si512();
    let mut odd = _mm512_setzero_si512();
    let mut add = |codes: __m512i, [low, high]: &TablePair| {
        let low_codes = _mm512_and_si512(codes, nibble);
        let high_codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
        let entries = _mm512_add_epi8(
            _mm512_shuffle_epi8(load(low), low_codes),
            _mm512_shuffle_epi8(load(high), high_codes),
        );
        both = _mm512_add_epi16(both, entries);
        odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(entries));
    };
    let (unit_pairs, last) = units.as_chunks::<2>();
    for (unit_pair, tables) in unit_pairs.iter().zip(pairs) {
        add(
            load(unit_pair.as_flattened().as_array().expect("64 bytes")),
            tables,
        );
    }
    if let ([unit], Some(tables)) = (last, pairs.last()) {
        // SAFETY: 32 bytes are there, and any alignment will do.
        let codes = unsafe { _mm256_loadu_si256(unit.as_ptr().cast()) };
        add(_mm512_zextsi256_si512(codes), tables);
    }
    let even = _mm512_sub_epi16(both, _mm512_slli_epi16::<8>(odd));
    let fold = |sums: __m512i| {
        let high = _mm512_extracti64x4_epi64::<1>(sums);
        _mm256_add_epi16(_mm512_castsi512_si256(sums), high)
    };
    let (even, odd) = (fold(even), fold(odd));
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
